"""Type-check the package as installed, with ``cli`` and ``migrations`` inside it, and the scripts around it.

The wheel maps ``cli`` to ``registry.cli`` and ``migrations`` to ``registry.migrations``. mypy does not know that
mapping and would silently leave both out, so it is given a tree of symbolic links with the installed layout.

Usage: ``python scripts/typecheck.py [ROOT]``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

MAPPED = ("cli", "migrations")
LOOSE = ("examples", "scripts")


def link_tree(root: Path) -> Path:
    """Create links under ``root/build/typed`` that give the package its installed layout; return that folder."""
    tree = root / "build" / "typed"
    shutil.rmtree(tree, ignore_errors=True)
    package = tree / "registry"
    package.mkdir(parents=True)
    for entry in sorted((root / "registry").iterdir()):
        if entry.name != "__pycache__":
            (package / entry.name).symlink_to(entry)
    for name in MAPPED:
        (package / name).symlink_to(root / name)
    return tree


def check(root: Path, tree: Path, *targets: str) -> int:
    """Run mypy on ``targets`` and print its messages with the original paths; return its exit status."""
    # mypy searches its working directory first, where the unmapped package would hide the mapped one.
    environment = {name: value for name, value in os.environ.items() if name != "MYPYPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(root / "pyproject.toml"), *targets],
        cwd=tree,
        env=environment | {"MYPY_CACHE_DIR": str(root / ".mypy_cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout.replace("../../", "")
    for name in MAPPED:
        output = output.replace(f"registry/{name}/", f"{name}/")
    print(output, end="")
    print(done.stderr, end="", file=sys.stderr)
    return done.returncode


def main(root: Path) -> int:
    """Check the package below ``root`` and the scripts beside it; return the worse exit status."""
    tree = link_tree(root)
    loose = [f"../../{path.relative_to(root)}" for name in LOOSE for path in sorted((root / name).glob("*.py"))]
    status = check(root, tree, "--package", "registry")
    return max(status, check(root, tree, "--follow-imports", "silent", *loose) if loose else 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()))
