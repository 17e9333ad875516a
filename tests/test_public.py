"""The public names. A change here is a change for whoever uses the library, and belongs into the changelog."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect

import pytest

import registry
from registry import ModelCard, Registry, errors

TERMS = "fingerprint='layered', distance=None, tolerance=None"
SEARCH = "radius=None, equivalent=False, exact=False"
METHODS = {
    "calibrate": "(*, fingerprint='layered', distance=None, rate=0.01, seed=0, dry_run=False)",
    "calibration": "(*, fingerprint='layered', distance=None)",
    "check": "()",
    "classes": f"(*, {TERMS}, rule=None, keep=True, **filters)",
    "close": "()",
    "compare": f"(a, b, *, {TERMS}, strict=False)",
    "compress": (
        "(query, *, max_ratio=None, max_params=None, max_bytes=None, max_gflops=None, k=10, explain=False, "
        f"{TERMS}, **filters)"
    ),
    "current": "()",
    "distances": "(*, fingerprint='layered', distance=None, **filters)",
    "equivalent": f"(a, b, *, {TERMS}, strict=False)",
    "estimate": "(refs, *, approximate=False, workers=None, executor=None)",
    "export": "(file, *, names=(), spectra=True, overwrite=False, progress=None, **filters)",
    "partitions.forget": "(partition_id)",
    "runs.forget": "(run=None, *, older_than=None)",
    "import_from": "(file, *, replace=False, dry_run=False, progress=None)",
    "index.build": "(*, fingerprint='layered', distance=None)",
    "index.check": "(*, fingerprint='layered', distance=None, k=10, queries=100, seed=0)",
    "index.drop": "(*, fingerprint=None)",
    "ingest": (
        "(reference, *, name=None, key=None, seed=None, replace=False, keep_spectra=True, device='cpu', "
        "approximate=False, **card)"
    ),
    "ingest_all": (
        "(refs, *, replace=False, keep_spectra=True, discard_weights=False, device='cpu', approximate=False, "
        "workers=None, executor=None, address=None, time_limit=None, command='', progress=None)"
    ),
    "partitions.get": "(identity)",
    "partitions.list": "()",
    "models": "(**filters)",
    "nearest": f"(query, k=None, *, {SEARCH}, {TERMS}, **filters)",
    "outdated": "()",
    "plan": "(references=(), *, manifest=None, key=None, seed=0, name=None, card=ModelCard())",
    "plot_csd": "(names, file, *, scale='full', reference='cue', seed=None, axes='both', x_max=None, title='')",
    "plot_spectrum": "(name, file, *, title='')",
    "refingerprint": "(*, fingerprint=None, progress=None)",
    "remove": "(name)",
    "rename": "(old, new)",
    "reset_calibration": "(*, fingerprint='layered', distance=None)",
    "retry": "(run, *, workers=None, executor=None, address=None, time_limit=None, progress=None)",
    "runs.items": "(run, *, states=())",
    "runs": "(run=None, *, limit=None)",
    "search": f"(query, k=None, *, {SEARCH}, {TERMS}, **filters)",
    "search_all": "(queries, **terms)",
    "select": (f"(*, aims=(), like=None, min_metric=None, max_metric=None, k=20, {TERMS}, **filters)"),
    "set": "(name, **changes)",
    "set_metric": "(name, metric)",
    "show": "(name)",
    "spectrum": "(name)",
    "stats": "()",
    "tag": "(name, /, **tags)",
    "unmatched": "(**filters)",
    "upgrade": "(*, from_revision=None)",
}


def test_names_of_the_package() -> None:
    assert registry.__all__ == [
        "Filter",
        "Metric",
        "MetricBound",
        "ModelCard",
        "Registry",
        "RegistryError",
        "__version__",
    ]
    for name in registry.__all__:
        assert getattr(registry, name) is not None
        assert name in dir(registry)
    assert registry.__version__ == importlib.metadata.version("architecture-registry")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        registry.nothing  # noqa: B018


def signature(method: object) -> str:
    """Parameters but ``self``, without annotations."""
    found = inspect.signature(method)  # type: ignore[arg-type]
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in found.parameters.values()]
    text = str(inspect.Signature(bare)).replace(repr(ModelCard()), "ModelCard()")
    return text.replace("(self, /, ", "(").replace("(self, ", "(").replace("(self)", "()")


def test_methods_of_the_registry() -> None:
    methods = {name: member for name, member in inspect.getmembers(Registry, inspect.isfunction) if name[0] != "_"}
    assert {name: signature(method) for name, method in methods.items()} == METHODS
    assert signature(Registry.__init__) == "(url=None)"
    for name, method in methods.items():
        assert method.__doc__, name
        assert inspect.signature(method).return_annotation is not inspect.Signature.empty, name


@pytest.mark.parametrize("module", ["types", "spectral", "equivalence", "ingest", "sources", "storage", "ensembles"])
def test_what_a_part_offers_is_there(module: str) -> None:
    part = importlib.import_module(f"registry.{module}")
    assert len(part.__all__) == len(set(part.__all__))
    for name in part.__all__:
        assert getattr(part, name) is not None


def test_every_error_is_drawn_in_the_tree() -> None:
    drawn = errors.__doc__ or ""
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, errors.RegistryError)
        assert f" {name} " in drawn, name
    assert all(len(line) <= 120 for line in drawn.splitlines())


def test_errors_are_one_line_and_a_remedy() -> None:
    error = errors.UsageError("no such thing", "try another")
    assert (str(error), error.message, error.remedy, error.exit_code) == (
        "no such thing (try another)", "no such thing", "try another", 2,
    )  # fmt: skip
    assert isinstance(error, ValueError)
    assert str(errors.StorageError("broken")) == "broken"
    assert errors.StorageError.exit_code == 1
