"""Answers as pandas data frames, one row for each thing found.

``frames.of_models(reg.models())`` is for what is a tuple. The answers ``Search``, ``Comparison``, ``Partition``,
``Compression``, ``Selection``, ``Calibrated`` and ``Audit`` have a method ``to_frame()``. All frames follow the same
rules:

- Columns are flat, their names are those of the fields, and their order is always the same. What depends on the stored
  models comes last, sorted: ``metric.top1@cifar10/test``, ``change.top1@cifar10/test``, ``tag.reviewed``.
- An empty answer has the same columns and dtypes as a full one, but for those metrics, changes and tags.
- Dtypes are nullable: ``Int64``, ``Float64``, ``boolean``, ``string``, and ``datetime64[us, UTC]`` for times. What is
  not known, the empty text included, is missing (``pandas.NA`` or ``NaT``).
- Rows are in the order of the answer; the index is 0, 1, 2, ... A frame is a copy: changing it changes nothing else.

Every function raises ``RegistryError`` where pandas is not installed: ``pip install 'architecture-registry[frame]'``.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from registry.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import ModuleType

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from registry.types import (
        Audit,
        Calibrated,
        Candidate,
        Comparison,
        Compression,
        ExpectedChange,
        Ingested,
        LayerFigures,
        Metric,
        ModelDetails,
        ModelSummary,
        Neighbour,
        Partition,
        Run,
        RunItem,
        Search,
        Selection,
        Spectrum,
    )

__all__ = [
    "of_calibrated",
    "of_comparisons",
    "of_compression",
    "of_details",
    "of_distances",
    "of_findings",
    "of_ingested",
    "of_items",
    "of_layers",
    "of_models",
    "of_neighbours",
    "of_partition",
    "of_runs",
    "of_search",
    "of_selection",
    "of_spectra",
]

WHOLE, NUMBER, TRUTH, TEXT, TIME = "Int64", "Float64", "boolean", "string", "datetime64[us, UTC]"


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, its dtype, and how its value is taken from what a row is of."""

    name: str
    dtype: str
    value: Callable[[Any], object]

    def within(self, part: Callable[[Any], object], prefix: str = "") -> Column:
        """The same column where a row is of something that has ``part``."""
        return Column(prefix + self.name, self.dtype, lambda row: self.value(part(row)))


def _fields(dtype: str, *names: str) -> tuple[Column, ...]:
    return tuple(Column(name, dtype, attrgetter(name)) for name in names)


_NAME = _fields(TEXT, "name")
_FIGURES = (
    *_fields(TEXT, "family", "architecture", "task", "dataset", "licence"),
    *_fields(WHOLE, "parameters", "bytes", "layers"),
    *_fields(NUMBER, "gflops"),
    *_fields(TEXT, "training_class", "tail_class"),
    *_fields(WHOLE, "approximate"),
    *_fields(TEXT, "precision", "format", "location", "entry"),
    *_fields(WHOLE, "unread", "nonfinite"),
    *_fields(TRUTH, "weights_read"),
    *_fields(TEXT, "source", "matrix_rule", "content_hash", "topology"),
    *_fields(TIME, "created"),
    *_fields(WHOLE, "id"),
    Column("names", TEXT, lambda model: ", ".join(model.names)),
)
"""Of a model, but for its name and its metrics."""
_MODEL = (*_NAME, *_FIGURES)
_VERDICT = (*_fields(NUMBER, "distance"), *_fields(TRUTH, "equivalent"))
_EVIDENCE = (
    *_fields(NUMBER, "tolerance", "rate", "closer_than", "expected_false"),
    Column("reasons", TEXT, lambda verdict: "; ".join(verdict.reasons)),
    *_fields(TRUTH, "by_shapes"),
)
_PROVENANCE = (
    *_fields(TEXT, "revision", "recipe", "training"),
    *_fields(WHOLE, "seed"),
    *_fields(TEXT, "tool_version"),
    *_fields(TRUTH, "has_spectra"),
)
_LAYER = (
    *_fields(WHOLE, "position"),
    *_fields(TEXT, "name", "kind"),
    *_fields(WHOLE, "p", "q"),
    *_fields(NUMBER, "mean", "largest", "stable_rank", "entropy"),
    *_fields(TEXT, "method"),
)
_RUN = (
    *_fields(WHOLE, "id"),
    *_fields(TEXT, "state", "command"),
    *_fields(WHOLE, "items", "done", "failed", "waiting"),
    *_fields(TIME, "started", "heartbeat", "finished"),
    *_fields(TEXT, "worker", "plan", "tool_version"),
)
_ITEM = (
    *_fields(WHOLE, "position"),
    *_fields(TEXT, "reference", "name", "state"),
    *_fields(WHOLE, "attempts"),
    *_fields(NUMBER, "seconds"),
    *_fields(TEXT, "message", "remedy"),
)
_INGESTED = (
    *_fields(TEXT, "reference", "name", "status"),
    *_fields(NUMBER, "seconds"),
    *_fields(TEXT, "message", "remedy"),
    Column("notes", TEXT, lambda outcome: "; ".join(outcome.notes)),
)
_FINDING = (
    *_fields(TEXT, "model", "layer", "rule", "severity"),
    *_fields(NUMBER, "value", "threshold"),
    *_fields(TEXT, "message", "remedy"),
    *_fields(NUMBER, "false_alarms"),
)
_RELATION = (*_NAME, *_fields(WHOLE, "pairs", "families"), *_fields(NUMBER, "median", "within", "equivalent"))


