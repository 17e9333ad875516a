"""Files beside the weights that describe the model: configurations of transformers, diffusers, timm, peft and MLX.

They are read with bounds: a few MiB, limited depth, a limited number of values. What exceeds them, or is not JSON, is
ignored with a note. Numbers in them size nothing.

A file describes only the weights that it belongs to: those with a name that ``save_pretrained`` and similar functions
write, or the only weights file in its folder.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import NotFoundError, RegistryError, WeightsError
from registry.sources.files.byte_source import is_remote, open_bytes
from registry.sources.weight_files import DESCRIPTIONS, INDEX, SHARD, is_training_state
from registry.types import ModelCard, ModelFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from registry.types import ModelRef

__all__ = ["MAX_BYTES", "aliases_in", "described", "facts_beside", "facts_of_module", "with_facts"]

CONFIG, ADAPTER, GPTQ, AWQ, MODELOPT, TIMM_ARGS = DESCRIPTIONS

MAX_BYTES = 4 * 2**20
"""Largest file that is read; the configurations of models with 22,000 labels take one."""

_MAX_VALUES = 400_000
_MAX_DEPTH = 32
_MAX_TEXT = 200  # characters of a card's field
_MAX_TAG = 10**8
_MAX_ENTRIES = 10_000  # entries of a folder in which other weights are looked for

# Names that the libraries give to the one model of a folder, with variants such as model.fp16 and shards.
_OWN_STEM = re.compile(
    r"(model|pytorch_model|diffusion_pytorch_model|open_clip_(pytorch_)?model|model_quantized|weights|consolidated)(\.\w+)*"
    r"|gptq_model-.*|model_part-.*|openvino_(\w+_)?model"
)
_ADAPTER_STEM = re.compile(r"adapter(_model|s)?(\.\w+)*")
_TIMM_STEM = re.compile(r"(model_best|last|checkpoint-\d+)(\.pth)?")
_WEIGHTS = (".safetensors", ".pt", ".pth", ".th", ".ckpt", ".bin", ".npz", ".tar", ".gguf", ".h5", ".keras", ".onnx")
_PACKED = ("qweight", "weight_packed", "scales", "weight_scale", "weight_scale_inv")  # of quantised weights
_LINE = re.compile(r"([A-Za-z_]\w*):[ \t]+([^#\n]*)")

_HEADS = (
    "num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads",
)  # fmt: skip
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_VOCABULARY = ("vocab_size", "n_vocab", "padded_vocab_size")
_CLASSES = ("num_labels", "num_classes")
_LABELS = ("id2label", "label2id")
_INNER = ("text_config", "llm_config", "language_config", "ffn_config")
"""Parts of a configuration of several towers that describe the language model."""


def facts_beside(path: Path, metadata: Mapping[str, str] | None = None, names: Iterable[str] = ()) -> ModelFacts:
    """What the files beside a weights file, or a shard index, say about it.

    Parameters
    ----------
    path
        The weights file or index.
    metadata
        Text of the weights file's own header.
    names
        Names of its tensors, for aliases in the header, and because those of an adapter tell that it is one.

    Returns
    -------
    ModelFacts
        ``notes`` says which files were ignored, and why.

    Raises
    ------
    WeightsError
        Two files contradict each other, or aliases go in a circle.
    """
    metadata = {str(key): str(value) for key, value in (metadata or {}).items()}
    names = list(names)
    found = ModelFacts(metadata=metadata, aliases=aliases_in(metadata, names, str(path)))
    stem = _stem(path)
    adapter = _ADAPTER_STEM.fullmatch(stem) is not None
    own = adapter or _OWN_STEM.fullmatch(stem) is not None
    alone: bool | None = None

    def belongs() -> bool:
        nonlocal alone
        if alone is None:
            alone = own or _is_alone(path)
        return alone

    adapted = any("lora_" in name for name in names)  # of a base with its adapter, under any name of file
    notes: list[str] = []
    read: dict[str, Mapping[str, Any]] = {}
    for name in DESCRIPTIONS[:-1]:
        if _may_be(path.with_name(name), names) and ((adapted and name == ADAPTER) or belongs()):
            read[name] = _json(path.with_name(name), notes)
    config = read.get(CONFIG, {})
    if not config and (_TIMM_STEM.fullmatch(stem) or path.with_name(TIMM_ARGS).exists()):
        config = _timm_args(path.with_name(TIMM_ARGS), notes, lambda: bool(_TIMM_STEM.fullmatch(stem)) or belongs())
    described_adapter = read.get(ADAPTER, {}) if adapter or adapted or not _OWN_STEM.fullmatch(stem) else {}
    return replace(
        found,
        config=_without_labels(config),
        # The base of an adapter may be quantised; the adapter's own weights are not.
        quantisation={} if adapter else _quantisation(read, path),
        adapter=described_adapter,
        notes=tuple(notes),
    )


def _may_be(path: Path, names: Iterable[str]) -> bool:
    """Whether a file that describes the tensors ``names`` may exist: of a remote one, whether to ask for it."""
    if not is_remote(path):
        return os.path.lexists(path)
    if path.name == CONFIG:
        return True
    if path.name == ADAPTER:
        return any("lora_" in name for name in names)
    return any(name.endswith(_PACKED) for name in names)


def _stem(path: Path) -> str:
    """The name of a model file in lower case, without suffix, number of shard and index."""
    name = path.name.lower()
    stem = Path(name[: -len(INDEX)]).stem if name.endswith(INDEX) else path.stem.lower()
    shard = SHARD.fullmatch(stem)
    return shard[1] if shard else stem


def _is_alone(path: Path) -> bool:
    """Whether no other model is in the folder. Shards of the same model and training state are none."""
    stem = _stem(path)
    if is_remote(path):
        return False
    try:
        with os.scandir(path.parent) as entries:
            for count, entry in enumerate(entries):
                if count >= _MAX_ENTRIES:
                    return False
                if not entry.name.lower().endswith(_WEIGHTS) or entry.name == path.name:
                    continue
                other = Path(entry.name)
                if not is_training_state(other) and _stem(other) != stem:
                    return False
    except OSError:
        return False
    return True


def _read(path: Path, notes: list[str]) -> bytes | None:
    """The bytes of a small file; None, with a note, for any other."""
    try:
        with open_bytes(path) as file:
            if file.size <= MAX_BYTES:
                return bytes(file.read_at(0, file.size))
            notes.append(f"{path.name} is ignored: it has {file.size / 2**20:.0f} MiB, more than {MAX_BYTES // 2**20}")
    except NotFoundError as error:
        if not is_remote(path):
            notes.append(f"{path.name} is ignored: {error.message}")
    except RegistryError as error:
        notes.append(f"{path.name} is ignored: {error.message}")
    except OSError as error:
        notes.append(f"{path.name} is ignored: {error.strerror or error}")
    return None


def _json(path: Path, notes: list[str]) -> Mapping[str, Any]:
    """The object in a JSON file; empty, with a note, if it is no JSON, no object or too large."""
    data = _read(path, notes)
    if data is None:
        return {}
    if sum(data.count(sign) for sign in (b"[", b"{", b",")) > _MAX_VALUES:
        notes.append(f"{path.name} is ignored: it has more than {_MAX_VALUES} values")
        return {}
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        notes.append(f"{path.name} is ignored: it is no valid JSON ({reason})")
        return {}
    if not isinstance(content, dict) or _is_deep(content):
        what = "nested too deeply" if isinstance(content, dict) else f"a {type(content).__name__}, not an object"
        notes.append(f"{path.name} is ignored: it is {what}")
        return {}
    return content


def _is_deep(content: object) -> bool:
    level = [content]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return False
    return True


def _timm_args(path: Path, notes: list[str], belongs: Callable[[], bool]) -> Mapping[str, Any]:
    """Model and number of classes of timm's training script, which writes its arguments as lines ``key: value``."""
    if not path.exists() or not belongs():
        return {}
    data = _read(path, notes)
    said = dict(_LINE.findall((data or b"").decode("utf-8", "replace")))
    said = {key: value.strip().strip("'\"") for key, value in said.items()}
    model, classes = said.get("model", ""), said.get("num_classes", "")
    found: dict[str, Any] = {"architecture": model} if model and model != "null" else {}
    if found and re.fullmatch(r"\d{1,8}", classes):
        found["num_classes"] = int(classes)
    return found


