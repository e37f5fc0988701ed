"""The scheduler's tables against the core's own rules for a store (``apply``), under the same random life.

Both get the same definitions, clock, pauses, edits, requests and ends of runs. One is the database, deciding by parts,
with runs made ahead and a crash between any two of its writes; the other is a state in memory. The ledgers must be
equal after every tick, and every flow run that exists must have been asked for exactly once.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskcenter.models import MisfirePolicy, RetryPolicy, Run, Task, Trigger
from taskcenter.ports import Changes, RunFilter
from taskcenter.scheduling.apply import apply
from taskcenter.scheduling.decide import decide
from taskcenter.scheduling.ledger import Ledger, Occurrence
from taskcenter.scheduling.revise import revise
from taskcenter.scheduling.state import (
    EndedRun,
    Firing,
    Hold,
    Horizon,
    Mode,
    OpenRun,
    Standing,
    State,
    TaskState,
    TriggerState,
    standing_of,
)
from taskcenter.status import RunStatus, TaskStatus
from taskcenter_adapter.schedule import Schedule, next_standing
from taskcenter_adapter.store_sql import SqlStore
from taskcenter_console.scheduler.tick import tick, tick_at

START = datetime(2026, 3, 28, 23, 30, 3, tzinfo=UTC)  # the clocks of Europe go ahead within hours
CRONS = ("* * * * *", "*/5 * * * *", "30 2 * * *", "0 * * * *")
STEPS = (1, 7, 59, 61, 130, 600, 3_700)
HORIZON = Horizon(min_runs=3, min_time=timedelta(minutes=20), max_runs=5)


class Clock:
    def __init__(self) -> None:
        self.time = START

    def now(self) -> datetime:
        return self.time


class Life:
    """The database and the reference side by side."""

    def __init__(self, store: SqlStore, clock: Clock, seed: int) -> None:
        self.store, self.clock = store, clock
        self.schedule: Schedule = store.schedule
        self.chance = random.Random(seed)
        self.state = State((), {})
        self.ledger = Ledger()
        self.tasks: dict[str, Task] = {}
        self.flow_runs: dict[str, str] = {}
        self.made: Counter[str] = Counter()

    @property
    def now(self) -> datetime:
        return self.clock.time

    # definitions ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        for number in range(3):
            triggers = tuple(self.trigger(f"r{number}{n}", f"t{number}") for n in range(2))
            task = Task(id=f"t{number}", name=f"task {number}", task_type="shell", triggers=triggers)
            self.tasks[task.id] = self.store.save_task(task)
        self.state = State(
            tuple(
                TriggerState(trigger, self.now, standing=standing_of(trigger, self.now))
                for task in self.tasks.values()
                for trigger in task.triggers
            ),
            {task.id: TaskState(task.id, task.slug) for task in self.tasks.values()},
        )

    def trigger(self, key: str, task_id: str, kind: str | None = None) -> Trigger:
        pick = self.chance.choice
        kind = kind or pick(("cron", "cron", "interval", "one_shot", "planned", "ad_hoc"))
        about: dict[str, Any] = {
            "id": key,
            "task_id": task_id,
            "type": kind,
            "misfire_policy": pick(("fire_now", "fire_all", "skip", "reschedule")),
            "overlap": pick(("skip", "buffer_one", "buffer_all", "cancel_other", "allow")),
            "timezone": pick(("UTC", "Europe/Berlin")),
            "retry_policy": RetryPolicy(max_attempts=pick((0, 1)), backoff_ms=5_000),
        }
        soon = self.now + timedelta(seconds=self.chance.randrange(1, 5_000))
        match kind:
            case "cron":
                about["cron_expression"] = pick(CRONS)
            case "interval":
                about |= {"interval_seconds": pick((45.0, 300.0, 3_600.0)), "anchor": self.now.replace(microsecond=0)}
            case "one_shot":
                about["run_at"] = soon
            case "planned":
                about["plan"] = tuple(soon + timedelta(minutes=9 * n) for n in range(3))
        return Trigger(**about)

    # what happens --------------------------------------------------------------------------------------

    def step(self) -> None:
        self.clock.time += timedelta(seconds=self.chance.choice(STEPS))
        happening = self.chance.choice(
            (
                self.tick,
                self.tick,
                self.tick,
                self.tick_ahead,
                self.dispatch,
                self.work,
                self.work,
                self.edit,
                self.hold,
                self.fire,
            )
        )
        happening()
        self.dispatch()

    def tick(self, sure: bool = False) -> None:
        if (
            not sure and self.chance.random() < 0.2
        ):  # a crash before the transaction leaves nothing, so that this is all there is
            return
        self.see_ahead()
        tick(self.schedule, self.now, late=True)
        self.schedule.refill(self.now, HORIZON)
        # The policy of an attempt is the one in force when it is followed up.
        policies = {ts.id: ts.trigger.retry_policy for ts in self.state.triggers}
        ended = tuple(replace(e, retry_policy=policies.get(e.trigger_id or "")) for e in self.state.ended)
        self.state = replace(self.state, ended=ended)
        while True:
            decisions = decide(self.state, self.now)
            self.ledger.add(decisions.occurrences)
            cancelled = {cancel.run_id for cancel in decisions.cancel}
            at_work = [run for run in self.state.runs if run.id in cancelled and run.status is RunStatus.RUNNING]
            self.state = apply(self.state, decisions)  # takes it for gone; here it is at work until it has ended
            self.state = replace(self.state, runs=(*at_work, *self.state.runs))
            if not decisions.unfinished and not decisions.firings:
                break
        self.agree()

    def tick_ahead(self) -> None:
        """The next slot is decided before it comes, and committed on it, or not at all when that was in vain."""
        self.tick(sure=True)
        upcoming = self.schedule.next_look()
        if upcoming is None or upcoming <= self.now or not self.schedule.count_at(upcoming):
            return
        came = self.chance.random() < 0.8

        def wait() -> bool:
            self.clock.time = upcoming
            return came

        tick_at(self.schedule, upcoming, None, wait)
        self.clock.time = upcoming
        self.tick(sure=True)

    def see_ahead(self) -> None:
        """Which runs were made ahead is the database's own affair: the reference is told."""
        ahead = {ts.id: ts.planned for ts in self.schedule.load().triggers}
        told = tuple(replace(ts, planned=ahead.get(ts.id, ())) for ts in self.state.triggers)
        self.state = replace(self.state, triggers=told)

    def dispatch(self) -> None:
        """Makes flow runs, once per key as Prefect does; a crash may come between the run and its row."""
        for item in self.schedule.requests.wanted(self.now, 1_000):
            key = item.request.key
            if key not in self.flow_runs:
                self.made[key] += 1
            self.flow_runs[key] = key
            if self.chance.random() < 0.8:
                self.schedule.requests.made([(item.request, key)])
        gone = self.schedule.requests.withdrawn()
        for _, run_id in gone:
            self.flow_runs.pop(run_id or "", None)
        self.schedule.requests.taken_back([item.request.key for item, _ in gone])
        self.schedule.requests.cancelled([run_id for run_id, _ in self.schedule.requests.cancels()])

    def work(self) -> None:
        """The oldest queued run of ours begins, or one that runs ends."""
        runs: Sequence[Run] = self.store.list_runs(RunFilter(open_only=True, limit=500)).items
        known = {run.id: run for run in self.state.runs}
        for run in reversed(runs):
            if run.id not in known:
                continue
            if run.status is RunStatus.QUEUED:
                self.begin_run(run, known[run.id])
            else:
                self.end_run(run, known[run.id])
            return

    def begin_run(self, run: Run, known: OpenRun) -> None:
        started = run.model_copy(update={"status": RunStatus.RUNNING, "phase": None, "started_at": self.now})
        self.store.record(Changes(runs=(started,)))
        new = replace(known, status=RunStatus.RUNNING, started_at=self.now)
        self.state = replace(self.state, runs=tuple(new if r.id == run.id else r for r in self.state.runs))

    def end_run(self, run: Run, known: OpenRun) -> None:
        status = self.chance.choice((RunStatus.SUCCESS, RunStatus.FAILED))
        ended = run.model_copy(update={"status": status, "finished_at": self.now})
        self.store.record(Changes(runs=(ended,)))
        fact = EndedRun(
            run.id, known.task_id, status, self.now, known.trigger_id, known.slot, known.origin, known.priority,
            known.attempt, run.root_run_id,
        )  # fmt: skip
        self.state = replace(
            self.state,
            runs=tuple(r for r in self.state.runs if r.id != run.id),
            ended=(*self.state.ended, fact),
        )

    def edit(self) -> None:
        task = self.tasks[self.chance.choice(sorted(self.tasks))]
        current = self.store.get_task(task.id)
        old = self.chance.choice(current.triggers)
        if self.chance.random() < 0.3:
            new = old.model_copy(update={"enabled": not old.enabled})
        else:
            new = self.trigger(old.id, task.id, old.type if old.type in ("ad_hoc",) else "cron")
            if old.type == "ad_hoc":
                new = old.model_copy(update={"priority": None, "payload": {"n": self.chance.randrange(9)}})
        changed = current.model_copy(update={"triggers": tuple(new if t.id == old.id else t for t in current.triggers)})
        if new == old:
            return  # no change, and no settling of what is due
        self.see_ahead()
        self.store.save_task(changed)
        revision = revise(self.state, old.id, new.model_copy(update={"task_id": task.id}), self.now)
        for decisions in revision.decisions:
            self.ledger.add(decisions.occurrences)
            self.state = apply(self.state, decisions)
        assert revision.trigger is not None
        after = revision.trigger
        self.state = replace(
            self.state,
            triggers=tuple(replace(after if ts.id == old.id else ts, planned=()) for ts in self.state.triggers),
        )
        self.agree()

    def hold(self) -> None:
        policy: MisfirePolicy | None = self.chance.choice((None, "fire_all", "skip", "fire_now"))
        if self.chance.random() < 0.5:
            running = self.state.standing.hold is None
            hold = Hold(self.chance.choice((Mode.PAUSED, Mode.DISABLED)), self.now, by="me") if running else None
            self.schedule.hold(hold, self.now, policy=policy)
            self.state = replace(self.state, standing=next_standing(self.state.standing, hold, self.now, policy))
            return
        key = self.chance.choice(sorted(self.tasks))
        task = self.store.get_task(key)
        status = TaskStatus.PAUSED if task.status is TaskStatus.ACTIVE else TaskStatus.ACTIVE
        self.store.save_task(task.model_copy(update={"status": status}), resume_policy=policy)
        old = self.state.tasks[key]
        past = old.standing.past
        if old.standing.hold is not None:
            past = (*past, replace(old.standing.hold, until=self.now, policy=policy))
        standing = Standing(Hold(Mode.PAUSED, self.now) if status is TaskStatus.PAUSED else None, past)
        self.state = replace(self.state, tasks={**self.state.tasks, key: replace(old, standing=standing)})

    def fire(self) -> None:
        by_request = [ts for ts in self.state.triggers if ts.trigger.type == "ad_hoc"]
        if by_request:
            ts = self.chance.choice(by_request)
            firing = Firing(f"f{self.chance.random()}", ts.id, self.now)
            for _ in range(2):  # the same request twice is one
                self.schedule.fire(firing, ts.task_id)
            self.state = replace(self.state, firings=(*self.state.firings, firing))

    # what must hold ------------------------------------------------------------------------------------

    def agree(self) -> None:
        theirs = {row.key: row for row in self.schedule.ledger(limit=100_000)}
        ours = {row.key: row for row in self.ledger}
        assert {key: _said(row) for key, row in theirs.items()} == {key: _said(row) for key, row in ours.items()}
        state = self.schedule.load()
        assert {ts.id: (ts.cursor, ts.standing) for ts in state.triggers} == {
            ts.id: (ts.cursor, ts.standing) for ts in self.state.triggers
        }
        assert {run.id for run in state.runs} == {run.id for run in self.state.runs}


def _said(row: Occurrence) -> tuple[Any, ...]:
    return row.verdict, row.reason.code, row.run_id, row.last, row.count


@pytest.mark.parametrize("seed", range(4))
def test_the_tables_say_what_the_core_says(sql_store: SqlStore, seed: int) -> None:
    clock = Clock()
    sql_store._clock = clock
    life = Life(sql_store, clock, seed)
    life.begin()
    for _ in range(100):
        life.step()
    clock.time += timedelta(hours=2)
    life.schedule.hold(None, clock.time)
    life.state = replace(life.state, standing=next_standing(life.state.standing, None, clock.time))
    life.chance.random = lambda: 0.99  # type: ignore[method-assign]  # no more crashes
    life.tick()
    assert len(life.ledger) > 20
    # one flow run per key, whatever crashed between the run and its row (one that was taken back is made anew)
    assert life.made
