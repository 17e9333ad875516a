"""Merge of imported models into a registry."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import DataError

from registry.errors import RegistryError, SpecMismatchError, StorageError, UsageError
from registry.storage.engine import schema
from registry.storage.engine.dialects import among, listed
from registry.storage.engine.schema import architectures, models, names
from registry.storage.models.adding import (
    absorb,
    agreements,
    insert_models,
    insert_spectra,
    layer_means,
    means_of,
    put_sketches,
    put_weight_figures,
    replace_layers,
)
from registry.storage.models.measured_values import put_measured
from registry.storage.models.model_queries import is_older, short_hash
from registry.storage.models.model_validation import check_model, check_name
from registry.storage.models.packing import layer_of, to_metric
from registry.storage.models.records import CONJUGACY_RULE
from registry.storage.models.stored_cards import MODEL_FIELDS, put_card
from registry.types.outcomes import Ingested
from registry.types.weights import HEADER_PREFIX, ModelCard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection, Select

    from registry.storage.portable.model_assembly import Portable

__all__ = ["merge", "one_by_one"]

Status = Literal["added", "merged", "known"]


@dataclass(slots=True)
class Held:
    """What is stored of some weights."""

    id: int
    rule: str
    card: ModelCard
    names: set[str]
    specs: set[str]
    conjugacy: int
    spectra: bool
    sketches: int
    weight_figures: int
    unread: bool


def merge(connection: Connection, given: Sequence[Portable], *, overrule: bool, rule: str) -> list[Ingested]:
    """Merge models; return the outcome of each in order: ``added``, ``merged``, ``known`` or ``failed``.

    New weights are stored whole. Known ones get the names and whatever else is missing of them; what is here stays, so
    that bringing them again changes nothing. Weights known by another matrix rule get new layers if those that come are
    of ``rule``, else no numbers. So does a model of an older rule that has a name, the size and the layers of one
    that comes. A name of other weights makes a failed item. With ``overrule`` such a name moves, and
    the card that comes wins. Some 20 statements, however many models.

    Raises
    ------
    UsageError, SpectrumError, SpecMismatchError
        One of them is no sound model: nothing of the transaction may be kept. Alone, it says which.
    """
    merger = _Merger(connection, given, overrule=overrule, rule=rule)
    outcomes = [merger.take(each) for each in given]
    try:
        merger.write()
    except DataError as error:
        raise UsageError(f"the database refuses it: {str(error.orig).splitlines()[0]}") from error
    return outcomes


def one_by_one(bring: Callable[[Sequence[Portable]], list[Ingested]], given: Sequence[Portable]) -> list[Ingested]:
    """Call ``bring`` for all models together, or, if one is damaged, for each alone."""
    if not given:
        return []
    try:
        return bring(given)
    except StorageError:
        raise
    except RegistryError as error:
        if len(given) > 1:
            return [outcome for each in given for outcome in one_by_one(bring, [each])]
        name = given[0].new.name
        return [Ingested(name, name, "failed", 0.0, error.message, error.remedy or "")]


class _Merger:
    def __init__(self, connection: Connection, given: Sequence[Portable], *, overrule: bool, rule: str) -> None:
        self._connection = connection
        self._overrule = overrule
        self._rule = rule
        self._held = _held(connection, [each.new.plan.content_hash for each in given])
        self._owners = _owners(connection, [name for each in given for name, _ in each.names])
        self._fresh: dict[str, Portable] = {}
        self._vectors: dict[int, tuple[Any, ...]] = {}
        self._figures: dict[int, tuple[Any, int]] = {}
        self._spectra: dict[int, Any] = {}
        self._sketches: dict[int, Any] = {}
        self._weight_figures: dict[int, Any] = {}
        self._gone: set[int] = set()  # specs that lost vectors
        self._joined: set[str] = set()  # hashes of models that took over an older one
        self._names: list[tuple[str, str, Any]] = []  # name, hash of its weights, since when

    def take(self, portable: Portable) -> Ingested:
        new = portable.new
        content = new.plan.content_hash
        for name, _ in portable.names:
            check_name(name)
        if self._taken(portable):
            self._measured_anew(portable)
        taken = self._taken(portable)
        if taken and not new.plan.weights_read and self._has_header(taken, new.plan.header):
            check_model(new)
            return Ingested(new.name, new.name, "known", 0.0)
        if taken and not self._overrule:
            return self._refusal(portable, taken[0])
        for name in taken:
            self._connection.execute(delete(names).where(names.c.name == name))
            self._names = [row for row in self._names if row[0] != name]
            del self._owners[name]
        held = self._held.get(content)
        status: Status = "added"
        if held is not None:
            check_model(new)
            status = "merged" if self._renew(held, portable) or content in self._joined else "known"
        elif content in self._fresh:
            return Ingested(new.name, new.name, "failed", 0.0, "the same weights come twice", "")
        else:
            check_model(new)
            self._fresh[content] = portable
        for name, since in portable.names:
            if name not in self._owners:
                self._names.append((name, content, since))
                self._owners[name] = content
        return Ingested(new.name, new.name, status, 0.0)

    def _taken(self, portable: Portable) -> list[str]:
        """The names of the model that other weights have."""
        content = portable.new.plan.content_hash
        return [name for name, _ in portable.names if self._owners.get(name, content) != content]

    def _has_header(self, taken: Sequence[str], header: str) -> bool:
        """Whether the weights of the model with these names were read here, from the place and with the header."""
        owners = {self._owners[name] for name in taken}
        known = select(models.c.id).where(listed(models.c.content_hash, owners, self._connection))
        found = set(self._connection.scalars(known.where(models.c.header_hash == header)))
        fresh = {each.new.plan.header for owner in owners if (each := self._fresh.get(owner)) is not None}
        return (bool(found) and len(found) == len(owners)) or fresh == {header}

    def _measured_anew(self, portable: Portable) -> None:
        """Take models of an older matrix rule for the same file that have a name, the size and the layers of this one.

        The hashes of two rules cannot be compared. So is a model of a name and the header of this one of which nothing
        but the header was read.
        """
        plan = portable.new.plan
        content = plan.content_hash
        if plan.rule != self._rule or content in self._fresh or not plan.weights_read:
            return
        for owner in sorted({self._owners[name] for name in self._taken(portable)} - set(self._fresh)):
            [(id_, rule, size)] = self._connection.execute(
                select(models.c.id, models.c.matrix_rule, models.c.bytes).where(models.c.content_hash == owner)
            )
            if owner != HEADER_PREFIX + plan.header:
                agreed = agreements(layer_means(self._connection, id_), means_of(portable.new))
                if not is_older(rule, plan.rule) or size != plan.bytes or not agreed or not all(agreed):
                    continue
            self._held.pop(owner, None)  # neither it nor what was to be written of it is there any more
            for waiting in (self._vectors, self._figures, self._spectra, self._sketches, self._weight_figures):
                waiting.pop(id_, None)
            held = self._held.get(content)
            if held is None:
                self._held[content] = _held(self._connection, [owner])[owner]
            else:
                self._gone |= absorb(self._connection, held.id, id_)
                self._held |= _held(self._connection, [content])
                self._joined.add(content)
            self._owners |= {name: content for name, of in self._owners.items() if of == owner}
            self._names = [(name, content if of == owner else of, since) for name, of, since in self._names]

    def _refusal(self, portable: Portable, name: str) -> Ingested:
        owner, rule = self._owners[name], portable.new.plan.rule
        here = self._connection.scalar(select(models.c.matrix_rule).where(models.c.content_hash == owner))
        if here is not None and here != rule:
            message = f"the name {name!r} is of a model measured by {here} here, and by {rule} in the file"
            remedy = "measure the older one anew, by the command that ingested it, or rename one of the two"
        else:
            message = f"the name {name!r} belongs to other weights here, {short_hash(owner)}"
            remedy = "rename one of the two, or reassign the name with --replace"
        return Ingested(portable.new.name, portable.new.name, "failed", 0.0, message, remedy)

    def _renew(self, held: Held, portable: Portable) -> bool:
        """Update known weights; return whether anything changed."""
        new = portable.new
        came = {name for name, _ in portable.names}
        old = ModelCard().updated(held.card)
        card = old.updated(new.card) if self._overrule else new.card.updated(old)
        changed = bool(came - held.names)
        if _sorted(card) != _sorted(old):
            put_card(self._connection, held.id, card)
            changed = True
        if held.rule != new.plan.rule or (held.unread and new.plan.weights_read):
            if new.plan.rule != self._rule:
                return changed
            self._gone |= replace_layers(self._connection, held.id, new)
            held.specs, held.conjugacy, held.spectra, held.unread, changed = set(), 0, True, False, True
            held.sketches = new.sketches.version if new.sketches is not None else 0
            held.weight_figures = new.weight_figures.version if new.weight_figures is not None else 0
        if new.spectra and new.keep_spectra and not held.spectra:
            self._check_layers(held.id, portable)
            self._spectra[held.id] = new
            changed = True
        if new.sketches is not None and held.sketches < new.sketches.version:
            self._check_layers(held.id, portable)
            self._sketches[held.id] = new
            changed = True
        measured = new.weight_figures is not None and held.weight_figures < new.weight_figures.version
        if measured:
            self._check_layers(held.id, portable)
            self._weight_figures[held.id] = new
            changed = True
        # The training class follows from the figures of the weights where there are any.
        behind = held.conjugacy < new.conjugacy_rule or (measured and held.conjugacy == new.conjugacy_rule)
        if new.conjugacy is not None and behind and new.conjugacy_rule <= CONJUGACY_RULE:
            self._figures[held.id] = (new.conjugacy, new.conjugacy_rule)
            changed = True
        missing = tuple(f for f in new.fingerprints if f.spec.hash not in held.specs)
        if missing:
            self._vectors[held.id] = missing
        return changed or bool(missing)

    def _check_layers(self, model_id: int, portable: Portable) -> None:
        of_model = select(schema.layers).where(schema.layers.c.model_id == model_id).order_by(schema.layers.c.position)
        stored = [layer_of(row) for row in self._connection.execute(of_model).mappings()]
        new = portable.new
        methods = tuple(spectrum.method for spectrum in new.spectra) or new.methods
        if [(each.layer, each.method) for each in stored] != list(zip(new.plan.layers, methods, strict=True)):
            raise SpecMismatchError(
                f"its layers differ from the stored ones of these weights, {short_hash(portable.new.plan.content_hash)}"
            )

    def write(self) -> None:
        connection, fresh = self._connection, list(self._fresh.values())
        ids = dict(zip(self._fresh, insert_models(connection, [each.new for each in fresh]), strict=True))
        for content, each in self._fresh.items():
            self._vectors[ids[content]] = each.new.fingerprints
            if each.new.conjugacy is not None:
                self._figures[ids[content]] = (each.new.conjugacy, each.new.conjugacy_rule)
        ids |= {content: held.id for content, held in self._held.items()}
        if self._names:
            rows = [{"name": name, "model_id": ids[of], "created": since} for name, of, since in self._names]
            connection.execute(insert(names), rows)
        insert_spectra(connection, self._spectra)
        put_sketches(connection, self._sketches)
        put_weight_figures(connection, self._weight_figures)
        # Last: other writers wait from here on.
        put_measured(connection, self._vectors, self._figures, gone=self._gone, drawn=self._sketches)


def _sorted(card: ModelCard) -> ModelCard:
    return replace(card, metrics=tuple(sorted(card.metrics, key=str)), tags=tuple(sorted(card.tags)))


def _owners(connection: Connection, wanted: Sequence[str]) -> dict[str, str]:
    """Content hash of the weights by name."""
    statement = select(names.c.name, models.c.content_hash).join(models, models.c.id == names.c.model_id)
    found = connection.execute(statement.where(listed(names.c.name, wanted, connection)))
    return {str(name): str(content) for name, content in found}


def _held(connection: Connection, hashes: Sequence[str]) -> dict[str, Held]:
    """What is stored of the weights with those hashes, in eleven queries."""
    statement = (
        select(models, architectures.c.family, architectures.c.name.label("architecture"))
        .join(architectures, architectures.c.id == models.c.architecture_id)
        .where(listed(models.c.content_hash, hashes, connection))
    )
    rows = connection.execute(statement).mappings().all()
    if not rows:
        return {}
    ids = [row["id"] for row in rows]

    def by_model(query: Select[Any]) -> dict[int, list[Any]]:
        grouped: dict[int, list[Any]] = {id_: [] for id_ in ids}
        for row in connection.execute(query.where(among(query.selected_columns.model_id, ids, connection))).mappings():
            grouped[row["model_id"]].append(row)
        return grouped

    metrics, tags = by_model(select(schema.metrics)), by_model(select(schema.tags))
    named = by_model(select(names.c.model_id, names.c.name))
    vectors = select(schema.fingerprints.c.model_id, schema.specs.c.hash).join(schema.specs)
    hashed, figures = by_model(vectors), by_model(select(schema.conjugacy.c.model_id, schema.conjugacy.c.rule))
    kept = by_model(select(schema.spectra.c.model_id))
    drawn = by_model(select(schema.sketches.c.model_id, schema.sketches.c.version))
    measured = by_model(select(schema.weight_figures.c.model_id, schema.weight_figures.c.version))
    fields = (*MODEL_FIELDS, "family", "architecture")
    return {
        row["content_hash"]: Held(
            id=row["id"],
            rule=row["matrix_rule"],
            card=ModelCard(
                metrics=tuple(to_metric(metric) for metric in metrics[row["id"]]),
                tags=tuple((tag["key"], tag["value"]) for tag in tags[row["id"]]),
                **{field: row[field] for field in fields},
            ),
            names={name["name"] for name in named[row["id"]]},
            specs={vector["hash"] for vector in hashed[row["id"]]},
            conjugacy=max((figure["rule"] for figure in figures[row["id"]]), default=0),
            spectra=bool(kept[row["id"]]),
            sketches=max((each["version"] for each in drawn[row["id"]]), default=0),
            weight_figures=max((each["version"] for each in measured[row["id"]]), default=0),
            unread=row["content_hash"].startswith(HEADER_PREFIX),
        )
        for row in rows
    }