def _without_labels(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration with the number of its labels in place of the labels."""
    labels = config.get("id2label")
    kept = {key: value for key, value in config.items() if key not in _LABELS}
    if isinstance(labels, Mapping) and labels:
        kept.setdefault("num_labels", len(labels))
    return kept


def _quantisation(read: Mapping[str, Mapping[str, Any]], path: Path) -> Mapping[str, Any]:
    """How the weights are quantised: what ``config.json`` says, completed by the file of the quantising library.

    Raises
    ------
    WeightsError
        They state different numbers of bits.
    """
    stated = _stated(read.get(CONFIG, {}))
    for name in (GPTQ, AWQ, MODELOPT):
        other = read.get(name, {})
        if name == MODELOPT:
            inner = other.get("quantization")
            other = inner if isinstance(inner, Mapping) else {}
        bits = {str(each["bits"]) for each in (stated, other) if isinstance(each.get("bits"), int)}
        if len(bits) > 1:
            raise WeightsError(
                f"{path}: {CONFIG} and {name} beside it state {' and '.join(sorted(bits))} bits",
                "remove the file that is not this model's",
            )
        stated = {**other, **stated}
    return stated


def _stated(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """``quantization_config``, or MLX's ``quantization``, of a configuration or of its language model."""
    for part in (config, *(config.get(name) for name in _INNER)):
        for key in ("quantization_config", "quantization"):
            found = part.get(key) if isinstance(part, Mapping) else None
            if isinstance(found, Mapping) and found:
                return found
    return {}


def aliases_in(metadata: Mapping[str, str], names: Iterable[str], where: str) -> Mapping[str, str]:
    """Tied tensors that only the header of a safetensors file names: the name that is missing, and the stored one.

    ``save_model`` of safetensors writes them.

    Raises
    ------
    WeightsError
        Aliases go in a circle, so that no tensor is meant.
    """
    if not metadata:
        return {}
    stored = frozenset(names)
    found: dict[str, str] = {}
    for name in metadata:
        seen, at = [name], metadata[name]
        while at not in stored and at in metadata and at not in seen:
            seen.append(at)
            at = metadata[at]
        if at in stored and name not in stored:
            found[name] = at
        elif at in seen and (len(seen) > 1 or "." in at):
            raise WeightsError(
                f"{where}: the aliases {', '.join(sorted(seen)[:3])} in its header name each other, and no tensor",
                "save it again with safetensors.torch.save_model",
            )
    return found


def facts_of_module(module: object) -> ModelFacts:
    """What a module in memory says of itself: the configuration of transformers, diffusers, peft or timm.

    Objects without such a configuration give empty facts. Nothing is called but ``to_dict`` of a configuration.
    """
    config = _as_mapping(getattr(module, "config", None), ("model_type", "_class_name"))
    if config:
        config = {"architectures": [type(module).__name__], **config}
    else:
        published = _as_mapping(getattr(module, "pretrained_cfg", None), ("architecture",))
        config = {key: published[key] for key in ("architecture", "num_classes") if key in published}
    adapters = getattr(module, "peft_config", None)
    first = next(iter(adapters.values()), None) if isinstance(adapters, Mapping) else None
    adapter = _as_mapping(first, ("peft_type",))
    return ModelFacts(config=_without_labels(config), quantisation=_stated(config), adapter=adapter)


def _as_mapping(value: object, marks: tuple[str, ...]) -> Mapping[str, Any]:
    """The entries of a configuration object that has one of the entries ``marks``; empty for any other object."""
    if not isinstance(value, Mapping):
        convert = getattr(value, "to_dict", None)
        if value is None or isinstance(value, type) or not callable(convert):
            return {}
        try:
            value = convert()
        except Exception:  # noqa: BLE001 - of a class that is not known here
            return {}
    if not isinstance(value, Mapping) or not any(mark in value for mark in marks):
        return {}
    return {str(key): _plain(entry) for key, entry in value.items()}


def _plain(value: object) -> Any:
    """Values as JSON has them: an enumeration's value, sets as lists."""
    inner = getattr(value, "value", value) if type(value).__module__ not in ("builtins", "numpy") else value
    return sorted(map(str, inner)) if isinstance(inner, set | frozenset) else inner


def with_facts(ref: ModelRef, facts: ModelFacts) -> ModelRef:
    """The reference with its card completed from the facts; fields that are known already stay."""
    found = described(facts)
    return ref if found == ModelCard() else replace(ref, card=found.updated(ref.card))


def described(facts: ModelFacts) -> ModelCard:
    """Architecture, family and tags that the configuration states; only short texts and small whole numbers count."""
    config = facts.config
    parts = [config, *(part for name in _INNER if isinstance(part := config.get(name), Mapping))]
    tags: dict[str, str] = {}
    for tag, keys in (
        ("heads", _HEADS), ("kv_heads", _KV_HEADS), ("experts", _EXPERTS), ("vocabulary", _VOCABULARY),
        ("classes", _CLASSES),
    ):  # fmt: skip
        number = next((n for part in parts for key in keys if (n := _number(part.get(key)))), None)
        if number:
            tags[tag] = str(number)
    if "kv_heads" not in tags and "heads" in tags and config.get("multi_query") is True:
        tags["kv_heads"] = "1"
    if method := _method(facts.quantisation):
        tags["quantisation"] = method
    adapter = facts.adapter
    if kind := _text(adapter.get("peft_type")):
        tags["adapter"] = kind.lower()
        if rank := _number(adapter.get("r")):
            tags["rank"] = str(rank)
        base = _text(adapter.get("base_model_name_or_path"))
        if base and "://" not in base:
            tags["base_model"] = base
    architecture = (
        _text(config.get("architectures")) or _text(config.get("architecture")) or _text(config.get("_class_name"))
    )
    return ModelCard(family=_text(config.get("model_type")), architecture=architecture, tags=tuple(tags.items()))


def _method(quantisation: Mapping[str, Any]) -> str:
    """Name of the quantising library or format: ``gptq``, ``awq``, ``compressed-tensors``, ``mlx``, ``nvfp4``."""
    for key in ("quant_method", "quant_algo", "checkpoint_format"):
        if name := _text(quantisation.get(key)):
            return name.lower()
    if "w_bit" in quantisation:
        return "awq"
    if "desc_act" in quantisation:
        return "gptq"
    return "mlx" if "group_size" in quantisation and "bits" in quantisation else ""


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MAX_TAG else None


def _text(value: object) -> str:
    """A short text, or the first of a list of texts; empty for any other value."""
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    if not isinstance(value, str):
        return ""
    return value.replace("\0", "").encode("utf-8", "replace").decode()[:_MAX_TEXT].strip()
