"""Short representations of values, for notebooks and logs."""

from __future__ import annotations

from dataclasses import fields

__all__ = ["Shown"]


class Shown:
    """A dataclass whose representation leaves out fields with default values and with ``repr=False``."""

    __slots__ = ()

    def __repr__(self) -> str:
        """The constructor call with the remaining fields."""
        known = ((field.name, getattr(self, field.name), field) for field in fields(self) if field.repr)  # type: ignore[arg-type]
        told = ", ".join(f"{name}={value!r}" for name, value, field in known if value != field.default)
        return f"{type(self).__name__}({told})"
