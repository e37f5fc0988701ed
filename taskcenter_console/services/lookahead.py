"""Looking ahead and back: why a task runs or not, a simulation, a backtest, a preview of a trigger. (spec 4.1, 4.9)

Every answer is the scheduler's own core, asked about the state of now; nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from pydantic import ValidationError

from deployments.spec import POOL
from taskcenter.clock import utc_now
from taskcenter.errors import Problem, ServerAway, ValidationFailed
from taskcenter.models import Run, Task, Trigger
from taskcenter.ports import RunFilter
from taskcenter.scheduling.backtest import Backtest
from taskcenter.scheduling.backtest import backtest as replay
from taskcenter.scheduling.calendars import Calendars
from taskcenter.scheduling.facts import facts_of, history_of
from taskcenter.scheduling.ledger import Occurrence
from taskcenter.scheduling.limits import connections_in
from taskcenter.scheduling.neighbours import QuietMinute, quiet_minutes, tasks_at
from taskcenter.scheduling.occurrences_preview import Preview
from taskcenter.scheduling.occurrences_preview import preview as look_at
from taskcenter.scheduling.simulate import Interval
from taskcenter.scheduling.simulate import simulate as run_fleet
from taskcenter.scheduling.simulation import Simulation
from taskcenter.scheduling.state import Hold, Limits, Mode, Standing, State, TaskState
from taskcenter.scheduling.why import Gate, GateVerdict
from taskcenter.scheduling.why import why as gates_of
from taskcenter.slot_reasons import iso
from taskcenter.status import RunStatus, TaskStatus

from . import queue as queue_service
from . import tasks as task_service
from . import workers
from .center import Center

__all__ = [
    "Looked",
    "Memory",
    "Previewed",
    "Simulated",
    "Tested",
    "Why",
    "backtest",
    "findings",
    "ledger",
    "limits_of",
    "preview",
    "simulate",
    "why",
]

FARTHEST = timedelta(days=50 * 365)
"""How far from now a simulation may begin."""
LONGEST = timedelta(days=31)
"""The longest simulation."""
MOST_RUNS = 20_000
"""Runs that are read for a history of durations."""
MOST_ROWS = 100_000
"""Rows of the ledger that are read for a backtest."""


class Memory(Protocol):
    """What is asked of the scheduler's memory."""

    def load(self) -> State: ...
    def ledger(
        self, *, task_id: str | None = None, trigger_id: str | None = None, since: datetime | None = None,
        until: datetime | None = None, verdict: str | None = None, limit: int = 1000,
    ) -> list[Occurrence]: ...  # fmt: skip


# --- why ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Why:
    """The gates of a task at a time to come; of a past time what the ledger recorded last."""

    task: Task
    at: datetime
    gates: Sequence[Gate]
    recorded: Sequence[Occurrence]

    @property
    def runs(self) -> bool | None:
        """Whether nothing holds it; None for a past time."""
        return None if not self.gates else all(gate.verdict is GateVerdict.PASS for gate in self.gates)

    @property
    def answer(self) -> str:
        held = [gate for gate in self.gates if gate.verdict is GateVerdict.HOLD]
        if held:
            more = f" (and {len(held) - 1} more)" if len(held) > 1 else ""
            return f"{held[0].sentence}{more}"
        if self.gates:
            return "nothing holds it"
        if not self.recorded:
            return "nothing is recorded of it up to then"
        row = max(self.recorded, key=lambda row: row.last)
        return f"its slot {row.last.isoformat()} was {row.verdict}: {row.reason}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "task": self.task.slug,
            "at": iso(self.at),
            "runs": self.runs,
            "answer": self.answer,
            "gates": [
                {
                    "gate": gate.name,
                    "verdict": gate.verdict.value,
                    "sentence": gate.sentence,
                    "since": iso(gate.since),
                    "until": iso(gate.until),
                }
                for gate in self.gates
            ],
            "recorded": [row.to_json() for row in self.recorded],
        }


def why(center: Center, name: str, at: datetime | None = None, trigger: str | None = None) -> Why:
    """Why the task runs at ``at`` (now when it is None) or does not; ``trigger``: for this one of its triggers."""
    memory, now = center.need_schedule(), utc_now()
    task = task_service.get(center, name)
    trigger_id = _trigger_of(task, trigger)
    if at is not None and at < now - timedelta(seconds=1):
        return Why(task, at, (), _recorded(memory, task, trigger_id, at))
    state = memory.load()
    if not any(ts.task_id == task.id for ts in state.triggers):
        state = replace(state, tasks={**state.tasks, task.id: _state_of(state, task, now)})
    state = replace(state, worker_seen=_worker_seen(center), limits=_with_places(center, state.limits))
    return Why(task, at or now, gates_of(state, task.id, at or now, trigger_id), ())


