"""Conversion of driver errors to one line without passwords, and a remedy."""

from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from registry.errors import ReadOnlyError, StorageError

if TYPE_CHECKING:
    from registry.storage.engine.address import Address

__all__ = ["is_conflict", "is_passing", "wrapped"]

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRES = {
    "28P01": "check the user and the password",
    "25P03": "raise idle_in_transaction_session_timeout and run it again",
    "25P04": "raise transaction_timeout and run it again",
    "28000": "check the user and the password, and what pg_hba.conf lets in",
    "3D000": "create the database first: createdb NAME",
    "3F000": "create the schema that search_path names, or set another search_path",
    "40001": "others changed the same rows, here or on the server that this one follows: run it again",
    "40P01": "others were at work on the same rows: run it again",
    "42501": "ask the owner of the database for the privilege",
    "42P07": "that is no registry's: give it a schema of its own, by ?options=-csearch_path%3DSCHEMA at the URL's end",
    "53100": "free some disk space and run it again",
    "53300": "wait for other clients to finish, or raise max_connections",
    "55P03": "wait for the other writer and run it again",
    "57014": "raise statement_timeout and run it again",
    "57P03": "wait until the server has started and run it again",
}
# https://www.sqlite.org/rescode.html
_SQLITE = {
    sqlite3.SQLITE_BUSY: "another process is writing; run it again when it is done",
    sqlite3.SQLITE_CANTOPEN: "check the file's and its folder's permissions",
    sqlite3.SQLITE_CORRUPT: "restore the file from a copy",
    sqlite3.SQLITE_FULL: "free some disk space and run it again",
    sqlite3.SQLITE_IOERR: "check the disk; SQLite needs a local file system",
    sqlite3.SQLITE_NOTADB: "name another file",
}
_CONFLICTS = ("40001", "40P01")  # serialization failure, deadlock
_PASSING = ("57P01", "57P02", "57P03", "53300")  # shut down, crashed, starting up, too many connections
# What the server says to those whom it does not let in: the driver passes on the words, and no state.
_WORDS = {
    "authentication failed": "28P01",
    "no pg_hba.conf entry": "28000",
    "is not permitted to log in": "28000",
    "remaining connection slots": "53300",
    "too many c": "53300",  # clients; connections for role, for database
    "is starting up": "57P03",
    "is shutting down": "57P03",
    "in recovery mode": "57P03",
}
_MISSING = {"database": "3D000", "role": "28000"}
_REFUSALS = ("28P01", "28000", "3D000")


def is_conflict(error: DBAPIError) -> bool:
    """Whether a concurrent writer caused the error, so that a retry of the transaction can succeed."""
    return isinstance(error, IntegrityError) or getattr(error.orig, "sqlstate", None) in _CONFLICTS


def is_passing(error: DBAPIError) -> bool:
    """Whether the error can pass: a lost connection, a restart of the server, or a busy file."""
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    state = getattr(cause, "sqlstate", None)
    if state is not None:
        return state.startswith("08") or state in _PASSING
    # The driver gives no state where there was no answer, nor where the server refused to let anybody in.
    words = str(cause)
    refused = _state_of(words) in _REFUSALS or "could not translate host name" in words
    return isinstance(error, OperationalError) and not refused


def wrapped(error: Exception, address: Address, *, writing: bool = False) -> StorageError:
    """Return the error to raise for a driver error.

    Parameters
    ----------
    error : Exception
        What SQLAlchemy or a driver raised.
    address : Address
        Where; its password is taken out of the message.
    writing : bool
        Whether a write was under way: then a missing privilege makes it a `ReadOnlyError`.
    """
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    text = address.redacted(lines[0])
    message = f"{address.label}: {text}"
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_READONLY:
            return ReadOnlyError(message, "make the file and its folder writable, or write to a copy")
        return StorageError(message, _SQLITE.get(code))
    state = getattr(cause, "sqlstate", None)
    if state == "42501" and text.startswith("must be owner"):
        return ReadOnlyError(message, "connect as its owner")
    if state == "25006" or (state == "42501" and writing):
        return ReadOnlyError(message, "connect as a role, and to a server, that may write")
    if state is None and (state := _state_of(text)) is None:
        if "definition of service" in text:
            return StorageError(message, "name one of the file that PGSERVICEFILE names, else ~/.pg_service.conf")
        if "unsupported startup parameter" in text:
            return StorageError(message, "a pooler takes none; for a schema: ALTER ROLE NAME SET search_path = SCHEMA")
        if "connection" in text or "resolve host" in text:
            return StorageError(message, "check that the server runs and that host and port are right")
    return StorageError(message, _POSTGRES.get(state or ""))


def _state_of(words: str) -> str | None:
    """The SQLSTATE of a refused connection, derived from its text."""
    found = re.search(r'FATAL: +(database|role) "[^"]*" does not exist', words)
    if found is not None:
        return _MISSING[found[1]]
    return next((state for part, state in _WORDS.items() if part in words), None)
