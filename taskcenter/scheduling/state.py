"""What the scheduling core is told: definitions, cursors, holds, open runs, requests. Frozen; nothing is read later.

A caller may pass fewer triggers than there are: each trigger is decided from its own row, its task, the open runs of
that task and the holds, so that a part of the fleet gets the same verdicts as the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from ..models import MisfirePolicy, RetryPolicy, Trigger
from ..quick import unguarded
from ..status import Origin, Priority, RunStatus
from .calendars import Calendars
from .ledger import Verdict

__all__ = [
    "EndedRun",
    "Firing",
    "Hold",
    "Horizon",
    "Limits",
    "Mode",
    "OpenRun",
    "PlannedRun",
    "Standing",
    "State",
    "TaskState",
    "TriggerState",
    "standing_of",
]


class Mode(StrEnum):
    """Whether the scheduler, a task or a trigger lets slots fire."""

    RUNNING = "running"
    """Slots fire."""
    PAUSED = "paused"
    """Nothing fires; slots wait, and get their verdict by the misfire policy on resume."""
    DISABLED = "disabled"
    """Nothing fires, and slots are skipped as they come."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A time in which nothing fired. ``until`` None: it holds until somebody ends it."""

    mode: Mode
    since: datetime
    until: datetime | None = None
    by: str = ""
    note: str = ""
    policy: MisfirePolicy | None = None
    """What the person who ended it chose for the slots that it held; None: the trigger's policy."""
    max_failures: bool = False
    """Set by rule, after too many failures in a row (spec 5.7)."""

    def covers(self, at: datetime, margin: timedelta = timedelta(0)) -> bool:
        """Whether it held at ``at``. ``margin``: how long before its start a slot may lie that it caught too."""
        return self.since - margin <= at and (self.until is None or at < self.until)


@dataclass(frozen=True, slots=True)
class Standing:
    """The hold that was set last, if any, and those before it that slots without a verdict may have met."""

    hold: Hold | None = None
    past: tuple[Hold, ...] = ()

    def at(self, now: datetime) -> Hold | None:
        """The hold that is in force; None when it runs. One whose ``until`` has come has ended by itself."""
        hold = self.hold
        return None if hold is None or (hold.until is not None and hold.until <= now) else hold

    def then(self, at: datetime) -> Standing:
        """The standing as it was at ``at``: a hold that was in force then, and those that had ended."""
        held = next((hold for hold in self.all() if hold.covers(at)), None)
        return Standing(held, tuple(hold for hold in self.all() if hold.until is not None and hold.until <= at))

    def all(self) -> Iterator[Hold]:
        yield from self.past
        if self.hold is not None:
            yield self.hold


RUNNING = Standing()


def standing_of(trigger: Trigger, since: datetime, past: tuple[Hold, ...] = ()) -> Standing:
    """The standing that the trigger's own fields say, in force since ``since``."""
    if not trigger.enabled:
        return Standing(Hold(Mode.DISABLED, since), past)
    if trigger.paused_until is not None or trigger.paused_reason is not None:
        return Standing(Hold(Mode.PAUSED, since, trigger.paused_until, note=trigger.paused_reason or ""), past)
    return Standing(None, past)


