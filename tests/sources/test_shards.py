from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from registry.errors import NotFoundError, SourceError, UnsafeError, WeightsError
from registry.sources import expand, open_ref, plan_weights

if TYPE_CHECKING:
    from pathlib import Path

A, B = torch.arange(12.0).reshape(3, 4), torch.eye(3).bfloat16()
FIRST, SECOND = ("model-00001-of-00002", "model-00002-of-00002")


def write(folder: Path, suffix: str, first: Any, second: Any, mapped: dict[str, str] | None = None) -> Path:
    save = save_file if suffix == ".safetensors" else torch.save
    save(first, folder / (FIRST + suffix))
    save(second, folder / (SECOND + suffix))
    mapped = mapped or dict.fromkeys(first, FIRST + suffix) | dict.fromkeys(second, SECOND + suffix)
    index = folder / f"model{suffix}.index.json"
    index.write_text(json.dumps({"weight_map": mapped}))
    return index


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_names_are_bared_of_what_all_shards_share(suffix: str, tmp_path: Path) -> None:
    """One shard alone has a longer prefix in common than the model has."""
    index = write(tmp_path, suffix, {"module.module.a": A}, {"module.b": B})
    with open_ref(expand(index)[0]) as checkpoint:
        assert {info.name: info.shape for info in checkpoint.tensors} == {"module.a": (3, 4), "b": (3, 3)}
        np.testing.assert_array_equal(checkpoint.read("module.a"), A.numpy())
        np.testing.assert_array_equal(checkpoint.read("b"), B.float().numpy())


def test_a_tensor_that_the_index_leaves_out_is_read_all_the_same(tmp_path: Path) -> None:
    index = write(
        tmp_path,
        ".safetensors",
        {"a": A, "extra": A + 1},
        {"b": B},
        {"a": f"{FIRST}.safetensors", "b": f"{SECOND}.safetensors"},
    )
    with open_ref(expand(index)[0]) as checkpoint:
        assert sorted(layer.name for layer in plan_weights(checkpoint).layers) == ["a", "b", "extra"]


def test_of_a_tensor_in_two_shards_the_index_says_which(tmp_path: Path) -> None:
    index = write(tmp_path, ".bin", {"a": A, "b": B}, {"a": A + 1}, {"a": f"{SECOND}.bin", "b": f"{FIRST}.bin"})
    with open_ref(expand(index)[0]) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("a"), A.numpy() + 1)


def test_shards_of_old_torch_files_are_read(tmp_path: Path) -> None:
    index = write(tmp_path, ".bin", {"a": A}, {"b": B})
    torch.save({"b": B}, tmp_path / f"{SECOND}.bin", _use_new_zipfile_serialization=False)
    with open_ref(expand(index)[0]) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("b"), B.float().numpy())


def test_a_key_has_nothing_to_choose(tmp_path: Path) -> None:
    index = write(tmp_path, ".bin", {"a": A}, {"b": B})
    with pytest.raises(NotFoundError, match="never wrapped"):
        open_ref(expand(index, key="model")[0])


def test_closing_closes_the_shards(tmp_path: Path) -> None:
    checkpoint = open_ref(expand(write(tmp_path, ".safetensors", {"a": A}, {"b": B}))[0])
    shards = {shard for shard, _ in checkpoint.stored._parts.values()}  # type: ignore[attr-defined]
    assert len(shards) == 2
    checkpoint.close()
    for shard in shards:
        with pytest.raises(SourceError, match="closed"):
            shard.raw("a")


def sets(folder: Path) -> dict[str, tuple[str, ...]]:
    """Layers of each model that a scan of the folder finds, by its name."""
    found = {}
    for ref in expand(folder):
        with open_ref(ref) as checkpoint:
            found[ref.name] = tuple(sorted(layer.name for layer in plan_weights(checkpoint).layers))
    return found


