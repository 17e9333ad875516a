"""Storing a model with all that belongs to it, or finding that it is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sqlalchemy import delete, insert, select

from registry.errors import NameTakenError
from registry.storage import schema
from registry.storage.cards import put_card, stored_card, utc_now
from registry.storage.checking import check_model, check_name
from registry.storage.inserting import insert_models, insert_spectra, replace_layers
from registry.storage.measured import put_measured
from registry.storage.queries import is_exact, short_hash
from registry.storage.records import Added
from registry.storage.schema import models, names

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from registry.storage.records import NewModel

__all__ = ["add", "claim_name"]


def add(connection: Connection, new: NewModel, *, replace: bool = False) -> Added:
    """Store a model. Known weights get the name and whatever else is new.

    By another matrix rule, or exact where they were approximate and the other way around, they get new layers, too.

    Raises
    ------
    NameTakenError
        The name is that of other weights, and ``replace`` is not asked for.
    SpecMismatchError
        The spectra are not those of the plan's layers, or a fingerprint is of another matrix rule.
    SpectrumError
        A spectrum, vector or figure is not finite, or of the wrong shape.
    UsageError
        The name cannot be one, or there are no spectra and the weights are not known by this rule.
    """
    check_name(new.name)
    check_model(new)
    known = connection.execute(
        select(models.c.id, models.c.matrix_rule).where(models.c.content_hash == new.plan.content_hash)
    ).first()
    named = claim_name(connection, new.name, None if known is None else known.id, replace=replace)
    if known is None:
        [model_id], gone = insert_models(connection, [new]), frozenset[int]()
    else:
        model_id, gone = known.id, _renew(connection, known, new, named=named)
    if not named:
        connection.execute(insert(names).values(name=new.name, model_id=model_id, created=utc_now()))
    status: Literal["added", "named", "known"] = "added" if known is None else "known" if named else "named"
    all_names = connection.scalars(select(names.c.name).where(names.c.model_id == model_id).order_by(names.c.id))
    figures = {} if new.conjugacy is None else {model_id: (new.conjugacy, new.conjugacy_rule)}
    put_measured(connection, {model_id: new.fingerprints}, figures, gone=gone)  # last: other writers wait from here on
    return Added(model_id, status, new.name, tuple(all_names))


def claim_name(
    connection: Connection,
    name: str,
    model_id: int | None,
    *,
    replace: bool,
    remedy: str = "choose another by --name, or move it by --replace",
) -> bool:
    """Return whether the model has the name already; where another has it, take it away or refuse.

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


def _renew(connection: Connection, known: Row[int, str], new: NewModel, *, named: bool) -> frozenset[int]:
    """Bring a known model up to date: under its own name the new card wins, under another it fills what is unknown.

    Returns the ids of the specs whose vectors, being of another matrix rule, were deleted.
    """
    gone = frozenset[int]()
    if known.matrix_rule != new.plan.rule or _found_otherwise(connection, known.id, new):
        gone = replace_layers(connection, known.id, new)
    elif new.spectra and new.keep_spectra:
        held = connection.scalar(select(schema.spectra.c.model_id).where(schema.spectra.c.model_id == known.id))
        if held is None:
            insert_spectra(connection, {known.id: new})
    old = stored_card(connection, known.id)
    put_card(connection, known.id, old.updated(new.card) if named else new.card.updated(old))
    return gone


def _found_otherwise(connection: Connection, model_id: int, new: NewModel) -> bool:
    """Whether exact spectra come where approximate ones are, or the other way around: nothing is a mixture of both."""
    return bool(new.spectra) and any(spectrum.method for spectrum in new.spectra) == is_exact(connection, model_id)
