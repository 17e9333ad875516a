"""Experts in one tensor and experts apart are one network."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from registry.errors import WeightsError
from registry.sources import expand, layer_matrix, open_ref, plan_weights
from tests.layouts.spying import Known, arrays_of
from tests.layouts.test_fused import BASE, scrambled
from tests.sources.conftest import ArrayCheckpoint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from registry.types import Checkpoint, WeightsPlan

MISSING = [name for name in ("transformers",) if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING) and not os.environ.get("CI"), reason=f"not installed: {MISSING}")

RNG = np.random.default_rng(14)
ROUTED = {**BASE, "num_key_value_heads": 2, "head_dim": 8}
FEW = {"num_experts_per_tok": 2}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("Mixtral", {**ROUTED, **FEW, "num_local_experts": 3}),
    "qwen2_moe": ("Qwen2Moe", {**ROUTED, **FEW, "num_experts": 3, "moe_intermediate_size": 24}),
    "qwen3_moe": ("Qwen3Moe", {**ROUTED, **FEW, "num_experts": 3, "moe_intermediate_size": 16}),
    "gpt_oss": ("GptOss", {**ROUTED, **FEW, "num_local_experts": 3}),
    "llama4": ("Llama4", {**ROUTED, **FEW, "num_local_experts": 3, "intermediate_size_mlp": 40}),
    "granitemoe": ("GraniteMoe", {**BASE, **FEW, "num_key_value_heads": 2, "num_local_experts": 3}),
    "phimoe": ("Phimoe", {**BASE, **FEW, "num_key_value_heads": 2, "num_local_experts": 3}),
    "olmoe": ("Olmoe", {**BASE, **FEW, "num_key_value_heads": 2, "num_experts": 3}),
    "dbrx": ("Dbrx", {
        "d_model": 32, "n_heads": 4, "n_layers": 1, "vocab_size": 50,
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4},
        "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 3, "moe_top_k": 2},
    }),
    "jetmoe": ("JetMoe", {**BASE, **FEW, "kv_channels": 8, "num_key_value_heads": 2, "num_local_experts": 3}),
}  # fmt: skip
SQUARE = {"intermediate_size": 32, "moe_intermediate_size": 16}
"""Sizes that make one of the stacks of every model square."""


def build(name: str, **changed: Any) -> tuple[nn.Module, Any]:
    transformers = pytest.importorskip("transformers")
    kind, settings = MODELS[name]
    if name == "dbrx":
        changed = {}
    settings = {**settings, **{key: value for key, value in changed.items() if key in settings}}
    if kind == "Llama4":
        config = transformers.Llama4TextConfig(**settings)
        return scrambled(transformers.Llama4ForCausalLM(config)), config
    config = getattr(transformers, f"{kind}Config")(**settings)
    return scrambled(getattr(transformers, f"{kind}ForCausalLM")(config)), config


def read(checkpoint: Checkpoint) -> tuple[WeightsPlan, list[np.ndarray]]:
    plan = plan_weights(checkpoint)
    return plan, [layer_matrix(checkpoint, layer) for layer in plan.layers]


def check_equal(one: Checkpoint, two: Checkpoint) -> WeightsPlan:
    (a, ours), (b, theirs) = read(one), read(two)
    assert [layer.shape for layer in a.layers] == [layer.shape for layer in b.layers]
    for this, that, layer in zip(ours, theirs, a.layers, strict=True):
        np.testing.assert_array_equal(this, that, err_msg=layer.name)
    assert (a.topology, a.parameters) == (b.topology, b.parameters)
    return a


def experts(plan: WeightsPlan) -> list[str]:
    return [layer.name for layer in plan.layers if ".experts." in layer.name]


@pytest.mark.parametrize("square", [False, True], ids=["", "square"])
@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_and_its_state_dict_are_one(name: str, square: bool, tmp_path: Path) -> None:
    module, config = build(name, **(SQUARE if square else {}))
    module.save_pretrained(tmp_path)
    memory = Known(arrays_of(module), config.to_dict())
    [ref] = expand(tmp_path)
    with open_ref(ref) as saved:
        disk = Known({info.name: saved.read(info.name) for info in saved.tensors}, config.to_dict())
    plan = check_equal(memory, disk)
    assert not plan.unread
    if name == "jetmoe":
        assert len(experts(plan)) == 3 * 3 + 3 * 2 + 1  # of the MLP; of attention, and its router
        return
    assert [name.rsplit("experts.", 1)[1] for name in experts(plan)] == [
        f"{expert}.{role}_proj.weight" for expert in range(3) for role in ("gate", "up", "down")
    ]
    if name not in ("gpt_oss", "llama4", "dbrx"):  # whose layout the model type tells
        bare = plan_weights(ArrayCheckpoint(arrays_of(module)))
        assert [layer for layer in bare.layers if ".experts." in layer.name] == [
            layer for layer in plan.layers if ".experts." in layer.name
        ]


@pytest.mark.parametrize("square", [False, True], ids=["", "square"])
@pytest.mark.parametrize("name", [name for name in MODELS if name != "jetmoe"])
def test_the_matrices_compute_what_the_module_does(name: str, square: bool) -> None:
    module, config = build(name, **(SQUARE if square else {}))
    module = module.float()
    for parameter_name, parameter in module.named_parameters():
        if parameter_name.endswith("_bias"):
            parameter.data.zero_()
    checkpoint = Known(arrays_of(module), config.to_dict())
    matrices = {
        layer.name.rsplit("experts.", 1)[1]: torch.from_numpy(layer_matrix(checkpoint, layer))
        for layer in plan_weights(checkpoint).layers
        if ".experts." in layer.name
    }
    block = next(m for n, m in module.named_modules() if n.endswith("experts") and any(True for _ in m.parameters()))
    x = torch.randn(4, 32, dtype=torch.float32)
    with torch.no_grad():
        for expert in range(3):
            gate, up, down = (matrices[f"{expert}.{role}_proj.weight"] for role in ("gate", "up", "down"))
            g, u = x @ gate.T, x @ up.T
            if name == "gpt_oss":
                hidden = (u.clamp(-7, 7) + 1) * (g.clamp(max=7) * torch.sigmoid(1.702 * g.clamp(max=7)))
            else:
                hidden = torch.nn.functional.silu(g) * u
            if name == "llama4":
                every = torch.zeros(3, 4, 32, dtype=torch.float32)
                every[expert] = x
                expected = block(every.reshape(-1, 32)).reshape(3, 4, 32)[expert]
            else:
                chosen = torch.full((4, 1), expert)
                expected = block(x, chosen, torch.ones(4, 1, dtype=torch.float32))
            assert torch.allclose(hidden @ down.T, expected.reshape(4, 32), rtol=1e-4, atol=1e-4)


def apart(count: int = 3, width: int = 8, inner: int = 6) -> dict[str, np.ndarray]:
    """Experts apart, as Mixtral's successors name them."""
    shapes = {"gate_proj": (inner, width), "up_proj": (inner, width), "down_proj": (width, inner)}
    return {
        f"layers.0.mlp.experts.{expert}.{role}.weight": RNG.standard_normal(shape).astype(np.float32)
        for expert in range(count)
        for role, shape in shapes.items()
    }


