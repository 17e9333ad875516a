"""Torch files since torch 1.6: zip archives of a pickle and of one entry for each storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.errors import WeightsError
from registry.sources.files.archive import check_sums, torch_entries
from registry.sources.formats.pickles.opcodes import read_pickle
from registry.sources.formats.pickles.stored_tensors import DAMAGED
from registry.sources.formats.pickles.torch_legacy import CONSTRUCTORS
from registry.sources.formats.pickles.torch_values import Storage, storage_dtype, width_of

if TYPE_CHECKING:
    from registry.sources.files.byte_source import ByteSource

__all__ = ["TorchArchive"]

_MAX_COUNT = 2**48


class TorchArchive:
    """The entries of an archive of ``torch.save``. ``big``: its storages are in big-endian order.

    Raises the errors of `torch_entries`.
    """

    def __init__(self, source: ByteSource) -> None:
        entries = torch_entries(source)
        self._source = source
        self._everything = list(entries.values())
        self._by_name = {entry.filename: (offset, entry) for offset, entry in entries.items()}
        pickles = [name for name in self._by_name if name.partition("/")[2] == "data.pkl"]
        if not pickles:  # the name of one that is there is damaged where its data are
            raise self._damaged("it has no entry data.pkl")
        self._pickle = pickles[0]
        self._folder = self._pickle.removesuffix("data.pkl")
        self._storages: dict[tuple[str, str, int], Storage] = {}
        self.big = self._byte_order() == b"big"

    def _byte_order(self) -> bytes:
        found = self._by_name.get(f"{self._folder}byteorder")
        return b"" if found is None else bytes(self._source.read_at(found[0], min(6, found[1].file_size)))

    def content(self) -> object:
        """The content of the pickle, whose tensors are views of entries; raises the errors of `read_pickle`."""
        offset, entry = self._by_name[self._pickle]
        return read_pickle(
            self._source,
            offset,
            offset + entry.file_size,
            persistent_load=self._storage,
            constructors=CONSTRUCTORS,
        ).value

    def _storage(self, given: object) -> Storage:
        if type(given) is not tuple or len(given) != 5 or given[0] != "storage":
            raise self._damaged("a persistent id is no storage")
        _, kind, key, location, count = given
        if not isinstance(key, str) or type(count) is not int or not 0 <= count < _MAX_COUNT:
            raise self._damaged("a storage has no key or size")
        dtype = storage_dtype(kind)
        made = self._storages.get((key, dtype, count))
        if made is None:
            made = self._storages[key, dtype, count] = self._found(dtype, key, count, location)
        return made

    def _found(self, dtype: str, key: str, count: int, location: object) -> Storage:
        size = count * width_of(dtype)
        found = self._by_name.get(f"{self._folder}data/{key}")
        if found is None:
            if size and location != "meta":
                raise self._damaged(f"it has no entry for the storage {key[:40]!r}")
            return Storage(dtype, size, key, None if size else self._source)
        offset, entry = found
        if size > entry.file_size:
            raise self._damaged(f"a storage of {size} bytes is an entry of {entry.file_size}")
        return Storage(dtype, size, key, self._source, offset, big=self.big)

    def _damaged(self, reason: str) -> WeightsError:
        return WeightsError(f"{self._source.name} is a damaged torch file: {reason}", DAMAGED)

    def verify(self, places: frozenset[int]) -> None:
        """Compare the checksums of the entries at these positions of the file with their data.

        Raises ``WeightsError`` that names the entry that differs.
        """
        entries = {offset: entry for offset, entry in self._by_name.values() if offset in places}
        check_sums(self._source, entries, everything=self._everything)
