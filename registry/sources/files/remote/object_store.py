"""A file in an object store or another file system of fsspec, read by ranges of bytes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from registry.errors import NotFoundError, SourceError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ObjectFile"]

_PIECE: Final = 8 << 20
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
_MARKS = ("ETag", "etag", "generation", "LastModified", "mtime", "modified", "created")
_ATTEMPTS: Final = 3


class ObjectFile:
    """A file of an object store. ``size`` is known after `start`.

    Its size, ETag and date are asked for again before each range, so that a file that changes while it is read is
    noticed.
    """

    def __init__(self, address: str) -> None:
        self.shown = address
        self.size: int | None = None
        self.received = 0
        self._store, self._path = _opened(address)
        self._mark: tuple[Any, ...] = ()

    def start(self, count: int) -> tuple[bool, Iterator[bytes]]:
        """True and the first bytes, at most ``count``. Raises as `pieces`, and ``NotFoundError``."""
        self.size, self._mark = self._state()
        return True, self.pieces(0, min(count, self.size))

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """Bytes ``start`` to ``stop`` in pieces, in order.

        Raises
        ------
        WeightsError
            The file has changed since `start`.
        SourceError
            It cannot be read.
        """
        while start < stop:
            end = min(stop, start + _PIECE)
            data = self._try(lambda a, b: self._store.cat_file(self._path, start=a, end=b), start, end)
            if self._state() != (self.size, self._mark) or len(data) != end - start:
                raise WeightsError(f"{self.shown} changed while it was read", "read it again when it is complete")
            self.received += len(data)
            start = end
            yield data

    def close(self) -> None:
        """Nothing is held."""

    def _state(self) -> tuple[int, tuple[Any, ...]]:
        self._store.invalidate_cache()
        info = self._try(self._store.info, self._path)
        size = info.get("size")
        if info.get("type") == "directory" or not isinstance(size, int):
            raise NotFoundError(f"{self.shown} is a folder, or has no size", "give the address of a file")
        return size, tuple(str(info.get(key, "")) for key in _MARKS)

    def _try(self, call: Any, *given: Any) -> Any:
        for left in range(_ATTEMPTS - 1, -1, -1):
            try:
                return call(*given)
            except FileNotFoundError as error:
                raise NotFoundError(f"there is no file {self.shown}", "check the address") from error
            except (PermissionError, ImportError) as error:
                raise SourceError(
                    f"access to {self.shown} is refused", "check the address and your credentials"
                ) from error
            except Exception as error:  # of the store's client and its libraries
                if left:
                    continue
                raise SourceError(
                    f"{self.shown} could not be read: {type(error).__name__}",
                    "check the network, the address and your credentials; or download the file and give its path",
                ) from error
        raise AssertionError("the last attempt returns or raises")


def _opened(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    scheme = address.partition(":")[0]
    package = _PACKAGES.get(scheme, "fsspec")
    try:
        fsspec: Any = importlib.import_module("fsspec")
        importlib.import_module(package)
    except ImportError as error:
        missing = "fsspec" if getattr(error, "name", "") == "fsspec" else package
        extra = "'architecture-registry[remote]'" if missing == "fsspec" else missing
        raise SourceError(
            f"{missing} is needed for {scheme}: addresses, and is not installed", f"pip install {extra}"
        ) from error
    try:
        store, path = fsspec.core.url_to_fs(address)
    except Exception as error:  # of the store's client, which looks for credentials
        raise SourceError(
            f"{address} cannot be opened: {type(error).__name__}", "check the address and your credentials"
        ) from error
    return store, str(path)