def _with_places(center: Center, limits: Limits) -> Limits:
    """Where no limit of the pool is set, the workers that are there have so many places."""
    if queue_service.limits(center).pool:
        return limits
    online = [worker["limit"] for worker in workers.listing(center) if worker["state"] == "online"]
    if not online:
        return limits
    return replace(limits, pool=sum(online) if all(online) else 0)


def _worker_seen(center: Center) -> datetime | None:
    """None, too, when Prefect cannot be asked."""
    try:
        return center.gateway.worker_seen(POOL)
    except ServerAway:
        return None


def _trigger_of(task: Task, name: str | None) -> str | None:
    if name is None:
        return None
    found = [trigger.id for trigger in task.triggers if trigger.id == name or trigger.id.startswith(name)]
    if len(found) != 1:
        said = f"the task {task.slug} has {'no trigger' if not found else 'several triggers'} {name!r}"
        raise ValidationFailed("the question", [Problem("trigger", "trigger", said)])
    return found[0]


def _recorded(memory: Memory, task: Task, trigger_id: str | None, at: datetime) -> list[Occurrence]:
    """The last row of each trigger up to ``at``."""
    newest: dict[str, Occurrence] = {}
    for row in memory.ledger(task_id=task.id, trigger_id=trigger_id, until=at, limit=1000):
        newest.setdefault(row.trigger_id, row)
    return list(newest.values())


def _state_of(state: State, task: Task, now: datetime) -> TaskState:
    modes = {TaskStatus.PAUSED: Mode.PAUSED, TaskStatus.DISABLED: Mode.DISABLED}
    mode = modes.get(task.status)
    standing = Standing(Hold(mode, task.updated_at or now)) if mode is not None else Standing()
    known = state.tasks.get(task.id)
    named, uses = (known.connections, known.uses) if known else (connections_in(task.payload), ())
    return TaskState(task.id, task.slug, standing, task.priority, task.max_concurrent, task.tags, named, uses)


# --- the ledger -----------------------------------------------------------------------------------------------------


def ledger(
    center: Center, name: str, *, trigger: str | None = None, since: datetime | None = None,
    until: datetime | None = None, verdict: str | None = None, limit: int = 100,
) -> tuple[Task, list[Occurrence]]:  # fmt: skip
    """What became of the slots of a task, newest first."""
    task = task_service.get(center, name)
    rows = center.need_schedule().ledger(
        task_id=task.id, trigger_id=_trigger_of(task, trigger), since=since, until=until, verdict=verdict, limit=limit
    )
    return task, rows


# --- simulate -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Looked:
    """What one task did in a simulation."""

    task: str
    slots: int
    runs: int
    not_run: int
    busy_seconds: float
    most_late: float


@dataclass(frozen=True)
class Simulated:
    """A simulation, with the names of its tasks."""

    found: Simulation
    seed: int | None
    names: Mapping[str, str]
    pool: int

    def tasks(self) -> list[Looked]:
        """By task, the busiest first."""
        slots: dict[str, int] = {}
        for row in self.found.rows:
            if row.amends is None:
                slots[row.task_id] = slots.get(row.task_id, 0) + row.count
        runs: dict[str, list[Any]] = {}
        for run in self.found.runs:
            runs.setdefault(run.task_id, []).append(run)
        made = []
        for task_id in {*slots, *runs}:
            own = [run for run in runs.get(task_id, ()) if run.started is not None]
            busy = sum(((run.ended or self.found.end) - run.started).total_seconds() for run in own)
            late = max((run.late_seconds for run in own), default=0.0)
            count = slots.get(task_id, 0)
            made.append(Looked(self.name(task_id), count, len(own), max(0, count - len(own)), busy, late))
        return sorted(made, key=lambda one: (-one.busy_seconds, one.task))

    def name(self, task_id: str) -> str:
        return self.names.get(task_id, task_id)

    def to_dict(self, most_runs: int = 1_000) -> dict[str, Any]:
        """``runs``: the first ``most_runs``, for a Gantt chart; ``runCount`` says how many there are."""
        found = self.found
        return {
            "from": iso(found.start),
            "to": iso(found.end),
            "seed": self.seed,
            "pool": self.pool,
            "slots": sum(found.verdicts.values()),
            "verdicts": found.verdicts,
            "misfires": found.misfires,
            "overlaps": found.overlaps,
            "waiting": found.waiting,
            "lateness": found.lateness,
            "occupancy": [{"hour": iso(o.hour), "mean": o.mean, "peak": o.peak} for o in found.occupancy],
            "tasks": [
                {
                    "task": one.task,
                    "slots": one.slots,
                    "runs": one.runs,
                    "busySeconds": one.busy_seconds,
                    "mostLateSeconds": one.most_late,
                }
                for one in self.tasks()
            ],
            "runCount": len(found.runs),
            "runs": [
                {
                    "task": self.name(run.task_id),
                    "triggerId": run.trigger_id,
                    "slot": iso(run.slot),
                    "due": iso(run.due),
                    "started": iso(run.started),
                    "ended": iso(run.ended),
                    "lateSeconds": run.late_seconds,
                    "cancelled": run.cancelled,
                }
                for run in found.runs[:most_runs]
            ],
        }


