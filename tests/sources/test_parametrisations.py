"""Parametrised weights against the modules of torch that compute them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from registry.errors import WeightsError
from registry.sources import layer_matrix, open_module, plan_weights
from registry.sources.effective_weights import effective
from registry.sources.references import expand, open_ref

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from registry.types import Checkpoint

    Made = Callable[[nn.Module], nn.Module]

# The weight is computed in float64 here and in the module's own dtype there: some units in the last place of float32.
FLOAT32 = 4e-6
# torch rounds norms, sigma and weight to half precision, one after the other.
HALF = {torch.float16: 4e-3, torch.bfloat16: 3e-2}

LAYERS = {
    "linear": lambda: nn.Linear(12, 20),
    "square linear": lambda: nn.Linear(16, 16),
    "conv1d": lambda: nn.Conv1d(6, 10, 3),
    "conv2d": lambda: nn.Conv2d(8, 8, 3),
    "grouped conv2d": lambda: nn.Conv2d(8, 12, 3, groups=4),
    "conv transpose 1d": lambda: nn.ConvTranspose1d(6, 10, 4),
    "conv transpose 2d": lambda: nn.ConvTranspose2d(8, 8, 4),
}


def old_weight_norm(dim: int | None) -> Made:
    def made(layer: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return nn.utils.weight_norm(layer, dim=dim)

    return made


def old_spectral_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.spectral_norm(layer)


NORMS: dict[str, Made] = {
    "old weight norm, dim 0": old_weight_norm(0),
    "old weight norm, dim 1": old_weight_norm(1),
    "old weight norm, dim -1": old_weight_norm(-2),
    "old weight norm, whole": old_weight_norm(None),
    "weight norm, dim 0": parametrizations.weight_norm,
    "weight norm, dim 1": lambda layer: parametrizations.weight_norm(layer, dim=1),
    "weight norm, whole": lambda layer: parametrizations.weight_norm(layer, dim=None),
    "old spectral norm": old_spectral_norm,
    "spectral norm": parametrizations.spectral_norm,
    "spectral norm, dim 1": lambda layer: parametrizations.spectral_norm(layer, dim=1),
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.4),
    "pruned rows": lambda layer: prune.ln_structured(layer, "weight", 0.5, n=2, dim=0),
}


def as_used(model: nn.Module, layer: nn.Module, batch: torch.Tensor | None = None) -> torch.Tensor:
    """The weight in eval mode; the old norms set it before a forward pass."""
    model.eval()
    for hook in layer._forward_pre_hooks.values():
        hook(layer, batch)
    return layer.weight.detach()


def trained(layer: nn.Module) -> None:
    """Move each parameter, and let the power iterations of a spectral norm follow."""
    layer.train()
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.is_floating_point():
                parameter += 0.1 * torch.rand_like(parameter)
    for _ in range(3):
        for hook in layer._forward_pre_hooks.values():
            hook(layer, None)
        _ = layer.weight


def saved(model: nn.Module, path: Path) -> Checkpoint:
    torch.save(model.state_dict(), path)
    return open_ref(expand(path)[0])


def assert_weight(opened: Checkpoint, name: str, expected: torch.Tensor, bound: float) -> None:
    with opened:
        view = effective(opened).view
        tensor = view.tensors[name]
        assert tensor.shape == tuple(expected.shape)
        whole = tensor.read()
        assert np.abs(whole - expected.double().numpy()).max() <= bound * expected.abs().max().item()
        half = tensor.shape[0] // 2
        parts = np.concatenate([tensor.rows(0, half), tensor.rows(half, tensor.shape[0])])
        np.testing.assert_allclose(parts, whole, rtol=1e-6, atol=1e-7)
        plan = plan_weights(opened)
        assert [layer.tensor for layer in plan.layers] == [name]
        assert np.isfinite(layer_matrix(opened, plan.layers[0])).all()


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_and_a_mask_are_folded_as_torch_computes_them(norm: str, kind: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    layer = NORMS[norm](LAYERS[kind]())
    trained(layer)
    model = nn.Sequential(layer)
    expected = as_used(model, layer)
    assert_weight(open_module(model), "0.weight", expected, FLOAT32)
    assert_weight(saved(model, tmp_path / "model.pt"), "0.weight", expected, FLOAT32)
    with open_module(model) as live, saved(model, tmp_path / "again.pt") as file:
        plan = plan_weights(live)
        assert plan.content_hash == plan_weights(file).content_hash
        assert plan.parameters == sum(p.numel() for n, p in layer.named_parameters() if n == "bias") + expected.numel()


@pytest.mark.parametrize("norm", ["old weight norm, dim 0", "weight norm, dim 1", "spectral norm", "pruned"])
@pytest.mark.parametrize("dtype", HALF)
def test_norms_in_half_precision(norm: str, dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(6)
    layer = NORMS[norm](nn.Linear(24, 32))
    trained(layer)
    layer.to(dtype)
    model = nn.Sequential(layer)
    assert_weight(saved(model, tmp_path / "model.pt"), "0.weight", as_used(model, layer), HALF[dtype])


def test_the_weights_differ_from_the_stored_parts(tmp_path: Path) -> None:
    """Negative control: what is stored is far from the weight, so that the tests above can fail."""
    torch.manual_seed(5)
    for norm in NORMS:
        layer = NORMS[norm](nn.Linear(12, 20))
        trained(layer)
        expected = as_used(nn.Sequential(layer), layer)
        stored = [p for p in layer.parameters() if p.shape == expected.shape]
        assert all((p - expected).abs().max() > 100 * FLOAT32 for p in stored), norm


@pytest.mark.parametrize("shape", [(20, 12), (12, 20), (16, 16)])
@pytest.mark.parametrize("which", ["matrix_exp", "cayley", "householder", None])
@pytest.mark.parametrize("trivial", [True, False])
def test_an_orthogonal_map_of_a_live_module(
    shape: tuple[int, int], which: str | None, trivial: bool, tmp_path: Path
) -> None:
    torch.manual_seed(7)
    layer = parametrizations.orthogonal(nn.Linear(*shape), orthogonal_map=which, use_trivialization=trivial)
    with torch.no_grad():
        layer.parametrizations.weight.original += 0.05 * torch.randn(shape[::-1]).tril(-1)
    model = nn.Sequential(layer)
    expected = as_used(model, layer)
    assert_weight(open_module(model), "0.weight", expected, 2e-5)
    square = shape[0] == shape[1]
    if not trivial:
        with saved(model, tmp_path / "m.pt") as file, pytest.raises(WeightsError, match="not torch's") as refused:
            plan_weights(file)
        assert "remove_parametrizations" in str(refused.value)
    elif which is None or which == ("matrix_exp" if square else "householder"):
        assert_weight(saved(model, tmp_path / "m.pt"), "0.weight", expected, 2e-5)
    else:  # the map cannot be known, and its spectrum does not depend on it
        with saved(model, tmp_path / "m.pt") as file:
            plan = plan_weights(file)
            found = np.linalg.svd(layer_matrix(file, plan.layers[0]).astype(float), compute_uv=False)
            assert "orthogonal" in plan.notes[0]
        np.testing.assert_allclose(found, np.linalg.svd(expected.double().numpy(), compute_uv=False), atol=2e-5)


def test_an_orthogonal_map_of_a_convolution_is_computed_alive_and_refused_from_a_file(tmp_path: Path) -> None:
    layer = parametrizations.orthogonal(nn.Conv2d(8, 8, 5))
    with torch.no_grad():
        layer.parametrizations.weight.original += 0.05 * torch.randn(8, 8, 5, 5).tril(-1)
    model = nn.Sequential(layer)
    assert_weight(open_module(model), "0.weight", as_used(model, layer), 2e-5)
    with saved(model, tmp_path / "m.pt") as file, pytest.raises(WeightsError, match="remove_parametrizations"):
        plan_weights(file)


def test_recurrent_weights_and_pruned_parts_of_a_norm(tmp_path: Path) -> None:
    torch.manual_seed(8)
    layer = old_weight_norm(0)(nn.Linear(12, 20))
    prune.l1_unstructured(layer, "weight_v", 0.3)
    lstm = nn.LSTM(6, 8)
    prune.l1_unstructured(lstm, "weight_hh_l0", 0.3)
    parametrizations.weight_norm(lstm, "weight_ih_l0")
    model = nn.ModuleDict({"linear": layer, "lstm": lstm})
    for hook in list(layer._forward_pre_hooks.values())[::-1]:
        hook(layer, None)
    as_used(model, layer)
    with saved(model, tmp_path / "m.pt") as file:
        view = effective(file).view
        np.testing.assert_allclose(view.tensors["lstm.weight_hh_l0"].read(), lstm.weight_hh_l0.detach(), rtol=0, atol=0)
        np.testing.assert_allclose(
            view.tensors["lstm.weight_ih_l0"].read(), lstm.weight_ih_l0.detach(), rtol=1e-5, atol=1e-6
        )
        weight_v, weight_g = layer.weight_v.detach(), layer.weight_g.detach()
        expected = weight_v / weight_v.norm(dim=1, keepdim=True) * weight_g
        np.testing.assert_allclose(view.tensors["linear.weight"].read(), expected, rtol=1e-5, atol=1e-6)
        assert len(plan_weights(file).layers) == 9  # a linear layer, and twice four gates


class Symmetric(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.triu() + x.triu(1).mT


class TwoParts(nn.Module):
    def forward(self, length: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
        return length * direction

    def right_inverse(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.ones(x.shape[0], 1), x


def test_parametrisations_of_user_classes_are_refused_by_name(tmp_path: Path) -> None:
    layer = nn.Linear(16, 16)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    chain = nn.Linear(16, 16)
    parametrizations.orthogonal(chain)
    parametrize.register_parametrization(chain, "weight", Symmetric())
    model = nn.Sequential(layer, nn.Linear(16, 16))
    for opened in (open_module(model), saved(model, tmp_path / "m.pt"), open_module(nn.Sequential(chain))):
        with opened, pytest.raises(WeightsError, match=r"parametrisation.*0\.weight") as refused:
            plan_weights(opened)
        assert "remove_parametrizations" in str(refused.value)
        assert "\n" not in str(refused.value)
    layer = nn.Linear(16, 16)
    parametrize.register_parametrization(layer, "weight", TwoParts())
    with open_module(nn.Sequential(layer)) as opened, pytest.raises(WeightsError, match="parametrisation"):
        plan_weights(opened)


def test_a_vector_under_an_unknown_parametrisation_refuses_nothing() -> None:
    layer = nn.Linear(16, 16)
    parametrize.register_parametrization(layer, "bias", nn.Softplus(), unsafe=True)
    with open_module(nn.Sequential(layer)) as opened:
        assert [each.name for each in plan_weights(opened).layers] == ["0.weight"]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"a.weight_g": (3, 1), "a.weight_v": (4, 6)}, "a.weight_g .*does not fit a.weight_v"),
        ({"a.weight_g": (4, 6), "a.weight_v": (4, 6)}, "does not fit"),
        ({"a.weight_orig": (4, 6), "a.weight_mask": (6, 4)}, "a.weight_mask .*does not fit"),
        ({"a.weight_orig": (4, 6), "a.weight_u": (5,), "a.weight_v": (6,)}, "does not fit a.weight_orig"),
        ({"a.weight_orig": (4, 6), "a.weight_u": (4,)}, "not torch's"),
        ({"a.weight_bar": (4, 6), "a.weight_u": (4,), "a.weight_v": (6,)}, "not torch's"),
        ({"a.parametrizations.weight.original": (4, 4), "a.parametrizations.weight.0.base": (3, 3)}, "does not fit"),
        ({"a.parametrizations.weight.original0": (4, 4), "a.parametrizations.weight.original1": (4, 6)}, "not torch's"),
    ],
)
def test_parts_that_contradict_are_one_line(state: dict[str, tuple[int, ...]], words: str) -> None:
    with (
        open_module({name: torch.randn(shape) for name, shape in state.items()}) as opened,
        pytest.raises(WeightsError, match=words) as refused,
    ):
        plan_weights(opened)
    assert "\n" not in str(refused.value)


def test_a_spectral_norm_of_zero_and_one_of_unsettled_vectors_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(9)
    state = {"a.weight_orig": torch.randn(4, 6), "a.weight_u": torch.zeros(4), "a.weight_v": torch.ones(6)}
    with open_module(state) as opened, pytest.raises(WeightsError, match=r"spectral norm of a\.weight_orig is 0"):
        layer_matrix(opened, plan_weights(opened).layers[0])
    model = nn.Sequential(old_spectral_norm(nn.Conv2d(16, 16, 3)))  # which no batch has passed
    with saved(model, tmp_path / "m.pt") as opened, pytest.raises(WeightsError, match="axis of the spectral norm"):
        layer_matrix(opened, plan_weights(opened).layers[0])
    assert_weight(open_module(model), "0.weight", as_used(model, model[0]), FLOAT32)


def test_other_tensors_of_these_names_are_left_alone() -> None:
    """Negative control: a gate and a value, and running statistics under ``_u``."""
    state = {"a.proj_g": torch.randn(4, 6), "a.proj_v": torch.randn(4, 6), "b_mask": torch.ones(3, 3)}
    with open_module(state) as opened:
        assert [layer.name for layer in plan_weights(opened).layers] == ["a.proj_g", "a.proj_v"]


def test_the_spectral_norm_before_torch_1_has_the_weight_as_a_buffer() -> None:
    weight = torch.randn(4, 6)
    state = {"a.weight_orig": 3 * weight, "a.weight": weight, "a.weight_u": torch.randn(4)}
    with open_module(state) as opened:
        plan = plan_weights(opened)
        assert [layer.name for layer in plan.layers] == ["a.weight"]
        np.testing.assert_array_equal(layer_matrix(opened, plan.layers[0]), weight)
