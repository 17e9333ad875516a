"""Low-rank adapters (LoRA, Hu et al., arXiv:2106.09685), folded into the weights that they adapt: W + s B A.

A state dict of peft keeps the adapted weight under ``base_layer``, and the two factors beside it. An adapter's own file
has the factors alone; `adapter_base` then adds the tensors of its base. The factor s is not among the tensors: it is
``lora_alpha / r``, or ``lora_alpha / sqrt(r)`` with ``use_rslora``, of ``adapter_config.json``, with its patterns for
single layers; files of kohya's trainers store alpha. Adapters of other kinds are refused by name.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.errors import WeightsError
from registry.sources.dtypes import is_float
from registry.sources.effective_weights import EffectiveTensor
from registry.sources.fused_tensors import is_conv1d_model, pieces_of
from registry.spelling import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from registry.sources.effective_weights import TensorView

__all__ = ["MERGE", "PREFIX", "check_kind", "fold_adapters", "is_adapter_alone"]

PREFIX = "base_model.model."
"""What peft puts before the names of the base's tensors."""

MERGE = "merge it with merge_and_unload() of peft, then save the merged model"
"""Remedy for an adapter that is not folded."""

_FUSE = "merge it with the library that wrote it (fuse_lora() of diffusers), then save the merged model"
_CONFIG = "put its adapter_config.json beside the file, or " + MERGE

# Parts of names that only one kind of adapter has.
_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("DoRA", re.compile(r"(?:.*\.)?(lora_magnitude_vector|dora_scale)(\..*)?", re.DOTALL)),
    ("AdaLoRA", re.compile(r"(?:.*\.)?(lora_E|ranknum)(\..*)?", re.DOTALL)),
    ("IA3", re.compile(r"(?:.*\.)?ia3_l(\..*)?", re.DOTALL)),
    ("LoHa", re.compile(r"(?:.*\.)?hada_[wt][12](_[ab])?(\..*)?", re.DOTALL)),
    ("LoKr", re.compile(r"(?:.*\.)?lokr_[wt][12](_[ab])?(\..*)?", re.DOTALL)),
    ("VeRA", re.compile(r"(?:.*\.)?(vera_lambda_[bd]|vera_[AB])(\..*)?", re.DOTALL)),
    ("LoCon with a middle factor", re.compile(r"(?:.*\.)?lora_mid(\..*)?", re.DOTALL)),
    ("LoRA of attention processors", re.compile(r"(?:.*[._])?lora\.(down|up)\.weight", re.DOTALL)),
    ("prompt tuning", re.compile(r"prompt_embeddings", re.DOTALL)),
    ("trainable tokens", re.compile(r"(?:.*\.)?trainable_tokens_(delta|original)(\..*)?", re.DOTALL)),
)
# Parts of names by which peft marks other kinds; they count in its files alone, because a network may have them too.
_PEFT_KINDS = re.compile(
    r"(?:.*\.)?((adamss|beft|boft|c3a|deft|delora|fourierft|frod|glora|gralora|hira|hra|internal_xlora|lily|miss|oft|osf"
    r"|peanut|poly|psoft|pvera_lambda|randlora|road|shadow|shira|supertuning|tinylora|unilora|vblora|waveft|bone"
    r"|adaption)_\w+)(\..*)?"
    r"|(prompt_encoder)\..*",
    re.DOTALL,
)
# Settings of a LoRA that change what it computes.
_VARIANTS = (
    "use_dora", "use_qalora", "use_bdlora", "velora_config", "alora_invocation_tokens", "monteclora_config",
    "arrow_config", "kasa_config", "layer_replication", "trainable_token_indices",
)  # fmt: skip
_FACTOR = re.compile(r"(?:(.*)\.)?lora_(A|B|embedding_A|embedding_B)(?:\.(.+))?", re.DOTALL)
_KOHYA = re.compile(r"(lora_[a-z]+\d?)_(.+)\.(lora_down\.weight|lora_up\.weight|alpha)", re.DOTALL)
_WORDS = re.compile(r"(?:.*\.)?(?:embed_tokens|wte|embed_in|word_embeddings)\.weight", re.DOTALL)
_HEAD = re.compile(r"(?:.*\.)?(?:lm_head|embed_out)\.(?:.+\.)?weight", re.DOTALL)
_MOVED = re.compile(r"(?:(.*)\.)?(original_module|modules_to_save\.([^.]+))\.(.+)", re.DOTALL)
_MARK = re.compile(
    r"(?:.*[._])?(base_layer|original_module|modules_to_save|lora_\w+|dora_scale|ia3_l|hada_\w+|lokr_\w+|vera_\w+"
    r"|lora|ranknum|prompt_\w+|trainable_tokens_\w+)(\..*)?",
    re.DOTALL,
)
_LAYER_PARTS = frozenset({"base_layer", "lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B"})
_PATTERN = re.compile(r"\^?[\w.\\-]{1,300}\$?")
_AT_ONCE = 1 << 22  # elements in float64 at a time


