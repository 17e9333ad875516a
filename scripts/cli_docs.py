"""Write docs/cli.md from the commands, or check that it is up to date.

python scripts/cli_docs.py [--check]
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"
CUT = re.compile(r"\* .*[^\s.]\.\.\.")  # a summary that Click cut off; "resnet, vit, ..." has a space before the dots


def render() -> str:
    """Return the page that Typer generates from the commands' help."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "cli.md"
        command = [sys.executable, "-m", "typer", "registry.cli.app", "utils", "docs"]
        subprocess.run(
            [*command, "--name", "archreg", "--title", "Commands", "--output", str(target)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        # Click marks text that must not be rewrapped with a backspace, which a page does not need.
        return target.read_text(encoding="utf-8").replace("\b\n", "").rstrip() + "\n"


def cut_off(text: str) -> list[str]:
    """Return the lines of the page that end in a sentence cut off by Click."""
    return [line for line in text.splitlines() if CUT.fullmatch(line)]


def main(arguments: list[str]) -> int:
    """Write the page; with ``--check``, only compare it. Return 1 if it differs or a sentence is cut off."""
    text = render()
    if cut := cut_off(text):
        print("these summaries are cut off, shorten them to 45 characters:", *cut, sep="\n", file=sys.stderr)
        return 1
    if "--check" not in arguments:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    print("docs/cli.md is out of date: python scripts/cli_docs.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