def stacked(arrays: Mapping[str, np.ndarray], role: str, *, turned: bool = False) -> np.ndarray:
    found = [array.T if turned else array for name, array in arrays.items() if f".{role}." in name]
    return np.stack(found)


def router(count: int = 3, width: int = 8) -> dict[str, np.ndarray]:
    return {"layers.0.mlp.router.weight": RNG.standard_normal((count, width)).astype(np.float32)}


def layouts(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]]:
    """The same experts as other libraries store them, and the configuration that tells the layout where needed."""
    gate, up, down = (stacked(arrays, role) for role in ("gate_proj", "up_proj", "down_proj"))
    turned = [stacked(arrays, role, turned=True) for role in ("gate_proj", "up_proj", "down_proj")]
    halves, turned_halves = np.concatenate([gate, up], axis=1), np.concatenate(turned[:2], axis=2)
    alternating = np.stack([gate, up], axis=2).reshape(halves.shape)
    at = "layers.0.mlp."
    return {
        "transformers": ({f"{at}experts.gate_up_proj": halves, f"{at}experts.down_proj": down}, {}),
        "llama4": (
            {f"{at}experts.gate_up_proj": turned_halves, f"{at}experts.down_proj": turned[2]},
            {"model_type": "llama4_text"},
        ),
        "gpt-oss": (
            {f"{at}experts.gate_up_proj": alternating.swapaxes(1, 2), f"{at}experts.down_proj": turned[2]},
            {"model_type": "gpt_oss"},
        ),
        "gpt-oss dequantised": (
            {f"{at}experts.gate_up_proj": alternating, f"{at}experts.down_proj": down},
            {"model_type": "gpt_oss"},
        ),
        "gpt-oss of OpenAI": ({f"{at}mlp1_weight": alternating, f"{at}mlp2_weight": down}, {}),
        "mlx": (
            {f"{at}switch_mlp.gate_proj.weight": gate, f"{at}switch_mlp.up_proj.weight": up,
             f"{at}switch_mlp.down_proj.weight": down}, {},
        ),
        "granite": ({f"{at}input_linear.weight": halves, f"{at}output_linear.weight": down}, {}),
        "vllm": ({f"{at}experts.w13_weight": halves, f"{at}experts.w2_weight": down}, {}),
        "aria": (
            {f"{at}experts.fc1.weight": turned_halves, f"{at}experts.fc2.weight": turned[2]},
            {"model_type": "aria", "text_config": {"model_type": "aria_text", "moe_num_experts": 3}},
        ),
        "inkling": (
            {f"{at}experts.w13_weight": alternating, f"{at}experts.w2_weight": down},
            {"model_type": "inkling_mm_model"},
        ),
        "inputs first": (
            {f"{at}experts.gate_proj": turned[0], f"{at}experts.up_proj": turned[1],
             f"{at}experts.down_proj": turned[2]}, {},
        ),
        "dbrx": (
            {f"{at}experts.mlp.w1": gate.reshape(-1, gate.shape[2]), f"{at}experts.mlp.v1": up.reshape(-1, up.shape[2]),
             f"{at}experts.mlp.w2": turned[2].reshape(-1, down.shape[1])}, {},
        ),
        "llama4 of Meta": (
            {f"{at}experts.moe_w_in_eD_F": turned[0].reshape(-1, gate.shape[1]),
             f"{at}experts.moe_w_swiglu_eD_F": turned[1].reshape(-1, gate.shape[1]),
             f"{at}experts.moe_w_out_eF_D": turned[2].reshape(-1, down.shape[1])}, {},
        ),
        "mixtral": (
            {name.replace("gate_proj", "w1").replace("up_proj", "w3").replace("down_proj", "w2"): array
             for name, array in arrays.items()}, {},
        ),
    }  # fmt: skip


