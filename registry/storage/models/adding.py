"""Insertion of models, and update of known ones."""

from __future__ import annotations

from math import isclose
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import delete, insert, select, update

from registry.errors import NameTakenError
from registry.storage.engine import schema
from registry.storage.engine.dialects import insert_rows, listed
from registry.storage.engine.schema import models, names
from registry.storage.models.inserting import (
    insert_models,
    insert_spectra,
    origin_values,
    put_sketches,
    put_weight_figures,
    replace_layers,
)
from registry.storage.models.measured_values import put_measured, specs_held
from registry.storage.models.model_queries import is_exact, is_older, short_hash
from registry.storage.models.model_validation import check_model, check_name
from registry.storage.models.records import Added
from registry.storage.models.stored_cards import drop_if_unused, put_card, stored_card, utc_now
from registry.types.weights import HEADER_PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Row

    from registry.storage.models.records import NewModel
    from registry.types.spectra import Conjugacy, Fingerprint

    LayerKey = tuple[str, int, int, int, int, int, int]  # name, p, q and the cut: axis, start, stop, period

__all__ = ["absorb", "add_models", "agreements", "claim_name", "layer_means", "means_of"]

_KNOWN = (models.c.id, models.c.matrix_rule, models.c.content_hash)
SAME_MEAN = 1e-6
"""Relative difference below which two measurements of one layer have the same mean eigenvalue."""


def add_models(connection: Connection, given: Sequence[NewModel], *, replace: bool = False) -> list[Added]:
    """Store models in order. Known weights receive the name and new values.

    By another matrix rule, or exact where they were approximate and the other way around, they get new layers, too.
    A name of a model of an older matrix rule means the same file, measured anew, where sizes and the means of common
    layers are equal: the model keeps its id, names, card, metrics and tags, and gets the new layers and hash.
    A model of which the header alone was read is completed likewise by the weights at that place, if the header is the
    same, whatever its name. A header of a model whose weights were read adds nothing, under the name of that model.
    Some 25 statements for all that are new under free names, however many; as many again for each of the others.

    Raises
    ------
    NameTakenError
        A name is that of other weights, and ``replace`` is not asked for.
    SpecMismatchError
        The spectra are not those of the plan's layers, or a fingerprint is of another matrix rule.
    SpectrumError
        A spectrum, vector or figure is not finite, or of the wrong shape.
    UsageError
        The name cannot be one, or there are no spectra and the weights are not known by this rule.
    """
    for new in given:
        check_name(new.name)
        check_model(new)
    fresh = _insert_fresh(connection, given)
    vectors: dict[int, tuple[Fingerprint, ...]] = {}
    figures: dict[int, tuple[Conjugacy, int]] = {}
    gone: set[int] = set()
    found = []
    for at, new in enumerate(given):
        if at in fresh:
            found.append(Added(fresh[at], "added", new.name, (new.name,)))
        else:
            found.append(_place(connection, new, gone, replace=replace))
        model_id = found[-1].model_id
        if found[-1].weights == "kept":
            continue
        vectors[model_id] = vectors.get(model_id, ()) + new.fingerprints
        if new.conjugacy is not None:
            figures[model_id] = new.conjugacy, new.conjugacy_rule
    put_measured(connection, vectors, figures, gone=gone)  # last: other writers wait from here on
    return found


def _insert_fresh(connection: Connection, given: Sequence[NewModel]) -> dict[int, int]:
    """Insert the models with new weights and free names together; return their ids by position.

    Of several with the same weights or the same name that is the first. On Postgres they go in one order whoever
    writes, so that of two writers of the same models one waits for the other, and not each for each.
    """
    hashes, called = [new.plan.content_hash for new in given], [new.name for new in given]
    headers = [
        HEADER_PREFIX + new.plan.header if new.plan.header else hash_ for new, hash_ in zip(given, hashes, strict=True)
    ]
    known = select(models.c.content_hash).where(listed(models.c.content_hash, {*hashes, *headers}, connection))
    taken = select(names.c.name).where(listed(names.c.name, set(called), connection))
    seen = {*connection.scalars(known), *connection.scalars(taken)}  # no name looks like a hash
    fresh = []
    for at, new in enumerate(given):
        if seen.isdisjoint((new.plan.content_hash, headers[at], new.name)):
            fresh.append(at)
        seen |= {new.plan.content_hash, headers[at], new.name}
    if connection.dialect.name == "postgresql":
        fresh.sort(key=hashes.__getitem__)
    ids = insert_models(connection, [given[at] for at in fresh])
    now = utc_now()
    rows = [{"name": called[at], "model_id": id_, "created": now} for at, id_ in zip(fresh, ids, strict=True)]
    if connection.dialect.name == "postgresql":
        rows.sort(key=itemgetter("name"))
    insert_rows(connection, names, rows)
    return dict(zip(fresh, ids, strict=True))


