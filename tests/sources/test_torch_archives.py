"""TorchScript and torch.export archives, agents of stable-baselines3, and NeMo's archives, against their libraries."""

from __future__ import annotations

import io
import json
import math
import os
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from registry.errors import AmbiguousError, NotFoundError, RegistryError, UnsafeError, WeightsError
from registry.sources import SOURCES, expand, open_ref, plan_weights
from registry.sources.formats.script_text import Use, constant_uses, declared
from tests.layouts.measured import distances, read
from tests.sources import pickle_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from registry.types import Checkpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


class Net(torch.nn.Module):
    """Layers of several kinds, a buffer that is saved, one that is not, and a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 8, 3)
        self.bn = torch.nn.BatchNorm2d(8)
        self.up = torch.nn.ConvTranspose2d(8, 6, 2)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)])
        self.fc = torch.nn.Linear(6, 4)
        self.layers[1].weight = self.layers[0].weight
        self.register_buffer("kept", torch.randn(6))
        self.register_buffer("passing", torch.randn(6, 6), persistent=False)
        self.kept: torch.Tensor
        self.passing: torch.Tensor
        self.bn.load_state_dict(
            self.bn.state_dict() | {"running_mean": torch.randn(8), "running_var": torch.rand(8) + 0.5}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up(torch.relu(self.bn(self.conv(x)))).mean((2, 3)) + self.kept
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.fc(torch.matmul(x, self.passing))  # type: ignore[no-any-return]


X = torch.ones(1, 3, 8, 8)
JIT: Any = torch.jit  # its functions have no types
AO: Any = torch.ao.quantization


def opened(path: Path, source: str, key: str | None = None) -> Checkpoint:
    [ref] = expand(path, key=key)
    assert ref.source == source
    return open_ref(ref)


def precisions(path: Path, source: str) -> dict[str, str]:
    """How the tensors are stored that are not as they are read."""
    with SOURCES[source].open(expand(path)[0]) as stored:
        return dict(stored.precisions)  # type: ignore[attr-defined]


def assert_holds(checkpoint: Checkpoint, state: Mapping[str, torch.Tensor]) -> None:
    """The same names, dtypes, shapes and bytes."""
    infos = {info.name: info for info in checkpoint.tensors}
    assert infos.keys() == state.keys()
    for name, tensor in state.items():
        assert (infos[name].dtype, infos[name].shape) == (str(tensor.dtype)[6:], tuple(tensor.shape))
        assert (
            bytes(checkpoint.raw(name)) == tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    checkpoint.verify()  # type: ignore[attr-defined]


def of_scripts(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in state.items() if name != "passing"}


@pytest.mark.parametrize("make", [torch.jit.script, lambda net: JIT.trace(net, X)])
@pytest.mark.parametrize("lite", [False, True])
def test_a_script_is_its_state_dict(make: Callable[[Any], Any], lite: bool, tmp_path: Path) -> None:
    net = Net().eval()
    path = tmp_path / ("x.ptl" if lite else "x.model")
    script = make(net)
    script._save_for_lite_interpreter(str(path)) if lite else torch.jit.save(script, str(path))
    with opened(path, "torchscript") as checkpoint:
        assert checkpoint.facts.aliases == {"layers.1.weight": "layers.0.weight"}
        assert checkpoint.ref.card.architecture == "Net"
        # torch's own reader is the oracle; a script keeps buffers that a state dict leaves out.
        assert_holds(checkpoint, JIT.load(str(path)).state_dict() if not lite else script.state_dict())
        assert of_scripts(script.state_dict()).keys() == net.state_dict().keys()
    torch.save(net.state_dict(), tmp_path / "twin.pt")
    ours, twin = read(opened(path, "torchscript")), read(opened(tmp_path / "twin.pt", "torch"))
    names = [layer.name for layer in ours.plan.layers if layer.name != "passing"]
    assert names == [layer.name for layer in twin.plan.layers]


class Plain(torch.nn.Module):
    """Layers without batch norm, which freezing would fold into them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last = torch.nn.Linear(6, 4)
        self.first = torch.nn.Conv2d(3, 8, 3)
        self.norm = torch.nn.LayerNorm(8)
        self.between = torch.nn.Linear(8, 6, bias=False)
        self.gru = torch.nn.GRU(6, 6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(torch.relu(self.first(x)).mean((2, 3)))
        return self.last(self.gru(self.between(x))[0])  # type: ignore[no-any-return]


@pytest.mark.parametrize("make", [torch.jit.script, lambda net: JIT.trace(net, X)])
def test_a_frozen_model_is_in_the_order_of_its_code(make: Callable[[Any], Any], tmp_path: Path) -> None:
    net = Plain().eval()
    torch.jit.save(torch.jit.freeze(make(net)), str(tmp_path / "x.pt"))
    with opened(tmp_path / "x.pt", "torchscript") as checkpoint:
        found = {info.name: checkpoint.read(info.name) for info in checkpoint.tensors}
        plan = plan_weights(checkpoint)
    order = [
        net.first.weight,
        net.between.weight,
        *(getattr(net.gru, f"weight_{p}_l{n}") for n in (0, 1) for p in ("ih", "hh")),
    ]
    matrices = [array for array in found.values() if array.ndim > 1]
    for weight in (*order, net.last.weight):
        assert any(np.array_equal(array, weight.detach().numpy()) for array in matrices)
    assert len(matrices) == len(order) + 1
    assert [layer.shape[0] for layer in plan.layers][:2] == [8, 6]
    assert plan.layers[-1].shape == (4, 6)
    assert {name.rpartition(".")[2] for name in found} == {
        "weight", "bias", *(f"{w}_{p}_l{n}" for n in (0, 1) for p in ("ih", "hh") for w in ("weight", "bias"))
    }  # fmt: skip


def test_batch_norm_that_freezing_folded(tmp_path: Path) -> None:
    net: Any = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Flatten(), torch.nn.Linear(288, 4)
    )
    net[1].running_var.uniform_(0.5, 2)
    net.eval()
    torch.jit.save(torch.jit.freeze(torch.jit.script(net)), str(tmp_path / "x.pt"))
    folded = torch.nn.utils.fusion.fuse_conv_bn_eval(net[0], net[1])
    save_file({"0.weight": folded.weight.detach(), "0.bias": folded.bias.detach(), "3.weight": net[3].weight.detach(),
               "3.bias": net[3].bias.detach()}, tmp_path / "twin.safetensors")  # fmt: skip
    ours = read(opened(tmp_path / "x.pt", "torchscript"))
    twin = read(opened(tmp_path / "twin.safetensors", "safetensors"))
    unfolded = read(_saved(net.state_dict(), tmp_path / "net.pt"))
    assert max(distances(ours.measured, twin.measured).values()) < 1e-5
    assert max(distances(ours.measured, unfolded.measured).values()) > 1e-4  # the control


