"""What transformers builds: every model class with the default configuration, and further published sizes."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.types import PublishedWeights
from scripts.catalogue.recipes import Library, Recipe
from scripts.catalogue.transformers_sizes import SIZES, TOWERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from scripts.catalogue.transformers_sizes import Size

__all__ = ["transformers_library"]

_HEAD = re.compile(r"For(?=[A-Z])|With(?=LMHead|Teacher|Projection)|(?=LMHeadModel$|LMHead$)")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z]+|\d+")
_TASKS = {
    "image classification": "classification",
    "image classification with teacher": "classification",
    "object detection": "detection",
    "semantic segmentation": "segmentation",
    "lm head model": "causal lm",
    "lm head": "causal lm",
}
"""The words of other libraries for the same."""

_NO_CLASSES = re.compile(
    r"(ForCausalLM|ForMaskedLM|LMHeadModel|ForConditionalGeneration|ForPreTraining|Encoder|Decoder|ForMultipleChoice"
    r"|ForNextSentencePrediction)$"
)


def transformers_library() -> Library:
    """Recipes of all model classes of transformers by its configurations, and of the published sizes."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    refused: dict[str, str] = {}
    modules = dict(_modules(refused))
    recipes: dict[str, Recipe] = {}
    for module in modules.values():
        for model in _models_of(module):
            configs = _configs_of(model)
            if not configs:
                refused[model.__name__] = "no configuration of its own"
            for config in configs:
                _put(recipes, _recipe(model, config, modules[model.__module__], suffix=""))
    for model, config in _other_pairs(modules, refused):
        _put(recipes, _recipe(model, config, modules[model.__module__], suffix=f"@{config.model_type}"))
    weights = []
    for size in (*SIZES, *TOWERS):
        config = getattr(transformers, size.config)
        for name in size.models:
            model = getattr(transformers, name)
            _put(recipes, _recipe(model, config, modules[model.__module__], suffix=f"@{size.checkpoint}", size=size))
        if size in SIZES:
            weights.append((f"{size.models[0]}@{size.checkpoint}", _published(size)))
    return Library(
        "transformers",
        {"transformers": transformers.__version__, "torch": torch.__version__.partition("+")[0]},
        tuple(recipes[name] for name in sorted(recipes)),
        tuple(weights),
        refused=refused,
        sources=(
            f"transformers {transformers.__version__}: default configurations",
            "config.json of the checkpoints that scripts/catalogue/transformers_sizes.py lists: further sizes",
        ),
    )


def _put(recipes: dict[str, Recipe], recipe: Recipe) -> None:
    """Add a recipe; of two classes with one name, each has its module behind it."""
    held = recipes.get(recipe.name)
    if held is not None and held != recipe:
        raise ValueError(f"two architectures are called {recipe.name}: {held.codes[-1]} and {recipe.codes[-1]}")
    recipes[recipe.name] = recipe


def _modules(refused: dict[str, str]) -> Iterator[tuple[str, Any]]:
    """The modules of transformers that define models; those that need a missing package are refused."""
    import transformers.models

    for path in sorted(Path(transformers.models.__path__[0]).glob("*/modeling_*.py")):
        name = f"transformers.models.{path.parent.name}.{path.stem}"
        try:
            yield name, import_module(name)
        except ImportError as error:
            refused[path.parent.name] = f"{type(error).__name__}: {error}"


def _models_of(module: Any) -> Iterator[type]:
    """The classes of a module, without those that are called as what others derive from."""
    from transformers import PreTrainedModel

    for name, found in sorted(vars(module).items()):
        is_model = inspect.isclass(found) and issubclass(found, PreTrainedModel)
        if is_model and found.__module__ == module.__name__ and not name.endswith("PreTrainedModel"):
            yield found


def _configs_of(model: Any) -> list[Any]:
    """The configuration classes of a model; of a union, the first that is one."""
    from transformers import PreTrainedConfig

    stated = model.config_class
    among = getattr(stated, "__args__", (stated,))
    return [one for one in among if inspect.isclass(one) and issubclass(one, PreTrainedConfig)][:1]


