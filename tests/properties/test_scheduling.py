"""The law of the ledger (spec 4.4) under clocks that stop, jump and change, crashes, edits and pauses of every kind.

A small center stands around the core: it keeps what a database would keep, applies decisions as the store must (all of
it or nothing, only from the cursor it was decided from), and makes runs from their requests afterwards, one by one,
where a crash may come between any two. What the ledger must hold is computed beside it, from the definitions alone.

``TASKCENTER_TEST_CAMPAIGN=5000`` tries that many cases of chance, and makes one that fails small.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from taskcenter.errors import Conflict
from taskcenter.models import CatchUp, RetryPolicy, Trigger
from taskcenter.scheduling.admission import admit
from taskcenter.scheduling.apply import apply
from taskcenter.scheduling.calendars import Calendar, Calendars, Rule
from taskcenter.scheduling.decide import decide
from taskcenter.scheduling.decisions import Decisions
from taskcenter.scheduling.ledger import Ledger, Occurrence, Verdict
from taskcenter.scheduling.occurrences import slots
from taskcenter.scheduling.revise import resume, revise, same_timetable
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
)
from taskcenter.status import Origin, RunStatus

CAMPAIGN = int(os.environ.get("TASKCENTER_TEST_CAMPAIGN") or 0)
FAR = 1_000_000
TASKS = ("t0", "t1", "t2")
WEEKEND = Calendar(name="workdays", timezone="Europe/Berlin", exclude=(Rule(weekdays=("sat", "sun")),))
STARTS = (
    datetime(2026, 3, 27, 22, 0, 3, tzinfo=UTC),  # two days before the clocks of Europe go ahead
    datetime(2026, 10, 24, 22, 0, 3, tzinfo=UTC),  # the night before they go back
    datetime(2026, 6, 1, 9, 59, 30, tzinfo=UTC),
)
CRONS = ("* * * * *", "*/15 * * * *", "0 * * * *", "30 2 * * *", "15 2,3 * * 6,0", "0 9 1 * *")
ZONES = ("UTC", "Europe/Berlin", "America/New_York")
POLICIES = st.sampled_from(("fire_now", "skip", "reschedule", "fire_all"))
CAUSES = st.sampled_from(("service_down", "scheduler_paused", "trigger_paused", "task_paused", "overlap", "capacity"))
STEPS = st.sampled_from((0.4, 1, 7, 30, 59, 61, 125, 900, 3_600, 3 * 3_600, 30 * 3_600))


@st.composite
def triggers(draw: Any, now: datetime, number: int, kind: str | None = None) -> Trigger:
    kind = kind or draw(
        st.sampled_from(("cron", "cron", "interval", "completion", "one_shot", "planned", "ad_hoc", "after", "startup"))
    )
    about: dict[str, Any] = {
        "id": f"r{number}",
        "task_id": draw(st.sampled_from(TASKS)),
        "type": "interval" if kind == "completion" else kind,
        "misfire_policy": draw(POLICIES),
        "misfire_by_cause": draw(st.dictionaries(CAUSES, POLICIES, max_size=2)),
        "misfire_grace_seconds": draw(st.sampled_from((0, 60, 60, 600))),
        "catch_up": CatchUp(max=draw(st.sampled_from((1, 3, 100))), window=draw(st.sampled_from((None, 600, 7200)))),
        "overlap": draw(st.sampled_from(("skip", "buffer_one", "buffer_all", "cancel_other", "allow"))),
        "overlap_scope": draw(st.sampled_from(("trigger", "task"))),
        "timezone": draw(st.sampled_from(ZONES)),
        "retry_policy": RetryPolicy(max_attempts=draw(st.integers(0, 1)), backoff_ms=5_000),
    }
    moment = st.integers(-7_200, 90_000).map(lambda seconds: now + timedelta(seconds=seconds))
    if kind == "cron":
        about["cron_expression"] = draw(st.sampled_from(CRONS))
    elif kind == "interval":
        about |= {"interval_seconds": draw(st.sampled_from((10, 60, 3_600, 5_400.5))), "anchor": draw(moment)}
    elif kind == "completion":
        about |= {"interval_seconds": draw(st.sampled_from((60, 1_800))), "counts_from": "completion"}
    elif kind == "one_shot":
        about["run_at"] = draw(moment)
    elif kind == "planned":
        about["plan"] = tuple(draw(st.lists(moment, min_size=1, max_size=5)))
    elif kind == "after":
        about["task_ids"] = tuple(draw(st.sets(st.sampled_from(TASKS), min_size=1, max_size=2)) - {about["task_id"]})
        about["condition"] = draw(st.sampled_from(("success", "failed", "done")))
    if kind in ("cron", "interval") and draw(st.integers(0, 4)) == 0:
        about |= {"start_at": now + timedelta(hours=1), "end_at": now + timedelta(hours=60)}
    if kind in ("cron", "one_shot", "planned") and draw(st.integers(0, 3)) == 0:
        about["calendar"] = "workdays"
        about["calendar_rule"] = draw(st.sampled_from(("skip", "next_working_day", "previous_working_day")))
    return Trigger(**about)


# --- what the ledger must hold, from the definitions alone ------------------------------------------------------------


@dataclass
class Segment:
    """A definition and the time in which it was in force: slots with ``after < slot <= until``."""

    trigger: Trigger
    after: datetime
    until: datetime | None = None


def computed(segment: Segment, until: datetime) -> set[datetime]:
    """The slots of a definition, those moved by its calendar too."""
    trigger = segment.trigger
    until = until if segment.until is None else segment.until
    if trigger.type not in ("cron", "interval") or trigger.counts_from == "completion":
        return set()
    fortnight = timedelta(days=15)
    wide = slots(trigger, segment.after - fortnight, until + fortnight, FAR) if trigger.calendar else []
    found = set(slots(trigger, segment.after, until, FAR))
    if trigger.calendar and trigger.calendar_rule != "skip":
        sign = 1 if trigger.calendar_rule == "next_working_day" else -1
        zone, berlin = ZoneInfo(trigger.timezone), ZoneInfo("Europe/Berlin")
        for slot in wide:
            if slot <= segment.after and sign == 1:
                continue
            if slot.astimezone(berlin).weekday() < 5 or not in_window(trigger, slot):
                continue
            wall = slot.astimezone(zone).replace(tzinfo=None)
            moved = slot
            while moved.astimezone(berlin).weekday() >= 5:
                wall += sign * timedelta(days=1)
                moved = wall.replace(tzinfo=zone).astimezone(UTC)
            if segment.after < moved <= until:
                found.add(moved)
    return {slot for slot in found if in_window(trigger, slot)}


def in_window(trigger: Trigger, slot: datetime) -> bool:
    return (trigger.start_at is None or slot >= trigger.start_at) and (trigger.end_at is None or slot <= trigger.end_at)


# --- the center -------------------------------------------------------------------------------------------------------


@dataclass
class Center:
    """What a database keeps, and the runs that exist outside of it."""

    state: State
    ledger: Ledger = field(default_factory=Ledger)
    outbox: list[str] = field(default_factory=list)
    """Requested runs that are not made yet."""
    made: Counter[str] = field(default_factory=Counter)
    """How often each run was made outside: keys forbid a second time."""
    started: Counter[str] = field(default_factory=Counter)
    segments: dict[str, list[Segment]] = field(default_factory=dict)
    asked: dict[str, set[str]] = field(default_factory=dict)
    """Firings by trigger, all that ever stood in the inbox."""
    taken: set[str] = field(default_factory=set)
    single: dict[str, set[datetime]] = field(default_factory=dict)
    """The times of one_shot and planned triggers that have come, all that were ever in force."""

    def commit(self, decisions: Decisions, now: datetime) -> None:
        """One transaction. Raises Conflict, with nothing written, when it was decided from an older state."""
        cursors = {ts.id: ts.cursor for ts in self.state.triggers}
        for move in decisions.moves:
            if cursors.get(move.trigger_id, move.expects) != move.expects:
                raise Conflict("the trigger moved in between")
        inbox = {firing.id for firing in self.state.firings}
        if not inbox.issuperset(decisions.consumed):
            raise Conflict("the firing was consumed in between")
        open_ended = {ended.id for ended in self.state.ended}
        if not open_ended.issuperset(decisions.followed):
            raise Conflict("the run was followed in between")
        self.ledger.add(decisions.occurrences)
        self.state = apply(self.state, decisions)
        for run_id in decisions.withdraw:
            self.made[run_id] = 0  # deleted: its key is free again
        self.outbox = [key for key in self.outbox if key not in decisions.withdraw]
        self.outbox += [request.run_id or request.key for request in decisions.runs if request.run_id is None]
        for firing in decisions.firings:
            self.asked.setdefault(firing.trigger_id, set()).add(firing.id)
        self.taken |= set(decisions.consumed)
        for move in decisions.moves:
            if "anchor" in move.changes or "run_at" in move.changes:
                trigger = self.trigger(move.trigger_id).trigger
                self.renew(trigger, now if move.cursor is None else move.cursor)

    def make_runs(self, count: int = FAR) -> None:
        for key in self.outbox[:count]:
            assert self.made[key] == 0, f"{key} was made twice"
            self.made[key] += 1
        del self.outbox[:count]

    def trigger(self, trigger_id: str) -> TriggerState:
        return next(ts for ts in self.state.triggers if ts.id == trigger_id)

    def put(self, ts: TriggerState) -> None:
        rest = tuple(other for other in self.state.triggers if other.id != ts.id)
        self.state = replace(self.state, triggers=(*rest, ts))

    def renew(self, trigger: Trigger, at: datetime) -> None:
        """A definition comes into force; the one before it ends."""
        before = self.segments.setdefault(trigger.id, [])
        if before and before[-1].until is None:
            before[-1].until = at
        before.append(Segment(trigger, at))

    def close(self, trigger_id: str, at: datetime) -> None:
        self.segments[trigger_id][-1].until = at


class Scheduling(RuleBasedStateMachine):
    """Anything may happen; ``check`` asks the law."""

    @initialize(start=st.sampled_from(STARTS), ahead=st.booleans(), data=st.data())
    def begin(self, start: datetime, ahead: bool, data: Any) -> None:
        self.now = start
        self.number = 0
        tasks = {name: TaskState(name, max_concurrent=index) for index, name in enumerate(TASKS)}
        horizon = Horizon(min_runs=2, min_time=timedelta(minutes=5), max_runs=6) if ahead else None
        self.center = Center(State((), tasks, calendars=Calendars([WEEKEND]), horizon=horizon))
        for _ in range(2):
            self.add_trigger(data)

    # --- people ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.center.state.triggers) < 5)
    @rule(data=st.data())
    def add_trigger(self, data: Any) -> None:
        self.number += 1
        trigger = data.draw(triggers(self.now, self.number))
        self.center.put(TriggerState(trigger, self.now))
        self.center.renew(trigger, self.now)

    def pick(self, data: Any) -> TriggerState | None:
        known = self.center.state.triggers
        return data.draw(st.sampled_from(known)) if known else None

    @rule(data=st.data())
    def edit(self, data: Any) -> None:
        ts = self.pick(data)
        if ts is None:
            return
        kind = "completion" if ts.trigger.counts_from == "completion" else ts.trigger.type
        number = int(ts.id[1:])
        change: dict[str, Any]
        match data.draw(st.sampled_from(("timetable", "payload", "switch", "pause"))):
            case "timetable":
                new = data.draw(triggers(self.now, number, kind))
                change = {**new.__dict__, "revision": ts.trigger.revision + 1, "task_id": ts.task_id}
                if kind == "after":
                    change["task_ids"] = ts.trigger.task_ids
            case "payload":
                change = {"payload": {"n": ts.trigger.revision}, "revision": ts.trigger.revision + 1}
            case "switch":
                change = {"enabled": not ts.trigger.enabled}
            case _:
                until = self.now + timedelta(seconds=data.draw(STEPS))
                reason = data.draw(st.sampled_from((None, "hands off")))
                change = {"paused_until": None if reason else until, "paused_reason": reason}
        self.revise(ts, ts.trigger.model_copy(update=change))

    def revise(self, ts: TriggerState, new: Trigger | None) -> None:
        found = revise(self.center.state, ts.id, new, self.now)
        for decisions in found.decisions:
            self.center.commit(decisions, self.now)
        self.center.make_runs()
        if found.trigger is None:
            self.center.close(ts.id, max(self.now, ts.cursor or self.now))
            rest = tuple(other for other in self.center.state.triggers if other.id != ts.id)
            firings = tuple(firing for firing in self.center.state.firings if firing.trigger_id != ts.id)
            self.center.state = replace(self.center.state, triggers=rest, firings=firings)
            return
        if not same_timetable(self.center.trigger(ts.id).trigger, found.trigger.trigger):
            self.center.renew(found.trigger.trigger, found.trigger.cursor or self.now)
        self.center.put(found.trigger)

    @rule(data=st.data())
    def delete(self, data: Any) -> None:
        ts = self.pick(data)
        if ts is not None and data.draw(st.integers(0, 3)) == 0:
            self.revise(ts, None)

    @rule(data=st.data(), mode=st.sampled_from((Mode.PAUSED, Mode.PAUSED, Mode.DISABLED)), whom=st.integers(0, 3))
    def hold(self, data: Any, mode: Mode, whom: int) -> None:
        """Pause or disable the scheduler or a task. As the service does, it looks once more before."""
        self.tick(data)
        until = data.draw(st.sampled_from((None, self.now + timedelta(seconds=200))))
        self.stand(whom, lambda standing: Standing(Hold(mode, self.now, until), resume(standing, self.now).past))

    @rule(data=st.data(), whom=st.integers(0, 3), policy=st.one_of(st.none(), POLICIES))
    def resume(self, data: Any, whom: int, policy: Any) -> None:
        """End a hold, perhaps with a choice for the slots that are owed."""
        self.tick(data)

        def ended(standing: Standing) -> Standing:
            hold = standing.at(self.now)
            return standing if hold is None else resume(replace(standing, hold=replace(hold, policy=policy)), self.now)

        self.stand(whom, ended)

    @rule(data=st.data())
    def resume_trigger(self, data: Any) -> None:
        ts = self.pick(data)
        if ts is not None:
            fields = {"enabled": True, "paused_until": None, "paused_reason": None}
            self.revise(ts, ts.trigger.model_copy(update=fields))

    def stand(self, whom: int, change: Any) -> None:
        state = self.center.state
        if whom == 0:
            self.center.state = replace(state, standing=change(state.standing))
            return
        task = state.tasks[TASKS[whom - 1]]
        tasks = {**state.tasks, task.id: replace(task, standing=change(task.standing))}
        self.center.state = replace(state, tasks=tasks)

    @rule(data=st.data())
    def ask(self, data: Any) -> None:
        """Use a token, or start the service."""
        self.number += 1
        by_request = [ts for ts in self.center.state.triggers if ts.trigger.type in ("ad_hoc", "startup")]
        for ts in by_request:
            firing = Firing(f"f{self.number} {ts.id}", ts.id, self.now, {"n": self.number})
            self.center.asked.setdefault(ts.id, set()).add(firing.id)
            self.center.state = replace(self.center.state, firings=(*self.center.state.firings, firing))

    # --- the clock and the scheduler ------------------------------------------------------------------------------

    @rule(seconds=STEPS)
    def time_goes_on(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(seconds=STEPS)
    def clock_goes_back(self, seconds: float) -> None:
        self.now -= timedelta(seconds=seconds)

    @rule(data=st.data())
    def tick(self, data: Any) -> None:
        """Look, decide, apply, make runs; perhaps die between any two writes and come back."""
        end = data.draw(st.sampled_from(("well", "well", "before", "after", "between", "twice")))
        self.center.make_runs()
        before = self.center.state
        decisions = decide(before, self.now)
        self.parts_decide_as_the_whole(before, decisions)
        if end == "before":
            return
        rows = len(self.center.ledger)
        self.center.commit(decisions, self.now)
        if end == "twice" and decisions.occurrences:
            rows, state = len(self.center.ledger), self.center.state
            with pytest.raises(Conflict):
                self.center.commit(decisions, self.now)
            assert (rows, state) == (len(self.center.ledger), self.center.state)
        elif end == "between":
            self.center.make_runs(1)
        elif end != "after":
            self.center.make_runs()

    def parts_decide_as_the_whole(self, state: State, whole: Decisions) -> None:
        """Each task's triggers alone get the same verdicts, runs and moves."""
        parts = [
            decide(replace(state, triggers=[ts for ts in state.triggers if ts.task_id == task], ended=()), self.now)
            for task in TASKS
        ]
        assert {row for part in parts for row in map(str, part.occurrences)} == set(map(str, whole.occurrences))
        assert {move.trigger_id for part in parts for move in part.moves} == {move.trigger_id for move in whole.moves}
        retries = {request.key for request in whole.runs if request.origin is Origin.SCHEDULER_RETRY}
        keys = {request.key for part in parts for request in part.runs}
        assert keys == {request.key for request in whole.runs} - retries

    @rule(data=st.data(), finish=st.sampled_from((RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELLED)))
    def work(self, data: Any, finish: RunStatus) -> None:
        """End what runs, start what may."""
        state = self.center.state
        self.center.make_runs()
        done = [run for run in state.runs if run.status is RunStatus.RUNNING and data.draw(st.booleans())]
        ended = tuple(self.ended(run, finish) for run in done)
        gone = {run.id for run in done}
        left = [run for run in state.runs if run.id not in gone]
        by_id = {ts.id: ts for ts in state.triggers}
        for run in done:
            ts = by_id.get(run.trigger_id or "")
            if ts is not None:
                by_id[ts.id] = replace(ts, last_finished=self.now)
        state = replace(state, runs=tuple(left), ended=(*state.ended, *ended), triggers=tuple(by_id.values()))
        start = set(admit(state, self.now).start)
        for run_id in start:
            self.center.started[run_id] += 1
            assert self.center.started[run_id] == 1
        runs = tuple(replace(run, status=RunStatus.RUNNING) if run.id in start else run for run in left)
        self.center.state = replace(state, runs=runs)
        self.no_two_of_one_scope(runs)

    def no_two_of_one_scope(self, runs: Iterable[OpenRun]) -> None:
        serial = Counter(run.trigger_id for run in runs if run.status is RunStatus.RUNNING and run.serial == "trigger")
        assert all(count == 1 for count in serial.values())

    def ended(self, run: OpenRun, finish: RunStatus) -> EndedRun:
        ts = next((ts for ts in self.center.state.triggers if ts.id == run.trigger_id), None)
        policy = ts.trigger.retry_policy if ts else None
        return EndedRun(
            run.id, run.task_id, finish, self.now, run.trigger_id, run.slot, run.origin, attempt=run.attempt,
            root_run_id=run.root_run_id, retry_policy=policy,
        )  # fmt: skip

    # --- the law --------------------------------------------------------------------------------------------------

    @invariant()
    def one_run_per_slot(self) -> None:
        fired = Counter(row.run_id for row in self.center.ledger if row.verdict is Verdict.FIRED)
        assert all(count == 1 for count in fired.values()), fired

    def every_verdict_says_why(self) -> None:
        for row in self.center.ledger:
            assert str(row.reason)
            assert "?" not in str(row.reason), row
            assert row.count == 1 or row.verdict not in (Verdict.FIRED, Verdict.BACKFILLED)
            assert (row.run_id is not None) >= (row.verdict in (Verdict.FIRED, Verdict.COALESCED))

    def teardown(self) -> None:
        if not hasattr(self, "center"):
            return
        self.wake_up()
        self.every_verdict_says_why()
        for trigger_id, segments in self.center.segments.items():
            self.check(trigger_id, segments)

    def wake_up(self) -> None:
        """End all holds, and let the clock come past every cursor: everything owed gets its verdict."""
        for whom in range(4):
            self.stand(whom, lambda standing: resume(standing, self.now))
        for ts in self.center.state.triggers:
            if ts.trigger.paused_reason or ts.trigger.paused_until:
                fields = {"paused_until": None, "paused_reason": None}
                self.revise(ts, ts.trigger.model_copy(update=fields))
        cursors = [ts.cursor for ts in self.center.state.triggers if ts.cursor is not None]
        self.now = max([self.now, *cursors]) + timedelta(seconds=1)
        while True:
            decisions = decide(self.center.state, self.now)
            self.center.commit(decisions, self.now)
            self.center.make_runs()
            if not decisions.unfinished and not decisions.firings:
                return

    def check(self, trigger_id: str, segments: list[Segment]) -> None:
        rows = self.center.ledger.of(trigger_id)
        kind = segments[-1].trigger.type
        if kind in ("ad_hoc", "after", "startup"):
            asked = self.center.asked.get(trigger_id, set())
            assert sum(row.count for row in rows) == len(asked & self.center.taken)
            alive = any(ts.id == trigger_id for ts in self.center.state.triggers)
            assert not alive or asked <= self.center.taken
            return
        if segments[-1].trigger.counts_from == "completion":
            assert all(row.count == 1 for row in rows)
            return
        if kind in ("one_shot", "planned"):
            self.check_single(rows, segments)
            return
        expected: set[datetime] = set()
        for segment in segments:
            expected |= computed(segment, self.now)
        taken_away = {row.slot for row in rows if row.verdict is Verdict.SUPERSEDED}
        covered: Counter[datetime] = Counter()
        for row in rows:
            inside = sorted(slot for slot in expected if row.covers(slot)) if row.count > 1 else [row.slot]
            inside = [
                slot for slot in inside if row.count == 1 or self.center.ledger.find(trigger_id, slot) in (None, row)
            ]
            assert len(inside) == row.count, (row, len(inside))
            covered.update(inside)
        assert all(count == 1 for count in covered.values()), [slot for slot, n in covered.items() if n > 1]
        assert expected - set(covered) == set(), (sorted(expected - set(covered))[:5], segments)
        assert set(covered) - expected <= taken_away, sorted(set(covered) - expected - taken_away)[:5]

    def check_single(self, rows: list[Occurrence], segments: list[Segment]) -> None:
        """Every time that is in the list at the end has its one verdict, or is still to come or off."""
        last = segments[-1]
        trigger = last.trigger
        times = {at for at in (*trigger.plan, trigger.run_at) if at is not None and at <= self.now}
        have = Counter(row.slot for row in rows)
        assert all(count == 1 for count in have.values())
        if last.until is None:
            assert times <= set(have), (times - set(have), trigger)


TestScheduling = Scheduling.TestCase
TestScheduling.settings = settings(
    max_examples=CAMPAIGN or 100,
    stateful_step_count=30,
    deadline=None,
    derandomize=not CAMPAIGN,  # the same cases every time; a campaign looks for new ones
    phases=set(Phase) if CAMPAIGN else {Phase.explicit, Phase.generate},  # making a case small may take minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