def _saved(state: Mapping[str, torch.Tensor], path: Path) -> Checkpoint:
    torch.save(state, path)
    return open_ref(expand(path)[0])


def test_dynamically_quantised(tmp_path: Path) -> None:
    net: Any = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 4)).eval()
    quantised: Any = AO.quantize_dynamic(net, {torch.nn.Linear}, dtype=torch.qint8)
    script = torch.jit.script(quantised)
    torch.jit.save(script, str(tmp_path / "x.pt"))
    torch.jit.save(torch.jit.freeze(script), str(tmp_path / "frozen.pt"))
    with opened(tmp_path / "x.pt", "torchscript") as checkpoint:
        for at in (0, 2):
            np.testing.assert_array_equal(checkpoint.read(f"{at}.weight"), quantised[at].weight().dequantize().numpy())
            np.testing.assert_array_equal(checkpoint.read(f"{at}.bias"), net[at].bias.detach().numpy())
    assert precisions(tmp_path / "x.pt", "torchscript") == dict.fromkeys(("0.weight", "2.weight"), "int8 torch")
    with opened(tmp_path / "frozen.pt", "torchscript") as checkpoint:
        weights = [checkpoint.read(info.name) for info in checkpoint.tensors if info.name.endswith("weight")]
        for at, found in zip((0, 2), weights, strict=True):
            np.testing.assert_array_equal(found, quantised[at].weight().dequantize().numpy())


