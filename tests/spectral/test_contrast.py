from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from registry.errors import SpectrumError
from registry.spectral import fingerprint
from registry.spectral.contrast import LOCATIONS, contrast
from registry.spectral.cumulatives import cumulative
from registry.spectral.shipped_fingerprints import LAYERED_BLOCKS
from registry.spectral.specs import LAYERED
from registry.types import Contrast
from tests.spectral.factory import by_hand, gaussian, of_weights, published_models

SHAPES = [(16, 27), (32, 144), (32, 144), (64, 288), (10, 64)]


def heavy(shape, rng):
    return rng.standard_t(1.5, size=shape).astype(np.float32)


def mirrored(found):
    """The contrast of b and a from that of a and b."""
    return replace(found, difference=-found.difference, layers_a=found.layers_b, layers_b=found.layers_a)


def test_by_hand():
    a = [by_hand([0.5, 1.5], 2, 2), by_hand([0.25, 0.75, 1.0, 2.0], 4, 4, 1)]
    b = [by_hand([0.5, 1.5], 2, 2), by_hand([1.0, 1.0, 1.0, 1.0], 4, 4, 1)]
    found = contrast(a, b)
    # Below 1, F_a has 1/4 of the first layer's and 1/2 of the second's half; F_b 1/4 and nothing.
    assert (found.location, found.difference) == (0.75, 0.25)
    # The first of the depths whose nearest layer is the second.
    assert (found.depth, [layer.name for layer in found.layers_a]) == (0.6, ["layer1"])
    [layer] = found.layers_a
    assert (layer.position, layer.depth) == (1, 1.0)
    # |log10 x| on average, to within the grid's spacing of 0.04.
    wanted = np.mean(np.abs(np.log10([0.25, 0.75, 1.0, 2.0])))
    assert layer.distance == pytest.approx(wanted, abs=0.04)
    assert found.depth_distance == pytest.approx(layer.distance, rel=1e-12)
    # The same shapes: spectra make all of it.
    shares = dict(found.shares)
    assert (shares["shapes"], shares["pairs"], shares["layers"]) == (0, 0, 0)
    assert shares["spectra"] + shares["depths"] == pytest.approx(1)


@pytest.mark.parametrize("seed", range(4))
def test_the_location_is_that_of_the_supremum(seed):
    rng = np.random.default_rng(seed)
    a, b = gaussian(SHAPES, rng), of_weights([heavy(shape, rng) for shape in SHAPES[:3]])
    found = contrast(a, b)
    x = np.unique(np.concatenate([s.values for s in (*a, *b)]).astype(np.float64))
    # Between two eigenvalues both cumulatives are constant: these are all their values.
    differences = cumulative(a, x) - cumulative(b, x)
    largest = np.abs(differences).argmax()
    assert found.location == x[largest]
    assert found.difference == pytest.approx(differences[largest], abs=1e-12)
    fine = np.linspace(0, 30, 3001)
    assert abs(found.difference) >= np.abs(cumulative(a, fine) - cumulative(b, fine)).max() - 1e-12


def test_layers_by_their_wasserstein_distance():
    rng = np.random.default_rng(5)
    a = gaussian(SHAPES, rng)
    b = of_weights([heavy(s, rng) if i == 2 else rng.standard_normal(s) for i, s in enumerate(SHAPES)])
    found = contrast(a, b, layers=5)
    for layer in found.layers_a:
        own, other = (np.log10(np.clip(s[layer.position].values, *LOCATIONS[[0, -1]])) for s in (a, b))
        assert layer.distance == pytest.approx(wasserstein_distance(own, other), abs=0.01)
    assert (found.layers_a[0].position, found.layers_b[0].position) == (2, 2)
    distances = [layer.distance for layer in found.layers_a]
    assert distances == sorted(distances, reverse=True)
    assert len(contrast(a, b).layers_a) == 3
    # The third of five layers is half way down; the nodes about it are 0.4 and 0.6.
    assert found.depth in (0.4, 0.6)


def test_a_layer_is_compared_with_the_two_it_stands_between():
    spectra = [by_hand(values, 2, 2, i) for i, values in enumerate(([1.0, 1.0], [0.5, 1.5], [0.1, 1.9]))]
    between = by_hand([0.5, 1.0, 1.0, 1.5], 4, 4, 1)
    # Of four layers, the second and third stand at 1/3 and 2/3; of three, the middle one at 1/2.
    b = [spectra[0], by_hand([0.5, 1.5], 2, 2, 1), by_hand([1.0, 1.0], 2, 2, 2), spectra[2]]
    found = contrast([spectra[0], between, spectra[2]], b)
    # Half of the one and half of the other is the layer itself.
    assert found.layers_a == ()
    assert {layer.position for layer in found.layers_b} == {1, 2}
    single = contrast([by_hand([0.5, 1.5], 2, 2)], spectra)
    assert (single.layers_a, {layer.position for layer in single.layers_b}) == ((), {0, 2})


def test_shares_are_of_the_fingerprints_distance():
    rng = np.random.default_rng(6)
    a, b = gaussian(SHAPES, rng), of_weights([heavy(shape, rng) for shape in [(8, 9), *SHAPES]])
    apart = np.abs(fingerprint(a, LAYERED).vector.astype(float) - fingerprint(b, LAYERED).vector)
    shares = dict(contrast(a, b).shares)
    assert list(shares) == list(LAYERED_BLOCKS)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["layers"] == pytest.approx(apart[-1] / apart.sum())
    assert shares["shapes"] == pytest.approx(apart[: LAYERED_BLOCKS["shapes"]].sum() / apart.sum())
    # Wider layers of the same weights' law: shapes make more of it than where only the weights differ.
    trained = of_weights([heavy(shape, rng) for shape in SHAPES])
    wide = gaussian([(2 * p, 2 * q) for p, q in SHAPES], rng)
    assert dict(contrast(a, trained).shares)["shapes"] == 0
    assert dict(contrast(a, wide).shares)["shapes"] > 0.2


def test_a_network_and_itself():
    spectra = gaussian(SHAPES, np.random.default_rng(7))
    shares = tuple((name, 0.0) for name in LAYERED_BLOCKS)
    found = contrast(spectra, spectra)
    assert found == Contrast(found.location, 0.0, 0.0, 0.0, (), (), shares)


def test_the_other_way_round():
    rng = np.random.default_rng(8)
    a, b = gaussian(SHAPES, rng), of_weights([heavy(shape, rng) for shape in SHAPES[1:]])
    assert contrast(b, a) == mirrored(contrast(a, b))


def test_published_relatives_and_strangers():
    spectra = published_models()
    a, b = spectra["resnet-cifar/akamaster-resnet20"], spectra["resnet-cifar/akamaster-resnet32"]
    stranger = spectra["kws-lstm/LSTM_L"]
    near, far = contrast(a, b), contrast(a, stranger)
    assert abs(near.difference) < abs(far.difference)
    assert near.depth_distance < far.depth_distance
    assert near.layers_a[0].distance < far.layers_a[0].distance


def test_bad_input():
    good, bad = [by_hand([0.5, 1.5], 2, 2)], [by_hand([0.5, np.nan], 2, 2)]
    for a, b in ((good, []), ([], good), (good, bad), (bad, good)):
        with pytest.raises(SpectrumError):
            contrast(a, b)
    with pytest.raises(SpectrumError, match="number of layers listed"):
        contrast(good, good, layers=0)
