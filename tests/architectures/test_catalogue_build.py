"""Layouts that the builder finds are those of the real libraries, at other numbers than they were found with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from registry.architectures.catalogue_file import Catalogue, Cost
from registry.architectures.layout_text import tensors_of
from registry.types import ArchitectureTensor, PublishedWeights, Symbol, Symbolic
from scripts.catalogue import assembly
from scripts.catalogue.dataless import build, evaluate, tensors_of_module
from scripts.catalogue.header_vectors import vector_of
from scripts.catalogue.layouts import built
from scripts.catalogue.recipes import Library, Recipe, each_once
from scripts.catalogue.symbolic_extents import NotLinearError, Trial, solved, trial_numbers
from scripts.catalogue.workers import build_all
from tests.conftest import missing

if TYPE_CHECKING:
    from pathlib import Path

    import torch

CLASSES, CHANNELS = 6, 2  # no numbers of the builds that solve


def recipe(library: str, name: str, imports: str, classes: int | None, channels: int | None, *codes: str) -> Recipe:
    return Recipe(library, name, codes, imports, "family", "task", classes, channels)


def torchvision_recipe(name: str, options: str = "") -> Recipe:
    call = f"torchvision.models.{name}({options}"
    return recipe("torchvision", name, "torchvision", 1000, None, f"{call}num_classes={{classes}})", f"{call[:-1]})")


def timm_recipe(name: str) -> Recipe:
    call = f'timm.create_model("{name}"'
    both = f"{call}, num_classes={{classes}}, in_chans={{channels}})"
    return recipe("timm", name, "timm", 1000, 3, both, f"{call}, num_classes={{classes}})", f"{call})")


def transformers_recipe(model: str, config: str, given: str = "", classes: int | None = 2) -> Recipe:
    call = f"transformers.{model}(transformers.{config}({given}"
    codes = (f"{call}num_labels={{classes}}))", f"{call}))") if classes else (f"{call}))",)
    return recipe("transformers", model, "transformers", classes, None, *codes)


SMALL = "hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=50, "
REAL = [
    torchvision_recipe("resnet18"),
    torchvision_recipe("regnet_y_400mf"),  # asks for values of tensors without data
    torchvision_recipe("detection.ssdlite320_mobilenet_v3_large", "weights_backbone=None, "),
    torchvision_recipe("detection.fasterrcnn_mobilenet_v3_large_320_fpn", "weights_backbone=None, "),
    timm_recipe("resnet10t"),
    timm_recipe("test_vit"),
    timm_recipe("deit_tiny_distilled_patch16_224"),
    transformers_recipe("BertForSequenceClassification", "BertConfig", SMALL),
    transformers_recipe("BertForMaskedLM", "BertConfig", SMALL, None),  # decoder and embedding are tied
    transformers_recipe("ViTForImageClassification", "ViTConfig", SMALL.partition("vocab")[0]),
]


def tensors_by_hand(module: torch.nn.Module) -> list[tuple[object, ...]]:
    """Name, shape, kind and tie of each tensor of a module with data: the same address is the same storage."""
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    first: dict[object, str] = {}
    found = []
    for name, value in module.state_dict().items():
        tied = first.setdefault((value.data_ptr(), value.shape), name) if value.numel() else name
        found.append(
            (name, tuple(value.shape), name not in parameters, value.is_floating_point(), "" if tied == name else tied)
        )
    return found


@pytest.mark.filterwarnings("ignore")  # of the libraries
@pytest.mark.parametrize("asked", REAL, ids=lambda one: one.label)
def test_a_layout_is_that_of_the_module_with_data(asked: Recipe) -> None:
    """The number of values, and names, shapes, kinds and ties at other numbers of classes and channels."""
    if asked.library != "torchvision":
        try:
            __import__(asked.imports)
        except ImportError as error:
            missing(f"{asked.imports} cannot be imported: {error}")
    found = built(asked)
    assert not found.reason
    module = evaluate(found.code.format(classes=CLASSES, channels=CHANNELS), asked.imports)
    tensors = tensors_of(found.text)
    sized = [(one.name, one.sized(CLASSES, CHANNELS), one.buffer, one.floating, one.tied) for one in tensors]
    assert sized == tensors_by_hand(module)
    assert ("classes" in {symbol for one in tensors for symbol in one.symbols}) == (found.classes is not None)
    default = evaluate(found.code.format(classes=found.classes, channels=found.channels), asked.imports)
    assert found.parameters == sum(one.numel() for one in default.parameters() if one.requires_grad)
    assert len(found.vector) > 0


def test_arguments_that_move_nothing_are_left_out() -> None:
    asked = recipe(
        "torch", "linear", "torch", 10, 3, "torch.nn.Linear(8, {classes} - {classes} + 5)", "torch.nn.Linear(8, 5)"
    )
    found = built(asked)
    assert (found.code, found.classes, found.notes) == ("torch.nn.Linear(8, 5)", None, ())


def test_what_does_not_follow_linearly_is_noted_and_built_without() -> None:
    asked = recipe("torch", "square", "torch", 10, None, "torch.nn.Linear(8, {classes} ** 2)", "torch.nn.Linear(8, 5)")
    found = built(asked)
    assert found.code == "torch.nn.Linear(8, 5)"
    assert "weight has extents 100, 169, 841 with 10 classes; 13 classes; 29 classes" in found.notes[0]


def test_what_cannot_be_built_has_the_librarys_reason() -> None:
    found = built(recipe("torch", "wrong", "torch", None, None, "torch.nn.Linear(8)"))
    assert "TypeError: Linear.__init__() missing 1 required positional argument" in found.reason
    assert not found.text
    assert "no tensors" in built(recipe("torch", "empty", "torch", None, None, "torch.nn.ReLU()")).reason
    assert "not a module" in built(recipe("torch", "number", "torch", None, None, "torch.pi")).reason


def test_of_two_errors_the_second_tells_unless_it_is_for_want_of_memory() -> None:
    """A value that has to be there is asked for in the second way alone."""
    for later, told in (("MemoryError()", KeyError), ("OSError()", OSError)):
        code = f"(_ for _ in ()).throw(KeyError('first') if torch.empty(1).is_meta else {later})"
        with pytest.raises(told):
            build(code, "torch")


def trial(numbers: dict[Symbol, int], *shape: int, name: str = "w") -> Trial:
    return Trial(numbers, (ArchitectureTensor(name, shape),))


def test_extents_follow_the_argument_that_moves_them() -> None:
    """One extent equals the number of classes by chance and stays."""
    defaults: dict[Symbol, int] = {"classes": 1000, "channels": 3}
    numbers = [defaults, *trial_numbers(defaults)]
    trials = [trial(one, 4 * one["classes"] + 4, 1000, 3 * one["channels"]) for one in numbers]
    [tensor] = solved(trials)
    assert tensor.shape == (Symbolic("classes", 4, 4), 1000, Symbolic("channels", 3))


@pytest.mark.parametrize("default", [1000, 13, 29, 10, 2])
@pytest.mark.parametrize("channels", [3, 7, 5, 1])
def test_no_extent_follows_both_arguments(default: int, channels: int) -> None:
    defaults: dict[Symbol, int] = {"classes": default, "channels": channels}
    numbers = [defaults, *trial_numbers(defaults)]
    assert len({one["classes"] for one in numbers}) == len({one["channels"] for one in numbers}) == 3
    [tensor] = solved([trial(one, one["classes"], one["channels"]) for one in numbers])
    assert tensor.shape == (Symbolic("classes"), Symbolic("channels"))


def test_other_tensors_and_bent_lines_are_refused() -> None:
    numbers: list[dict[Symbol, int]] = [{"classes": 10}, {"classes": 13}, {"classes": 29}]
    with pytest.raises(NotLinearError, match="other tensors with 29 classes"):
        solved([trial(numbers[0], 1), trial(numbers[1], 1), trial(numbers[2], 1, name="v")])
    with pytest.raises(NotLinearError, match="number of dimensions"):
        solved([trial(numbers[0], 1), trial(numbers[1], 1), trial(numbers[2], 1, 1)])
    with pytest.raises(NotLinearError, match="has extents 20, 20, 29"):
        solved([trial(one, max(20, one["classes"])) for one in numbers])


def test_a_parameter_that_is_registered_twice_stays_one_without_data() -> None:
    """In the second way of building, too, where values exist until they are registered."""
    code = (
        "(lambda m: (setattr(m, 'again', m.weight), m.register_buffer('n', torch.ones(int(torch.ones(1)))), m)[-1])"
        "(torch.nn.Linear(3, 3))"
    )
    module = build(code, "torch")
    assert {name: value.is_meta for name, value in module.named_parameters()} == {"weight": True, "bias": True}
    assert [one.tied for one in tensors_of_module(module).tensors] == ["", "", "weight", ""]


def test_a_network_without_layer_matrices_has_no_vector() -> None:
    vector, reason = vector_of((ArchitectureTensor("norm.weight", (8,)),), None, None, {})
    assert (vector, bool(reason)) == ("", True)


def test_each_image_size_has_one_cost() -> None:
    one, other = Cost(0, 224, 1.0, "a"), Cost(0, 224, 2.0, "b")
    assert each_once([("net", one), ("net", one._replace(source="c"))]) == (("net", one),)
    with pytest.raises(ValueError, match=r"1\.0 and 2\.0 are stated"):
        each_once([("net", one), ("net", other)])


def library() -> Library:
    return Library(
        "torch",
        {"torch": "1"},
        (
            recipe("torch", "a", "torch", 10, None, "torch.nn.Linear(8, {classes})"),
            recipe("torch", "b", "torch", 10, None, "torch.nn.Linear(8, {classes})"),
            recipe("torch", "c", "torch", None, None, "torch.nn.Nothing()"),
        ),
        weights=(("a", PublishedWeights(0, 0, "v1", "torch:a.v1")), ("c", PublishedWeights(0, 0, "v1", "torch:c.v1"))),
        costs=(("b", Cost(0, 32, 0.5, "a table")),),
        refused={"d": "a package is missing"},
        asks_metadata=("b",),
        sources=("a table",),
    )


def test_equal_layouts_are_one_and_what_is_not_built_has_its_reason(tmp_path: Path) -> None:
    asked = library()
    path = tmp_path / "c.db"
    assembly.write(path, [asked], {"torch": [built(one) for one in asked.recipes]})
    with Catalogue(path) as opened:
        assert [(one.name, one.layout) for one in opened.architectures()] == [("a", 1), ("b", 1)]
        assert [(one.id, one.architecture, one.reference) for one in opened.weights()] == [(1, 1, "torch:a.v1")]
        assert opened.costs() == (Cost(2, 32, 0.5, "a table"),)
        assert opened.facts["not_built"].keys() == {"torch/c", "torch/d"}
        assert opened.facts["asks_metadata"] == ["torch/b"]
        assert opened.facts["counts"] == {"torch": 2}


def test_layouts_that_share_most_lines_are_similar() -> None:
    texts = {1: "a\nb\nc\nd", 2: "a\nb\nc", 3: "x\ny", 4: "a\nb"}
    assert assembly.similar_layouts(texts) == {2: 1, 4: 1}


@pytest.mark.parametrize("died", [False, True])
def test_results_are_kept_and_a_worker_that_dies_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, died: bool
) -> None:
    """A second call builds nothing; an end of the process is told of its recipe alone."""
    kept = tmp_path / "kept.jsonl"
    module = "torch.nn.Linear(8, 5)"
    wrong = [recipe("torch", "wrong", "torch", None, None, "torch.os._exit(1)")] if died else []
    asked = [*wrong, recipe("torch", "right", "torch", None, None, module)]
    shown: list[tuple[int, int]] = []
    found = build_all(asked, kept, {"torch": "1"}, lambda *done: shown.append(done), jobs=1)
    assert [one.reason[:17] for one in found] == [*(["the process ended"] if died else []), ""]
    assert found[-1].code == module
    assert shown[-1] == (len(asked), len(asked))
    monkeypatch.setattr("scripts.catalogue.workers._spread", None)
    kept.write_text(kept.read_text() + '{"cut')
    assert build_all(asked, kept, {"torch": "1"}, lambda *_: None) == found
