"""Table definitions, one schema for SQLite and Postgres.

Unknown text is the empty string, so that it compares, filters and joins like any other; unknown numbers are NULL. Times
are UTC. Everything that belongs to a model goes with it (``ON DELETE CASCADE``).

These are Core tables and not mapped classes: nothing here needs an identity map, and importing SQLAlchemy's ORM would
add half as much again to the start of every command. Revisions, never ``create_all``, make the tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from registry.storage.engine.dialects import UtcDateTime

if TYPE_CHECKING:
    from sqlalchemy.sql.type_api import TypeEngine

__all__ = [
    "architectures",
    "calibrations",
    "classes",
    "conjugacy",
    "fingerprints",
    "items",
    "layers",
    "members",
    "metadata",
    "metrics",
    "models",
    "names",
    "partitions",
    "runs",
    "sketches",
    "skipped",
    "specs",
    "spectra",
    "tags",
    "weight_figures",
]

NAMING: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


metadata: Final = MetaData(naming_convention=NAMING)


def _id() -> Column[int]:
    return Column("id", Integer, primary_key=True)


def _required(name: str, type_: TypeEngine[Any] | type[TypeEngine[Any]] = Text, **options: Any) -> Column[Any]:
    return Column(name, type_, nullable=False, **options)


def _counter(name: str) -> Column[int]:
    return _required(name, BigInteger, server_default="0")


def _key(name: str, type_: TypeEngine[Any] | type[TypeEngine[Any]] = Text) -> Column[Any]:
    return Column(name, type_, primary_key=True, autoincrement=False)


def _model_id(**options: Any) -> Column[int]:
    return Column(
        "model_id",
        Integer,
        ForeignKey("models.id", ondelete="CASCADE"),
        **({"nullable": False} | options),
    )


# A named design: a family, an architecture's name, and the topology its matrices have.
architectures: Final = Table(
    "architectures",
    metadata,
    _id(),
    _required("name"),
    _required("family", index=True),
    _required("topology"),
    UniqueConstraint("name", "family", "topology"),
)

# One set of weights, known by its content; its names are in `names`, and it may have none. `precision`: how the values
# are stored; `format`: the source that read them; `location`: the path or reference; `entry`: which entry of a wrapped
# checkpoint; `unread` and `nonfinite`: numbers of weights that were left out, or are NaN or infinite; `notes`: a JSON
# list of sentences. `header_hash`: of the names, dtypes and shapes of the tensors, at that location. Where the header
# alone was read, `content_hash` is "header:" and that hash, so that it is unique and never taken for one of content.
models: Final = Table(
    "models",
    metadata,
    _id(),
    Column("architecture_id", Integer, ForeignKey("architectures.id"), nullable=False, index=True),
    _required("content_hash", unique=True),
    _required("topology"),
    _required("parameters", BigInteger, index=True),
    _required("bytes", BigInteger),
    _required("layers", Integer),
    Column("gflops", Double),
    _required("task"),
    _required("dataset"),
    _required("licence"),
    _required("source"),
    _required("revision"),
    _required("recipe"),
    _required("training"),
    Column("seed", BigInteger),
    _required("tool_version"),
    _required("matrix_rule", index=True),  # by which models of older rules are found
    _required("created", UtcDateTime),
    _required("precision", server_default=""),
    _required("format", server_default=""),
    _required("location", server_default=""),
    _required("entry", server_default=""),
    _counter("unread"),
    _counter("nonfinite"),
    _required("notes", server_default="[]"),
    _required("header_hash", server_default=""),
    # Ids are never used twice: whatever remembers one cannot come to mean another model.
    sqlite_autoincrement=True,
)

# The one with the smallest id is a model's oldest name, by which it is shown.
names: Final = Table(
    "names", metadata, _id(), _required("name", unique=True), _model_id(index=True), _required("created", UtcDateTime)
)

tags: Final = Table("tags", metadata, _model_id(primary_key=True), _key("key"), _required("value"))

metrics: Final = Table(
    "metrics",
    metadata,
    _model_id(primary_key=True),
    _key("name"),
    _key("dataset"),
    _key("split"),
    _required("value", Double),
    Column("higher_is_better", Boolean),
    _required("source"),
)

# Tensors that are no layer matrix; `shape` is a JSON list.
skipped: Final = Table(
    "skipped",
    metadata,
    _model_id(primary_key=True),
    _key("position", Integer),
    _required("name"),
    _required("dtype"),
    _required("shape"),
    _required("reason"),
)

_APPROXIMATE: Final = text("method <> ''")

# Layer matrices: where in the checkpoint, and where in the model's blob of spectra. `shape` and `kernel` are JSON
# lists; `mean` of the proper eigenvalues of W W^T is in units of the squared weights; `offset` and `count` are
# in numbers, not bytes; `method` is empty where the eigenvalues are exact.
layers: Final = Table(
    "layers",
    metadata,
    _model_id(primary_key=True),
    _key("position", Integer),
    _required("name"),
    _required("tensor"),
    _required("shape"),
    _required("kind"),
    _required("kernel"),
    _required("p", BigInteger),
    _required("q", BigInteger),
    _required("axis", Integer),
    _required("start", BigInteger),
    _required("stop", BigInteger),
    _required("mean", Double),
    _required("offset", BigInteger),
    _required("count", BigInteger),
    _required("method", server_default=""),
    _counter("period"),
    # Of the few that are approximate: who has any is asked before every large ingest.
    Index("ix_layers_approximate", "model_id", sqlite_where=_APPROXIMATE, postgresql_where=_APPROXIMATE),
)

# The proper eigenvalues of all of a model's layers, one layer after the other: little-endian float32.
spectra: Final = Table("spectra", metadata, _model_id(primary_key=True), _required("data", LargeBinary))

# Count sketches of a model's layers, by which weights are compared without them: little-endian float16 of shape
# (layers, buckets), of zeros where a layer has no sketch; sketches of different versions are not compared.
sketches: Final = Table(
    "sketches",
    metadata,
    _model_id(primary_key=True),
    _required("version", Integer),
    _required("buckets", Integer),
    _required("data", LargeBinary),
)

# What else only the weights tell: `layers` are little-endian float32 of shape (layers, figures), `statistics` is a JSON
# object of what normalisation and other vectors say.
weight_figures: Final = Table(
    "weight_figures",
    metadata,
    _model_id(primary_key=True),
    _required("version", Integer),
    _required("layers", LargeBinary),
    _required("statistics"),
)

# Fingerprint specs; `definition` is all of it as JSON. `stamp` counts the changes to its vectors, and to the classes of
# the models that have one: what remembers them compares it to know whether it is behind; `removed` is the stamp of the
# last change that took one away; `indexed` is the last one that the derived index in Postgres took part in, NULL where
# there is none.
specs: Final = Table(
    "specs",
    metadata,
    _id(),
    _required("hash", unique=True),
    _required("name"),
    _required("version", Integer),
    _required("matrix_rule"),
    _required("length", Integer),
    _required("definition"),
    _required("created", UtcDateTime),
    _counter("stamp"),
    _counter("removed"),
    Column("indexed", BigInteger),
)

# Little-endian float32 vectors. The key starts with the spec, as every reading does; `stamp` is the spec's when the
# vector was written.
fingerprints: Final = Table(
    "fingerprints",
    metadata,
    Column("spec_id", Integer, ForeignKey("specs.id", ondelete="CASCADE"), primary_key=True),
    _model_id(primary_key=True, index=True),
    _required("vector", LargeBinary),
    _counter("stamp"),
    Index(None, "spec_id", "stamp"),
)

# A model's conjugacy figures, from its spectra alone; `rule` is the version of the thresholds they were judged by. All
# of `decay_` is NULL where the tail was not looked at, the last three where there was too little to fit.
conjugacy: Final = Table(
    "conjugacy",
    metadata,
    _model_id(primary_key=True),
    _required("rule", Integer),
    *(_required(f"{kind}_{delta}", Double) for kind in ("tail", "wishart_tail") for delta in ("01", "02", "05")),
    _required("z", Double),
    _required("tail_class"),
    _required("training_class"),
    Column("decay_law", Text),
    Column("decay_threshold", Double),
    Column("decay_exceedances", BigInteger),
    *(Column(f"decay_{figure}", Double) for figure in ("rate", "exponent", "statistic")),
)

# Distances between unrelated models under a spec and distance; `quantiles` is a JSON list of pairs; `tolerance_low` and
# `tolerance_high` bound the tolerance, by a bootstrap over the families of the models it was measured on. Not tied to
# `specs`: a calibration may come before the first fingerprint.
calibrations: Final = Table(
    "calibrations",
    metadata,
    _id(),
    _required("spec_hash"),
    _required("distance"),
    _required("rate", Double),
    _required("tolerance", Double),
    _required("quantiles"),
    _required("source"),
    _required("created", UtcDateTime),
    Column("tolerance_low", Double),
    Column("tolerance_high", Double),
    Column("models", Integer),
    Column("families", Integer),
    UniqueConstraint("spec_hash", "distance"),
)

# Models sorted into classes of equivalents. `scope` is the filter they had to pass, as canonical JSON; `mark` is a hash
# over all that the classes follow from, which tells whether they still hold. A new partition of the same terms takes
# the place of the old one.
partitions: Final = Table(
    "partitions",
    metadata,
    _id(),
    Column("spec_id", Integer, ForeignKey("specs.id", ondelete="CASCADE"), nullable=False, index=True),
    _required("distance"),
    _required("rule"),
    _required("tolerance", Double),
    _required("scope"),
    _required("mark"),
    _required("models", Integer),
    _required("created", UtcDateTime),
    UniqueConstraint("spec_id", "distance", "rule", "tolerance", "scope"),
)

# `identity` is what a class is known by from one partition to the next; its medoid goes with the model it is; `bounded`
# where `diameter` is a bound from above.
classes: Final = Table(
    "classes",
    metadata,
    _id(),
    Column("partition_id", Integer, ForeignKey("partitions.id", ondelete="CASCADE"), nullable=False),
    _required("number", Integer),
    _required("identity", index=True),
    Column("medoid_id", Integer, ForeignKey("models.id", ondelete="SET NULL"), index=True),
    _required("diameter", Double),
    _required("bounded", Boolean),
    _required("tail_class"),
    _required("training_class"),
    UniqueConstraint("partition_id", "identity"),
    Index(None, "partition_id", "number", unique=True),
)

members: Final = Table(
    "members",
    metadata,
    Column("class_id", Integer, ForeignKey("classes.id", ondelete="CASCADE"), primary_key=True),
    _model_id(primary_key=True, index=True),
)

# The journal of ingests. `plan` is a hash over the items and options: a second start of the same plan goes on with the
# first; `options` and an item's `reference` are JSON; `heartbeat` tells a run that is at work from one that was killed.
runs: Final = Table(
    "runs",
    metadata,
    _id(),
    _required("plan", index=True),
    _required("command"),
    _required("options"),
    _required("state"),
    _required("tool_version"),
    _required("worker"),
    _required("started", UtcDateTime),
    _required("heartbeat", UtcDateTime),
    Column("finished", UtcDateTime),
    sqlite_autoincrement=True,
)

items: Final = Table(
    "items",
    metadata,
    Column("run_id", Integer, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    _key("position", Integer),
    _required("reference"),
    _required("name"),
    _required("cost", Double),
    _required("state"),
    _required("attempts", Integer),
    _required("error"),
    _required("remedy"),
    Column("seconds", Double),
    Column("model_id", Integer, ForeignKey("models.id", ondelete="SET NULL"), index=True),
)
