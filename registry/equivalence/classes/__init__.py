"""Equivalence classes: sets of models whose members can replace each other.

``RULES`` has the linkage rules. A new rule is a function that groups rows, and an entry in that table.
"""

from registry.equivalence.classes.class_identity import KEPT_FROM, inherited
from registry.equivalence.classes.groups import Group
from registry.equivalence.classes.linkage_rules import (
    EXACT_UP_TO,
    MAX_COMPLETE,
    RULES,
    Rule,
    rule_for,
    sorted_into_groups,
)

__all__ = [
    "EXACT_UP_TO",
    "KEPT_FROM",
    "MAX_COMPLETE",
    "RULES",
    "Group",
    "Rule",
    "inherited",
    "rule_for",
    "sorted_into_groups",
]
