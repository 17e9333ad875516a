"""The fingerprint ``shapes`` of a layout, as an ingest of its header alone gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from registry.catalog.measuring import measure_headers
from registry.errors import WeightsError
from registry.sources import plan_headers
from registry.sources.base import OpenedCheckpoint
from registry.sources.header_only import HeaderCheckpoint
from registry.types import ModelFacts, ModelRef, TensorInfo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from registry.types import ArchitectureTensor

__all__ = ["vector_of"]

FINGERPRINT = "shapes"


class _Tensors(OpenedCheckpoint):
    """Names and shapes without values."""

    def _refuse(self, name: str) -> NoReturn:
        raise WeightsError(f"{name} has no values here")

    def read(self, name: str) -> NoReturn:
        """There are no values."""
        self._refuse(name)

    def raw(self, name: str) -> NoReturn:
        """There are no values."""
        self._refuse(name)


def vector_of(
    tensors: Sequence[ArchitectureTensor], classes: int | None, channels: int | None, config: Mapping[str, Any]
) -> tuple[str, str]:
    """The vector in half precision as hexadecimal digits, and why there is none; one of the two is empty.

    Parameters
    ----------
    tensors
        Of a layout; tied ones count once.
    classes, channels
        The numbers that its symbolic extents follow.
    config
        What ``config.json`` beside the weights says.
    """
    infos = [
        TensorInfo(one.name, "float32" if one.floating else "int64", one.sized(classes, channels)) for one in tensors
    ]
    facts = ModelFacts(config=config, aliases={one.name: one.tied for one in tensors if one.tied})
    ref = ModelRef("safetensors", "catalogue", "catalogue")
    try:
        with HeaderCheckpoint(_Tensors(ref, infos, facts)) as checkpoint:
            measured = measure_headers(plan_headers(checkpoint))
    except WeightsError as error:
        return "", str(error)
    [vector] = [one.vector for one in measured.fingerprints if one.spec.name == FINGERPRINT]
    return np.asarray(vector, "<f2").tobytes().hex(), ""
