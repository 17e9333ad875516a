"""The numbers of models: vectors, spectra, conjugacy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.storage.api.base import Part
from registry.storage.models import measured_values, vectors
from registry.storage.models.records import CONJUGACY_RULE
from registry.storage.models.vector_cache import Remembered

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from registry.types import Conjugacy, Fingerprint, FingerprintSpec, Spectrum

__all__ = ["Measuring"]


class Measuring(Part):
    """Vectors, spectra and figures."""

    def spectra(self, model_id: int) -> tuple[Spectrum, ...] | None:
        """Return a model's spectra in depth order, float32 and read-only; None where they were not kept."""
        return self._read(lambda connection: vectors.read_spectra(connection, model_id))

    def conjugacy(self, ids: Sequence[int]) -> dict[int, Conjugacy]:
        """Return conjugacy figures by id, where known."""
        return self._read(lambda connection: vectors.conjugacy_of(connection, ids))

    def classes(self, ids: Sequence[int] | None = None) -> dict[int, tuple[str, str]]:
        """Return (tail class, training class) by id, of all models or of ``ids``, where known."""
        return self._read(lambda connection: vectors.classes(connection, ids))

    def put_conjugacy(self, model_id: int, given: Conjugacy, rule: int = CONJUGACY_RULE) -> None:
        """Store a model's conjugacy figures, judged by that version of the thresholds."""
        self._write(lambda connection: measured_values.put_measured(connection, {}, {model_id: (given, rule)}))

    def missing_conjugacy(self, rule: int = CONJUGACY_RULE) -> list[int]:
        """Return the ids of the models without figures by that version of the thresholds, ascending."""
        return self._read(lambda connection: vectors.missing_conjugacy(connection, rule))

    def fingerprints(
        self, spec_hash: str, ids: Sequence[int] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return ids (n,), int64, ascending, and vectors (n, d), float32; d is 0 for an unknown spec."""
        return self._read(lambda connection: vectors.read_fingerprints(connection, spec_hash, ids))

    def remembers(self, spec_hash: str) -> bool:
        """Whether vectors of that spec are in memory already, if perhaps not the latest."""
        return spec_hash in self.memory

    def remembered(self, spec_hash: str) -> Remembered:
        """Return all vectors of a spec from memory, current: the first time they are read, then what changed since.

        Without a change it costs one row. Its arrays are good until the next call.
        """
        memory = self.memory.setdefault(spec_hash, Remembered())
        with self.snapshot():
            state = self._state(spec_hash)
            self._read(lambda connection: memory.refresh(connection, state))
        return memory

    def of_kind(self, spec_hash: str, kind: tuple[str, str]) -> NDArray[np.bool_]:
        """Which rows of `remembered` are of that tail class and training class."""
        memory = self.memory[spec_hash]
        return self._read(lambda connection: memory.of_kind(connection, kind))

    def vector(self, spec_hash: str, model_id: int) -> NDArray[np.float32] | None:
        """Return one model's vector under a spec, None where it has none."""
        return self._read(lambda connection: vectors.read_vector(connection, spec_hash, model_id))

    def put_fingerprints(self, model_id: int, given: Iterable[Fingerprint]) -> None:
        """Store vectors of a model, in place of those under the same specs."""
        kept = tuple(given)
        self._write(lambda connection: measured_values.put_measured(connection, {model_id: kept}))

    def missing_fingerprints(self, spec_hash: str) -> list[int]:
        """Return the ids of the models without a vector under the spec, ascending."""
        return self._read(lambda connection: vectors.missing_fingerprints(connection, spec_hash))

    def specs(self) -> list[FingerprintSpec]:
        """Return the specs that fingerprints are stored under."""
        return self._read(vectors.all_specs)

    def drop_spec(self, spec_hash: str) -> int:
        """Forget a spec with its vectors and calibrations; return how many vectors."""
        return self._write(lambda connection: measured_values.drop_spec(connection, spec_hash))