def _place(connection: Connection, new: NewModel, gone: set[int], *, replace: bool) -> Added:
    """Store one model without vectors and figures; adds specs of deleted vectors to ``gone``."""
    known: Row[Any, Any, Any] | None = connection.execute(
        select(*_KNOWN).where(models.c.content_hash == new.plan.content_hash)
    ).first()
    older = completed = read = None
    if new.plan.weights_read:
        older = _older(connection, new, None if known is None else known.id, replace=replace)
        completed = _header_alone(connection, new)
        for before in (older, completed):
            if before is not None and known is None:
                known = before
            elif before is not None and known is not None and before.id != known.id:
                gone |= absorb(connection, known.id, before.id)
    elif known is None:
        known = read = _of_that_header(connection, new)
    measured_anew = older is not None or completed is not None
    named = claim_name(connection, new.name, None if known is None else known.id, replace=replace)
    if known is None:
        [model_id] = insert_models(connection, [new])
    else:
        model_id = known.id
        gone |= _renew(connection, known, new, named=named, measured_anew=measured_anew)
    if not named:
        connection.execute(insert(names).values(name=new.name, model_id=model_id, created=utc_now()))
    status: Literal["added", "named", "known", "renewed"] = "renewed" if measured_anew else "known"
    if known is None or not (named or completed is not None):
        status = "added" if known is None else "named"
    all_names = connection.scalars(select(names.c.name).where(names.c.model_id == model_id).order_by(names.c.id))
    weights: Literal["", "completed", "kept"] = "kept" if read is not None else "" if completed is None else "completed"
    return Added(model_id, status, new.name, tuple(all_names), weights)


def _header_alone(connection: Connection, new: NewModel) -> Row[Any, Any, Any] | None:
    """The model of which the header at this place was read without its weights, which are read now."""
    if not new.plan.header:
        return None
    return connection.execute(select(*_KNOWN).where(models.c.content_hash == HEADER_PREFIX + new.plan.header)).first()


def _of_that_header(connection: Connection, new: NewModel) -> Row[Any, Any, Any] | None:
    """The model of the name of ``new`` whose weights were read, from this place and with this header.

    Without the name it is no proof: a file may have been overwritten by another training of its network.
    """
    named = select(*_KNOWN).join(names, names.c.model_id == models.c.id).where(names.c.name == new.name)
    return connection.execute(named.where(models.c.header_hash == new.plan.header)).first()


def claim_name(
    connection: Connection,
    name: str,
    model_id: int | None,
    *,
    replace: bool,
    remedy: str = "choose another by --name, or move it by --replace",
) -> bool:
    """Return whether the model has the name. If another model has it, reassign it or raise `NameTakenError`.

    Raises
    ------
    NameTakenError
        Another model has it, and ``replace`` is not asked for.
    """
    held = connection.execute(
        select(names.c.model_id, models.c.content_hash)
        .join(models, models.c.id == names.c.model_id)
        .where(names.c.name == name)
    ).first()
    if held is None:
        return False
    if held.model_id == model_id:
        return True
    if not replace:
        raise NameTakenError(
            f"the name {name!r} belongs to other weights, {short_hash(held.content_hash)}",
            remedy,
        )
    connection.execute(delete(names).where(names.c.name == name))
    return False


def _older(connection: Connection, new: NewModel, known_id: int | None, *, replace: bool) -> Row[Any, Any, Any] | None:
    """The model of an older matrix rule with the name of ``new``, if it is of the same file: (id, rule), or None.

    The hashes of two rules cannot be compared. The stored bytes of all tensors can, and the means of layers that both
    rules find: where they differ it is another file, which takes the name only where ``replace`` asks for it.
    """
    named = select(*_KNOWN).join(names, names.c.model_id == models.c.id)
    if not replace:
        named = named.where(models.c.bytes == new.plan.bytes)
    held = connection.execute(named.where(names.c.name == new.name)).first()
    if held is None or not is_older(held.matrix_rule, new.plan.rule):
        return None
    means = layer_means(connection, known_id) if known_id is not None and not new.spectra else means_of(new)
    return held if replace or all(agreements(layer_means(connection, held.id), means)) else None