ALL = layouts(apart())


@pytest.mark.parametrize("layout", ALL)
@pytest.mark.parametrize(("width", "inner"), [(8, 6), (8, 4), (8, 16), (8, 8)])
def test_every_layout_gives_the_experts_apart(layout: str, width: int, inner: int) -> None:
    arrays = {**apart(3, width, inner)}
    rest = router(3, width)
    made, config = layouts(arrays)[layout]
    if layout == "inputs first" and width == inner:
        with pytest.raises(WeightsError, match="experts in an unknown layout"):
            plan_weights(Known({**made, **rest}, config))
        return
    check_equal(Known({**arrays, **rest}), Known({**made, **rest}, config))


@pytest.mark.parametrize(("width", "inner"), [(8, 6), (8, 8)])
@pytest.mark.parametrize(("turned", "kind"), [(False, "nemotron_h"), (True, "gpt_oss")])
def test_experts_without_a_gate(width: int, inner: int, turned: bool, kind: str) -> None:
    arrays = {name: array for name, array in apart(3, width, inner).items() if "gate" not in name}
    made = {f"layers.0.mlp.experts.{role}": stacked(arrays, role, turned=turned) for role in ("up_proj", "down_proj")}
    rest = router(3, width)
    check_equal(Known({**arrays, **rest}), Known({**made, **rest}, {"model_type": kind}))


