"""Files of torch beside ``torch.load``: the same tensors, bit by bit, of every dtype, layout and container."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from registry.errors import RegistryError, UnsafeError, WeightsError
from registry.sources import expand, open_ref
from registry.sources.formats.pickles.opcodes import load
from registry.sources.formats.pickles.torch_legacy import CONSTRUCTORS
from registry.sources.formats.torch_file import open_part, open_torch_file
from registry.sources.state_dicts import Content
from registry.types import ModelRef

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from registry.types import Checkpoint

DTYPES = [
    getattr(torch, name)
    for name in (
        "float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128", "bool", "uint8", "int8",
        "int16", "int32", "int64", "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz",
        "float8_e5m2fnuz", "float8_e8m0fnu",
    )
]  # fmt: skip
GENERATOR = torch.Generator().manual_seed(7)


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    width = torch.empty((), dtype=dtype).element_size()
    raw = torch.randint(0, 2 if dtype == torch.bool else 256, (*shape[:-1], shape[-1] * width), generator=GENERATOR)
    return raw.to(torch.uint8).view(dtype)


def opened(path: Path, key: str | None = None) -> Checkpoint:
    return open_torch_file(ModelRef("torch", str(path), "x", key=key))


def bits(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def assert_same(path: Path, state: dict[str, torch.Tensor]) -> None:
    with opened(path) as found:
        assert {t.name: (t.dtype, t.shape) for t in found.tensors} == {
            name: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for name, t in state.items()
        }
        for name, tensor in state.items():
            data = bits(tensor)
            assert found.raw(name) == data, name
            assert found.bytes_of(name) == len(data)
            assert found.span(name, 3, 17) == data[3:17], name


def saved(path: Path, content: Any, kind: str) -> Path:
    """Write a file as torch does, in one of its containers."""
    torch.save(content, path, _use_new_zipfile_serialization=kind != "legacy", pickle_protocol=4 if kind == "4" else 2)
    if kind == "big":
        to_big(path)
    return path


def loaded(path: Path, *, trusted: bool = False) -> dict[str, torch.Tensor]:
    """What torch reads, without its words on protocols and new dtypes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: dict[str, torch.Tensor] = torch.load(path, weights_only=not trusted)
    return found


