"""Everything the registry raises on purpose.

::

    RegistryError                  one line for the user, a remedy beside it; exit code 1
    ├── UsageError                 the request itself is wrong (also a ValueError); exit code 2
    ├── SourceError                weights could not be had from a reference
    │   ├── NotFoundError          nothing is there under that reference, path or name
    │   ├── AmbiguousError         a reference or a file could mean two things
    │   ├── UnsafeError            a file was refused: it would run code, escape its folder or exhaust the machine
    │   └── WeightsError           the weights were read and cannot be used (not finite, no matrix, quantised)
    ├── SpectrumError              a spectrum, ensemble or fingerprint is undefined for this input (also a ValueError)
    ├── SpecMismatchError          fingerprints of different specs, or spectra of different matrix rules, do not compare
    ├── StorageError               the database refused
    │   ├── DatabaseMissingError   no database is there yet
    │   ├── SchemaVersionError     the database is older or newer than this program, or has a schema of neither
    │   └── ReadOnlyError          a write to a database or by a role that may only read
    ├── NameTakenError             the name belongs to other weights
    ├── UnknownModelError          no stored model has that name (also a KeyError)
    ├── UnknownClassError          no class or partition that is kept has that identity or number
    └── EmptyRegistryError         the registry holds nothing that could answer
"""

from __future__ import annotations

__all__ = [
    "AmbiguousError",
    "DatabaseMissingError",
    "EmptyRegistryError",
    "NameTakenError",
    "NotFoundError",
    "ReadOnlyError",
    "RegistryError",
    "SchemaVersionError",
    "SourceError",
    "SpecMismatchError",
    "SpectrumError",
    "StorageError",
    "UnknownClassError",
    "UnknownModelError",
    "UnsafeError",
    "UsageError",
    "WeightsError",
]


class RegistryError(Exception):
    """Base of every deliberate error.

    ``message`` says in one line what is wrong, naming the value; ``remedy``, where there is one, says what to do next.
    ``str(error)`` joins the two.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


class UsageError(RegistryError, ValueError):
    """The request itself is wrong: an option out of range, two options that exclude each other."""

    exit_code = 2


class SourceError(RegistryError):
    """Weights could not be had from a reference."""


class NotFoundError(SourceError):
    """Nothing is there under that reference or path."""


class AmbiguousError(SourceError):
    """A reference or a file could mean two things, and guessing is refused."""


class UnsafeError(SourceError):
    """A file was refused because reading it would run code, leave its folder or exhaust the machine."""


class WeightsError(SourceError):
    """The weights were read and cannot be used: not finite, no usable matrix, quantised to integers."""


class SpectrumError(RegistryError, ValueError):
    """A spectrum, reference ensemble or fingerprint is undefined for this input."""


class SpecMismatchError(RegistryError):
    """Fingerprints of different specs, or spectra of different matrix rules, were to be compared."""


class StorageError(RegistryError):
    """The database refused: cannot be opened, reached, read or written."""


class DatabaseMissingError(StorageError):
    """No database is there yet, and this request does not create one."""


class SchemaVersionError(StorageError):
    """The database's schema is older or newer than this program's, or recorded as none of its revisions."""


class ReadOnlyError(StorageError):
    """A write was asked of a database, file or role that may only be read."""


class NameTakenError(RegistryError):
    """The name already belongs to other weights."""


class UnknownModelError(RegistryError, KeyError):
    """No stored model has that name; also a ``KeyError``, for ``reg[name]``."""


class UnknownClassError(RegistryError):
    """No class that is kept has that identity, or no partition that number."""


class EmptyRegistryError(RegistryError):
    """The registry holds nothing that could answer."""