@dataclass(frozen=True, slots=True)
class TaskState:
    """What scheduling needs to know of a task."""

    id: str
    slug: str = ""
    standing: Standing = RUNNING
    priority: Priority = Priority.NORMAL
    max_concurrent: int = 0
    tags: tuple[str, ...] = ()
    connections: tuple[str, ...] = ()
    uses: tuple[TaskState, ...] = ()
    """Saved tasks that are steps of it: their limits count for its runs, as their tags and connections do."""


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run made ahead for a slot to come. ``started``: a worker has taken it."""

    slot: datetime
    run_id: str
    started: bool = False


@unguarded
@dataclass(frozen=True, slots=True)
class TriggerState:
    """A trigger and how far its slots are decided.

    Every slot up to ``cursor`` has its verdict; ``since`` is when this definition came into force. ``next_slot`` is
    what the last decision found (looked at only when ``next_known``). ``verdicts`` are the rows of the ledger that
    stand beyond the cursor, and for a one_shot or planned trigger all of its rows.
    """

    trigger: Trigger
    since: datetime
    cursor: datetime | None = None
    next_slot: datetime | None = None
    next_known: bool = False
    standing: Standing = RUNNING
    verdicts: Mapping[datetime, Verdict] = field(default_factory=dict)
    planned: tuple[PlannedRun, ...] = ()
    last_finished: datetime | None = None

    @property
    def id(self) -> str:
        return self.trigger.id

    @property
    def task_id(self) -> str:
        return self.trigger.task_id


@unguarded
@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that is queued or running. ``serial``: it waits while an older run of the same scope is open."""

    id: str
    task_id: str
    created_at: datetime
    trigger_id: str | None = None
    slot: datetime | None = None
    status: RunStatus = RunStatus.QUEUED
    origin: Origin = Origin.SCHEDULER
    priority: Priority = Priority.NORMAL
    ready_at: datetime | None = None
    """Not before (a retry's delay, a jitter); None: at once."""
    serial: str = ""
    """``trigger`` or ``task``: the scope in which it waits its turn."""
    caught_up: bool = False
    """Made for a slot that was late already: it is never dropped for being late."""
    started_at: datetime | None = None
    attempt: int = 1
    root_run_id: str = ""
    connections: tuple[str, ...] = ()
    """Those that it uses beside its task's: its own payload names them."""

    @property
    def due_at(self) -> datetime:
        """From when it waits: its slot, its creation or its ready time, whichever is last."""
        due = self.created_at if self.slot is None or self.slot < self.created_at else self.slot
        return due if self.ready_at is None or self.ready_at < due else self.ready_at

    def running(self, at: datetime) -> OpenRun:
        """The same run, started at ``at``."""
        return OpenRun(
            self.id, self.task_id, self.created_at, self.trigger_id, self.slot, RunStatus.RUNNING, self.origin,
            self.priority, self.ready_at, self.serial, self.caught_up, at, self.attempt, self.root_run_id,
            self.connections,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Firing:
    """A request that one trigger fire: a token was used, another task's run ended, the service started.

    It stands in a durable inbox until a decision consumes it. ``id`` is unique per cause (for ``after``: trigger and
    upstream run), so that the same cause is never asked for twice.
    """

    id: str
    trigger_id: str
    at: datetime
    payload: Mapping[str, Any] | None = None
    upstream_run_id: str | None = None


@unguarded
@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that ended, of which it is not decided yet what follows: another attempt, other tasks' triggers."""

    id: str
    task_id: str
    status: RunStatus
    finished_at: datetime
    trigger_id: str | None = None
    slot: datetime | None = None
    origin: Origin = Origin.SCHEDULER
    priority: Priority = Priority.NORMAL
    attempt: int = 1
    root_run_id: str = ""
    retry_policy: RetryPolicy | None = None
    """None: no retry was asked for."""
    payload: Mapping[str, Any] | None = None


@unguarded
@dataclass(frozen=True, slots=True)
class Limits:
    """How many runs at once; 0 or absent: no limit. ``ageing_seconds``: see ``admission``."""

    pool: int = 4
    tasks: Mapping[str, int] = field(default_factory=dict)
    tags: Mapping[str, int] = field(default_factory=dict)
    connections: Mapping[str, int] = field(default_factory=dict)
    ageing_seconds: int = 600


@dataclass(frozen=True, slots=True)
class Horizon:
    """How far ahead runs are made: until both minima hold, never beyond a maximum (spec 4.2)."""

    min_runs: int = 3
    min_time: timedelta = timedelta(hours=1)
    max_runs: int = 100
    max_time: timedelta = timedelta(days=30)


@unguarded
@dataclass(frozen=True, slots=True)
class State:
    """All that one decision is made from."""

    triggers: Sequence[TriggerState]
    tasks: Mapping[str, TaskState]
    scheduler_id: str = "scheduler"
    standing: Standing = RUNNING
    """The scheduler's own."""
    runs: Sequence[OpenRun] = ()
    """Queued and running ones; runs made ahead stand with their trigger (``planned``)."""
    firings: Sequence[Firing] = ()
    ended: Sequence[EndedRun] = ()
    calendars: Calendars = field(default_factory=Calendars)
    limits: Limits = Limits()
    horizon: Horizon | None = None
    """None: no run is made ahead of its slot."""
    clock_jump: tuple[datetime, datetime] | None = None
    """The clock went at once from the first time to the second."""
    worker_seen: datetime | None = None
    """The last sign of life of any worker; None: not known."""