def to_big(path: Path) -> None:
    """Turn the storages of an archive into the other byte order, as a machine of that order writes them."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    widths = {}
    state = loaded(path)
    for number, tensor in enumerate(state.values()):
        widths[f"data/{number}"] = tensor.element_size() // (2 if tensor.is_complex() else 1)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            width = widths.get(name.partition("/")[2], 1)
            swapped = np.frombuffer(data, f"u{width}").byteswap().tobytes() if width > 1 else data
            archive.writestr(name, b"big" if name.endswith("/byteorder") else swapped)


@pytest.mark.parametrize("kind", ["zip", "4", "legacy", "big"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(dtype: torch.dtype, kind: str, tmp_path: Path) -> None:
    if kind == "big" and dtype not in (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.complex64):
        pytest.skip("one of each width")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, on dtypes that it calls experimental
        state = {"a": random(6, 10, dtype=dtype), "b": random(5, dtype=dtype)}
    path = saved(tmp_path / "x.pt", state, kind)
    assert_same(path, state)
    if kind != "legacy" or dtype in torch.storage._dtype_to_storage_type_map():  # others torch itself cannot load
        assert_same(path, loaded(path, trusted=kind == "4"))  # its safe reader knows protocol 2 alone


VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "transposed": lambda t: t.T,
    "rows": lambda t: t[3:7],
    "columns": lambda t: t[:, 2:5],
    "steps": lambda t: t[::2, 1::3],
    "last": lambda t: t[-1],
    "element": lambda t: t[2, 3],
    "empty": lambda t: t[5:5],
    "permuted": lambda t: t.reshape(3, 4, 5, 2).permute(2, 0, 3, 1),
    "channels last": lambda t: t.reshape(1, 6, 4, 5).contiguous(memory_format=torch.channels_last),
    "diagonal": lambda t: t.diagonal(),
    "windows": lambda t: t.reshape(-1)[:100].reshape(10, 10).T[2:],
    "axes of one": lambda t: t[:1].unsqueeze(0).transpose(0, 1),
}


@pytest.mark.parametrize("kind", ["zip", "legacy", "big"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64], ids=str)
def test_views_of_one_storage(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    base = random(12, 10, dtype=dtype)
    if kind == "big":
        state = {"base": base, "copy": base.T}
    else:
        state = {"base": base, **{name: view(base) for name, view in VIEWS.items()}}
        state["nothing"] = torch.zeros(0, 3)
    path = saved(tmp_path / "x.pt", state, kind)
    assert_same(path, loaded(path))


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_conjugated_and_negated_views(kind: str, tmp_path: Path) -> None:
    base = torch.complex(random(4, 5).nan_to_num(), random(4, 5).nan_to_num())
    for state in ({"conj": base.conj(), "both": base.T.conj()}, {"neg": base.conj().imag}):
        assert all(tensor.is_conj() or tensor.is_neg() for tensor in state.values())
        path = saved(tmp_path / "x.pt", state, kind)
        assert_same(path, loaded(path))


def test_tied_and_shared_tensors_are_told(tmp_path: Path) -> None:
    weight = random(8, 4)
    state = {"a": weight, "b": weight, "c": weight.T, "d": weight.clone(), "e": torch.nn.Parameter(weight)}
    for kind in ("zip", "legacy"):
        with opened(saved(tmp_path / "x.pt", state, kind)) as found:
            assert found.facts.aliases == {"b": "a", "e": "a"}


class Named(torch.Tensor):
    pass


def test_classes_that_derive_from_tensors(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(random(3, 4))
    parameter.note = "kept by torch"  # type: ignore[attr-defined]
    state = {"a": parameter, "b": random(2, 2).as_subclass(Named), "c": torch.nn.Buffer(random(2, 3))}
    for kind in ("zip", "legacy"):
        path = saved(tmp_path / "x.pt", state, kind)
        content = torch.load(path, weights_only=False)
        assert_same(path, {name: tensor.as_subclass(torch.Tensor) for name, tensor in content.items()})


def test_distributed_tensors_are_read_where_they_are_whole(tmp_path: Path) -> None:
    from torch.distributed.tensor import DTensor

    plain = random(4, 3)
    torch.save({"a": plain}, tmp_path / "plain.pt")

    class Whole:
        def __init__(self, shape: tuple[int, ...]) -> None:
            self.shape = shape

        def __reduce__(self) -> Any:
            return (
                torch._tensor._rebuild_from_type_v2,
                (
                    torch._utils._rebuild_wrapper_subclass,
                    DTensor,
                    (DTensor, torch.float32, self.shape, (3, 1), 0, torch.strided, "cpu", False),
                    {"_local_tensor": plain, "_spec": None},
                ),
            )

    torch.save({"a": Whole((4, 3))}, tmp_path / "whole.pt")
    assert_same(tmp_path / "whole.pt", {"a": plain})
    torch.save({"a": Whole((8, 3))}, tmp_path / "part.pt")
    with pytest.raises(WeightsError, match="is distributed, and the file has a part of it"):
        opened(tmp_path / "part.pt")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.eye(3).to_sparse(), r"is sparse \(torch.sparse_coo\)"),
        (lambda: torch.eye(4).to_sparse_csr(), r"is sparse \(torch.sparse_csr\)"),
        (lambda: torch.eye(3, device="meta"), "is on the meta device"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "is nested"),
    ],
)
def test_what_has_no_dense_values_is_refused_by_name(
    make: Callable[[], torch.Tensor], words: str, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, on layouts that it calls new
        tensor = make()
    for kind in ("zip", "legacy"):
        with pytest.raises(WeightsError, match=f"tensor a.weight {words}"):
            opened(saved(tmp_path / "x.pt", {"a.weight": tensor}, kind))


def test_meta_tensors_with_storages_are_refused(tmp_path: Path) -> None:
    with torch.serialization.skip_data():
        torch.save({"a.weight": torch.eye(3)}, tmp_path / "x.pt")
    with opened(tmp_path / "x.pt") as found:
        assert found.tensors[0].shape == (3, 3)  # the bytes are there, as zeros


def test_plain_pickles_of_tensors() -> None:
    """What ``pickle.dump`` writes of tensors: a file of torch's old kind inside the pickle, for each storage."""
    weight = random(40, 30)
    state = {"a": weight, "b": weight.T, "c": random(7, dtype=torch.bfloat16)}
    for protocol in (2, 3, 4, 5):
        found = load(pickle.dumps(state, protocol), constructors=CONSTRUCTORS)
        tensors = Content(found, "x").select(None).state
        for name, tensor in state.items():
            lazy = tensors[name].lazy(name)
            assert lazy.span(0, lazy.bytes) == bits(tensor)
        assert tensors["a"].place != tensors["c"].place


