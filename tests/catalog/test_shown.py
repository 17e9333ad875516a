"""Values as they are shown, pickled and copied."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING

import numpy as np

from registry import Filter, Metric, MetricBound, ModelCard
from registry.spectral import SPECS, fingerprint
from registry.types import Calibration, LayerMatrix, Spectrum

if TYPE_CHECKING:
    from tests.catalog.conftest import Filled


def test_what_is_not_known_is_not_shown() -> None:
    assert repr(ModelCard()) == "ModelCard()"
    card = ModelCard(family="resnet", seed=0, metrics=(Metric("top1", 92.6, "cifar10"),))
    assert (
        repr(card)
        == "ModelCard(family='resnet', seed=0, metrics=(Metric(name='top1', value=92.6, dataset='cifar10'),))"
    )
    assert eval(repr(card)) == card  # noqa: S307
    bound = Filter(max_params=1000, metrics=(MetricBound("top1", 92.0),))
    assert repr(bound) == "Filter(max_params=1000, metrics=(MetricBound(name='top1', minimum=92.0),))"


def test_numbers_by_the_hundred_are_not_shown() -> None:
    layer = LayerMatrix(0, "conv.weight", "conv.weight", (2, 3, 1, 1), "conv", stop=2)
    spectrum = Spectrum(layer, 0.25, np.array([0.5, 1.5], np.float32))
    assert repr(spectrum) == "<Spectrum conv.weight (2, 3): 2 values from 0.5 to 1.5, mean 0.25>"
    rough = Spectrum(layer, 0.25, np.array([], np.float32), "lanczos")
    assert repr(rough) == "<Spectrum conv.weight (2, 3): no values, mean 0.25, lanczos>"
    spec = SPECS["mme"]
    assert repr(spec) == f"<FingerprintSpec mme v1 {spec.hash}>"
    assert repr(fingerprint([spectrum], spec)) == "<Fingerprint mme v1: 64 numbers>"
    calibration = Calibration("0" * 16, "l1", 0.01, 0.5, tuple((n / 100, n / 50) for n in range(100)), "a test")
    assert repr(calibration) == (
        "Calibration(spec_hash='0000000000000000', distance='l1', rate=0.01, tolerance=0.5, source='a test')"
    )


def test_answers_are_shown_pickled_and_copied(asked: Filled) -> None:
    """An answer fits a screen or so, whatever it was calibrated on, and comes back from a pickle as it was."""
    reg = asked.reg
    answers = {
        "nearest": reg.nearest("wide", k=3),
        "search": reg.search("wide", k=3),
        "compare": reg.compare("wide", "slim"),
        "compress": reg.compress("wide", k=3),
        "select": reg.select(aims=["min:params"]),
        "classes": reg.classes(keep=False),
        "calibration": reg.calibration(),
        "plan": reg.plan([asked.files]),
        "show": reg.show("wide"),
    }
    for name, answer in answers.items():
        assert len(repr(answer)) < 3500, name
        assert pickle.loads(pickle.dumps(answer)) == copy.deepcopy(answer) == answer
    spectra = reg.spectrum("wide")
    for own, again in zip(spectra, pickle.loads(pickle.dumps(spectra)), strict=True):
        assert (own.layer, own.mean) == (again.layer, again.mean)
        np.testing.assert_array_equal(own.values, again.values)
