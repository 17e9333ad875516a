"""What trainers keep beside the weights and `weights_only` refuses, read as inert stand-ins.

Lightning's hyper-parameters, ``args`` of a training script, NumPy's scalars: classes of well-known packages that hold
settings. Such a name in a pickle is not looked up. torch is told that it means a stand-in, which takes whatever it is
given and does nothing, so that the rest of the file is read by ``weights_only`` as ever. Every other name is refused.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ForeignArray", "Setting", "stand_ins"]


class Setting:
    """Stands for an object or a class of the table below."""

    def __new__(cls, *_: object) -> Self:
        """Take any arguments."""
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        """Forget the state."""


class ForeignArray(Setting):
    """Stands for an array that is no tensor: as a setting it does not matter, among the weights it is missed."""


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
    """What to tell torch of the names in a pickle that it refuses.

    Returns
    -------
    tuple of two lists
        A stand-in and the name it stands for, as `torch.serialization.safe_globals` takes them; and the names that are
        not of the table, sorted.
    """
    known: list[tuple[Any, str]] = []
    others: list[str] = []
    for name in sorted(names):
        if name in _ARRAYS:
            known.append((ForeignArray, name))
        elif name in _MAPPINGS:
            known.append((OrderedDict, name))  # filled as a dictionary is, which torch does of few classes
        elif name in _SETTINGS or name in _BUILTINS or name.startswith(_PACKAGES):
            known.append((Setting, name))
        else:
            others.append(name)
    return known, others