def _within(columns: Iterable[Column], part: str, prefix: str = "") -> tuple[Column, ...]:
    return tuple(column.within(attrgetter(part), prefix) for column in columns)


def _varying(
    rows: Sequence[Any], prefix: str, dtype: str, values: Callable[[Any], dict[str, Any]]
) -> tuple[Column, ...]:
    """Columns of what rows have by name, sorted: a row without a name has nothing there."""

    def column(name: str) -> Column:
        return Column(f"{prefix}{name}", dtype, lambda row: values(row).get(name))

    return tuple(map(column, sorted({name for row in rows for name in values(row)})))


def _metrics(rows: Sequence[Any], model: str, prefix: str = "") -> tuple[Column, ...]:
    metrics: Callable[[Any], tuple[Metric, ...]] = attrgetter(f"{model}.metrics" if model else "metrics")
    return _varying(rows, f"{prefix}metric.", NUMBER, lambda row: {one.place: one.value for one in metrics(row)})


def _expected(rows: Sequence[Any], of: Callable[[Any], ExpectedChange | None]) -> tuple[Column, ...]:
    """Three columns of the change to expect of each metric that some row has one of: median and ends."""

    def figure(name: str) -> Callable[[Any], dict[str, Any]]:
        def value(row: Any) -> dict[str, Any]:
            found = of(row)
            return {} if found is None else {found.place: getattr(found, name)}

        return value

    return (
        *_varying(rows, "expected.", NUMBER, figure("value")),
        *_varying(rows, "expected_low.", NUMBER, figure("low")),
        *_varying(rows, "expected_high.", NUMBER, figure("high")),
    )


def _pandas() -> ModuleType:
    try:
        import pandas
    except ImportError as error:
        raise RegistryError(
            f"data frames need pandas, which cannot be imported: {error}", "pip install 'architecture-registry[frame]'"
        ) from error
    return pandas


def _frame(rows: Sequence[Any], columns: Iterable[Column]) -> pd.DataFrame:
    pandas = _pandas()
    found: dict[str, Any] = {}
    for column in columns:
        # The empty text means unknown everywhere in the registry.
        values = [None if value == "" else value for value in map(column.value, rows)]
        if column.dtype == TIME:
            times = pandas.to_datetime(pandas.Series(values, dtype="object"), utc=True, format="ISO8601")
            found[column.name] = times.astype(TIME)
        else:
            found[column.name] = pandas.array(values, dtype=column.dtype)
    frame: pd.DataFrame = pandas.DataFrame(found, index=pandas.RangeIndex(len(rows)))
    return frame


def of_models(models: Iterable[ModelSummary]) -> pd.DataFrame:
    """One row for each stored model, as ``reg.models()`` returns them.

    Columns: ``name``, ``family``, ``architecture``, ``task``, ``dataset``, ``licence``, ``parameters``, ``bytes``,
    ``layers``, ``gflops``, ``training_class``, ``tail_class``, ``approximate``, ``source``, ``matrix_rule``,
    ``content_hash``, ``topology``, ``created``, ``id``, ``names`` (all of them, separated by commas), and one for each
    metric that any of the models has. Every frame about models has these columns, besides its own.
    """
    rows = tuple(models)
    return _frame(rows, (*_MODEL, *_metrics(rows, "")))


