"""What a fingerprint is, what leaves it alone, and what does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from registry.errors import SpectrumError, UsageError
from registry.spectral import fingerprint, fingerprint_of_layers, needs_spectra
from registry.spectral.shipped_fingerprints import LAYERED_BLOCKS, SHAPES_BLOCKS
from registry.spectral.specs import DEFAULT_SPEC, LAYERED, MME, SPECS, spec_named
from registry.spectral.specs import SHAPES as OF_SHAPES
from tests.fingerprints.factory import SHAPES, gap, spectra_of, weights_of
from tests.spectral.factory import by_hand, gaussian

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.types import FingerprintSpec, Spectrum

every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
spectral_spec = pytest.mark.parametrize("spec", [LAYERED, MME], ids=["layered", "mme"])
ENDS = np.cumsum([0, *LAYERED_BLOCKS.values()])
BLOCKS = {name: slice(ENDS[at], ENDS[at + 1]) for at, name in enumerate(LAYERED_BLOCKS)}


def vector(spectra: Sequence[Spectrum], spec: FingerprintSpec) -> np.ndarray:
    return fingerprint(spectra, spec).vector


def test_the_specs_are_these() -> None:
    # A change here is a new version: stored fingerprints and the shipped calibrations no longer compare.
    assert {spec.label: spec.hash for spec in SPECS.values()} == {
        "layered v3": "41ca519b29b6e18e",
        "mme v1": "097f9fa89f629bea",
        "shapes v1": "5498d4eb5ff79103",
    }
    assert spec_named(DEFAULT_SPEC) is LAYERED
    assert sum(LAYERED_BLOCKS.values()) == LAYERED.length <= 480  # a row of a Postgres page
    with pytest.raises(UsageError, match="'other'") as refused:
        spec_named("other")
    assert refused.value.remedy == "known: layered, mme, shapes"


def test_every_field_of_a_spec_is_in_its_hash() -> None:
    changes = {
        "name": "x", "version": 9, "matrix_rule": "x", "locations": (0.5,), "length": 3, "depths": (0.5,),
        "reference": "x", "beta": 4, "seed": 7, "weights": "x",
    }  # fmt: skip
    assert changes.keys() == {"name", "version", *MME.uses}
    hashes = {replace(MME, **{field: value}).hash for field, value in changes.items()}
    assert len(hashes | {MME.hash}) == len(changes) + 1


@every_spec
@pytest.mark.parametrize("shapes", [SHAPES, SHAPES[:1], SHAPES[-1:], SHAPES[:2], ((2, 2),), SHAPES * 40])
def test_vectors(spec: FingerprintSpec, shapes: tuple[tuple[int, ...], ...]) -> None:
    spectra = spectra_of(weights_of(shapes))
    found = fingerprint(spectra, spec)
    assert (found.spec, found.vector.shape, found.vector.dtype) == (spec, (spec.length,), np.float32)
    assert np.isfinite(found.vector).all()
    assert found.vector.any()
    assert vector(spectra, spec).tobytes() == found.vector.tobytes()


@every_spec
def test_the_numbers_stay_what_they_are(spec: FingerprintSpec) -> None:
    spectra = spectra_of(weights_of())
    # No x is near enough to a location for rounding, some 1e-7, to move a step of the cumulative.
    assert not spec.locations or gap(spectra, spec.locations) > 1e-5
    frozen = json.loads(Path(__file__).with_name("frozen.json").read_text())[spec.label]
    # Twice the rounding to float32 of numbers of order one.
    np.testing.assert_allclose(vector(spectra, spec), frozen, rtol=0, atol=2.4e-7)


@spectral_spec
def test_scaling_a_layer_changes_nothing(spec: FingerprintSpec) -> None:
    weights = weights_of()
    plain = vector(spectra_of(weights), spec)
    twos = [W * np.float32(2.0 ** (5 * at - 10)) for at, W in enumerate(weights)]
    assert vector(spectra_of(twos), spec).tobytes() == plain.tobytes()
    scaled = [W * np.float32(0.3 + at) for at, W in enumerate(weights)]
    # Rounding of the scaled weights: some 1e-7 of every x, less in what is made of it.
    np.testing.assert_allclose(vector(spectra_of(scaled), spec), plain, rtol=0, atol=1e-6)
    one_unit = [W.copy() for W in weights]
    one_unit[3][0] *= 10
    assert np.abs(vector(spectra_of(one_unit), spec) - plain).max() > 1e-3


@spectral_spec
def test_permuting_units_changes_nothing(spec: FingerprintSpec) -> None:
    rng = np.random.default_rng(0)
    weights = weights_of()
    permuted = [rng.permutation(rng.permutation(W, axis=0), axis=1) for W in weights]
    np.testing.assert_allclose(vector(spectra_of(permuted), spec), vector(spectra_of(weights), spec), rtol=0, atol=1e-6)
    shuffled = [rng.permutation(W.ravel()).reshape(W.shape) for W in weights]  # every weight of a layer: not the same
    assert np.abs(vector(spectra_of(shuffled), spec) - vector(spectra_of(weights), spec)).max() > 1e-3


def test_transposition() -> None:
    weights = [W.reshape(len(W), -1) for W in weights_of()]
    plain, turned = spectra_of(weights), spectra_of([W.T for W in weights])
    one, other = vector(plain, LAYERED), vector(turned, LAYERED)
    for block in ("spectra", "depths", "layers"):  # of `proper` spectra and of the sides' ratio alone
        np.testing.assert_array_equal(one[BLOCKS[block]], other[BLOCKS[block]], err_msg=block)
    for block in ("shapes", "pairs", "triples"):
        assert np.abs(one[BLOCKS[block]] - other[BLOCKS[block]]).max() > 1e-3, block
    # The paper's counts structural zeros, which one of the two has more of.
    assert np.abs(vector(plain, MME) - vector(turned, MME)).max() > 0.05


def test_the_order_of_layers_matters_where_depth_is_resolved() -> None:
    spectra = spectra_of(weights_of())
    backwards = spectra[::-1]
    np.testing.assert_allclose(vector(backwards, MME), vector(spectra, MME), rtol=0, atol=1e-7)
    change = np.abs(vector(backwards, LAYERED) - vector(spectra, LAYERED))
    assert {name for name, block in BLOCKS.items() if change[block].max() > 1e-4} == BLOCKS.keys() - {"layers"}


def test_cutting_the_spectra_leaves_the_shapes() -> None:
    trained, random = spectra_of(weights_of()), spectra_of(weights_of(seed=2))
    change = np.abs(vector(trained, LAYERED) - vector(random, LAYERED))
    assert {name for name, block in BLOCKS.items() if change[block].max() > 0} == {"spectra", "depths"}


def test_shapes_are_layered_without_what_needs_eigenvalues() -> None:
    spectra, random = spectra_of(weights_of()), spectra_of(weights_of(seed=2))
    whole, layers = vector(spectra, LAYERED), [spectrum.layer for spectrum in spectra]
    parts = np.concatenate([whole[BLOCKS[name]] for name in SHAPES_BLOCKS])
    assert vector(spectra, OF_SHAPES).tobytes() == parts.tobytes()
    assert vector(random, OF_SHAPES).tobytes() == parts.tobytes()  # of other weights of these shapes, too
    assert fingerprint_of_layers(layers, OF_SHAPES).vector.tobytes() == parts.tobytes()
    assert {name for name in BLOCKS if name not in SHAPES_BLOCKS} == {"spectra", "depths"}
    wider = spectra_of(weights_of((*SHAPES[:-1], (11, 12))))
    assert np.abs(vector(wider, OF_SHAPES) - parts).max() > 1e-4


def test_what_cannot_be_known_of_shapes_alone() -> None:
    layers = [spectrum.layer for spectrum in spectra_of(weights_of())]
    assert [needs_spectra(spec) for spec in (LAYERED, MME, OF_SHAPES)] == [True, True, False]
    assert needs_spectra(replace(OF_SHAPES, version=9))
    with pytest.raises(SpectrumError, match="layered v3 is computed from spectra, not from shapes alone") as refused:
        fingerprint_of_layers(layers, LAYERED)
    assert refused.value.remedy == "ingest the weights"
    with pytest.raises(SpectrumError, match="no layers"):
        fingerprint_of_layers([], OF_SHAPES)
    with pytest.raises(SpectrumError, match="v9"):
        fingerprint_of_layers(layers, replace(OF_SHAPES, version=9))
    with pytest.raises(SpectrumError, match="spec must be a FingerprintSpec"):
        fingerprint_of_layers(layers, "shapes")  # type: ignore[arg-type]


def test_mme_by_hand() -> None:
    # W1 = diag(1, 2): eigenvalues 1, 4 of mean 5/2, so x = 0.4, 1.6.
    # W2 = (1 0; 0 3; 0 0): eigenvalues 0, 1, 9 of A = W W^T, of mean 10/3, so x = 0, 0.3, 2.7 on the `full` scale.
    spectra = spectra_of([np.diag([1.0, 2.0]).astype(np.float32), np.array([[1, 0], [0, 3], [0, 0]], dtype=np.float32)])
    expected = []
    for x in MME.locations:
        first = sum(value <= x for value in (0.4, 1.6)) / 2
        second = sum(value <= x for value in (0.0, 0.3, 2.7)) / 3
        expected.append(min(x / 2, 1.0) - (first + second) / 2)
    np.testing.assert_allclose(vector(spectra, MME), expected, rtol=0, atol=6e-8)  # float32
    assert expected[0] == pytest.approx(1e-3 / 2 - 1 / 6)
    assert expected[-1] == 0.0


@pytest.mark.parametrize("count", [64, 4096])
def test_mme_adds_up_to_the_wasserstein_distance_of_log_x(count: int) -> None:
    first, last = MME.locations[0], MME.locations[-1]
    locations = tuple(np.geomspace(first, last, count).tolist())
    spec = replace(MME, locations=locations, length=count)
    rng = np.random.default_rng(3)
    a = spectra_of(weights_of(((40, 90), (60, 60), (80, 30))))
    b = gaussian([(50, 70), (30, 300)], rng)
    spacing = np.log(last / first) / (count - 1)
    found = float(np.abs(vector(a, spec).astype(float) - vector(b, spec)).sum()) * spacing
    # A sum over cells instead of an integral errs by at most the spacing times the variation of F_a - F_b, 2; and
    # float32 by 1e-7 a location.
    tolerance = 2 * spacing + 1e-7 * count * spacing
    assert found == pytest.approx(_wasserstein(a, b, np.log, first, last), abs=tolerance)
    if count > 64:
        assert found > 20 * tolerance
        assert abs(found - _wasserstein(a, b, np.asarray, first, last)) > 20 * tolerance  # of x itself: another number


def _wasserstein(a: Sequence[Spectrum], b: Sequence[Spectrum], scale, first: float, last: float) -> float:
    sides = []
    for spectra in (a, b):
        full = [np.append(np.zeros(s.layer.p - s.values.size), s.values * (s.layer.p / s.values.size)) for s in spectra]
        weights = [np.full(x.size, 1 / (x.size * len(full))) for x in full]
        sides.append((scale(np.clip(np.concatenate(full), first, last)), np.concatenate(weights)))
    return float(wasserstein_distance(sides[0][0], sides[1][0], sides[0][1], sides[1][1]))


def test_departures_vanish_for_what_training_did_not_touch() -> None:
    rng = np.random.default_rng(4)
    shapes = [(300, 500), (400, 400), (500, 300)]
    block = vector(gaussian(shapes, rng), LAYERED)[BLOCKS["depths"]] * (72 / 0.7)  # back to F - F_W
    # Eigenvalues are rigid: a Wishart layer's F strays from Marchenko-Pastur's by O(log n / n), 0.02 at n = 300; at
    # the hard edge of the square layer, and through the triangles, less than twice that.
    assert np.abs(block).max() < 0.04
    trained = vector(spectra_of(weights_of(tuple(shapes))), LAYERED)[BLOCKS["depths"]] * (72 / 0.7)
    assert np.abs(trained).max() > 0.1


def test_the_last_number_counts_layers() -> None:
    # What doubling their number costs in the L1 distance does not depend on the number.
    counts = [vector(spectra_of(weights_of(((4, 4),) * n)), LAYERED)[-1] for n in (1, 3, 7, 15)]
    np.testing.assert_allclose(np.diff(counts), 0.035, rtol=1e-6)


@every_spec
def test_what_has_no_fingerprint(spec: FingerprintSpec) -> None:
    spectra = spectra_of(weights_of())
    with pytest.raises(SpectrumError, match="no layers"):
        fingerprint([], spec)
    with pytest.raises(SpectrumError, match="a list of Spectrum, one a layer, not of ndarray"):
        fingerprint([np.eye(3)], spec)  # type: ignore[list-item]
    with pytest.raises(SpectrumError, match=f"spec must be a FingerprintSpec, not '{spec.name}'") as refused:
        fingerprint(spectra, spec.name)  # type: ignore[arg-type]
    assert "registry.spectral.SPECS" in str(refused.value.remedy)
    with pytest.raises(SpectrumError, match="v9") as refused:
        fingerprint(spectra, replace(spec, version=9))
    assert refused.value.remedy
    with pytest.raises(SpectrumError, match="finite numbers"):
        fingerprint(spectra, replace(spec, length=spec.length + 1))
    if needs_spectra(spec):
        with pytest.raises(SpectrumError, match="has the invalid eigenvalue nan"):
            fingerprint([by_hand([0.5, np.nan], 2, 2)], spec)
