"""What parts of `Store` share: its transactions, and what it remembers from one question to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.storage.models.spec_state import SpecState, Standing, standing, state_of
from registry.storage.transactions import Transactions

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from registry.storage.engine.address import Address
    from registry.storage.models.vector_cache import Remembered
    from registry.storage.transactions import Mode

__all__ = ["Part"]


class Part(Transactions):
    """A part of `Store`: its methods, by what they are for. Each is one transaction, or of that of a `snapshot`."""

    def __init__(
        self, address: Address, engine: Engine, mode: Mode, remembered: dict[str, Remembered] | None = None
    ) -> None:
        super().__init__(address, engine, mode)
        self.memory = {} if remembered is None else remembered
        self._counted: dict[str, tuple[SpecState | None, int]] = {}

    def _standing(self, spec_hash: str, distance: str) -> Standing:
        return self._once((spec_hash, distance), lambda connection: standing(connection, spec_hash, distance))

    def _state(self, spec_hash: str) -> SpecState | None:
        return self._once(spec_hash, lambda connection: state_of(connection, spec_hash))
