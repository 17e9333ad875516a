"""The networks are trained once, their variants are what they are called, and the figures are what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from benchmarks.training import __main__ as program
from benchmarks.training import families
from benchmarks.training.epochs import mantel
from benchmarks.training.families import FAMILIES, RECIPES, SEEDS
from benchmarks.training.limits import limits, limits_table
from benchmarks.training.measure import KINDS, SEED, Pair, Side, measure
from benchmarks.training.networks import STAGES, accuracy_of, stamp, train_all
from benchmarks.training.report import BEGIN, END, markdown, write_between
from benchmarks.training.scores import area, distance_area, rows, side_area
from benchmarks.training.symmetries import UNITS, permuted, rescaled
from benchmarks.training.variants import VARIANTS, half, pruned, quantised, shuffled, write_variants
from examples.digits import Recipe
from registry.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

TINY = (*(Recipe("mlp", 20, seed) for seed in (0, 1, 2)), Recipe("gru", 8))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(families.FAMILIES, "gru", replace(FAMILIES["gru"], epochs=4))
        patch.setitem(families.FAMILIES, "mlp", replace(FAMILIES["mlp"], epochs=12))
        return train_all(tmp_path_factory.mktemp("networks"), TINY)


@pytest.fixture(scope="module")
def pairs(trained: Path) -> list[Pair]:
    return measure(trained, TINY)


def test_enough_is_trained() -> None:
    assert len(FAMILIES) >= 8
    assert set(UNITS) == set(FAMILIES)
    assert {len(family.widths) for family in FAMILIES.values()} == {2}
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES) == 2 * len(SEEDS) * len(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_maps_images_to_classes(family: str) -> None:
    for width in FAMILIES[family].widths:
        assert FAMILIES[family].build(width)(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


def test_stages_are_kept_and_trained_once(trained: Path) -> None:
    for recipe in TINY:
        assert {path.stem for path in (trained / recipe.name).iterdir()} == set(STAGES)
        weights = [load_file(trained / recipe.name / f"{stage}.safetensors") for stage in STAGES]
        names = list(weights[0])
        assert all([*state] == names for state in weights)
        assert len({b"".join(state[name].tobytes() for name in names) for state in weights}) == len(STAGES)
    folder = trained / TINY[0].name
    assert accuracy_of(folder / "trained.safetensors") > 80
    assert accuracy_of(folder / "task.safetensors") > 80  # of parity
    before = [path.stat().st_mtime_ns for path in sorted(folder.iterdir())]
    said: list[str] = []
    assert train_all(trained.parent, TINY, said.append) == trained
    assert said == []
    assert [path.stat().st_mtime_ns for path in sorted(folder.iterdir())] == before


def test_the_initialisation_is_the_one_trained_and_trainings_differ(trained: Path) -> None:
    torch.manual_seed(1)
    fresh = FAMILIES["mlp"].build(20).state_dict()
    initial = load_file(trained / "mlp20-s1" / "initial.safetensors")
    assert all(np.array_equal(fresh[name].numpy(), values) for name, values in initial.items())
    other = load_file(trained / "mlp20-s2" / "initial.safetensors")
    assert not np.array_equal(other["1.weight"], initial["1.weight"])


def _logits(family: str, state: dict[str, Any], images: torch.Tensor) -> Any:
    model = FAMILIES[family].build(8).double().eval()
    model.load_state_dict({name: torch.tensor(values) for name, values in state.items()})
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 0.0  # what is added to the variance breaks the symmetry, by 1e-5 of it
    with torch.no_grad():
        return model(images).numpy()


def _lively(family: str) -> dict[str, Any]:
    """Weights with offsets and statistics that differ from unit to unit, as after training."""
    rng = np.random.default_rng(5)
    state: dict[str, Any] = {}
    for name, tensor in FAMILIES[family].build(8).state_dict().items():
        values = rng.standard_normal(tuple(tensor.shape))
        if "running_var" in name or (name.endswith("weight") and tensor.ndim == 1):
            values = rng.uniform(0.5, 1.5, tuple(tensor.shape))
        elif tensor.ndim > 1:
            values /= np.sqrt(tensor[0].numel())
        state[name] = values if tensor.is_floating_point() else tensor.numpy()
    return state


@pytest.mark.parametrize("family", FAMILIES)
def test_symmetries_leave_the_function_as_it_is(family: str) -> None:
    state = _lively(family)
    images = torch.tensor(np.random.default_rng(0).uniform(size=(5, 1, 8, 8)))
    wanted = _logits(family, state, images)
    scale = float(np.abs(wanted).max())
    rng = np.random.default_rng(0)
    other, scaled = permuted(state, family, rng), rescaled(state, family, rng)
    assert (scaled is None) == (family in {"lstm", "gru", "rnn"})
    for changed in (other, scaled):
        if changed is not None:
            assert any(not np.array_equal(changed[name], state[name]) for name in state)
            np.testing.assert_allclose(_logits(family, changed, images), wanted, rtol=0, atol=1e-10 * scale)
    # In another order along one axis of a group alone, it is another function: every axis counts.
    for group in UNITS[family]:
        for tensor, axis, _ in group:
            broken = state | {tensor: np.ascontiguousarray(np.flip(state[tensor], axis))}
            assert np.abs(_logits(family, broken, images) - wanted).max() > 1e-6 * scale, tensor


def test_changes_of_a_matrix() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((12, 7, 3)).astype(np.float32)
    mixed = shuffled(matrix, rng)
    assert not np.array_equal(mixed, matrix)
    np.testing.assert_array_equal(np.sort(mixed, axis=None), np.sort(matrix, axis=None))
    cut = pruned(matrix, 0.9)
    kept = cut != 0
    assert kept.sum() == matrix.size - round(0.9 * matrix.size)
    assert np.abs(matrix[kept]).min() >= np.abs(matrix[~kept]).max()
    np.testing.assert_array_equal(cut[kept], matrix[kept])
    coarse = quantised(matrix)
    assert coarse.dtype == np.float32
    assert 100 < len(np.unique(coarse)) <= 255
    step = np.abs(matrix).max() / 127
    assert np.abs(coarse - matrix).max() <= step / 2 * (1 + 1e-5)
    halved = half({"a": matrix, "steps": np.array(3)})
    assert [str(values.dtype) for values in halved.values()] == ["float16", "int64"]


def test_variants_change_each_gate_by_itself(trained: Path, tmp_path: Path) -> None:
    source = trained / "gru8-s0" / "trained.safetensors"
    write_variants(source, "gru", tmp_path / "made")
    assert {path.stem for path in (tmp_path / "made").iterdir()} == set(VARIANTS) - {"units-rescaled"}
    before = load_file(source)["rnn.weight_hh_l0"].reshape(3, 8, 8)
    mixed = load_file(tmp_path / "made" / "shuffled.safetensors")["rnn.weight_hh_l0"].reshape(3, 8, 8)
    layers = load_file(tmp_path / "made" / "layers-rescaled.safetensors")["rnn.weight_hh_l0"].reshape(3, 8, 8)
    for gate in range(3):
        np.testing.assert_array_equal(np.sort(mixed[gate], axis=None), np.sort(before[gate], axis=None))
    ratios = (layers / before).reshape(3, -1)
    np.testing.assert_allclose(ratios, np.tile(ratios[:, :1], 64), rtol=1e-5)
    assert len(set(ratios[:, 0].round(4))) == 3


def test_pairs_are_the_registrys_answers(pairs: list[Pair]) -> None:
    for fingerprint in ("layered", "mme"):
        mine = [pair for pair in pairs if pair.fingerprint == fingerprint and pair.topology == "mlp20"]
        assert {pair.kind for pair in mine} == set(KINDS)
        assert all(sum(pair.kind == kind for pair in mine) == 3 for kind in KINDS)
        by_kind = {kind: [pair for pair in mine if pair.kind == kind] for kind in KINDS}
        # Scale and order of units are not seen. Float16 rounds by 5e-4, which takes few eigenvalues over a location,
        # each of which moves the cumulative of three layers by up to 1/30.
        assert max(p.distance for kind in ("layers rescaled", "units permuted") for p in by_kind[kind]) < 1e-4
        assert 0 < max(p.distance for p in by_kind["float16"]) < 3 / 30
        # By distance alone an initialisation passes `layered`; by the verdict it passes neither.
        assert all(p.within == (fingerprint == "layered") for p in by_kind["own initialisation"])
        assert not any(p.equivalent or p.same_training for p in by_kind["own initialisation"])
        assert all(p.equivalent for p in by_kind["units permuted"])
    alone = {pair.kind for pair in pairs if pair.topology == "gru8"}
    assert alone == set(KINDS) - {SEED, "units rescaled by 1/2 to 2"}


def _pair(kind: str, topology: str, distance: float, z: tuple[float, float] = (3.0, 0.5), tail: float = 5.0) -> Pair:
    first, second = (
        Side("n", "long" if x > 4 else "edge", "trained" if score > 1 else "untrained", score, x)
        for score, x in zip(z, (5.0, tail), strict=True)
    )
    same = first.training_class == second.training_class and first.tail_class == second.tail_class
    return Pair(kind, "layered", topology, first, second, distance, 0.4, same and distance <= 0.4, distance / 4)


def test_area_counts_pairs() -> None:
    assert area([1, 2], [3, 4]) == 1
    assert area([3, 4], [1, 2]) == 0
    assert area([1, 1], [1, 1]) == 0.5
    assert area([1, 3], [2, 3]) == (1 + 1 + 0 + 0.5) / 4


def test_scores_stay_within_a_topology() -> None:
    # Seeds of b lie farther apart than a's initialisation: across topologies they would be confused.
    pairs = [_pair(SEED, "a", 0.01, (3, 3)), _pair("own initialisation", "a", 0.02)]
    pairs += [_pair(SEED, "b", 0.1, (3, 3)), _pair("own initialisation", "b", 0.2, (0.4, 0.7))]
    assert distance_area(pairs, "own initialisation") == 1
    assert side_area(pairs, "own initialisation", by_class=False) == 0.5  # right in a, wrong in b
    assert side_area(pairs, "own initialisation", by_class=True) == 0.75  # right in a, a tie in b
    found = {row.kind: row for row in rows(pairs)}
    assert (found[SEED].pairs, found[SEED].equivalent, found[SEED].area) == (2, 1.0, None)
    assert found["own initialisation"].median == pytest.approx(0.11)
    assert (found["own initialisation"].within, found["own initialisation"].equivalent) == (1.0, 0.5)


def test_limits_are_those_of_other_families() -> None:
    seeds = [
        _pair(SEED, f"{family}{at}", value) for family, value in (("a", 0.1), ("b", 0.2), ("c", 0.4)) for at in (1, 2)
    ]
    task = [_pair("another task, from another initialisation", f"{family}1", 0.3) for family in "abc"]
    found = {each.rate: each for each in limits([*seeds, *task], lambda pair: pair.distance)}
    # All of the others' seeds: a and b are judged by c's 0.4, and c by 0.2, which its own seeds and its task exceed.
    assert (found[1.0].least, found[1.0].largest) == (0.2, 0.4)
    assert found[1.0].passed == {SEED: pytest.approx(2 / 3), task[0].kind: pytest.approx(2 / 3)}
    # Half of them: 0.2, 0.1, 0.1; a passes its own, no task does.
    assert (found[0.5].least, found[0.5].largest) == (0.1, 0.2)
    assert found[0.5].passed == {SEED: pytest.approx(1 / 3), task[0].kind: 0}
    lines = limits_table([*seeds, *task, *(replace(pair, fingerprint="mme") for pair in [*seeds, *task])])
    # Of six seeds four lie below every task, two above.
    assert sum(line.startswith("| block `depths` | 0.667 |") for line in lines) == 5
    assert limits_table(seeds[:2]) == []


def test_mantel_sees_growth_and_nothing_in_noise() -> None:
    rng = np.random.default_rng(3)
    positions = np.arange(10.0)
    apart = np.abs(np.subtract.outer(positions, positions))
    noise = rng.uniform(size=(10, 10))
    noise += noise.T
    assert mantel(positions, apart**2, rng)[0] == pytest.approx(1.0)
    assert mantel(positions, apart**2, rng)[1] < 0.01
    assert mantel(positions, noise, rng)[1] > 0.05


def test_report_says_what_fails_and_goes_between_its_markers(pairs: list[Pair], tmp_path: Path) -> None:
    text = markdown(pairs, [], [90.0, 95.5])
    assert all(f"| {kind} |" in text for kind in KINDS)
    assert "90.0 to 95.5 %" in text
    odd = [_pair(SEED, "a", 0.1, (3, 3), tail=3.7), _pair("own initialisation", "a", 0.2)]
    told = markdown([*odd, *(replace(pair, fingerprint="mme") for pair in odd)], [], [90.0])
    assert "alone parts 1 of 1 pairs of seeds and 0 of 1 other pairs; in 0 of them both" in told

    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    write_between(page, "new")
    write_between(page, "new")
    assert page.read_text(encoding="utf-8") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    for text in ("none", f"{END}\n{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"):
        page.write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match="needs one"):
            write_between(page, "new")


def test_the_program_prints_every_pair_and_writes_the_page(
    pairs: list[Pair],
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    monkeypatch.setattr(program, "PAGE", page)
    monkeypatch.setattr(program, "RECIPES", TINY)
    monkeypatch.setattr(program, "measure", lambda *_: pairs)
    program.main(["--folder", str(trained.parent), "--json", "--write"])
    document = json.loads(capsys.readouterr().out)
    assert len(document["pairs"]) == len(pairs)
    assert set(document["rows"]) == {"layered", "mme"}
    assert [epochs["models"] for epochs in document["epochs"]] == [13, 13]
    assert min(epochs["correlation"] for epochs in document["epochs"]) > 0.5
    assert "mini-xception at 13 epochs" in page.read_text(encoding="utf-8")


def test_changed_code_trains_again_and_another_layout_of_it_does_not(tmp_path: Path) -> None:
    codes = ("EPOCHS = 3\n", "EPOCHS = (\n    3  # as before\n)\n", "EPOCHS = 4\n")
    sources = [tmp_path / f"{number}.py" for number in range(3)]
    for source, code in zip(sources, codes, strict=True):
        source.write_text(code, encoding="utf-8")
    first, laid_out, changed = (stamp([source]) for source in sources)
    assert first == laid_out != changed
