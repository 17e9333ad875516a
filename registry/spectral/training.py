"""Training class: whether weights have left what an initialisation gives, by all that a file holds.

Entries of an initialisation are independent, so that every permutation of them within a layer is as likely. A statistic
of a trained layer is compared with its exact mean and variance over all permutations (`permutation_moments`), whatever
the distribution of the entries. Layers are initialised one by one, so that the units of one may be permuted against
those of the next; this holds of orthogonal starts, too.
"""

from __future__ import annotations

from math import comb, erfc, inf, isnan, log, nan, prod, sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from registry.spectral.eigenvalues import one_blas_thread
from registry.spectral.permutation_moments import (
    KernelSums,
    alignment_moments,
    group_moments,
    matrix_sums,
    normal_scale,
    rectangle_moments,
)
from registry.types import Alignments, MatrixFigures, Training, VectorCounts, WeightFigures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from registry.spectral.permutation_moments import MatrixSums
    from registry.types import LayerMatrix, Spectrum

    Array = NDArray[np.float64]
    Read = Callable[[LayerMatrix], NDArray[np.floating]]

__all__ = [
    "CLIP",
    "FIGURES_VERSION",
    "FLAT",
    "SINGLE",
    "TRAINED_BEYOND",
    "Traces",
    "WeightReading",
    "of_spectra",
    "training",
]

FIGURES_VERSION = 1
"""Of `WeightFigures`; those of another version are computed anew by an ingest."""
TRAINED_BEYOND = 3.3
"""z of all evidence of the matrices beyond which a model is trained: one of 2,000 initialisations."""
CLIP = 8.0
"""Largest z with which one layer, or one pair, counts in a sum; one layer beyond it is enough."""
FLAT = 1.05
"""Ratio of the largest and smallest eigenvalue of what an orthogonal start gives."""
SINGLE = 0.999
"""Share of the largest eigenvalue in a matrix of rank one."""
SMALL_ORDER = 32
"""Networks of smaller layers, without normalisation, are not called untrained: they hold too little to tell."""

# Alignments are computed of networks of at most so many weights, between layers of at most so many units.
SMALL_NETWORK = 1 << 16
SMALL_EXTENT = 128
# Of order k and the power l that is taken of an entry, where k - l are taken of the mean; for l > k the binomial is 0.
_ORDERS = np.arange(9)
_BINOMIALS = np.array([[comb(order, low) for low in _ORDERS] for order in _ORDERS], float)
_LEFT = np.maximum(_ORDERS[:, None] - _ORDERS, 0)
# Gates of one recurrent layer lie this close to each other.
NEAR = 8
_Z = MatrixFigures._fields[:6]
_LARGEST = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38}


class Traces(NamedTuple):
    """What figures take of the eigenvalues of W W^T, by layer.

    ``squared``: the sum of their squares, float64 (L,), of weights divided by the 2^exponent of the layer's sums; NaN
    where it is not known. ``flat``, ``single``: as in `MatrixFigures`.
    """

    squared: NDArray[np.float64]
    flat: Sequence[bool]
    single: Sequence[bool]


