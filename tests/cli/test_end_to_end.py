"""The whole program, from files to answers, on both databases."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from sqlalchemy import text

from registry import Registry
from registry.cli.app import main
from registry.storage.engine.address import Address
from registry.storage.engine.connections import make_engine, writing

Archreg = Callable[..., Any]


def network(seed: int, widths: tuple[int, ...], *, noise: float = 0.0) -> dict[str, np.ndarray]:
    """A small convolutional network with a heavy-tailed spectrum, as training leaves it: a few strong directions."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        weight = rng.standard_normal((outputs, inputs * 9))
        left, right = rng.standard_normal((outputs, 2)), rng.standard_normal((2, inputs * 9))
        weight += 0.5 * left @ right
        weight += noise * rng.standard_normal(weight.shape)
        tensors[f"layers.{layer}.weight"] = weight.reshape(outputs, inputs, 3, 3).astype(np.float32)
        tensors[f"layers.{layer}.bias"] = np.zeros(outputs, np.float32)
    return tensors


WIDE = (3, 32, 32, 48, 48, 64)
SLIM = (3, 16, 16, 24, 24, 32)


@pytest.fixture(scope="session")
def _weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("four") / "weights"
    folder.mkdir()
    save_file(network(1, WIDE), folder / "wide.safetensors")
    save_file(network(1, WIDE, noise=1e-4), folder / "twin.safetensors")
    save_file(network(2, SLIM), folder / "slim.safetensors")
    rng = np.random.default_rng(3)
    dense = {f"fc{i}.weight": rng.standard_normal((20, 200)).astype(np.float32) for i in range(2)}
    save_file(dense, folder / "dense.safetensors")
    return folder


@pytest.fixture
def weights(_weights: Path, tmp_path: Path) -> Path:
    """Files of four models: wide, its twin (hardly retrained), slim of the same build, and another architecture."""
    return shutil.copytree(_weights, tmp_path / "weights")


def ingest_all(url: str, folder: Path) -> None:
    """Ingest the four by a manifest, as the command line does."""
    models: list[dict[str, Any]] = [
        {"path": "wide.safetensors", "name": "wide", "metrics": [{"name": "top1", "dataset": "digits", "value": 98.5}]},
        {"path": "twin.safetensors", "name": "twin", "stage": "production"},
        {"path": "slim.safetensors", "name": "slim", "metrics": [{"name": "top1", "dataset": "digits", "value": 97.0}]},
        {"path": "dense.safetensors", "name": "dense", "family": "mlp"},
    ]
    lines = [{"family": "conv"} | model | {"path": f"{folder.name}/{model['path']}"} for model in models]
    manifest = folder.parent / "manifest.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)))
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as left:
        main(("ingest", "--manifest", str(manifest), "--quiet", "--json", "--db", url))
    done = json.loads(out.getvalue())
    assert (left.value.code or 0, done["added"], done["failed"]) == (0, 4, 0)


