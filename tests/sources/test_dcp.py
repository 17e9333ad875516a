"""Folders of torch.distributed.checkpoint, against torch's own reader."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex
from torch.distributed.checkpoint.state_dict_saver import save

from registry.errors import AmbiguousError, NotFoundError, RegistryError, UnsafeError, WeightsError
from registry.sources import expand, open_ref
from tests.layouts.measured import distances, read
from tests.sources import pickle_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from registry.types import Checkpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

SHARDED = """
import sys
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
torch.manual_seed(0)
state = {
    "rows.weight": (torch.randn(7, 6), Shard(0)), "columns.weight": (torch.randn(5, 9), Shard(1)),
    "whole.weight": (torch.randn(4, 3), Replicate()), "kernel.weight": (torch.randn(4, 6, 3, 3).bfloat16(), Shard(1)),
    "few": (torch.randn(1), Shard(0)),
}
if rank == 0:
    torch.save({name: tensor for name, (tensor, _) in state.items()}, f"{folder}/whole.pt")
sharded = {name: distribute_tensor(tensor, mesh, [place]) for name, (tensor, place) in state.items()}
save({"model": sharded}, checkpoint_id=f"{folder}/dcp")
dist.barrier()
dist.destroy_process_group()
"""


def opened(path: Path, key: str | None = None) -> Checkpoint:
    [ref] = expand(path, key=key)
    assert ref.source == "dcp"
    return open_ref(ref)


def assert_holds(checkpoint: Checkpoint, state: Mapping[str, torch.Tensor]) -> None:
    infos = {info.name: info for info in checkpoint.tensors}
    assert infos.keys() == state.keys()
    for name, tensor in state.items():
        wanted = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        assert (infos[name].dtype, infos[name].shape) == (str(tensor.dtype)[6:], tuple(tensor.shape))
        assert bytes(checkpoint.raw(name)) == wanted
        for start, stop in ((0, 5), (3, len(wanted) - 1), (len(wanted), len(wanted) + 9)):
            assert bytes(checkpoint.span(name, start, stop)) == wanted[start:stop]
    checkpoint.verify()  # type: ignore[attr-defined]


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Linear(6, 8), torch.nn.Linear(8, 4)
    )


def saved(folder: Path, content: dict[str, Any]) -> Path:
    save(content, checkpoint_id=folder, no_dist=True)
    return folder


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"model": s, "epoch": 3}, lambda s: {"app": {"net": s}, "lr": 0.1}]
)
@pytest.mark.parametrize("name", ["", ".metadata", "__0_0.distcp"])
def test_a_folder_and_each_of_its_files(wrap: Callable[[Any], Any], name: str, tmp_path: Path) -> None:
    state = network().state_dict()
    folder = saved(tmp_path / "run-7", wrap(state))
    [ref] = expand(folder / name)
    assert (ref.name, ref.source) == ("run-7", "dcp")
    with open_ref(ref) as checkpoint:
        assert_holds(checkpoint, state)


def test_it_is_the_network_of_its_state_dict(tmp_path: Path) -> None:
    net = network()
    torch.save(net.state_dict(), tmp_path / "twin.pt")
    ours = read(opened(saved(tmp_path / "dcp", {"model": net.state_dict()})))
    twin = read(open_ref(expand(tmp_path / "twin.pt")[0]))
    assert ours.plan.content_hash == twin.plan.content_hash
    assert max(distances(ours.measured, twin.measured).values()) == 0


def test_the_optimizer_is_left_out(tmp_path: Path) -> None:
    net = torch.nn.Linear(5, 4)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 5)).sum().backward()
    optimizer.step()
    with opened(saved(tmp_path / "a", {"model": net.state_dict(), "optim": optimizer.state_dict()})) as checkpoint:
        assert_holds(checkpoint, net.state_dict())
        assert checkpoint.ref.key == "model"
    with pytest.raises(WeightsError, match="optim"):
        opened(saved(tmp_path / "b", {"optim": optimizer.state_dict()}))


def test_several_state_dicts(tmp_path: Path) -> None:
    folder = saved(tmp_path / "x", {"generator": {"w": torch.eye(3)}, "critic": {"w": torch.eye(4)}})
    with pytest.raises(AmbiguousError, match=r"generator, critic|critic, generator"):
        opened(folder)
    with opened(folder, "critic") as checkpoint:
        assert_holds(checkpoint, {"w": torch.eye(4)})
    with pytest.raises(NotFoundError, match=r"no entry 'x'.*critic, generator"):
        opened(folder, "x")


def test_tensors_of_all_kinds(tmp_path: Path) -> None:
    state = {
        "turned": torch.randn(4, 6).t(), "half": torch.randn(3, 3).half(), "b": torch.randn(3, 3).bfloat16(),
        "fp8": torch.randn(4, 4).to(torch.float8_e4m3fn), "n": torch.tensor(3), "flags": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3), "part": torch.randn(10, 10)[2:5, 3:7],
        "c": torch.randn(2, 2, dtype=torch.complex64),
    }  # fmt: skip
    with opened(saved(tmp_path / "x", state)) as checkpoint:
        assert_holds(checkpoint, state)


def test_tensors_in_pieces(tmp_path: Path) -> None:
    """Two processes write halves of rows and of columns, of odd extents."""
    (tmp_path / "write.py").write_text(SHARDED)
    ranks = [
        subprocess.Popen([sys.executable, "-W", "ignore", tmp_path / "write.py", str(rank), tmp_path])
        for rank in (0, 1)
    ]
    assert [rank.wait(300) for rank in ranks] == [0, 0]
    assert len(list((tmp_path / "dcp").glob("*.distcp"))) == 2
    whole = torch.load(tmp_path / "whole.pt")
    with opened(tmp_path / "dcp") as checkpoint:
        assert_holds(checkpoint, whole)
    assert len(expand(tmp_path / "dcp")) == 1
    (tmp_path / "dcp" / "__1_0.distcp").unlink()
    with pytest.raises(NotFoundError, match=r"__1_0\.distcp"):
        opened(tmp_path / "dcp")


def described(folder: Path, change: Callable[[Any], None]) -> Path:
    """A checkpoint of which the metadata are changed."""
    saved(folder, {"model": {"w": torch.arange(12.0).reshape(3, 4), "v": torch.ones(3)}})
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    change(metadata)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    return folder


def info_of(metadata: Any) -> Any:
    return next(info for index, info in metadata.storage_data.items() if index.fqn == "model.w")


def place(**values: object) -> Callable[[Any], None]:
    def change(metadata: Any) -> None:
        for name, value in values.items():
            setattr(info_of(metadata), name, value)

    return change


def shape(size: tuple[int, ...], *chunks: tuple[tuple[int, ...], tuple[int, ...]]) -> Callable[[Any], None]:
    def change(metadata: Any) -> None:
        tensor = metadata.state_dict_metadata["model.w"]
        info = info_of(metadata)
        tensor.size = size
        tensor.chunks = [ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)) for offsets, sizes in chunks]
        for offsets, _ in chunks:
            metadata.storage_data[MetadataIndex("model.w", offsets)] = info

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (place(relative_path="../outside.distcp"), "not a .distcp file beside it"),
        (place(relative_path="/etc/passwd"), "not a .distcp file beside it"),
        (place(relative_path="a/b.distcp"), "not a .distcp file beside it"),
        (place(relative_path=["x"]), "not a .distcp file beside it"),
        (place(relative_path="gone.distcp"), "no file"),
        (place(offset=2**60), "ends early"),
        (place(offset=-5), "ends early"),
        (place(length=2**60), "ends early"),
        (place(offset="x"), "no place for a piece"),
        (place(transform_descriptors=["zstd"]), "compressed or otherwise transformed"),
        (shape((10**6, 10**6), ((0, 0), (10**6, 10**6))), "claims more than its pieces hold"),
        (shape((3, 4), ((0, 0), (2, 4))), "do not make up its shape"),
        (shape((3, 4), ((0, 0), (2, 4)), ((1, 0), (1, 4))), "do not make up its shape"),
        (shape((3, 4), ((0, 0), (3, 4)), ((3, 0), (1, 4))), "do not make up its shape"),
        (shape((3, 4), ((0,), (3,))), "other dimensions"),
        (shape((3, 4), *[((0, 0), (1, 1))] * 5000), "in 5000 pieces"),
        (shape((-3, 4), ((0, 0), (-3, 4))), "extents of model.w are not valid"),
        (shape((2,) * 100, ((0,) * 100, (2,) * 100)), "extents of model.w are not valid"),
        (lambda metadata: metadata.storage_data.clear(), "says of no file"),
        (lambda metadata: metadata.__dict__.clear(), "is not the metadata"),
    ],
)
def test_metadata_that_lie(change: Callable[[Any], None], words: str, tmp_path: Path) -> None:
    (tmp_path / "outside.distcp").write_bytes(b"secret")
    with pytest.raises((UnsafeError, WeightsError, NotFoundError), match=words) as caught:
        opened(described(tmp_path / "x", change))
    assert caught.value.remedy
    assert "secret" not in str(caught.value)


def test_pieces_of_another_shape(tmp_path: Path) -> None:
    """The file of the piece decides, not what the metadata say of it."""
    folder = described(tmp_path / "x", shape((4, 3), ((0, 0), (4, 3))))
    with opened(folder) as checkpoint, pytest.raises(WeightsError, match=r"the metadata say float32 \(4, 3\)"):
        checkpoint.read("w")


def test_a_link_that_leads_out(tmp_path: Path) -> None:
    folder = saved(tmp_path / "x", {"w": torch.eye(3)})
    (folder / "__0_0.distcp").rename(tmp_path / "outside")
    (folder / "__0_0.distcp").symlink_to(tmp_path / "outside")
    with pytest.raises(UnsafeError, match="leads out of its folder"):
        opened(folder)


def test_a_part_without_metadata(tmp_path: Path) -> None:
    (tmp_path / "__0_0.distcp").write_bytes(pickle_files.contents()["__0_0.distcp"])
    with pytest.raises(WeightsError, match=r"without \.metadata beside it.*download \.metadata"):
        expand(tmp_path / "__0_0.distcp")


def read_all(path: Path) -> None:
    with open_ref(expand(path)[0]) as checkpoint:
        for info in checkpoint.tensors:
            checkpoint.raw(info.name)


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_cut_short(name: str, tmp_path: Path) -> None:
    files = pickle_files.contents()
    for tenth in range(10):
        for each in (".metadata", "__0_0.distcp"):
            content = files[each]
            (tmp_path / each).write_bytes(content[: len(content) * tenth // 10] if each == name else content)
        with pytest.raises(RegistryError) as caught:
            read_all(tmp_path / ".metadata")
        assert caught.value.remedy


def test_a_bit_turned_in_a_piece(tmp_path: Path) -> None:
    folder = saved(tmp_path / "x", {"w": torch.arange(12.0).reshape(3, 4)})
    content = bytearray((folder / "__0_0.distcp").read_bytes())
    content[content.find(np.arange(12, dtype=np.float32).tobytes()) + 9] ^= 1
    (folder / "__0_0.distcp").write_bytes(content)
    with opened(folder) as checkpoint, pytest.raises(WeightsError, match="checksum of the entry"):
        checkpoint.verify()  # type: ignore[attr-defined]