def simulate(
    center: Center,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    outages: Sequence[Interval] = (),
    pauses: Sequence[Interval] = (),
    sets: Sequence[str] = (),
    seed: int | None = None,
) -> Simulated:
    """The whole fleet on a virtual clock; without an end it goes on for a day. Durations come from the history."""
    now = utc_now()
    start = start or now
    if abs(start - now) > FARTHEST:
        said = f"lies more than {FARTHEST.days // 365} years from now"
        raise ValidationFailed("the simulation", [Problem("too_far", "from", said)])
    end = end or start + timedelta(days=1)
    if end <= start:
        raise ValidationFailed("the simulation", [Problem("backwards", "to", "must lie after the beginning")])
    if end - start > LONGEST:
        said = f"lies more than {LONGEST.days} days after the beginning: a simulation is for at most so many"
        raise ValidationFailed("the simulation", [Problem("too_long", "to", said)])
    state = center.need_schedule().load()
    limits = limits_of(state, sets) if sets else state.limits
    durations = history_of(_runs(center))
    found = run_fleet(state, start, end, durations, seed=seed, outages=outages, pauses=pauses, limits=limits)
    return Simulated(found, seed, {task.id: task.slug for task in state.tasks.values()}, limits.pool)


def limits_of(state: State, sets: Sequence[str]) -> Limits:
    """The limits with ``limit=2``, ``task.NAME=1``, ``tag.NAME=1``, ``connection.NAME=1`` put in. 0: no limit."""
    limits, problems = state.limits, []
    slugs = {task.slug: task.id for task in state.tasks.values()}
    for text in sets:
        name, _, number = text.partition("=")
        kind, _, whose = name.strip().partition(".")
        if not (number.strip().isdigit() and len(number.strip()) <= 6):
            problems.append(Problem("not_number", text, "must end in =N, a whole number (0: no limit)"))
        elif name.strip() in ("limit", "pool"):
            limits = replace(limits, pool=int(number))
        elif kind == "task" and whose:
            if whose not in slugs and whose not in state.tasks:
                problems.append(Problem("unknown_task", text, f"there is no task {whose!r} with a trigger"))
            limits = replace(limits, tasks={**limits.tasks, slugs.get(whose, whose): int(number)})
        elif kind == "tag" and whose:
            limits = replace(limits, tags={**limits.tags, whose: int(number)})
        elif kind == "connection" and whose:
            limits = replace(limits, connections={**limits.connections, whose: int(number)})
        else:
            said = "is no limit: write limit=2, task.NAME=1, tag.NAME=1 or connection.NAME=1"
            problems.append(Problem("unknown_limit", text, said))
    if problems:
        raise ValidationFailed("the limits", problems)
    return limits


def _runs(center: Center, since: datetime | None = None, most: int = MOST_RUNS) -> list[Run]:
    """Newest first, those that were made from ``since`` on."""
    found: list[Run] = []
    cursor: str | None = None
    while len(found) < most:
        page = center.store.list_runs(RunFilter(limit=1_000, cursor=cursor))
        found += page.items
        cursor = page.next_cursor
        if cursor is None or (since is not None and found[-1].created_at < since):
            break
    return [run for run in found if run.status is not RunStatus.QUEUED]


# --- backtest -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tested:
    """A backtest with the names of its tasks. ``start`` is later than what was asked for when not all was read."""

    found: Backtest
    start: datetime
    end: datetime
    names: Mapping[str, str]

    def to_dict(self, most: int = 100) -> dict[str, Any]:
        durations = self.found.durations
        return {
            "from": iso(self.start),
            "to": iso(self.end),
            "compared": self.found.compared,
            "agreed": self.found.agreed,
            "agreement": round(self.found.agreement, 3),
            "differences": [
                {
                    "triggerId": one.trigger_id,
                    "task": self.names.get(one.trigger_id),
                    "slot": iso(one.slot),
                    "recorded": one.recorded.value if one.recorded else None,
                    "replayed": one.replayed.value if one.replayed else None,
                }
                for one in self.found.differences[:most]
            ],
            "durations": None
            if durations is None
            else {
                "runs": durations.count,
                "meanErrorSeconds": durations.mean_seconds,
                "medianErrorPercent": durations.median_percent,
            },
        }


