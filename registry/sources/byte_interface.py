"""Interface of a file that can be read at any position, wherever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

from registry.errors import WeightsError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ByteSource"]


class ByteSource(ABC):
    """A file that can be read at any position. ``name``: for messages. ``size``: in bytes."""

    name: str
    size: int

    @abstractmethod
    def read_at(self, start: int, count: int) -> bytes | bytearray:
        """Exactly ``count`` bytes from position ``start``.

        Raises
        ------
        WeightsError
            The file ends before.
        SourceError
            It cannot be read.
        """

    def close(self) -> None:  # noqa: B027 - a source in memory has nothing to release
        """Release the file. Closing twice has no effect."""

    def ends_early(self, start: int, count: int) -> WeightsError:
        """The error for bytes that the file does not have."""
        return WeightsError(
            f"{self.name} ends early: it has {self.size} bytes, and bytes {start} to {start + count} are asked for",
            "download or save it again",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
