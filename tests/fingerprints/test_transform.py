"""The transform of the default fingerprint: what ships, and what it does to the numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from registry.errors import SpectrumError
from registry.spectral import fingerprint
from registry.spectral.learned_transform import LEARNED, transform
from registry.spectral.shipped_fingerprints import LAYERED_BLOCKS, WEIGHTS
from registry.spectral.specs import LAYERED
from tests.fingerprints.factory import spectra_of, weights_of


def test_what_ships() -> None:
    matrices = transform(LAYERED.weights)
    assert tuple(matrices) == LEARNED
    for name, matrix in matrices.items():
        assert (matrix.shape, matrix.dtype) == ((LAYERED_BLOCKS[name],) * 2, np.float64)
        np.testing.assert_array_equal(matrix, matrix.T)
        # Positive: no direction is lost, or two different embeddings would be at distance zero. Half the covariance is
        # its mean variance, so that none counts for more than 2^1/2 times what all do; and it is no identity.
        values = np.linalg.eigvalsh(matrix)
        assert 0.1 < values[0] < 0.5
        assert 1.2 < values[-1] < 2.0


def test_it_turns_the_blocks_that_it_is_for_and_no_other() -> None:
    spectra = spectra_of(weights_of())
    plain = fingerprint(spectra, replace(LAYERED, weights="")).vector.astype(np.float64)
    found = fingerprint(spectra, LAYERED).vector
    ends = np.cumsum([0, *LAYERED_BLOCKS.values()])
    for at, name in enumerate(LAYERED_BLOCKS):
        block = slice(ends[at], ends[at + 1])
        if name not in LEARNED:
            np.testing.assert_array_equal(found[block], plain[block], err_msg=name)
            continue
        turned = [
            sum(a * b for a, b in zip(row, plain[block], strict=True)) for row in transform(LAYERED.weights)[name]
        ]
        # Both rounded to float32, of at most a block's weight over its length a number.
        step = 2.0**-23 * WEIGHTS[name] / LAYERED_BLOCKS[name]
        np.testing.assert_allclose(found[block], turned, rtol=0, atol=20 * step, err_msg=name)
        assert np.abs(found[block] - plain[block]).max() > 1000 * step


def test_a_transform_that_is_not_here() -> None:
    with pytest.raises(SpectrumError, match="does not have the transform 'other'") as refused:
        fingerprint(spectra_of(weights_of()), replace(LAYERED, weights="other"))
    assert refused.value.remedy == "use the version that stored the fingerprint"
