"""Figures of a model's weights that its spectra do not hold, and the training class that follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import NamedTuple

__all__ = ["TRAINING_CLASSES", "Alignments", "MatrixFigures", "Training", "VectorCounts", "WeightFigures"]

TRAINING_CLASSES = ("trained", "untrained", "undetermined")
"""The last: the file holds too little to tell. Models of that class are equivalent to no other."""


class MatrixFigures(NamedTuple):
    """Figures of one layer matrix W of shape (p, q).

    The first six are z: how far a statistic of the entries is from its mean over all permutations of the entries, in
    standard deviations and with the skewness of its distribution taken out; NaN where there are too few entries.

    ``rectangles``: the sum of the products of the corners of all rectangles of W, which is what tr((W W^T)^2) holds
    beside the norms of rows and columns. ``rows``, ``columns``: the sums of their squared norms, squared. ``kernels``,
    ``kernel_sums``, ``kernel_norms``: rectangles, squared sums and squared norms of the kernels of a convolution, as
    rows of a matrix of their own; of a large layer, of a part of its kernels.

    ``mean``: sum of the entries over the root of the sum of their squares, which is standard normal where entries have
    mean zero. ``kurtosis``: mean fourth power over the squared mean square: 1.8 of a uniform law, 3 of a Gaussian.
    ``extreme``: largest magnitude over the root mean square: 1.73 of a uniform law. NaN of a matrix of zeros.

    ``flat``: all eigenvalues agree within 5 %, as those of an orthogonal start. ``single``: W has rank one, as one
    kernel repeated. ``zero_rows``: rows of zeros. ``constant_rows``: rows of one other value. ``saturated``: elements
    of the largest magnitude of the stored dtype.
    """

    rectangles: float = nan
    rows: float = nan
    columns: float = nan
    kernels: float = nan
    kernel_sums: float = nan
    kernel_norms: float = nan
    mean: float = nan
    kurtosis: float = nan
    extreme: float = nan
    flat: bool = False
    single: bool = False
    zero_rows: int = 0
    constant_rows: int = 0
    saturated: int = 0

    @property
    def silent(self) -> bool:
        """Whether the z tell nothing: of an orthogonal start, and of a matrix of rank one."""
        return self.flat or self.single


class Alignments(NamedTuple):
    """How the weights of a small network depend on each other from layer to layer: z of sums over ``pairs`` of layers.

    ``chain``: W W^T of a layer with W^T W of the next; ``chain_norms``: their diagonals, which ``chain`` leaves out;
    ``outputs``, ``inputs``: W W^T, and W^T W, of two layers with the same outputs, or inputs. NaN where there is no
    such pair.
    """

    chain: float = nan
    chain_norms: float = nan
    outputs: float = nan
    inputs: float = nan
    pairs: int = 0


class VectorCounts(NamedTuple):
    """Numbers of tensors beside the matrices, of more than one element.

    ``gains``: scales of normalisation; ``statistics``: its running means and variances; ``biases``. Those that
    ``moved`` are not constant any more, as all of them are at the start of most networks.
    """

    gains: int = 0
    gains_moved: int = 0
    statistics: int = 0
    statistics_moved: int = 0
    biases: int = 0
    biases_moved: int = 0


class WeightFigures(NamedTuple):
    """Figures of a model's layers in depth order, of its alignments and vectors, by ``version`` of their definition."""

    layers: tuple[MatrixFigures, ...]
    alignments: Alignments
    vectors: VectorCounts
    version: int


@dataclass(frozen=True, slots=True)
class Training:
    """A training class with its evidence.

    ``training_class``: one of `TRAINING_CLASSES`. ``decided_by``: the evidence that decided, in words. ``z``: all
    evidence of the matrices together, None without any; ``evidence``: pairs of what was tested and its z. ``layer`` and
    ``layer_z``: the layer with the largest z of its rectangles, empty and None where no layer has one. ``vectors``:
    gains, statistics and biases.
    """

    training_class: str
    decided_by: str
    z: float | None
    evidence: tuple[tuple[str, float], ...]
    layer: str
    layer_z: float | None
    vectors: VectorCounts
