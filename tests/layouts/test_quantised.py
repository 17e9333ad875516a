"""A quantised network is as far from its original as the format is, and no farther."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from registry.equivalence.calibration import shipped
from registry.sources import expand, open_module, open_ref
from registry.spectral.specs import SPECS
from tests.layouts.measured import distances, read
from tests.layouts.quantised_files import QUANTISED, write

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from tests.layouts.measured import Read

LARGEST_8_BITS = 0.05
"""Distance in ``layered`` that 8 bits may make."""


@pytest.fixture(scope="module")
def module() -> nn.Module:
    """A Llama of 21 layers of order 128 or more, its weights with heavy tails as training leaves them."""
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=128, num_attention_heads=4, num_key_value_heads=4, num_hidden_layers=3, intermediate_size=256,
        vocab_size=200, max_position_embeddings=40, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    made = transformers.LlamaForCausalLM(config).eval()
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 2:
                parameter.copy_(torch.from_numpy(0.02 * rng.standard_t(6, parameter.shape)))
    return made


@pytest.fixture(scope="module")
def live(module: nn.Module) -> Read:
    return read(open_module(module))


@pytest.mark.parametrize("layout", QUANTISED)
def test_a_quantised_network_is_what_its_library_reads(
    layout: str, module: nn.Module, live: Read, tmp_path: Path
) -> None:
    stored, plain = (read(open_ref(expand(folder)[0])) for folder in write(module, tmp_path, QUANTISED[layout]))
    shapes = [layer.shape for layer in live.plan.layers]
    assert [layer.shape for layer in stored.plan.layers] == [layer.shape for layer in plain.plan.layers] == shapes
    assert [layer.name for layer in stored.plan.layers] == [layer.name for layer in live.plan.layers]
    for one, two, layer in zip(stored.matrices, plain.matrices, stored.plan.layers, strict=True):
        np.testing.assert_allclose(one, two, rtol=2.0**-10, atol=0, err_msg=layer.name)
    assert max(distances(stored.measured, plain.measured).values()) < 2e-3
    assert (stored.plan.parameters, stored.plan.unread) == (live.plan.parameters, 0)
    assert stored.plan.precision.startswith(QUANTISED[layout].precision)
    assert stored.plan.content_hash not in (plain.plan.content_hash, live.plan.content_hash)


@pytest.mark.parametrize("layout", QUANTISED)
def test_the_distance_from_the_original_is_that_of_the_format(
    layout: str, module: nn.Module, live: Read, tmp_path: Path
) -> None:
    folder, _ = write(module, tmp_path, QUANTISED[layout])
    found = distances(live.measured, read(open_ref(expand(folder)[0])).measured)["layered"]
    calibration = shipped(SPECS["layered"], "l1")
    assert calibration is not None
    assert 0 < found < (LARGEST_8_BITS if QUANTISED[layout].bits == 8 else calibration.tolerance)
