"""The command line over a registry that answers from memory."""

from __future__ import annotations

import inspect
import json
import math
import re
import signal
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytest

import registry
from registry.catalog import Registry
from registry.catalog.ingest_runs import IngestRuns
from registry.catalog.kept_classes import KeptClasses
from registry.catalog.vector_index import VectorIndex
from registry.types import (
    Aim,
    Audit,
    Calibrated,
    Calibration,
    Candidate,
    CardChanges,
    CardFields,
    Choice,
    Comparison,
    Compression,
    Conjugacy,
    Contrast,
    Decay,
    Duplicate,
    DuplicateGroup,
    Duplicates,
    Estimate,
    Filters,
    Finding,
    FingerprintSpec,
    Identified,
    IndexCheck,
    Ingested,
    KeptPartition,
    LabelledPairs,
    LayerContrast,
    LayerFigures,
    LayerMatrix,
    Membership,
    Metric,
    MetricChange,
    ModelClass,
    ModelDetails,
    ModelEstimate,
    ModelRef,
    ModelSummary,
    Neighbour,
    NotAudited,
    OlderModels,
    Partition,
    Plan,
    Recomputed,
    Related,
    Relation,
    RelationEdge,
    RelationForest,
    RelationTree,
    Relative,
    Requirement,
    Run,
    RunItem,
    Search,
    Selected,
    Selection,
    SkippedTensor,
    Spectrum,
    Stats,
    Transfer,
    Verdict,
    WeightsPlace,
)
from tests.cli.identifications import identification

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SPEC = FingerprintSpec("layered", 1, "rule-1", (0.1, 1.0, 10.0), 3)
DECAY = Decay("power", 4.2, 1412, 0.4, 2.43, 3.1)
CONJUGACY = Conjugacy(((0.01, 5.5), (0.02, 4.5), (0.05, 3.5)), ((0.01, 3.0),), 12.5, "long", "trained", DECAY)
CALIBRATION = Calibration(
    SPEC.hash, "l1", 0.01, 0.035, ((0.0, 0.01), (0.001, 0.01), (1.0, 1.0)), "163 published models of 20 families"
)
OWN = replace(
    CALIBRATION, tolerance=0.04, tolerance_low=0.03, tolerance_high=0.05, models=812, families=31, created="2026-01-02",
    source="812 models of this registry, of 31 families, 2026-01-02",
)  # fmt: skip
CONTRAST = Contrast(
    location=1.31,
    difference=-0.123,
    depth=0.8,
    depth_distance=0.21,
    layers_a=(LayerContrast("fc.weight", 19, 1.0, 0.41), LayerContrast("conv1.weight", 0, 0.0, 0.2)),
    layers_b=(LayerContrast("head.weight", 31, 1.0, 0.5),),
    shares=(("shapes", 0.25), ("spectra", 0.75)),
)
RUN = Run(
    7,
    "died",
    "archreg ingest models/",
    "c0ffee",
    "host:12",
    "0.1.0",
    "2026-01-02T03:04:05Z",
    "2026-01-02T03:05:06Z",
    None,
    items=3,
    done=1,
    failed=1,
)
TOP1 = Metric("top1", 92.63, "cifar10", "test")


def summary(name: str = "resnet20", **changes: Any) -> ModelSummary:
    known: dict[str, Any] = {
        "id": 1,
        "name": name,
        "names": (name,),
        "content_hash": "c0ffee",
        "topology": "70b0",
        "parameters": 269_722,
        "bytes": 1_078_888,
        "layers": 20,
        "matrix_rule": "rule-1",
        "created": "2026-01-02T03:04:05Z",
        "family": "resnet",
        "dataset": "cifar10",
        "tail_class": "long",
        "training_class": "trained",
        "metrics": (TOP1,),
    }
    return ModelSummary(**(known | changes))


def verdict(distance: float = 0.021, **changes: Any) -> Verdict:
    known: dict[str, Any] = {"tolerance": 0.035, "rate": 0.0037, "closer_than": 0.996, "expected_false": 0.6}
    known |= {"equivalent": distance <= 0.035} | changes
    return Verdict(distance=distance, **known)


GROUPS: dict[str, type] = {"runs": IngestRuns, "index": VectorIndex, "partitions": KeptClasses}
KEYWORDS: dict[str, Any] = {"Filters": Filters, "CardFields": CardFields, "CardChanges": CardChanges}


