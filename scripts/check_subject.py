"""Check the subject of a commit message: ``python scripts/check_subject.py FILE``, as Git's ``commit-msg`` hook does.

At most 72 characters, a capital letter first, no full stop at the end, and a blank line before the body.
"""

from __future__ import annotations

import sys
from pathlib import Path

LONGEST = 72
SCISSORS = "# ------------------------ >8 ------------------------"
OWN = ("Merge ", "Revert ", "fixup! ", "squash! ", "amend! ")
"""How subjects start that Git writes itself, or that will be folded into another."""


def faults(message: str) -> list[str]:
    """Return what is wrong with a message, in words; comments are no part of it."""
    lines = [line.rstrip() for line in message.partition(SCISSORS)[0].splitlines() if not line.startswith("#")]
    while lines and not lines[0]:
        del lines[0]
    if not lines:
        return []  # Git itself refuses an empty message
    subject, body = lines[0], lines[1:]
    if subject.startswith(OWN):
        return []
    found = []
    if len(subject) > LONGEST:
        found.append(f"the subject has {len(subject)} characters, at most {LONGEST} are read everywhere")
    if not subject[0].isupper():
        found.append("the subject starts with a capital letter")
    if subject.endswith("."):
        found.append("the subject ends without a full stop")
    if body and body[0]:
        found.append("a blank line stands between subject and body")
    return found


def main(path: Path) -> int:
    """Print what is wrong with the message in ``path``; return 1 if there was anything."""
    found = faults(path.read_text(encoding="utf-8"))
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/check_subject.py FILE")
    sys.exit(main(Path(sys.argv[1])))
