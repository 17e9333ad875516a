"""Source for Darknet's ``.weights``: numbers in the order of the layers in the ``.cfg`` beside the file.

The file has no names and no shapes. Each layer's numbers follow from the sizes in the configuration, so that a layer
that is not known here is refused by name. Source: ``parser.c`` of Darknet (load_weights_upto, parse_network_cfg).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from registry.errors import NotFoundError, UnsafeError, WeightsError
from registry.sources.base import Source
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint, LazyTensor, in_file
from registry.sources.model_files import facts_beside, with_facts

if TYPE_CHECKING:
    from registry.sources.files.byte_source import ByteSource
    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE", "open_darknet"]

_MAX_TEXT = 4 * 2**20
_MAX_LAYERS = 10_000
_MAX_ENTRIES = 10_000  # of a folder in which a configuration is looked for
_CHECK = "check that .weights and .cfg belong together"
_TRAINED = re.compile(r"(.+?)[_-](?:final|best|last|\d+)")  # what Darknet adds to the name of its configuration
_ELSEWHERE = ("flipped", "numload", "dontload", "dontloadscales")  # settings by which the file has other numbers
# Layers without weights that keep the number of channels.
_PLAIN = frozenset({
    "activation", "cost", "detection", "dropout", "gaussian_yolo", "l2norm", "logistic", "lrn", "normalization",
    "region", "shortcut", "softmax", "yolo",
})  # fmt: skip


@dataclass(slots=True)
class _Section:
    """A part of a configuration: its name, and its settings as they are written."""

    name: str
    settings: dict[str, str] = field(default_factory=dict)

    def number(self, key: str, default: int = 0) -> int:
        text = self.settings.get(key, "")
        if not text:
            return default
        if not re.fullmatch(r"-?\d{1,9}", text):
            raise WeightsError(f"[{self.name}] has {key}={text[:40]!r} in the .cfg, which is no number", _CHECK)
        return int(text)


def open_darknet(ref: ModelRef) -> Checkpoint:
    """Open a ``.weights`` file by the configuration beside it.

    Raises
    ------
    SourceError
        As `open_bytes`.
    NotFoundError
        There is no configuration of its name, and not exactly one in its folder; or an entry was asked for.
    WeightsError
        A layer is of a type that is not known, or the two files do not belong together.
    """
    if ref.key is not None:
        raise NotFoundError(f"{ref.target} has no entry {ref.key!r}", "Darknet files are one network: leave --key out")
    file = open_bytes(ref.target)
    try:
        sections = _sections(_configuration(Path(ref.target)))
        tensors = _Reader(file).read(sections)
        facts = replace(facts_beside(Path(ref.target), names=tensors), laid_out=True)
        return LazyCheckpoint(with_facts(ref, facts), tensors, facts, files=(file,))
    except BaseException:
        file.close()
        raise


def _configuration(path: Path) -> Path:
    """The ``.cfg`` of a file of weights: of its name, without what training adds, or the only one of its folder."""
    names = [path.stem]
    if match := _TRAINED.fullmatch(path.stem):
        names.append(match[1])
    for name in names:
        if path.with_name(f"{name}.cfg").is_file():
            return path.with_name(f"{name}.cfg")
    found = []
    for count, each in enumerate(path.parent.iterdir()):
        if count >= _MAX_ENTRIES:
            break
        if each.suffix.lower() == ".cfg":
            found.append(each)
    if len(found) == 1:
        return found[0]
    raise NotFoundError(
        f"{path} holds numbers without names and shapes, and no {path.stem}.cfg is beside it",
        f"put the configuration that it was trained with beside it, as {path.stem}.cfg",
    )


def _sections(path: Path) -> list[_Section]:
    with open_bytes(path) as file:
        if file.size > _MAX_TEXT:
            raise UnsafeError(f"{path} is a text of {file.size} bytes, more than {_MAX_TEXT}", _CHECK)
        text = bytes(file.read_at(0, file.size)).decode("utf-8", "replace")
    found: list[_Section] = []
    for line in text.splitlines():
        line = line.strip().replace(" ", "")
        if line.startswith("[") and line.endswith("]"):
            found.append(_Section(line[1:-1][:60]))
        elif "=" in line and line[0] not in "#;" and found:
            key, _, value = line.partition("=")
            found[-1].settings[key] = value
    if not found or found[0].name not in ("net", "network"):
        raise WeightsError(f"{path} is no configuration of Darknet: it does not begin with [net]", _CHECK)
    if len(found) > _MAX_LAYERS:
        raise UnsafeError(f"{path} has more than {_MAX_LAYERS} layers", _CHECK)
    return found


class _Reader:
    """Walks the layers of a configuration, with the extents (channels, height, width) of what each gives."""

    def __init__(self, file: ByteSource) -> None:
        self.file = file
        header = file.read_at(0, min(20, file.size))
        major, minor = (int.from_bytes(header[at : at + 4], "little") for at in (0, 4))
        self.at = 20 if major * 10 + minor >= 2 else 16  # the number of images seen takes eight bytes since 0.2
        self.tensors: dict[str, LazyTensor] = {}
        self.extents: list[tuple[int, int, int]] = []

    def read(self, sections: list[_Section]) -> dict[str, LazyTensor]:
        net = sections[0]
        now = (net.number("channels", 3), net.number("height"), net.number("width"))
        for place, section in enumerate(sections[1:]):
            now = self._layer(section, place, now)
            if min(now) < 0 or max(now) > 2**31:
                self._unfit(section, place)
            self.extents.append(now)
        if self.at != self.file.size:
            raise WeightsError(
                f"{self.file.name} has {self.file.size - self.at} bytes more than the layers of its .cfg take", _CHECK
            )
        return self.tensors

    def _layer(self, section: _Section, place: int, now: tuple[int, int, int]) -> tuple[int, int, int]:
        channels, height, width = now
        kind = section.name
        if any(section.number(key) for key in _ELSEWHERE):
            self._unfit(section, place)
        if kind in _PLAIN and "weights_type" not in section.settings:
            return now
        if kind in ("convolutional", "conv"):
            return self._convolution(section, place, now)
        if kind in ("connected", "conn"):
            outputs = section.number("output", 1)
            self._connected(section, place, channels * height * width, outputs)
            return outputs, 1, 1
        if kind == "batchnorm":
            for leaf in ("weight", "running_mean", "running_var"):
                self._take(f"layers.{place}.bn.{leaf}", (channels,))
            return now
        stride = section.number("stride", 1)
        if kind in ("maxpool", "max"):
            size = section.number("size", stride)
            padding = section.number("padding", size - 1)
            return channels, self._out(height, size, padding, stride), self._out(width, size, padding, stride)
        if kind in ("avgpool", "avg"):
            return channels, 1, 1
        if kind == "upsample":
            stride = section.number("stride", 2)
            return channels, height * stride, width * stride
        if kind == "reorg" and stride > 0:
            back = section.number("reverse")
            squared = stride * stride
            if back:
                return channels // squared, height * stride, width * stride
            return channels * squared, height // stride, width // stride
        if kind == "route":
            return self._route(section, place)
        if kind in ("scale_channels", "sam"):
            return self._from(section, place, section.number("from"))
        raise WeightsError(
            f"{self.file.name}: layer {place} is of type [{kind}], which is not known here, so that the weights behind "
            "it cannot be found",
            "convert it to ONNX, for example with pytorch-YOLOv4's demo_darknet2onnx.py, then ingest that",
        )

    @staticmethod
    def _out(extent: int, size: int, padding: int, stride: int) -> int:
        return (extent + padding - size) // stride + 1 if stride > 0 else -1

    def _from(self, section: _Section, place: int, number: int) -> tuple[int, int, int]:
        number = place + number if number < 0 else number
        if not 0 <= number < place:
            self._unfit(section, place)
        return self.extents[number]

    def _route(self, section: _Section, place: int) -> tuple[int, int, int]:
        numbers = section.settings.get("layers", "").split(",")
        if not all(re.fullmatch(r"-?\d{1,6}", number) for number in numbers):
            self._unfit(section, place)
        found = [self._from(section, place, int(number)) for number in numbers]
        groups = section.number("groups", 1)
        if groups < 1:
            self._unfit(section, place)
        return sum(each[0] for each in found) // groups, found[0][1], found[0][2]

    def _convolution(self, section: _Section, place: int, now: tuple[int, int, int]) -> tuple[int, int, int]:
        channels, height, width = now
        filters, size, groups = section.number("filters", 1), section.number("size", 1), section.number("groups", 1)
        stride = section.number("stride", 1)
        padding = size // 2 if section.number("pad") else section.number("padding")
        if min(filters, size, groups, stride, channels) < 1 or channels % groups or filters % groups:
            self._unfit(section, place)
        self._biases(section, place, "conv", filters)
        self._norm(section, place, filters)
        self._take(f"layers.{place}.conv.weight", (filters, channels // groups, size, size))
        return filters, self._out(height, size, 2 * padding, stride), self._out(width, size, 2 * padding, stride)

    def _connected(self, section: _Section, place: int, inputs: int, outputs: int) -> None:
        if min(inputs, outputs) < 1:
            self._unfit(section, place)
        self._biases(section, place, "fc", outputs)
        self._take(f"layers.{place}.fc.weight", (outputs, inputs))
        self._norm(section, place, outputs)

    def _biases(self, section: _Section, place: int, own: str, count: int) -> None:
        part = "bn" if section.number("batch_normalize") else own
        self._take(f"layers.{place}.{part}.bias", (count,))

    def _norm(self, section: _Section, place: int, count: int) -> None:
        if section.number("batch_normalize"):
            for leaf in ("weight", "running_mean", "running_var"):
                self._take(f"layers.{place}.bn.{leaf}", (count,))

    def _take(self, name: str, shape: tuple[int, ...]) -> None:
        size = 4 * math.prod(shape)
        if size > self.file.size - self.at:
            raise WeightsError(
                f"{self.file.name} ends early: {name} takes {size} bytes at byte {self.at} of {self.file.size}",
                _CHECK,
            )
        self.tensors[name] = in_file(self.file, self.at, "float32", shape)
        self.at += size

    def _unfit(self, section: _Section, place: int) -> NoReturn:
        raise WeightsError(
            f"{self.file.name}: layer {place}, a [{section.name}], has settings in the .cfg that do not fit", _CHECK
        )


SOURCE = Source(name="darknet", open=open_darknet, headers=True)
