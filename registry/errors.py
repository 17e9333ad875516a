"""Exceptions of the registry.

::

    RegistryError                  base: a one-line message and a remedy; exit code 1
    ├── UsageError                 the request is invalid (also a ValueError); exit code 2
    ├── SourceError                weights could not be read from a reference
    │   ├── NotFoundError          no such reference, path or name
    │   ├── AmbiguousError         a reference or a file has several meanings
    │   ├── UnsafeError            a file was refused: it would run code, escape its folder or exhaust the machine
    │   └── WeightsError           the weights are unusable (not finite, no matrix, quantised)
    ├── SpectrumError              a spectrum, ensemble or fingerprint is undefined for this input (also a ValueError)
    ├── SpecMismatchError          fingerprints of different specs, or spectra of different matrix rules, are compared
    │   └── WeightsNotReadError    a question about spectra of a model of which the header alone was read
    ├── StorageError               a database operation failed
    │   ├── DatabaseMissingError   the database does not exist
    │   ├── SchemaVersionError     the database is older or newer than this program, or of an unknown schema
    │   └── ReadOnlyError          a write to a read-only database or by a read-only role
    ├── NameTakenError             the name belongs to other weights
    ├── UnknownModelError          no stored model has that name (also a KeyError)
    ├── UnknownClassError          no class or partition that is kept has that identity or number
    ├── EmptyRegistryError         the registry holds nothing that could answer
    └── UnmetError                 what was required does not hold; exit code 4
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

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
    "UnmetError",
    "UnsafeError",
    "UsageError",
    "WeightsError",
    "WeightsNotReadError",
]


class RegistryError(Exception):
    """Base of all exceptions that the registry raises on purpose.

    ``message`` says in one line what is wrong with which value. ``remedy``, which may be None, says what to do next.
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
    """The request is invalid, such as an option out of range or two options that exclude each other."""

    exit_code = 2


class SourceError(RegistryError):
    """Weights could not be read from a reference."""


class NotFoundError(SourceError):
    """The reference or path does not exist."""


class AmbiguousError(SourceError):
    """A reference or a file has several meanings; none is guessed.

    ``choices``: of a file that holds several models, the keys that choose one; else empty.
    """

    def __init__(self, message: str, remedy: str | None = None, choices: Iterable[str] = ()) -> None:
        super().__init__(message, remedy)
        self.choices = tuple(choices)


class UnsafeError(SourceError):
    """A file was refused, because reading it would run code, leave its folder or exhaust the machine."""


class WeightsError(SourceError):
    """The weights are unusable: not finite, without a usable matrix, or quantised to integers."""


class SpectrumError(RegistryError, ValueError):
    """A spectrum, reference ensemble or fingerprint is undefined for this input."""


class SpecMismatchError(RegistryError):
    """Fingerprints of different specs, or spectra of different matrix rules, are compared."""


class WeightsNotReadError(SpecMismatchError):
    """A question needs the spectra of a model of which the header alone was read."""


class StorageError(RegistryError):
    """A database operation failed: the database cannot be opened, reached, read or written."""


class DatabaseMissingError(StorageError):
    """The database does not exist, and this request does not create it."""


class SchemaVersionError(StorageError):
    """The schema of the database is older or newer than this program's, or unknown."""


class ReadOnlyError(StorageError):
    """A write was requested on a read-only database or file, or by a read-only role."""


class NameTakenError(RegistryError):
    """The name already belongs to other weights."""


class UnknownModelError(RegistryError, KeyError):
    """No stored model has that name; also a ``KeyError``, for ``reg[name]``."""


class UnknownClassError(RegistryError):
    """No stored class has that identity, or no stored partition that number."""


class EmptyRegistryError(RegistryError):
    """The registry has no models to answer from."""


class UnmetError(RegistryError):
    """What was required does not hold. Commands raise it after their answer; methods of ``Registry`` return theirs."""

    exit_code = 4
