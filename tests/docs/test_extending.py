"""The code of the page on extending is that of the plug-in that is built and used."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_what_the_page_includes_is_the_file() -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    included = re.findall(r"<!-- include (\S+) -->\n```\w+\n(.*?)```\n", page, re.DOTALL)
    assert {name for name, _ in included} == {
        "tests/assets/plugin/archreg_tiny.py", "tests/assets/plugin/pyproject.toml",
    }  # fmt: skip
    for name, text in included:
        assert text == (ROOT / name).read_text(encoding="utf-8")


def test_the_page_names_every_table() -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    for table in ("SOURCES", "FINGERPRINTS", "DISTANCES", "LINKAGE_RULES", "EXECUTORS", "REFERENCES"):
        assert f"`{table}`" in page