class WeightReading:
    """Reads the layers of a network for `network_spectra`, and gathers the sums that figures need.

    Nothing is read twice.

    Parameters
    ----------
    layers
        All layers of the network.
    read
        Returns the weights (p, q) of a layer.
    dtypes
        Stored dtype of each layer, in which elements may be saturated.
    """

    def __init__(self, layers: Sequence[LayerMatrix], read: Read, dtypes: Sequence[str] = ()) -> None:
        self._layers, self._read = tuple(layers), read
        self._dtypes = dict(zip((layer.position for layer in layers), dtypes, strict=False))
        self._sums: dict[int, MatrixSums] = {}
        small = sum(layer.p * layer.q for layer in layers) <= SMALL_NETWORK
        self._kept: dict[int, NDArray[np.floating]] | None = {} if small else None

    def __call__(self, layer: LayerMatrix) -> NDArray[np.floating]:
        """The weights of a layer."""
        weights = self._read(layer)
        self.take(layer, weights)
        return weights

    def take(self, layer: LayerMatrix, weights: NDArray[np.floating]) -> MatrixSums:
        """Sum the weights of a layer that has been read. Several threads may do this at once."""
        largest = _LARGEST.get(self._dtypes.get(layer.position, ""), inf)
        found = self._sums[layer.position] = matrix_sums(weights, prod(layer.kernel), largest)
        if self._kept is not None:
            self._kept[layer.position] = weights
        return found

    @property
    def sums(self) -> tuple[MatrixSums, ...]:
        """The sums of all layers, in their order, once they are read."""
        return tuple(self._sums[layer.position] for layer in self._layers)

    def figures(self, spectra: Sequence[Spectrum], vectors: VectorCounts) -> WeightFigures:
        """The figures of the network, once all layers are read; ``spectra`` of the layers, in their order."""
        return self.figures_by(of_spectra(spectra, self.sums), vectors)

    def figures_by(self, traces: Traces, vectors: VectorCounts) -> WeightFigures:
        """As `figures`, by what they take of the spectra."""
        with one_blas_thread():
            return WeightFigures(
                layers=_matrix_figures(traces, self.sums),
                alignments=_alignments(self._layers, self._kept) if self._kept is not None else Alignments(),
                vectors=vectors,
                version=FIGURES_VERSION,
            )


def of_spectra(spectra: Sequence[Spectrum], sums: Sequence[MatrixSums]) -> Traces:
    """What figures take of spectra; the sums of squares of approximate ones are not known."""
    squared = np.array([nan if each.method else _square_sum(each.values) for each in spectra])
    scales = np.ldexp([each.mean for each in spectra], [-2 * each.exponent for each in sums])
    flat, single = [], []
    for spectrum, each in zip(spectra, sums, strict=True):
        # Rows and columns of zeros are no entries: padding, masks and pruned units are not what training leaves behind.
        values, some = spectrum.values, max(1, min(each.rows, each.columns))
        largest = float(values[-1])
        flat.append(largest < FLAT * float(values[-some]))
        single.append(some > 1 and largest > SINGLE * values.size)  # their mean is one
    return Traces(scales**2 * squared, flat, single)


def _matrix_figures(traces: Traces, sums: Sequence[MatrixSums]) -> tuple[MatrixFigures, ...]:
    """Figures of all layers; moments are computed for all at once."""
    with np.errstate(all="ignore"):
        numbers = np.concatenate((_statistics(traces.squared, sums), _law(sums))).T.tolist()
    counts = ((each.zero_rows, each.constant_rows, each.saturated) for each in sums)
    every = zip(numbers, traces.flat, traces.single, counts, strict=True)
    return tuple(MatrixFigures._make((*of_layer, flat, single, *rows)) for of_layer, flat, single, rows in every)


