"""How values show themselves where they are looked at one by one: in a notebook, in a log."""

from __future__ import annotations

from dataclasses import fields

__all__ = ["Shown"]


class Shown:
    """A dataclass that shows what is known of it: no field that is as by default, and none of ``repr=False``."""

    __slots__ = ()

    def __repr__(self) -> str:
        """As it would be made, but for what is left out."""
        known = ((field.name, getattr(self, field.name), field) for field in fields(self) if field.repr)  # type: ignore[arg-type]
        told = ", ".join(f"{name}={value!r}" for name, value, field in known if value != field.default)
        return f"{type(self).__name__}({told})"
