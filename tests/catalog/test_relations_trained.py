"""Relations of trained networks: descendants are related, whatever was done to them; other trainings never are."""

from __future__ import annotations

import math
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.types import Relation

Weights = dict[str, torch.Tensor]
ASSETS = Path(__file__).parents[1] / "assets"
VOCABULARY, WIDTH, INNER, HEADS, LENGTH = 48, 32, 64, 4, 12
SEEDS = 4


class Block(nn.Module):
    """A llama's block: causal attention and a gated perceptron, without biases."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("q", "k", "v", "o"):
            self.add_module(f"{name}_proj", nn.Linear(WIDTH, WIDTH, bias=False))
        self.gate_proj, self.up_proj = (nn.Linear(WIDTH, INNER, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(INNER, WIDTH, bias=False)
        self.one, self.two = (nn.Parameter(torch.ones(WIDTH)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.rms_norm(x, (WIDTH,), self.one)
        q, k, v = (
            getattr(self, f"{name}_proj")(y).unflatten(-1, (HEADS, -1)).transpose(1, 2) for name in ("q", "k", "v")
        )
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o_proj(seen.transpose(1, 2).flatten(2))
        y = nn.functional.rms_norm(x, (WIDTH,), self.two)
        return x + self.down_proj(nn.functional.silu(self.gate_proj(y)) * self.up_proj(y))


class Llama(nn.Module):
    """A llama of a few thousand weights."""

    def __init__(self, vocabulary: int = VOCABULARY, blocks: int = 2) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, WIDTH)
        self.layers = nn.ModuleList(Block() for _ in range(blocks))
        self.lm_head = nn.Linear(WIDTH, vocabulary, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed_tokens(tokens)
        for block in self.layers:
            x = block(x)
        return self.lm_head(x)


def text_of(task: int, steps: int, seed: int, vocabulary: int = VOCABULARY) -> torch.Tensor:
    """Batches (steps, 32, LENGTH) of a Markov chain that the task decides: each token has three likely successors."""
    rules = np.random.default_rng(task)
    successors = rules.integers(VOCABULARY, size=(vocabulary, 3))
    rng = np.random.default_rng([task, seed])
    tokens = rng.integers(vocabulary, size=(steps, 32, LENGTH))
    for at in range(1, LENGTH):
        follows = successors[tokens[:, :, at - 1], rng.integers(3, size=(steps, 32))]
        tokens[:, :, at] = np.where(rng.random((steps, 32)) < 0.9, follows, tokens[:, :, at])
    return torch.from_numpy(tokens)


def trained(model: Llama, steps: int, *, task: int = 0, seed: int = 0, rate: float = 3e-3) -> float:
    """Train in place on next tokens; return the last loss."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    loss = torch.zeros(())
    for tokens in text_of(task, steps, seed, model.embed_tokens.num_embeddings):
        scores = model(tokens[:, :-1])
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return float(loss.detach())


def copy_of(model: Llama, vocabulary: int = VOCABULARY) -> Llama:
    """The same network, with the vocabulary resized as tokens are added: new rows as at the start."""
    other = Llama(vocabulary, len(model.layers))
    weights = other.state_dict()
    for name, tensor in model.state_dict().items():
        weights[name][: len(tensor)] = tensor
    other.load_state_dict(weights)
    return other


NF4 = np.array(
    [
        -1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.09105, 0.0,
        0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.562617, 0.7229568, 1.0,
    ],
    np.float32,
)  # fmt: skip
"""Values of the 4-bit NormalFloat (Dettmers and others, "QLoRA", 2023)."""


def in_4_bits(tensor: torch.Tensor) -> torch.Tensor:
    """Rounded to NF4 with a scale for each 32 weights, and back."""
    blocks = tensor.reshape(-1, 32).numpy()
    scale = np.abs(blocks).max(axis=1, keepdims=True)
    codes = np.abs((blocks / scale)[..., None] - NF4).argmin(axis=-1)
    return torch.from_numpy((NF4[codes] * scale).reshape(tensor.shape))


def matrices(weights: Weights) -> Weights:
    return {name: tensor for name, tensor in weights.items() if tensor.ndim == 2}


def adapted(weights: Weights, seed: int) -> Weights:
    """Merged adapters of rank 2 in the attention."""
    rng = torch.Generator().manual_seed(seed)
    found = dict(weights)
    for name, w in weights.items():
        if "q_proj" in name or "v_proj" in name:
            a, b = torch.randn(2, w.shape[1], generator=rng), torch.randn(w.shape[0], 2, generator=rng)
            found[name] = w + 0.5 * w.std() * (b @ a)
    return found


def pruned(weights: Weights, part: float) -> Weights:
    return {name: w * (w.abs() > torch.quantile(w.abs(), part)) if w.ndim == 2 else w for name, w in weights.items()}


