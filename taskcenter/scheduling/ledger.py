"""What became of every slot: one verdict each, with its reason. (spec 4.4)

The key is trigger and slot, and nothing else. A row stays as it was written, with four exceptions that are part of
the promise (:func:`may_amend`): a *superseded* slot that is still ahead comes back when a later edit has it again; a
*fired* slot whose run never started may still become *skipped* (no place came free) or *cancelled* (a person); and a
slot without a run of its own may be *backfilled*.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from ..errors import Conflict
from ..quick import unguarded
from ..slot_reasons import SlotReason, iso

__all__ = ["RANGE_FROM", "Ledger", "Occurrence", "Verdict", "compress", "may_amend"]

RANGE_FROM = 5
"""From how many identical verdicts in a row they are stored as one range. Slots that got a run are never in a range."""


class Verdict(StrEnum):
    """What became of a slot."""

    FIRED = "fired"
    """A run was made for it."""
    COALESCED = "coalesced"
    """The run of another slot stands for it too."""
    SKIPPED = "skipped"
    """A rule or a policy said that it gets no run."""
    EXPIRED = "expired"
    """It was owed, and lies beyond what is made up for."""
    SUPERSEDED = "superseded"
    """It was planned, and an edit took it away before its time."""
    CANCELLED = "cancelled"
    """A person cancelled it before its run started."""
    BACKFILLED = "backfilled"
    """A person asked for its run afterwards."""


_AMENDS: dict[Verdict, frozenset[Verdict]] = {
    Verdict.FIRED: frozenset({Verdict.SKIPPED, Verdict.CANCELLED}),
    Verdict.COALESCED: frozenset({Verdict.BACKFILLED}),
    Verdict.SKIPPED: frozenset({Verdict.BACKFILLED}),
    Verdict.EXPIRED: frozenset({Verdict.BACKFILLED}),
    Verdict.SUPERSEDED: frozenset(Verdict),
    Verdict.CANCELLED: frozenset({Verdict.BACKFILLED}),
    Verdict.BACKFILLED: frozenset(),
}


def may_amend(before: Verdict, after: Verdict) -> bool:
    """Whether a row with the verdict ``before`` may become ``after``. From *fired* only while its run never started."""
    return after in _AMENDS[before]


@unguarded
@dataclass(frozen=True, slots=True)
class Occurrence:
    """One row of the ledger: the verdict of ``slot``, or of ``count`` slots from ``slot`` to ``until``.

    ``run_id`` is the run of a fired or backfilled slot and the run that a coalesced one went into. Until the run
    exists it is the key of its :class:`~taskcenter.scheduling.decisions.RunRequest`. ``amends``: the verdict that
    must stand there now (None: no row).
    """

    trigger_id: str
    slot: datetime
    verdict: Verdict
    reason: SlotReason
    decided_at: datetime
    task_id: str = ""
    run_id: str | None = None
    until: datetime | None = None
    count: int = 1
    amends: Verdict | None = None

    @property
    def key(self) -> tuple[str, datetime]:
        return (self.trigger_id, self.slot)

    @property
    def data(self) -> Mapping[str, Any]:
        return self.reason.data

    @property
    def last(self) -> datetime:
        """The last slot that it speaks of."""
        return self.until or self.slot

    def covers(self, slot: datetime) -> bool:
        return self.slot <= slot <= self.last

    def to_json(self) -> dict[str, Any]:
        return {
            "triggerId": self.trigger_id,
            "taskId": self.task_id,
            "slot": iso(self.slot),
            "until": iso(self.until),
            "count": self.count,
            "verdict": self.verdict.value,
            "reason": self.reason.to_json(),
            "runId": self.run_id,
            "decidedAt": iso(self.decided_at),
        }


def compress(rows: Sequence[Occurrence]) -> list[Occurrence]:
    """Neighbours that say the same, as ranges. ``rows`` are consecutive slots of one trigger, oldest first."""
    made: list[Occurrence] = []
    start = 0
    for end in range(1, len(rows) + 1):
        if end < len(rows) and _same(rows[start], rows[end]):
            continue
        if end - start >= RANGE_FROM:
            first, last = rows[start], rows[end - 1]
            made.append(replace(first, until=last.last, count=sum(row.count for row in rows[start:end])))
        else:
            made.extend(rows[start:end])
        start = end
    return made


def _same(one: Occurrence, other: Occurrence) -> bool:
    """How late each was may differ: the range tells it of its first slot."""
    return (
        one.verdict is other.verdict
        and one.verdict not in (Verdict.FIRED, Verdict.BACKFILLED)
        and one.run_id == other.run_id
        and one.amends is None
        and other.amends is None
        and one.reason.code is other.reason.code
        and _without_lateness(one.reason) == _without_lateness(other.reason)
    )


def _without_lateness(reason: SlotReason) -> dict[str, Any]:
    return {key: value for key, value in reason.data.items() if key != "lateSeconds"}


class Ledger:
    """A ledger in memory, with the rules of the stored one: all of a batch is written, or nothing."""

    def __init__(self, rows: Iterable[Occurrence] = ()) -> None:
        self._rows: dict[tuple[str, datetime], Occurrence] = {}
        self.add(rows)

    def __iter__(self) -> Iterator[Occurrence]:
        return iter(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, trigger_id: str, slot: datetime) -> Occurrence | None:
        return self._rows.get((trigger_id, slot))

    def of(self, trigger_id: str) -> list[Occurrence]:
        """The rows of one trigger, oldest slot first."""
        return sorted((row for row in self if row.trigger_id == trigger_id), key=lambda row: row.slot)

    def add(self, rows: Iterable[Occurrence]) -> None:
        """Raises Conflict, and writes nothing, when a row would replace one that may not be replaced."""
        new: dict[tuple[str, datetime], Occurrence] = {}
        for row in rows:
            before = new.get(row.key) or self._rows.get(row.key)
            stands = None if before is None else before.verdict
            if row.amends is not stands or (stands is not None and not may_amend(stands, row.verdict)):
                raise Conflict(f"{row.trigger_id} at {row.slot}: {stands} stands there, so it cannot be {row.verdict}.")
            new[row.key] = row
        self._rows.update(new)
