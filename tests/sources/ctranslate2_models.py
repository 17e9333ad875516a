"""Files of CTranslate2 for tests, written by hand as ``specs/model_spec.py`` does."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from tests.sources.onnx_models import values

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["model_bin", "small_ctranslate2"]

_TYPES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


def _text(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def model_bin(
    folder: Path, variables: Mapping[str, np.ndarray], aliases: Mapping[str, str] | None = None, *, version: int = 6
) -> Path:
    """A ``model.bin`` of these variables and aliases, in the order of their names."""
    content = struct.pack("<I", version) + _text("TransformerSpec") + struct.pack("<2I", 7, len(variables))
    for name, array in sorted(variables.items()):
        content += _text(name) + struct.pack("<B", array.ndim) + struct.pack(f"<{array.ndim}I", *array.shape)
        content += struct.pack("<BI", _TYPES[array.dtype.name], array.nbytes) + array.tobytes()
    content += struct.pack("<I", len(aliases or {}))
    content += b"".join(_text(name) + _text(other) for name, other in (aliases or {}).items())
    path = folder / "model.bin"
    path.write_bytes(content)
    return path


def small_ctranslate2(folder: Path) -> Path:
    """A layer of a decoder with codes of 8 and 16 bits, a setting, a text and an alias."""
    layer = "decoder/layer_0"
    return model_bin(
        folder,
        {
            "decoder/embeddings/weight": values(9, 6), "decoder/num_heads": np.array(2, np.int16),
            "decoder/words": np.frombuffer(b"words", np.int8),
            f"{layer}/self_attention/linear_0/weight": values(10, 6, dtype=np.int8),
            f"{layer}/self_attention/linear_0/weight_scale": np.abs(values(10)) + 1,
            f"{layer}/self_attention/linear_0/bias": values(10),
            f"{layer}/self_attention/linear_1/weight": values(6, 6),
            f"{layer}/attention/linear_0/weight": values(6, 6, seed=1),
            f"{layer}/attention/linear_1/weight": values(12, 6),
            f"{layer}/attention/linear_2/weight": values(6, 6, seed=2),
            f"{layer}/ffn/linear_0/weight": values(8, 6, dtype=np.int16),
            f"{layer}/ffn/linear_0/weight_scale": np.array(64, np.float32),
            f"{layer}/ffn/linear_1/weight": values(6, 8), f"{layer}/ffn/layer_norm/gamma": values(6),
        },
        {"decoder/projection/weight": "decoder/embeddings/weight",
         f"{layer}/self_attention/layer_norm/gamma": f"{layer}/ffn/layer_norm/gamma"},
    )  # fmt: skip
