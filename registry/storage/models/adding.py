"""Insertion of models, update of known ones, and what is asked of these before their weights are measured."""

from __future__ import annotations

from math import isclose
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import delete, func, insert, select, update

from registry.errors import NameTakenError, UsageError
from registry.storage.engine import schema
from registry.storage.engine.dialects import among, insert_rows, listed
from registry.storage.engine.schema import conjugacy, models, names, sketches, weight_figures
from registry.storage.models.measured_values import put_measured, specs_held
from registry.storage.models.model_queries import is_older, short_hash
from registry.storage.models.model_validation import check_model, check_name
from registry.storage.models.packing import (
    as_json,
    layer_rows,
    packed_notes,
    packed_spectra,
    sketch_row,
    weight_figures_row,
)
from registry.storage.models.records import CONJUGACY_RULE, Added, Holding
from registry.storage.models.stored_cards import (
    MODEL_FIELDS,
    architecture_ids,
    drop_if_unused,
    insert_figures,
    put_card,
    stored_card,
    utc_now,
)
from registry.types.weights import HEADER_PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Row, Table

    from registry.storage.models.records import NewModel
    from registry.types.spectra import Conjugacy, Fingerprint

    LayerKey = tuple[str, int, int, int, int, int, int]  # name, p, q and the cut: axis, start, stop, period

__all__ = [
    "absorb",
    "add_models",
    "agreements",
    "claim_name",
    "find_holding",
    "insert_models",
    "insert_spectra",
    "layer_means",
    "means_of",
    "put_sketches",
    "put_weight_figures",
    "replace_layers",
    "whole_hashes",
]

_KNOWN = (models.c.id, models.c.matrix_rule, models.c.content_hash)
SAME_MEAN = 1e-6
"""Relative difference below which two measurements of one layer have the same mean eigenvalue."""
_FROM_LAYERS = (
    schema.layers,
    schema.skipped,
    schema.spectra,
    schema.conjugacy,
    schema.fingerprints,
    schema.sketches,
    schema.weight_figures,
)


def find_holding(connection: Connection, content_hash: str) -> Holding | None:
    """Return what is stored of the weights with that hash, or None."""
    model = connection.execute(
        select(models.c.id, models.c.matrix_rule, schema.spectra.c.model_id.is_not(None).label("has_spectra"))
        .outerjoin(schema.spectra, schema.spectra.c.model_id == models.c.id)
        .where(models.c.content_hash == content_hash)
    ).first()
    if model is None:
        return None
    of_model = schema.fingerprints.c.model_id == model.id
    hashes = select(schema.specs.c.hash).join(schema.fingerprints).where(of_model)
    rule = connection.scalar(select(conjugacy.c.rule).where(conjugacy.c.model_id == model.id))
    return Holding(
        matrix_rule=model.matrix_rule,
        specs=frozenset(connection.scalars(hashes)),
        has_spectra=bool(model.has_spectra),
        judged=rule == CONJUGACY_RULE,
        exact=is_exact(connection, model.id),
        sketches=connection.scalar(select(sketches.c.version).where(sketches.c.model_id == model.id)) or 0,
        weight_figures=connection.scalar(select(weight_figures.c.version).where(weight_figures.c.model_id == model.id))
        or 0,
    )


def is_exact(connection: Connection, model_id: int) -> bool:
    """Return whether all layers of a model are exact."""
    layers = schema.layers
    approximate = select(layers.c.position).where(layers.c.model_id == model_id, layers.c.method != "").limit(1)
    return connection.scalar(approximate) is None


