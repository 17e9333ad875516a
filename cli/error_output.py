"""How errors leave the program: one line and a remedy on standard error, and an exit code."""

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
    """SIGTERM arrived; a KeyboardInterrupt, so that whatever cleans up after one cleans up after the other."""


class InterruptionError(RegistryError):
    """The work was cut short from outside; what was finished is stored."""

    exit_code = 130

    def __init__(self, cause: KeyboardInterrupt) -> None:
        terminated = isinstance(cause, Terminated)
        reached = "".join(f": {note}" for note in getattr(cause, "__notes__", ()))
        super().__init__(
            ("terminated" if terminated else "interrupted") + reached,
            "what was finished is kept; run the same command again to go on",
        )
        if terminated:
            self.exit_code = 143


def renamed_option(error: Exception) -> UsageError | None:
    """What to say of an option that a command does not have, where it is one that was renamed; else None."""
    # Click's NoSuchOption, by its attribute: Typer's click is private to it in some versions and public in others.
    name = getattr(error, "option_name", "")
    if name not in RENAMED:
        return None
    new, example = RENAMED[name]
    return UsageError(f"{name} is now {new}", f"write {example}")


def harmless(text: str) -> str:
    r"""``text`` with everything a terminal could act on spelt out: ESC becomes ``\x1b``, a line feed ``\n``.

    Control characters, bidirectional and zero-width marks, lone surrogates and unassigned characters are all that
    `str.isprintable` denies.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def report(error: RegistryError, *, about: str = "", debug: bool = False) -> int:
    """Write ``error`` to standard error, behind ``about`` unless its message names that; return its exit code."""
    if debug:
        traceback.print_exception(error)
    prefix = f"{about}: " if about and about not in error.message else ""
    lines = [f"archreg: {prefix}{error.message}"]
    if error.remedy:
        lines.append(f"  {error.remedy}")
    sys.stderr.write("".join(f"{harmless(line)}\n" for line in lines))
    return error.exit_code


def report_unexpected(error: Exception, *, debug: bool) -> int:
    """Write a bug's error to standard error in one line, its traceback before it if ``debug``; return the exit code.

    A full disk is none: the output's, say.
    """
    if isinstance(error, OSError) and error.errno in FULL:
        told = f"{error.filename} cannot be written" if error.filename else "cannot write"
        return report(RegistryError(f"{told}: {error.strerror}", "free some disk space and run it again"), debug=debug)
    if debug:
        traceback.print_exception(error)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    sys.stderr.write(f"archreg: unexpected error: {harmless(what)}\n")
    if not debug:
        sys.stderr.write("  run again with ARCHREG_DEBUG=1 and report the traceback\n")
    return UNEXPECTED
