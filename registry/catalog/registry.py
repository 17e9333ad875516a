"""Class ``Registry``: every use case by its name. Each method opens, loads and imports no more than it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, Self

from registry.catalog.api.asking import Asking
from registry.catalog.api.choosing import Choosing
from registry.catalog.api.filling import Filling
from registry.catalog.api.indexing import Indexing
from registry.catalog.api.judging import Judging
from registry.catalog.api.managing import Managing
from registry.catalog.api.porting import Porting
from registry.catalog.api.running import Running
from registry.catalog.api.showing import Showing

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Registry"]


class Registry(Filling, Running, Asking, Choosing, Judging, Indexing, Showing, Managing, Porting):
    """A registry in a database, SQLite or Postgres.

    ``url``: an SQLAlchemy URL or the path of an SQLite file; None for the environment's ``ARCHREG_DB``, else
    ``archreg.db`` in the working folder. Nothing is opened before the first question. A question to a missing database
    raises ``DatabaseMissingError``; ``ingest`` and ``import_from`` alone create one. Threads that share one wait for
    each other; for questions side by side, and in every process, open one each.

    Questions take a stored name, a reference such as ``torchvision:resnet50``, a path, a ``torch.nn.Module`` or its
    state dict. ``fingerprint`` is ``layered`` or ``mme``; ``distance`` one of ``l1``, ``l2``, ``linf``; ``tolerance`` a
    distance, the calibrated one by default; further keywords are the fields of ``Filter``.
    """

    def __repr__(self) -> str:
        """The place, without a password."""
        return f"Registry({self._database.label!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} is a connection, which cannot be pickled or copied; open another by the same URL")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next question opens it again."""
        self._database.close()
