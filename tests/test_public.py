"""The public names. A change here is a change for whoever uses the library, and belongs into the changelog."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

import registry
from registry import ModelCard, Registry, errors, types, version

TERMS = "fingerprint='layered', distance=None, tolerance=None"
JUDGED = f"{TERMS}, assume_trained=False"
SEARCH = "radius=None, equivalent=False, exact=False"
METHODS = {
    "audit": "(references=(), *, rules=(), resume=None, progress=None, **filters)",
    "calibrate": "(*, fingerprint='layered', distance=None, rate=0.01, seed=0, dry_run=False, **unknown)",
    "calibration": "(*, fingerprint='layered', distance=None, **unknown)",
    "check": "()",
    "classes": f"(*, {JUDGED}, rule=None, keep=True, **filters)",
    "close": "()",
    "compare": (
        f"(a, b, *, {TERMS}, strict=False, assume_trained=False, require=(), max_drop=None, audited=False, **unknown)"
    ),
    "compress": f"(query, *, max_ratio=None, k=10, explain=False, relations=False, {JUDGED}, **filters)",
    "current": "()",
    "distances": "(*, fingerprint='layered', distance=None, **filters)",
    "duplicates": "(**filters)",
    "equivalent": f"(a, b, *, {TERMS}, strict=False, assume_trained=False, **unknown)",
    "estimate": "(refs, *, approximate=False, headers_only=False, workers=None, executor=None)",
    "export": "(file, *, names=(), spectra=True, overwrite=False, progress=None, **filters)",
    "gate": (
        f"(file, against, *, require=(), max_drop=None, metrics=(), {TERMS}, strict=False, assume_trained=False, "
        "**unknown)"
    ),
    "identify": "(references, *, k=5, key=None, headers_only=False, **unknown)",
    "import_from": "(file, *, replace=False, dry_run=False, progress=None)",
    "ingest": (
        "(reference, *, name=None, key=None, base=None, replace=False, keep_spectra=True, device='cpu', "
        "approximate=False, allow_nonfinite=False, headers_only=False, **card)"
    ),
    "ingest_all": (
        "(refs, *, replace=False, keep_spectra=True, discard_weights=False, device='cpu', approximate=False, "
        "allow_nonfinite=False, headers_only=False, workers=None, executor=None, address=None, time_limit=None, "
        "command='', progress=None)"
    ),
    "models": "(**filters)",
    "nearest": f"(query, k=None, *, {SEARCH}, {JUDGED}, **filters)",
    "older": "()",
    "outdated": "()",
    "plan": "(references=(), *, manifest=None, key=None, seed=0, name=None, base=None, card=ModelCard())",
    "plot_csd": "(names, file=None, *, scale='full', reference='cue', seed=None, axes='both', x_max=None, title='')",
    "plot_spectrum": "(name, file=None, *, title='')",
    "plot_tree": "(file=None, *, title='', **filters)",
    "refingerprint": "(*, fingerprint=None, progress=None)",
    "related": "(query, k=10, *, every=False, **filters)",
    "relation": "(a, b, **unknown)",
    "remove": "(name)",
    "rename": "(old, new)",
    "reset_calibration": "(*, fingerprint='layered', distance=None, **unknown)",
    "search": f"(query, k=None, *, {SEARCH}, relations=False, {JUDGED}, **filters)",
    "search_all": "(queries, **options)",
    "select": (f"(*, aims=(), like=None, min_metric=None, max_metric=None, k=20, {JUDGED}, **filters)"),
    "set": "(name, **changes)",
    "set_metric": "(name, metric)",
    "show": "(name)",
    "spectrum": "(name)",
    "stats": "()",
    "tag": "(name, /, **tags)",
    "to_read_again": "()",
    "tree": "(**filters)",
    "unmatched": "(**filters)",
    "upgrade": "(*, from_revision=None)",
}

GROUPS = {
    "runs": {
        "forget": "(run=None, *, older_than=None)",
        "get": "(run)",
        "items": "(run, *, states=())",
        "list": "(limit=None)",
        "retry": "(run, *, workers=None, executor=None, address=None, time_limit=None, progress=None)",
    },
    "index": {
        "build": "(*, fingerprint='layered', distance=None, **unknown)",
        "check": "(*, fingerprint='layered', distance=None, k=10, queries=100, seed=0, **unknown)",
        "drop": "(*, fingerprint=None, **unknown)",
    },
    "partitions": {"forget": "(partition_id)", "get": "(identity)", "list": "()"},
}
PROTOCOL = ("__bool__", "__contains__", "__enter__", "__exit__", "__getitem__", "__iter__", "__len__")


def test_names_of_the_package() -> None:
    assert registry.__all__ == [
        "Among",
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
    check_told(methods)
    assert all(name in vars(Registry) for name in PROTOCOL)


def check_told(methods: dict[str, Any]) -> None:
    """Whether each method says what it does and what it returns."""
    for name, method in methods.items():
        assert method.__doc__, name
        assert inspect.signature(method).return_annotation is not inspect.Signature.empty, name


def test_groups_of_the_registry() -> None:
    reg = Registry("none.db")
    for group, expected in GROUPS.items():
        members = inspect.getmembers(type(getattr(reg, group)), inspect.isfunction)
        methods = {name: member for name, member in members if name[0] != "_"}
        assert {name: signature(method) for name, method in methods.items()} == expected
        check_told(methods)


def given(hint: object) -> object:
    """What may be given for a field: None as well, for sizes also numbers such as 1e6, any iterable for a tuple."""
    if get_origin(hint) is tuple:
        return Iterable[get_args(hint)[0]] | None  # type: ignore[misc]
    return hint | None  # type: ignore[operator]


def test_keywords_are_the_fields() -> None:
    filters = {name: given(hint) for name, hint in get_type_hints(types.Filter).items()}
    filters |= dict.fromkeys(("min_params", "max_params", "min_bytes", "max_bytes"), float | None)
    filters |= dict.fromkeys(("related_to", "unrelated_to"), Any)  # a query model, whose kin is looked for
    assert get_type_hints(types.Filters, localns={"Iterable": Iterable}) == filters
    card = {name: given(hint) for name, hint in get_type_hints(ModelCard).items()}
    assert get_type_hints(types.CardFields, localns={"Iterable": Iterable}) == card
    del card["metrics"], card["tags"]
    assert get_type_hints(types.CardChanges) == card
    search = inspect.signature(Registry.search).parameters
    assert set(types.SearchOptions.__annotations__) == {*search, *filters} - {"self", "query", "filters"}


def test_one_version() -> None:
    """It is written in one place, from which the package and its metadata have it."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"] == {"version": {"attr": "registry.version.__version__"}}
    assert registry.__version__ is version.__version__


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
