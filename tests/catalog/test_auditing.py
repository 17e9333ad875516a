"""Audits of stored models and of files, on both databases."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from sqlalchemy import delete

from registry import Metric, Registry
from registry.errors import EmptyRegistryError, UnknownModelError, UsageError
from registry.extensions import AUDIT_RULES
from registry.storage.engine import schema
from tests.audit.test_rules import INITIAL, network

if TYPE_CHECKING:
    from pathlib import Path

    from registry.types import Audit


def rules_of(found: Audit) -> set[tuple[str, str]]:
    return {(each.model, each.rule) for each in found.findings}


def file(folder: Path, name: str, weights: dict[str, Any]) -> Path:
    path = folder / f"{name}.safetensors"
    save_file(weights, path)
    return path


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """A folder with a sound network, and one with a layer as initialised and one of another scale."""
    file(tmp_path, "sound", network(0))
    start = np.asarray(INITIAL["default"](np.random.default_rng(3), 96, 64), np.float32)
    file(tmp_path, "faulty", network(1, **{"d.weight": start, "b.weight": network(1)["b.weight"] * np.float32(1000)}))
    return tmp_path


def test_details_tell_what_is_found_in_a_model_alone(registry_url: str, faulty: Path) -> None:
    with Registry(registry_url) as reg:
        reg.ingest_all(reg.plan([faulty]), workers=1)
        audit = reg.audit()
        for name in ("sound", "faulty"):
            details = reg.show(name)
            assert details.findings == tuple(each for each in audit.findings if each.model == name)
            assert set(details.rules) == set(AUDIT_RULES) - {"labels", "family"}
        assert {each.rule for each in reg.show("faulty").findings} == {"untrained", "scale"}


def test_details_of_a_header_tell_of_no_rule_that_needs_weights(registry_url: str, faulty: Path) -> None:
    with Registry(registry_url) as reg:
        reg.ingest_all(reg.plan([faulty / "sound.safetensors"]), workers=1, headers_only=True)
        assert (reg.show("sound").findings, reg.show("sound").rules) == ((), ("config",))


def test_stored_models(registry_url: str, faulty: Path) -> None:
    with Registry(registry_url) as reg:
        for name in ("sound", "faulty"):
            reg.ingest(faulty / f"{name}.safetensors")
        told: list[tuple[int, int]] = []
        found = reg.audit(progress=lambda *at: told.append(at))
        assert told == [(1, 2), (2, 2)]
        assert rules_of(found) == {("faulty", "untrained"), ("faulty", "scale")}
        assert found.audited == 2
        assert found.rules == tuple(AUDIT_RULES)
        # Of models without a family, that rule says nothing; all others were applied.
        assert [(each.rule, each.models) for each in found.not_audited] == [("family", ("sound", "faulty"))]
        assert reg.audit("sound").findings == ()
        assert reg.audit(["faulty"]).findings == found.findings
        assert rules_of(reg.audit("faulty", rules=["scale"])) == {("faulty", "scale")}
        assert {each.severity for each in found.at_least("error")} == {"error"}
        assert len(found.to_frame()) == len(found.findings) == 2


def test_an_audit_continues_where_it_was_interrupted(registry_url: str, faulty: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.jsonl"
    with Registry(registry_url) as reg:
        for name in ("faulty", "sound"):
            reg.ingest(faulty / f"{name}.safetensors")
        whole = reg.audit()

        def stop(done: int, _total: int) -> None:
            if done == 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            reg.audit(resume=state, progress=stop)
        assert len(state.read_text().splitlines()) == 2
        with state.open("a") as file:
            file.write('{"model": "cut')  # as a kill leaves it
        # The first model is not read again: what is stored of it is gone.
        reg._database.writable().write(lambda connection: connection.execute(delete(schema.spectra)))
        with pytest.raises(KeyboardInterrupt):
            reg.audit(resume=state, progress=stop)
        assert [line[:10] for line in state.read_text().splitlines()] == ['{"audit": ', '{"model": ']
        found = reg.audit(resume=state)
        assert found.findings == whole.findings
        assert [each.models for each in found.not_audited if each.rule == "rank"] == [("sound",)]
        assert not state.exists()
        reg.audit(resume=state, rules=["rank"])
        state.write_text("something else\n")
        with pytest.raises(UsageError, match="is not the progress of this audit"):
            reg.audit(resume=state)
        assert state.read_text() == "something else\n"
        with pytest.raises(UsageError, match="resume is for all stored models"):
            reg.audit("sound", resume=state)


def test_files_say_the_same_and_nothing_is_stored(registry_url: str, faulty: Path) -> None:
    with Registry(registry_url) as reg:
        reg.ingest(faulty / "sound.safetensors")
        of_files = reg.audit([faulty / "sound.safetensors", faulty / "faulty.safetensors"])
        assert rules_of(of_files) == {("faulty", "untrained"), ("faulty", "scale")}
        assert len(reg) == 1
        reg.ingest(faulty / "faulty.safetensors")
        stored = reg.audit("faulty")
    values = {(each.rule, each.layer): each.value for each in of_files.findings}
    assert {(each.rule, each.layer): each.value for each in stored.findings} == pytest.approx(values, rel=1e-5)


def test_a_file_without_a_registry(faulty: Path, tmp_path: Path) -> None:
    with Registry(tmp_path / "none.db") as reg:
        found = reg.audit(faulty / "faulty.safetensors")
    assert rules_of(found) == {("faulty", "untrained"), ("faulty", "scale")}
    assert {each.rule for each in found.not_audited} == {"labels", "family"}
    assert {each.reason for each in found.not_audited} == {"there is no registry to compare it with"}
    assert not (tmp_path / "none.db").exists()


def test_values_that_are_not_finite_are_found_in_a_file(tmp_path: Path) -> None:
    weights = network()
    weights["b.weight"][0, :3] = np.nan
    with Registry(tmp_path / "none.db") as reg:
        [finding] = reg.audit(file(tmp_path, "nan", weights), rules=["nonfinite"]).findings
    assert (finding.layer, finding.value, finding.severity) == ("b.weight", 3, "error")


def test_one_tensor_under_two_names(registry_url: str, tmp_path: Path) -> None:
    weights = network()
    path = file(tmp_path, "copied", weights | {"e.weight": weights["b.weight"].copy()})
    with Registry(registry_url) as reg:
        reg.ingest(path)
        for found in (reg.audit("copied"), reg.audit(path)):
            [finding] = found.findings
            assert (finding.rule, finding.layer, finding.severity) == ("duplicate", "b.weight", "warning")


def test_missing_evidence_is_said_once(registry_url: str, faulty: Path) -> None:
    with Registry(registry_url) as reg:
        reg.ingest(faulty / "sound.safetensors", family="a")
        reg.ingest(faulty / "faulty.safetensors", family="a")
        for table in (schema.weight_figures, schema.sketches):
            reg._database.writable().write(lambda connection, table=table: connection.execute(delete(table)))
        found = reg.audit()
        assert rules_of(found) == {("faulty", "scale")}
        lacking = {each.rule: each for each in found.not_audited}
        assert lacking["untrained"].models == lacking["rows"].models == ("sound", "faulty")
        assert "read them again" in lacking["untrained"].remedy
        assert lacking["labels"].reason.endswith("it has no sketches")
        assert lacking["family"].reason.startswith("fewer than 2 other models")


def test_the_same_weights_under_two_labels(registry_url: str, tmp_path: Path) -> None:
    weights = network()
    half = {name: W.astype(np.float16) for name, W in weights.items()}
    path = file(tmp_path, "one", weights)
    with Registry(registry_url) as reg:
        reg.ingest(path, family="resnet", metrics=(Metric("top1", 92.0, "cifar10"),))
        reg.ingest(file(tmp_path, "half", half), family="vgg", metrics=(Metric("top1", 91.0, "cifar10"),))
        reg.ingest(file(tmp_path, "other", network(5)), family="vgg")
        found = reg.audit(rules=["labels"])
        assert rules_of(found) == {("one", "labels"), ("half", "labels")}
        assert {each.value for each in found.findings} == {2.0}
        reg.set("half", family="ResNet")
        assert {each.value for each in reg.audit(rules=["labels"]).findings} == {1.0}


def test_a_wrong_family(registry_url: str, tmp_path: Path) -> None:
    def deep(seed: int) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        return {f"l{at}.weight": rng.standard_normal((16, 16)).astype(np.float32) for at in range(12)}

    with Registry(registry_url) as reg:
        for seed in range(3):
            reg.ingest(file(tmp_path, f"wide{seed}", network(seed)), family="wide")
            reg.ingest(file(tmp_path, f"deep{seed}", deep(seed)), family="deep")
        assert reg.audit(rules=["family"]).findings == ()
        reg.set("deep1", family="wide")
        [finding] = reg.audit(rules=["family"]).findings
        assert (finding.model, finding.severity, finding.threshold) == ("deep1", "warning", 2.0)
        assert "called wide" in finding.message
        assert "deep" in finding.message


def test_a_configuration_beside_the_weights(registry_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = file(folder, "model", network())
    (folder / "config.json").write_text(json.dumps({"torch_dtype": "float16", "model_type": "made"}))
    with Registry(registry_url) as reg:
        reg.ingest(path, name="made")
        for found in (reg.audit("made", rules=["config"]), reg.audit(path, rules=["config"])):
            [finding] = found.findings
            assert "states float16, and most weights are stored in float32" in finding.message
        (folder / "config.json").unlink()
        assert reg.audit("made", rules=["config"]).findings == ()
        path.unlink()
        gone = reg.audit("made", rules=["config"])
        assert (gone.findings, [each.rule for each in gone.not_audited]) == ((), ["config"])


def test_a_header_alone_is_not_called_sound(registry_url: str, tmp_path: Path) -> None:
    with Registry(registry_url) as reg:
        reg.ingest(file(tmp_path, "header", network()), headers_only=True)
        found = reg.audit("header")
    assert found.findings == ()
    assert {each.rule for each in found.not_audited} >= {"nonfinite", "untrained", "rank", "duplicate", "labels"}


def test_of_several_one_that_fails_is_listed(registry_url: str, faulty: Path) -> None:
    (faulty / "broken.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{notjson")
    with Registry(registry_url) as reg:
        reg.ingest(faulty / "sound.safetensors")
        found = reg.audit([faulty / "broken.safetensors", "sound"])
        assert found.audited == 1
        [failed] = [each for each in found.not_audited if not each.rule]
        assert failed.models == ("broken",)
        with pytest.raises(UnknownModelError, match="neither a stored model nor a file"):
            reg.audit("soud")


def test_wrong_questions(registry_url: str, faulty: Path) -> None:
    with Registry(registry_url) as reg:
        reg.ingest(faulty / "sound.safetensors")
        with pytest.raises(UsageError, match="unknown rule 'none'"):
            reg.audit("sound", rules=["none"])
        with pytest.raises(UsageError, match="filters are for all"):
            reg.audit("sound", family="x")
        assert reg.audit(family="x").audited == 0
        reg.remove("sound")
        with pytest.raises(EmptyRegistryError):
            reg.audit()


def test_a_comparison_tells_what_is_found_in_both(registry_url: str, faulty: Path) -> None:
    with Registry(registry_url) as reg:
        for name in ("sound", "faulty"):
            reg.ingest(faulty / f"{name}.safetensors")
        found = reg.compare("faulty", "sound", audited=True)
        assert found.findings_a == reg.audit("faulty").findings
        assert len(found.findings_a) == 2
        assert found.findings_b == ()
        assert reg.compare("faulty", "sound").findings_a is None
        other = file(faulty, "other", network(5))
        assert reg.compare("sound", other, audited=True).findings_b is None  # it is not stored