def _statistics(squared: Array, sums: Sequence[MatrixSums]) -> Array:
    """Z of each statistic (6, L), those of the matrix of the entries minus their mean, which no permutation changes."""
    raw = np.array([each.powers for each in sums]).T
    p, q, uu, aa, au, vv, bb, bv, vw = np.array([each[2:11] for each in sums], np.float64).T
    n = raw[0] = p * q
    mean = m = raw[1] / n
    powers = _centred(raw, mean)
    unit = np.sqrt(powers[2] / n)  # entries of mean square one from here on
    usable = (unit**2 > 1e-4 * raw[2] / n) & (p >= 2) & (q >= 2)  # not constant but for rounding
    powers = powers / unit ** np.arange(9)[:, None]
    powers[1] = 0.0
    # Sums of (squared norm - their mean)^2 over rows and columns of W - m: a - 2 m u + m^2 q, and likewise of columns.
    totals = raw[2] - 2 * m * raw[1] + m * m * n
    rows = aa - 4 * m * au + 4 * m * m * uu + 2 * m * m * q * (raw[2] - 2 * m * raw[1]) + m**4 * q * n
    columns = bb - 4 * m * bv + 4 * m * m * vv + 2 * m * m * p * (raw[2] - 2 * m * raw[1]) + m**4 * p * n
    norms = np.stack([rows - totals**2 / p, columns - totals**2 / q]) / unit**4
    # tr((V V^T)^2) of V = W - m; of approximate spectra it is not known.
    traces = squared - 4 * m * vw + 2 * m**2 * q * vv
    traces += 2 * m**2 * (p * uu + raw[1] ** 2) - 4 * m**3 * n * raw[1] + (m**2 * n) ** 2
    rectangles = ((traces - rows - columns) / unit**4 + powers[4]) / 4
    squares = _squared(powers)
    kernels = _kernels(sums)
    alike = (kernels.powers[:5], _squared(kernels.powers))
    number = np.stack([p, q, kernels.number, kernels.number])
    of_groups = group_moments(
        np.stack([squares, squares, *alike], axis=1), number, np.stack([q, p, kernels.size, kernels.size])
    )
    found_groups = normal_scale(
        of_groups.z(
            np.stack([norms[0] - squares[2], norms[1] - squares[2], kernels.sums, kernels.norms - alike[1][2]]),
            np.stack([squares[2], squares[2], alike[0][2], alike[1][2]]),
        ),
        np.sqrt(8 / (number - 1)),
    )
    high, wide = np.stack([p, kernels.number]), np.stack([q, kernels.size])
    pairs = high * (high - 1) * wide * (wide - 1) / 4
    of_rectangles = rectangle_moments(np.stack([powers, kernels.powers], axis=1), high, wide)
    matrix, of_kernels = normal_scale(
        of_rectangles.z(np.stack([rectangles, kernels.rectangles]), pairs), 2 * (high + wide - 4) / np.sqrt(pairs)
    )
    known = np.stack([usable] * 3 + [kernels.known] * 3)
    return np.where(known, np.stack([matrix, *found_groups[:2], of_kernels, *found_groups[2:]]), nan)


def _square_sum(values: NDArray[np.float32]) -> float:
    exact = values.astype(np.float64)
    return float(exact.dot(exact))


def _law(sums: Sequence[MatrixSums]) -> Array:
    """What tells the law of the entries (3, L): their mean, kurtosis and largest magnitude, by sums of their powers."""
    n = np.array([each.rows * each.columns for each in sums], np.float64)
    first, second, fourth = np.array([each.powers[[1, 2, 4]] for each in sums]).T
    second = np.where(second > 0, second, nan)
    largest = np.array([each.extreme for each in sums])
    return np.stack([first / np.sqrt(second), n * fourth / second**2, np.sqrt(largest * n / second)])


def _squared(powers: Array) -> Array:
    """Power sums (5, L) of the squares of entries of mean square one, minus one."""
    squares = _centred(powers[::2], np.ones(powers.shape[1]))
    squares[1] = 0.0
    return squares


def _centred(sums: Array, mean: Array) -> Array:
    """Power sums (K, L) about the mean, from those about zero, K <= 9: binomials."""
    order = len(sums)
    times, left = _BINOMIALS[:order, :order, None], _LEFT[:order, :order]
    terms = times * ((-mean) ** _ORDERS[:order, None])[left] * sums
    # No term is made of a higher power, which may be infinite.
    return np.asarray(np.where(times > 0, terms, 0.0).sum(axis=1))


class _Kernels(NamedTuple):
    """Sums of kernels as rows of a matrix (number, size) of their own, arrays (L,); ``known`` where there are any.

    ``powers`` (9, L) of weights of mean square one; ``rectangles``, ``sums`` and ``norms`` are statistics of the
    weights, whatever their mean.
    """

    known: NDArray[np.bool_]
    number: Array
    size: Array
    powers: Array
    rectangles: Array
    sums: Array
    norms: Array


