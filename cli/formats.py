"""``archreg formats``."""

from __future__ import annotations

from registry.cli import json_output, tables
from registry.cli.options import AsJson

__all__ = ["formats"]


def formats(as_json: AsJson = False) -> None:
    """List the formats of weights files that are recognised, those that are read, and how to convert the others.

    Files are recognised by their content; names and suffixes do not matter. Some formats need libraries of their own:
    pip install 'architecture-registry[EXTRA]'.
    """
    from registry.sources.recognition import KINDS

    kinds = sorted(KINDS, key=lambda kind: (not kind.source, kind.name))
    if as_json:
        known = [
            {"format": k.name, "read": bool(k.source), "source": k.source, "extra": k.extra, "remedy": k.remedy}
            for k in kinds
        ]
        json_output.write({"formats": known})
        return
    rows = [(kind.name, "yes" if kind.source else "no", kind.extra, kind.remedy) for kind in kinds]
    tables.table(("format", "read", "extra", "instead"), rows)