@pytest.mark.parametrize("layout", ["transformers", "llama4", "gpt-oss", "mlx", "dbrx"])
def test_a_separator_of_slashes_does_not_matter(layout: str) -> None:
    arrays, rest = apart(), router()
    made, config = layouts(arrays)[layout]
    slashed = {name.replace(".", "/"): array for name, array in {**made, **rest}.items()}
    check_equal(Known({**arrays, **rest}), Known(slashed, config))


def test_only_the_bytes_of_an_expert_are_read() -> None:
    made, _ = layouts(apart())["transformers"]
    spans: list[tuple[str, int, int]] = []

    class Watched(ArrayCheckpoint):
        def span(self, name: str, start: int, stop: int) -> memoryview:
            spans.append((name, start, stop))
            return self.raw(name)[start:stop]

        def bytes_of(self, name: str) -> int:
            return len(self.raw(name))

    checkpoint = Watched(made)
    layers = plan_weights(checkpoint).layers
    spans.clear()
    layer_matrix(checkpoint, next(layer for layer in layers if layer.name.endswith("experts.1.up_proj.weight")))
    size = 12 * 8 * 4
    assert spans == [("layers.0.mlp.experts.gate_up_proj", size, 2 * size)]


def test_equal_experts_of_one_stack_are_not_tied_and_equal_stacks_are() -> None:
    one = apart(1)
    gate, up, down = (
        np.concatenate([array, array[::1]])
        for array in (stacked(one, r) for r in ("gate_proj", "up_proj", "down_proj"))
    )
    both = np.concatenate([gate, up], axis=1)
    arrays = {
        f"layers.{i}.mlp.experts.{own}": value
        for i in range(2)
        for own, value in (("gate_up_proj", both), ("down_proj", down))
    }
    plan = plan_weights(ArrayCheckpoint({**arrays, **router(2)}))
    assert len(experts(plan)) == 6
    assert sum(skipped.reason.startswith("tied to layers.0") for skipped in plan.skipped) == 6


def test_what_alternates_or_not_is_not_guessed() -> None:
    made, _ = layouts(apart())["llama4"]
    plan = plan_weights(Known({**made, **router()}, {"model_type": "someones"}))
    assert [(layer.name.split("experts.")[1], layer.shape) for layer in plan.layers if ".experts." in layer.name] == [
        pair for i in range(3) for pair in ((f"{i}.gate_up_proj.weight", (12, 8)), (f"{i}.down_proj.weight", (8, 6)))
    ]