def _kernels(sums: Sequence[MatrixSums]) -> _Kernels:
    """The sums of kernels; of layers without any, of a matrix of 4 entries."""
    none = KernelSums(2, 2, 0.0, 0.0, 0.0, 0.0, np.full(9, 4.0))
    some = [none if each.kernels is None or each.kernels.number < 2 else each.kernels for each in sums]
    number, size, trace, total, square_total, positions = np.array([each[:6] for each in some], np.float64).T
    powers = np.array([each.powers for each in some]).T
    square = powers[2] / powers[0]
    # Where the mean is large, differences are rounding.
    known = np.array([each is not none for each in some]) & (4 * (powers[1] / powers[0]) ** 2 < square)
    powers = powers / np.sqrt(square) ** np.arange(9)[:, None]
    norms = square_total / square**2
    return _Kernels(
        known,
        number,
        size,
        powers,
        ((trace - positions) / square**2 - norms + powers[4]) / 4,
        total / square - powers[2],
        norms - size**2 * number,
    )


def _alignments(layers: Sequence[LayerMatrix], weights: dict[int, NDArray[np.floating]]) -> Alignments:
    """Alignments between the layers of a small network; takes the weights out of the dictionary."""
    products = {layer.position: _products(layer, weights.pop(layer.position)) for layer in layers}
    found: dict[str, list[float]] = {name: [] for name in Alignments._fields[:4]}
    pairs = 0
    for first, second, same in _pairs(layers):
        (of_outputs, of_inputs), (next_outputs, next_inputs) = products[first.position], products[second.position]
        before = sum(map(len, found.values()))
        if same != "gates":
            _align(of_outputs, next_inputs, found["chain"], found["chain_norms"])
        if next_outputs is not next_inputs and of_outputs is not of_inputs:
            _align(of_outputs, next_outputs, found["outputs"])
            if same != "one gate":
                _align(of_inputs, next_inputs, found["inputs"])
        pairs += sum(map(len, found.values())) > before
    return Alignments(**{name: _stouffer(z) for name, z in found.items()}, pairs=pairs)


def _pairs(layers: Sequence[LayerMatrix]) -> Iterator[tuple[LayerMatrix, LayerMatrix, str]]:
    """Pairs of layers that may depend on each other: successive ones, and the gates of one recurrent layer."""
    for at, first in enumerate(layers):
        for second in layers[at + 1 : at + 1 + NEAR]:
            label = first.name[len(first.tensor) :]
            if first.tensor == second.tensor:
                yield first, second, "gates"
            elif label and label == second.name[len(second.tensor) :] and second.position - first.position <= NEAR / 2:
                yield first, second, "one gate"
            elif second.position == first.position + 1:
                yield first, second, ""


def _products(layer: LayerMatrix, weights: NDArray[np.floating]) -> tuple[Array | None, Array | None]:
    """W W^T, and W^T W summed over outputs and kernel, where they are small; one of both of a depthwise layer."""
    W = weights.astype(np.float64)
    size = float(np.abs(W).max())
    W /= size if size > 0 else 1.0
    of_outputs = W @ W.T if layer.p <= SMALL_EXTENT else None
    if layer.kind == "depthwise":
        return of_outputs, of_outputs
    inputs = layer.shape[1]
    if inputs > SMALL_EXTENT:
        return of_outputs, None
    kernels = W.reshape(layer.p, inputs, -1).transpose(1, 0, 2).reshape(inputs, -1)
    return of_outputs, kernels @ kernels.T


def _align(a: Array | None, b: Array | None, z: list[float], of_norms: list[float] | None = None) -> None:
    """Append the z of two products of one extent, and with ``of_norms`` that of their diagonals."""
    if a is None or b is None or len(a) != len(b) or len(a) < 4:
        return
    statistic, mean, variance = alignment_moments(a, b)
    scale = float(np.vdot(a, a) * np.vdot(b, b))
    if variance > 1e-12 * scale:
        z.append((statistic - mean) / sqrt(variance))
    if of_norms is None:
        return
    x, y = np.diagonal(a) - np.diagonal(a).mean(), np.diagonal(b) - np.diagonal(b).mean()
    spread = float((x @ x) * (y @ y))
    if spread > 1e-12 * float(np.trace(a) * np.trace(b) / len(a)) ** 2:
        of_norms.append(float(x @ y) / sqrt(spread / (len(a) - 1)))


