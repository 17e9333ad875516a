from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import pytest

from registry.errors import WeightsError
from registry.sources import expand, layer_matrix, open_ref, plan_weights

if TYPE_CHECKING:
    from pathlib import Path

    from registry.types import WeightsPlan


@pytest.fixture(scope="module")
def plans(zoo: Path) -> dict[str, tuple[dict[str, object], WeightsPlan]]:
    found = {}
    for line in (zoo / "manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        with open_ref(expand(zoo / entry["path"])[0]) as checkpoint:
            found[entry["name"]] = (entry, plan_weights(checkpoint))
    return found


def test_every_model_is_planned_and_no_layer_is_lost(plans: dict[str, tuple[dict[str, object], WeightsPlan]]) -> None:
    assert len(plans) == 163
    for name, (entry, plan) in plans.items():
        tensors = {layer.tensor for layer in plan.layers}
        zero = [s for s in plan.skipped if s.reason == "all zeros"]
        assert len(tensors) + len(zero) == entry["matrices"], name
        assert [layer.position for layer in plan.layers] == list(range(len(plan.layers)))
        assert all(layer.p >= 2 and layer.q >= 2 for layer in plan.layers)


def test_only_vectors_statistics_and_single_rows_are_left_out(
    plans: dict[str, tuple[dict[str, object], WeightsPlan]],
) -> None:
    reasons = defaultdict(set)
    for name, (_, plan) in plans.items():
        for skipped in plan.skipped:
            reasons[skipped.reason].add(name)
    assert set(reasons) == {
        "vector or scalar", "batch statistics", "fewer than two outputs", "fewer than two inputs", "all zeros",
    }  # fmt: skip
    assert {name.split("/")[0] for name in reasons["all zeros"]} == {"resnet-cifar"}  # layers were pruned away
    assert all("Removed" in name or "removed" in name for name in reasons["all zeros"])


def test_topologies_part_the_models_as_the_manifest_does(
    plans: dict[str, tuple[dict[str, object], WeightsPlan]],
) -> None:
    pairs = {
        (entry["topology"], plan.topology)
        for entry, plan in plans.values()
        if not any(s.reason == "all zeros" for s in plan.skipped)
    }
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("resnet-cifar/akamaster-resnet56", "conv1.weight", "linear.weight"),
        ("textgenrnn/reactionrnn", "embedding.embeddings", "output.kernel"),
        ("kws-lstm/LSTM_L", "lstm.rnn.lstm_cell.kernel[i]", "W_o"),
        ("kws-dnn/DNN_L", "fc1.W", "final_fc"),
        ("admet-chemprop/classification-0", "message_passing.W_i.weight", "predictor.ffn.1.2.weight"),
    ],
)
def test_depth_runs_from_input_to_output(
    name: str, first: str, last: str, plans: dict[str, tuple[dict[str, object], WeightsPlan]]
) -> None:
    layers = plans[name][1].layers
    assert (layers[0].name, layers[-1].name) == (first, last)


def test_contents_are_all_different(plans: dict[str, tuple[dict[str, object], WeightsPlan]]) -> None:
    assert len({plan.content_hash for _, plan in plans.values()}) == len({entry["sha"] for entry, _ in plans.values()})


def test_matrices_of_a_real_model_are_finite_and_of_their_shape(zoo: Path) -> None:
    with open_ref(expand(zoo / "megnet")[0]) as checkpoint:
        for layer in plan_weights(checkpoint).layers:
            matrix = layer_matrix(checkpoint, layer)
            assert matrix.shape == (layer.p, layer.q)
            assert np.isfinite(matrix).all()


def test_a_published_checkpoint_of_nan_is_refused(zoo: Path) -> None:
    message = "holds 61440 of 61440 values that are NaN or infinite, and 132 other tensors have some"
    path = zoo / "broken" / "nan-weights.safetensors"
    with open_ref(expand(path)[0]) as checkpoint, pytest.raises(WeightsError, match=message):
        plan_weights(checkpoint)
