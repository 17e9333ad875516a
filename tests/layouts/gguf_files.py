"""Networks as llama.cpp's converter writes them: its changes of tensors, the library's names and its writer.

convert_hf_to_gguf.py is in no package. What its classes do to tensors is written again here, one function for each
rule; names come from ``gguf.TensorNameMap``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import nn

    Tensors = Iterator[tuple[str, np.ndarray]]
    Rule = Callable[[str, np.ndarray, "Numbers"], Tensors]

__all__ = ["ARCHITECTURES", "Numbers", "permuted", "write_gguf"]


@dataclass(frozen=True)
class Numbers:
    """Heads of queries and keys, and the width."""

    heads: int
    keys: int
    width: int


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """LlamaModel.permute: of each head the rows of both halves by turns."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def plain(name: str, array: np.ndarray, _: Numbers) -> Tensors:
    yield name, array


def llama(name: str, array: np.ndarray, numbers: Numbers) -> Tensors:
    if ".q_proj." in name:
        array = permuted(array, numbers.heads)
    elif ".k_proj." in name:
        array = permuted(array, numbers.keys)
    yield from experts(name, array, numbers)


def experts(name: str, array: np.ndarray, _: Numbers) -> Tensors:
    """Gate and up of all experts apart, each (expert, out, in)."""
    if name.endswith("experts.gate_up_proj"):
        gate, up = np.split(array, 2, axis=1)
        above = name.removesuffix("gate_up_proj")
        yield f"{above}gate_proj.weight", gate
        yield f"{above}up_proj.weight", up
    elif name.endswith("experts.down_proj"):
        yield f"{name}.weight", array
    else:
        yield name, array


def gpt_oss(name: str, array: np.ndarray, _: Numbers) -> Tensors:
    """As `experts`, from (expert, in, out) with gate and up alternating."""
    above = name.rpartition(".")[0]
    if name.endswith("gate_up_proj"):
        yield f"{above}.gate_proj.weight", array[..., ::2].swapaxes(1, 2)
        yield f"{above}.up_proj.weight", array[..., 1::2].swapaxes(1, 2)
    elif name.endswith("gate_up_proj_bias"):
        yield f"{above}.gate_proj.bias", array[..., ::2]
        yield f"{above}.up_proj.bias", array[..., 1::2]
    elif name.endswith("experts.down_proj"):
        yield f"{above}.down_proj.weight", array.swapaxes(1, 2)
    elif name.endswith("down_proj_bias"):
        yield f"{above}.down_proj.bias", array
    else:
        yield name.replace("sinks", "sinks.weight"), array


def gpt2(name: str, array: np.ndarray, _: Numbers) -> Tensors:
    """Kernels of Conv1D with outputs first."""
    turned = name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))
    yield name, array.T if turned else array


def by_head(name: str, array: np.ndarray, numbers: Numbers) -> Tensors:
    """All queries, all keys, all values, which GPT-NeoX, BLOOM and Falcon have by head (of keys)."""
    if "query_key_value" in name:
        each = numbers.heads // numbers.keys
        size = array.shape[0] // (numbers.heads + 2 * numbers.keys)
        grouped = array.reshape(numbers.keys, each + 2, size, *array.shape[1:])
        parts = (grouped[:, :each], grouped[:, each], grouped[:, each + 1])
        array = np.concatenate([part.reshape(-1, *array.shape[1:]) for part in parts])
    yield name, array


def mamba(name: str, array: np.ndarray, _: Numbers) -> Tensors:
    if name.endswith("A_log"):
        array = -np.exp(array)
    yield name, array.squeeze(1) if name.endswith("conv1d.weight") else array


def mamba2(name: str, array: np.ndarray, numbers: Numbers) -> Tensors:
    """As `mamba`, with numbers of heads as columns, and the scales of the norm in two groups."""
    if name.endswith((".A_log", ".D")):
        array = array[:, None]
    elif name.endswith(".mixer.norm.weight"):
        array = array.reshape(2, -1)
    yield from mamba(name.replace(".dt_bias", ".dt_proj.bias"), array, numbers)


def deepseek(name: str, array: np.ndarray, numbers: Numbers) -> Tensors:
    """Keys (head, latent, key), turned, and values (head, value, latent); both have 8 rows a head here."""
    if name.endswith("kv_b_proj.weight"):
        parts = array.reshape(numbers.heads, 2, -1, array.shape[-1])
        above = name.removesuffix("kv_b_proj.weight")
        yield f"{above}k_b_proj.weight", parts[:, 0].swapaxes(1, 2)
        yield f"{above}v_b_proj.weight", parts[:, 1]
    elif name.endswith("correction_bias"):
        yield name.replace("correction_bias", "correction.bias"), array
    else:
        yield from experts(name, array, numbers)