def check_call(method: str, *args: Any, **kwargs: Any) -> None:
    """Raise ``TypeError`` where the registry's own method of that name does not take these arguments."""
    group, _, name = method.rpartition(".")
    real = inspect.signature(getattr(GROUPS[group] if group else Registry, name))
    bound = real.bind(None, *args, **kwargs)
    for parameter in real.parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD:
            continue
        given = bound.arguments.get(parameter.name, {})
        expected = re.fullmatch(r"Unpack\[(\w+)\]", parameter.annotation)
        known = KEYWORDS[expected[1]].__annotations__ if expected else ()
        if parameter.annotation == "Never" or expected:
            for keyword in given:
                if keyword not in known:
                    raise TypeError(f"{method}() has no keyword {keyword!r}")


@dataclass
class FakeRegistry:
    """Answers with what a test put in ``answers``, else with samples; remembers how it was called."""

    answers: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    url: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.calls.append(("close", (), {}))

    def __getattr__(self, name: str) -> Any:
        if name in GROUPS:
            methods = {
                sample.partition(".")[2]: self._method(sample) for sample in SAMPLES if sample.startswith(f"{name}.")
            }
            return SimpleNamespace(**methods)
        return self._method(name)

    def _method(self, method: str) -> Callable[..., Any]:
        if method not in SAMPLES:
            raise AttributeError(method)

        def call(*args: Any, **kwargs: Any) -> Any:
            check_call(method, *args, **kwargs)
            self.calls.append((method, args, kwargs))
            answer = self.answers.get(method, SAMPLES[method])
            if isinstance(answer, BaseException):
                raise answer
            return answer(*args, **kwargs) if callable(answer) else answer

        return call

    def called(self, method: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of the only call of ``method``."""
        [(args, kwargs)] = [(args, kwargs) for name, args, kwargs in self.calls if name == method]
        return args, kwargs


def _plan(references: Any, *, manifest: Any = None, **settings: Any) -> Plan:
    names = [str(reference) for reference in references] or ["from-manifest-1", "from-manifest-2"]
    return Plan(ModelRef("file", f"/models/{name}", name, bytes=30_000_000) for name in names)


def _estimate(refs: Any, **_settings: Any) -> Estimate:
    return Estimate(
        tuple(ModelEstimate(0.75, 150_000_000, by_layers=True) for _ in refs), 0.75 * len(refs), 270_000_000, 2
    )


def _ingest_all(refs: Any, *, progress: Any = None, **settings: Any) -> tuple[Ingested, ...]:
    progress.begin(refs, [1.0] * len(refs))
    outcomes = []
    for ref in refs:
        progress.start(ref)
        bad = "bad" in ref.name
        outcomes.append(
            Ingested(ref.target, ref.name, "failed", 0.1, f"{ref.target} holds no tensors", "check the file")
            if bad
            else Ingested(ref.target, ref.name, "added", 0.5)
        )
        progress.done(ref, outcomes[-1])
    progress.end()
    return tuple(outcomes)


def _retry(_run: int, *, progress: Any = None, **settings: Any) -> tuple[Ingested, ...]:
    return _ingest_all(_plan(["left"]), progress=progress)


def _items(_run: int, *, states: Any = ()) -> tuple[RunItem, ...]:
    items = [
        RunItem(0, "/models/a", "a", "added", 1, 0.5, "", ""),
        RunItem(1, "/models/b", "b\x1b[2J", "failed", 2, 0.1, "b holds no tensors", "check the file"),
        RunItem(2, "/models/c", "c", "waiting", 0, None, "", ""),
    ]
    return tuple(item for item in items if not states or item.state in states)


def _refingerprint(*, fingerprint: str | None = None, progress: Any = None) -> Recomputed:
    if progress is not None:
        progress(2, 2)
    return Recomputed(2, 1 if fingerprint is None else 0)


NEIGHBOURS = (
    Neighbour(summary("resnet32"), verdict()),
    Neighbour(summary("vgg11", family="vgg"), verdict(0.5, closer_than=0.4, reasons=("distance 0.5 exceeds 0.035",))),
)
CANDIDATE = Candidate(
    summary("resnet8", parameters=78_042),
    verdict(),
    0.7106,
    0.709,
    None,
    (MetricChange("top1", "cifar10", "test", 92.63, 87.5, higher_is_better=True),),
)
CLASS = ModelClass(
    1,
    "c1a55c1a55c1",
    "resnet32",
    0.03,
    (summary(), summary("resnet32")),
    "trained",
    "long",
    (("family", "resnet"), ("dataset", "cifar10")),
)
SPECTRUM = Spectrum(
    LayerMatrix(0, "conv1.weight", "conv1.weight", (16, 3, 3, 3), "conv"),
    0.25,
    np.linspace(0.5, 1.5, 16, dtype=np.float32),
)
RELATED = Relation("related", 0.83, 0.02, 11.2, 20, 1.0)

SAMPLES: dict[str, Any] = {
    "plan": _plan,
    "estimate": _estimate,
    "ingest_all": _ingest_all,
    "refingerprint": _refingerprint,
    "runs.retry": _retry,
    "runs.items": _items,
    "runs.list": (RUN,),
    "runs.get": RUN,
    "runs.forget": 1,
    "models": (summary(), summary("resnet32")),
    "unmatched": {},
    "duplicates": Duplicates(
        (
            DuplicateGroup(
                "identical",
                (Duplicate(summary(), (WeightsPlace("/a.pt", 1_000), WeightsPlace("/b.pt", 900))),),
                900,
            ),
            DuplicateGroup(
                "related",
                (Duplicate(summary(), (WeightsPlace("/a.pt", 1_000),)), Duplicate(summary("tuned"), (), 0.93)),
            ),
        ),
        3,
        1,
    ),
    "show": lambda name: ModelDetails(
        summary(name),
        (LayerFigures(0, "conv1.weight", "conv", (16, 3, 3, 3), 16, 27, 0.25, 4.0, 3.5, math.nan),),
        (SkippedTensor("bn1.running_mean", "float32", (16,), "batch statistics"),),
        CONJUGACY,
        (("owner", "vision"),),
        ("layered v1", "mme v1"),
        has_spectra=True,
        memberships=(Membership("c1a55c1a55c1", 12, "layered v1", "l1", 0.035, "complete"),),
    ),
    "spectrum": (SPECTRUM, SPECTRUM),
    "stats": Stats(
        2, 3, 40, (("resnet", 2),), (("layered v1", 2),), (("trained", 2),), (("long", 2),), "v0001", 40_960
    ),
    "search": lambda *_args, **_settings: Search(summary(), SPEC, "l1", 0.035, 0.004, 163, NEIGHBOURS, CALIBRATION),
    "compare": lambda a, b, **_settings: Comparison(
        summary(a),
        summary(b),
        SPEC,
        "l1",
        verdict(),
        (("l1", 0.021), ("l2", 0.004), ("linf", 0.002)),
        CONJUGACY,
        CONJUGACY,
        CALIBRATION,
        CONTRAST,
        relation=Relation("related", 0.83, 0.02, 31.0, 14, 0.97),
        findings_a=(Finding("resnet20", "fc", "rank", "error", 0.1, 0.5, "rank 1 of order 10", "narrow it", 0.0),),
        findings_b=(),
    ),
    "gate": lambda file, against, **_settings: Comparison(
        summary(against),
        summary(file),
        SPEC,
        "l1",
        verdict(),
        (("l1", 0.021),),
        CONJUGACY,
        CONJUGACY,
        CALIBRATION,
        requirements=(Requirement("related", True, "correlation 0.93, standard error 0.02, in 20 layers"),),
    ),
    "audit": Audit(
        (Finding("resnet20", "fc.weight", "rows", "note", 3.0, 0.0, "3 of 10 rows of zeros", "repair the file", 0.01),),
        1,
        (NotAudited("config", "the files are not at hand", "audit the file", ("resnet20",)),),
        ("rows", "config"),
    ),
    "identify": lambda references, **_settings: Identified(tuple(map(identification, references))),
    "classes": Partition(
        SPEC,
        "l1",
        0.035,
        0.01,
        3,
        (CLASS, ModelClass(2, "ba5eba11c0de", "vgg11", 0.0, (summary("vgg11", family="vgg"),), "trained", "long")),
        "complete",
        CALIBRATION,
        kept=True,
        created="2026-01-02T03:04:05+00:00",
    ),
    "partitions.get": lambda _identity: Partition(
        SPEC, "l1", 0.035, 0.01, 3, (CLASS,), "complete", CALIBRATION, kept=True, created="2026-01-02T03:04:05+00:00"
    ),
    "partitions.list": (
        KeptPartition(
            12, "layered v1", "l1", 0.035, "cover", (("family", "resnet"),), 12_345, 67, "2026-01-02T03:04:05+00:00"
        ),
    ),
    "partitions.forget": lambda number: KeptPartition(
        number, "layered v1", "l1", 0.035, "complete", (("family", "vgg"),), 2, 1, "2026-01-02T03:04:05+00:00"
    ),
    "compress": lambda query, **_settings: Compression(
        summary(query),
        SPEC,
        "l1",
        0.035,
        0.0037,
        163,
        equivalent=True,
        candidates=(CANDIDATE,),
        calibration=CALIBRATION,
    ),
    "calibrate": Calibrated(
        OWN,
        CALIBRATION,
        812,
        3,
        (LabelledPairs("unrelated", 9000, 31, 1.01, 0.01, 0.009), LabelledPairs("same family", 9, 4, 0.2, 0.8, 0.73)),
    ),
    "select": Selection(
        spec=SPEC,
        distance="l1",
        tolerance=0.035,
        rate=0.0037,
        calibration=CALIBRATION,
        aims=(Aim("top1", True, "cifar10", "test"), Aim("parameters", False)),
        like=None,
        models=163,
        passed=9,
        searched=9,
        unknown=(("max top1@cifar10/test", 5),),
        on_front=3,
        count=2,
        classes=(
            Selected(
                Choice(summary("resnet8", parameters=78_042), (87.5, 78_042.0), None),
                (Choice(summary("resnet20"), (92.63, 269_722.0), None),),
            ),
        ),
        removals=(),
    ),
    "reset_calibration": CALIBRATION,
    "index.build": 163,
    "index.check": IndexCheck(SPEC, "l1", 163, 163, 0, 0, 10, 100, 0.9875),
    "index.drop": 1,
    "related": Related(
        summary(), (Relative(summary("resnet20-tuned"), RELATED),), found=3, compared=162, exactly=108, unlike=12
    ),
    "tree": RelationForest(
        (
            RelationTree(
                (summary(), summary("resnet20-tuned"), summary("resnet20-shuffled")),
                (
                    RelationEdge("resnet20", "resnet20-tuned", RELATED),
                    RelationEdge("resnet20-tuned", "resnet20-shuffled", Relation("permuted", 0.01, 0.02, 0.4, 20, 1.0)),
                ),
            ),
        ),
        compared=163,
        alone=160,
        unsketched=1,
    ),
    "plot_tree": None,
    "plot_csd": None,
    "plot_spectrum": None,
    "distances": (("a", "b"), np.array([[0.0, 0.5], [0.5, 0.0]])),
    "set": lambda name, **changes: replace(summary(name), **{k: v for k, v in changes.items() if k == "family"}),
    "set_metric": lambda name, _metric: summary(name),
    "tag": lambda _name, **tags: tuple((key, value) for key, value in tags.items() if value is not None),
    "rename": lambda _old, new: summary(new),
    "remove": lambda name: summary(name),
    "upgrade": lambda *, from_revision=None: from_revision or "v0001",
    "current": "v0001",
    "check": (),
    "outdated": 0,
    "older": OlderModels("rule-2", ()),
    "to_read_again": (),
    "export": Transfer("out.db", 2, 2, 0, 0, 0),
    "import_from": Transfer("out.db", 2, 2, 0, 0, 0),
}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRegistry:
    """The registry that every command opens."""
    opened = FakeRegistry()
    # It stands for a registry that is there: without one, those that ship are asked.
    monkeypatch.setattr("registry.cli.options.no_file", lambda _: False)

    def opening(url: str | None) -> FakeRegistry:
        opened.url = url
        return opened

    monkeypatch.setitem(vars(registry), "Registry", opening)
    monkeypatch.delenv("ARCHREG_DB", raising=False)
    monkeypatch.delenv("ARCHREG_DEBUG", raising=False)
    return opened


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document, strictly: NaN and infinities are none of JSON."""

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is not JSON")

        document = json.loads(self.out, parse_constant=refuse)
        assert isinstance(document, dict)
        return document


@pytest.fixture
def archreg(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Outcome]]:
    """Run a command line in this process."""
    from registry.cli.app import main

    def run(*words: str) -> Outcome:
        with pytest.raises(SystemExit) as left:
            main(words)
        captured = capsys.readouterr()
        code = left.value.code
        assert code is None or isinstance(code, int)
        return Outcome(code or 0, captured.out, captured.err)

    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def samples() -> SimpleNamespace:
    """The values that the fake answers are made of, and makers of others."""
    return SimpleNamespace(
        spec=SPEC,
        conjugacy=CONJUGACY,
        calibration=CALIBRATION,
        run=RUN,
        summary=summary,
        verdict=verdict,
        candidate=CANDIDATE,
        answers=SAMPLES,
    )