@pytest.fixture
def filled(archreg: Archreg, _weights: Path, copied: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Archreg:
    """The command line over a registry of those four."""
    monkeypatch.setenv("ARCHREG_DB", copied(ingest_all, _weights))
    return archreg


@pytest.mark.parametrize("values", [("3f2a9c81d0e4",), (), ("v0001", "v0002")])
def test_a_database_of_an_unknown_revision(
    values: tuple[str, ...], filled: Archreg, weights: Path, database_url: str, tmp_path: Path
) -> None:
    engine = make_engine(Address.parse(database_url), "write")
    with writing(engine) as connection:
        connection.execute(text("DELETE FROM archreg_version"))
        for value in values:
            connection.execute(text("INSERT INTO archreg_version VALUES (:value)"), {"value": value})
    engine.dispose()
    weight = str(weights / "wide.safetensors")
    commands = [
        ("db", "upgrade"),
        ("db", "check"),
        ("db", "current"),
        ("ingest", weight, "--quiet"),
        ("nearest", weight),
    ]
    if database_url.startswith("sqlite"):
        commands.append(
            ("import", database_url.removeprefix("sqlite:///"), "--quiet", "--db", str(tmp_path / "new.db"))
        )
    for words in commands:
        done = filled(*words)
        assert (done.code, done.out) == (1, "")
        assert "Traceback" not in done.err
        first, remedy = done.err.splitlines()
        assert ("is not a revision of this program" if values else "does not say which schema it has") in first
        assert "archreg db upgrade --from v" in remedy
    command = shlex.split(remedy.partition("archreg ")[2].partition(" (")[0])[:4]
    assert filled(*command[:3], "v0001").code == 1
    assert filled(*command).out == f"The database is at revision {command[3]}.\n"
    assert filled("db", "check").out == "The database is sound.\n"
    assert filled("nearest", weight).code == 0


def test_the_whole_way(filled: Archreg, weights: Path, tmp_path: Path) -> None:
    models = {model["name"]: model for model in filled("list", "--json").document["models"]}
    assert set(models) == {"wide", "twin", "slim", "dense"}
    assert models["wide"]["parameters"] == sum(t.size for t in network(1, WIDE).values())
    assert models["wide"]["layers"] == len(WIDE) - 1
    assert models["wide"]["topology"] == models["twin"]["topology"] != models["slim"]["topology"]

    shown = filled("show", "wide", "--json").document
    assert [layer["shape"][0] for layer in shown["layers"]] == list(WIDE[1:])
    assert {skipped["name"] for skipped in shown["skipped"]} == {f"layers.{i}.bias" for i in range(5)}
    assert "wide" in filled("show", "wide", "--layers").out

    stats = filled("stats", "--json").document
    assert (stats["models"], stats["families"]) == (4, {"conv": 3, "mlp": 1})

    again = filled("ingest", str(weights / "wide.safetensors"), "--quiet", "--json")
    assert again.document["known"] + again.document["named"] == 1
    assert filled("db", "check").out == "The database is sound.\n"
    assert filled("db", "current", "--json").document["revision"] == stats["schema_version"]
    assert filled("db", "upgrade", "--json").document["revision"] == stats["schema_version"]
    assert filled("refingerprint", "--quiet", "--json").document == {"computed": 0, "judged": 0}

    arrays = tmp_path / "wide.npz"
    assert filled("spectra", "wide", "-o", str(arrays)).code == 0
    with np.load(arrays) as spectra:
        first = network(1, WIDE)["layers.0.weight"].reshape(32, 27).astype(float)
        expected = np.linalg.svd(first, compute_uv=False)[::-1] ** 2
        values = spectra["values"][spectra["offsets"][0] : spectra["offsets"][1]]
        # float32 storage: 6e-8 relative to the largest, some 20 times the mean
        np.testing.assert_allclose(values * spectra["mean"][0], expected, atol=1e-5 * expected.mean())


def test_questions(filled: Archreg, weights: Path, tmp_path: Path) -> None:
    found = filled("nearest", "wide", "-k", "3", "--json").document
    assert found["searched"] == 3
    assert next(item["name"] for item in found["neighbours"]) == "twin"
    distances = [item["distance"] for item in found["neighbours"]]
    assert distances == sorted(distances)
    assert found["neighbours"][0]["equivalent"] is True
    assert found["neighbours"][-1]["equivalent"] is False
    only = filled("nearest", "wide", "--equivalent", "--tolerance", "1e-3", "--json").document["neighbours"]
    assert [item["name"] for item in only] == ["twin"]
    by_file = filled("nearest", str(weights / "wide.safetensors"), "--json").document
    assert [item["name"] for item in by_file["neighbours"]] == [item["name"] for item in found["neighbours"]]

    for words, names in {
        "--family MLP": ["dense"],
        "--max-params 30k": ["dense", "slim"],
        "--metric top1@digits>=98": [],
        "--metric top1>=97": ["slim"],
        "--tag stage=production": ["twin"],
        "--family none": [],
    }.items():
        kept = filled("nearest", "wide", *words.split(), "--json").document["neighbours"]
        assert sorted(item["name"] for item in kept) == names, words

    for fingerprint in ("layered", "mme"):
        for distance in ("l1", "l2", "linf"):
            terms = ("--fingerprint", fingerprint, "--distance", distance, "--json")
            compared = filled("compare", "wide", "twin", *terms).document
            assert compared["distance_name"] == distance
            assert compared["fingerprint"]["name"] == fingerprint
            assert compared["distance"] == compared["distances"][distance]
            assert compared["distance"] < filled("compare", "wide", "dense", *terms).document["distance"]
    assert filled("compare", "wide", "dense", "--json").document["equivalent"] is False

    classes = filled("classes", "--tolerance", "1e-3", "--json").document["classes"]
    assert sorted(sorted(member["name"] for member in group["members"]) for group in classes) == [
        ["dense"],
        ["slim"],
        ["twin", "wide"],
    ]

    target = tmp_path / "distances.npz"
    assert filled("distances", "-o", str(target), "--fingerprint", "mme", "--distance", "l1").code == 0
    with np.load(target) as written:
        names, matrix = written["names"].tolist(), written["distances"]
    np.testing.assert_array_equal(matrix, matrix.T)
    pair = filled("compare", "wide", "slim", "--fingerprint", "mme", "--distance", "l1", "--json").document
    assert matrix[names.index("wide"), names.index("slim")] == pytest.approx(pair["distance"], rel=1e-6)


def test_where_two_models_differ(filled: Archreg, weights: Path) -> None:
    other, bare = weights / "other.safetensors", weights / "bare.safetensors"
    save_file(network(5, SLIM), other)
    save_file(network(6, SLIM), bare)

    def contrast(reference: object) -> Any:
        return filled("compare", "wide", str(reference), "--json").document["contrast"]

    measured = contrast(other)
    assert measured["layers_a"][0]["name"].startswith("layers.")
    assert sum(measured["shares"].values()) == pytest.approx(1)
    assert filled("ingest", str(other), "--quiet").code == 0
    assert contrast("other") == measured
    assert contrast("twin")["depth_distance"] < measured["depth_distance"] / 10
    assert contrast(bare) is not None
    assert filled("ingest", str(bare), "--no-spectra", "--quiet").code == 0
    assert contrast("bare") is None
    assert "are not stored." in filled("compare", "wide", "bare").out


def test_the_decay_law_is_stored(filled: Archreg) -> None:
    decay = filled("show", "wide", "--json").document["conjugacy"]["decay"]
    # At most two strong directions in each of five layers.
    assert 5 <= decay["exceedances"] <= 10
    assert (decay["law"], decay["statistic"]) == ("undecided", None)
    assert f"undecided: {decay['exceedances']} eigenvalues beyond x = " in filled("show", "wide").out


def test_compress(filled: Archreg) -> None:
    generous = filled("compress", "wide", "--max-ratio", "0.5", "--tolerance", "100", "--json").document
    assert generous["equivalent"] is True
    slim = next(item for item in generous["candidates"] if item["name"] == "slim")
    assert slim["params_saved"] == pytest.approx(1 - slim["parameters"] / generous["model"]["parameters"])
    [change] = slim["changes"]
    assert (change["name"], change["dataset"], change["change"]) == ("top1", "digits", -1.5)
    strict = filled("compress", "wide", "--tolerance", "0")
    assert strict.code == 0
    assert "is equivalent. The nearest are:" in strict.out
    smallest = filled("compress", "dense", "--max-params", "10", "--json")
    assert (smallest.code, smallest.document["candidates"]) == (0, [])


def test_changes(filled: Archreg) -> None:
    assert filled("set", "wide", "--family", "big", "--metric", "loss@digits/test=0.1", "--lower-is-better").code == 0
    model = next(m for m in filled("list", "--json").document["models"] if m["name"] == "wide")
    assert model["family"] == "big"
    assert {(m["name"], m["dataset"], m["split"], m["value"], m["higher_is_better"]) for m in model["metrics"]} == {
        ("top1", "digits", "", 98.5, None),
        ("loss", "digits", "test", 0.1, False),
    }
    # Keys that are also names of parameters in the program.
    assert filled("tag", "wide", "owner=vision", "name=x", "self=y", "--json").document["tags"] == {
        "name": "x",
        "owner": "vision",
        "self": "y",
    }
    tags = filled("tag", "wide", "--remove", "owner", "--remove", "name", "--remove", "self", "--json").document["tags"]
    assert tags == {}

    assert filled("rename", "wide", "large").code == 0
    assert filled("show", "wide").code == 1
    assert filled("rename", "large", "twin").code == 1
    assert filled("rm", "large", "--yes", "--json").document["removed"]["name"] == "large"
    assert filled("show", "large").code == 1
    assert filled("stats", "--json").document["models"] == 3
    assert filled("db", "check").code == 0


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """A folder of what is no model, and one good file."""
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "empty.pt").write_bytes(b"")
    (folder / "text.pt").write_text("I am no checkpoint\n")
    (folder / "text.safetensors").write_text("I am no checkpoint, and longer than a header\n")
    (folder / "short.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")
    save_file({"w": np.full((4, 4), np.nan, np.float32)}, folder / "nan.safetensors")
    save_file({"bias": np.ones(4, np.float32)}, folder / "nothing.safetensors")
    (folder / "void").mkdir()
    save_file(network(4, SLIM), folder / "good.safetensors")
    return folder