def means_of(new: NewModel) -> dict[LayerKey, float]:
    """Mean eigenvalue by layer of a model that is to be stored; empty if it was not measured."""
    means = [spectrum.mean for spectrum in new.spectra] or new.means
    if not means:
        return {}
    return {
        (each.name, each.p, each.q, each.axis, each.start, each.stop, each.period): mean
        for each, mean in zip(new.plan.layers, means, strict=True)
    }


def layer_means(connection: Connection, model_id: int) -> dict[LayerKey, float]:
    """Mean eigenvalue by layer of a stored model."""
    columns = schema.layers.c
    cut = (columns.name, columns.p, columns.q, columns.axis, columns.start, columns.stop, columns.period)
    rows = connection.execute(select(*cut, columns.mean).where(columns.model_id == model_id))
    return {(row[0], row[1], row[2], row[3], row[4], row[5], row[6]): row[7] for row in rows}


def agreements(one: Mapping[LayerKey, float], other: Mapping[LayerKey, float]) -> list[bool]:
    """For each layer that both models have, whether the means are equal, which those of other weights never are."""
    return [isclose(mean, other[key], rel_tol=SAME_MEAN) for key, mean in one.items() if key in other]


def absorb(connection: Connection, model_id: int, older: int) -> frozenset[int]:
    """Give the names and what is known of an older model to the one of the same weights, and delete the older one.

    Returns the ids of the specs that lost vectors.
    """
    connection.execute(update(names).where(names.c.model_id == older).values(model_id=model_id))
    merged = stored_card(connection, older).updated(stored_card(connection, model_id))
    put_card(connection, model_id, merged)
    architecture = connection.scalars(select(models.c.architecture_id).where(models.c.id == older)).one()
    gone = frozenset(specs_held(connection, [older]))
    connection.execute(delete(models).where(models.c.id == older))
    drop_if_unused(connection, architecture)
    return gone


def _renew(
    connection: Connection, known: Row[Any, Any, Any], new: NewModel, *, named: bool, measured_anew: bool
) -> frozenset[int]:
    """Update a known model: under its own name the new card wins, under another it fills unknown fields.

    A model that is only measured anew keeps its card, which may hold what its user has set since. Returns the ids of
    the specs whose vectors, being of another matrix rule, were deleted.
    """
    gone = frozenset[int]()
    unread = known.content_hash.startswith(HEADER_PREFIX)
    if not new.plan.weights_read and not unread:
        pass  # what is known of the weights stays
    elif (
        known.matrix_rule != new.plan.rule
        or (unread and new.plan.weights_read)
        or _found_otherwise(connection, known.id, new)
    ):
        gone = replace_layers(connection, known.id, new)
    elif new.spectra and new.keep_spectra:
        held = connection.scalar(select(schema.spectra.c.model_id).where(schema.spectra.c.model_id == known.id))
        if held is None:
            insert_spectra(connection, {known.id: new})
    if not gone:
        put_sketches(connection, {known.id: new})
        put_weight_figures(connection, {known.id: new})
    old = stored_card(connection, known.id)
    put_card(connection, known.id, old.updated(new.card) if named and not measured_anew else new.card.updated(old))
    _put_origin(connection, known.id, new, wins=named)
    return gone


def _put_origin(connection: Connection, model_id: int, new: NewModel, *, wins: bool) -> None:
    """Store where the weights were read from; under another name only if that is not known yet."""
    if not new.format:
        return
    of_model = models.c.id == model_id
    held = connection.scalar(select(models.c.format).where(of_model))
    if wins or not held:
        connection.execute(update(models).where(of_model).values(**origin_values(new)))


def _found_otherwise(connection: Connection, model_id: int, new: NewModel) -> bool:
    """Whether exact spectra replace approximate ones or the reverse; a model never has both."""
    return bool(new.spectra) and any(spectrum.method for spectrum in new.spectra) == is_exact(connection, model_id)
