"""Names of weights in ONNX models, as the framework that the model comes from would give them.

Exporters keep the names of some tensors and make up those of others (``onnx::MatMul_123``, ``523``, ``val_19``). What
the nodes are called tells the module then: ``/layer1/layer1.0/conv1/Conv`` of torch's older exporter, the scopes that
its newer one writes, ``StatefulPartitionedCall/model/conv2d/Conv2D`` of tf2onnx.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from registry.sources.formats.onnx.model import Node

__all__ = ["Names", "is_slashed", "label", "listed", "own_name", "sibling"]

_QUANTISED = re.compile(
    r"_(?:quantized|dequantized|QuantizeLinear(?:_Input|_Output)?|DequantizeLinear(?:_Input|_Output)?|Q4G?|Q8G?"
    r"|Bits|int8|uint8|Transposed)(?:_\d+)?$"
)
_DOTTED = re.compile(r"[A-Za-z_][\w\-]*(?:\.[\w\-]+)+")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z_\-]*(?:\d+[A-Za-z_\-]+)*")
_MADE_UP = re.compile(
    r".*__\d+_(?:weights|bias)_fused_bn|(?:.*_)?(?:output|Output|Constant|const|fold|value|new_shape|val|getitem|tensor_constant)\w*_?\d*"
)
_ENTRY = re.compile(r"(?:StatefulPartitionedCall(?:_\d+)?/|PartitionedCall(?:_\d+)?/)+")
_FUSED = re.compile(r"(?:_token_\d+)?(?:/\w*Fusion\w*/?)+(?:_token_\d+)?$")  # nodes that ONNX Runtime joined
_AGAIN = re.compile(r"(.*[A-Za-z])_\d+")


def own_name(name: str) -> str:
    """The name of a parameter that a tensor's name is, suffixes of quantisers taken off; empty of one made up."""
    for _ in range(4):
        shorter = _QUANTISED.sub("", name)
        if shorter == name:
            break
        name = shorter
    name = name.removeprefix("ConvBnFusion_W_")  # of ONNX Runtime, which makes a bias of the batch norm's
    if name.startswith("ConvBnFusion_"):
        return ""
    if name.endswith(".weight_bias"):  # of a batch norm that torch's exporter folded
        name = name.removesuffix("weight_bias") + "bias"
    if _DOTTED.fullmatch(name) or (_PLAIN.fullmatch(name) and not _MADE_UP.fullmatch(name)):
        return name
    return ""


def sibling(bias: str) -> str:
    """The weight beside a bias of torch's name: ``fc.bias``, ``attn.in_proj_bias``, ``rnn.bias_ih_l0``; else empty."""
    head, dot, last = bias.rpartition(".")
    if not dot or "bias" not in last:
        return ""
    return f"{head}.{last.replace('bias', 'weight', 1)}"


def is_slashed(module: str) -> bool:
    """Whether a module's name is one of TensorFlow."""
    return "/" in module


def listed(text: str) -> list[str]:
    """The names in a list of names as Python writes it; empty of anything else."""
    try:
        found = ast.literal_eval(text) if len(text) <= 4096 and text.count("[") == 1 else []
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return found if isinstance(found, list) and all(isinstance(part, str) for part in found) else []


class Names:
    """Names of modules by the nodes of one model.

    ``known``: names of its tensors that are those of parameters, which tell apart what a path leaves open.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self._paths: set[str] = set()
        for name in known:
            parts = name.split(".")
            for count in range(1, min(len(parts), 32)):
                self._paths.add(".".join(parts[:count]))

    def module(self, node: Node) -> str:
        """The path of the module that a node is in; empty if its names do not tell."""
        return self._of_scopes(node.scopes) if node.scopes else self.module_in(node.name)

    def module_in(self, name: str) -> str:
        """The path of the module that a node's name tells; empty if it does not."""
        name = _FUSED.sub("", name.removeprefix("fused "))
        if "/" not in name:
            return ""
        if name.startswith("/"):
            return self._of_path(name.strip("/").split("/")[:-1])
        path = _ENTRY.sub("", name.split(";")[0])
        head, slash, _ = path.rpartition("/")
        return head if slash else ""

    def _of_scopes(self, scopes: str) -> str:
        """The innermost module of torch.export's list of scopes, whose last entry is the operation itself."""
        return next((part for part in reversed(listed(scopes)[:-1]) if part), "")

    def _of_path(self, parts: list[str]) -> str:
        """A path of which each part that is a member of a sequence repeats the sequence: ``layer1/layer1.0/conv1``."""
        joined: list[str] = []
        for part in parts[:64]:
            again = _AGAIN.fullmatch(part)  # a module that is called a second time
            if again and ".".join([*joined, part]) not in self._paths and ".".join([*joined, again[1]]) in self._paths:
                part = again[1]
            if joined and part.startswith(joined[-1] + "."):
                nested = ".".join([*joined, part])
                if not any(nested == path or path.startswith(f"{nested}.") for path in self._paths):
                    joined.pop()
            joined.append(part)
        return ".".join(joined)


def label(node: Node, place: int) -> str:
    """A name for a node whose module is not known: its own if it is a word, else its operation and place."""
    match = re.fullmatch(r"[A-Za-z]\w{0,60}", node.name)
    operation = "Embedding" if node.op == "Gather" else node.op
    if match and node.op in node.name:
        return node.name.replace("Gather", "Embedding", 1)
    return f"{re.sub(r'[^A-Za-z0-9]', '', operation)[:60] or 'Node'}_{place}"
