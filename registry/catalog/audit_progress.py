"""Progress of a long audit in a file: what was found in each model, by its content, one line of JSON each."""

from __future__ import annotations

import json
from dataclasses import astuple
from typing import TYPE_CHECKING, Any, Self

from registry.audit import Judgement, Lack
from registry.errors import RegistryError, UsageError
from registry.types import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import TextIO

__all__ = ["AuditProgress"]

FORMAT = 1


class AuditProgress:
    """A file of judgements, read at first and then appended to; a line that was cut off counts as none.

    Raises ``UsageError`` where the file is that of another audit, or of none; ``RegistryError`` where it cannot be
    read or written.
    """

    def __init__(self, path: Path, registry: str, rules: Sequence[str]) -> None:
        self._path = path
        self._head = {"audit": FORMAT, "registry": registry, "rules": list(rules)}
        self._known: dict[str, Judgement] = {}
        try:
            whole = self._read(path.read_text(encoding="utf-8")) if path.exists() else ""
            self._file: TextIO = path.open("a", encoding="utf-8")
            if path.stat().st_size > len(whole.encode()):
                self._file.truncate(len(whole.encode()))
            if not whole:
                self._write(self._head)
        except (OSError, UnicodeDecodeError) as error:
            raise RegistryError(
                f"{path} cannot be used for the progress of an audit: {error}", "name another"
            ) from error

    def _read(self, text: str) -> str:
        """Take over what the lines say; return those that are whole."""
        lines = text.splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            lines.pop()
        if not lines:
            if text:
                raise self._other()
            return ""
        try:
            head, *rows = map(json.loads, lines)
            if head != self._head:
                raise self._other()
            for row in rows:
                self._known[row["model"]] = Judgement(
                    tuple(Finding(*each) for each in row["findings"]),
                    tuple((rule, Lack(*lack)) for rule, lack in row["lacks"]),
                )
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise self._other() from error
        return "".join(lines)

    def _other(self) -> UsageError:
        return UsageError(
            f"{self._path} is not the progress of this audit", "name another file, or delete it to start again"
        )

    def known(self, content: str, name: str) -> Judgement | None:
        """What was found in a model, by its content hash, under the name it had; None if it was not audited."""
        found = self._known.get(content)
        return found if found is not None and all(each.model == name for each in found.findings) else None

    def keep(self, content: str, judgement: Judgement) -> None:
        """Append what was found in a model."""
        findings = [astuple(each) for each in judgement.findings]
        self._write({"model": content, "findings": findings, "lacks": judgement.lacks})

    def _write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None:  # finished: nothing is left to continue
            self._path.unlink(missing_ok=True)
