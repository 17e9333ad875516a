"""Rule ``untrained``: layers that look as an initialiser leaves them, in a model that is trained."""

from __future__ import annotations

from math import isnan, nan, prod, sqrt
from typing import TYPE_CHECKING

from registry.audit.base import AuditRule, Hit, needs_spectra_and_figures
from registry.ensembles.wishart import largest_score
from registry.spectral.training import TRAINED_BEYOND

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.audit.audit_subject import AuditSubject
    from registry.types import LayerMatrix, MatrixFigures, Spectrum

__all__ = ["LOWEST_Z", "RULE", "initial_scales", "scale_of"]

LOWEST_Z = 3.0
"""A layer whose every z is below it has nothing that an initialisation has not."""
MEAN_Z = 4.0
"""Largest sum of the entries over the root of the sum of their squares: a start has mean zero."""
ORDER, SMALL_ORDER = 64, 32
"""Smaller trained layers often look like that."""
_DEVIATIONS = 3.5
_LOWEST = 4.0
_SLACK = 0.003  # of a scale and a kurtosis, for values that were rounded
_LAWS = (
    ("uniform", 1.8, 1.317, 3**0.5),
    ("truncated normal", 2.3655, 3.85, 2.2736),
    ("normal", 3.0, 24.0, float("inf")),
)
# Name; kurtosis; variance of its estimate, times the number of entries; largest magnitude over the root mean square.
# The variance is m8 - k^2 - 4 k (m6 - k) + 4 k^2 (k - 1), of standardised moments, by the delta method.
_Z = ("rectangles", "rows", "columns", "kernels", "kernel_sums", "kernel_norms")
_TRUNCATED = 0.87962566  # standard deviation of a normal law cut at twice its own


def initial_scales(layer: LayerMatrix, outputs: int) -> dict[str, float]:
    """Standard deviations that common initialisers give to the entries of a layer, by their names.

    Parameters
    ----------
    layer
        The layer. Its inputs times kernel positions are the fan-in.
    outputs
        Rows of the whole tensor that it may be a part of: initialisers see that one.
    """
    positions = prod(layer.kernel)
    fan_in, fan_out, inputs = layer.q, layer.p * positions, layer.q
    whole_out = outputs * positions
    found = {
        "uniform(1 / sqrt(fan-in)), PyTorch's default": 1 / sqrt(3 * fan_in),
        "He, fan-in": sqrt(2 / fan_in),
        "He, fan-out": sqrt(2 / whole_out),
        "Glorot": sqrt(2 / (fan_in + whole_out)),
        "LeCun": 1 / sqrt(inputs),
        "normal(0.02)": 0.02,
        "truncated normal(0.02)": 0.02 * _TRUNCATED,
        "normal(0.01)": 0.01,
    }
    if fan_out != whole_out:
        found["Glorot, by part"] = sqrt(2 / (fan_in + fan_out))
    if layer.kind == "recurrent":
        found["uniform(1 / sqrt(units))"] = 1 / sqrt(3 * layer.p)
    if layer.kind == "embedding":
        found |= {"normal(1)": 1.0, "uniform(0.05)": 0.05 / sqrt(3)}
    return found


def scale_of(layer: LayerMatrix, mean: float) -> float:
    """Root mean square of a layer's entries, by the mean of its min(p, q) eigenvalues."""
    return sqrt(mean / max(layer.p, layer.q))


def _check(subject: AuditSubject) -> Iterator[Hit]:
    training, of_weights = subject.training, subject.figures
    if training is None or of_weights is None:
        return
    if training.training_class != "trained":
        message = f"the whole model is {training.training_class}, by {training.decided_by}"
        z_of_all = nan if training.z is None else training.z
        yield Hit("", "note", z_of_all, TRAINED_BEYOND, message, "load its weights before saving it, if it was trained")
        return
    outputs: dict[str, int] = {}
    for layer in subject.layers:
        outputs[layer.tensor] = outputs.get(layer.tensor, 0) + layer.p
    for spectrum, figures in zip(subject.spectra or (), of_weights.layers, strict=False):
        layer = spectrum.layer
        z, law = _largest_z(spectrum, figures), _law(layer, figures)
        if z is None or z >= LOWEST_Z or not law:
            continue
        scale = scale_of(layer, spectrum.mean)
        name = _initialiser(layer, outputs[layer.tensor], scale)
        large = min(layer.p, layer.q) >= ORDER
        if not large and not name:
            continue
        message = (
            f"looks untrained: its entries have a {law} law and mean zero, and no statistic is {LOWEST_Z:g} standard "
            f"deviations above that of random ones"
        )
        message += f"; its scale {scale:.3g} is that of {name}" if name else ""
        remedy = "check that it was in the optimiser, and that no key of the checkpoint was missing when it was loaded"
        yield Hit(
            layer.name, "error" if large and name else "warning" if large else "note", z, LOWEST_Z, message, remedy
        )


def _largest_z(spectrum: Spectrum, figures: MatrixFigures) -> float | None:
    """The largest z of a layer; None where they tell nothing, or are far below zero, or the layer is too small."""
    rows = spectrum.layer.p - figures.zero_rows
    known = [z for name in _Z if not isnan(z := getattr(figures, name))]
    if figures.silent or isnan(figures.rectangles) or min(rows, spectrum.layer.q) < SMALL_ORDER:
        return None
    known.append(largest_score(rows, spectrum.layer.q, float(spectrum.values[-1])))
    return max(known) if min(known) > -_LOWEST else None  # an orthogonal start, or a trained copy of it


def _law(layer: LayerMatrix, figures: MatrixFigures) -> str:
    """Name of the law of initialisers that the entries may be drawn from, by what tells it; empty if there is none."""
    n = max(1, (layer.p - figures.zero_rows) * layer.q)
    if not abs(figures.mean) <= MEAN_Z:
        return ""
    for name, kurtosis, variance, extreme in _LAWS:
        near = abs(figures.kurtosis - kurtosis) <= _DEVIATIONS * sqrt(variance / n) + _SLACK
        if near and figures.extreme <= extreme * (1 + _DEVIATIONS * sqrt(1 / (2 * n)) + _SLACK):
            return name
    return ""


def _initialiser(layer: LayerMatrix, outputs: int, scale: float) -> str:
    """Name of the initialiser whose scale a layer has, within what sampling explains; empty if there is none.

    The variance of n Gaussian entries has the relative standard deviation sqrt(2 / n), their scale half of it.
    """
    tolerance = _DEVIATIONS * sqrt(1 / (2 * layer.p * layer.q)) + _SLACK
    apart = {name: abs(scale / one - 1) for name, one in initial_scales(layer, outputs).items()}
    nearest = min(apart, key=lambda name: apart[name])
    return nearest if apart[nearest] <= tolerance else ""


RULE = AuditRule(
    name="untrained",
    finds="layers that look as an initialiser leaves them, in a trained model",
    when={
        "error": "order at least 64; all z of the entries and that of the largest eigenvalue below 3; mean zero, "
        "and the kurtosis and largest entry of a uniform, normal or truncated normal law; the scale of a "
        "common initialiser",
        "warning": "the same at another scale: weight decay shrinks what is not trained",
        "note": "order 32 to 63, with the scale of a common initialiser; or the whole model is untrained, or too small "
        "to tell",
    },
    check=_check,
    lacks=needs_spectra_and_figures,
    false_alarms={"error": 0.0, "warning": 0.006, "note": 0.037},
)