def fold_adapters(view: TensorView) -> None:
    """Put W + s B A in place of each adapted weight, under the base's name, and saved modules in place of the base's.

    Raises ``WeightsError`` where the scaling is not known, several adapters are in one file, the factors fit no weight,
    or the adapter is of a kind that is not read.
    """
    marked = any(name.startswith("base_model.") or _MARK.fullmatch(name) for name in view.tensors)
    if not marked and "prompt_embeddings" not in view.tensors:
        return
    check_kind(view.where, view.tensors, view.facts.adapter)
    # A network may have a module called base_model or base_layer of its own.
    if any(_FACTOR.fullmatch(name) or ".modules_to_save." in f".{name}" for name in view.tensors) or any(
        _KOHYA.fullmatch(name.removeprefix(PREFIX)) for name in view.tensors
    ):
        _Peft(view).fold()
    if any(_KOHYA.fullmatch(name) for name in view.tensors):
        _fold_kohya(view)


def _is_peft(name: str) -> bool:
    return name.startswith(PREFIX) or "base_layer" in name.split(".") or ".modules_to_save." in f".{name}"


def check_kind(where: str, names: Iterable[str], config: Mapping[str, Any]) -> None:
    """Raise ``WeightsError`` for an adapter of a kind that is not read, by its tensors' names and its configuration."""
    names = list(names)
    peft = any(_is_peft(name) or _FACTOR.fullmatch(name) for name in names)
    sure = any(name.startswith(PREFIX) or _FACTOR.fullmatch(name) for name in names)
    adapted = {name.rpartition(".base_layer.")[0] for name in names if sure and ".base_layer." in name}
    for name in names:
        kind = next((kind for kind, pattern in _KINDS if pattern.fullmatch(name)), None)
        if kind is None and adapted:
            kind = _unknown_part(name, adapted)
        if kind is None and peft and (match := _PEFT_KINDS.fullmatch(name)):
            kind = (match[1] or match[4]).split("_")[0]
        if kind is not None:
            remedy = _FUSE if "processors" in kind or "middle" in kind or name.endswith("dora_scale") else MERGE
            raise WeightsError(f"{where}: {name[:200]} is of an adapter that is not read: {kind}", remedy)
    said = config.get("peft_type")
    if peft and isinstance(said, str) and said.upper() != "LORA":
        raise WeightsError(f"{where} is an adapter that is not read: {said[:40]}", MERGE)
    if peft and (variant := next((each for each in _VARIANTS if config.get(each)), None)):
        raise WeightsError(f"{where} is a LoRA adapter with {variant}, which is not read", MERGE)


