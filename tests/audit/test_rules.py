"""Each rule finds its fault in made weights, and nothing in weights without one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from registry.audit import RULES, AuditSubject, FamilyShapes, Twin, foreign_family, judged
from registry.types import Metric, SkippedTensor, VectorCounts
from tests.audit.factory import subject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from registry.types import Finding


def trained(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    """Entries with a heavy law and a few strong directions, of scale 0.05."""
    W = rng.standard_t(5, size=shape)
    p = shape[0]
    W += np.multiply.outer(rng.standard_normal(p), rng.standard_normal(shape[1:])) * 0.5
    return np.asarray(0.05 * W, np.float32)


def network(seed: int = 0, **changes: Any) -> dict[str, NDArray[np.floating]]:
    """Four layers of order 64 to 128 that look trained; `changes` replace some."""
    rng = np.random.default_rng(seed)
    weights: dict[str, NDArray[np.floating]] = {
        "a.weight": trained(rng, 96, 128),
        "b.weight": trained(rng, 128, 96),
        "c.weight": trained(rng, 64, 32, 3, 3),
        "d.weight": trained(rng, 96, 64),
    }
    return weights | changes


def found(asked: AuditSubject, *rules: str) -> list[Finding]:
    return list(judged(asked, rules or RULES).findings)


def one(asked: AuditSubject, rule: str) -> Finding:
    """The only finding of a rule."""
    [finding] = found(asked, rule)
    assert finding.rule == rule
    assert finding.message and not finding.message.endswith(".")  # noqa: PT018
    assert finding.remedy
    return finding


def test_a_sound_network_has_no_finding() -> None:
    kin = FamilyShapes(3, 0.1, 0.5, "other", "vgg")
    assert found(subject(network(), family="resnet", kin=kin)) == []


def test_every_rule_is_listed_by_its_name() -> None:
    for name, rule in RULES.items():
        assert rule.name == name
        assert rule.when.keys() == rule.false_alarms.keys()
        assert all(0 <= rate <= 1 for rate in rule.false_alarms.values())


INITIAL = {
    "default": lambda rng, p, q: rng.uniform(-1, 1, (p, q)) / q**0.5,
    "He normal": lambda rng, p, q: rng.standard_normal((p, q)) * (2 / q) ** 0.5,
    "Glorot uniform": lambda rng, p, q: rng.uniform(-1, 1, (p, q)) * (6 / (p + q)) ** 0.5,
    "normal 0.02": lambda rng, p, q: 0.02 * rng.standard_normal((p, q)),
}


@pytest.mark.parametrize("name", INITIAL)
def test_an_initialised_layer_is_found(name: str) -> None:
    start = np.asarray(INITIAL[name](np.random.default_rng(3), 96, 64), np.float32)
    finding = one(subject(network(**{"d.weight": start})), "untrained")
    assert (finding.severity, finding.layer, finding.threshold) == ("error", "d.weight", 3.0)
    assert finding.value < 3


def test_weight_decay_makes_it_a_warning() -> None:
    start = np.asarray(0.7 * INITIAL["default"](np.random.default_rng(3), 96, 64), np.float32)
    assert one(subject(network(**{"d.weight": start})), "untrained").severity == "warning"


def test_a_small_initialised_layer_is_a_note() -> None:
    start = np.asarray(INITIAL["default"](np.random.default_rng(3), 40, 64), np.float32)
    assert one(subject(network(**{"d.weight": start})), "untrained").severity == "note"


def test_heavy_entries_are_no_start() -> None:
    """Trained layers may have no strong direction, but not the law of an initialiser."""
    heavy = np.asarray(np.random.default_rng(0).standard_t(5, (96, 64)), np.float32)
    heavy *= (1 / 3 / 64) ** 0.5 / heavy.std()
    assert found(subject(network(**{"d.weight": heavy})), "untrained") == []


def test_an_untrained_model_is_told_of_once() -> None:
    rng = np.random.default_rng(1)
    starts = {name: np.asarray(INITIAL["default"](rng, 96, 64), np.float32) for name in ("a", "b", "c")}
    finding = one(subject(starts), "untrained")
    assert (finding.severity, finding.layer) == ("note", "")
    assert "untrained" in finding.message


def test_a_layer_in_other_precision_is_a_duplicate() -> None:
    weights = network()
    weights["b.weight"] = weights["b.weight"].astype(np.float16)
    weights["e.weight"] = weights["b.weight"].astype(np.float32) * np.float32(1.00001)
    asked = subject(weights)
    finding = one(asked, "duplicate")
    assert (finding.layer, finding.severity, finding.value) == ("b.weight", "warning", 1)
    assert "e.weight" in finding.message
    assert "sketches" in finding.message
    told = one(replace(asked, equal=lambda one, other: (one, other) == (1, 4)), "duplicate")
    assert "the same values" in told.message
    assert found(replace(asked, equal=lambda *_: False), "duplicate") == []


def test_tied_tensors_are_duplicates_but_for_embeddings() -> None:
    asked = subject(network())

    def tied(*pairs: tuple[str, str]) -> AuditSubject:
        skipped = tuple(SkippedTensor(name, "float32", (96, 128), f"tied to {original}") for name, original in pairs)
        return replace(asked, skipped=skipped)

    finding = one(tied(("x.weight", "a.weight"), ("y.weight", "a.weight")), "duplicate")
    assert (finding.layer, finding.severity, finding.value) == ("a.weight", "warning", 2)
    shared = found(tied(("head2.fc1.weight", "head1.fc1.weight"), ("head2.fc2.weight", "head1.fc2.weight")))
    assert {each.severity for each in shared} == {"note"}
    assert found(tied(("lm_head.weight", "embed_tokens.weight"))) == []


def test_rows_of_zeros_and_constant_rows() -> None:
    weights = network()
    weights["a.weight"][:10] = 0
    weights["b.weight"][3] = 0.25
    zeros, constant = sorted(found(subject(weights), "rows"), key=lambda each: each.layer)
    assert (zeros.layer, zeros.value, zeros.severity) == ("a.weight", 10, "warning")
    assert (constant.layer, constant.value) == ("b.weight", 1)
    weights = network()
    weights["a.weight"][0] = 0
    assert one(subject(weights, **{"kind_a.weight": "embedding"}), "rows").severity == "note"


def test_rank_below_half() -> None:
    rng = np.random.default_rng(0)
    low = (rng.standard_normal((96, 20)) @ rng.standard_normal((20, 64)) * 0.01).astype(np.float32)
    finding = one(subject(network(**{"d.weight": low})), "rank")
    assert (finding.layer, finding.threshold) == ("d.weight", 0.5)
    assert finding.value == pytest.approx(20 / 64)
    half = (rng.standard_normal((96, 40)) @ rng.standard_normal((40, 64)) * 0.01).astype(np.float32)
    assert found(subject(network(**{"d.weight": half})), "rank") == []


@pytest.mark.parametrize(("factor", "severity"), [(1000, "error"), (1e-3, "warning")])
def test_a_layer_of_another_scale(factor: float, severity: str) -> None:
    weights = network()
    weights["c.weight"] = weights["c.weight"] * np.float32(factor)
    finding = one(subject(weights), "scale")
    assert (finding.layer, finding.severity) == ("c.weight", severity)
    assert factor / 5 < finding.value < factor * 5


def test_saturated_values() -> None:
    weights = network()
    half = weights["a.weight"].astype(np.float16)
    half[0, :5] = np.finfo(np.float16).max
    finding = one(subject(weights | {"a.weight": half}), "saturated")
    assert (finding.layer, finding.severity, finding.value) == ("a.weight", "error", 5)


@pytest.mark.parametrize(("moved", "severity"), [(0, "error"), (6, "warning"), (8, "")])
def test_statistics_that_never_moved(moved: int, severity: str) -> None:
    asked = subject(network(), VectorCounts(statistics=8, statistics_moved=moved))
    assert [each.severity for each in found(asked, "statistics")] == ([severity] if severity else [])


def test_values_that_are_not_finite() -> None:
    skipped = (SkippedTensor("x", "float32", (4, 4), "not finite (3 values)"),)
    asked = replace(subject(network()), skipped=skipped, nonfinite=5)
    of_layer, rest = found(asked, "nonfinite")
    assert (of_layer.layer, of_layer.value, of_layer.severity) == ("x", 3, "error")
    assert (rest.layer, rest.value) == ("", 2)


def test_labels_of_the_same_weights() -> None:
    scores = (Metric("top1", 92.0, "cifar10"),)
    asked = replace(subject(network()), family="resnet", architecture="resnet20", metrics=scores)
    same = Twin("copy", "ResNet", "", scores)
    other = Twin("other", "vgg", "resnet20", (Metric("top1", 91.0, "cifar10"),))
    finding = one(replace(asked, twins=(same, other)), "labels")
    assert finding.value == 2
    assert "family (vgg, not resnet); top1@cifar10 (91, not 92)" in finding.message


@pytest.mark.parametrize(("own", "other", "expected"), [(0.5, 0.2, 2.5), (0.3, 0.2, None), (0.2, 0.0, float("inf"))])
def test_a_foreign_family(own: float, other: float, expected: float | None) -> None:
    asked = replace(subject(network()), family="resnet", kin=FamilyShapes(4, own, other, "near", "vgg"))
    assert [each.value for each in found(asked, "family")] == ([] if expected is None else [pytest.approx(expected)])


def test_a_family_can_be_stated_of_a_file() -> None:
    lack = foreign_family.RULE.lacks(replace(subject(network()), registry=True, family=""))
    assert lack is not None
    assert lack.reason == "the family is not known"
    assert lack.remedy == "archreg set NAME --family FAMILY; of a file: archreg ingest FILE --family FAMILY"


CONFIGS = [
    ({"torch_dtype": "float16"}, 1),
    ({"torch_dtype": "torch.float32", "hidden_size": 64, "num_hidden_layers": 2}, 0),
    ({"hidden_size": 1000}, 1),
    ({"num_hidden_layers": 12}, 1),
    ({"hidden_size": True, "vocab_size": "many", "dtype": 4}, 0),
]


@pytest.mark.parametrize(("config", "count"), CONFIGS)
def test_a_configuration_that_the_weights_contradict(config: dict[str, Any], count: int) -> None:
    weights = {f"layers.{at}.weight": W for at, W in enumerate(network().values()) if at < 2}
    asked = subject(weights, config=config, precision="float32")
    assert [each.severity for each in found(asked, "config")] == ["warning"] * count


def test_a_vocabulary_beyond_the_embedding() -> None:
    asked = subject(network(), **{"kind_a.weight": "embedding"}, config={"vocab_size": 100})
    finding = one(asked, "config")
    assert (finding.layer, finding.value, finding.threshold) == ("a.weight", 96, 100)


def test_what_is_missing_is_said_and_never_sound() -> None:
    bare = AuditSubject("bare", subject(network()).layers)
    result = judged(bare, RULES)
    assert result.findings == ()
    lacking = dict(result.lacks)
    assert set(lacking) == set(RULES) - {"nonfinite"}
    assert lacking["rows"].reason == "stored before figures of the weights were"
    assert lacking["rank"].reason == "the spectra were not stored"
    header = dict(judged(AuditSubject("header", bare.layers, weights_read=False), RULES).lacks)
    assert set(header) == set(RULES)
    assert "not read" in header["rows"].reason


def without_spectra(weights: Mapping[str, NDArray[np.floating]], **known: Any) -> AuditSubject:
    """The evidence of a file whose spectra were not computed: means of the eigenvalues, and its values."""
    whole = subject(weights, **known)
    names = list(weights)

    def equal(one: int, other: int) -> bool:
        return bool((weights[names[one]] == weights[names[other]]).all())

    return replace(whole, spectra=None, given_means=whole.means, told=whole.training, equal=equal)


def test_rules_that_need_no_spectra_are_applied_without() -> None:
    weights = network()
    weights["b.weight"] = 1e4 * weights["b.weight"]
    weights["d.weight"] = weights["c.weight"].copy()
    weights["a.weight"][3] = 0
    whole, bare = subject(weights), without_spectra(weights)
    lacking = {rule for rule, _ in judged(bare, RULES).lacks} - {rule for rule, _ in judged(whole, RULES).lacks}
    assert lacking == {"rank", "untrained"}
    for rule in ("scale", "duplicate", "rows"):
        told = [(each.layer, each.severity, each.value) for each in found(bare, rule)]
        assert told == [(each.layer, each.severity, each.value) for each in found(whole, rule)] != [], rule


def test_duplicates_without_spectra_are_confirmed_by_values() -> None:
    weights = network()
    weights["d.weight"] = weights["c.weight"].copy()
    assert [each.layer for each in found(without_spectra(weights), "duplicate")] == ["c.weight"]
    assert found(replace(without_spectra(weights), equal=lambda _one, _other: False), "duplicate") == []
    assert "duplicate" in dict(judged(replace(without_spectra(weights), equal=None), RULES).lacks)