@pytest.mark.parametrize(
    ("file", "parameters", "matrices", "quantised"),
    [("reddit.pt", 232528, 7, 0), ("vit4mnist.ptl", 4427, 27, 209216)],
)
def test_published_scripts(file: str, parameters: int, matrices: int, quantised: int, originals: Path) -> None:
    path = originals / "torchscript" / "ios-demo-app" / file
    with opened(path, "torchscript") as checkpoint:
        precise = precisions(path, "torchscript")
        sizes = {info.name: math.prod(info.shape) for info in checkpoint.tensors if info.dtype.startswith("float")}
        assert sum(size for name, size in sizes.items() if name not in precise) == parameters
        assert sum(sizes[name] for name in precise) == quantised
        shapes = [(info.shape[0], math.prod(info.shape[1:])) for info in checkpoint.tensors if len(info.shape) > 1]
        assert sum(min(shape) > 1 for shape in shapes) == matrices
        assert plan_weights(checkpoint).layers
        script = JIT.load(str(path))
        for name, tensor in script.state_dict().items():
            np.testing.assert_array_equal(checkpoint.read(name), tensor.numpy())
        if quantised:  # all are constants: the code's text tells their order
            assert checkpoint.facts.order[:3] == ("CONSTANTS.c3.weight", "CONSTANTS.c3.bias", "CONSTANTS.c4.token")


def test_what_code_says_of_constants() -> None:
    code = """
    w = torch.t(CONSTANTS.c3)
    y = torch.matmul(x, w)
    a = torch.add(torch.addmm(CONSTANTS.c1, y, CONSTANTS.c0, beta=1), CONSTANTS.c9)
    b = torch.addmm(CONSTANTS.c2, a, torch.t(CONSTANTS.c5))
    weights = [CONSTANTS.c7, CONSTANTS.c8]
    c, d, = torch.lstm(b, [h, h], weights, False, 1, 0., False, False, False)
    e = torch.matmul(CONSTANTS.c11, torch.embedding(CONSTANTS.c12, i, "CONSTANTS.c13"))
    unused = CONSTANTS.c20
    """
    assert constant_uses(code) == {
        3: Use("weight"), 1: Use("bias"), 0: Use("weight", turned=True), 9: Use("pos_table"), 2: Use("bias"),
        5: Use("weight"), 7: Use("recurrent"), 8: Use("recurrent", place=1), 11: Use("weight"), 12: Use("weight"),
        20: Use(),
    }  # fmt: skip
    assert list(constant_uses(code)) == [3, 1, 0, 9, 2, 5, 7, 8, 11, 12, 20]
    assert constant_uses("f(" * 100_000 + "CONSTANTS.c1") == {1: Use()}
    listed = 'class A(Module):\n  __parameters__ = ["weight", ]\n  __buffers__ = ["b", ]\n'
    listed += "class B(Module):\n  __parameters__ = []\n"
    assert declared(listed) == {"A": frozenset({"weight", "b"}), "B": None}


