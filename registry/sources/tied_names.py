"""Tied weights: one tensor under several names, of which a file may keep any.

``torch.save`` writes a tied tensor under each of its names, ``save_pretrained`` under one of them, and ``save_model``
of safetensors under the first in alphabetical order, with the others in the header. Which name is kept must not move a
layer: an output layer that is also the input embedding comes first. So each name that the header tells is put back, and
so is that of the embedding where only the output layer is stored. Copies are then found by their bytes.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from registry.sources.dtypes import is_float

if TYPE_CHECKING:
    from registry.sources.effective_weights import TensorView

__all__ = ["restore_tied_names", "twin_of"]

# Output layers of language models, as transformers names them.
_HEADS = (
    "lm_head.weight", "lm_head.decoder.weight", "proj_out.weight", "cls.predictions.decoder.weight",
    "predictions.decoder.weight", "generator_lm_head.weight", "vocab_projector.weight", "embed_out.weight",
)  # fmt: skip
_WORDS = re.compile(
    r"(?:.*\.)?(\w*(input|word|tok|token|char)_?embed\w*|embed_tokens|wte|transformer\.w)(\.weight)?", re.DOTALL
)
_EMBEDDING = re.compile(r"(?:.*\.)?(\w*embed\w*|wte|shared|word_embeddings)(\.weight)?", re.DOTALL)
# A tensor of a block, with the name of the model's input embedding, whatever is before both.
_BLOCKS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"((?:.*\.)?)encoder\.block\.\d+\.layer\..*", re.DOTALL), "shared"),
    (re.compile(r"((?:.*\.)?)decoder\.block\.\d+\.layer\..*", re.DOTALL), "shared"),
    (re.compile(r"((?:.*\.)?)h\.\d+\.self_attention\..*", re.DOTALL), "word_embeddings"),
    (re.compile(r"((?:.*\.)?)h\.\d+\..*", re.DOTALL), "wte"),
    (
        re.compile(r"((?:.*\.)?)encoder\.(?:layer|albert_layer_groups)\.\d+\..*", re.DOTALL),
        "embeddings.word_embeddings",
    ),
    (re.compile(r"((?:.*\.)?)transformer\.layer\.\d+\..*", re.DOTALL), "embeddings.word_embeddings"),
    (re.compile(r"(gpt_neox\.)layers\.\d+\..*", re.DOTALL), "embed_in"),
    (re.compile(r"(backbone\.)layers\.\d+\..*", re.DOTALL), "embeddings"),
    (re.compile(r"((?:.*\.)?decoder\.)layers\.\d+\..*", re.DOTALL), "embed_tokens"),
    (re.compile(r"((?:.*\.)?)layers\.\d+\..*", re.DOTALL), "embed_tokens"),
)
_TWIN_BIAS = re.compile(r"((?:.*\.)?(?:predictions|lm_head))\.decoder\.bias", re.DOTALL)


def restore_tied_names(view: TensorView) -> None:
    """Put tied tensors under each of their names.

    Nothing is read. A name that is in the file is left as it is; an alias of a missing tensor is ignored.
    """
    for alias, kept in sorted(view.facts.aliases.items()):
        if alias not in view.tensors and kept in view.tensors:
            view.put(replace(view.tensors[kept], name=alias))
    _restore_embedding(view)


def _restore_embedding(view: TensorView) -> None:
    """Put an output layer that is stored alone also where the input embedding has its place.

    A language model has an input embedding. Where there is none, and none of the output layer's shape under another
    name, that layer is the embedding, unless the configuration says that they are not tied. A model of speech has a
    layer of the same name that is tied to nothing: its bias tells, or the architecture.
    """
    if view.facts.config.get("tie_word_embeddings") is False:
        return
    shared = _shared_of(view)
    head = shared or next((name for name in _HEADS if name in view.tensors), None)
    if head is None:
        return
    stored = view.tensors[head]
    if not is_float(stored.dtype) or len(stored.shape) != 2:
        return
    if shared is None and (_is_of_speech(view, head) or _has_embedding(view, head)):
        return
    for pattern, embedding in _BLOCKS:
        match = next((found for name in sorted(view.tensors) if (found := pattern.fullmatch(name))), None)
        if match is None:
            continue
        name = f"{match[1]}{embedding}.weight"
        both = match[1].removesuffix("decoder.")
        if head == "lm_head.weight" and any(other.startswith(f"{both}encoder.layers.") for other in view.tensors):
            name = f"{both}shared.weight"  # of an encoder and a decoder that read the same words, as BART
        if name not in view.tensors:
            view.put(replace(stored, name=name))
        return


def _is_of_speech(view: TensorView, head: str) -> bool:
    """Whether an output layer gives letters for frames of sound (connectionist temporal classification)."""
    named = view.facts.config.get("architectures")
    told = isinstance(named, list) and any(isinstance(each, str) and each.endswith("ForCTC") for each in named)
    return told or (head == "lm_head.weight" and "lm_head.bias" in view.tensors)


def _has_embedding(view: TensorView, head: str) -> bool:
    """Whether words have an embedding beside the output layer, or any has its shape."""
    return any(
        name != head
        and len(tensor.shape) == 2
        and (_WORDS.fullmatch(name) or (tensor.shape == view.tensors[head].shape and _EMBEDDING.fullmatch(name)))
        for name, tensor in view.tensors.items()
    )


def _shared_of(view: TensorView) -> str | None:
    """The one embedding that T5 keeps of several, where the common one is not stored."""
    if "shared.weight" in view.tensors or not any(".block." in name for name in view.tensors):
        return None
    named = [f"{part}.embed_tokens.weight" for part in ("encoder", "decoder")]
    present = [name for name in named if name in view.tensors]
    return present[0] if len(present) == 1 else None


def twin_of(view: TensorView, name: str) -> str | None:
    """Another name of the same tensor, as far as aliases, shared memory and transformers' own names tell."""
    other = view.facts.aliases.get(name)
    if other is None and (match := _TWIN_BIAS.fullmatch(name)):
        other = f"{match[1]}.bias"
    return other if other in view.tensors else None
