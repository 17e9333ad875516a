"""Where weights come from, and which matrices are taken from them.

`expand` turns a reference into models, `deferred` a refused one into one that fails when it is opened;
`layers_by_header` and `largest_tensor` look at one, `open_ref` and `open_module` open one, `plan_weights` applies the
matrix rule, `layer_matrix` reads one matrix, `discard` removes what was downloaded. Importing this loads neither torch
nor torchvision.
"""

from __future__ import annotations

from registry.sources.header_preview import largest_tensor, layers_by_header
from registry.sources.live_module import open_module
from registry.sources.matrix_rule import MATRIX_RULE, layer_matrix, plan_weights, topology_of
from registry.sources.references import deferred, expand, open_ref
from registry.sources.source_table import SOURCES, SUFFIXES, discard

__all__ = [
    "MATRIX_RULE",
    "SOURCES",
    "SUFFIXES",
    "deferred",
    "discard",
    "expand",
    "largest_tensor",
    "layer_matrix",
    "layers_by_header",
    "open_module",
    "open_ref",
    "plan_weights",
    "topology_of",
]
