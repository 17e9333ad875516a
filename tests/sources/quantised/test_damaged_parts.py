"""Parts of random shapes, dtypes, bytes and settings: read, or refused with one line."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
import torch

from registry.errors import RegistryError
from registry.sources.effective_weights import effective
from registry.sources.matrix_rule import layer_matrix, plan_weights
from registry.sources.quantised.bitsandbytes import _VALUES

Part = tuple[tuple[int, ...], torch.dtype]

GOOD: dict[str, dict[str, Part]] = {
    "gptq": {
        "qweight": ((8, 32), torch.int32),
        "qzeros": ((2, 4), torch.int32),
        "scales": ((2, 32), torch.float16),
        "g_idx": ((64,), torch.int32),
    },
    "awq": {"qweight": ((64, 4), torch.int32), "qzeros": ((2, 4), torch.int32), "scales": ((2, 32), torch.float16)},
    "mlx": {"weight": ((16, 8), torch.uint32), "scales": ((16, 1), torch.float16), "biases": ((16, 1), torch.float16)},
    "bitsandbytes 4": {
        "weight": ((512, 1), torch.uint8),
        "weight.absmax": ((16,), torch.uint8),
        "weight.quant_map": ((16,), torch.float32),
        "weight.nested_absmax": ((1,), torch.float32),
        "weight.nested_quant_map": ((256,), torch.float32),
    },
    "bitsandbytes 8": {
        "weight": ((16, 16), torch.int8),
        "SCB": ((16,), torch.float32),
        "weight_format": ((), torch.uint8),
    },
    "others": {
        "W_q": ((8, 8), torch.uint8),
        "scale": ((8, 1), torch.float16),
        "codes": ((8, 8, 1), torch.int16),
        "codebooks": ((1, 16, 1, 8), torch.float16),
        "trellis": ((1, 1, 64), torch.int16),
        "Qidxs": ((8, 8), torch.int64),
        "SU": ((8,), torch.float16),
        "SV": ((8,), torch.float16),
        "indices": ((1, 8, 8), torch.int32),
        "centroids.weight": ((1, 16), torch.float16),
    },
}
DTYPES = [torch.int32, torch.int8, torch.uint8, torch.uint32, torch.float16, torch.bfloat16, torch.int64, torch.bool]
EXTENTS = [0, 1, 2, 3, 4, 8, 16, 32, 64]
VALUES: list[Any] = [
    None,
    0,
    1,
    3,
    4,
    8,
    32,
    64,
    -1,
    -2,
    True,
    "gptq",
    "awq",
    "gemv",
    "x",
    [],
    {},
    1.5,
    10**40,
    "mxfp4",
]
KEYS = [
    *("quant_method", "bits", "group_size", "checkpoint_format", "version", "mode", "dynamic", "meta", "format", "h.0"),
    *("desc_act", "sym", "packing_format"),
]
STATE = {
    "quant_type": "nf4",
    "blocksize": 64,
    "dtype": "bfloat16",
    "shape": [32, 32],
    "nested_blocksize": 256,
    "nested_dtype": "float32",
    "nested_offset": 0.05,
}


def _part(rng: random.Random, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    count = int(np.prod(shape))
    data = np.frombuffer(rng.randbytes(count * torch.empty(0, dtype=dtype).element_size()), np.uint8).copy()
    if dtype.is_floating_point and rng.random() < 0.95:
        return torch.tensor([rng.random() for _ in range(count)], dtype=dtype).reshape(shape)
    if count == 0:
        return torch.zeros(shape, dtype=dtype)
    return torch.from_numpy(data & 1 if dtype == torch.bool else data).view(dtype).reshape(shape)


def _damaged(rng: random.Random, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    tensors = {"head.weight": torch.ones((8, 8))} if rng.random() < 0.5 else {}
    for name, (shape, dtype) in GOOD[kind].items():
        if rng.random() < 0.1:
            shape = tuple(rng.choice(EXTENTS) for _ in range(rng.choice([0, 1, 2, 2, 3])))
        if rng.random() < 0.1:
            dtype = rng.choice(DTYPES)
        if rng.random() < 0.95:
            tensors[f"h.0.{name}"] = _part(rng, shape, dtype)
    if kind == "bitsandbytes 4":
        state = dict(STATE)
        if rng.random() < 0.5:
            state[rng.choice(list(state))] = rng.choice([*VALUES, [1024], [1 << 31], [4, 4, 4], float("nan")])
        text = json.dumps(state).encode()[: rng.choice([None, None, 9])]
        tensors["h.0.weight.quant_map"] = torch.tensor(_VALUES["nf4"])
        tensors["h.0.weight.quant_state.bitsandbytes__nf4"] = torch.tensor(list(text), dtype=torch.uint8)
    settings = {key: rng.choice(VALUES) for key in KEYS if rng.random() < 0.1}
    return tensors, settings | ({"bits": 4, "group_size": 32} if rng.random() < 0.5 else {})


@pytest.mark.parametrize("kind", GOOD)
def test_damage_is_refused_with_one_line(stored: Any, kind: str) -> None:
    rng = random.Random(kind)
    read, messages = 0, []
    for _ in range(250):
        tensors, settings = _damaged(rng, kind)
        try:
            checkpoint = effective(stored(tensors, settings))
            for layer in plan_weights(checkpoint).layers:
                assert np.isfinite(layer_matrix(checkpoint, layer)).all()
            read += 1
        except RegistryError as error:
            messages.append(str(error))
    assert not [message for message in messages if "\n" in message or len(message) > 600]
    assert len(messages) > 20
    assert read > 0 or kind == "others"
