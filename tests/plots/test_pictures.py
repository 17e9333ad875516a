"""From stored models to pictures: the numbers against dense matrices, and the commands on both databases."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save_file

from registry import Registry
from registry.catalog import plotting
from registry.ensembles import REFERENCES, Circular
from registry.errors import RegistryError, SpectrumError, UnknownModelError, UsageError
from registry.plots import LARGEST

if TYPE_CHECKING:
    from pathlib import Path

SHAPES = {"small": [(24, 8), (16, 40)], "large": [(64, 32), (32, 32), (32, 96), (2, 32)]}


def weights(name: str) -> list[np.ndarray]:
    """Layers with a strong direction each, as training leaves them; tall, square and wide."""
    rng = np.random.default_rng(len(name))
    made = []
    for p, q in SHAPES[name]:
        W = rng.standard_normal((p, q)) + 0.8 * np.outer(rng.standard_normal(p), rng.standard_normal(q))
        made.append(W.astype(np.float32))
    return made


def save(name: str, folder: Path) -> Path:
    path = folder / f"{name}.safetensors"
    save_file({f"layers.{i}.weight": W for i, W in enumerate(weights(name))}, path)
    return path


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory):
    """A registry of both models, to be read."""
    folder = tmp_path_factory.mktemp("filled")
    with Registry(folder / "r.db") as registry:
        for name in SHAPES:
            registry.ingest(save(name, folder))
        yield registry


@pytest.fixture
def shown(monkeypatch):
    """What is drawn instead of a file."""
    found = []
    monkeypatch.setattr("registry.plots.plot_difference", lambda picture, *_, **__: found.append(picture))
    monkeypatch.setattr("registry.plots.plot_spectrum", lambda picture, *_, **__: found.append(picture))
    return found


def dense(name: str, scale: str) -> list[np.ndarray]:
    """Eigenvalues of W W^T over their mean, by the definition; structural zeros are exactly 0."""
    layers = []
    for W in weights(name):
        values = np.sort(np.linalg.svd(W.astype(np.float64), compute_uv=False) ** 2)
        if scale == "full":
            values = np.concatenate((np.zeros(len(W) - len(values)), values))
        layers.append(values / values.mean())
    return layers


@pytest.mark.parametrize("scale", ["full", "proper"])
def test_differences_are_those_of_the_matrices(filled, shown, tmp_path, scale):
    filled.plot_csd(list(SHAPES), tmp_path / "x.png", scale=scale)
    [picture] = shown
    x = picture.locations
    assert {0.0, 2.0} <= set(x)
    largest = max(values[-1] for name in SHAPES for values in dense(name, scale))
    assert largest < x[-1] < 1.1 * largest
    for curve, name in zip(picture.curves, SHAPES, strict=True):
        F = np.mean([(values[:, None] <= x).mean(axis=0) for values in dense(name, scale)], axis=0)
        assert (curve.name, curve.layers) == (name, len(SHAPES[name]))
        # Float32 may put one eigenvalue on the other side of one location.
        off = np.abs(curve.values - (np.clip(x / 2, 0, 1) - F))
        assert np.count_nonzero(off > 1e-9) <= 2
        assert (curve.lower <= curve.values).all()
        assert (curve.values <= curve.upper).all()
        assert curve.gaussian is not None
        # At 0, the structural zeros alone; at its edges the closed form rounds by the root of an epsilon.
        assert curve.gaussian[0] == pytest.approx(0 if scale == "proper" else -F[0], abs=1e-7)
    assert (picture.scale, picture.reference, picture.sample) == (scale, REFERENCES["cue"].title, None)


def test_a_new_reference_is_a_line(filled, shown, tmp_path, monkeypatch):
    monkeypatch.setitem(REFERENCES, "third", Circular(beta=3))
    file = tmp_path / "x.svg"
    filled.plot_csd(["large"], file, seed=7, reference="third")
    filled.plot_csd(["large"], file, seed=7, reference="cse")
    third, cse = shown
    assert third.reference == "circular ensemble of β = 3"
    assert (third.curves[0].values != cse.curves[0].values).any()
    with pytest.raises(UsageError, match="known: coe, cue, cse, wishart, third"):
        filled.plot_csd(["large"], file, reference="fourth")


def test_reference_sample_and_range_are_as_asked(filled, shown, tmp_path):
    file = tmp_path / "x.svg"
    filled.plot_csd("large", file)
    filled.plot_csd(["large", "large"], file, seed=7, reference="cse", x_max=3.0)
    filled.plot_csd(["large"], file, scale="proper", reference="wishart")
    expected, sampled, wishart = shown
    assert [curve.name for curve in expected.curves] == ["large"]
    assert len(sampled.curves) == 1
    assert sampled.locations[-1] == 3.0
    assert (sampled.sample, sampled.reference) == (7, REFERENCES["cse"].title)
    inside = (sampled.locations > 0.05) & (sampled.locations < 1.95)
    away = np.interp(sampled.locations, expected.locations, expected.curves[0].values) - sampled.curves[0].values
    assert 1e-3 < np.abs(away[inside]).max() < 0.3
    assert wishart.curves[0].gaussian is None
    F = np.mean([(values[:, None] <= wishart.locations).mean(axis=0) for values in dense("large", "proper")], axis=0)
    # Beyond 4 nothing is left of the Gaussian reference, and the difference is the tail.
    tail = wishart.locations >= 4
    np.testing.assert_allclose(wishart.curves[0].values[tail], 1 - F[tail], atol=1e-9)


def test_a_spectrum_is_that_of_the_matrices(filled, shown, tmp_path):
    filled.plot_spectrum("large", tmp_path / "x.png")
    [picture] = shown
    at = np.log10(picture.edges)
    step = np.diff(at)
    assert np.isclose(picture.edges, 2.0).any()
    values = dense("large", "proper")
    for row, layer in zip(picture.layers, values, strict=True):
        counted, _ = np.histogram(layer, picture.edges)
        # One eigenvalue may stand on an edge.
        np.testing.assert_allclose(np.cumsum(row * step), np.cumsum(counted) / len(layer), atol=1.01 / len(layer))
    np.testing.assert_allclose(picture.network, picture.layers.mean(axis=0), atol=1e-9)
    assert picture.below + (picture.network * step).sum() == pytest.approx(1)
    assert 0 <= picture.below <= plotting.NEGLECTED
    assert picture.edges[-1] >= max(layer[-1] for layer in values)
    for reference in (picture.circular, picture.wishart):
        assert 0.97 < (reference * step).sum() <= 1 + 1e-9
    assert (picture.circular[picture.edges[:-1] > 1.999] == 0).all()
    # Uniform on (0, 2]: x ln(10) / 2 per decade.
    last = np.flatnonzero(picture.circular)[-1]
    middle = np.sqrt(picture.edges[last] * picture.edges[last + 1])
    assert picture.circular[last] == pytest.approx(middle * np.log(10) / 2, rel=1e-2)
    np.testing.assert_allclose(picture.support[1], [(1 + np.sqrt(min(s) / max(s))) ** 2 for s in SHAPES["large"]])
    assert np.isnan(picture.ratios).tolist() == [False, False, False, True]  # two eigenvalues make one spacing
    assert dict(picture.theory)["β = 1"] == 0.5307
    assert picture.conjugacy == filled.show("large").conjugacy
    assert picture.conjugacy is not None


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"names": []}, UsageError, f"1 to {LARGEST} networks, not 0"),
        ({"names": [f"n{i}" for i in range(9)]}, UsageError, f"1 to {LARGEST} networks, not 9"),
        ({"names": ["absent"]}, UnknownModelError, "absent"),
        ({"reference": "gue"}, UsageError, "coe, cue, cse, wishart"),
        ({"reference": "wishart"}, UsageError, "wishart is not defined on the scale full .use the scale proper"),
        ({"scale": "half"}, UsageError, "not defined on the scale half"),
        ({"x_max": 2.0}, UsageError, "above 2"),
        ({"x_max": float("nan")}, UsageError, "above 2"),
        ({"x_max": 1e300}, UsageError, r"at most 1e\+09, not 1e\+300"),
        ({"axes": "polar"}, UsageError, "linear"),
        ({"seed": -1}, SpectrumError, "seed must be at least 0"),
    ],
)
def test_wrong_requests_are_refused(filled, tmp_path, settings, error, says):
    request = {"names": ["small"], "file": tmp_path / "x.png"} | settings
    with pytest.raises(error, match=says):
        filled.plot_csd(**request)
    assert not (tmp_path / "x.png").exists()


def test_spectra_that_were_not_kept_are_missed(tmp_path):
    with Registry(tmp_path / "r.db") as registry:
        registry.ingest(save("small", tmp_path), keep_spectra=False)
        with pytest.raises(RegistryError, match="not stored"):
            registry.plot_spectrum("small", tmp_path / "x.png")


@pytest.fixture
def archreg(capsys):
    """Run a command line in this process: exit code, standard output, standard error."""
    from registry.cli.app import main

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(words)
        captured = capsys.readouterr()
        return int(left.value.code or 0), captured.out, captured.err

    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)


def test_commands_draw_from_either_database(archreg, database_url, tmp_path, monkeypatch):
    monkeypatch.setenv("ARCHREG_DB", database_url)
    assert archreg("ingest", *(str(save(name, tmp_path)) for name in SHAPES), "--quiet")[0] == 0
    csd, spectrum = tmp_path / "csd.svg", tmp_path / "spectrum.pdf"
    code, out, err = archreg(
        "plot", "csd", "small", "large", "-o", str(csd), "--scale", "proper", "--reference", "coe", "--seed", "1",
        "--axes", "log", "--x-max", "20", "--title", "two", "--json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert json.loads(out) == {"file": str(csd), "models": ["small", "large"]}
    assert csd.read_bytes().startswith(b"<?xml")
    code, out, err = archreg("plot", "spectrum", "large", "-o", str(spectrum))
    assert (code, err) == (0, "")
    assert out == f"Wrote the spectrum of large to {spectrum}.\n"
    assert spectrum.read_bytes().startswith(b"%PDF")


def test_commands_fail_in_one_line(archreg, tmp_path, monkeypatch):
    monkeypatch.setenv("ARCHREG_DB", str(tmp_path / "none.db"))
    for words, code, says in (
        (("csd", "a", "-o", "x.jpg"), 2, ".png, .svg or .pdf"),
        (("csd", "a", "-o", str(tmp_path / "x.png")), 1, "archreg ingest"),
        (("spectrum", "a", "-o", "nowhere/x.png"), 2, "there is no folder"),
    ):
        found, out, err = archreg("plot", *words)
        assert (found, out) == (code, "")
        assert says in err
        assert len(err.splitlines()) <= 2
    assert list(tmp_path.iterdir()) == []
