"""Canonical depth order of layers from tensor names and shapes.

The order of tensors in a file is not reliable (safetensors keeps none), so depth is derived from the tree of name
parts. The children of each node are sorted by the role that their name indicates, then by the numbers in them, then in
natural order. The result depends on the set of names and shapes, not on their order.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from registry.sources.module_roles import BODY, DENSE, DOWNSAMPLE, FLAX_GATES, GATE, HEAD, STEM, Part, parse_part

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["depth_order"]

_SEPARATORS = re.compile(r"[./:]")
# Models of images or sounds and text: the head comes last, wherever it is kept.
_HEAD_BELOW = re.compile(r"^((?:.*[./])?)language_model[./](lm_head[./])", re.DOTALL)
# SegFormer and PVT: what embeds patches and the blocks of each stage are kept apart.
_STAGE = re.compile(r"((?:.*\.)?encoder\.)(patch_embeddings|block|layer_norm)\.(\d+)\.(.+)", re.DOTALL)
_MAX_PARTS = 48  # bounds the recursion; the rest of a deeper name is compared as one part
_LAST = 1e9
# Names of Llama's MLP, which Mixtral's experts have too: w1 is the gate, w3 (v1 in DBRX) goes up, w2 comes last.
_LLAMA = ("w1", "w3", "v1", "w2")
_LLAMA_MLPS = ({"w1", "w2", "w3"}, {"w1", "v1", "w2"})
_NOMIC = ("fc12", "fc11", "fc2")  # gate, up and down of Nomic's BERT
_Shape = tuple[int, ...]
_Key = tuple[float, float, tuple[int, ...], int, tuple[tuple[int, int, str], ...], str]


def depth_order(shapes: Mapping[str, _Shape]) -> list[str]:
    """Tensor names sorted from the network's input to its output.

    Parameters
    ----------
    shapes
        Shape (out, in, *kernel) by tensor name.

    Returns
    -------
    list of str
        Every name once. The result does not depend on the order of ``shapes``.
    """
    in_stages = any("patch_embeddings" in name and _STAGE.fullmatch(name) for name in shapes)
    split = [(_SEPARATORS.split(_path(name, in_stages), maxsplit=_MAX_PARTS), name) for name in sorted(shapes)]
    return _ordered(split, 0, shapes)


def _path(name: str, in_stages: bool) -> str:
    """A name as it would be if each part of the network were within the part that it belongs to."""
    if in_stages and (stage := _STAGE.fullmatch(name)):
        return f"{stage[1]}stages.{stage[3]}.{stage[2]}.{stage[4]}"
    return _HEAD_BELOW.sub(r"\1\2", name)


def _ordered(entries: Sequence[tuple[list[str], str]], depth: int, shapes: Mapping[str, _Shape]) -> list[str]:
    """Names below one node of the tree, sorted; the first ``depth`` parts of each name are the path of the node."""
    deepest = max((len(parts) for parts, _ in entries), default=0)
    while depth < deepest and len({tuple(parts[depth : depth + 1]) for parts, _ in entries}) == 1:
        depth += 1
    if depth >= deepest:  # one name, or names that differ only in their separators
        return sorted(name for _, name in entries)
    children: dict[str, list[tuple[list[str], str]]] = defaultdict(list)
    for entry in entries:
        children[entry[0][depth] if depth < len(entry[0]) else ""].append(entry)
    parts = {child: parse_part(child) for child in children}
    names = {child: [name for _, name in members] for child, members in children.items()}
    keys = _sibling_keys({c: part._replace(rank=_moved_rank(c, parts, names, shapes)) for c, part in parts.items()})
    gates = next((gates for gates in FLAX_GATES if children.keys() >= set(gates)), ())
    return [
        name
        for child in sorted(children, key=lambda c: (gates.index(c) if c in gates else -1, keys[c]))
        for name in _ordered(children[child], depth + 1, shapes)
    ]


def _sibling_keys(parts: Mapping[str, Part]) -> dict[str, _Key]:
    """Sort key of each child: rank, place in the numbered sequence, stem, natural order."""
    sequences: dict[tuple[int, str], list[int]] = defaultdict(list)
    for part in parts.values():
        if len(part.numbers) == 1:
            sequences[part.rank, part.stem].append(part.numbers[0])
    longest: Counter[int] = Counter()
    for (rank, _), numbers in sequences.items():
        longest[rank] = max(longest[rank], len(numbers))
    keys: dict[str, _Key] = {}
    for child, part in parts.items():
        numbers = sequences.get((part.rank, part.stem), [])
        place = _place(part, numbers, longest[part.rank])
        keys[child] = (part.rank, place, part.numbers[1:], part.stem_rank, part.natural, child)
    return keys


def _place(part: Part, numbers: Sequence[int], longest: int) -> float:
    """Position of a child in the common numbered sequence of its siblings.

    Numbers form one sequence across different stems (conv1, stage2, stage3, stage4, conv5). If one stem counts at least
    twice as far as another from the same start (dense_1..dense_21 beside block_1..block_3), the shorter sequence is
    stretched. A child without a number whose stem occurs with numbers has number 0 (Keras: conv2d, conv2d_1); other
    children without a number come last.
    """
    if not part.numbers:
        return 0.0 if numbers else _LAST
    count = len(numbers)
    first = min(numbers, default=0)
    contiguous = count >= 2 and first <= 1 and max(numbers) - first == count - 1
    if contiguous and longest >= 2 * count:
        return first + (part.numbers[0] - first + 0.5) * longest / count - 0.5
    return float(part.numbers[0])


def _moved_rank(
    child: str, parts: Mapping[str, Part], children: Mapping[str, Sequence[str]], shapes: Mapping[str, _Shape]
) -> int:
    """Rank of a child, corrected where its siblings or the shapes determine it better than the name."""
    rank = parts[child].rank
    if child in _LLAMA and any(parts.keys() >= names for names in _LLAMA_MLPS):
        return _llama_rank(child, children, shapes)
    if child in _NOMIC and parts.keys() >= set(_NOMIC):
        return GATE + _NOMIC.index(child)
    if rank == DENSE and not any("conv" in part.stem for part in parts.values()):
        first = (name for name, part in parts.items() if part.stem == parts[child].stem and not part.numbers)
        if any(f"{name}_1" in parts for name in first):
            return rank  # dense, dense_1, ...: Keras counts from the first, which has no number
        return BODY if parts[child].numbers else HEAD
    if child == "up" and not any(part.stem.startswith("down") for part in parts.values()):
        return STEM  # a decoder block begins with its upsampling
    if rank == DOWNSAMPLE and "downsample" in child:
        blocks = next((children[c] for c in ("blocks", "layers", "block") if c in children), ())
        widths = Counter(shapes[name][0] for name in blocks if shapes[name])
        produced = {shapes[name][0] for name in children[child] if len(shapes[name]) > 1}
        # A stage's downsampling comes before its blocks if its output has the width of the blocks, else after them.
        if widths and produced & {width for width, n in widths.items() if n == max(widths.values())}:
            return STEM
    return rank


def _llama_rank(child: str, children: Mapping[str, Sequence[str]], shapes: Mapping[str, _Shape]) -> int:
    """Rank of w1, w2, w3 or v1. The xFormers library has w3 last; there w2 has the shape of w1, and w3 has not."""
    first, second = ({shapes[name] for name in children[c] if len(shapes[name]) > 1} for c in ("w1", "w2"))
    third = {shapes[name] for name in children.get("w3", ()) if len(shapes[name]) > 1}
    last = ("w1", "w2", "w3") if first == second != third and third else _LLAMA
    return GATE + last.index(child) if child in last else GATE