def test_a_matrix_that_is_multiplied_from_the_right_is_turned(tmp_path: Path) -> None:
    class Product(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(6, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.matmul(x, self.weight)

    net = Product().eval()
    torch.jit.save(torch.jit.freeze(torch.jit.script(net)), str(tmp_path / "x.pt"))
    with opened(tmp_path / "x.pt", "torchscript") as checkpoint:
        [info] = checkpoint.tensors
        np.testing.assert_array_equal(checkpoint.read(info.name), net.weight.detach().numpy().T)


# torch.export


def exported(net: torch.nn.Module, path: Path, x: torch.Tensor = X) -> None:
    torch.export.save(torch.export.export(net.eval(), (x,)), path)


def test_an_exported_program_is_its_state_dict(tmp_path: Path) -> None:
    net = Net()
    exported(net, tmp_path / "x.pt2")
    with opened(tmp_path / "x.pt2", "torch_export") as checkpoint:
        assert_holds(checkpoint, torch.export.load(tmp_path / "x.pt2").state_dict)
        assert checkpoint.facts.aliases == {"layers.1.weight": "layers.0.weight"}
        assert "not in its state dict: passing" in checkpoint.facts.notes[0]
    ours = read(opened(tmp_path / "x.pt2", "torch_export"))
    twin = read(_saved(net.state_dict(), tmp_path / "twin.pt"))
    assert ours.plan.content_hash == twin.plan.content_hash
    assert max(distances(ours.measured, twin.measured).values()) == 0


@pytest.mark.parametrize("suffix", ["pt", "json"])
def test_a_program_of_old_torch(suffix: str, tmp_path: Path) -> None:
    """Until 2.7: the state dict is a file of torch.save, under two suffixes in turn."""
    state, content = Net().state_dict(), io.BytesIO()
    torch.save(state, content)
    with zipfile.ZipFile(tmp_path / "x.pt2", "w") as archive:
        archive.writestr("version", "1.0")
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr(f"serialized_state_dict.{suffix}", content.getvalue())
    with opened(tmp_path / "x.pt2", "torch_export") as checkpoint:
        assert_holds(checkpoint, state)


def test_a_program_of_torch_2_8(tmp_path: Path) -> None:
    state, content = Net().state_dict(), io.BytesIO()
    torch.save(state, content)
    with zipfile.ZipFile(tmp_path / "x.pt2", "w") as archive:
        for name, data in (("archive_format", "pt2"), ("models/model.json", "{}"), ("byteorder", "little")):
            archive.writestr(f"x/{name}", data)
        archive.writestr("x/data/weights/model.pt", content.getvalue())
        archive.writestr("x/data/constants/model.pt", b"")
    with opened(tmp_path / "x.pt2", "torch_export") as checkpoint:
        assert_holds(checkpoint, state)


def test_several_programs(tmp_path: Path) -> None:
    from torch.export.pt2_archive._package import package_pt2

    programs = {
        name: torch.export.export(torch.nn.Linear(3, n), (torch.ones(1, 3),)) for name, n in (("a", 4), ("b", 5))
    }
    package_pt2(str(tmp_path / "x.pt2"), exported_programs=programs)
    with pytest.raises(AmbiguousError, match="several programs: a, b"):
        opened(tmp_path / "x.pt2", "torch_export")
    with opened(tmp_path / "x.pt2", "torch_export", "b") as checkpoint:
        assert {info.shape for info in checkpoint.tensors} == {(5, 3), (5,)}
    with pytest.raises(NotFoundError, match=r"no program 'c'.*available: a, b"):
        opened(tmp_path / "x.pt2", "torch_export", "c")


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """An archive with its entries changed; those that become None are left out."""
    with zipfile.ZipFile(path) as archive:
        entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries:
            if (new := change(name, data)) is not None:
                archive.writestr(name, new)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("path_name", "../../../etc/passwd", "no valid place"),
        ("path_name", "weight_77", "no entry 'data/weights/weight_77'"),
        ("sizes", [{"as_int": 10**12}, {"as_int": 10**12}], "claims more than"),
        ("sizes", [{"as_int": -3}, {"as_int": 4}], "no valid dtype"),
        ("sizes", [{"as_expr": {"expr_str": "__import__('os')"}}, {"as_int": 4}], "no valid dtype"),
        ("sizes", [{"as_int": 1}] * 1000, "no valid dtype"),
        ("strides", [{"as_int": 0}, {"as_int": 0}], ""),
        ("strides", [{"as_int": 2**60}, {"as_int": 1}], "no valid dtype"),
        ("storage_offset", {"as_int": 2**40}, "claims more than"),
        ("dtype", 99, "no valid dtype"),
        ("dtype", [1], "no valid dtype"),
        ("layout", 1, "is sparse"),
    ],
)
def test_claims_of_a_program(field: str, value: object, words: str, tmp_path: Path) -> None:
    exported(torch.nn.Linear(4, 3), tmp_path / "x.pt2", torch.ones(1, 4))

    def change(name: str, data: bytes) -> bytes:
        if not name.endswith("_weights_config.json"):
            return data
        config = json.loads(data)
        entry = config["config"]["weight"]
        (entry if field == "path_name" else entry["tensor_meta"])[field] = value
        return json.dumps(config).encode()

    rewritten(tmp_path / "x.pt2", change)
    if not words:  # a stride of zero over one's own storage is a tensor of one value
        with opened(tmp_path / "x.pt2", "torch_export") as checkpoint:
            assert len(set(checkpoint.read("weight").reshape(-1))) == 1
        return
    with pytest.raises((WeightsError, UnsafeError), match=words) as caught:
        opened(tmp_path / "x.pt2", "torch_export")
    assert caught.value.remedy


