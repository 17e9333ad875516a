from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from registry.errors import NotFoundError, SourceError, WeightsError
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


def test_shards_that_cannot_be_mapped_are_refused(tmp_path: Path) -> None:
    index = write(tmp_path, ".bin", {"a": A}, {"b": B})
    torch.save({"b": B}, tmp_path / f"{SECOND}.bin", _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match=r"00002\.bin is an old torch file, which cannot be mapped.*save the model"):
        open_ref(expand(index)[0])


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
