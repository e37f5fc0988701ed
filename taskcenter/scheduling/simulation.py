"""What goes into a simulation and what comes out of it. (spec 4.9)"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median
from typing import Final
from zlib import crc32

from ..quick import unguarded
from ..slot_reasons import SlotReasonCode
from .ledger import Occurrence, Verdict
from .state import OpenRun

__all__ = ["Durations", "Occupancy", "SimulatedRun", "Simulation", "occupancy_of"]

DEFAULT_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Durations:
    """How long runs last, in seconds, by task: all that is known of its past ones. ``exact``: by run, known already."""

    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    default: float = DEFAULT_SECONDS
    exact: Mapping[str, float] = field(default_factory=dict)
    starts: Mapping[str, datetime] = field(default_factory=dict)
    """By run, when it really started: until then it waits, whatever place there is."""
    _typical: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def typical(self, task_id: str) -> float:
        found = self._typical.get(task_id)
        if found is None:
            known = self.history.get(task_id)
            found = self._typical[task_id] = median(known) if known else self.default
        return found

    def of(self, run: OpenRun, seed: int | None) -> float:
        exact = self.exact.get(run.id)
        if exact is not None:
            return exact
        known = self.history.get(run.task_id)
        if seed is None or not known:
            return self.typical(run.task_id)
        return known[crc32(f"{seed} {run.id}".encode()) % len(known)]


@unguarded
@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """One run of the simulation. ``started`` None: it still waited at the end; ``ended`` None: it still ran."""

    id: str
    task_id: str
    trigger_id: str | None
    slot: datetime | None
    due: datetime
    started: datetime | None = None
    ended: datetime | None = None
    cancelled: bool = False

    @property
    def late_seconds(self) -> float:
        """From its slot to its start; 0 while it waits."""
        return 0.0 if self.started is None else (self.started - (self.slot or self.due)).total_seconds()


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How many runs went at once in one hour."""

    hour: datetime
    mean: float
    peak: int


@dataclass(frozen=True, slots=True)
class Simulation:
    """What would happen."""

    start: datetime
    end: datetime
    rows: tuple[Occurrence, ...]
    runs: tuple[SimulatedRun, ...]
    occupancy: tuple[Occupancy, ...]
    misfires: int

    @property
    def verdicts(self) -> dict[str, int]:
        """How many slots got which verdict."""
        counts: Counter[str] = Counter()
        for row in self.rows:
            counts[row.verdict.value] += row.count
            if row.amends is not None:
                counts[row.amends.value] -= row.count
        return {verdict.value: counts[verdict.value] for verdict in Verdict if counts[verdict.value]}

    @property
    def overlaps(self) -> int:
        """How many slots came while a run of the same scope was active, and got none of their own for it."""
        rows = (row for row in self.rows if row.reason.code is SlotReasonCode.OVERLAP)
        return sum(row.count for row in rows)

    @property
    def lateness(self) -> dict[str, float]:
        """Seconds from slot to start: median, 95th percentile, most."""
        late = sorted(run.late_seconds for run in self.runs if run.started is not None)
        if not late:
            return {"p50": 0.0, "p95": 0.0, "max": 0.0}
        return {"p50": median(late), "p95": late[int(0.95 * (len(late) - 1))], "max": late[-1]}

    @property
    def waiting(self) -> int:
        """How many runs had not started at the end."""
        return sum(run.started is None and not run.cancelled for run in self.runs)


def occupancy_of(runs: Iterable[SimulatedRun], start: datetime, end: datetime) -> tuple[Occupancy, ...]:
    """By hour from ``start``; the last one may be shorter."""
    changes: list[tuple[datetime, int]] = []
    for run in runs:
        if run.started is not None:
            changes += [(max(run.started, start), 1), (min(run.ended or end, end), -1)]
    changes.sort()
    hours: list[Occupancy] = []
    at, count, index = start, 0, 0
    while at < end:
        until = min(at + timedelta(hours=1), end)
        busy, peak, since = 0.0, count, at
        while index < len(changes) and changes[index][0] < until:
            time, change = changes[index]
            busy += count * (time - since).total_seconds()
            since, count, index = time, count + change, index + 1
            peak = max(peak, count)
        busy += count * (until - since).total_seconds()
        hours.append(Occupancy(at, round(busy / (until - at).total_seconds(), 6), peak))
        at = until
    return tuple(hours)