@pytest.mark.parametrize(
    ("changes", "config", "message"),
    [
        ({"experts.down_proj": (2, 8, 6)}, {}, "holds 3 experts, and layers.0.mlp.experts.down_proj 2"),
        ({}, {"num_experts": 4}, "holds 3 experts, and its configuration says 4"),
        ({}, {"text_config": {"num_local_experts": 60}}, "holds 3 experts, and its configuration says 60"),
        ({"experts.down_proj": (3, 8, 7)}, {}, "experts in an unknown layout"),
        ({"experts.down_proj": (3, 9, 6)}, {}, "experts in an unknown layout"),
        ({"experts.up_proj": (3, 6, 8)}, {}, "experts in an unknown layout"),
        ({"experts.1.gate_proj.weight": (6, 8)}, {}, "experts.1.gate_proj.weight is one of them too"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(changes: dict[str, tuple[int, ...]], config: dict[str, Any], message: str) -> None:
    arrays, _ = layouts(apart())["transformers"]
    for name, shape in changes.items():
        arrays[f"layers.0.mlp.{name}"] = RNG.standard_normal(shape).astype(np.float32)
    with pytest.raises(WeightsError, match=message) as caught:
        plan_weights(Known({**arrays, **router()}, config))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [0, 7])
def test_experts_of_unknown_number_are_refused(count: int) -> None:
    made, _ = layouts(apart())["dbrx"]
    rest = {"layers.0.mlp.router.layer.weight": RNG.standard_normal((count, 8)).astype(np.float32)} if count else {}
    with pytest.raises(WeightsError, match="unknown number" if not count else "cannot be that of 7 experts"):
        plan_weights(ArrayCheckpoint({**made, **rest}))


def test_experts_of_different_sizes_apart_are_refused() -> None:
    arrays = {
        **apart(2),
        **{name.replace("experts.", "experts.1"): array for name, array in apart(2, inner=5).items()},
    }
    with pytest.raises(
        WeightsError, match=r"experts of one layer differ in shape: .*experts\.0\..*experts\.10\."
    ) as error:
        plan_weights(ArrayCheckpoint(arrays))
    assert "save it again" in error.value.remedy
    other = {name.replace("gate_proj", "net").replace("up_proj", "body").replace("down_proj", "end"): array
             for name, array in arrays.items()}  # fmt: skip
    assert len(plan_weights(ArrayCheckpoint(other)).layers) == 12  # different networks under one roof


def test_shared_experts_and_dense_layers_beside_them_stay() -> None:
    arrays = {**layouts(apart())["transformers"][0], **router()}
    arrays["layers.0.mlp.shared_experts.gate_proj.weight"] = RNG.standard_normal((6, 8))
    arrays["layers.0.mlp.experts.gate_up_proj_bias"] = RNG.standard_normal((3, 12))
    names = [layer.name for layer in plan_weights(ArrayCheckpoint(arrays)).layers]
    assert "layers.0.mlp.shared_experts.gate_proj.weight" in names
    assert not any("bias" in name for name in names)


@pytest.mark.parametrize("name", ["batched_linear", "GroupedLinear", "parallel_fc1", "ensemble_dense"])
@pytest.mark.parametrize(("shape", "bias", "turned"), [
    ((3, 5, 4), (3, 5), False), ((3, 4, 5), (3, 1, 5), True), ((3, 4, 5), (3, 5), True),
])  # fmt: skip
def test_kernels_of_batched_linear_layers(
    name: str, shape: tuple[int, ...], bias: tuple[int, ...], turned: bool
) -> None:
    weight = RNG.standard_normal(shape).astype(np.float32)
    checkpoint = ArrayCheckpoint(
        {f"net.{name}.weight": weight, f"net.{name}.bias": RNG.standard_normal(bias).astype(np.float32)}
    )
    plan, matrices = read(checkpoint)
    assert [(layer.name, layer.shape) for layer in plan.layers] == [
        (f"net.{name}.{i}.weight", (5, 4)) for i in range(3)
    ]
    for i, matrix in enumerate(matrices):
        np.testing.assert_array_equal(matrix, weight[i].T if turned else weight[i])


@pytest.mark.parametrize(("shape", "bias"), [((3, 5, 5), (3, 5)), ((3, 5, 4), (3,)), ((3, 5, 4), (3, 6))])
def test_other_tensors_with_three_axes_stay_convolutions(shape: tuple[int, ...], bias: tuple[int, ...]) -> None:
    arrays = {
        "net.batched_linear.weight": RNG.standard_normal(shape),
        "net.batched_linear.bias": RNG.standard_normal(bias),
    }
    assert [layer.shape for layer in plan_weights(ArrayCheckpoint(arrays)).layers] == [shape]
