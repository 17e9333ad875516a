"""NumPy output files of ``spectra`` and ``distances``, written atomically."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.atomic_files import whole_file
from registry.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from registry.types import Spectrum

__all__ = ["check_output", "spectra_arrays", "write_arrays"]


def check_output(path: Path) -> None:
    """Check the name of an output file before the work begins.

    Raises
    ------
    UsageError
        If the name does not end in ``.npz`` or the folder does not exist.
    """
    if path.suffix != ".npz":
        raise UsageError(f"'{path}' does not end in .npz", "name the output FILE.npz")
    if not path.parent.is_dir():
        raise UsageError(f"folder '{path.parent}' does not exist", "create it, or name another file")


def spectra_arrays(spectra: Sequence[Spectrum]) -> dict[str, Any]:
    """Return the spectra of L layers as flat arrays.

    Returns
    -------
    dict
        ``names`` (L,) text; ``p``, ``q`` (L,) int64; ``mean`` (L,) float64, the mean eigenvalue in units of the squared
        weights; ``offsets`` (L + 1,) int64; ``values`` float32: the eigenvalues of layer l divided by their mean,
        ascending, are ``values[offsets[l]:offsets[l + 1]]``.
    """
    import numpy as np

    counts = [len(spectrum.values) for spectrum in spectra]
    return {
        "names": np.array([spectrum.layer.name for spectrum in spectra], dtype=np.str_),
        "p": np.array([spectrum.layer.p for spectrum in spectra], dtype=np.int64),
        "q": np.array([spectrum.layer.q for spectrum in spectra], dtype=np.int64),
        "mean": np.array([spectrum.mean for spectrum in spectra], dtype=np.float64),
        "offsets": np.cumsum([0, *counts], dtype=np.int64),
        "values": np.concatenate([np.zeros(0, np.float32), *(spectrum.values for spectrum in spectra)]),
    }


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write ``arrays`` to ``path`` in NumPy's compressed format, atomically.

    Raises
    ------
    RegistryError
        If the file cannot be written.
    """
    import numpy as np

    with whole_file(path) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
