"""Files are recognised by their shapes: exactly, but for the head, nearly, or not at all."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.architectures.catalogue_file import Catalogue, write_catalogue
from registry.architectures.matching import recognise
from registry.types import Architecture, ArchitectureTensor, Layout, Recognised, Symbolic, TensorInfo

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

CLASSES, CHANNELS = Symbolic("classes"), Symbolic("channels")


def conv(name: str, outputs: int, inputs: int | Symbolic, size: int = 3) -> ArchitectureTensor:
    return ArchitectureTensor(f"{name}.weight", (outputs, inputs, size, size))


def linear(name: str, outputs: int | Symbolic, inputs: int) -> list[ArchitectureTensor]:
    return [ArchitectureTensor(f"{name}.weight", (outputs, inputs)), ArchitectureTensor(f"{name}.bias", (outputs,))]


def norm(name: str, width: int, statistics: bool) -> list[ArchitectureTensor]:
    own = [ArchitectureTensor(f"{name}.{one}", (width,)) for one in ("weight", "bias")]
    if statistics:
        own += [ArchitectureTensor(f"{name}.running_{one}", (width,), buffer=True) for one in ("mean", "var")]
        own.append(ArchitectureTensor(f"{name}.num_batches_tracked", (), buffer=True, floating=False))
    return own


def residual(widths: Sequence[int], *, statistics: bool = True, head: str = "fc") -> tuple[ArchitectureTensor, ...]:
    tensors = [conv("conv1", widths[0], CHANNELS, 7), *norm("bn1", widths[0], statistics)]
    before = widths[0]
    for at, width in enumerate(widths):
        for block in range(2):
            name = f"layer{at + 1}.{block}"
            tensors += [conv(f"{name}.conv1", width, before), *norm(f"{name}.bn1", width, statistics)]
            tensors += [conv(f"{name}.conv2", width, width), *norm(f"{name}.bn2", width, statistics)]
            before = width
    return (*tensors, *linear(head, CLASSES, before))


def stacked(widths: Sequence[int]) -> tuple[ArchitectureTensor, ...]:
    """Convolutions without norms, and a head of three layers."""
    tensors, before = [], 3
    for at, width in enumerate(widths):
        tensors += [
            conv(f"features.{3 * at}", width, before),
            ArchitectureTensor(f"features.{3 * at}.bias", (width,)),
        ]
        before = width
    return (*tensors, *linear("classifier.0", 96, before), *linear("classifier.3", CLASSES, 96))


def attending() -> tuple[ArchitectureTensor, ...]:
    """A language model whose decoder is tied to its embedding, with a table that is a buffer."""
    tensors = [ArchitectureTensor("embed.weight", (500, 24)), ArchitectureTensor("table", (40, 24), buffer=True)]
    for block in range(3):
        tensors += linear(f"blocks.{block}.attention", 72, 24)
        tensors += linear(f"blocks.{block}.out", 24, 24)
        tensors += linear(f"blocks.{block}.mlp", 96, 24)
    return (*tensors, ArchitectureTensor("decoder.weight", (500, 24), tied="embed.weight"))


def renamed(tensors: Iterable[ArchitectureTensor], old: str, new: str) -> tuple[ArchitectureTensor, ...]:
    return tuple(tensor._replace(name=tensor.name.replace(old, new)) for tensor in tensors)


RESIDUAL = residual((16, 32, 64))
SWAPPED = (*RESIDUAL[:6], *reversed(RESIDUAL[6:-2]), *RESIDUAL[-2:])
NETS = {
    "residual": RESIDUAL,
    "residual_gn": residual((16, 32, 64), statistics=False),
    "swapped": renamed(SWAPPED, "layer", "stage"),
    "renamed": renamed(RESIDUAL, "layer", "block"),
    "wide": residual((24, 48, 96)),
    "stacked": stacked((16, 16, 32, 32, 64, 64, 64, 64)),
    "attending": attending(),
    "headed": residual((20, 40)),
    "trunk": renamed(residual((20, 40))[:-2], "layer", "stage"),
    "odd": (conv("body", 40, CHANNELS), *linear("head", Symbolic("classes", 4, 4), 40)),
}
IDS = {name: at for at, name in enumerate(NETS, 1)}


def sized(name: str, classes: int = 10, channels: int = 3) -> list[TensorInfo]:
    return [
        TensorInfo(one.name, "float32" if one.floating else "int64", one.sized(classes, channels)) for one in NETS[name]
    ]


def numbered(tensors: Iterable[TensorInfo]) -> list[TensorInfo]:
    return [replace(tensor, name=str(at)) for at, tensor in enumerate(tensors)]


def prefixed(tensors: Iterable[TensorInfo], prefix: str) -> list[TensorInfo]:
    return [replace(tensor, name=prefix + tensor.name) for tensor in tensors]


def floating(tensors: Iterable[TensorInfo]) -> list[TensorInfo]:
    return [tensor for tensor in tensors if tensor.dtype == "float32"]


def parameters_only(name: str) -> list[TensorInfo]:
    buffers = {tensor.name for tensor in NETS[name] if tensor.buffer}
    return [tensor for tensor in sized(name) if tensor.name not in buffers]


def names(found: Recognised) -> list[str]:
    return [match.architecture.name for match in found.matches]


def write(path: Path, facts: dict[str, object] | None = None) -> Path:
    layouts = [Layout(IDS[name], tensors) for name, tensors in NETS.items()]
    architectures = [
        Architecture(at, "lib", name, at, f"lib.{name}({{classes}})", "lib", family=name, classes=1000, channels=3)
        for name, at in IDS.items()
    ]
    write_catalogue(path, layouts, architectures, [], [], vectors={}, similar={}, facts=facts or {})
    return path


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalogue]:
    with Catalogue(write(tmp_path_factory.mktemp("catalogue") / "catalogue.db")) as opened:
        yield opened


@pytest.mark.parametrize("name", NETS)
def test_an_own_file_is_exact_and_first(catalogue: Catalogue, name: str) -> None:
    found = recognise(sized(name), catalogue)
    assert found.verdict == "exact"
    assert names(found)[0] == name
    best = found.matches[0]
    assert best.exact
    assert best.named
    assert best.strict
    assert best.share == 1.0
    assert best.prefix == ""
    assert best.differences == ()
    assert not found.headless
    assert not any(match.strict for match in found.matches[1:])


def test_head_and_stem_are_named_with_their_numbers(catalogue: Catalogue) -> None:
    best = recognise(sized("residual", classes=37, channels=5), catalogue).matches[0]
    assert (best.classes, best.channels) == (37, 5)
    assert best.head == ("fc.weight", "fc.bias")
    assert best.stem == ("conv1.weight",)
    assert best.architecture.line(best.classes) == "lib.residual(37)"


def test_a_factor_and_an_offset_are_solved(catalogue: Catalogue) -> None:
    assert recognise(sized("odd", classes=7), catalogue).matches[0].classes == 7
    wrong = [
        *sized("odd")[:1],
        TensorInfo("head.weight", "float32", (33, 40)),
        TensorInfo("head.bias", "float32", (33,)),
    ]
    assert recognise(wrong, catalogue).verdict != "exact"


def test_the_class_of_equal_shapes_is_listed_in_the_order_of_the_ties(catalogue: Catalogue) -> None:
    # The names of "residual", then equal order, then equal shapes; without statistics it could be these, too.
    assert names(recognise(sized("residual"), catalogue)) == ["residual", "renamed", "swapped"]
    assert names(recognise(numbered(sized("swapped")), catalogue))[0] == "swapped"
    first = names(recognise(numbered(sized("residual")), catalogue))
    assert set(first[:2]) == {"residual", "renamed"}
    assert first[2] == "swapped"


def test_numbers_in_place_of_names_are_exact_and_neither_named_nor_strict(catalogue: Catalogue) -> None:
    best = recognise(numbered(sized("wide")), catalogue).matches[0]
    assert best.architecture.name == "wide"
    assert best.exact
    assert not best.named
    assert not best.strict
    assert best.prefix == ""
    last = len(NETS["wide"]) - 2
    assert best.head == (str(last), str(last + 1))
    assert best.stem == ("0",)


@pytest.mark.parametrize("prefix", ["module.", "model.", "backbone.", "_orig_mod.", "module._orig_mod.", "a/b.", "x."])
def test_a_prefix_is_found_and_removed(catalogue: Catalogue, prefix: str) -> None:
    best = recognise(prefixed(sized("wide"), prefix), catalogue).matches[0]
    assert (best.architecture.name, best.prefix, best.named, best.strict) == ("wide", prefix, True, True)
    assert best.head == (f"{prefix}fc.weight", f"{prefix}fc.bias")


def test_one_tensor_without_the_prefix_is_not_strict(catalogue: Catalogue) -> None:
    tensors = prefixed(sized("wide"), "net.")
    tensors[3] = sized("wide")[3]
    best = recognise(tensors, catalogue).matches[0]
    assert best.exact
    assert not best.strict
    assert not best.named


def test_parameters_alone_are_exact_and_not_strict(catalogue: Catalogue) -> None:
    best = recognise(parameters_only("wide"), catalogue).matches[0]
    assert (best.architecture.name, best.exact, best.named, best.strict) == ("wide", True, True, False)
    both = recognise(parameters_only("residual"), catalogue)
    assert both.verdict == "exact"
    # Those whose whole state dict it is come before those that lack their statistics.
    assert names(both) == ["residual_gn", "residual", "renamed", "swapped"]
    assert [match.strict for match in both.matches] == [True, False, False, False]


def test_a_part_of_the_buffers_is_not_exact(catalogue: Catalogue) -> None:
    tensors = [tensor for tensor in sized("wide") if tensor.name != "bn1.running_var"]
    found = recognise(tensors, catalogue)
    assert found.verdict == "near"
    assert [one.expected for one in found.matches[0].differences] == ["bn1.running_var"]


def test_integers_do_not_count_but_for_strict(catalogue: Catalogue) -> None:
    best = recognise(floating(sized("wide")), catalogue).matches[0]
    assert best.exact
    assert best.named
    assert not best.strict
    more = [*sized("wide"), TensorInfo("step", "int64", ())]
    assert recognise(more, catalogue).matches[0].exact
    assert not recognise(more, catalogue).matches[0].strict


@pytest.mark.parametrize("lacking", ["embed.weight", "decoder.weight", ""])
def test_tied_tensors_may_be_there_once_or_twice(catalogue: Catalogue, lacking: str) -> None:
    tensors = [tensor for tensor in sized("attending") if tensor.name != lacking]
    best = recognise(tensors, catalogue).matches[0]
    assert (best.architecture.name, best.exact, best.named) == ("attending", True, True)
    assert best.strict == (not lacking)
    assert recognise(numbered(tensors), catalogue).matches[0].exact


def test_tied_tensors_twice_without_buffers(catalogue: Catalogue) -> None:
    found = recognise(parameters_only("attending"), catalogue)
    assert (found.verdict, names(found), found.matches[0].named) == ("exact", ["attending"], True)


def test_a_tied_tensor_does_not_stand_in_for_another_of_its_shape(catalogue: Catalogue) -> None:
    tensors = [*sized("attending"), TensorInfo("more.weight", "float32", (500, 24))]
    found = recognise(tensors, catalogue)
    assert found.verdict == "near"
    assert [one.name for one in found.matches[0].differences] == ["more.weight"]


def without_classifier(name: str, head: str) -> list[TensorInfo]:
    return [tensor for tensor in sized(name) if not tensor.name.startswith(f"{head}.")]


@pytest.mark.parametrize(("name", "head"), [("wide", "fc"), ("stacked", "classifier"), ("stacked", "classifier.3")])
@pytest.mark.parametrize("as_numbers", [False, True])
def test_a_file_without_its_head(catalogue: Catalogue, name: str, head: str, as_numbers: bool) -> None:
    tensors = without_classifier(name, head)
    found = recognise(numbered(tensors) if as_numbers else prefixed(tensors, "backbone."), catalogue)
    assert (found.verdict, found.headless, names(found)) == ("exact", True, [name])
    best = found.matches[0]
    assert best.share < 1
    assert best.classes is None
    assert best.head == ()
    assert not best.strict
    assert {one.expected for one in best.differences} == {
        tensor.name for tensor in NETS[name] if tensor.name.startswith(f"{head}.")
    }
    assert best.named != as_numbers
    assert best.prefix == ("" if as_numbers else "backbone.")


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_names_without_a_head_outrank_equal_shapes_of_other_names(catalogue: Catalogue, prefix: str) -> None:
    tensors = without_classifier("headed", "fc")
    found = recognise(prefixed(tensors, prefix), catalogue)
    assert (found.verdict, found.headless, names(found)) == ("exact", True, ["headed"])
    assert (found.matches[0].named, found.matches[0].prefix) == (True, prefix)
    other = recognise(prefixed(sized("trunk"), prefix), catalogue)
    assert (other.headless, names(other), other.matches[0].named) == (False, ["trunk"], True)
    bare = recognise(numbered(tensors), catalogue)  # of which names tell nothing
    assert (bare.headless, names(bare)) == (False, ["trunk"])


@pytest.mark.parametrize("prefix", ["", "ema."])
def test_counters_as_floating_point_numbers_are_the_integers_of_the_layout(catalogue: Catalogue, prefix: str) -> None:
    averaged = [replace(one, dtype="float32") for one in prefixed(sized("wide"), prefix)]
    best = recognise(averaged, catalogue).matches[0]
    assert (best.architecture.name, best.exact, best.named, best.strict) == ("wide", True, True, True)
    changed = recognise([*averaged, TensorInfo("loss.weight", "float32", (5, 7))], catalogue)
    assert changed.verdict == "near"
    assert [one.name for one in changed.matches[0].differences] == ["loss.weight"]
    more = recognise([*averaged, TensorInfo("step", "float32", ())], catalogue)
    assert [one.name for one in more.matches[0].differences] == ["step"]


def test_the_plainest_of_near_ones_with_equal_names_is_named(tmp_path: Path) -> None:
    layouts = [Layout(1, NETS["wide"]), Layout(2, NETS["wide"][::-1])]
    architectures = [
        Architecture(at, "lib", name, layout, f"lib.{name}()", "lib", family="wide", classes=1000, channels=3)
        for at, (name, layout) in enumerate((("quantized_wide", 1), ("widened", 2), ("wide", 2)), 1)
    ]
    path = tmp_path / "c.db"
    write_catalogue(path, layouts, architectures, [], [], vectors={}, similar={}, facts={})
    with Catalogue(path) as opened:
        found = recognise([*sized("wide"), TensorInfo("more.weight", "float32", (5, 7))], opened)
    assert (found.verdict, names(found)) == ("near", ["wide"])


def test_a_file_without_more_than_its_head_is_not_headless(catalogue: Catalogue) -> None:
    tensors = [tensor for tensor in without_classifier("wide", "fc") if not tensor.name.startswith("layer3.1.conv2")]
    found = recognise(tensors, catalogue)
    assert (found.verdict, found.headless) == ("near", False)


@pytest.mark.parametrize("as_numbers", [False, True])
def test_a_new_head_is_told(catalogue: Catalogue, as_numbers: bool) -> None:
    new = [
        TensorInfo("fc.0.weight", "float32", (33, 96)),
        TensorInfo("fc.0.bias", "float32", (33,)),
        TensorInfo("fc.2.weight", "float32", (4, 33)),
        TensorInfo("fc.2.bias", "float32", (4,)),
    ]
    tensors = [*without_classifier("wide", "fc"), *new]
    found = recognise(numbered(tensors) if as_numbers else tensors, catalogue)
    best = found.matches[0]
    assert (found.verdict, best.architecture.name, best.exact, best.strict) == ("near", "wide", False, False)
    assert best.head == tuple(tensor.name for tensor in (numbered(tensors) if as_numbers else tensors)[-4:])
    assert (best.classes, best.channels) == (4, 3)
    assert {one.expected for one in best.differences} <= {"", "fc.weight", "fc.bias"}


def test_a_tensor_beside_the_network_is_no_head(catalogue: Catalogue) -> None:
    tensors = [*prefixed(sized("wide"), "net."), TensorInfo("loss.weight", "float32", (5, 7))]
    best = recognise(tensors, catalogue).matches[0]
    assert not best.exact
    assert best.prefix == "net."
    assert best.classes == 10
    assert best.head == ("net.fc.weight", "net.fc.bias")
    assert [one.name for one in best.differences] == ["loss.weight"]


def test_another_stem_is_told(catalogue: Catalogue) -> None:
    tensors = sized("wide")
    tensors[0] = replace(tensors[0], shape=(24, 3, 3, 3))
    for given_ in (tensors, numbered(tensors)):
        best = recognise(given_, catalogue).matches[0]
        assert not best.exact
        assert best.channels is None
        assert best.stem == ()
        [difference] = best.differences
        assert (difference.name, difference.shape) == (given_[0].name, (24, 3, 3, 3))
        assert (difference.expected, difference.expected_shape) == ("conv1.weight", (24, 3, 7, 7))


@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_extent_changed_is_never_exact(catalogue: Catalogue, data: st.DataObject) -> None:
    """Nor is a tensor too many or too few; symbolic extents alone may change, if they change together."""
    name = data.draw(st.sampled_from(sorted(NETS.keys() - {"odd"})))
    at = data.draw(
        st.sampled_from([at for at, one in enumerate(NETS[name]) if one.floating and one.shape and not one.symbols])
    )
    tensors = sized(name)
    axis = data.draw(st.integers(0, len(tensors[at].shape) - 1))
    shape = list(tensors[at].shape)
    shape[axis] += data.draw(st.sampled_from([-1, 1, 7, 2**40]))
    if data.draw(st.booleans()):
        tensors = numbered(tensors)
    changed = [*tensors]
    changed[at] = replace(tensors[at], shape=tuple(shape))
    found = recognise(changed, catalogue)
    assert found.verdict != "exact"
    assert not any(match.exact or match.strict for match in found.matches)
    assert all(match.differences for match in found.matches)
    assert (
        recognise([*tensors, replace(tensors[at], name="one more")], catalogue).verdict != "exact"
        or NETS[name][at].tied
    )


@given(st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_order_of_the_file_does_not_matter_for_the_class(catalogue: Catalogue, chance: random.Random) -> None:
    tensors = sized("residual")
    chance.shuffle(tensors)
    found = recognise(tensors, catalogue)
    assert names(found)[0] == "residual"
    assert set(names(found)) == {"residual", "renamed", "swapped"}
    assert found.matches[0].strict  # names decide what is loaded where
    assert set(names(recognise(numbered(tensors), catalogue))) == {"residual", "renamed", "swapped"}


def test_two_tensors_with_each_other_s_names_are_not_strict(catalogue: Catalogue) -> None:
    tensors = sized("wide")
    one, other = (next(at for at, t in enumerate(tensors) if t.name == f"layer{n}.1.conv2.weight") for n in (1, 2))
    tensors[one], tensors[other] = (
        replace(tensors[one], name=tensors[other].name),
        replace(tensors[other], name=tensors[one].name),
    )
    best = recognise(tensors, catalogue).matches[0]
    assert best.exact
    assert not best.named
    assert not best.strict


def test_layouts_are_left_out(catalogue: Catalogue) -> None:
    found = recognise(sized("wide"), catalogue, without={IDS["wide"]})
    assert found.verdict != "exact"
    assert "wide" not in names(found)
    assert len(recognise(sized("wide"), catalogue, k=2, without={IDS["wide"]}).matches) == 2


def test_near_ones_are_the_nearest_first_and_one_of_each_class(catalogue: Catalogue) -> None:
    tensors = [*sized("residual"), TensorInfo("more.weight", "float32", (64, 64, 3, 3))]
    found = recognise(tensors, catalogue)
    assert found.verdict == "near"
    assert names(found)[0] == "residual"
    assert not {"renamed", "swapped"} & set(names(found))
    shares = [match.share for match in found.matches]
    assert shares == sorted(shares, reverse=True)
    distinct = sum(tensor.dtype == "float32" for tensor in sized("residual"))
    assert shares[0] == pytest.approx(2 * distinct / (2 * distinct + 1))


def test_what_is_far_from_all_is_unknown(catalogue: Catalogue) -> None:
    found = recognise([TensorInfo(f"{at}.weight", "float32", (at + 3, at + 5)) for at in range(20)], catalogue)
    assert found.verdict == "unknown"
    assert not any(match.exact for match in found.matches)


@pytest.mark.parametrize("tensors", [[], [TensorInfo("a", "int64", (3,))], [TensorInfo("a", "uint8", (3,))] * 3])
def test_nothing_of_floating_point_is_unknown(catalogue: Catalogue, tensors: list[TensorInfo]) -> None:
    assert recognise(tensors, catalogue) == Recognised("unknown", ())


def test_an_empty_catalogue_knows_nothing(tmp_path: Path) -> None:
    write_catalogue(tmp_path / "c.db", [], [], [], [], vectors={}, similar={}, facts={})
    with Catalogue(tmp_path / "c.db") as empty:
        assert recognise(sized("wide"), empty) == Recognised("unknown", ())


def test_a_network_that_asks_for_metadata_is_not_said_to_load(tmp_path: Path) -> None:
    with Catalogue(write(tmp_path / "c.db", {"asks_metadata": ["lib/wide"]})) as opened:
        assert recognise(sized("wide"), opened).matches[0].named
        assert not recognise(sized("wide"), opened).matches[0].strict
        assert recognise(sized("residual"), opened).matches[0].strict


# Made in the test: a million tensors would stay in each test process.
HOSTILE: dict[str, Callable[[], list[TensorInfo]]] = {
    "a million": lambda: [TensorInfo(f"layers.{at}.weight", "float32", (at % 97, 64)) for at in range(1_000_000)],
    "as many as are looked at": lambda: [TensorInfo(f"{at}", "float32", (at + 1, at + 2)) for at in range(200)],
    "huge extents": lambda: [TensorInfo(f"{at}", "float32", (10**at, 2**at)) for at in range(150)],
    "beyond the digits of a number in text": lambda: [TensorInfo("a", "float32", (10**5000,)) for _ in range(100)],
    "zero extents": lambda: [TensorInfo(f"{at}", "float32", (0,) * (at % 5)) for at in range(150)],
    "dimensions": lambda: [TensorInfo(f"{at}", "float32", (1,) * 32) for at in range(150)],
    "long names": lambda: [TensorInfo("a." * 100_000 + str(at), "float32", (64, 64, 3, 3)) for at in range(150)],
    "deep names": lambda: [TensorInfo(".weight" * 100 + f".{at}.weight", "float32", (16,)) for at in range(150)],
    "equal names": lambda: [TensorInfo("fc.weight", "float32", (64, 64, 3, 3)) for _ in range(150)],
    "empty names": lambda: [TensorInfo("", "float32", (96,)) for _ in range(60)],
    "scalars": lambda: [TensorInfo(f"{at}", "float32", ()) for at in range(100)],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_unknown_or_near_and_soon_so(catalogue: Catalogue, kind: str) -> None:
    tensors = HOSTILE[kind]()
    begun = time.process_time()
    found = recognise(tensors, catalogue)
    assert time.process_time() - begun < 2
    assert found.verdict != "exact"