def whole_hashes(
    connection: Connection,
    rule: str,
    specs: Sequence[str],
    sketched: int,
    measured: int,
    *,
    spectra: bool,
    exact: bool,
) -> list[str]:
    """Return content hashes of models of a matrix rule with vectors of all specs, current figures and sketches.

    ``sketched``, ``measured``: versions of the sketches and of the figures of weights; ``spectra``: and with their
    spectra; ``exact``: and without approximate ones.
    """
    judged = select(conjugacy.c.model_id).where(conjugacy.c.rule == CONJUGACY_RULE)
    statement = select(models.c.content_hash).where(models.c.matrix_rule == rule, models.c.id.in_(judged))
    of_version = select(sketches.c.model_id).where(sketches.c.version == sketched)
    statement = statement.where(models.c.id.in_(of_version))
    of_figures = select(weight_figures.c.model_id).where(weight_figures.c.version == measured)
    statement = statement.where(models.c.id.in_(of_figures))
    for spec in specs:
        under = select(schema.fingerprints.c.model_id).join(schema.specs).where(schema.specs.c.hash == spec)
        statement = statement.where(models.c.id.in_(under))
    if spectra:
        statement = statement.where(models.c.id.in_(select(schema.spectra.c.model_id)))
    if exact:
        approximate = select(schema.layers.c.model_id).where(schema.layers.c.method != "")
        statement = statement.where(models.c.id.not_in(approximate))
    return list(connection.scalars(statement))


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
    drawn: set[int] = set()
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
        if at not in fresh and new.sketches is not None:
            drawn.add(model_id)
    put_measured(connection, vectors, figures, gone=gone, drawn=drawn)  # last: other writers wait from here on
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
    known_id = None if known is None else known.id
    taken_from, only_name = _other_holder(connection, new.name, known_id) if replace else ("", False)
    named = claim_name(connection, new.name, known_id, replace=replace)
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
    return Added(model_id, status, new.name, tuple(all_names), weights, taken_from, only_name)


def _other_holder(connection: Connection, name: str, model_id: int | None) -> tuple[str, bool]:
    """The short hash of another model that has the name, empty if none has, and whether it is its only name."""
    of_holder = names.alias()
    count = select(func.count()).where(of_holder.c.model_id == names.c.model_id).scalar_subquery()
    held = connection.execute(
        select(names.c.model_id, models.c.content_hash, count.label("held"))
        .join(models, models.c.id == names.c.model_id)
        .where(names.c.name == name)
    ).first()
    if held is None or held.model_id == model_id:
        return "", False
    return short_hash(held.content_hash), held.held == 1


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


def insert_models(connection: Connection, given: Sequence[NewModel]) -> list[int]:
    """Insert sound models (`check_model`) with new weights; return their ids in order.

    Names, conjugacy and vectors are not stored.

    Raises
    ------
    UsageError
        A model has no spectra.
    """
    if not given:
        return []
    keys = [(new.card.architecture, new.card.family, new.plan.topology) for new in given]
    architectures = architecture_ids(connection, keys)
    now = utc_now()
    rows: list[dict[str, Any]] = [
        {
            "architecture_id": architectures[key],
            "content_hash": new.plan.content_hash,
            "topology": new.plan.topology,
            "parameters": new.plan.parameters,
            "bytes": new.plan.bytes,
            "layers": len(new.plan.layers),
            "matrix_rule": new.plan.rule,
            "tool_version": new.tool_version,
            "created": new.created or now,
            **origin_values(new),
            **{name: getattr(new.card, name) for name in MODEL_FIELDS},
        }
        for new, key in zip(given, keys, strict=True)
    ]
    connection.execute(insert(models), rows)
    hashes = listed(models.c.content_hash, [new.plan.content_hash for new in given], connection)
    rows_back = connection.execute(select(models.c.content_hash, models.c.id).where(hashes))
    found = {content_hash: int(id_) for content_hash, id_ in rows_back}
    ids = [found[new.plan.content_hash] for new in given]
    by_id = dict(zip(ids, given, strict=True))
    insert_figures(connection, {id_: new.card for id_, new in by_id.items()})
    _insert_layers(connection, by_id)
    return ids