def of_details(details: Iterable[ModelDetails]) -> pd.DataFrame:
    """One row for each model that ``reg.show(name)`` returned: the columns of `of_models`, provenance, and tags.

    ``revision``, ``recipe``, ``training``, ``seed``, ``tool_version`` and ``has_spectra`` stand before the metrics,
    ``tag.KEY`` after them.
    """
    rows = tuple(details)
    tags = _varying(rows, "tag.", TEXT, lambda row: dict(row.tags))
    return _frame(rows, (*_within(_MODEL, "summary"), *_PROVENANCE, *_metrics(rows, "summary"), *tags))


def of_layers(layers: Iterable[LayerFigures]) -> pd.DataFrame:
    """One row for each layer of ``reg.show(name).layers``, in depth order."""
    return _frame(tuple(layers), _LAYER)


def of_spectra(spectra: Iterable[Spectrum]) -> pd.DataFrame:
    """One row for each eigenvalue of ``reg.spectrum(name)``: the layer, the index within it, and the eigenvalue.

    Columns: ``position`` (int64) and ``layer`` (string) of the layer, ``index`` (int64) from 0, ascending, and
    ``eigenvalue`` (float32), in units of the layer's mean: times ``Spectrum.mean`` it is that of W W^T.
    """
    import numpy as np

    pandas, layers = _pandas(), tuple(spectra)
    counts = [len(one.values) for one in layers]
    names = pandas.array([one.layer.name for one in layers], dtype=TEXT)
    frame: pd.DataFrame = pandas.DataFrame(
        {
            "position": np.repeat(np.array([one.layer.position for one in layers], np.int64), counts),
            "layer": names.repeat(counts),
            "index": np.concatenate([np.arange(count, dtype=np.int64) for count in (0, *counts)]),
            "eigenvalue": np.concatenate([np.empty(0, np.float32), *(one.values for one in layers)]),
        }
    )
    return frame


def of_distances(distances: tuple[Iterable[str], NDArray[np.float64]]) -> pd.DataFrame:
    """The (n, n) distances of ``reg.distances()``, float64, with the models' names as index and as columns."""
    names, values = distances
    pandas = _pandas()
    labels = pandas.Index(list(names), dtype=TEXT, name="name")
    frame: pd.DataFrame = pandas.DataFrame(values, index=labels, columns=labels, copy=True)
    return frame


def of_runs(runs: Iterable[Run]) -> pd.DataFrame:
    """One row for each run of ingests."""
    return _frame(tuple(runs), _RUN)


def of_items(items: Iterable[RunItem]) -> pd.DataFrame:
    """One row for each model of a run."""
    return _frame(tuple(items), _ITEM)


def of_ingested(done: Iterable[Ingested]) -> pd.DataFrame:
    """One row for each reference of ``reg.ingest_all(...)``, and what became of it."""
    return _frame(tuple(done), _INGESTED)


def _neighbours(rows: Sequence[Neighbour], query: tuple[Column, ...]) -> pd.DataFrame:
    return _frame(
        rows,
        (
            *query,
            *_within(_NAME, "model"),
            *_within(_VERDICT, "verdict"),
            *_within(_FIGURES, "model"),
            *_within(_EVIDENCE, "verdict"),
            *_metrics(rows, "model"),
        ),
    )


def of_neighbours(neighbours: Iterable[Neighbour]) -> pd.DataFrame:
    """One row for each neighbour that ``reg.nearest(...)`` returned, the nearest first: model, distance, verdict."""
    return _neighbours(tuple(neighbours), ())


def of_search(search: Search) -> pd.DataFrame:
    """One row for each neighbour, the nearest first; ``query`` is the model asked about, the same in every row."""
    return _neighbours(search.neighbours, (Column("query", TEXT, lambda _: search.model.name),))