@pytest.mark.parametrize(
    "reference",
    [
        "missing.pt",
        "empty.safetensors",
        "empty.pt",
        "text.pt",
        "text.safetensors",
        "short.safetensors",
        "nan.safetensors",
        "nothing.safetensors",
        "void",
        "torchvision:no_such_model",
        "nowhere:model",
    ],
)
def test_bad_references_fail_in_one_line(
    reference: str, archreg: Archreg, bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHREG_DB", str(tmp_path / "r.db"))
    reference = reference if ":" in reference else str(bad / reference)
    done = archreg("ingest", reference, "--quiet")
    assert done.code == 1, done.err
    lines = done.err.splitlines()
    assert lines[0].startswith("archreg: ")
    assert "unexpected" not in done.err
    assert len(lines) <= 2
    assert done.out in ("", "Models: 1 failed.\n")
    both = archreg("ingest", str(bad / "good.safetensors"), reference, "--quiet", "--json")
    assert both.code == 3
    assert (both.document["added"], both.document["failed"]) == (1, 1)
    assert [model["name"] for model in archreg("list", "--json").document["models"]] == ["good"]


@pytest.mark.parametrize(
    "words",
    [
        "list",
        "show x",
        "stats",
        "compare x y",
        "classes",
        "calibrate",
        "calibrate --reset",
        "set x --family f",
        "tag x a=b",
        "rename x y",
        "rm x --yes",
        "refingerprint",
        "spectra x -o x.npz",
        "distances -o x.npz",
    ],
)
def test_without_a_database_nothing_is_created(
    words: str, archreg: Archreg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ARCHREG_DB", raising=False)
    done = archreg(*words.split())
    assert done.code == 1
    assert "archreg ingest" in done.err
    assert "unexpected" not in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("nearest x", 1, "'x' is neither a model that these registries hold nor a file"),
        ("compress x", 1, "'x' is neither a model that these registries hold nor a file"),
        ("compress fsrcnn/FSRCNN_x4", 0, "Add yours: archreg ingest"),
        ("nearest fsrcnn/FSRCNN_x4", 0, "Add yours: archreg ingest"),
        ("select", 0, "Add yours: archreg ingest"),
    ],
)
def test_without_a_database_what_ships_answers_and_nothing_is_created(
    words: str, code: int, said: str, archreg: Archreg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ARCHREG_DB", raising=False)
    done = archreg(*words.split())
    assert done.code == code
    assert said in done.err
    assert list(tmp_path.iterdir()) == []


def test_an_emptied_registry_says_how_to_fill_it(
    archreg: Archreg, weights: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHREG_DB", database_url)
    assert archreg("ingest", str(weights / "wide.safetensors"), "--quiet").code == 0
    assert archreg("rm", "wide", "--yes").code == 0
    assert archreg("list", "--json").document == {"models": []}
    assert "archreg ingest" in archreg("list").err
    for words in (
        "nearest wide", "classes", "compress wide", "distances -o x.npz", "compress torchvision:resnet50", "select",
        "select --like torchvision:resnet50", "calibrate",
    ):  # fmt: skip
        done = archreg(*words.split())
        assert done.code == 1
        assert "archreg ingest" in done.err, words


def test_dry_run_leaves_no_database(archreg: Archreg, weights: Path, tmp_path: Path) -> None:
    done = archreg("ingest", str(weights), "--dry-run", "--json", "--db", str(tmp_path / "r.db"))
    assert done.code == 0
    assert sorted(model["name"] for model in done.document["models"]) == ["dense", "slim", "twin", "wide"]
    assert done.document["bytes"] == sum(path.stat().st_size for path in weights.glob("*.safetensors"))
    assert not (tmp_path / "r.db").exists()


def test_passwords_are_not_repeated(archreg: Archreg) -> None:
    done = archreg("stats", "--db", "postgresql://user:hunter2@127.0.0.1:1/nothing?connect_timeout=2")
    assert done.code == 1
    assert "hunter2" not in done.err
    assert "unexpected" not in done.err


@pytest.fixture
def questioned(archreg: Archreg, weights: Path, tmp_path: Path) -> Path:
    """A database to be asked by other processes."""
    path = tmp_path / "r.db"
    assert archreg("ingest", str(weights), "--quiet", "--db", str(path)).code == 0
    return path


def test_questions_load_no_framework(questioned: Path) -> None:
    program = (
        "import sys\nfrom registry.cli.app import main\n"
        "for words in sys.argv[2:]:\n"
        "    try: main([*words.split(), '--db', sys.argv[1]])\n"
        "    except SystemExit as left: assert not left.code, words\n"
        "print(*{'sqlalchemy', 'torch', 'scipy', 'alembic', 'matplotlib'} & set(sys.modules))"
    )
    words = ("nearest wide", "compare wide slim", "compress wide", "list", "show wide", "stats", "tag wide a=b")
    command = [sys.executable, "-c", program, str(questioned), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "sqlalchemy"


def test_a_reader_that_leaves_early_is_no_error(questioned: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -m registry.cli.app list --db {shlex.quote(str(questioned))} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr.replace("4 models.\n", "") == ""


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_written_to_nowhere(tmp_path: Path, weights: Path, closed: str) -> None:
    database = tmp_path / "closed.db"
    words = [sys.executable, "-m", "registry.cli.app", "ingest", str(weights), "--db", str(database)]
    done = subprocess.run(["bash", "-c", f"{shlex.join(words)} {closed}"], capture_output=True, text=True, check=True)
    assert (done.stdout, "error" in done.stderr) == ("", False)
    with Registry(database) as registry:  # and nothing of it into the file, which could have their numbers
        assert len(registry.models()) == 4
        assert registry.check() == ()


@pytest.mark.parametrize("words", [("list",), ("list", "--json"), ("--help",)])
def test_output_on_a_full_disk_is_one_line(questioned: Path, words: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "registry.cli.app", *words]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env={**os.environ, "ARCHREG_DB": str(questioned)},
            check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert (
        done.stderr
        == "archreg: cannot write: No space left on device\n  free some disk space and run the command again\n"
    )


def test_a_command_that_loads_torch_says_nothing_at_its_end(tmp_path: Path) -> None:
    import torch

    torch.save({"a.weight": torch.randn(8, 6)}, tmp_path / "x.pt")
    words = ["ingest", str(tmp_path / "x.pt"), "--workers", "1", "--quiet", "--db", str(tmp_path / "r.db")]
    command = [sys.executable, "-m", "registry.cli.app", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("Models: 1 added.\n", "")


def test_a_folder_that_may_not_be_listed_fails_alone(
    archreg: Archreg, weights: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHREG_DB", database_url)
    locked, scandir = weights / "locked", os.scandir
    locked.mkdir()

    def refusing(place: Any = ".") -> Any:
        if isinstance(place, str | Path) and Path(place) == locked:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refusing)  # root may list every folder
    planned = archreg("ingest", str(weights), "--dry-run", "--json")
    assert [model["source"] for model in planned.document["models"]] == ["safetensors"] * 4 + ["deferred"]
    done = archreg("ingest", str(weights), "--workers", "1", "--json")
    assert (done.code, done.document["added"], done.document["failed"]) == (3, 4, 1)
    failed = done.document["models"][-1]
    assert failed["message"] == f"{locked} cannot be listed: Permission denied"
    assert f"{locked} cannot be listed: Permission denied\n  check its permissions\n" in done.err
    [item] = archreg("runs", "failures", "--json").document["items"]
    assert (item["message"], item["remedy"]) == (failed["message"], "check its permissions")
    # Once it may be, what failed is tried again.
    save_file(network(9, SLIM), locked / "more.safetensors")
    monkeypatch.setattr(os, "scandir", scandir)
    assert (archreg("runs", "retry", "--quiet").code, len(archreg("list", "--json").document["models"])) == (0, 5)


@pytest.mark.parametrize(
    "words", [("list",), ("nearest", "wide"), ("classes",), ("distances", "-o", "d.npz")], ids=lambda words: words[0]
)
def test_a_misspelt_filter_is_offered_near_ones(
    filled: Archreg, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = filled(*words, "--family", "conf", "--task", "zzzzz")
    assert done.code == 0
    assert "No model has family conf. Similar: conv.\nNo model has task zzzzz.\n" in done.out + done.err
    assert "pairs" not in done.out
    assert filled(*words, "--family", "conf", "--json").document["unmatched"] == {"family": ["conv"]}
    # Nothing is said where something was found, or where it was another filter that removed all.
    for filters in (("--family", "CONV"), ("--family", "conv", "--max-params", "1")):
        done = filled(*words, *filters)
        assert (done.code, "No model has" in done.out + done.err) == (0, False)
        assert "unmatched" not in filled(*words, *filters, "--json").document


def test_near_ones_cost_nothing_where_something_is_found(filled: Archreg, monkeypatch: pytest.MonkeyPatch) -> None:
    from registry.catalog import constraint_report

    def asked(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(constraint_report, "unmatched", asked)
    for words in (("list",), ("nearest", "wide"), ("classes",)):
        assert filled(*words, "--family", "conv").code == 0
    assert filled("list", "--family", "conf").code == 1  # the control: here it is asked
