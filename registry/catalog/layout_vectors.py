"""Fingerprints ``shapes`` of layouts of the catalogue with the numbers of classes and input channels of a file.

The catalogue keeps one vector of each layout, for the default numbers: a file with another head would lie far from its
own architecture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from registry.architectures.matching import recognise
from registry.catalog.measuring import measure_headers
from registry.errors import WeightsError
from registry.sources import plan_headers
from registry.sources.base import OpenedCheckpoint
from registry.sources.header_only import HeaderCheckpoint
from registry.spectral.specs import SHAPES
from registry.spelling import counted
from registry.types import ModelFacts, ModelRef, TensorInfo

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from registry.architectures.catalogue_file import Catalogue
    from registry.catalog.subjects import StoredShapes
    from registry.equivalence import Distance
    from registry.types import ArchitectureMatch, ArchitectureTensor

__all__ = ["COMPARED_ANEW", "SizedVectors", "sized_vectors"]

COMPARED_ANEW = 64
"""Layouts nearest by the vectors that are kept, which are compared anew."""


@dataclass(frozen=True, slots=True, eq=False)
class SizedVectors:
    """Vectors of layouts for the numbers of a file: float32 of shape (d,) by id; ``note``: what was done, a sentence.

    ``recognised``: ids of the architectures whose shapes are those of the file, the best tie first; none if none is.
    """

    vectors: Mapping[int, NDArray[np.float32]]
    recognised: tuple[int, ...]
    note: str


class _Shapes(OpenedCheckpoint):
    """Names and shapes without values."""

    def read(self, name: str) -> NoReturn:
        """Raise ``WeightsError``."""
        raise WeightsError(f"{name} has no values here")

    def raw(self, name: str) -> NoReturn:
        """Raise ``WeightsError``."""
        raise WeightsError(f"{name} has no values here")


def sized_vectors(
    catalogue: Catalogue,
    file: StoredShapes,
    own: NDArray[np.float32],
    ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    distance: Distance,
) -> SizedVectors | None:
    """The vectors of the layouts that may be nearest to a file, with heads and stems sized as in the file.

    None where the file tells no number of classes or input channels, and lacks no head. Time: that of `recognise`, and
    one plan of header for each of at most ``COMPARED_ANEW`` layouts and of those recognised.

    Parameters
    ----------
    file
        Its tensors.
    own
        Its vector, (d,).
    ids, vectors
        The layouts that may be compared, (n,), and their vectors for the default numbers, (n, d).
    distance
        By which the nearest are chosen.
    """
    known = recognise(file.tensors, catalogue)
    if known.verdict == "unknown":
        return None
    best = known.matches[0]
    if best.classes is None and best.channels is None and not known.headless:
        return None
    matches: dict[int, ArchitectureMatch] = {}
    for each in known.matches:
        matches.setdefault(each.architecture.layout, each)
    near = ids[np.argsort(distance.to_all(own, vectors), kind="stable")[:COMPARED_ANEW]]
    defaults = {one.layout: one for one in catalogue.of_layouts({*near.tolist(), *matches})}
    there = {tensor.name for tensor in file.tensors}
    found = {}
    for layout in dict.fromkeys((*matches, *near.tolist())):
        match = matches.get(layout)
        tensors = catalogue.layout(layout).tensors
        if not any(tensor.symbols for tensor in tensors) and (match is None or not match.exact):
            continue
        if match is not None and match.exact and not match.named and not known.headless:
            found[layout] = own  # the same shapes under other names, which decide the order of layers
            continue
        sizes = match if match is not None and match.classes is not None else best
        one = defaults[layout]
        vector = _vector(
            _without(tensors, match, there, headless=known.headless),
            sizes.classes or one.classes,
            (match.channels if match is not None else None) or best.channels or one.channels,
            file.config if match is not None and match.exact else {},
        )
        if vector is not None:
            found[layout] = vector
    exact = tuple(match.architecture.id for match in known.matches) if known.verdict == "exact" else ()
    return SizedVectors(found, exact, _note(best, len(found), headless=known.headless))


def _without(
    tensors: Sequence[ArchitectureTensor], match: ArchitectureMatch | None, there: Collection[str], *, headless: bool
) -> list[ArchitectureTensor]:
    """The tensors to compare: without the head where the file has none, and as a file of the same names has them."""
    lacking = set() if match is None or not headless else {each.expected for each in match.differences}
    kept = [one for one in tensors if one.name not in lacking and not (headless and "classes" in one.symbols)]
    if match is None or not match.named:
        return kept
    return [one for one in kept if not one.buffer or match.prefix + one.name in there]


def _vector(
    tensors: Sequence[ArchitectureTensor], classes: int | None, channels: int | None, config: Mapping[str, Any]
) -> NDArray[np.float32] | None:
    """The fingerprint ``shapes``, float32 of shape (d,), as a header with these tensors gives it; None without any.

    Tied tensors count once.
    """
    try:
        infos = [
            TensorInfo(one.name, "float32" if one.floating else "int64", one.sized(classes, channels))
            for one in tensors
        ]
    except ValueError:  # a number that neither the file nor the architecture tells
        return None
    facts = ModelFacts(config=config, aliases={one.name: one.tied for one in tensors if one.tied})
    ref = ModelRef("safetensors", "catalogue", "catalogue")
    try:
        with HeaderCheckpoint(_Shapes(ref, infos, facts)) as checkpoint:
            measured = measure_headers(plan_headers(checkpoint))
    except WeightsError:  # no layer matrix, or a layout that needs values
        return None
    return next(each.vector for each in measured.fingerprints if each.spec == SHAPES)


def _note(best: ArchitectureMatch, count: int, *, headless: bool) -> str:
    """What was done to compare shapes."""
    if headless:
        return (
            f"The file has no head: {counted(count, 'layout')} nearest to it were compared without theirs; parameters "
            "are those of the libraries' defaults."
        )
    told = [
        f"{what} sized to {counted(number, unit)}"
        for number, what, unit in ((best.classes, "heads", "class"), (best.channels, "stems", "input channel"))
        if number is not None
    ]
    how = f"with {' and '.join(told)} as in the file; parameters are those of the libraries' defaults"
    return f"The {counted(count, 'layout')} nearest to the file were compared {how}."
