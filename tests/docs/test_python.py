"""The page on Python: every block of the tutorial runs, in its order, and prints what the page says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from registry import Registry, errors, frames
from scripts import python_docs

if TYPE_CHECKING:
    import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
TUTORIAL, _, REFERENCE = PAGE.partition(python_docs.MARK)
BLOCKS = re.findall(r"^```python\n(.*?)^```(?:\n\n```text\n(.*?)^```)?", TUTORIAL, re.MULTILINE | re.DOTALL)


def test_every_block_of_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    monkeypatch.delenv("ARCHREG_DB", raising=False)
    assert len(BLOCKS) >= 18
    names: dict[str, Any] = {"__name__": "tutorial"}
    with threadpool_limits(limits=1):
        for number, (source, expected) in enumerate(BLOCKS, 1):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(source, f"block {number}", "exec"), names)
            assert printed.getvalue() == expected, f"block {number}"
    assert {path.name for path in tmp_path.iterdir()} >= {"zoo.db", "small.db", "team.db", "mlp128.png"}


def test_no_block_of_the_tutorial_is_left_out() -> None:
    assert TUTORIAL.count("```python") == len(BLOCKS)
    assert TUTORIAL.count("```text") == sum(bool(expected) for _, expected in BLOCKS)


def test_the_reference_is_what_the_package_says() -> None:
    assert python_docs.render() == PAGE, "python scripts/python_docs.py"


def test_the_reference_leaves_nothing_out() -> None:
    for name, method in python_docs.methods(Registry):
        assert f"\n#### {name}\n" in REFERENCE
        assert python_docs.signature(f"reg.{name}", method) in REFERENCE
    for call in ("reg[name]", "name in reg", "len(reg)", "runs.list", "runs.retry", "index.build", "partitions.forget"):
        assert f"\n#### {call}\n" in REFERENCE
    for name in errors.__all__:
        assert f"\n| `{name}` | " in REFERENCE
    for name in frames.__all__:
        assert f"\n#### frames.{name}\n" in REFERENCE
    for name in (
        "Search",
        "Neighbour",
        "Verdict",
        "ModelSummary",
        "Partition",
        "ModelClass",
        "Ingested",
        "Run",
        "ModelCard",
    ):
        assert f"\n#### {name}\n" in REFERENCE


def test_a_change_of_a_signature_or_docstring_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def stats(self: Registry, extra: int = 3) -> int:
        """Something else *entirely*, as ``x < 3``."""
        return extra

    monkeypatch.setattr(Registry, "stats", stats)
    changed = python_docs.render()
    assert changed != PAGE
    assert "reg.stats(extra: int = 3) -> int\n```\n\nSomething else \\*entirely\\*, as `x < 3`." in changed


def test_signatures_are_shown_as_they_are_called() -> None:
    def made(self: Any, a: int, /, b: str = "x", *, c: float | None = None, **more: Any) -> None: ...

    assert python_docs.signature("made", made) == (
        "made(a: int, /, b: str = 'x', *, c: float | None = None, **more: Any) -> None"
    )
