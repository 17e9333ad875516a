"""By what questions are judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.catalog.api.base import Part
from registry.errors import ReadOnlyError

if TYPE_CHECKING:
    from registry.types import Calibrated, Calibration

__all__ = ["Judging"]


class Judging(Part):
    """How far unrelated models lie apart."""

    def calibrate(
        self,
        *,
        fingerprint: str = "layered",
        distance: str | None = None,
        rate: float = 0.01,
        seed: int = 0,
        dry_run: bool = False,
    ) -> Calibrated:
        """Learn from the labelled models how far unrelated ones lie apart, and keep it unless ``dry_run``.

        Models of different families are unrelated. The tolerance is the largest at which at most ``rate`` of them pass,
        in (0, 1). Of more than 2,000 labelled models, as many of each family are drawn; ``seed`` is of that and of the
        bootstrap. What is kept holds for this fingerprint and distance until the next, or ``reset_calibration``.

        Raises ``UsageError`` where the labels are too few to show the rate, ``ReadOnlyError`` where it cannot be kept.
        """
        from registry.catalog.arguments import number, whole
        from registry.catalog.calibrating import learn
        from registry.storage.equivalence.stored_calibrations import put_calibration

        rate, seed = number(rate, "rate"), whole(seed, "seed", 0)
        store, by = self._terms(fingerprint, distance, None)
        if dry_run:
            return learn(store, by, rate, seed)
        try:
            store = self._database.writable()
            found = learn(store, by, rate, seed)
            store.write(put_calibration, found.calibration)
        except ReadOnlyError as error:
            remedy = f"{error.remedy}; archreg calibrate --dry-run only shows it"
            raise ReadOnlyError(error.message, remedy) from error
        return found

    def calibration(self, *, fingerprint: str = "layered", distance: str | None = None) -> Calibration:
        """The calibration that answers go by: the registry's own, else the one that ships."""
        return self._terms(fingerprint, distance, None)[1].calibration

    def reset_calibration(self, *, fingerprint: str = "layered", distance: str | None = None) -> Calibration:
        """Forget the registry's own calibration, if it has one; returns the one that ships, which holds from now on."""
        from registry.storage.equivalence.stored_calibrations import drop_calibration

        _, by = self._terms(fingerprint, distance, None)
        self._database.writable().write(drop_calibration, by.spec.hash, by.distance.name)
        return self.calibration(fingerprint=fingerprint, distance=distance)