def of_comparisons(comparisons: Iterable[Comparison]) -> pd.DataFrame:
    """One row for each pair of models.

    ``a`` and ``b`` are their names; ``distance`` and ``equivalent`` the verdict by the distance asked for, whose
    evidence follows; ``distance.l1`` and so on how far apart they are by each distance; ``a.parameters``,
    ``b.parameters`` and so on the columns of `of_models` for either side.
    """
    rows = tuple(comparisons)
    return _frame(
        rows,
        (
            Column("a", TEXT, attrgetter("a.name")),
            Column("b", TEXT, attrgetter("b.name")),
            *_within(_VERDICT, "verdict"),
            *_within(_EVIDENCE, "verdict"),
            *_varying(rows, "distance.", NUMBER, lambda row: dict(row.distances)),
            *_within(_FIGURES, "a", "a."),
            *_within(_FIGURES, "b", "b."),
            *_metrics(rows, "a", "a."),
            *_metrics(rows, "b", "b."),
        ),
    )


def of_partition(partition: Partition) -> pd.DataFrame:
    """One row for each model, class by class.

    ``class_number``, ``class_identity``, ``class_size`` and ``class_diameter`` are those of its class; ``medoid``:
    whether it is the most central member.
    """
    rows = tuple((kind, model) for kind in partition.classes for model in kind.members)
    models = [model for _, model in rows]
    return _frame(
        rows,
        (
            Column("class_number", WHOLE, lambda row: row[0].number),
            Column("class_identity", TEXT, lambda row: row[0].identity),
            Column("class_size", WHOLE, lambda row: len(row[0].members)),
            Column("class_diameter", NUMBER, lambda row: row[0].diameter),
            Column("medoid", TRUTH, lambda row: row[0].medoid == row[1].name),
            *(column.within(lambda row: row[1]) for column in (*_MODEL, *_metrics(models, ""))),
        ),
    )


def of_compression(compression: Compression) -> pd.DataFrame:
    """One row for each candidate, the best first; ``query`` is the model to be replaced, the same in every row.

    ``params_saved``, ``bytes_saved`` and ``gflops_saved`` are fractions of it; ``change.METRIC`` is the candidate's
    metric minus that of the model. ``expected.METRIC``, ``expected_low.METRIC`` and ``expected_high.METRIC`` are the
    change to expect of a metric that is not stored of it, and the ends of its 90 % interval.
    """
    rows = compression.candidates

    def changes(row: Candidate) -> dict[str, Any]:
        return {one.place: one.change for one in row.changes}

    return _frame(
        rows,
        (
            Column("query", TEXT, lambda _: compression.model.name),
            *_within(_NAME, "model"),
            *_within(_VERDICT, "verdict"),
            *_fields(NUMBER, "params_saved", "bytes_saved", "gflops_saved"),
            *_within(_FIGURES, "model"),
            *_within(_EVIDENCE, "verdict"),
            *_varying(rows, "change.", NUMBER, changes),
            *_expected(rows, lambda row: row.expected_change),
            *_metrics(rows, "model"),
        ),
    )


def of_selection(selection: Selection) -> pd.DataFrame:
    """One row for each model of the front that is shown, class by class, the smallest of each first.

    ``class_number`` counts the classes from 1; ``best``: whether it stands for its class; ``aim.AIM``: its figure for
    each aim, in the aims' order; ``distance``: from the model to be like, missing where none was given;
    ``expected.METRIC`` and its ends: as `of_compression` has them.
    """
    rows = tuple(
        (number, choice)
        for number, kind in enumerate(selection.classes, 1)
        for choice in (kind.best, *kind.others)
    )  # fmt: skip
    best = {id(kind.best) for kind in selection.classes}
    models = [choice.model for _, choice in rows]

    def aimed(at: int) -> Column:
        return Column(f"aim.{selection.aims[at].place}", NUMBER, lambda row: row[1].values[at])

    return _frame(
        rows,
        (
            Column("class_number", WHOLE, lambda row: row[0]),
            Column("best", TRUTH, lambda row: id(row[1]) in best),
            Column("name", TEXT, lambda row: row[1].model.name),
            *map(aimed, range(len(selection.aims))),
            Column("distance", NUMBER, lambda row: row[1].distance),
            *_expected(rows, lambda row: row[1].expected_change),
            *(column.within(lambda row: row[1].model) for column in (*_FIGURES, *_metrics(models, ""))),
        ),
    )


def of_calibrated(calibrated: Calibrated) -> pd.DataFrame:
    """One row for each relation of labelled models: how many pairs, and the fractions within the tolerance."""
    return _frame(calibrated.relations, _RELATION)


def of_findings(audit: Audit) -> pd.DataFrame:
    """One row for each finding of ``reg.audit()``, with the fields of ``Finding`` as columns."""
    return _frame(audit.findings, _FINDING)