@pytest.mark.parametrize(
    "names",
    [
        ("model-1-of-2", "model-2-of-2"),
        ("model-00001-of-000002", "model-000002-of-2"),
        ("pytorch_model-00001-of-2", "pytorch_model-00002-of-2"),
        ("model-00000-of-00002", "model-00001-of-00002"),
        ("model_1_of_2", "model_2_of_2"),
        ("model_part-1", "model_part-2"),
        ("model_part-0", "model_part-1"),
        ("model.part01", "model.part02"),
        ("model-shard1", "model-shard2"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".pt"])
def test_files_that_are_one_model_by_name(names: tuple[str, str], suffix: str, tmp_path: Path) -> None:
    save = save_file if suffix == ".safetensors" else torch.save
    folder = tmp_path / "net"
    folder.mkdir()
    for name, state in zip(names, ({"a": A}, {"b": B, "c": torch.eye(4)}), strict=True):
        save(state, folder / (name + suffix))
    assert list(sets(tmp_path).values()) == [("a", "b", "c")]
    for name in names:  # whichever of them is given
        (ref,) = expand(folder / (name + suffix))
        assert (ref.source, ref.target) == ("shards", str(folder / (names[0] + suffix)))
        assert ref.bytes == sum(path.stat().st_size for path in folder.iterdir())
        with open_ref(ref) as checkpoint:
            assert {info.name for info in checkpoint.tensors} == {"a", "b", "c"}
            np.testing.assert_array_equal(checkpoint.read("b"), B.float().numpy())


@pytest.mark.parametrize(
    ("there", "gone"),
    [
        (["model-2-of-2"], "model-1-of-2"),
        (["model-000002-of-2"], "model-000001-of-2"),
        (["model-00000-of-00002"], "model-00001-of-00002"),
        (["pytorch_model_1_of_2"], "pytorch_model_2_of_2"),
        (["model_part-0", "model_part-2"], "model_part-1"),
        (["model_part-2"], "model_part-1"),
        (["consolidated.01"], "consolidated.00"),
        (["consolidated.00", "consolidated.02"], "consolidated.01"),
    ],
)
def test_the_missing_file_of_a_set_is_named(there: list[str], gone: str, tmp_path: Path) -> None:
    for name in there:
        torch.save({"a": A}, tmp_path / f"{name}.pth")
    for given in (tmp_path, tmp_path / f"{there[0]}.pth"):
        (ref,) = expand(given)
        with pytest.raises(WeightsError, match=rf"one of \d (shards|parts), of which {gone}\.pth is missing") as caught:
            open_ref(ref)
        assert caught.value.remedy == f"download {gone}.pth into {tmp_path}"


def test_a_set_is_named_after_what_its_files_share(tmp_path: Path) -> None:
    for name in ("zoo/net/model-1-of-2", "zoo/net/model-2-of-2", "zoo/big-1-of-2", "zoo/big-2-of-2", "zoo/other"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save_file({name[-6]: A}, tmp_path / f"{name}.safetensors")
    assert [ref.name for ref in expand(tmp_path / "zoo")] == ["big", "net", "other"]


def test_sets_of_other_sizes_are_apart(tmp_path: Path) -> None:
    """A leftover of another split is a model that fails, not a part of this one."""
    write(tmp_path, ".safetensors", {"a": A}, {"b": B})
    save_file({"a": A}, tmp_path / "model-00001-of-00003.safetensors")
    whole, leftover = sorted(expand(tmp_path), key=lambda ref: ref.target, reverse=True)
    open_ref(whole).close()
    with pytest.raises(WeightsError, match=r"00001-of-00003\.safetensors is one of 3 shards"):
        open_ref(leftover)


def test_a_shard_that_the_index_names_and_nobody_has(tmp_path: Path) -> None:
    index = write(tmp_path, ".safetensors", {"a": A}, {"b": B})
    (tmp_path / f"{SECOND}.safetensors").unlink()
    (ref,) = expand(tmp_path)
    with pytest.raises(
        NotFoundError, match=rf"{SECOND}\.safetensors: {index.name} names it, and 1 of its 2 sh"
    ) as caught:
        open_ref(ref)
    assert caught.value.remedy == f"download {SECOND}.safetensors into the folder of the index"


def test_names_that_may_mean_anything_are_models_alone(tmp_path: Path) -> None:
    for name in ("part-1", "counterpart2", "depart3", "model-1", "2-of-3"):
        save_file({name[0]: A + len(name)}, tmp_path / f"{name}.safetensors")
    assert len(sets(tmp_path)) == 5


def test_two_models_called_parts_are_not_joined(tmp_path: Path) -> None:
    for number in (1, 2):
        save_file({"a": A + number}, tmp_path / f"run_part-{number}.safetensors")
    (ref,) = expand(tmp_path)
    with pytest.raises(WeightsError, match=r"'a' is in several files, run_part-2\.safetensors too") as caught:
        open_ref(ref)
    assert "give them other names" in (caught.value.remedy or "")


def test_a_set_of_too_many_files_is_refused(tmp_path: Path) -> None:
    save_file({"a": A}, tmp_path / "model-00001-of-999999999.safetensors")
    save_file({"a": A}, tmp_path / "other.safetensors")
    refused, sound = expand(tmp_path)
    open_ref(sound).close()
    with pytest.raises(UnsafeError, match="one of 999999999 files"):
        open_ref(refused)


def test_a_set_has_no_key(tmp_path: Path) -> None:
    for number in (1, 2):
        save_file({f"a{number}": A}, tmp_path / f"model-{number}-of-2.safetensors")
    with pytest.raises(NotFoundError, match="never wrapped"):
        open_ref(expand(tmp_path, key="model")[0])


def llama(width: int = 8, hidden: int = 20, vocabulary: int = 12) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "tok_embeddings.weight": (vocabulary, width),
        "norm.weight": (width,),
        "output.weight": (vocabulary, width),
    }
    for block in range(2):
        shapes |= {f"layers.{block}.attention.{name}.weight": (width, width) for name in ("wq", "wk", "wv", "wo")}
        shapes |= {f"layers.{block}.feed_forward.{name}.weight": (hidden, width) for name in ("w1", "w3")}
        shapes[f"layers.{block}.feed_forward.w2.weight"] = (width, hidden)
        shapes[f"layers.{block}.attention_norm.weight"] = (width,)
    state = {name: torch.randn(shape, generator=generator).half() for name, shape in shapes.items()}
    return state | {"rope.freqs": torch.arange(2.0)}


def cut(state: dict[str, torch.Tensor], count: int, embedding: int) -> list[dict[str, torch.Tensor]]:
    """What each process saves: along the axis that its layer's class states."""
    axes = {"wq": 0, "wk": 0, "wv": 0, "w1": 0, "w3": 0, "output": 0, "wo": 1, "w2": 1, "tok_embeddings": embedding}
    parts: list[dict[str, torch.Tensor]] = [{} for _ in range(count)]
    for name, tensor in state.items():
        axis = axes.get(name.split(".")[-2])
        pieces = [tensor] * count if axis is None else tensor.chunk(count, axis)
        for part, piece in zip(parts, pieces, strict=True):
            part[name] = piece.clone()
    return parts


@pytest.mark.parametrize("embedding", [0, 1])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_tensor_parallel_parts_of_llama_are_joined(count: int, embedding: int, tmp_path: Path) -> None:
    state = llama()
    torch.save(state, tmp_path / "whole.pth")
    (tmp_path / "llama").mkdir()
    for number, part in enumerate(cut(state, count, embedding)):
        torch.save(part, tmp_path / "llama" / f"consolidated.{number:02d}.pth")
    (ref,) = expand(tmp_path / "llama")
    assert (ref.source, ref.name) == ("shards", "llama")
    with open_ref(expand(tmp_path / "whole.pth")[0]) as whole, open_ref(ref) as joined:
        assert plan_weights(joined) == plan_weights(whole)
        for name, tensor in state.items():
            np.testing.assert_array_equal(joined.read(name), whole.read(name))
            raw = bytes(whole.raw(name))
            assert bytes(joined.raw(name)) == raw
            assert joined.bytes_of(name) == tensor.nbytes
            for start, stop in ((0, 1), (3, 40), (15, 16), (17, tensor.nbytes), (tensor.nbytes, tensor.nbytes)):
                assert bytes(joined.span(name, start, stop)) == raw[start:stop], (name, start, stop)
    with pytest.raises(SourceError, match="closed"):
        joined.span("output.weight", 0, 1)


def parts_of(folder: Path, change: Any, keep: int = 2) -> Any:
    parts = cut(llama(), 2, 1)
    change(parts)
    for number, part in enumerate(parts[:keep]):
        torch.save(part, folder / f"consolidated.{number:02d}.pth")
    (ref,) = expand(folder)
    return open_ref(ref)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts: parts[0].update({"adapter.weight": A}), r"adapter\.weight is not in all of its 2 parts"),
        (
            lambda parts: [p.update({"adapter.weight": A}) for p in parts],
            r"how tensor adapter\.weight is cut over them",
        ),
        (lambda parts: parts[0].update({"norm.weight": torch.zeros(8).half()}), r"how tensor norm\.weight is cut"),
        (lambda parts: parts[0].update({"output.weight": torch.ones(6, 7).half()}), r"output\.weight do not fit"),
        (lambda parts: parts[0].update({"output.weight": torch.ones(6, 8)}), r"output\.weight do not fit together"),
        (lambda parts: [p.update({"output.weight": torch.ones(6, 7)}) for p in parts], r"is \(12, 7\) when joined"),
        (
            lambda parts: [p.update({"tok_embeddings.weight": torch.ones(6, 3)}) for p in parts],
            "tok_embeddings.weight is",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        parts_of(tmp_path, change)
    assert "join them first" in (caught.value.remedy or "")


def test_one_part_of_llama_is_not_the_model(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"is one of 2 parts: tensor layers\.0\.attention\.wo\.weight has 4 of 8"
    ) as caught:
        parts_of(tmp_path, lambda _: None, keep=1)
    assert "consolidated.01" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("names", "message", "remedy"),
    [
        (
            ["mp_rank_00_model_states", "mp_rank_01_model_states"],
            "2 files of DeepSpeed's model parallel",
            "zero_to_fp32",
        ),
        (["mp_rank_01_model_states"], "1 file of DeepSpeed's model parallelism", "zero_to_fp32"),
        (
            [
                "mp_rank_00_model_states",
                "zero_pp_rank_0_mp_rank_00_model_states",
                "zero_pp_rank_1_mp_rank_00_model_states",
            ],
            "3 files of DeepSpeed's ZeRO",
            "zero_to_fp32",
        ),
        (["layer_00-model_00-model_states", "layer_01-model_00-model_states"], "2 files of DeepSpeed", "zero_to_fp32"),
        (["model_world_size_2_rank_0", "model_world_size_2_rank_1"], "2 files of FSDP", "full_state_dict"),
        (["model_world_size_8_rank_3"], "1 file of FSDP", "full_state_dict"),
        (["mp_rank_00/model_optim_rng", "mp_rank_01/model_optim_rng"], "2 parts of Megatron's", "convert.py"),
        (["mp_rank_00_000/model_optim_rng", "mp_rank_00_001/model_optim_rng"], "2 parts of Megatron's", "convert.py"),
        (["bf16_zero_pp_rank_0_mp_rank_00_optim_states"], "1 file of DeepSpeed's ZeRO", "zero_to_fp32"),
    ],
)
def test_parts_of_parallel_training_are_refused_by_name(
    names: list[str], message: str, remedy: str, tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        torch.save({"module": {"a": A}}, tmp_path / f"{name}.pt")
    if "optim_states" not in names[0]:
        (ref,) = expand(tmp_path)
        with pytest.raises(WeightsError, match=message) as caught:
            open_ref(ref)
        assert remedy in (caught.value.remedy or "")
    with pytest.raises(WeightsError, match=message):
        open_ref(expand(tmp_path / f"{names[0]}.pt")[0])


def test_the_states_of_one_process_are_a_model(tmp_path: Path) -> None:
    """DeepSpeed without model parallelism: the optimizer's partitions are beside it and no model."""
    torch.save({"module": {"a": A}, "mp_world_size": 1}, tmp_path / "mp_rank_00_model_states.pt")
    torch.save({"optimizer_state_dict": {}}, tmp_path / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    assert list(sets(tmp_path).values()) == [("a",)]
    (tmp_path / "mp_rank_00").mkdir()
    torch.save({"model": {"a": A}}, tmp_path / "mp_rank_00" / "model_optim_rng.pt")
    assert len(sets(tmp_path)) == 2