def _unknown_part(name: str, adapted: Container[str]) -> str | None:
    """What is beside a ``base_layer`` and is no factor of a LoRA, by its name; None if there is nothing."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        if parts[end] not in _LAYER_PARTS and ".".join(parts[:end]) in adapted:
            return parts[end]
    return None


def is_adapter_alone(names: Iterable[str]) -> bool:
    """Whether the tensors are those of an adapter without the weights that it adapts."""
    names = list(names)
    factors: set[str] = set()
    others: set[str] = set()
    for name in names:
        short = _without_base_layer(name)
        if match := _FACTOR.fullmatch(short):
            factors.add(match[1] or "")
        elif match := _KOHYA.fullmatch(short):
            factors.add(f"{match[1]}_{match[2]}")
        else:
            others.add(short)
    # An adapter that trains biases has them, but no weight beside its factors.
    return not factors <= {name.rpartition(".")[0] for name in others if _may_be_weight(name)}


def _without_base_layer(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != "base_layer") if "base_layer" in name else name


def _may_be_weight(name: str) -> bool:
    return not name.endswith(("bias", "alpha"))


@dataclass(slots=True)
class _Factors:
    """A and B of one module, linear or embedding, and the bias that an adapter may train."""

    parts: dict[str, EffectiveTensor] = field(default_factory=dict)

    def get(self, what: str) -> EffectiveTensor | None:
        return self.parts.get(what) or self.parts.get(f"embedding_{what}")


class _Peft:
    """Tensors of peft: with the base's under ``base_layer``, or an adapter's beside those of a base."""

    def __init__(self, view: TensorView) -> None:
        self.view = view
        self.where = view.where
        self.factors: dict[str, _Factors] = {}
        self.adapters: set[str] = set()
        # Tied names, which are merged with the weight that they are, as in memory.
        self.tied = {
            _without_base_layer(name.removeprefix(PREFIX)): _without_base_layer(kept.removeprefix(PREFIX))
            for name, kept in view.facts.aliases.items()
        }

    def fold(self) -> None:
        base: dict[str, EffectiveTensor] = {}
        own: dict[str, EffectiveTensor] = {}
        saved = {match[1] for name in self.view.tensors if (match := _MOVED.fullmatch(name)) and match[3]}
        for name, tensor in list(self.view.tensors.items()):
            short = _without_base_layer(name.removeprefix(PREFIX))
            if match := _FACTOR.fullmatch(short):
                self._add_factor(match[1] or "", match[2], match[3] or "", tensor)
            elif (match := _MOVED.fullmatch(name)) and match[1] in saved and match[3] is None:
                self.view.skip(name, "replaced by the module that was saved with the adapter")
            elif (match := _MOVED.fullmatch(short)) and match[3]:
                self.adapters.add(match[3])
                own[f"{match[1]}.{match[4]}" if match[1] else match[4]] = tensor
            elif name.startswith(PREFIX):
                own[short] = tensor
            else:
                base[short] = tensor
        if len(self.adapters - {""}) > 1:
            raise WeightsError(
                f"{self.where} holds {counted(len(self.adapters), 'adapter')}: {', '.join(sorted(self.adapters)[:5])}",
                "merge the one that you mean with merge_and_unload(adapter_names=[NAME]) of peft, then save the model",
            )
        moved = _Names(self.where, base, self.factors) if base else _Names(self.where, own, self.factors)
        placed = {moved.place(name): tensor for name, tensor in own.items()}
        tensors = {**base, **self._untied_head(base, placed), **placed}
        self.view.tensors.clear()
        for name, tensor in tensors.items():
            self.view.tensors[name] = tensor if tensor.name == name else replace(tensor, name=name)
        scaling = _Scaling(self.where, self.view.facts.adapter) if self.factors else None
        infos = {name: tensor.info for name, tensor in self.view.tensors.items()}
        conv1d = is_conv1d_model(infos, self.view.facts.config)
        for module in sorted(self.factors):
            assert scaling is not None  # noqa: S101 - there are factors
            self._fold_module(module, moved.place(module), scaling, conv1d=conv1d)

    def _untied_head(
        self, base: Mapping[str, EffectiveTensor], placed: Mapping[str, EffectiveTensor]
    ) -> dict[str, EffectiveTensor]:
        """The output layer of a base that stores it as its embedding only, where an adapter replaces the embedding.

        peft replaces a module of ``modules_to_save``, so that the output layer keeps the base's values; an embedding
        that is stored for its new words is loaded into the tensor that both are.
        """
        config, adapter = self.view.facts.config, self.view.facts.adapter
        modules = adapter.get("modules_to_save")
        moved = tuple(each for each in modules if isinstance(each, str)) if isinstance(modules, list) else ()
        replaced = [
            name
            for name in placed
            if name in base
            and _WORDS.fullmatch(name)
            and f".{name.removesuffix('.weight')}".endswith(tuple(f".{each}" for each in moved))
        ]
        heads = any(_HEAD.fullmatch(name) for name in (*base, *placed))
        tied = config.get("tie_word_embeddings") is True and not adapter.get("ensure_weight_tying")
        if len(replaced) != 1 or heads or not tied:
            return {}
        return {"lm_head.weight": replace(base[replaced[0]], name="lm_head.weight")}

    def _add_factor(self, module: str, what: str, tail: str, tensor: EffectiveTensor) -> None:
        above, _, last = tail.rpartition(".")
        if last in ("weight", "bias"):
            adapter, kind = above, last
        else:
            adapter, kind = tail, "weight"
        self.adapters.add(adapter)
        key = what if kind == "weight" else f"{what} bias"
        parts = self.factors.setdefault(module, _Factors()).parts
        if key in parts and adapter in ("", *self.adapters):
            parts[f"{key} {adapter}"] = tensor  # of a second adapter, for which the file is refused
            return
        parts[key] = tensor

    def _fold_module(self, module: str, place: str, scaling: _Scaling, *, conv1d: bool) -> None:
        factors = self.factors[module]
        a, b = factors.get("A"), factors.get("B")
        if a is None or b is None:
            raise WeightsError(f"{self.where}: the adapter of {module} has one of its two factors", "save it again")
        tensors = self.view.tensors
        target = _first(tensors, f"{place}.weight", f"{place}.in_proj_weight") if place else _first(tensors, "weight")
        if target is None:
            parameter = next((name for name in tensors if name.startswith(f"{place}.")), None)
            raise WeightsError(
                f"{self.where}: the adapter of {module} adapts no weight of that name"
                + (f"; {parameter} is beside it" if parameter else ""),
                "give the base that it was trained on, as --base REF, or " + MERGE,
            )
        rank, scale = scaling.of(module, a.shape[0] if a.shape else 0)
        above, _, own = place.rpartition(".")
        if own == "out_proj" and f"{above}.in_proj_weight".removeprefix(".") in tensors:
            scale *= 2  # of torch's MultiheadAttention, where peft adds it twice, in the forward pass as in the merge
        last = False
        if target.shape[:1] == target.shape[1:]:  # a square matrix, whose shape does not tell
            infos = {name: tensor.info for name, tensor in tensors.items()}
            last = pieces_of(target.info, infos, conv1d=conv1d, config=self.view.facts.config)[0].axis == 1
        made = _merged(self.where, target, a, b, scale, rank=rank, enabled=scaling.enabled, config=scaling.config,
                       embedding="embedding_A" in factors.parts, outputs_last=last)  # fmt: skip
        kept = self.tied.get(target.name, target.name)
        for name, tensor in list(tensors.items()):
            is_tied = self.tied.get(name, name) == kept and tensor.shape == target.shape
            if tensor.parts == target.parts or is_tied:
                self.view.put(replace(made, name=name))
        trained = factors.parts.get("B bias")
        if trained is not None:
            self._fold_bias(f"{place}.bias" if place else "bias", trained, scale)

    def _fold_bias(self, name: str, trained: EffectiveTensor, scale: float) -> None:
        """A bias of B is added to the layer's own, times the same factor."""
        bias = self.view.tensors.get(name)
        if bias is not None and bias.shape != trained.shape:
            raise WeightsError(f"{self.where}: {trained.name} of shape {trained.shape} does not fit {name}", MERGE)

        def rows(start: int, stop: int) -> NDArray[np.floating]:
            added = scale * np.asarray(trained.rows(start, stop), np.float64)
            whole = added if bias is None else added + np.asarray(bias.rows(start, stop), np.float64)
            return np.asarray(whole, np.float64 if trained.dtype == "float64" else np.float32)

        parts = (*(() if bias is None else bias.parts), *trained.parts)
        self.view.put(EffectiveTensor(name, trained.dtype, trained.shape, rows, parts, setting=f"lora {scale!r}"))


