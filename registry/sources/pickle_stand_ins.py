"""Inert stand-ins for training settings that ``weights_only`` loading refuses.

Checkpoints often hold Lightning's hyper-parameters, the ``args`` of a training script or NumPy scalars beside the
weights. The classes of such settings, from well-known packages, are not imported. torch is given a stand-in for each
name, which accepts any argument and does nothing, and the rest of the file is read by ``weights_only``. Every other
name is refused.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ForeignArray", "Setting", "stand_ins"]


class Setting:
    """Stand-in for an object or a class of the table below."""

    def __new__(cls, *_: object) -> Self:
        """Accept any arguments."""
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        """Ignore the state."""


class ForeignArray(Setting):
    """Stand-in for a NumPy array: ignored among settings, reported as missing among weights."""


_SETTINGS = frozenset({
    "_codecs.encode", "argparse.Namespace", "collections.defaultdict", "datetime.date", "datetime.datetime",
    "datetime.timedelta", "numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    "pathlib.Path", "pathlib.PosixPath", "pathlib.PurePosixPath", "pathlib.PureWindowsPath", "pathlib.WindowsPath",
    "types.SimpleNamespace", "typing.Any", "uuid.UUID",
})  # fmt: skip
_TYPES = ("bool", "bytes", "dict", "float", "int", "list", "set", "str", "tuple")
_BUILTINS = frozenset(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _TYPES)
_PACKAGES = ("omegaconf.", "numpy.dtypes.", "ml_collections.config_dict.")
_MAPPINGS = frozenset({
    "addict.addict.Dict", "easydict.EasyDict", "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict", "mmengine.config.config.ConfigDict",
    "pytorch_lightning.utilities.parsing.AttributeDict", "yacs.config.CfgNode",
})  # fmt: skip
_ARRAYS = frozenset({
    "numpy.ndarray", "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
})  # fmt: skip


def stand_ins(names: Iterable[str]) -> tuple[list[tuple[Any, str]], list[str]]:
    """Stand-ins for the refused names of a pickle, and the names that have none.

    Returns
    -------
    tuple of two lists
        Pairs (stand-in, name) as `torch.serialization.safe_globals` takes them, and the sorted names that are not in
        the table.
    """
    known: list[tuple[Any, str]] = []
    others: list[str] = []
    for name in sorted(names):
        if name in _ARRAYS:
            known.append((ForeignArray, name))
        elif name in _MAPPINGS:
            known.append((OrderedDict, name))  # torch fills only few classes like a dictionary; this is one
        elif name in _SETTINGS or name in _BUILTINS or name.startswith(_PACKAGES):
            known.append((Setting, name))
        else:
            others.append(name)
    return known, others