def test_a_compiled_program(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt2", "w") as archive:
        for name in ("archive_format", "data/aotinductor/model/x.so"):
            archive.writestr(f"x/{name}", "pt2")
    with pytest.raises(WeightsError, match=r"AOTInductor.*torch\.export\.save"):
        opened(tmp_path / "x.pt2", "torch_export")


# stable-baselines3 and NeMo


def test_published_agents(originals: Path, zoo: Path) -> None:
    lines = (originals / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    agents = [line for line in map(json.loads, lines) if line["format"] == "sb3-zip"]
    assert agents
    for agent in agents:
        with opened(originals / agent["file"], "sb3") as checkpoint:
            assert sum(math.prod(info.shape) for info in checkpoint.tensors) == agent["parameters"]
            assert checkpoint.ref.card.architecture == "ActorCriticPolicy"
            checkpoint.verify()  # type: ignore[attr-defined]
            if agent["twin"]:
                for name, array in load_file(zoo / agent["twin"]).items():
                    np.testing.assert_array_equal(checkpoint.read(name), array)
        if agent["twin"]:
            ours, twin = (
                read(opened(originals / agent["file"], "sb3")),
                read(opened(zoo / agent["twin"], "safetensors")),
            )
            assert max(distances(ours.measured, twin.measured).values()) < 1e-5


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_agent_whose_policy_is_packed(compression: int, tmp_path: Path) -> None:
    state, policy = Net().state_dict(), io.BytesIO()
    torch.save(state, policy)
    with zipfile.ZipFile(tmp_path / "agent", "w", compression) as archive:
        archive.writestr("data", "[" * 100_000)  # which tells no class
        archive.writestr("policy.pth", policy.getvalue())
    with opened(tmp_path / "agent", "sb3") as checkpoint:
        assert_holds(checkpoint, state)
        assert checkpoint.ref.card.architecture == ""


def test_the_pickles_of_an_agent_are_not_decoded(tmp_path: Path) -> None:
    content = json.loads('{"policy_class": {":serialized:": "not base64", "__init__": ["<function A.__init__"]}}')
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("data", json.dumps(content))
        archive.writestr("policy.pth", pickle_files.contents()["agent.zip"])
    with pytest.raises(WeightsError, match=r"not one of torch\.save"):
        opened(tmp_path / "x.zip", "sb3")


def nemo(path: Path, mode: str, members: Mapping[str, bytes]) -> None:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("prefix", ["", "./"])
def test_nemo(prefix: str, tmp_path: Path) -> None:
    state, content = Net().state_dict(), io.BytesIO()
    torch.save(state, content)
    config = b"name: x\ntarget: nemo.collections.asr.models.EncDecCTCModel\ninner:\n  target: nemo.Other\n"
    nemo(
        tmp_path / "x.nemo",
        "w",
        {f"{prefix}model_config.yaml": config, f"{prefix}model_weights.ckpt": content.getvalue()},
    )
    with opened(tmp_path / "x.nemo", "nemo") as checkpoint:
        assert_holds(checkpoint, state)
        assert checkpoint.ref.card.architecture == "EncDecCTCModel"


@pytest.mark.parametrize(
    ("mode", "members", "words"),
    [
        ("w:gz", {"./model_config.yaml": b"", "./model_weights.ckpt": b"x"}, r"tar -xzf FILE \./model_weights\.ckpt"),
        ("w", {"model_config.yaml": b"x", "mp_rank_00/model_weights.ckpt": b"x"}, r"several files.*tar -xf FILE"),
        ("w", {"model_config.yaml": b"x", "model_weights/.metadata": b"x"}, r"several files.*tar -xf FILE"),
        ("w", {"model_config.yaml": b"x"}, "without model_weights"),
        ("w", {"model_config.yaml": b"x", "model_weights.ckpt": b"text"}, "neither a zip archive nor a pickle"),
    ],
)
def test_nemo_refused(mode: str, members: dict[str, bytes], words: str, tmp_path: Path) -> None:
    nemo(tmp_path / "x.nemo", mode, members)
    with pytest.raises(WeightsError, match=words):
        opened(tmp_path / "x.nemo", "nemo")


# damage


@pytest.mark.parametrize("name", ["script.pt", "frozen.pt", "lite.ptl", "program.pt2", "agent.zip", "x.nemo"])
def test_cut_short(name: str, tmp_path: Path) -> None:
    content = pickle_files.contents()[name].rstrip(b"\0")
    for tenth in range(10):
        (tmp_path / name).write_bytes(content[: len(content) * tenth // 10])
        with pytest.raises(RegistryError) as caught, open_ref(expand(tmp_path / name)[0]) as checkpoint:
            plan_weights(checkpoint)
        assert caught.value.remedy


@pytest.mark.parametrize("name", ["script.pt", "frozen.pt", "program.pt2", "agent.zip", "x.nemo"])
def test_a_bit_turned_in_a_weight(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pickle_files.contents()[name])
    with open_ref(expand(tmp_path / name)[0]) as checkpoint:
        weight = bytes(checkpoint.raw(max(checkpoint.tensors, key=lambda info: info.size).name))
    content = bytearray(pickle_files.contents()[name])
    content[content.find(weight) + 3] ^= 1
    (tmp_path / name).write_bytes(content)
    with open_ref(expand(tmp_path / name)[0]) as checkpoint, pytest.raises(WeightsError, match=r"checksum|damaged"):
        plan_weights(checkpoint)


def test_what_a_script_lacks(tmp_path: Path) -> None:
    for lacking, words in (("/data/0", "no entry 'data/0'"), ("data.pkl", r"before 1\.4.*torch\.jit\.save")):
        (tmp_path / "x.pt").write_bytes(pickle_files.contents()["script.pt"])

        def without(name: str, data: bytes, lacking: str = lacking) -> bytes | None:
            return None if name.endswith(lacking) else data

        rewritten(tmp_path / "x.pt", without)
        with pytest.raises(WeightsError, match=words):
            opened(tmp_path / "x.pt", "torchscript")


def test_code_that_unpacks_to_a_flood(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(pickle_files.contents()["frozen.pt"])
    with zipfile.ZipFile(tmp_path / "x.pt", "a", zipfile.ZIP_DEFLATED) as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{root}/code/flood.py", bytes(2**24))
    with pytest.raises(UnsafeError, match=r"would unpack"):
        opened(tmp_path / "x.pt", "torchscript")


def test_entries_that_overlap(tmp_path: Path) -> None:
    (tmp_path / "x.pt2").write_bytes(pickle_files.contents()["program.pt2"])
    content = bytearray((tmp_path / "x.pt2").read_bytes())
    with zipfile.ZipFile(tmp_path / "x.pt2") as archive:
        first = archive.start_dir
    second = content.find(b"PK\x01\x02", first + 4)
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    (tmp_path / "x.pt2").write_bytes(content)
    with pytest.raises(UnsafeError, match="its entries overlap"):
        opened(tmp_path / "x.pt2", "torch_export")


def test_the_folder_of_all(tmp_path: Path) -> None:
    """A scan finds each by its content, whatever its name is."""
    for at, name in enumerate(("script.pt", "program.pt2", "agent.zip", "x.nemo", "arrays.joblib")):
        (tmp_path / f"{at}.weights").write_bytes(pickle_files.contents()[name])
    for name in (".metadata", "__0_0.distcp"):
        os.makedirs(tmp_path / "dcp", exist_ok=True)  # noqa: PTH103
        (tmp_path / "dcp" / name).write_bytes(pickle_files.contents()[name])
    found = {ref.name: ref.source for ref in expand(tmp_path)}
    assert found == {
        "0": "torchscript", "1": "torch_export", "2": "sb3", "3": "nemo", "4": "pickle", "dcp": "dcp",
    }  # fmt: skip