def origin_values(new: NewModel) -> dict[str, Any]:
    """Return the columns of ``models`` that say where the weights are from, and what was found in them."""
    return {
        "precision": new.plan.precision,
        "format": new.format,
        "location": new.location,
        "entry": new.entry,
        "unread": new.plan.unread,
        "nonfinite": new.plan.nonfinite,
        "notes": packed_notes(new.plan.notes),
        "header_hash": new.plan.header,
    }


def replace_layers(connection: Connection, model_id: int, new: NewModel) -> frozenset[int]:
    """Replace the layers of known weights, and their hash; everything computed from the old layers is deleted.

    Returns the ids of the specs whose vectors went: their stamps are to be raised at the end of the transaction.

    Raises
    ------
    UsageError
        The model has no spectra.
    """
    connection.execute(select(models.c.id).where(models.c.id == model_id).with_for_update())
    gone = frozenset(specs_held(connection, [model_id]))
    for table in _FROM_LAYERS:
        connection.execute(delete(table).where(table.c.model_id == model_id))
    values: dict[str, Any] = {
        "content_hash": new.plan.content_hash,
        "bytes": new.plan.bytes,
        "topology": new.plan.topology,
        "parameters": new.plan.parameters,
        "layers": len(new.plan.layers),
        "matrix_rule": new.plan.rule,
        "tool_version": new.tool_version,
        **origin_values(new),
    }
    connection.execute(update(models).where(models.c.id == model_id).values(values))
    _insert_layers(connection, {model_id: new})
    return gone


def _insert_layers(connection: Connection, given: Mapping[int, NewModel]) -> None:
    """Insert layers, skipped tensors and spectra of models by id."""
    layers: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    for model_id, new in given.items():
        means = [spectrum.mean for spectrum in new.spectra] or new.means
        if not means:
            raise UsageError(f"the weights of {new.name} are new, and their spectra are missing", "ingest it again")
        methods = [spectrum.method for spectrum in new.spectra] or new.methods or [""] * len(means)
        layers += layer_rows(model_id, new.plan.layers, means, methods)
        skipped += [
            {
                "model_id": model_id,
                "position": position,
                "name": tensor.name,
                "dtype": tensor.dtype,
                "shape": as_json(tensor.shape),
                "reason": tensor.reason,
            }
            for position, tensor in enumerate(new.plan.skipped)
        ]
    insert_rows(connection, schema.layers, layers)
    insert_rows(connection, schema.skipped, skipped)
    insert_spectra(connection, given)
    put_sketches(connection, given)
    put_weight_figures(connection, given)


def insert_spectra(connection: Connection, given: Mapping[int, NewModel]) -> None:
    """Insert the spectra, if they are kept."""
    kept = {model_id: new.spectra for model_id, new in given.items() if new.spectra and new.keep_spectra}
    rows = [{"model_id": model_id, "data": packed_spectra(spectra)} for model_id, spectra in kept.items()]
    insert_rows(connection, schema.spectra, rows)


def put_sketches(connection: Connection, given: Mapping[int, NewModel]) -> None:
    """Store the sketches of models by id, where they come with any; they replace those that are stored."""
    rows = [sketch_row(model_id, new.sketches) for model_id, new in given.items() if new.sketches is not None]
    _put_rows(connection, sketches, rows)


def put_weight_figures(connection: Connection, given: Mapping[int, NewModel]) -> None:
    """Store the figures of the weights of models by id, where they come with any; they replace those stored."""
    found = {model_id: new.weight_figures for model_id, new in given.items() if new.weight_figures is not None}
    _put_rows(connection, weight_figures, [weight_figures_row(model_id, each) for model_id, each in found.items()])


def _put_rows(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Store a row a model, instead of those that the table has of these models."""
    if rows:
        mine = among(table.c.model_id, [row["model_id"] for row in rows], connection)
        connection.execute(delete(table).where(mine))
        insert_rows(connection, table, rows)
