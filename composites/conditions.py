"""Edge conditions and joins as a table of small pure functions. (spec 3.4)

``satisfies`` says what one edge thinks of its source's outcome; ``decide`` what a join makes of all its edges.
The truth table in ``docs/joins.md`` is generated from here and checked exhaustively up to five parents.

=============  ===================================================  =========================================
join           starts when                                          can no longer start when
=============  ===================================================  =========================================
all            every edge is satisfied                              one edge is not
any            one edge is satisfied                                no edge is
all_done       every source is terminal                             never
none_failed    every source is terminal and none failed             one source failed
any_failed     one source failed                                    every source is terminal and none failed
at_least(n)    n edges are satisfied                                fewer than n can still be
expression     every source is terminal and it is true              every source is terminal and it is false
=============  ===================================================  =========================================

``all_done``, ``none_failed``, ``any_failed`` and expressions look at outcomes, not at edge conditions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final, Literal

from taskcenter.errors import ExpressionError
from taskcenter.status import StepStatus

from .expressions import Expression
from .expressions import parse as parse_expression

__all__ = [
    "CONDITIONS",
    "EdgeState",
    "Join",
    "Tally",
    "Verdict",
    "decide",
    "parse_condition",
    "parse_join",
    "satisfies",
]

CONDITIONS: Final[dict[str, frozenset[StepStatus]]] = {
    "success": frozenset({StepStatus.SUCCESS}),
    "failed": frozenset({StepStatus.FAILED}),
    "done": frozenset({StepStatus.SUCCESS, StepStatus.FAILED}),
    "skipped": frozenset({StepStatus.SKIPPED}),
    "always": frozenset({StepStatus.SUCCESS, StepStatus.FAILED, StepStatus.SKIPPED}),
}
NAMED_JOINS: Final = ("all", "any", "all_done", "none_failed", "any_failed")
OUTCOME_JOINS: Final = frozenset({"all_done", "none_failed", "any_failed", "expression"})
"""Joins that look at outcomes and not at edge conditions."""
_AT_LEAST = re.compile(r"^at_least\(\s*(\d{1,5})\s*\)$")
_LOOKS_LIKE_EXPRESSION = re.compile(r"[^A-Za-z0-9_\s()]|\b(?:and|or|not|in)\b")


class EdgeState(StrEnum):
    """What an edge thinks: its source is not terminal yet, or satisfies it, or does not."""

    OPEN = "open"
    SATISFIED = "satisfied"
    UNSATISFIED = "unsatisfied"


class Verdict(StrEnum):
    """What a join makes of its edges."""

    WAIT = "wait"
    READY = "ready"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Join:
    """``kind`` is a name of NAMED_JOINS, ``at_least`` (with ``count``) or ``expression``."""

    kind: str
    count: int = 0
    expression: Expression | None = None


@dataclass(slots=True)
class Tally:
    """What the edges into one step have said so far. Counting makes a join O(1) per finished source."""

    edges: int = 0
    satisfied: int = 0
    unsatisfied: int = 0
    failed: int = 0

    @property
    def open(self) -> int:
        return self.edges - self.satisfied - self.unsatisfied


@lru_cache(maxsize=4096)
def parse_join(text: str) -> Join:
    """Raises ExpressionError when ``text`` is neither a known join nor an expression."""
    text = text.strip()
    if text in NAMED_JOINS:
        return Join(text)
    if (found := _AT_LEAST.match(text)) is not None:
        return Join("at_least", count=int(found.group(1)))
    if not _LOOKS_LIKE_EXPRESSION.search(text):
        known = ", ".join((*NAMED_JOINS, "at_least(n)"))
        raise ExpressionError(
            f"unknown join {text!r}; known: {known}, or an expression such as 'a.success and not b.failed'"
        )
    return Join("expression", expression=parse_expression(text))


@lru_cache(maxsize=4096)
def parse_condition(text: str) -> str | Expression:
    """A name of CONDITIONS, or an expression on ``result``; raises ExpressionError otherwise."""
    text = text.strip()
    if text in CONDITIONS:
        return text
    if "result" not in text:
        known = ", ".join(CONDITIONS)
        raise ExpressionError(
            f"unknown condition {text!r}; known: {known}, or an expression such as 'result.totalRows > 0'"
        )
    return parse_expression(text)


def satisfies(condition: str, status: StepStatus) -> bool:
    """Whether a source that ended with ``status`` satisfies a named condition."""
    return status in CONDITIONS[condition]


def decide(join: Join, tally: Tally) -> Verdict | Literal["evaluate"]:
    """What the join says now. ``evaluate``: all sources are terminal and the expression must be asked."""
    done = tally.open == 0
    match join.kind:
        case "all":
            ready, never = done and tally.unsatisfied == 0, tally.unsatisfied > 0
        case "any":
            ready, never = tally.satisfied > 0, done
        case "at_least":
            ready, never = tally.satisfied >= join.count, tally.satisfied + tally.open < join.count
        case "all_done":
            ready, never = done, False
        case "none_failed":
            ready, never = done and tally.failed == 0, tally.failed > 0
        case "any_failed":
            ready, never = tally.failed > 0, done
        case _:
            return "evaluate" if done else Verdict.WAIT
    return Verdict.READY if ready else Verdict.NEVER if never else Verdict.WAIT