def deepened(weights: Weights) -> Weights:
    """A new block between the two, and the names counted anew."""
    new = {f"layers.1.{name}": w for name, w in Block().state_dict().items()}
    moved = {name.replace("layers.1.", "layers.2."): w for name, w in weights.items()}
    return moved | new


@pytest.fixture(scope="module")
def reg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """All variants of the first training, and the other trainings."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    networks: dict[str, Weights] = {}
    models = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        models.append(Llama())
        networks[f"start{seed}"] = {name: w.clone() for name, w in models[-1].state_dict().items()}
        begun = math.log(VOCABULARY)
        assert trained(models[-1], 150, seed=seed) < 0.8 * begun  # it has learned something
        networks[f"seed{seed}"] = {name: w.clone() for name, w in models[-1].state_dict().items()}
    first = networks["seed0"]
    for name, steps, task, vocabulary in (
        ("tuned", 60, 1, VOCABULARY),
        ("continued", 600, 2, VOCABULARY),
        ("resized", 60, 1, VOCABULARY + 9),
    ):
        model = copy_of(models[0], vocabulary)
        trained(model, steps, task=task, seed=9)
        networks[name] = model.state_dict()
    torch.manual_seed(99)
    other = Llama(VOCABULARY + 9)
    trained(other, 150, seed=99)
    networks["resized stranger"] = other.state_dict()
    networks["new head"] = {**first, "lm_head.weight": torch.randn(7, WIDTH)}
    networks["deepened"] = deepened(first)
    networks["half"] = {name: w.half() for name, w in first.items()}
    networks["bfloat"] = {name: w.bfloat16() for name, w in first.items()}
    networks["4 bits"] = {name: in_4_bits(w) if w.ndim == 2 else w for name, w in first.items()}
    networks["adapted"] = adapted(first, 1)
    networks["averaged"] = {name: (w + networks["seed1"][name]) / 2 for name, w in first.items()}
    networks["pruned"] = pruned(first, 0.5)
    networks["pruned hard"] = pruned(first, 0.9)
    networks["renamed"] = {f"model.decoder.{name}": 1.5 * w for name, w in networks["tuned"].items()}
    with Registry(tmp_path_factory.mktemp("llamas") / "llamas.db") as reg:
        for name, weights in networks.items():
            assert reg.ingest(matrices(weights), name=name).status == "added"
        yield reg


DESCENDANTS = (
    "tuned", "continued", "resized", "new head", "deepened", "half", "bfloat", "4 bits", "adapted", "averaged",
    "pruned", "pruned hard", "renamed", "start0",
)  # fmt: skip


@pytest.mark.parametrize("name", DESCENDANTS)
def test_descendants_are_related(reg: Registry, name: str) -> None:
    found = reg.relation("seed0", name)
    assert found.verdict == "related", found
    assert reg.relation(name, "seed0") == found


def test_what_differs_less_correlates_more(reg: Registry) -> None:
    r = {name: reg.relation("seed0", name).correlation or 0.0 for name in DESCENDANTS}
    for name in ("half", "bfloat", "4 bits"):
        assert r[name] == pytest.approx(1.0, abs=0.05), name
    assert r["tuned"] > r["continued"] > 0.1
    assert r["pruned"] > r["pruned hard"]
    assert r["averaged"] == pytest.approx(math.sqrt(0.5), abs=0.15)
    assert reg.relation("seed1", "averaged").verdict == "related"


@pytest.mark.parametrize("name", [*(f"seed{seed}" for seed in range(1, SEEDS)), "resized stranger", "start1"])
def test_other_trainings_are_independent(reg: Registry, name: str) -> None:
    """The same task, the same code, another seed: of the first training and of all that descends from it alone."""
    for of_first in ("seed0", *DESCENDANTS):
        if of_first == "averaged" and name in ("seed1", "start1"):
            continue
        found = reg.relation(of_first, name)
        assert found.verdict == "independent", (of_first, name, found)


def test_the_registry_finds_all_and_no_other(reg: Registry) -> None:
    found = reg.related("seed0", 50)
    assert {each.model.name for each in found.relatives} == set(DESCENDANTS)
    [family, *others] = [{model.name for model in tree.models} for tree in reg.tree().trees]
    assert family >= set(DESCENDANTS) | {"seed0", "seed1", "start1"}  # the average joins two trainings
    assert sorted(map(sorted, others)) == [["seed2", "start2"], ["seed3", "start3"]]


# Networks that are made, not trained.


def plain(seed: int, *shapes: tuple[int, int], orthogonal: bool = False) -> Weights:
    rng = torch.Generator().manual_seed(seed)
    found = {f"l{at}.weight": torch.randn(shape, generator=rng) for at, shape in enumerate(shapes)}
    return {name: torch.linalg.qr(w)[0] for name, w in found.items()} if orthogonal else found


def permuted(weights: Weights, seed: int) -> Weights:
    """The same function, with hidden units in another order."""
    rng, found, order = torch.Generator().manual_seed(seed), {}, None
    for at, (name, w) in enumerate(weights.items()):
        outputs = torch.randperm(len(w), generator=rng) if at < len(weights) - 1 else torch.arange(len(w))
        found[name] = w[outputs] if order is None else w[outputs][:, order]
        order = outputs
    return found


def noisy(weights: Weights, amount: float) -> Weights:
    rng = torch.Generator().manual_seed(7)
    return {name: w + amount * w.std() * torch.randn(w.shape, generator=rng) for name, w in weights.items()}


@pytest.fixture
def compare(tmp_path: Path) -> Iterator[object]:
    with Registry(tmp_path / "two.db") as two:
        two.ingest(plain(0, (4, 20)), name="any")

        def of(a: Weights, b: Weights) -> Relation:
            found = two.relation(a, b)
            assert two.relation(b, a) == found
            return found

        yield of


FOUR = ((40, 20), (40, 40), (40, 40), (10, 40))


def test_units_in_another_order_are_told_by_their_spectra(compare) -> None:
    one = plain(1, *FOUR)
    assert compare(one, permuted(one, 2)).verdict == "permuted"
    assert compare(one, noisy(permuted(one, 2), 0.05)).verdict == "independent"
    assert compare(one, one).verdict == "identical"


def test_orthogonal_strangers_are_not_permuted(compare) -> None:
    squares = ((40, 40),) * 4
    one, other = plain(1, *squares, orthogonal=True), plain(2, *squares, orthogonal=True)
    assert compare(one, other).verdict == "independent"


def test_one_layer_tells_by_a_high_correlation_alone(compare) -> None:
    one = plain(1, (60, 60))
    assert compare(one, noisy(one, 0.3)).verdict == "related"
    found = compare(one, plain(2, (60, 60)))
    assert (found.verdict, found.reason) == ("undecided", "fewer than 3 layers of equal shape")
    assert compare(one, noisy(one, 3.0)).verdict == "undecided"


def test_what_has_no_layer_in_common_is_not_comparable(compare) -> None:
    tiny = plain(1, (7, 9), (9, 7), (6, 9))  # all below 64 weights
    for a, b in (
        (tiny, noisy(tiny, 0.1)),
        (plain(1, *FOUR), plain(1, (41, 21), (41, 41), (11, 41))),
        (plain(1, (40, 20), (30, 40)), plain(1, (20, 40), (40, 30))),  # the same names, other shapes
    ):
        found = compare(a, b)
        assert (found.verdict, found.reason, found.correlation) == ("not comparable", "no layers of equal shape", None)


def test_whole_numbers_are_weights_too(compare) -> None:
    def rounded(weights: Weights) -> Weights:
        return {name: (2 * w).round() for name, w in weights.items()}

    one = plain(1, *FOUR)
    assert compare(rounded(one), rounded(noisy(one, 0.5))).verdict == "related"
    assert compare(rounded(one), rounded(plain(2, *FOUR))).verdict == "independent"


def test_layers_of_zeros_neither_relate_nor_separate(compare) -> None:
    def frozen(weights: Weights) -> Weights:
        return {name: w * 0 if name in ("l0.weight", "l2.weight", "l4.weight") else w for name, w in weights.items()}

    six = ((40, 20), *((40, 40),) * 4, (10, 40))
    one = plain(1, *six)
    found = compare(frozen(one), frozen(noisy(one, 0.5)))
    assert (found.verdict, found.layers) == ("related", 3)
    assert compare(frozen(one), frozen(plain(2, *six))).verdict in ("independent", "undecided")
    assert compare(frozen(one), noisy(one, 0.5)).verdict == "related"


def test_sketches_of_another_version_are_not_compared(tmp_path: Path) -> None:
    one = plain(1, *FOUR)
    with Registry(tmp_path / "a.db") as reg:
        reg.ingest(one, name="one")
        reg.ingest(noisy(one, 0.1), name="near")
        assert reg.relation("one", "near").verdict == "related"
    with sqlite3.connect(tmp_path / "a.db") as held:
        held.execute("UPDATE sketches SET version = version + 1")
    held.close()
    with Registry(tmp_path / "a.db") as reg:
        found = reg.relation("one", "near")
        assert (found.verdict, found.reason) == (
            "not comparable",
            "one: it has no sketches of this version; ingest its weights",
        )
        assert [model.name for model in reg.to_read_again()] == ["near", "one"]
        assert reg.tree().unsketched == 2


def test_registries_from_before_sketches(tmp_path: Path) -> None:
    shutil.copy(ASSETS / "v0005.sqlite", tmp_path / "old.db")
    with Registry(tmp_path / "old.db") as reg:
        reg.upgrade()
        found = reg.tree()
        assert (found.trees, found.compared) == ((), 0)
        assert found.unsketched == len(reg) > 0
