"""Model files as their authors published them: counts of the manifest, and the converted twins of the zoo."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from registry.errors import RegistryError
from registry.sources import expand, open_ref, plan_weights
from registry.sources.dtypes import is_float
from registry.sources.effective_weights import effective
from registry.sources.matrix_rule import NOT_PARAMETERS, skip_reason
from registry.sources.recognition import recognise
from tests.layouts.measured import distances, read

if TYPE_CHECKING:
    from pathlib import Path

    from registry.types import Checkpoint

FORMATS = (
    "caffe", "chainer-npz", "gguf", "keras-h5", "keras-v3", "mnn", "mxnet-params", "ncnn", "onnx", "sb3-zip",
    "tf-checkpoint", "tf-frozen-pb", "tf-savedmodel", "tfjs-graph", "tfjs-layers", "tfjs-weights", "tflite",
    "torch-legacy-pickle", "torch-zip", "torchscript",
)  # fmt: skip
REFUSED = ("lora-bin", "lora-safetensors")
"""Adapters need their base."""


def rows(originals: Path, *formats: str) -> list[dict[str, Any]]:
    """Lines of the manifest that are models of these formats."""
    with (originals / "manifest.jsonl").open() as file:
        lines = [json.loads(line) for line in file]
    return [line for line in lines if line["format"] in formats and not line.get("part_of")]


def test_every_format_of_the_manifest_is_looked_at(originals: Path) -> None:
    with (originals / "manifest.jsonl").open() as file:
        found = {line["format"] for line in map(json.loads, file) if not line.get("part_of")}
    assert found == {*FORMATS, *REFUSED}


def counts(checkpoint: Checkpoint) -> tuple[int, int, int]:
    """Float values, 8-bit values and matrices by the manifest's rule: running statistics count, tables do not."""
    values = codes = matrices = 0
    for tensor in effective(checkpoint).view.tensors.values():
        reason = skip_reason(tensor.info)
        if not is_float(tensor.dtype) or (reason in NOT_PARAMETERS and reason != "batch statistics"):
            continue
        quantised = tensor.precision.startswith(("int8", "uint8", "qint8", "quint8"))
        if not tensor.precision:
            values += tensor.info.size
        elif quantised:
            codes += tensor.info.size
        shape = tensor.shape
        if len(shape) > 1 and shape[0] > 1 and tensor.info.size // shape[0] > 1 and (quantised or not tensor.precision):
            matrices += 1
    return values, codes, matrices


@pytest.mark.parametrize("kind", FORMATS)
def test_parameters_and_matrices_are_those_of_the_manifest(kind: str, originals: Path) -> None:
    problems = []
    for row in rows(originals, kind):
        expected = (row["parameters"], row.get("quantised_values") or 0, row["matrices"])
        try:
            [ref] = expand(originals / row["file"])
            with open_ref(ref) as checkpoint:
                found = counts(checkpoint)
        except RegistryError as error:
            problems.append(f"{row['file']}: {error}")
            continue
        if found != expected:
            problems.append(f"{row['file']}: {found} instead of {expected}")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("kind", FORMATS)
def test_twins_of_equal_tensors_are_one_network(kind: str, originals: Path, zoo: Path) -> None:
    problems = []
    for row in rows(originals, kind):
        if row["verified"] != "all" or row["max_abs_diff"] or not row["twin"]:
            continue
        twin = (zoo if row["twin_in"] == "zoo" else originals) / row["twin"]
        [ref], [other] = expand(originals / row["file"]), expand(twin)
        one, two = read(open_ref(ref)), read(open_ref(other))
        if [layer.shape for layer in one.plan.layers] != [layer.shape for layer in two.plan.layers]:
            problems.append(f"{row['file']}: other layers or another order")
        elif (apart := distances(one.measured, two.measured)["layered"]) > 1e-5:
            problems.append(f"{row['file']}: {apart:.2g} from its twin")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("kind", FORMATS)
def test_folded_and_dequantised_twins_have_the_same_layers(kind: str, originals: Path, zoo: Path) -> None:
    problems = []
    for row in rows(originals, kind):
        if not row["twin"] or not row["max_abs_diff"]:
            continue
        twin = (zoo if row["twin_in"] == "zoo" else originals) / row["twin"]
        plans = []
        for path in (originals / row["file"], twin):
            with open_ref(expand(path)[0]) as checkpoint:
                plans.append(plan_weights(checkpoint))
        one, two = ([layer.shape for layer in plan.layers] for plan in plans)
        if one != two:
            order = "another order" if plans[0].topology == plans[1].topology else "other layers"
            problems.append(f"{row['file']}: {order}")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_read_says_what_to_do(kind: str, originals: Path) -> None:
    found = rows(originals, kind)
    assert found
    for row in found:
        with pytest.raises(RegistryError) as caught:
            open_ref(expand(originals / row["file"])[0])
        assert caught.value.remedy, row["file"]


def test_companions_lead_to_their_model(originals: Path) -> None:
    """Files of data beside an index, each taken for its model and not for one of its own."""
    with (originals / "manifest.jsonl").open() as file:
        lines = [line for line in map(json.loads, file) if line.get("part_of")]
    led = {line["file"]: line["part_of"] for line in lines if line["file"].endswith((".index", "-of-00001", ".meta"))}
    assert led
    for file, main in led.items():
        found = recognise(originals / file)
        assert found is not None, file
        assert found.main == originals / main, file