def _stouffer(z: Sequence[float]) -> float:
    """Sum of clipped z over the root of their number; NaN without any."""
    some = [min(max(one, -CLIP), CLIP) for one in z if not isnan(one)]
    return sum(some) / sqrt(len(some)) if some else nan


def training(figures: WeightFigures, layers: Sequence[LayerMatrix]) -> Training:
    """The training class of a network with its evidence.

    Each statistic of the matrices has one z for the network: the sum over its layers, each clipped to 8 standard
    deviations, over the root of their number (Stouffer). Their tail probabilities are combined by Fisher's method to
    one z. *Trained*: that z exceeds 3.3, or the rectangles of one layer exceed 8, or gains or statistics of
    normalisation have left their initial values. *Untrained* otherwise, where normalisation has not, or a layer's
    order is 32 or more. Else *undetermined*.

    Parameters
    ----------
    figures
        Figures of the network.
    layers
        Its layers, in the order of the figures.

    Returns
    -------
    Training
    """
    pairs = zip(figures.layers, layers, strict=True)
    telling = [(each, layer) for each, layer in pairs if not (each.flat or each.single)]
    of_names = zip(*(each[: len(_Z)] for each, _ in telling), strict=True) if telling else [()] * len(_Z)
    evidence = {name: _stouffer(z) for name, z in zip(_Z, of_names, strict=True)}
    evidence |= dict(zip(Alignments._fields[:4], figures.alignments[:4], strict=True))
    known = tuple((name, z) for name, z in evidence.items() if not isnan(z))
    z = _fisher([z for _, z in known])
    of_layers = [(each.rectangles, layer.name) for each, layer in telling if not isnan(each.rectangles)]
    largest, name = max(of_layers, key=lambda one: one[0], default=(nan, ""))
    vectors = figures.vectors
    orders = [min(layer.p, layer.q) for layer in layers]
    class_, why = _judged(z, largest, vectors, max(orders, default=0))
    return Training(class_, why, None if isnan(z) else z, known, name, None if isnan(largest) else largest, vectors)


def _judged(z: float, largest: float, vectors: VectorCounts, order: int) -> tuple[str, str]:
    """Training class, and the evidence that decided."""
    if z > TRAINED_BEYOND:
        return "trained", "all matrices together"
    if largest > CLIP:
        return "trained", "one layer"
    if vectors.statistics and not vectors.statistics_moved:  # gains may start at random numbers
        return "untrained", "statistics of normalisation that never moved"
    if vectors.gains_moved:
        return "trained", "gains of normalisation"
    if vectors.gains:
        return "untrained", "gains of normalisation that never moved"
    if vectors.statistics_moved:
        return "trained", "statistics of normalisation"
    if order >= SMALL_ORDER:
        return "untrained", "all matrices together"
    return "undetermined", f"no normalisation, and no layer of order {SMALL_ORDER} or more"


def _fisher(z: Sequence[float]) -> float:
    """One z of independent ones, by the product of their tail probabilities (Fisher 1932); NaN without any."""
    if not z:
        return nan
    # -2 sum of logarithms is chi-squared with twice as many degrees: its tail is a sum of Poisson terms.
    half = -sum(_log_tail(one) for one in z)
    log_terms = [k * log(half) - sum(map(log, range(1, k + 1))) for k in range(len(z))] if half > 0 else [0.0]
    top = max(log_terms)
    log_p = top - half + log(sum(np.exp(term - top) for term in log_terms))
    return _z_of(log_p)


def _log_tail(z: float) -> float:
    """Logarithm of the probability of more than z standard deviations."""
    if z < 30:  # beyond, erfc is below the smallest float
        return log(erfc(z / sqrt(2)) / 2)
    return -z * z / 2 - log(z * sqrt(2 * np.pi))


def _z_of(log_p: float) -> float:
    """The z of a logarithm of a tail probability, by bisection within rounding."""
    low, high = -40.0, max(40.0, sqrt(-2 * log_p) + 1)
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _log_tail(middle) > log_p else (low, middle)
    return (low + high) / 2
