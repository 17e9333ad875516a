"""OpenVINO models for tests, written by hand as the documentation of the format says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from xml.sax.saxutils import quoteattr

import numpy as np

from tests.sources.onnx_models import values

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Step", "const", "ir", "small_ir", "step"]

_KINDS = {"float32": "f32", "float16": "f16", "float64": "f64", "int8": "i8", "uint8": "u8", "int64": "i64"}


class Step(NamedTuple):
    """A layer: what it is, its name and settings, the numbers of the layers that it takes, and a constant's bytes."""

    op: str
    name: str
    settings: dict[str, str]
    takes: tuple[int, ...] = ()
    content: bytes = b""
    version: str = "opset1"


def const(array: np.ndarray, name: str = "", kind: str = "", shape: tuple[int, ...] | None = None) -> Step:
    """A constant; ``kind`` and ``shape`` where the array holds packed bytes."""
    kind = kind or _KINDS[array.dtype.name]
    text = ", ".join(map(str, array.shape if shape is None else shape))
    return Step("Const", name, {"element_type": kind, "shape": text}, content=array.tobytes())


def step(op: str, *takes: int, name: str = "", version: str = "opset1", **settings: Any) -> Step:
    """A layer that takes what others give."""
    return Step(op, name, {key: str(value) for key, value in settings.items()}, takes, version=version)


def ir(folder: Path, *steps: Step, stem: str = "net", version: int = 11) -> Path:
    """The ``.xml`` of a model with its ``.bin`` beside it. Layer 0 is the input; the last one gives the output."""
    weights = b""
    layers = ['<layer id="0" name="x" type="Parameter" version="opset1"><data shape="?" element_type="f32"/>'
              '<output><port id="0"/></output></layer>']  # fmt: skip
    edges = []
    for number, each in enumerate(steps, 1):
        settings = dict(each.settings)
        if each.op == "Const":
            settings |= {"offset": str(len(weights)), "size": str(len(each.content))}
            weights += each.content
        data = " ".join(f"{key}={quoteattr(value)}" for key, value in settings.items())
        ports = "".join(f'<port id="{port}"/>' for port in range(len(each.takes)))
        layers.append(
            f'<layer id="{number}" name={quoteattr(each.name or f"{each.op}_{number}")} type="{each.op}" '
            f'version="{each.version}"><data {data}/>'
            + (f"<input>{ports}</input>" if ports else "")
            + f'<output><port id="{len(each.takes)}"/></output></layer>'
        )
        edges += [
            f'<edge from-layer="{source}" from-port="{len(steps[source - 1].takes) if source else 0}" '
            f'to-layer="{number}" to-port="{port}"/>'
            for port, source in enumerate(each.takes)
        ]
    last = len(steps) + 1
    layers.append(
        f'<layer id="{last}" name="result" type="Result" version="opset1"><input><port id="0"/></input></layer>'
    )
    edges.append(f'<edge from-layer="{last - 1}" from-port="0" to-layer="{last}" to-port="0"/>')
    path = folder / f"{stem}.xml"
    path.write_text(
        f'<?xml version="1.0"?>\n<net name="m" version="{version}">\n<layers>\n' + "\n".join(layers)
        + "\n</layers>\n<edges>\n" + "\n".join(edges) + "\n</edges>\n<rt_info/>\n</net>\n"
    )  # fmt: skip
    path.with_suffix(".bin").write_bytes(weights)
    return path


def product(first: int, source: int, matrix: Sequence[Step], **settings: Any) -> list[Step]:
    """Steps from number ``first`` on that make a matrix, and its product with what ``source`` gives."""
    return [*matrix, step("MatMul", source, first + len(matrix) - 1, **({"transpose_b": "true"} | settings))]


def small_ir(folder: Path) -> Path:
    """A convolution, codes of eight and four bits, and a recurrent layer."""
    codes = values(4, 6, dtype=np.uint8)
    return ir(
        folder,
        const(values(6, 3, 3, 3), "self.conv.weight"),
        step("Convolution", 0, 1, name="__module.conv/aten::_convolution/Convolution"),
        const(codes, "self.fc.weight"),
        step("Convert", 3, destination_type="f32"),
        const(np.full((4, 1), 7, np.uint8)),
        step("Convert", 5, destination_type="f32"),
        step("Subtract", 4, 6),
        const(values(4, 1)),
        step("Multiply", 7, 8),
        step("MatMul", 2, 9, transpose_b="true", name="__module.fc/aten::linear/MatMul"),
        const(np.arange(6, dtype=np.uint8), "self.up.weight", "u4", (3, 4)),
        step("Convert", 11, destination_type="f32"),
        const(values(3, 1)),
        step("Multiply", 12, 13),
        step("MatMul", 10, 14, transpose_b="true", name="__module.up/aten::linear/MatMul"),
        const(values(1, 6, 3)),
        const(values(1, 6, 2)),
        const(values(1, 8)),
        step("GRUSequence", 15, 0, 0, 16, 17, 18, name="__module.gru/aten::gru/GRUSequence", hidden_size=2,
             linear_before_reset="true", direction="forward", version="opset5"),
    )  # fmt: skip