def _first(tensors: Mapping[str, EffectiveTensor], *names: str) -> EffectiveTensor | None:
    return next((tensors[name] for name in names if name in tensors), None)


class _Names:
    """Where the modules of an adapter are in its base, which may be saved without its outermost name, or with one more.

    transformers loads a base model (``h.0.attn``) into a model with a head (``transformer.h.0.attn``) and the reverse.
    """

    def __init__(self, where: str, tensors: Mapping[str, object], factors: Mapping[str, object]) -> None:
        self._cut = self._added = ""
        self._modules = modules = {name.rpartition(".")[0] for name in tensors}
        # What the base has under a parameter's name, and no module's, is told of later.
        wanted = [name for name in sorted(factors) if not any(each.startswith(f"{name}.") for each in tensors)]
        if not wanted or "" in factors:
            return
        first = wanted[0]
        tries = [(first[: len(first) - len(tail)], "") for tail in _tails(first) if tail in modules]
        tries += [("", name[: -len(first)]) for name in modules if name.endswith(f".{first}")]
        for cut, added in sorted(tries, key=lambda each: (len(each[0]) + len(each[1]), each)):
            if all(name.startswith(cut) and added + name[len(cut) :] in modules for name in factors):
                self._cut, self._added = cut, added
                return
        raise WeightsError(
            f"{where}: the adapter adapts {first}, which its base does not have",
            "give the base that it was trained on, as --base REF",
        )

    def place(self, name: str) -> str:
        """The base's name of a module or tensor of the adapter; its own, if the base has no such module."""
        if self._cut:
            return name.removeprefix(self._cut)
        moved = self._added + name
        return moved if moved in self._modules or moved.rpartition(".")[0] in self._modules else name


