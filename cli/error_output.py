"""Error output: one line and a remedy on standard error, and the exit code."""

from __future__ import annotations

import errno
import sys
import traceback

from registry.errors import RegistryError, UsageError

__all__ = ["InterruptionError", "Terminated", "harmless", "renamed_option", "report", "report_unexpected"]

RENAMED = {"--accuracy": ("--tolerance", "--tolerance 0.1"), "--metric": ("--distance", "--distance l1")}
"""Options of earlier versions, with their successors and an example."""

UNEXPECTED = 1
FULL = (errno.ENOSPC, errno.EDQUOT)


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. A KeyboardInterrupt, so that the same code cleans up after both."""


class InterruptionError(RegistryError):
    """The work was interrupted or terminated; what noted how far it came keeps its finished models."""

    exit_code = 130

    def __init__(self, cause: KeyboardInterrupt) -> None:
        terminated = isinstance(cause, Terminated)
        reached = "".join(f": {note}" for note in getattr(cause, "__notes__", ()))
        super().__init__(
            ("terminated" if terminated else "interrupted") + reached,
            "finished work is kept; run the same command again to continue" if reached else None,
        )
        if terminated:
            self.exit_code = 143


def renamed_option(error: Exception) -> UsageError | None:
    """The error for an unknown option that was renamed; None for any other error."""
    # Click's NoSuchOption, told by its attribute: Typer's Click is private in some versions and public in others.
    name = getattr(error, "option_name", "")
    if name not in RENAMED:
        return None
    new, example = RENAMED[name]
    return UsageError(f"{name} is now {new}", f"write {example}")


def harmless(text: str) -> str:
    r"""Return ``text`` with unprintable characters escaped: ESC becomes ``\x1b``, a line feed ``\n``.

    `str.isprintable` rejects control characters, bidirectional and zero-width marks, lone surrogates and unassigned
    characters.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def report(error: RegistryError, *, about: str = "", debug: bool = False) -> int:
    """Write ``error`` to standard error and return its exit code; prefix ``about`` unless the message names it."""
    if debug:
        traceback.print_exception(error)
    prefix = f"{about}: " if about and about not in error.message else ""
    lines = [f"archreg: {prefix}{error.message}"]
    if error.remedy:
        lines.append(f"  {error.remedy}")
    sys.stderr.write("".join(f"{harmless(line)}\n" for line in lines))
    return error.exit_code


def report_unexpected(error: Exception, *, debug: bool) -> int:
    """Write an unexpected error to standard error in one line and return the exit code; ``debug`` adds the traceback.

    A full disk is reported as an ordinary error.
    """
    if isinstance(error, OSError) and error.errno in FULL:
        told = f"{error.filename} cannot be written" if error.filename else "cannot write"
        return report(
            RegistryError(f"{told}: {error.strerror}", "free some disk space and run the command again"), debug=debug
        )
    if debug:
        traceback.print_exception(error)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    sys.stderr.write(f"archreg: unexpected error: {harmless(what)}\n")
    if not debug:
        sys.stderr.write("  run again with ARCHREG_DEBUG=1 and report the traceback\n")
    return UNEXPECTED
