"""The speed benchmark's own arithmetic, without the packages that it measures against."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from benchmarks.speed import harness, others, run
from benchmarks.speed.harness import Comparison, Task, Timing
from benchmarks.speed.networks import Network, bare, operands
from registry.types import LayerMatrix


def timing(*seconds: float) -> Timing:
    return Timing(seconds, tuple(2 * each for each in seconds))


def test_the_ratio_is_the_median_of_the_rounds_not_the_ratio_of_medians() -> None:
    # A slow second round slows both sides; the ratio of medians would be 3 / 2.
    compared = Comparison("x", timing(2, 30, 3), timing(1, 10, 2), aim=2)
    assert compared.ratios == (2.0, 3.0, 1.5)
    assert compared.ratio == compared.cpu_ratio == 2.0


@pytest.mark.parametrize(
    ("at_most", "aim", "met"), [(True, 2.1, True), (True, 1.9, False), (False, 1.9, True), (False, 2.1, False)]
)
def test_an_aim_bounds_from_its_own_side(at_most: bool, aim: float, met: bool) -> None:
    compared = Comparison("x", timing(2.0), timing(1.0), aim, at_most=at_most)
    assert compared.met is met
    assert compared.row().endswith("| met |" if met else "| missed |")


def test_scale_makes_one_draw_of_many() -> None:
    row = Comparison("x", timing(5.0), timing(0.2), aim=2500, scale=100).row()
    assert row == "| x | 5 | 0.2 | **2,500** | 2,500-2,500 | 1 | 2,500 | ≥ 2,500 | met |"


def test_tasks_take_turns_on_their_own_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "PAUSE", 0.0)
    seen: list[tuple[str, set[int]]] = []

    def note(name: str) -> None:
        seen.append((name, {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}))

    tasks = {name: Task(partial(note, name), threads) for name, threads in (("a", 1), ("b", 2))}
    found = harness.interleaved(tasks, rounds=3)
    assert seen == [(name, {1 if name == "a" else 2}) for name in "abbaab"]
    assert {name: len(each.wall) for name, each in found.items()} == {"a": 3, "b": 3}


def test_the_clock_sees_waiting_and_processor_time_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "PAUSE", 0.0)
    found = harness.interleaved({"sleep": Task(lambda: time.sleep(0.05))}, rounds=5)["sleep"]
    assert min(found.wall) >= 0.05
    assert min(found.cpu) < 0.04  # the least: this process's other threads take theirs now and then


def test_others_get_the_threads_with_which_they_are_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "PAUSE", 0.0)

    def faster_on(best: int) -> None:
        used = {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}
        time.sleep(0.0 if used == {best} else 0.1)

    assert [harness.quicker(partial(faster_on, best)) for best in (1, 2)] == [1, 2]


def test_load_warns_above_half_a_process_a_core() -> None:
    assert "busy" not in harness.load_note(1.0, cores=2)
    assert "busy" in harness.load_note(1.01, cores=2)


def test_bare_work_gives_the_eigenvalues_of_our_spectra() -> None:
    """Both sides of the ratio do the same linear algebra; wide, tall, and the order of positions kept."""
    rng = np.random.default_rng(0)
    layers = tuple(LayerMatrix(i, f"l{i}", f"l{i}", shape, "linear") for i, shape in enumerate([(3, 7), (9, 4)]))
    weights = tuple(rng.standard_normal(layer.shape).astype(np.float32) for layer in layers)
    wide = operands(weights)
    assert [W.shape for W in wide] == [(3, 7), (4, 9)]
    assert all(W.dtype == np.float64 and W.flags.c_contiguous for W in wide)
    bare(wide)
    for W, spectrum in zip(wide, Network("two", None, layers, weights).spectra(2), strict=True):  # type: ignore[arg-type]
        # float32 keeps 24 bits; eigenvalues of orders 3 and 4 are good to some 1e-15 of the largest, here below 10.
        assert spectrum.mean * spectrum.values == pytest.approx(np.linalg.eigvalsh(W @ W.T), rel=1e-6, abs=1e-13)


def test_departure_tells_a_unitary_matrix_from_an_elementwise_product() -> None:
    rng = np.random.default_rng(0)
    U = np.linalg.qr(rng.standard_normal((40, 40)) + 1j * rng.standard_normal((40, 40)))[0]
    # QR is unitary to some 1e-16 sqrt(N) an entry.
    assert others._departure(U) < 1e-13
    assert others._departure(U.T * U) > 0.9


def test_packages_that_are_absent_are_named_with_the_command_that_installs_them() -> None:
    with pytest.raises(ImportError, match=r"no_such_package .* `make bench-speed` installs it"):
        others.load_package("no_such_package")


def test_absent_packages_leave_the_rest_of_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(*_: object) -> list[Comparison]:
        raise ImportError("weightwatcher cannot be imported")

    monkeypatch.setattr(run, "BENCHMARKS", (absent, lambda: [Comparison("there", timing(1.0), timing(1.0), aim=2)]))
    monkeypatch.setattr(others, "correctness", absent)
    run.main()
    shown = capsys.readouterr().out
    assert "| there | 1 | 1 | **1.00** |" in shown
    assert "Not measured: weightwatcher cannot be imported." in shown


def test_tables_go_between_the_markers_and_replace_what_was_there() -> None:
    page = "before\n<!-- speed -->\n\nold\n\n<!-- /speed -->\nafter\n"
    once = harness.between_markers(page, "speed", "new")
    assert once == "before\n<!-- speed -->\n\nnew\n\n<!-- /speed -->\nafter\n"
    assert harness.between_markers(once, "speed", "new") == once
    with pytest.raises(ValueError, match="lacks <!-- speed -->"):
        harness.between_markers("<!-- /speed --> <!-- speed -->", "speed", "new")


def test_the_page_has_the_markers() -> None:
    assert "new" in harness.between_markers(run.PAGE.read_text(encoding="utf-8"), run.MARKER, "new")
