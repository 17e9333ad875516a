"""Reading weights: references, sources, and the matrix rule.

`expand` turns a reference into models; `deferred` turns a refused reference into a model that fails when it is opened.
`open_ref` and `open_module` open a model. `open_headers`, `header_bytes` and `layers_by_header` read headers only.
`plan_weights`, and `plan_headers` of a header alone, apply the matrix rule, `layer_matrix` reads one matrix, and
`discard` removes downloads. Importing this package loads neither torch nor torchvision.
"""

from __future__ import annotations

from registry.sources.array_checkpoint import ArrayCheckpoint
from registry.sources.base import SOURCES, OpenedCheckpoint, Source, discard
from registry.sources.header_preview import header_bytes, layers_by_header
from registry.sources.live_module import open_module
from registry.sources.matrix_rule import MATRIX_RULE, layer_matrix, plan_headers, plan_weights, topology_of
from registry.sources.references import deferred, expand, open_headers, open_ref

__all__ = [
    "MATRIX_RULE",
    "SOURCES",
    "ArrayCheckpoint",
    "OpenedCheckpoint",
    "Source",
    "deferred",
    "discard",
    "expand",
    "header_bytes",
    "layer_matrix",
    "layers_by_header",
    "open_headers",
    "open_module",
    "open_ref",
    "plan_headers",
    "plan_weights",
    "topology_of",
]
