"""Check the documentation: links point to existing targets, and ``archreg`` lines are valid commands.

python scripts/check_docs.py [ROOT]
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import typer

GENERATED = "cli.md"  # usage lines, not commands
FENCE = re.compile(r"^ *(`{3,}|~{3,}) *(\w*)")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)[^)]*\)|!\[[^\]]*\]\(([^)\s]+)[^)]*\)|(?:src|href)=\"([^\"]+)\"")
SHELLS = ("console", "sh", "bash", "shell")


def pages(root: Path) -> list[Path]:
    """Return the Markdown files at the top level, under docs and under examples."""
    return sorted([*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("examples/**/*.md")])


def split_fences(text: str) -> tuple[list[tuple[int, str]], list[tuple[int, str, str]]]:
    """Split a page into prose (line number, line) and fenced lines (line number, language, line)."""
    prose: list[tuple[int, str]] = []
    fenced: list[tuple[int, str, str]] = []
    closing, language = "", ""
    for number, line in enumerate(text.splitlines(), 1):
        fence = FENCE.match(line)
        if closing:
            if line.strip() == closing:
                closing = ""
            else:
                fenced.append((number, language, line))
        elif fence:
            closing, language = fence[1], fence[2]
        else:
            prose.append((number, line))
    return prose, fenced


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, by GitHub's rule."""
    found: set[str] = set()
    for _, line in split_fences(text)[0]:
        heading = re.match(r"#{1,6} +(.*?)(?: +#+)?$", line)
        if heading:
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
            slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
            repeats = sum(1 for other in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other))
            found.add(f"{slug}-{repeats}" if repeats else slug)
    return found


def broken_links(page: Path) -> Iterator[str]:
    """Yield a message for every relative link of ``page`` whose file or heading does not exist."""
    text = page.read_text(encoding="utf-8")
    for number, line in split_fences(text)[0]:
        for groups in LINK.findall(re.sub(r"`[^`]*`", "", line)):
            link = next(filter(None, groups))
            if re.match(r"[a-z]+:", link):
                continue
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            if not target.exists():
                yield f"{page}:{number}: no file {link}"
            elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text(encoding="utf-8")):
                yield f"{page}:{number}: no heading {link}"


def commands(page: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, words after ``archreg``) for the command lines in a page's shell blocks."""
    pending, start = "", 0
    for number, language, line in split_fences(page.read_text(encoding="utf-8"))[1]:
        text = line.strip()
        if language not in SHELLS or (not pending and language == "console" and not text.startswith("$ ")):
            continue
        start = start if pending else number
        pending += text.removeprefix("$ ").removeprefix("> ")
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        lexer = shlex.shlex(pending, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True  # published: is one word
        words, pending = list(lexer), ""
        while words and re.fullmatch(r"\w+=.*", words[0]):
            del words[0]
        if words and Path(words[0]).name == "archreg":
            stop = next((at for at, word in enumerate(words) if set(word) <= set("|&;<>()")), len(words))
            yield start, words[1:stop]


def wrong_command(app: typer.Typer, words: list[str]) -> str | None:
    """Return why the program rejects these words, or None if it accepts them.

    It asks for the command's help: the words are parsed before the help is shown, and nothing is executed.
    """
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, [*words, "--help"])
    if result.exit_code == 0:
        return None
    said = re.sub(r"[^\w\s.,:'\"-]", " ", result.output)
    return re.sub(r"\s+", " ", said.partition("Error")[2] or said).strip()


def main(root: Path) -> int:
    """Print every error in the documentation below ``root``; return 1 if there is one."""
    from registry.cli.app import app

    faults: list[str] = []
    for page in pages(root):
        faults.extend(broken_links(page))
        if page.name != GENERATED:
            for number, words in commands(page):
                fault = wrong_command(app, words)
                faults += [f"{page}:{number}: archreg {shlex.join(words)}: {fault}"] if fault else []
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()))
