"""Rule ``rank``: layers whose rank is far below their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from registry.audit.base import AuditRule, Hit, needs_spectra

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.audit.audit_subject import AuditSubject
    from registry.types import Spectrum

__all__ = ["RULE", "rank_of"]

ORDER = 32
"""Smallest order of a layer that is judged: small ones lose ranks by a few dead units."""
SHARE = 0.5
"""Of its order that a layer's rank is to reach."""
_SINGLE, _DOUBLE = float(np.finfo(np.float32).eps), float(np.finfo(np.float64).eps)


def rank_of(spectrum: Spectrum) -> int:
    """Number of singular values above rounding: max(p, q) units in the last place of float32, of the largest.

    That is the usual rule (Golub and Van Loan, "Matrix computations", section 5.4.1). Eigenvalues of W W^T are squares
    of singular values, and themselves exact to a unit of float64 of the largest.
    """
    x, extent = spectrum.values.astype(np.float64), max(spectrum.layer.p, spectrum.layer.q)
    lowest = max((extent * _SINGLE) ** 2, extent * _DOUBLE)
    return int(np.count_nonzero(x > lowest * x[-1]))


def _check(subject: AuditSubject) -> Iterator[Hit]:
    figures = subject.figures
    for at, spectrum in enumerate(subject.spectra or ()):
        layer = spectrum.layer
        zero_rows = 0 if figures is None else figures.layers[at].zero_rows  # another rule tells of these
        order = min(layer.p - zero_rows, layer.q)
        if order < ORDER or spectrum.method:  # approximate spectra do not tell the smallest eigenvalues
            continue
        rank = rank_of(spectrum)
        if rank < SHARE * order:
            message = f"rank {rank} of order {order}"
            remedy = "factorise or narrow the layer; if it should use its width, lower the weight decay"
            yield Hit(layer.name, "warning", rank / order, SHARE, message, remedy)


RULE = AuditRule(
    name="rank",
    finds="layers whose rank is far below their order",
    when={"warning": "order at least 32, without rows of zeros; rank below half of it, by the precision of float32"},
    check=_check,
    lacks=needs_spectra,
    false_alarms={"warning": 0.0},
)
