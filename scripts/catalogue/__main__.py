"""Build the catalogue that the package ships: ``python -m scripts.catalogue [-o FILE]``.

Nothing is downloaded, and no weights are made. What was built before by the same versions of the libraries is taken
from ``build/catalogue``. What cannot be built is printed at the end with its reason, and stands in the file.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported

from dataclasses import replace

from registry.atomic_files import whole_file
from registry.shipped import CATALOGUE, FOLDER, SHIPPED, checksum_file, checksum_of
from scripts.catalogue.assembly import write
from scripts.catalogue.timm_models import timm_library
from scripts.catalogue.torchvision_models import torchvision_library
from scripts.catalogue.transformers_models import transformers_library
from scripts.catalogue.workers import build_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from scripts.catalogue.recipes import Library

LARGEST = 6_000_000
"""Bytes that the file may have."""
KEPT = Path(__file__).parents[2] / "build" / "catalogue"
LIBRARIES: dict[str, Callable[[], Library]] = {
    "torchvision": torchvision_library,
    "timm": timm_library,
    "transformers": transformers_library,
}


def progress_of(what: str) -> Callable[[int, int], None]:
    """What prints how many are built, and the time left, at most every ten seconds."""
    began, shown, at_start = time.monotonic(), -10.0, -1

    def progress(done: int, total: int) -> None:
        nonlocal shown, at_start
        at_start = done if at_start < 0 else at_start
        now = time.monotonic() - began
        if now - shown < 10 and done < total:
            return
        shown = now
        left = now / (done - at_start) * (total - done) if done > at_start else None
        ends = "" if left is None or done == total else f", {left / 60:.1f} minutes left"
        print(f"{what}: {done} of {total}{ends}", file=sys.stderr, flush=True)

    return progress


def main() -> None:
    """Build what is asked for, and print what could not be built."""
    parser = argparse.ArgumentParser(prog="python -m scripts.catalogue", description=__doc__)
    parser.add_argument("-o", type=Path, metavar="FILE", help="file to write, the shipped one unless given")
    parser.add_argument("--library", action="append", choices=LIBRARIES, help="one library; may be given again")
    parser.add_argument("--only", default="*", help="architectures whose name matches, such as 'resnet*'")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    asked = parser.parse_args()
    if asked.o is None and (asked.library or asked.only != "*"):
        parser.error("a part of the catalogue does not ship: name another file with -o")
    target = asked.o or FOLDER / SHIPPED[CATALOGUE]
    libraries, built = [], {}
    for name in asked.library or LIBRARIES:
        library = LIBRARIES[name]()
        library = replace(library, recipes=tuple(one for one in library.recipes if fnmatchcase(one.name, asked.only)))
        kept = KEPT / f"{name}-{library.versions[name]}.jsonl"
        built[name] = build_all(library.recipes, kept, dict(library.versions), progress_of(name), asked.jobs)
        libraries.append(library)
    with whole_file(target) as partial:
        partial.unlink(missing_ok=True)  # of a run that was ended
        facts = write(partial, libraries, built)
        size = partial.stat().st_size
        if size > LARGEST:
            raise SystemExit(f"the file would have {size:,} bytes, more than {LARGEST:,}")
    checksum_file(target).write_text(f"{checksum_of(target)}\n", encoding="ascii")
    for label, reason in facts["not_built"].items():
        print(f"not built: {label}: {reason}")
    counts = ", ".join(f"{count} of {library}" for library, count in facts["counts"].items())
    print(f"{target}: {counts}, {len(facts['not_built'])} not built, {size:,} bytes")


if __name__ == "__main__":
    main()
