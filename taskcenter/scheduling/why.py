"""Why a task runs at an instant, or why it does not: every gate in order, each with its answer. (spec 4.9)

The gates ask the functions that ``decide`` and ``admit`` ask, about the same state: what is said here is what happens.
Each gate answers for itself, whatever the ones before it say, so that a person sees all that is in the way at once.

========== ===========================================================================================
gate       holds when
========== ===========================================================================================
timetable  no slot is due and no run waits
calendar   the slot lies outside the trigger's window, or its calendar excludes it
scheduler  the scheduler is paused or disabled
task       the task is paused or disabled
trigger    the trigger is paused or disabled
misfire    the slot is late, and its policy makes no run of it
overlap    a run of the same trigger or task is active, and the policy does not let this one start beside it
limits     the pool, the task, a tag or a connection has no place left
priority   runs with an earlier turn take the places that are left
retry      the next attempt waits for its time
worker     no worker gave a sign of life within a minute
========== ===========================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from ..status import RunStatus
from .admission import BY_PERSON, WaitCode, admit
from .followups import WORKER_SILENCE
from .misfire import cause_of, decide_misfire, is_late, lateness, policy_for
from .overlap import active_runs, decide_overlap
from .state import Hold, Mode, OpenRun, Standing, State, TaskState, TriggerState
from .timetable import BY_EVENT, advance, due_slots, effective_due, in_window, next_run, outside, request_slots

__all__ = ["GATES", "Gate", "GateVerdict", "why"]

GATES: Final = (
    *("timetable", "calendar", "scheduler", "task", "trigger", "misfire", "overlap", "limits", "priority", "retry"),
    "worker",
)
IMAGINED: Final = "the run asked about"
_INSTANT = timedelta(microseconds=1)


class GateVerdict(StrEnum):
    """What a gate says."""

    PASS = "pass"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Gate:
    """One answer. ``until``: when the gate is known to open by itself; None: nobody knows, or it is open."""

    name: str
    verdict: GateVerdict
    sentence: str
    since: datetime | None = None
    until: datetime | None = None


def why(state: State, task_id: str, at: datetime, trigger_id: str | None = None) -> list[Gate]:
    """The gates of a task at ``at``, in order, for one of its triggers: the one named, else the one that is due first.

    For ``at`` in the future the state is taken as it stands now, with its holds and runs.
    """
    task = state.tasks.get(task_id) or TaskState(task_id)
    own = [ts for ts in state.triggers if ts.task_id == task_id and trigger_id in (None, ts.id)]
    waiting = [run for run in state.runs if run.task_id == task_id and run.status is RunStatus.QUEUED]
    ts, slot = _soonest(state, own, at)
    return _Asked(state, task, ts, slot, waiting, at).gates()


def _soonest(
    state: State, triggers: Sequence[TriggerState], at: datetime
) -> tuple[TriggerState | None, datetime | None]:
    """The trigger and its slot that is due, or comes next."""
    best: tuple[datetime, TriggerState] | None = None
    for ts in triggers:
        slot = _slot_of(state, ts, at)
        if slot is not None and (best is None or slot < best[0]):
            best = (slot, ts)
    if best is None:
        return (triggers[0] if triggers else None), None
    return best[1], best[0]


def _slot_of(state: State, ts: TriggerState, at: datetime) -> datetime | None:
    if ts.trigger.type in BY_EVENT:
        asked = request_slots(ts, [firing for firing in state.firings if firing.trigger_id == ts.id])
        return next(iter(asked), None)
    active = ts.trigger.counts_from == "completion" and any(run.trigger_id == ts.id for run in state.runs)
    due, upcoming = due_slots(replace(ts, next_known=False), at, state.calendars, 1, active)
    return due[0] if due else upcoming


class _Asked:
    """One question: about a slot of a trigger, or about the run that waits."""

    def __init__(
        self,
        state: State,
        task: TaskState,
        ts: TriggerState | None,
        slot: datetime | None,
        waiting: Sequence[OpenRun],
        at: datetime,
    ) -> None:
        self.state = state
        self.task = task
        self.ts = ts
        self.slot = slot
        self.at = at
        self.waiting = min(waiting, key=lambda run: run.due_at, default=None)
        self.due = slot is not None and slot <= at

    def gates(self) -> list[Gate]:
        return [
            self._timetable(),
            self._calendar(),
            self._standing("scheduler", self.state.standing),
            self._standing("task", self.task.standing),
            self._standing("trigger", self.ts.standing if self.ts else Standing()),
            self._misfire(),
            self._overlap(),
            *self._queue(),
            self._worker(),
        ]

    def _pass(self, name: str, sentence: str, since: datetime | None = None) -> Gate:
        return Gate(name, GateVerdict.PASS, sentence, since)

    def _hold(self, name: str, sentence: str, since: datetime | None = None, until: datetime | None = None) -> Gate:
        return Gate(name, GateVerdict.HOLD, sentence, since, until)

    def _timetable(self) -> Gate:
        if self.waiting is not None:
            return self._pass("timetable", "a run waits to start", self.waiting.due_at)
        if self.ts is None:
            return self._hold("timetable", "the task has no trigger; a person may run it")
        if self.slot is None:
            kind = self.ts.trigger.type
            what = "nobody has asked for it" if kind in BY_EVENT else "no slot is left"
            return self._hold("timetable", f"{what} (trigger of type {kind})")
        if not self.due:
            return self._hold("timetable", f"the next slot is {self.slot.isoformat()}", until=self.slot)
        return self._pass("timetable", f"the slot {self.slot.isoformat()} is due", self.slot)

    def _calendar(self) -> Gate:
        if self.ts is None or self.slot is None or self.waiting is not None:
            return self._pass("calendar", "nothing is excluded")
        trigger = self.ts.trigger
        if not in_window(trigger, self.slot):
            opens = trigger.start_at if trigger.start_at is not None and self.slot < trigger.start_at else None
            return self._hold("calendar", "the slot lies outside startAt and endAt", until=opens)
        note = outside(self.ts, self.slot, self.state.calendars)
        if note is None:
            said = f"the calendar {trigger.calendar} has it" if trigger.calendar else "it has no calendar"
            return self._pass("calendar", said)
        opens = next_run(self.ts, self.slot, self.state.calendars)
        said = f"the calendar {trigger.calendar} excludes {self.slot.isoformat()}{': ' + note if note else ''}"
        return self._hold("calendar", said, self.slot, opens)

    def _standing(self, name: str, standing: Standing) -> Gate:
        if self.waiting is not None and (name == "trigger" or self.waiting.origin in BY_PERSON):
            return self._pass(name, f"the {name} lets a run that waits go")
        hold = standing.at(self.at)
        if hold is None:
            return self._pass(name, f"the {name} is running")
        return self._hold(name, _said(name, hold), hold.since, hold.until)

    def _misfire(self) -> Gate:
        if self.ts is None or self.slot is None or not self.due:
            return self._pass("misfire", "nothing is late")
        trigger = self.ts.trigger
        due = effective_due(self.ts, self.slot)
        grace = trigger.misfire_grace_seconds
        if not is_late(due, self.at, grace):
            return self._pass("misfire", f"it is {lateness(due, self.at)} s late; {grace} s are allowed")
        cause = cause_of(self.slot, self.state, (self.state.standing, self.task.standing, self.ts.standing), grace)
        policy = policy_for(trigger, cause)
        said = f"it is {lateness(due, self.at)} s late ({cause.name}), and the misfire policy is {policy}"
        fires = decide_misfire([self.slot], self.at, policy, trigger.catch_up, trigger.type).fire
        if fires:
            return self._pass("misfire", said, due)
        return self._hold("misfire", said, due, advance(self.ts, self.at, self.state.calendars))

    def _overlap(self) -> Gate:
        runs = [run for run in self.state.runs if run.task_id == self.task.id]
        if self.waiting is not None:
            wait = admit(self.state, self.at).waits.get(self.waiting.id)
            if wait is not None and wait.code is WaitCode.TURN:
                return self._hold("overlap", str(wait), self.waiting.due_at)
            return self._pass("overlap", "no other run goes first")
        if self.ts is None:
            return self._pass("overlap", "no trigger, no overlap")
        active = active_runs(self.ts.trigger, runs)
        if not active:
            return self._pass("overlap", "no other run is active")
        policy = self.ts.trigger.overlap
        found = decide_overlap(policy, [self.slot or self.at], active)
        said = f"the run {active[0].id} is active, and the overlap policy is {policy}"
        if found.fire and not found.serial:
            return self._pass("overlap", said)
        return self._hold("overlap", said, active[0].started_at or active[0].due_at)

    def _queue(self) -> list[Gate]:
        """Limits, priority and retry, as the admission gate sees the run: the one that waits, or an imagined one."""
        run = self.waiting or OpenRun(
            id=IMAGINED,
            task_id=self.task.id,
            created_at=self.at,
            trigger_id=self.ts.id if self.ts else None,
            priority=(self.ts.trigger.priority if self.ts else None) or self.task.priority,
        )
        free = replace(self.state, standing=Standing(), tasks={**self.state.tasks, self.task.id: self._free_task()})
        others = tuple(other for other in self.state.runs if other.id != run.id)
        alone = tuple(other for other in others if other.status is RunStatus.RUNNING)
        asked = replace(run, ready_at=None, serial="")
        limit = admit(replace(free, runs=(*alone, asked)), self.at).waits.get(run.id)
        queue = admit(replace(free, runs=(*others, asked)), self.at)
        before = queue.order.index(run.id)
        rank = f"{before} run{'s' if before != 1 else ''} of {len(queue.order) - 1} that wait go before it"
        gates = [
            self._pass("limits", "there is a place for it")
            if limit is None
            else self._hold("limits", str(limit), run.due_at)
        ]
        held_back = queue.waits.get(run.id)
        if limit is None and held_back is not None:
            gates.append(self._hold("priority", f"{rank}: {held_back}", run.due_at))
        else:
            gates.append(self._pass("priority", rank))
        retry = run.ready_at if run.ready_at is not None and run.ready_at > self.at else None
        if retry is None:
            gates.append(self._pass("retry", "it waits for no time of its own"))
        else:
            what = f"attempt {run.attempt}" if run.attempt > 1 else "the run"
            gates.append(
                self._hold("retry", f"{what} is not to start before {retry.isoformat()}", run.created_at, retry)
            )
        return gates

    def _free_task(self) -> TaskState:
        return replace(self.task, standing=Standing())

    def _worker(self) -> Gate:
        seen = self.state.worker_seen
        if seen is None:
            return self._pass("worker", "nothing is known of the workers")
        if self.at - seen > WORKER_SILENCE:
            return self._hold("worker", f"no worker has given a sign of life since {seen.isoformat()}", seen)
        return self._pass("worker", "a worker is alive", seen)


def _said(name: str, hold: Hold) -> str:
    by = f" by {hold.by}" if hold.by else ""
    note = f": {hold.note}" if hold.note else ""
    end = "until somebody ends it" if hold.until is None else f"until {hold.until.isoformat()}"
    mode = "disabled" if hold.mode is Mode.DISABLED else "paused"
    return f"the {name} is {mode}{by} {end}{note}"