def _other_pairs(modules: Mapping[str, Any], refused: dict[str, str]) -> Iterator[tuple[Any, Any]]:
    """Models that transformers' tables build for a type whose configuration is not their own."""
    import transformers
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    seen = set()
    for table in sorted(name for name in vars(modeling_auto) if name.endswith("MAPPING_NAMES")):
        for type_, names in sorted(getattr(modeling_auto, table).items()):
            if type_ not in CONFIG_MAPPING_NAMES:
                continue
            for name in (names,) if isinstance(names, str) else names:
                try:
                    model, config = getattr(transformers, name), getattr(transformers, CONFIG_MAPPING_NAMES[type_])
                except (AttributeError, ImportError) as error:
                    refused[f"{name}@{type_}"] = f"{type(error).__name__}: {error}"
                    continue
                if model.__module__ not in modules or config in _configs_of(model) or (model, config) in seen:
                    continue
                seen.add((model, config))
                yield model, config


def _recipe(model: Any, config: Any, module: Any, *, suffix: str, size: Size | None = None) -> Recipe:
    values = dict(size.values) if size is not None else {}
    whole = _qualified(model)
    settings = _qualified(config)
    default = _default(config, values)
    symbols = []
    if _may_follow_classes(model, module):
        symbols.append("num_labels={classes}")
    if isinstance(getattr(default, "num_channels", None), int):
        symbols.append("num_channels={channels}")
    tried = [symbols, *([[one] for one in symbols] if len(symbols) > 1 else []), *([[]] if symbols else [])]
    fixed = [f"{name}={value!r}".replace("{", "{{").replace("}", "}}") for name, value in values.items()]
    codes = tuple(f"{whole}({settings}({', '.join([*fixed, *one])}))" for one in tried)
    plain = ", ".join(f"{name}={value!r}" for name, value in values.items())
    exported = whole.count(".") == 1
    image_size = getattr(default, "image_size", None)
    return Recipe(
        "transformers",
        f"{model.__name__}{suffix}",
        codes,
        "transformers" if exported and settings.count(".") == 1 else model.__module__,
        model.__module__.split(".")[2],
        _task(model.__name__),
        classes=(size.classes if size is not None else None) or getattr(default, "num_labels", None),
        channels=getattr(default, "num_channels", None),
        image_size=image_size if isinstance(image_size, int) else None,
        config_code=f"{settings}({plain}).to_dict()",
    )


def _qualified(found: Any) -> str:
    """The shortest name by which a class can be had."""
    import transformers

    name: str = found.__name__
    exported = getattr(transformers, name, None)
    return f"transformers.{name}" if exported is found else f"{found.__module__}.{name}"


def _default(config: Any, values: Mapping[str, Any]) -> Any:
    """The configuration with these values; None where it cannot be made, which the build will say."""
    try:
        return config(**values)
    except Exception:  # noqa: BLE001  # the build of the same configuration is what gives the reason
        return None


def _may_follow_classes(model: Any, module: Any) -> bool:
    """Whether the number of labels can move the layout: the class or what it is built of speaks of it."""
    name = model.__name__
    if _NO_CLASSES.search(name):
        return False
    source = Path(module.__file__).read_text(encoding="utf-8")
    start = source.find(f"\nclass {name}(")
    following = source.find("\nclass ", start + 1)
    own = source[start : following if following > 0 else len(source)]
    generic = any("GenericFor" in base.__name__ for base in model.__mro__)
    return generic or "num_labels" in own or ("For" in name and "num_labels" in source)


def _task(name: str) -> str:
    """What a class is built for, by its name; ``features`` for a network without a head."""
    match = _HEAD.search(name)
    if match is None:
        return "features"
    words = " ".join(_WORDS.findall(name[match.end() :])).lower()
    return _TASKS.get(words, words)


def _published(size: Size) -> PublishedWeights:
    return PublishedWeights(
        0,
        0,
        size.checkpoint,
        f"hf:{size.checkpoint}",
        classes=size.classes,
        url=f"https://huggingface.co/{size.checkpoint}",
    )
