"""Files of ``torch.save`` wherever their bytes are: in an archive, in a part of a file, in memory.

The archive of a TorchScript model has the same parts, so that it is read by the same class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.errors import UnsafeError, WeightsError
from registry.sources.files.archive import DAMAGED
from registry.sources.files.zip_members import ZipMembers
from registry.sources.formats.pickles import as_mapping, read_pickle
from registry.sources.formats.pickles.stored_tensors import StoredTensor
from registry.sources.formats.pickles.torch_legacy import CONSTRUCTORS, read_legacy
from registry.sources.formats.pickles.torch_values import Storage, storage_dtype, width_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from registry.sources.files.byte_source import ByteSource
    from registry.sources.files.lazy_tensors import LazyTensor

__all__ = ["TorchMembers", "aliases_of", "check_sums_in", "content_of", "lazy_state", "tensor_in", "tensors_in"]

_PICKLE_LIMIT = 64 * 2**20  # bytes of a compressed pickle
_STORAGE_LIMIT = 256 * 2**20  # bytes of a compressed storage
_MAX_VIEWS = 100  # limit on the size of tensors that share storages, relative to the file
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"


class TorchMembers:
    """The pickles of an archive, with the storages that they refer to. ``used``: the entries that hold these."""

    def __init__(self, members: ZipMembers, name: str) -> None:
        self.members = members
        self._name = name
        self._big = "byteorder" in members and members.read("byteorder", 64).strip() == b"big"
        self._storages: dict[tuple[str, str], Storage] = {}
        self.used: set[str] = set()

    def read(self, entry: str, folder: str) -> object:
        """The value of a pickle whose storages are entries of a folder.

        Raises
        ------
        UnsafeError
            A storage claims more than its entry holds; or as `read_pickle` and `ZipMembers.open`.
        WeightsError
            The archive is damaged.
        """
        pickle = self.members.open(entry, _PICKLE_LIMIT)
        return read_pickle(pickle, persistent_load=self._loader(folder), constructors=CONSTRUCTORS).value

    def _loader(self, folder: str) -> Callable[[object], object]:
        def load(given: object) -> object:
            if type(given) is not tuple or len(given) < 5 or given[0] != "storage":
                raise self._damaged("a persistent id is no storage")
            _, kind, key, location, count = given[:5]
            if not isinstance(key, str) or type(count) is not int or not 0 <= count < 2**48:
                raise self._damaged("a storage has no key or size")
            dtype = storage_dtype(kind)
            entry = f"{folder}/{key}"
            made = self._storages.get((entry, dtype))
            if made is None:
                made = self._storages[entry, dtype] = self._found(entry, dtype, count, location)
            if count * width_of(dtype) > made.size:
                raise UnsafeError(
                    f"{self._name}: a storage of {count * width_of(dtype)} bytes is an entry of {made.size}", DAMAGED
                )
            return made

        return load

    def _found(self, entry: str, dtype: str, count: int, location: object) -> Storage:
        if entry not in self.members:
            if count and location != "meta":
                raise self._damaged(f"it has no entry {entry[:60]!r}")
            return Storage(dtype, count * width_of(dtype), entry)
        data = self.members.open(entry, _STORAGE_LIMIT)
        self.used.add(entry)
        return Storage(dtype, data.size, entry, data, big=self._big)

    def _damaged(self, reason: str) -> WeightsError:
        return WeightsError(f"{self._name} is a damaged torch file: {reason}", DAMAGED)


def content_of(source: ByteSource) -> object:
    """The content of a file of ``torch.save``, zipped or not, as records.

    Raises
    ------
    UnsafeError
        It would exhaust memory.
    WeightsError
        It is damaged, or no such file.
    """
    head = bytes(source.read_at(0, min(4, source.size)))
    if head == _ZIP:
        members = ZipMembers(source)
        if "data.pkl" not in members:
            raise WeightsError(f"{source.name} is a zip archive, but not one of torch.save", DAMAGED)
        return TorchMembers(members, source.name).read("data.pkl", "data")
    if head.startswith(_PICKLE):
        return read_legacy(source)[0]
    raise WeightsError(f"{source.name} is neither a zip archive nor a pickle of torch.save", DAMAGED)


def tensors_in(source: ByteSource) -> dict[str, StoredTensor]:
    """The tensors of a dictionary that ``torch.save`` wrote, by name; raises the errors of `content_of`."""
    found = as_mapping(content_of(source))
    if found is None:
        raise WeightsError(f"{source.name} is no state dict", "save model.state_dict() with torch.save")
    return {name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, StoredTensor)}


def tensor_in(source: ByteSource) -> StoredTensor:
    """The one tensor that ``torch.save`` wrote; raises the errors of `content_of`."""
    found = content_of(source)
    if not isinstance(found, StoredTensor):
        raise WeightsError(f"{source.name} holds no tensor", DAMAGED)
    return found


def lazy_state(tensors: Mapping[str, StoredTensor], file: ByteSource) -> dict[str, LazyTensor]:
    """The tensors of a file, to be read when asked for.

    Raises
    ------
    UnsafeError
        One claims more elements than its storage has, with strides of zero, or all a hundred times the file's size.
    WeightsError
        One cannot be read.
    """
    total = 0
    for name, tensor in tensors.items():
        claimed, stored = tensor.memory
        total += claimed
        if claimed > stored:
            raise UnsafeError(
                f"{file.name}: tensor {name[:100]} claims {claimed} bytes of a storage of {stored}",
                "save contiguous tensors",
            )
    if total > _MAX_VIEWS * max(file.size, 1):
        raise UnsafeError(f"{file.name} claims {total} bytes of tensors in {file.size}", "save each tensor once")
    return {name: tensor.lazy(name) for name, tensor in tensors.items()}


def aliases_of(tensors: Mapping[str, StoredTensor]) -> dict[str, str]:
    """Names of tensors that are the same memory as an earlier one, and the name of that one."""
    first: dict[Hashable, str] = {}
    found = {}
    for name, tensor in tensors.items():
        if 0 not in tensor.shape and (kept := first.setdefault(tensor.place, name)) != name:
            found[name] = kept
    return found


def check_sums_in(source: ByteSource) -> None:
    """Compare the checksums of a zipped file's entries with their data; nothing for another file."""
    if bytes(source.read_at(0, min(4, source.size))) == _ZIP:
        members = ZipMembers(source)
        members.check_sums(list(members))
