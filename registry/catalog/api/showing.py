"""What is stored, and pictures of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.catalog.api.base import Part, filter_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from registry.plots import Axes
    from registry.spectral.cumulatives import Scale
    from registry.types import ModelDetails, ModelSummary, Spectrum, Stats

__all__ = ["Showing"]


class Showing(Part):
    """Models, their details, their spectra, and pictures."""

    def models(self, **filters: Any) -> list[ModelSummary]:
        """The stored models that pass the filters, by name."""
        from registry.storage.models.summaries import read_summaries

        return self._database.readable().read(read_summaries, filter_of(filters))

    def unmatched(self, **filters: Any) -> dict[str, tuple[str, ...]]:
        """Each text of the filters that no model has, by its field, with up to three known ones spelt nearly so.

        What a question whose answer is empty is asked next: ``{"family": ("resnet",)}`` for the family ``resnt``; empty
        where each alone has its models. Raises ``EmptyRegistryError`` where nothing is stored. O(n).
        """
        from registry.catalog.unmatched import unmatched

        return unmatched(self._database.readable(), filter_of(filters))

    def show(self, name: str) -> ModelDetails:
        """Everything stored of one model. Raises ``UnknownModelError`` with near names."""
        from registry.catalog.model_details import details

        return details(self._database.readable(), name)

    def spectrum(self, name: str) -> tuple[Spectrum, ...]:
        """The stored spectra of one model, by layer in depth order.

        Raises ``UnknownModelError``, or ``SpecMismatchError`` where the model was ingested without its spectra.
        """
        from registry.catalog.model_details import stored_spectra

        return stored_spectra(self._database.readable(), name)

    def plot_csd(
        self,
        names: str | Sequence[str],
        file: str | Path,
        *,
        scale: Scale = "full",
        reference: str = "cue",
        seed: int | None = None,
        axes: Axes = "both",
        x_max: float | None = None,
        title: str = "",
    ) -> None:
        """Draw cumulative spectral differences of one to 8 stored models into a PNG, SVG or PDF file.

        ``reference``: a name of ``registry.ensembles.REFERENCES``: its expectation, or one member by its ``seed``.
        Raises ``UsageError``, what ``spectrum`` raises, or ``RegistryError`` where the file cannot be written or
        Matplotlib is missing.
        """
        from registry.catalog.arguments import path
        from registry.catalog.plotting import picture_differences
        from registry.plots import check_picture, plot_difference

        picture_file = path(file, "file")
        check_picture(picture_file)
        store = self._database.readable()
        picture = picture_differences(store, names, scale=scale, reference=reference, sample=seed, x_max=x_max)
        plot_difference(picture, picture_file, axes=axes, title=title)

    def plot_spectrum(self, name: str, file: str | Path, *, title: str = "") -> None:
        """Draw the spectrum of one stored model by depth into a PNG, SVG or PDF file. Raises as ``plot_csd``."""
        from registry.catalog.arguments import path
        from registry.catalog.plotting import picture_spectrum
        from registry.plots import check_picture, plot_spectrum

        picture_file = path(file, "file")
        check_picture(picture_file)
        plot_spectrum(picture_spectrum(self._database.readable(), name), picture_file, title=title)

    def stats(self) -> Stats:
        """What the registry holds."""
        from registry.storage.models.model_queries import read_stats

        return self._database.readable().read(read_stats)
