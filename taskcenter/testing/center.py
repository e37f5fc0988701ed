"""A center in memory, on a clock that a test moves. Verdicts, attempts and turns are those of the production core."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from ..errors import NotFound, ValidationFailed
from ..models import MisfirePolicy, RetryPolicy, Trigger
from ..scheduling.admission import admit
from ..scheduling.apply import apply
from ..scheduling.calendars import Calendar, Calendars
from ..scheduling.check import check_trigger
from ..scheduling.decide import decide
from ..scheduling.followups import may_drop
from ..scheduling.ledger import Ledger, Occurrence, Verdict
from ..scheduling.revise import resume as ended
from ..scheduling.revise import revise
from ..scheduling.state import EndedRun, Firing, Hold, Limits, Mode, OpenRun, Standing, State, TaskState, TriggerState
from ..scheduling.timetable import BY_EVENT, advance, due_slots, start_of
from ..scheduling.why import Gate, GateVerdict, why
from ..status import Origin, Priority, RunStatus
from .virtual_clock import VirtualClock, instant

__all__ = ["SimulatedCenter", "TestRun"]

Outcome = bool | Callable[["TestRun"], bool]
Takes = float | Callable[["TestRun"], float]
_SECOND = timedelta(seconds=1)
_KINDS = {"cron": "cron_expression", "every": "interval_seconds", "at": "run_at", "plan": "plan", "after": "task_ids"}
_TYPES = {"cron": "cron", "every": "interval", "at": "one_shot", "plan": "planned", "after": "after"}


@dataclass
class TestRun:
    """One attempt. ``ends``: when it will have ended by itself."""

    __test__ = False

    id: str
    task: str
    trigger_id: str | None
    slot: datetime | None
    attempt: int
    origin: Origin
    created_at: datetime
    status: RunStatus = RunStatus.QUEUED
    started_at: datetime | None = None
    finished_at: datetime | None = None
    ends: datetime | None = None


@dataclass
class _Work:
    """How the runs of a task go."""

    takes: Takes
    fails: Outcome
    retry_policy: RetryPolicy


class SimulatedCenter:
    """Tasks are known by their names; times are given as ``datetime`` or ISO text (UTC when it names no zone).

    >>> center = SimulatedCenter(VirtualClock("2026-05-04"))
    >>> center.task("report", cron="30 2 * * *", takes=300)
    >>> center.advance(days=1)
    >>> [run.slot.hour for run in center.runs("report")]
    [2]
    """

    def __init__(
        self, clock: VirtualClock | None = None, *, places: int = 4, calendars: Iterable[Calendar] = ()
    ) -> None:
        self.clock = clock or VirtualClock()
        self.state = State((), {}, limits=Limits(pool=places), calendars=Calendars(calendars))
        self.events: list[tuple[str, Any]] = []
        self._ledger = Ledger()
        self._work: dict[str, _Work] = {}
        self._runs: dict[str, TestRun] = {}
        self._number = 0

    # --- definitions ------------------------------------------------------------------------------------------

    def task(
        self,
        name: str,
        *,
        takes: Takes = 60,
        fails: Outcome = False,
        retries: int = 0,
        backoff_ms: int = 0,
        max_concurrent: int = 0,
        priority: Priority | str = Priority.NORMAL,
        tags: Sequence[str] = (),
        **trigger: Any,
    ) -> None:
        """A task whose runs take ``takes`` seconds, and fail when ``fails`` (or what it says of a run) is true.

        With ``cron=``, ``every=``, ``at=``, ``plan=`` or ``after=`` it gets a trigger at once; see :meth:`trigger`.
        """
        known = TaskState(name, name, Standing(), Priority(priority), max_concurrent, tuple(tags))
        self.state = replace(self.state, tasks={**self.state.tasks, name: known})
        self._work[name] = _Work(takes, fails, RetryPolicy(max_attempts=retries, backoff_ms=backoff_ms))
        if trigger:
            self.trigger(name, **trigger)

    def trigger(self, task: str, **fields: Any) -> str:
        """A trigger in force from now; its id. ``cron="30 2 * * *"``, ``every=60`` (seconds), ``at=``, ``plan=[…]``,
        ``after=["load"]``, or ``type="ad_hoc"``; beside it any field of a trigger. Raises ValidationFailed.
        """
        self._task(task)
        self._number += 1
        values = {"id": f"{task}-{self._number}", "task_id": task, **fields}
        for word, field in _KINDS.items():
            if word in values:
                values |= {field: values.pop(word), "type": _TYPES[word]}
        if isinstance(values.get("task_ids"), str):
            values["task_ids"] = (values["task_ids"],)
        made = Trigger.model_validate(values)
        if made.type == "interval" and made.anchor is None:
            made = made.model_copy(update={"anchor": self.clock.now()})
        problems = check_trigger(made, self.clock.now(), calendars=self.state.calendars, task_ids=self.state.tasks)
        if problems:
            raise ValidationFailed(f"the trigger of {task}", problems)
        self._put(TriggerState(made, self.clock.now()))
        self._look()
        return made.id

    def edit(self, trigger_id: str, **fields: Any) -> None:
        """Other fields for a trigger, as a person saves them now. ``enabled=False`` switches it off."""
        old = self._state_of(trigger_id).trigger
        self._revise(trigger_id, Trigger.model_validate({**old.model_dump(), **fields, "revision": old.revision + 1}))

    def remove(self, trigger_id: str) -> None:
        self._revise(trigger_id, None)

    def _revise(self, trigger_id: str, new: Trigger | None) -> None:
        found = revise(self.state, trigger_id, new, self.clock.now())
        for decisions in found.decisions:
            self._ledger.add(decisions.occurrences)
            self.state = apply(self.state, decisions)
            self._note()
        if found.trigger is not None:
            self._put(found.trigger)
        else:
            left = tuple(ts for ts in self.state.triggers if ts.id != trigger_id)
            self.state = replace(self.state, triggers=left)
        self._look()

    # --- what happens -----------------------------------------------------------------------------------------

    def advance(self, by: timedelta | None = None, **parts: float) -> None:
        """Time goes on, and everything happens at its time: ``advance(hours=2)``."""
        self.advance_to(self.clock.now() + (by or timedelta()) + timedelta(**parts))

    def advance_to(self, when: datetime | str) -> None:
        target = instant(when)
        while (at := self._next_event()) is not None and at <= target:
            self.clock.set(at)
            self._look()
        if target > self.clock.now():
            self.clock.set(target)
            self._look()

    def outage(self, by: timedelta | None = None, **parts: float) -> None:
        """The service is away for so long: time goes on, nothing is decided or started; then it looks again."""
        self.clock.advance(by, **parts)
        self._look()

    def pause(
        self, task: str | None = None, *, until: datetime | str | None = None, note: str = "", disable: bool = False
    ) -> None:
        """The scheduler, or one task. Slots wait for their verdict; with ``disable`` they are skipped as they come."""
        self._look()
        mode = Mode.DISABLED if disable else Mode.PAUSED
        hold = Hold(mode, self.clock.now(), None if until is None else instant(until), by="test", note=note)
        before = ended(self._standing(task), self.clock.now())
        self._stand(task, Standing(hold, before.past))

    def resume(self, task: str | None = None, policy: MisfirePolicy | None = None) -> None:
        """``policy``: what becomes of the slots that were kept, instead of their triggers' own."""
        self._look()
        standing = self._standing(task)
        if standing.hold is not None:
            chosen = replace(standing, hold=replace(standing.hold, policy=policy))
            self._stand(task, ended(chosen, self.clock.now()))
        self._look()

    def fire(self, task: str, payload: dict[str, Any] | None = None) -> None:
        """Use the token of the task's ad_hoc trigger, or start the service for its startup trigger."""
        own = [ts for ts in self.state.triggers if ts.task_id == task and ts.trigger.type in ("ad_hoc", "startup")]
        if not own:
            raise NotFound(f"the task {task} has no trigger of type ad_hoc or startup")
        self._number += 1
        firing = Firing(f"firing {self._number}", own[0].id, self.clock.now(), payload)
        self.state = replace(self.state, firings=(*self.state.firings, firing))
        self._look()

    # --- what became of it ------------------------------------------------------------------------------------

    def runs(self, task: str | None = None) -> list[TestRun]:
        """All attempts, in the order in which they were made."""
        return [run for run in self._runs.values() if task in (None, run.task)]

    def ledger(self, task: str | None = None) -> list[Occurrence]:
        """The rows, the oldest slot first. Many slots with the same verdict may be one row."""
        rows = [row for row in self._ledger if task in (None, row.task_id)]
        return sorted(rows, key=lambda row: (row.slot, row.trigger_id))

    def verdicts(self, task: str) -> dict[datetime, Verdict]:
        """Slot by slot."""
        found: dict[datetime, Verdict] = {}
        for row in self.ledger(task):
            slots = [row.slot]
            ts = next((ts for ts in self.state.triggers if ts.id == row.trigger_id), None)
            if row.count > 1 and ts is not None and ts.trigger.type not in BY_EVENT:
                bare = replace(ts, cursor=row.slot - timedelta(microseconds=1), next_known=False, verdicts={})
                slots = due_slots(bare, row.last, self.state.calendars, row.count)[0]
            found |= dict.fromkeys(slots, row.verdict)
        return found

    def why(self, task: str) -> list[Gate]:
        """Every gate of the task, as ``taskcenter why`` shows them."""
        return why(self.state, task, self.clock.now())

    def held_by(self, task: str) -> list[str]:
        """The names of the gates that hold it now."""
        return [gate.name for gate in self.why(task) if gate.verdict is GateVerdict.HOLD]

    # --- the machinery ----------------------------------------------------------------------------------------

    def _look(self) -> None:
        """What the service does: close what ended, decide, start what may."""
        now = self.clock.now()
        while True:
            self._finish(now)
            decisions = decide(self.state, now)
            self._ledger.add(decisions.occurrences)
            self.state = apply(self.state, decisions)
            self.events += [event for event in decisions.events if event[0] != "scheduler_tick"]
            for cancel in decisions.cancel:
                run = self._runs[cancel.run_id]
                run.status, run.finished_at = RunStatus.CANCELLED, now
            self._note()
            if not decisions.unfinished and not decisions.firings:
                break
        started = set(admit(self.state, now).start)
        if started:
            runs = tuple(run.running(now) if run.id in started else run for run in self.state.runs)
            self.state = replace(self.state, runs=runs)
            for run_id in started:
                run = self._runs[run_id]
                takes = self._work[run.task].takes
                run.status, run.started_at = RunStatus.RUNNING, now
                run.ends = now + timedelta(seconds=takes(run) if callable(takes) else takes)
            if any(run.ends is not None and run.ends <= now for run in map(self._runs.__getitem__, started)):
                self._look()

    def _note(self) -> None:
        """A record for each run that is new."""
        for run in self.state.runs:
            if run.id not in self._runs:
                self._runs[run.id] = TestRun(
                    run.id, run.task_id, run.trigger_id, run.slot, run.attempt, run.origin, run.created_at
                )

    def _finish(self, now: datetime) -> None:
        left: list[OpenRun] = []
        over: list[EndedRun] = []
        for run in self.state.runs:
            record = self._runs[run.id]
            if record.ends is None or record.ends > now:
                left.append(run)
                continue
            fails = self._work[run.task_id].fails
            failed = fails(record) if callable(fails) else fails
            record.status, record.finished_at = RunStatus.FAILED if failed else RunStatus.SUCCESS, record.ends
            over.append(self._ended(run, record))
        if not over:
            return
        last = {run.trigger_id: run.finished_at for run in over if run.trigger_id is not None}
        triggers = tuple(replace(ts, last_finished=last[ts.id]) if ts.id in last else ts for ts in self.state.triggers)
        self.state = replace(self.state, runs=tuple(left), ended=(*self.state.ended, *over), triggers=triggers)

    def _ended(self, run: OpenRun, record: TestRun) -> EndedRun:
        ts = next((ts for ts in self.state.triggers if ts.id == run.trigger_id), None)
        own = ts.trigger.retry_policy if ts is not None else RetryPolicy()
        policy = own if own.max_attempts else self._work[run.task_id].retry_policy
        assert record.finished_at is not None
        return EndedRun(
            run.id, run.task_id, record.status, record.finished_at, run.trigger_id, run.slot, run.origin,
            run.priority, run.attempt, run.root_run_id, policy,
        )  # fmt: skip

    def _next_event(self) -> datetime | None:
        """The next time after now at which there is something to look at."""
        now, found = self.clock.now(), []
        for standing in (self.state.standing, *(task.standing for task in self.state.tasks.values())):
            found += [hold.until for hold in standing.all() if hold.until is not None]
        graces = {ts.id: ts.trigger.misfire_grace_seconds for ts in self.state.triggers if may_drop(ts.trigger)}
        for run in self.state.runs:
            record = self._runs[run.id]
            if record.ends is not None:
                found.append(record.ends)
            elif run.ready_at is not None:
                found.append(run.ready_at)
            if record.ends is None and run.trigger_id in graces:
                found.append(run.due_at + (graces[run.trigger_id] + 1) * _SECOND)
        for ts in self.state.triggers:
            found += [hold.until for hold in ts.standing.all() if hold.until is not None]
            if ts.trigger.counts_from == "completion":
                active = any(run.trigger_id == ts.id for run in self.state.runs)
                slot = advance(ts, start_of(ts), self.state.calendars, active)
            else:
                slot = ts.next_slot
            if slot is not None:
                found.append(slot)
        return min((at for at in found if at > now), default=None)

    def _task(self, name: str) -> TaskState:
        task = self.state.tasks.get(name)
        if task is None:
            raise NotFound(f"there is no task {name!r}; there are: {', '.join(self.state.tasks) or 'none'}")
        return task

    def _state_of(self, trigger_id: str) -> TriggerState:
        found = next((ts for ts in self.state.triggers if ts.id == trigger_id), None)
        if found is None:
            raise NotFound(f"there is no trigger {trigger_id!r}")
        return found

    def _put(self, new: TriggerState) -> None:
        rest = tuple(ts for ts in self.state.triggers if ts.id != new.id)
        self.state = replace(self.state, triggers=(*rest, new))

    def _standing(self, task: str | None) -> Standing:
        return self.state.standing if task is None else self._task(task).standing

    def _stand(self, task: str | None, standing: Standing) -> None:
        if task is None:
            self.state = replace(self.state, standing=standing)
            return
        changed = replace(self._task(task), standing=standing)
        self.state = replace(self.state, tasks={**self.state.tasks, task: changed})
