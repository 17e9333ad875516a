"""Write ``reference.npz``: packed layers, and the weights that GPTQModel and AutoAWQ read from them.

The file that is kept was written with gptqmodel 7.7.0 and autoawq 0.2.9, which take longer to import than all tests of
this folder to run. To write it again, install both and run ``.venv/bin/python -m
tests.sources.quantised.make_reference``.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

REFERENCE = Path(__file__).with_name("reference.npz")
INPUTS, OUTPUTS = 128, 32


def gptq_layers() -> dict[str, np.ndarray]:
    """Random words by ``gptq/BITS/GROUP``, and their weights in versions 1 and 2. Every code and every zero occurs."""
    import torch
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module

    rng = np.random.default_rng(14)
    made = {}
    for bits, group in ((2, 32), (3, 32), (4, 32), (8, 32), (4, INPUTS)):
        groups = INPUTS // group
        parts = {
            "qweight": rng.integers(-(2**31), 2**31, (INPUTS * bits // 32, OUTPUTS), dtype=np.int32),
            "qzeros": rng.integers(-(2**31), 2**31, (groups, OUTPUTS * bits // 32), dtype=np.int32),
            "scales": rng.uniform(0.001, 0.02, (groups, OUTPUTS)).astype(np.float16),
            "g_idx": rng.permutation(np.arange(INPUTS) // group).astype(np.int32),
        }
        for version in (2, 1):
            module = TorchLinear(
                bits=bits, group_size=group, sym=False, desc_act=True, in_features=INPUTS, out_features=OUTPUTS
            ).eval()
            for name, part in parts.items():
                setattr(module, name, torch.from_numpy(part.copy()))
            if version == 1:
                convert_gptq_v1_to_v2_format_module(module, bits, torch.int32)
            made[f"gptq/{bits}/{group}/weight{version}"] = TorchLinear.dequantize_weight(module).numpy().T
        made |= {f"gptq/{bits}/{group}/{name}": part for name, part in parts.items()}
    return made


def awq_layers() -> dict[str, np.ndarray]:
    """``awq/gemm/GROUP``: random words, unpacked by AutoAWQ. ``awq/gemv/GROUP``: weights, packed by AutoAWQ."""
    import torch
    from awq.modules.linear.gemv import WQLinear_GEMV
    from awq.utils.packing_utils import dequantize_gemm

    rng = np.random.default_rng(41)
    made = {}
    for group in (32, 64, 128):
        groups = INPUTS // group
        parts = {
            "qweight": rng.integers(-(2**31), 2**31, (INPUTS, OUTPUTS // 8), dtype=np.int32),
            "qzeros": rng.integers(-(2**31), 2**31, (groups, OUTPUTS // 8), dtype=np.int32),
            "scales": rng.uniform(0.001, 0.02, (groups, OUTPUTS)).astype(np.float16),
        }
        stored = [torch.from_numpy(part) for part in parts.values()]
        made |= {f"awq/gemm/{group}/{name}": part for name, part in parts.items()}
        made[f"awq/gemm/{group}/weight"] = dequantize_gemm(*stored, 4, group).numpy().T
        codes, zeros = rng.integers(0, 16, (OUTPUTS, INPUTS)), rng.integers(0, 16, (OUTPUTS, groups))
        scales = torch.from_numpy(rng.uniform(0.001, 0.02, (OUTPUTS, groups)).astype(np.float16))
        linear = torch.nn.Linear(INPUTS, OUTPUTS, bias=False)
        dense = (codes - zeros.repeat(group, 1)) * scales.float().numpy().repeat(group, 1)
        linear.weight.data = torch.from_numpy(dense)
        packed = WQLinear_GEMV.from_linear(linear, 4, group, scales=scales.float(), zeros=torch.from_numpy(zeros))
        made |= {f"awq/gemv/{group}/{name}": packed.state_dict()[name].numpy() for name in parts}
        made[f"awq/gemv/{group}/weight"] = dense.astype(np.float16)
    return made


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    np.savez_compressed(REFERENCE, **gptq_layers(), **awq_layers())