ARCHITECTURES: dict[str, tuple[str, Rule]] = {
    "bert": ("bert", plain),
    "gpt2": ("gpt2", gpt2),
    "llama": ("llama", llama),
    "llama-tied": ("llama", llama),
    "mixtral": ("llama", llama),
    "qwen2-moe": ("qwen2moe", experts),
    "qwen3-moe": ("qwen3moe", experts),
    "gpt-oss": ("gpt-oss", gpt_oss),
    "gpt-neox": ("gptneox", by_head),
    "falcon": ("falcon", by_head),
    "falcon-new": ("falcon", by_head),
    "bloom": ("bloom", by_head),
    "starcoder": ("starcoder", plain),
    "phi3": ("phi3", plain),
    "t5": ("t5", plain),
    "mamba": ("mamba", mamba),
    "mamba2": ("mamba2", mamba2),
    "gptj": ("gptj", plain),
    "mpt": ("mpt", plain),
    "phi": ("phi2", plain),
    "starcoder2": ("starcoder2", plain),
    "granite": ("granite", llama),
    "glm4": ("glm4", plain),
    "modernbert": ("modern-bert", plain),
    "lfm2": ("lfm2", plain),
    "deepseek": ("deepseek2", deepseek),
}
"""Networks by name: the architecture in llama.cpp, and its rule."""


def write_gguf(
    module: nn.Module,
    path: Path,
    name: str,
    *,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    big: bool = False,
    parts: int = 0,
) -> Path:
    """Write a network of transformers as llama.cpp's converter does; vectors are float32, matrices of type ``kind``.

    ``parts``: tensors in a file, if several are to be written. Returns the first file.
    """
    architecture, rule = ARCHITECTURES[name]
    config: Any = module.config
    heads = next(
        getattr(config, key) for key in ("num_attention_heads", "num_heads", "n_head", "expand") if hasattr(config, key)
    )
    keys = next((n for key in ("num_key_value_heads", "num_kv_heads") if (n := getattr(config, key, None))), heads)
    keys = (
        1 if getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", False) else keys
    )
    numbers = Numbers(heads, keys, config.hidden_size)
    order = gguf.GGUFEndian.BIG if big else gguf.GGUFEndian.LITTLE
    writer = gguf.GGUFWriter(path, architecture, endianess=order, split_max_tensors=parts)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(numbers.width)
    writer.add_head_count(numbers.heads)
    writer.add_head_count_kv(numbers.keys)
    if count := getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None):
        writer.add_expert_count(count)
    writer.add_token_list([b"word"] * config.vocab_size)
    writer.add_token_scores([0.5] * config.vocab_size)
    number = next(value for value, told in gguf.MODEL_ARCH_NAMES.items() if told == architecture)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    held = {each.data_ptr() for each in module.parameters()}
    held |= {each.data_ptr() for own, each in module.named_buffers() if own.endswith("e_score_correction_bias")}
    for own, tensor in module.state_dict(keep_vars=True).items():
        if tensor.data_ptr() not in held or own.endswith(("position_ids", "masked_bias")):
            continue
        held.discard(tensor.data_ptr())  # a tied tensor once
        for changed, array in rule(own, tensor.detach().numpy(), numbers):
            _add(writer, names, changed, array, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path if path.exists() else sorted(path.parent.glob(f"{path.stem}-00001-of-*.gguf"))[0]


def _add(
    writer: gguf.GGUFWriter, names: gguf.TensorNameMap, own: str, array: np.ndarray, kind: gguf.GGMLQuantizationType
) -> None:
    for prefix in ("", "transformer.", "bert.", "model.", "backbone."):
        new = names.get_name(own.removeprefix(prefix), try_suffixes=(".weight", ".bias"))
        if new is not None:
            break
    if new is None:
        raise AssertionError(f"no name for {own}")
    array = np.ascontiguousarray(array, np.float32)
    if array.ndim < 2 or kind == gguf.GGMLQuantizationType.F32 or new.startswith(("position", "token_types")):
        writer.add_tensor(new, array)
    elif kind == gguf.GGMLQuantizationType.F16:
        writer.add_tensor(new, array.astype(np.float16))
    else:
        writer.add_tensor(new, gguf.quants.quantize(array, kind), raw_dtype=kind)