def _tails(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(1, min(4, len(parts)))]


class _Scaling:
    """The factor of each module, from ``adapter_config.json``."""

    def __init__(self, where: str, config: Mapping[str, Any]) -> None:
        self.config = config
        self._where = where
        if "r" not in config or "lora_alpha" not in config:
            raise WeightsError(f"{where} holds a LoRA adapter, whose scaling no tensor has", _CONFIG)
        self._rank = self._number(config["r"], "r")
        self._alpha = self._number(config["lora_alpha"], "lora_alpha")
        self._ranks = self._patterns("rank_pattern")
        self._alphas = self._patterns("alpha_pattern")
        enabled = config.get("enable_lora")
        self.enabled = tuple(map(bool, enabled)) if isinstance(enabled, list) else ()

    def of(self, module: str, stored: int) -> tuple[int, float]:
        """Rank and factor of a module, of whose first factor ``stored`` rows are in the file."""
        rank = int(next((value for pattern, value in self._ranks if pattern.fullmatch(module)), self._rank))
        alpha = next((value for pattern, value in self._alphas if pattern.fullmatch(module)), self._alpha)
        expected = rank * sum(self.enabled) if self.enabled else rank
        if rank < 1 or stored != expected:
            raise WeightsError(
                f"{self._where}: the adapter of {module} has rank {stored}, its configuration says {expected}",
                "put the adapter_config.json that was saved with the adapter beside it",
            )
        return rank, alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def _number(self, value: object, what: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise WeightsError(f"{self._where}: {what} of adapter_config.json is {str(value)[:40]!r}, no number", MERGE)
        return float(value)

    def _patterns(self, what: str) -> list[tuple[re.Pattern[str], float]]:
        """Names of modules, or their ends, and the number of each; only such text is taken as a pattern."""
        given = self.config.get(what) or {}
        if not isinstance(given, dict) or len(given) > 10_000:
            raise WeightsError(f"{self._where}: {what} of adapter_config.json is no table of modules", MERGE)
        found = []
        for key, value in given.items():
            if not _PATTERN.fullmatch(str(key)):
                raise WeightsError(
                    f"{self._where}: {what} of adapter_config.json has a pattern that is not read, {str(key)[:60]!r}",
                    MERGE,
                )
            try:
                pattern = re.compile(rf"(?:.*\.)?(?:{key})", re.DOTALL)
            except re.error as error:
                raise WeightsError(
                    f"{self._where}: {what} has the pattern {str(key)[:60]!r}: {error}", MERGE
                ) from error
            found.append((pattern, self._number(value, what)))
        return found


def _merged(
    where: str,
    target: EffectiveTensor,
    a: EffectiveTensor,
    b: EffectiveTensor,
    scale: float,
    *,
    rank: int,
    enabled: Sequence[bool] = (),
    config: Mapping[str, Any],
    embedding: bool = False,
    outputs_last: bool = False,
) -> EffectiveTensor:
    """The weight W + s B A. Raises ``WeightsError`` where the shapes do not fit."""
    unfit = WeightsError(
        f"{where}: the adapter's factors {a.shape} and {b.shape} do not fit {target.name} of shape {target.shape}",
        "give the base that it was trained on, as --base REF",
    )
    if not (is_float(target.dtype) and is_float(a.dtype) and is_float(b.dtype)):
        raise WeightsError(f"{where}: {target.name} is {target.dtype}, to which no adapter can be added", MERGE)
    if len(a.shape) < 2 or len(b.shape) < 2 or len(target.shape) < 2:
        raise unfit
    read_b: Callable[[], NDArray[np.float64]] = _flat(b)
    outputs, flat = b.shape[0], (b.shape[0], *a.shape[1:])
    if enabled:
        if len(b.shape) != 3 or sum(enabled) != 2 or len(target.shape) != 2:  # which then were two groups
            raise WeightsError(f"{where}: {target.name} has an adapter with enable_lora, which is not read", MERGE)
        outputs, rest = divmod(b.shape[0] * len(enabled), 2)
        if rest or b.shape[1:] != (rank, 1) or outputs % len(enabled):
            raise unfit
        read_b, flat = _grouped(b, enabled, outputs, rank), (outputs, a.shape[1])
    elif a.shape[0] != b.shape[1] or b.info.size != b.shape[0] * b.shape[1]:
        raise unfit
    turned = embedding
    if embedding or len(target.shape) == 2:
        plain = tuple(extent for extent in flat if extent > 1) if len(flat) > 2 else flat
        fits, fits_turned = target.shape == plain, target.shape == plain[::-1]
        if not (fits or fits_turned) or (embedding and not fits_turned):
            raise unfit
        if fits and fits_turned and not embedding:
            turned = outputs_last
            if config.get("fan_in_fan_out") and not outputs_last:
                raise WeightsError(
                    f"{where}: which axis of {target.name} holds the outputs is not known: the adapter says "
                    "fan_in_fan_out, and the matrix is square",
                    MERGE,
                )
        elif not embedding:
            turned = fits_turned
    elif target.shape != flat:
        raise unfit
    size = int(np.prod(target.shape[1:]))
    read_a = _flat(a)

    def rows(start: int, stop: int) -> NDArray[np.floating]:
        factor_a, factor_b = read_a(), read_b()
        left, right = (factor_a.T, factor_b.T) if turned else (factor_b, factor_a)
        out = np.empty((stop - start, *target.shape[1:]), np.float64 if target.dtype == "float64" else np.float32)
        step = max(1, _AT_ONCE // max(1, size))
        for begin in range(start, stop, step):
            end = min(stop, begin + step)
            added = (scale * (left[begin:end] @ right)).reshape(end - begin, *target.shape[1:])
            out[begin - start : end - start] = np.asarray(target.rows(begin, end), np.float64) + added
        return out

    return EffectiveTensor(
        target.name,
        target.dtype,
        target.shape,
        rows,
        (*target.parts, *a.parts, *b.parts),
        f"{target.precision or target.dtype} + lora",
        target.cut,
        setting=f"{target.setting} lora {scale!r}".strip(),
    )


def _flat(tensor: EffectiveTensor) -> Callable[[], NDArray[np.float64]]:
    return lambda: np.asarray(tensor.read(), np.float64).reshape(tensor.shape[0], -1)


def _grouped(b: EffectiveTensor, enabled: Sequence[bool], outputs: int, rank: int) -> Callable[[], NDArray[np.float64]]:
    """B of a layer of fused outputs of which two parts are adapted, each by its own rows of A (peft before 0.3)."""

    def read() -> NDArray[np.float64]:
        groups = np.asarray(b.read(), np.float64).reshape(2, -1, rank)
        # As the forward pass does: the outputs of both groups, one after the other, fill the enabled parts in order.
        made = np.zeros((outputs, 2 * rank))
        rows = np.flatnonzero(np.repeat(np.asarray(enabled, bool), outputs // len(enabled))).reshape(2, -1)
        for group in range(2):
            made[rows[group], group * rank : (group + 1) * rank] = groups[group]
        return made

    return read


def _fold_kohya(view: TensorView) -> None:
    """Factors named ``lora_unet_down_blocks_0_...``, the module's name with underscores, each with its alpha."""
    groups: dict[tuple[str, str], dict[str, EffectiveTensor]] = {}
    for name in list(view.tensors):
        if match := _KOHYA.fullmatch(name.removeprefix(PREFIX)):
            groups.setdefault((match[1], match[2]), {})[match[3]] = view.tensors.pop(name)
    known: dict[str, str] = {}
    for name in view.tensors:
        module, _, last = name.rpartition(".")
        if last == "weight" and known.setdefault(module.replace(".", "_"), module) != module:
            raise WeightsError(f"{view.where}: {module} and another module have one name with underscores", _FUSE)
    where = view.where
    for prefix in sorted({prefix for prefix, _ in groups}):
        modules = sorted(module for first, module in groups if first == prefix)
        missing = [module for module in modules if module not in known]
        if len(missing) == len(modules) and len({first for first, _ in groups}) > 1:
            view.notes.append(f"{counted(len(modules), 'factor')} {prefix}_* adapt another model than the base")
            continue
        if missing:
            raise WeightsError(
                f"{where}: the adapter adapts {prefix}_{missing[0]}, which its base does not have",
                "give the base that it was trained on, as --base REF",
            )
        for module in modules:
            parts = groups[prefix, module]
            a, b, alpha = parts.get("lora_down.weight"), parts.get("lora_up.weight"), parts.get("alpha")
            if a is None or b is None or alpha is None or alpha.info.size != 1 or not a.shape:
                raise WeightsError(
                    f"{where}: the adapter of {prefix}_{module} lacks one of lora_down, lora_up and alpha", _FUSE
                )
            scale = float(np.asarray(alpha.read()).reshape(())) / a.shape[0]
            if not math.isfinite(scale):
                raise WeightsError(f"{where}: alpha of {prefix}_{module} is not finite", _FUSE)
            target = view.tensors[f"{known[module]}.weight"]
            view.put(_merged(where, target, a, b, scale, rank=a.shape[0], config={}))
    if all(tensor.setting == "" for tensor in view.tensors.values()):
        raise WeightsError(f"{where}: the adapter adapts nothing of its base", _FUSE)
