"""Averages of a model's weights that a trainer stores beside them, in the same state dict.

Lightning modules with an average of their weights have both as submodules: ``model.conv.weight`` beside
``ema_model.conv.weight``, or ``model_ema.convweight`` in latent diffusion, which leaves the dots out. That is one
network and not two.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.sources.effective_weights import TensorView

__all__ = ["skip_averages"]

_AVERAGE = re.compile(r"(?:model_ema|ema_model|ema|swa_model|averaged_model|ema_\w+|\w+_ema)\.")
_WRAPPERS = re.compile(r"^(?:module|ema_model|model)\.")


def skip_averages(view: TensorView) -> None:
    """Leave out the average where each of its matrices has one of its name and shape in the model beside it."""
    firsts = {match[0] for name in view.tensors if (match := _AVERAGE.match(name))}
    for first in sorted(firsts):
        inside = [name for name in view.tensors if name.startswith(first)]
        matrices = {
            name[len(first) :]: view.tensors[name].shape for name in inside if len(view.tensors[name].shape) > 1
        }
        others = [name for name in view.tensors if not name.startswith(first)]
        for above in sorted({name[: name.index(".") + 1] for name in others if "." in name} | {""}):
            beside = {_key(name[len(above) :]): view.tensors[name].shape for name in others if name.startswith(above)}
            if matrices and any(
                all(beside.get(_key(trim(name))) == shape for name, shape in matrices.items())
                for trim in (str, lambda name: _WRAPPERS.sub("", name))
            ):
                for name in inside:
                    view.skip(name, "average of the weights")
                view.notes.append(f"{first[:-1]} is an average of the weights beside it, which are taken")
                break


def _key(name: str) -> str:
    return name.replace(".", "")
