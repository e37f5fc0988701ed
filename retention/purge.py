"""The purge: the plan's rows go in the seed's order, in steps so short that nobody notices. (spec 6.5)

How many rows a step takes is found by the time the last one took: no fixed number would do, because a step of
thousands of rows is nothing on one machine and stops every writer on another.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from taskcenter.purge_plan import Plan
from taskcenter_adapter.history_purge import HistoryPurge, PolicyChanged, policy_stamp
from taskcenter_adapter.purge_preview import COUNTERS, STEP_RUNS
from taskcenter_adapter.store_sql import SqlStore

__all__ = ["Pace", "Report", "purge"]


@dataclass
class Pace:
    """How long a step may keep others from writing, and how long they have before the next."""

    most: float = 0.05
    """Seconds that a step should never take."""
    aim: float = 0.035
    """Seconds that a step is made to take: far enough from ``most`` for a slow moment of the disk."""
    size: int = 200
    largest: int = 20_000
    pages: int = 16_000
    """SQLite's log of changes is brought into its file when it is about so long, before others would do it."""
    every: float = 3
    """Steps after which it was so long."""

    def breathed(self, pages: int) -> None:
        """So long was the log this time."""
        if pages > 0:
            self.every = min(max(self.every * min(max(self.pages / pages, 0.5), 1.5), 1), 200)

    def after(self, size: int, seconds: float) -> int:
        """The size of the next step."""
        if seconds > self.most:
            return max(size // 3, 1)
        factor = min(max(self.aim / max(seconds, 1e-4), 0.5), 1.5)
        return max(1, min(int(size * factor) + (factor > 1), self.largest))


@dataclass
class Report:
    """What a purge did."""

    plan: Plan
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys([*COUNTERS.values(), STEP_RUNS], 0))
    finished: bool = False
    """False when it was broken off: what is left goes with the next one."""
    steps: int = 0
    breathed: int = 0
    """Steps until the log was brought into the file the last time."""
    longest: float = 0.0
    """Seconds of the longest step."""
    deleting: float = 0.0
    """Seconds until the last row was gone; after that the room is given back."""
    seconds: float = 0.0
    pages_given_back: int = 0
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.counts,
            "retentionDays": self.plan.days,
            "cutoffAt": self.plan.cutoff(self.plan.days).isoformat(),
            "finished": self.finished,
            "seconds": round(self.seconds, 3),
            "notes": self.notes,
        }


def purge(
    store: SqlStore,
    report: Report,
    plan_now: Callable[[], Plan],
    *,
    stop: Callable[[], bool] = lambda: False,
    pace: Pace | None = None,
) -> None:
    """Delete all that the plan names, unless ``stop`` says otherwise between two steps; ``report`` tells how far.

    ``plan_now`` gives the plan, again whenever the policy was changed while it was carried out.
    """
    began = time.perf_counter()
    try:
        pace = pace or Pace()
        while not _carried_out(store, report, plan_now, stop, pace):
            pass
    finally:
        report.seconds = time.perf_counter() - began


def _carried_out(
    store: SqlStore, report: Report, plan_now: Callable[[], Plan], stop: Callable[[], bool], pace: Pace
) -> bool:
    """Whether the policy was the same to the end."""
    stamp = policy_stamp(store)
    report.plan = plan_now()
    work = HistoryPurge(store, report.plan, stamp)
    try:
        report.finished = _delete(work, report, stop, pace)
    except PolicyChanged:
        return False
    finally:
        work.close()
    return True


def _delete(work: HistoryPurge, report: Report, stop: Callable[[], bool], pace: Pace) -> bool:
    began = time.perf_counter()
    for kind in COUNTERS:
        size, place, first = pace.size, None, True
        while first or place is not None:
            if stop():
                return False
            step = work.step(kind, place, size)
            first, place = False, step.place
            for counter, count in step.deleted.items():
                report.counts[counter] += count
            _note(work, report, pace, step.seconds)
            size = pace.after(step.size, step.seconds)
    work.settle()
    report.deleting += time.perf_counter() - began
    size = pace.size
    while not stop():
        given = work.give_back(size)
        if given is None:
            work.settle()
            work.vacuum(report.counts)
            return True
        pages, seconds = given
        report.pages_given_back += pages
        _note(work, report, pace, seconds)
        size = pace.after(size, seconds)
    return False


def _note(work: HistoryPurge, report: Report, pace: Pace, seconds: float) -> None:
    report.steps += 1
    report.longest = max(report.longest, seconds)
    if report.steps >= report.breathed + pace.every:
        report.breathed = report.steps
        pace.breathed(work.breathe())