def backtest(center: Center, days: float = 30) -> Tested:
    """Replay the last ``days`` and compare every verdict with the one that was recorded."""
    memory, now = center.need_schedule(), utc_now()
    if not 0 < days <= 366:
        raise ValidationFailed("the backtest", [Problem("days", "days", "must be more than 0 and at most 366")])
    start = now - timedelta(days=days)
    rows = memory.ledger(since=start, until=now, limit=MOST_ROWS)
    if not rows:
        return Tested(Backtest(0, 0, (), None), start, now, {})
    # From the first slot on that is recorded, to the last: the youngest may still wait for their look.
    start = max(start, min(row.slot for row in rows))
    end = min(now, max(row.last for row in rows))
    state = memory.load()
    known = _runs(center, since=start - timedelta(days=max(1.0, days)))
    facts = facts_of(state, rows, known, start)
    names = {task.id: task.slug for task in state.tasks.values()}
    found = replay(facts, start, end)
    return Tested(found, start, end, {ts.id: names.get(ts.task_id, ts.task_id) for ts in state.triggers})


# --- preview --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Previewed:
    """A trigger that is not saved, or is: its sentence, its next slots, what is wrong or doubtful, who else fires."""

    trigger: Trigger
    found: Preview
    same_slot: int
    quiet: Sequence[QuietMinute]

    @property
    def ok(self) -> bool:
        return all(problem.severity != "error" for problem in self.found.problems)

    def to_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "sentence": self.found.sentence,
            "slots": [{"at": iso(s.at), "wall": s.wall.isoformat(), "mark": s.mark} for s in self.found.slots],
            "problems": [problem.to_dict() for problem in self.found.problems],
            "sameSlot": self.same_slot,
            "suggestions": [{"at": iso(q.at), "tasks": q.tasks, "cronExpression": q.cron} for q in self.quiet],
        }


def preview(
    data: Mapping[str, Any] | Trigger,
    others: Iterable[Trigger] = (),
    *,
    count: int = 10,
    calendars: Calendars | None = None,
    now: datetime | None = None,
) -> Previewed:
    """A trigger in its JSON form, or a saved one. Finding problems is no error; a form that is no trigger is."""
    trigger = data if isinstance(data, Trigger) else _parsed(data)
    now = now or utc_now()
    found = look_at(trigger, now, count, calendars)
    if not found.slots:
        return Previewed(trigger, found, 0, ())
    known, first = [other for other in others if other.id != trigger.id], found.slots[0].at
    same = tasks_at(known, first, but=trigger.task_id)
    quiet = quiet_minutes(trigger, first, known) if same and trigger.type == "cron" else []
    if same:
        said = f"fires at the same moment as {same} other task{'s' if same != 1 else ''}, first at {first.isoformat()}"
        field = "cronExpression" if trigger.type == "cron" else ""
        found = replace(found, problems=(*found.problems, Problem("same_slot", field, said, severity="warning")))
    return Previewed(trigger, found, same, quiet)


def findings(tasks: Sequence[Task], calendars: Calendars | None = None) -> list[tuple[Task, Trigger, Problem]]:
    """What is wrong or doubtful about the triggers of ``tasks``; tasks that all come next in the same minute too."""
    now = utc_now()
    found: list[tuple[Task, Trigger, Problem]] = []
    together: dict[datetime, list[tuple[Task, Trigger]]] = {}
    for task in tasks:
        for trigger in task.triggers:
            seen = look_at(trigger, now, 1, calendars)
            found += [(task, trigger, problem) for problem in seen.problems]
            if seen.slots and trigger.enabled:
                minute = seen.slots[0].at.replace(second=0, microsecond=0)
                together.setdefault(minute, []).append((task, trigger))
    for minute, own in together.items():
        count = len({task.id for task, _ in own}) - 1
        if count:
            said = (
                f"comes next in the same minute as {count} other task{'s' if count != 1 else ''}: {minute.isoformat()}"
            )
            problem = Problem("same_slot", "", said, severity="warning")
            found += [(task, trigger, problem) for task, trigger in own]
    return found


def _parsed(data: Mapping[str, Any]) -> Trigger:
    try:
        return Trigger.model_validate(data)
    except ValidationError as error:
        problems = [
            Problem(item["type"], ".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, "))
            for item in error.errors(include_url=False)
        ]
        raise ValidationFailed("the trigger", problems) from None
