"""``archreg classes``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.cli import jsonout, tables, verdicts
from registry.cli.options import AsJson, Database, filters, open_registry, question, with_options

if TYPE_CHECKING:
    from registry.types import Partition

__all__ = ["classes"]

MEMBERS_SHOWN = 8


@with_options(question=question, filters=filters)
def classes(
    db: Database = None,
    as_json: AsJson = False,
    *,
    question: dict[str, Any],
    filters: dict[str, Any],
) -> None:
    """Sort the models into classes within which every two are equivalent within the accuracy."""
    with open_registry(db) as registry:
        partition = registry.classes(**question, **filters)
    if as_json:
        jsonout.write(jsonout.classes(partition))
        return
    _show_classes(partition)


def _show_classes(partition: Partition) -> None:
    several = [c for c in partition.classes if len(c.members) > 1]
    alone = len(partition.classes) - len(several)
    tables.say(
        f"{tables.whole(partition.models)} models, {len(several)} classes of several, {alone} models alone: "
        + verdicts.basis(partition.spec, partition.metric, partition.accuracy)
    )
    if several:
        rows = [
            (
                c.medoid,
                str(len(c.members)),
                tables.number(c.diameter),
                f"{c.training_class} {c.tail_class}",
                _members(c),
            )
            for c in several
        ]
        tables.table(("around", ">models", ">diameter", "classes", "members"), rows)
    pairs = partition.models * (partition.models - 1) // 2
    noun = "pairs, were all unrelated"
    tables.say(verdicts.judged(partition.accuracy, partition.rate, pairs, partition.calibration, noun))


def _members(group: Any) -> str:
    names = [member.name for member in group.members]
    more = f" and {len(names) - MEMBERS_SHOWN} more" if len(names) > MEMBERS_SHOWN else ""
    return ", ".join(names[:MEMBERS_SHOWN]) + more