def tarred(path: Path, state: dict[str, torch.Tensor]) -> None:
    """Write what torch 0.1.2 wrote; its source is the reader's, ``legacy_load`` of ``torch/serialization.py``."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            return str(id(value)) if isinstance(value, torch.Tensor) else None

    storages, tensors, main = io.BytesIO(), io.BytesIO(), io.BytesIO()
    known = {}
    for tensor in state.values():
        known[tensor.untyped_storage().data_ptr()] = tensor
    pickle.dump(len(known), storages, 2)
    for pointer, tensor in known.items():
        pickle.dump((pointer, "cpu", torch.FloatStorage), storages, 2)
        data = bytes(tensor.untyped_storage())
        storages.write(struct.pack("<q", len(data) // 4) + data)
    pickle.dump([], storages, 2)
    pickle.dump(len(state), tensors, 2)
    for tensor in state.values():
        pickle.dump((id(tensor), tensor.untyped_storage().data_ptr(), torch.FloatTensor), tensors, 2)
        numbers = (*tensor.shape, *tensor.stride(), tensor.storage_offset())
        tensors.write(struct.pack("<ii", tensor.dim(), 0) + struct.pack(f"<{len(numbers)}q", *numbers))
    Pickler(main, 2).dump(state)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in (("storages", storages), ("tensors", tensors), ("pickle", main)):
            info = tarfile.TarInfo(name)
            info.size = content.tell()
            content.seek(0)
            archive.addfile(info, content)


def test_archives_of_torch_0_1(tmp_path: Path) -> None:
    base = random(6, 5)
    state = {"a": base, "b": base.T, "c": base[2:4], "d": random(3)}
    tarred(tmp_path / "x.pt", state)
    assert_same(tmp_path / "x.pt", torch.load(tmp_path / "x.pt", weights_only=False))
    assert_same(tmp_path / "x.pt", state)
    data = (tmp_path / "x.pt").read_bytes()
    for cut in range(10):
        (tmp_path / "cut.pt").write_bytes(data[: 600 + (len(data.rstrip(b"\0")) - 600) * cut // 10])
        with pytest.raises(RegistryError):
            opened(tmp_path / "cut.pt")


def test_entries_are_reached_through_lists_objects_and_numbers(tmp_path: Path) -> None:
    a, b = {"a.weight": random(3, 3)}, {"b.weight": random(2, 2)}
    torch.save([{"epoch": 1}, a], tmp_path / "list.pt")
    with opened(tmp_path / "list.pt") as found:
        assert [t.name for t in found.tensors] == ["a.weight"]
        assert found.ref.key == "1"
    torch.save((a, {"x": [b, 3]}), tmp_path / "two.pt")
    with pytest.raises(RegistryError, match="several state dicts: 0, 1"):
        opened(tmp_path / "two.pt")
    with opened(tmp_path / "two.pt", "1.x.0") as found:
        assert [t.name for t in found.tensors] == ["b.weight"]
    torch.save({5: a, "settings": {"lr": [0.1, 0.2]}}, tmp_path / "number.pt")
    with opened(tmp_path / "number.pt") as found:
        assert found.ref.key == "5"
    torch.save({"x.y": {"state_dict": a}, "epoch": 3}, tmp_path / "dots.pt")
    with open_ref(expand(tmp_path / "dots.pt")[0]) as found:
        assert found.ref.key == "x.y.state_dict"
    with opened(tmp_path / "dots.pt", "x.y.state_dict") as found:
        assert [t.name for t in found.tensors] == ["a.weight"]
    torch.save([random(3, 4), random(3)], tmp_path / "tensors.pt")
    with opened(tmp_path / "tensors.pt") as found:
        assert [(t.name, t.shape) for t in found.tensors] == [("0", (3, 4)), ("1", (3,))]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_legacy_files_of_any_protocol_are_recognised(protocol: int, tmp_path: Path) -> None:
    state = {"a.weight": random(5, 3)}
    torch.save(state, tmp_path / "x.th", pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    (ref,) = expand(tmp_path / "x.th")
    assert ref.source == "torch"
    assert_same(tmp_path / "x.th", state)


def test_entries_are_offered_by_the_whole_key(tmp_path: Path) -> None:
    a, b = {"a.weight": random(3, 3)}, {"b.weight": random(2, 2)}
    torch.save({"net": [a, b]}, tmp_path / "x.pt")
    with pytest.raises(RegistryError, match=r"several state dicts: net\.0, net\.1"):
        opened(tmp_path / "x.pt")
    with opened(tmp_path / "x.pt", "net.1") as found:
        assert [t.name for t in found.tensors] == ["b.weight"]


def test_tables_of_numbers_are_no_candidates_beside_tensors(tmp_path: Path) -> None:
    policy = {"a.weight": random(3, 3)}
    torch.save({"normalisation": {"mean": np.zeros(3)}, "actor_critic": policy}, tmp_path / "x.pt")
    with opened(tmp_path / "x.pt") as found:
        assert found.ref.key == "actor_critic"
        assert found.facts.notes == ()
    torch.save({"one": {"a": np.ones((3, 3))}, "two": {"a": np.zeros((3, 3))}}, tmp_path / "y.pt")
    with pytest.raises(RegistryError, match="several state dicts: one, two"):
        opened(tmp_path / "y.pt")


def test_vectors_are_no_candidates_beside_matrices(tmp_path: Path) -> None:
    net, loss = torch.nn.Linear(4, 3), torch.nn.CrossEntropyLoss(torch.ones(3))
    torch.save({"module_": net, "criterion_": loss, "limits": {"low": torch.zeros(3)}}, tmp_path / "x.pt")
    with opened(tmp_path / "x.pt") as found:
        assert found.ref.key == "module_"
        assert found.facts.notes == ()
    torch.save({"one": {"a": random(3)}, "two": {"a": random(3)}}, tmp_path / "y.pt")
    with pytest.raises(RegistryError, match="several state dicts: one, two"):
        opened(tmp_path / "y.pt")


def test_averages_without_names_do_not_precede_the_weights(tmp_path: Path) -> None:
    state = {"a.weight": random(3, 3)}
    torch.save({"model": state, "ema": {"decay": 0.9, "shadow_params": [random(3, 3)]}}, tmp_path / "x.pt")
    with opened(tmp_path / "x.pt") as found:
        assert found.ref.key == "model"
        assert found.facts.notes == ("entry model was read; --key chooses another: ema",)
    torch.save({"ema": {"decay": 0.9, "shadow_params": [random(3, 3)]}}, tmp_path / "y.pt")
    with opened(tmp_path / "y.pt") as found:
        assert found.ref.key == "ema.shadow_params"


def test_tensors_beside_a_state_dict(tmp_path: Path) -> None:
    net = {"a.weight": random(3, 3), "b.weight": random(3, 3)}
    torch.save({"my_net": net, "features": random(9, 9)}, tmp_path / "x.pt")
    with opened(tmp_path / "x.pt") as found:
        assert found.ref.key == "my_net"
    torch.save({**net, "c.weight": random(3, 3), "extra": {"d": random(3, 3)}}, tmp_path / "y.pt")
    with opened(tmp_path / "y.pt") as found:
        assert [t.name for t in found.tensors] == ["a.weight", "b.weight", "c.weight"]
        assert found.facts.notes == ("the tensors at the outermost level were read; --key chooses another: extra",)


def test_lists_of_names_and_tensors(tmp_path: Path) -> None:
    state = {"a.weight": random(3, 3), "a.bias": random(3)}
    torch.save(list(state.items()), tmp_path / "x.pt")
    assert_same(tmp_path / "x.pt", state)
    torch.save([*state.items(), ("a.bias", random(3))], tmp_path / "twice.pt")
    with pytest.raises(RegistryError, match="several state dicts: 0, 1, 2"):
        opened(tmp_path / "twice.pt")


@pytest.mark.parametrize(("swapped", "chosen"), [(True, "state_dict"), (False, "ema_state_dict")])
def test_averages_that_changed_places_with_the_weights(swapped: bool, chosen: str, tmp_path: Path) -> None:
    content = {
        "meta": {},
        "state_dict": {"a.weight": random(3, 3)},
        "ema_state_dict": {"module.a.weight": random(3, 3), "steps": torch.tensor(7)},
        **({"message_hub": {}} if swapped else {}),
    }
    torch.save(content, tmp_path / "x.pt")
    with opened(tmp_path / "x.pt") as found:
        assert found.ref.key == chosen
        assert [t.name for t in found.tensors] == ["a.weight"]


def test_a_part_keeps_its_names(tmp_path: Path) -> None:
    torch.save({"module.a": random(2, 2)}, tmp_path / "x.bin")
    with open_part(tmp_path / "x.bin") as found:
        assert [t.name for t in found.tensors] == ["module.a"]
    torch.save({"module.a": random(2, 2)}, tmp_path / "y.bin", _use_new_zipfile_serialization=False)
    with open_part(tmp_path / "y.bin") as found:
        assert [t.name for t in found.tensors] == ["module.a"]


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("cut", range(10))
def test_every_cut_is_one_error(kind: str, cut: int, tmp_path: Path) -> None:
    data = saved(tmp_path / "x.pt", {"a": random(30, 30), "b": random(20)}, kind).read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: max(1, len(data) * cut // 10)])
    with pytest.raises(RegistryError) as caught:
        opened(tmp_path / "cut.pt")
    assert caught.value.remedy


@pytest.mark.parametrize("seed", range(60))
def test_every_flip_is_read_or_one_error(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    state = {"a": random(8, 6), "q": random(5, 5).T, "n": {"x": [1, 2, (3, "y")]}}
    data = bytearray(saved(tmp_path / "x.pt", state, "legacy").read_bytes())
    for _ in range(40):
        damaged = bytearray(data)
        for at in rng.integers(0, 600, 3):
            damaged[at] = rng.integers(0, 256)
        (tmp_path / "y.pt").write_bytes(damaged)
        try:
            with opened(tmp_path / "y.pt") as found:
                for tensor in found.tensors:
                    found.raw(tensor.name)
        except RegistryError as error:
            assert error.remedy  # noqa: PT017 - a file may be read as well


def test_storages_are_bounded_by_their_entries(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(1000, 1000)}, tmp_path / "x.pt")
    with pytest.raises(UnsafeError, match="claims 4000000 bytes of a storage of 4"):
        opened(tmp_path / "x.pt")
    mask = random(1, 8).expand(5, 8)
    torch.save({"mask": mask}, tmp_path / "small.pt")
    assert_same(tmp_path / "small.pt", {"mask": mask.contiguous()})
    many = {f"a{at}": torch.zeros(1).expand(500, 500) for at in range(10)}
    torch.save(many, tmp_path / "many.pt")
    with pytest.raises(UnsafeError, match="claims 10000000 bytes of tensors"):
        opened(tmp_path / "many.pt")
    path = saved(tmp_path / "y.pt", {"a": random(4, 4)}, "legacy")
    data = path.read_bytes()
    assert data.count(b"K\x10N") == 1
    path.write_bytes(data.replace(b"K\x10N", b"K\x11N"))  # 17 elements, where 16 follow
    with pytest.raises(WeightsError, match="a storage of 68 bytes has 16 elements"):
        opened(path)


def test_of_originals_all_tensors_are_those_of_torch(originals: Path) -> None:
    same = 0
    for path in sorted((originals / "torch").rglob("*")):
        if not path.is_file():
            continue
        try:
            content = torch.load(path, weights_only=False, map_location="cpu")
        except (ModuleNotFoundError, AttributeError):
            continue  # of classes that are not installed here
        with open_ref(expand(path)[0]) as found:
            held: Any = found.stored  # type: ignore[attr-defined]
            for part in (held.ref.key or "").split(".") if held.ref.key else ():
                content = content[part]
            for tensor in held.tensors:
                wanted = next(content[p + tensor.name] for p in ("", "module.") if p + tensor.name in content)
                assert held.raw(tensor.name) == bits(wanted)
                same += 1
    assert same > 1000
