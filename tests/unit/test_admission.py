"""Which queued runs may start: limits, turns, priorities and ageing (spec 5.2)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskcenter.scheduling.admission import WaitCode, admit, effective_rank
from taskcenter.scheduling.state import Hold, Limits, Mode, OpenRun, Standing, State, TaskState
from taskcenter.status import Origin, Priority, RunStatus
from tests.fleet import at, open_run

NOW = at("12:00")


def queued(name: str, **about: Any) -> OpenRun:
    return open_run(name, **{"created_at": at("11:59"), "task_id": name, "trigger_id": f"x-{name}", **about})


def running(name: str, **about: Any) -> OpenRun:
    return queued(name, **{"status": RunStatus.RUNNING, "started_at": at("11:59"), **about})


def state(*runs: OpenRun, **about: Any) -> State:
    tasks = about.pop("tasks", {})
    return State((), {run.task_id: TaskState(run.task_id) for run in runs} | tasks, runs=runs, **about)


def test_the_pool_has_four_places() -> None:
    found = admit(state(*(queued(f"r{n}") for n in range(6))), NOW)
    assert found.start == ("r0", "r1", "r2", "r3")
    assert str(found.waits["r5"]) == "all 4 places of the pool are taken or go to runs before it"


def test_what_runs_takes_its_place() -> None:
    runs = [running("a"), running("b"), running("c"), queued("d"), queued("e")]
    assert admit(state(*runs), NOW).start == ("d",)


def test_order_is_priority_then_slot_then_age() -> None:
    runs = [
        queued("low", priority=Priority.LOW),
        queued("young", created_at=at("11:59:30"), slot=at("11:58")),
        queued("old", created_at=at("11:59:10"), slot=at("11:58")),
        queued("older slot", slot=at("11:57")),
        queued("high", priority=Priority.HIGH, created_at=at("11:59:59")),
    ]
    assert admit(state(*runs), NOW).order == ("high", "older slot", "old", "young", "low")


@pytest.mark.parametrize(
    ("limits", "code", "text"),
    [
        (Limits(tasks={"t": 1}), WaitCode.TASK_LIMIT, "at most 1 of its runs go at once"),
        (Limits(tags={"etl": 1}), WaitCode.TAG, "at most 1 runs with the tag etl go at once"),
        (Limits(connections={"dw": 1}), WaitCode.CONNECTION, "at most 1 runs on the connection dw go at once"),
    ],
)
def test_each_limit_holds_and_lets_others_pass(limits: Limits, code: WaitCode, text: str) -> None:
    task = TaskState("t", tags=("etl",), connections=("dw",))
    runs = [running("a", task_id="t"), queued("b", task_id="t"), queued("c")]
    found = admit(state(*runs, limits=limits, tasks={"t": task}), NOW)
    assert found.start == ("c",)
    assert (found.waits["b"].code, str(found.waits["b"])) == (code, text)


def test_a_task_has_its_own_limit() -> None:
    runs = [queued(name, task_id="t") for name in ("a", "b", "c")]
    assert admit(state(*runs, tasks={"t": TaskState("t", max_concurrent=2)}), NOW).start == ("a", "b")


def test_zero_is_no_limit() -> None:
    runs = [queued(f"r{n}") for n in range(50)]
    assert len(admit(state(*runs, limits=Limits(pool=0)), NOW).start) == 50


def test_a_retry_waits_for_its_time() -> None:
    run = queued("r", ready_at=at("12:00:05"), origin=Origin.SCHEDULER_RETRY, attempt=2)
    wait = admit(state(run), NOW).waits["r"]
    assert (wait.code, wait.until) == (WaitCode.READY_TIME, at("12:00:05"))
    assert admit(state(run), at("12:00:05")).start == ("r",)


@pytest.mark.parametrize("origin", list(Origin))
def test_a_pause_holds_all_but_what_people_start(origin: Origin) -> None:
    paused = Standing(Hold(Mode.PAUSED, at("11:00")))
    by_person = origin in (Origin.MANUAL, Origin.MANUAL_RETRY, Origin.RESUME, Origin.BACKFILL, Origin.PREFECT)
    run = queued("r", origin=origin)
    assert bool(admit(state(run, standing=paused), NOW).start) is by_person
    assert bool(admit(state(run, tasks={"r": TaskState("r", standing=paused)}), NOW).start) is by_person


def test_serial_runs_take_turns_and_the_slots_of_now_go_before_the_backlog() -> None:
    late = [queued(f"late{n}", trigger_id="x", task_id="t", serial="trigger", caught_up=True) for n in range(3)]
    fresh = queued("fresh", trigger_id="x", task_id="t", serial="trigger", slot=at("12:00"))
    assert admit(state(*late), NOW).start == ("late0",)
    assert admit(state(*late, fresh), NOW).start == ("fresh",)
    busy = running("busy", trigger_id="x", task_id="t")
    found = admit(state(busy, *late, fresh), NOW)
    assert found.start == ()
    assert {wait.code for wait in found.waits.values()} == {WaitCode.TURN}


# --- ageing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("minutes", "rank"), [(0, 2), (9, 2), (10, 1), (20, 0), (30, -1), (500, -1)])
def test_ten_minutes_of_waiting_lift_a_run_by_one_step(minutes: int, rank: int) -> None:
    run = queued("low", priority=Priority.LOW, created_at=NOW - timedelta(minutes=minutes))
    assert effective_rank(run, NOW, Limits()) == rank


def test_low_is_never_starved_by_a_stream_of_high() -> None:
    """Every minute a new high run comes, and the one place frees: the low run waits three steps and no longer."""
    low = queued("low", priority=Priority.LOW, created_at=NOW)
    waiting = [low]
    for minute in range(60):
        now = NOW + timedelta(minutes=minute)
        waiting.append(queued(f"high{minute}", priority=Priority.HIGH, created_at=now))
        start = admit(state(*waiting, limits=Limits(pool=1)), now).start[0]
        waiting = [run for run in waiting if run.id != start]
        if start == "low":
            break
    assert minute == 20, "a tie with a younger high goes to the older"


def test_an_aged_run_keeps_the_places_of_its_limits() -> None:
    """It needs two connections that are never free at the same moment: the first to free is kept for it."""
    both = TaskState("both", connections=("a", "b"))
    only_a = TaskState("only", connections=("a",))
    limits = Limits(connections={"a": 1, "b": 1})
    holder = running("holder", task_id="b-user")
    tasks = {"both": both, "only": only_a, "b-user": TaskState("b-user", connections=("b",))}
    old = queued("old", task_id="both", priority=Priority.LOW, created_at=NOW - timedelta(minutes=31))
    young = queued("young", task_id="only", priority=Priority.HIGH, created_at=NOW)
    found = admit(state(holder, old, young, limits=limits, tasks=tasks), NOW)
    assert found.start == ()
    assert (found.waits["old"].code, found.waits["young"].code) == (WaitCode.CONNECTION, WaitCode.CONNECTION)
    not_yet = replace(old, created_at=NOW - timedelta(minutes=29))
    assert admit(state(holder, not_yet, young, limits=limits, tasks=tasks), NOW).start == ("young",)
    assert admit(state(old, young, limits=limits, tasks=tasks), NOW).start == ("old",)


MOMENTS = st.integers(0, 7_200).map(lambda seconds: NOW - timedelta(seconds=seconds))


@st.composite
def queues(draw: Any) -> list[OpenRun]:
    return [
        queued(
            f"r{n:02}",
            task_id=draw(st.sampled_from(("t", "u", "v"))),
            trigger_id=draw(st.sampled_from(("x", "y"))),
            priority=draw(st.sampled_from(Priority)),
            created_at=draw(MOMENTS),
            serial=draw(st.sampled_from(("", "", "trigger", "task"))),
            status=draw(st.sampled_from((RunStatus.QUEUED, RunStatus.QUEUED, RunStatus.RUNNING))),
        )
        for n in range(draw(st.integers(0, 12)))
    ]


@given(queues(), st.integers(0, 5))
def test_the_gate_keeps_every_promise(runs: list[OpenRun], pool: int) -> None:
    tasks = {"t": TaskState("t", max_concurrent=2), "u": TaskState("u", tags=("etl",)), "v": TaskState("v")}
    given_state = State((), tasks, runs=runs, limits=Limits(pool=pool, tags={"etl": 1}))
    found = admit(given_state, NOW)
    waiting = {run.id for run in runs if run.status is RunStatus.QUEUED}
    assert {*found.start, *found.waits} == waiting
    assert not {*found.start} & {*found.waits}
    started = [run for run in runs if run.id in found.start]
    going = [run for run in runs if run.status is RunStatus.RUNNING]
    after = [*going, *started]
    assert not started or not pool or len(after) <= pool
    for task, most in (("t", 2), ("u", 1)):
        new = [run for run in started if run.task_id == task]
        assert not new or sum(run.task_id == task for run in after) <= most
    for run in started:
        if run.serial:
            same = "trigger_id" if run.serial == "trigger" else "task_id"
            others = [other for other in after if getattr(other, same) == getattr(run, same) and other is not run]
            before = [
                other for other in others if other in going or found.order.index(other.id) < found.order.index(run.id)
            ]
            assert before == []
    assert admit(given_state, NOW) == found
    first: datetime | None = None
    for run_id in found.order:
        run = next(run for run in runs if run.id == run_id)
        if effective_rank(run, NOW, given_state.limits) == -1:
            assert first is None or run.due_at >= first
            first = run.due_at
