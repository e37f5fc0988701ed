"""Which queued runs may start now, and what each of the others waits for: one gate for every way to start. (spec 5.2)

Order: priority (high, normal, low), then the slot, then the age. A run *ages*: each ``ageing_seconds`` (10 minutes)
of waiting lift it by one step, up to one step above high, where runs go strictly in the order in which they began to
wait. A low run is there after three steps, and from then on no later run overtakes it for the pool, nor, while it is
held by a limit of a task, tag or connection, for the places of those limits: they are kept for it. So the promise: a
run that can start at all starts at the latest once three ageing steps have passed and the runs that began to wait
before it have had their turn. A place in the pool is never kept empty for a run that waits for something else.

A run waits for, in this order: its ready time (a retry's delay), the scheduler and the task (when paused; runs that a
person started do not mind), its turn among the runs of its trigger or task (``serial``), then the limits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from ..quick import unguarded
from ..status import Origin, RunStatus
from .state import Limits, OpenRun, State, TaskState

__all__ = ["BY_PERSON", "Admission", "Wait", "WaitCode", "admit", "effective_rank", "start_order"]

BY_PERSON: Final = frozenset({Origin.MANUAL, Origin.MANUAL_RETRY, Origin.RESUME, Origin.BACKFILL, Origin.PREFECT})
"""Origins that a hold of the scheduler or the task does not keep back: a person may run a task in any status."""
_NO_TIME = timedelta(0)
OLDEST: Final = -1
"""The rank of runs that waited so long that only the order of waiting counts."""


class WaitCode(StrEnum):
    """What a queued run waits for."""

    READY_TIME = "ready_time"
    SCHEDULER = "scheduler"
    TASK = "task"
    TURN = "turn"
    POOL = "pool"
    TASK_LIMIT = "task_limit"
    TAG = "tag"
    CONNECTION = "connection"


_WORDS: Mapping[WaitCode, str] = {
    WaitCode.READY_TIME: "it is not to start before {until}",
    WaitCode.SCHEDULER: "the scheduler is {name}",
    WaitCode.TASK: "the task is {name}",
    WaitCode.TURN: "another run of the same {name} goes first",
    WaitCode.POOL: "all {limit} places of the pool are taken or go to runs before it",
    WaitCode.TASK_LIMIT: "at most {limit} of its runs go at once",
    WaitCode.TAG: "at most {limit} runs with the tag {name} go at once",
    WaitCode.CONNECTION: "at most {limit} runs on the connection {name} go at once",
}


@dataclass(frozen=True, slots=True)
class Wait:
    """What one run waits for, and until when it does at least."""

    code: WaitCode
    name: str = ""
    limit: int = 0
    until: datetime | None = None

    def __str__(self) -> str:
        if self.code is WaitCode.TASK_LIMIT and self.name:
            return f"at most {self.limit} runs of {self.name} go at once, and that is a step of it"
        until = self.until.isoformat() if self.until else "a later time"
        return _WORDS[self.code].format(name=self.name, limit=self.limit, until=until)


@unguarded
@dataclass(frozen=True, slots=True)
class Admission:
    """``start``: the runs that may start now, in order. ``waits``: the others. ``order``: all, first come first."""

    start: tuple[str, ...] = ()
    waits: Mapping[str, Wait] = field(default_factory=dict)
    order: tuple[str, ...] = ()


def effective_rank(run: OpenRun, now: datetime, limits: Limits) -> int:
    """0 is high, 2 low, lifted by waiting; ``OLDEST`` goes first."""
    waited = now - run.due_at
    if limits.ageing_seconds <= 0 or waited <= _NO_TIME:
        return run.priority.rank
    return max(OLDEST, run.priority.rank - int(waited.total_seconds() // limits.ageing_seconds))


def start_order(run: OpenRun, now: datetime, limits: Limits) -> tuple[int, datetime, datetime, str]:
    """Sorts queued runs: who comes first starts first, as far as it may start at all."""
    rank = effective_rank(run, now, limits)
    first = run.due_at if rank == OLDEST else run.slot or run.created_at
    return (rank, first, run.created_at, run.id)


def admit(state: State, now: datetime) -> Admission:
    """Which of the queued runs in ``state.runs`` may start at ``now``."""
    queue = [run for run in state.runs if run.status is RunStatus.QUEUED]
    queue.sort(key=lambda run: start_order(run, now, state.limits))
    serial = [run for run in queue if run.serial]
    places = _Places(state, bool(serial))
    start: list[str] = []
    waits: dict[str, Wait] = {}
    on_time = {_scope(run) for run in serial if not run.caught_up and run.due_at <= now}
    for run in queue:
        task = state.tasks.get(run.task_id) or TaskState(run.task_id)
        wait = _held(state, run, task, now) or _turn(run, places, on_time) or places.full(run, task)
        if wait is None:
            places.take(run, task)
            start.append(run.id)
            continue
        waits[run.id] = wait
        limited = wait.code in (WaitCode.TASK_LIMIT, WaitCode.TAG, WaitCode.CONNECTION)
        if limited and effective_rank(run, now, state.limits) == OLDEST:
            places.keep(run, task)
    return Admission(tuple(start), waits, tuple(run.id for run in queue))


def _held(state: State, run: OpenRun, task: TaskState, now: datetime) -> Wait | None:
    if run.ready_at is not None and now < run.ready_at:
        return Wait(WaitCode.READY_TIME, until=run.ready_at)
    if run.origin in BY_PERSON:
        return None
    for code, standing in ((WaitCode.SCHEDULER, state.standing), (WaitCode.TASK, task.standing)):
        hold = standing.at(now)
        if hold is not None:
            return Wait(code, hold.mode.value, until=hold.until)
    return None


def _scope(run: OpenRun) -> tuple[str, str]:
    return ("task", run.task_id) if run.serial == "task" else ("trigger", run.trigger_id or "")


def _turn(run: OpenRun, places: _Places, on_time: set[tuple[str, str]]) -> Wait | None:
    """A serial run starts alone in its scope; one that makes up for a late slot lets the slots of now go first."""
    if not run.serial:
        return None
    scope = _scope(run)
    if scope in places.busy or (run.caught_up and scope in on_time):
        return Wait(WaitCode.TURN, run.serial)
    return None


class _Places:
    """The places that are taken, by limit. ``turns``: whether any run of the queue waits its turn in its scope."""

    def __init__(self, state: State, turns: bool) -> None:
        self.limits = state.limits
        self.turns = turns
        self.narrow = bool(state.limits.tasks or state.limits.tags or state.limits.connections)
        self.pool = 0
        self.taken: Counter[tuple[str, str]] = Counter()
        self.busy: set[tuple[str, str]] = set()
        for run in state.runs:
            if run.status is RunStatus.RUNNING:
                self.take(run, state.tasks.get(run.task_id) or TaskState(run.task_id))

    def take(self, run: OpenRun, task: TaskState) -> None:
        self.pool += 1
        self.keep(run, task)
        if self.turns:
            self.busy.add(("task", run.task_id))
            self.busy.add(("trigger", run.trigger_id or ""))

    def keep(self, run: OpenRun, task: TaskState) -> None:
        """Count the run against the limits of its task, tags and connections, but not against the pool."""
        for code, name, _, _ in self._limits_of(run, task):
            self.taken[code.value, name] += 1

    def full(self, run: OpenRun, task: TaskState) -> Wait | None:
        for code, name, limit, shown in self._limits_of(run, task):
            if self.taken[code.value, name] >= limit:
                return Wait(code, shown, limit)
        pool = self.limits.pool
        return Wait(WaitCode.POOL, "", pool) if pool and self.pool >= pool else None

    def _limits_of(self, run: OpenRun, task: TaskState) -> Iterator[tuple[WaitCode, str, int, str]]:
        """Kind, name, number and the name to show of each limit that counts for the run, each once."""
        given = self.limits
        if not (self.narrow or task.max_concurrent or task.uses):
            return
        whole = (task, *task.uses)
        for which in whole:
            own = [limit for limit in (which.max_concurrent, given.tasks.get(which.id, 0)) if limit]
            if own:
                yield WaitCode.TASK_LIMIT, which.id, min(own), "" if which is task else which.slug or which.id
        if not self.narrow:
            return
        tags = (tag for which in whole for tag in which.tags)
        connections = (name for which in whole for name in which.connections)
        named: tuple[tuple[WaitCode, Iterable[str], Mapping[str, int]], ...] = (
            (WaitCode.TAG, tags, given.tags),
            (WaitCode.CONNECTION, (*run.connections, *connections), given.connections),
        )
        for code, names, limits in named:
            if limits:
                for name in dict.fromkeys(names):
                    if limits.get(name):
                        yield code, name, limits[name], name
