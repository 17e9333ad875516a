"""ONNX models for tests, made with the library that defines the format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from registry.sources import expand, open_ref

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["graph_of", "model_of", "opened", "saved", "values"]


def values(*shape: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    """Numbers of a seed; integers from 0 to 99 of an integer dtype."""
    rng = np.random.default_rng(seed + sum(shape))
    if np.dtype(dtype).kind in "iu":
        return rng.integers(0, 99, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def graph_of(
    nodes: Sequence[onnx.NodeProto], tensors: Mapping[str, Any], outputs: Sequence[str] = ("y",)
) -> onnx.GraphProto:
    """A graph that takes ``x``."""
    stored = [
        v if isinstance(v, TensorProto) else numpy_helper.from_array(np.asarray(v), n) for n, v in tensors.items()
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    return helper.make_graph(list(nodes), "g", [x], ends, stored)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    tensors: Mapping[str, Any],
    *,
    outputs: Sequence[str] = ("y",),
    producer: str = "test",
    functions: Sequence[onnx.FunctionProto] = (),
    opset: int = 21,
) -> onnx.ModelProto:
    """A model of that graph."""
    domains = sorted({node.domain for node in nodes} | {"", *(f.domain for f in functions)})
    return helper.make_model(
        graph_of(nodes, tensors, outputs),
        producer_name=producer,
        functions=list(functions),
        opset_imports=[helper.make_opsetid(domain, 1 if domain else opset) for domain in domains],
    )


def saved(folder: Path, model: onnx.ModelProto, name: str = "m.onnx") -> Path:
    """The file of a model."""
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def opened(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a model by name, as they are read."""
    [ref] = expand(path)
    with open_ref(ref) as checkpoint:
        return {info.name: checkpoint.read(info.name) for info in checkpoint.tensors}
