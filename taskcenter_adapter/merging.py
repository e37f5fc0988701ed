"""What becomes of a row when another report about the same run or step arrives: one table of rules.

Reports come late, twice and out of order, from the recorder, the reconciler and the scheduler. The memory store
follows the rules with :func:`merge`; the SQL store has the same rules compiled into its upsert
(``store_sql``); one contract suite holds both to the same answers. (spec 5.1, 6.2)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from taskcenter.status import (
    RUN_TRANSITIONS,
    STEP_TRANSITIONS,
    TERMINAL_RUN,
    TERMINAL_STEP,
    RunPhase,
    RunStatus,
)

from .rows import Row

__all__ = ["LOST", "RUN_RULES", "STEP_RULES", "Keep", "Move", "Rules", "merge"]

LOST: Final = "lost"
"""The error type of a step that was closed because nobody reported its end."""


class Keep(StrEnum):
    """Which value a column keeps when an accepted report meets a row that is not final."""

    FIRST = "first"
    """The first one that was known: when it was created, when it started."""
    KNOWN = "known"
    """The newest one that is known: a report that does not know it does not take it away."""
    LATEST = "latest"
    """What the report says."""
    STATE = "state"
    """What belongs to a state: as reported when the status moves, else the newest that is known."""
    LARGER = "larger"
    """The larger number: attempts are never taken back."""


@dataclass(frozen=True)
class Move:
    """One allowed move of the status; with ``phase`` only for a report that says this phase."""

    source: str
    target: str
    phase: str | None = None


@dataclass(frozen=True)
class Rules:
    key: tuple[str, ...]
    terminal: frozenset[str]
    moves: tuple[Move, ...]
    """Moves to another status. Staying is always allowed, and a final row that stays only fills what is empty."""
    keep: Mapping[str, Keep]
    blanks: frozenset[str]
    """Text columns that are never null, where an empty text means: not known."""
    guess: tuple[str, str] | None = None
    """Column and word of a final row that nobody reported: a report of the end, however late, takes its place."""


RUN_RULES = Rules(
    key=("id",),
    terminal=frozenset(status.value for status in TERMINAL_RUN),
    moves=tuple(
        # A run goes back to the queue only for another try of its own; every other such report is an old one.
        Move(source.value, target.value, RunPhase.AWAITING_RETRY.value)
        if (source, target) == (RunStatus.RUNNING, RunStatus.QUEUED)
        else Move(source.value, target.value)
        for source, targets in RUN_TRANSITIONS.items()
        for target in sorted(targets)
    ),
    keep={
        "task_id": Keep.KNOWN,
        "task_slug": Keep.KNOWN,
        "task_type": Keep.KNOWN,
        "task_revision": Keep.KNOWN,
        "trigger_id": Keep.KNOWN,
        "origin": Keep.LATEST,
        "status": Keep.LATEST,
        "phase": Keep.LATEST,
        "attempt": Keep.LATEST,
        "total_attempts": Keep.LATEST,
        "root_run_id": Keep.KNOWN,
        "resumed_from": Keep.KNOWN,
        "dry_run": Keep.LATEST,
        "name": Keep.KNOWN,
        "slot": Keep.KNOWN,
        "created_at": Keep.FIRST,
        "started_at": Keep.FIRST,
        "finished_at": Keep.KNOWN,
        "duration_ms": Keep.KNOWN,
        "message": Keep.STATE,
        "error": Keep.STATE,
        "result": Keep.KNOWN,
        "plan_hash": Keep.KNOWN,
        "prefect_state": Keep.KNOWN,
        "batch_id": Keep.KNOWN,
        "batch_item": Keep.KNOWN,
    },
    blanks=frozenset({"task_slug", "task_type", "root_run_id", "name"}),
)

STEP_RULES = Rules(
    key=("run_id", "step_key"),
    terminal=frozenset(status.value for status in TERMINAL_STEP),
    moves=tuple(
        Move(source.value, target.value) for source, targets in STEP_TRANSITIONS.items() for target in sorted(targets)
    ),
    keep={
        "name": Keep.KNOWN,
        "task_type": Keep.KNOWN,
        "position": Keep.LATEST,
        "wave": Keep.LATEST,
        "status": Keep.LATEST,
        "attempts": Keep.LARGER,
        "started_at": Keep.FIRST,
        "finished_at": Keep.KNOWN,
        "duration_ms": Keep.KNOWN,
        "execution": Keep.KNOWN,
        "error": Keep.STATE,
        "error_type": Keep.STATE,
        "reason": Keep.STATE,
        "reused": Keep.LATEST,
        "prefect_task_run_id": Keep.KNOWN,
    },
    blanks=frozenset({"name", "task_type"}),
    guess=("error_type", LOST),
)


def merge(rules: Rules, old: Row | None, new: Row) -> Row | None:
    """The row after the report ``new``, or None when the report changes nothing because its move is not allowed."""
    if old is None:
        return dict(new)
    moved = old["status"] != new["status"]
    corrected = _corrects(rules, old, new)
    if (
        moved
        and not corrected
        and not any(
            move.source == old["status"]
            and move.target == new["status"]
            and (move.phase is None or move.phase == new["phase"])
            for move in rules.moves
        )
    ):
        return None
    final = old["status"] in rules.terminal and not corrected
    if final and rules.guess is not None and new[rules.guess[0]] == rules.guess[1]:
        return None  # whoever believed so did not know better
    moved = moved or corrected
    merged = dict(old)
    for name, keep in rules.keep.items():
        unknown = (None, "") if name in rules.blanks else (None,)
        before, after = old[name], new[name]
        if final or keep is Keep.FIRST:
            merged[name] = after if before in unknown else before
        elif keep is Keep.LATEST or (keep is Keep.STATE and moved):
            merged[name] = after
        elif keep is Keep.LARGER:
            merged[name] = max(before, after)
        else:
            merged[name] = before if after in unknown else after
    return merged


def _corrects(rules: Rules, old: Row, new: Row) -> bool:
    """Whether the report tells the end of what was only believed to have ended."""
    if rules.guess is None:
        return False
    column, word = rules.guess
    return old[column] == word and new["status"] in rules.terminal and new[column] != word
