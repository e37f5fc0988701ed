"""Why a task runs, or why it does not: every gate, alone and together (spec 4.9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import time

import pytest

from taskcenter.scheduling.apply import apply
from taskcenter.scheduling.calendars import Calendar, Calendars, Rule, TimeRange
from taskcenter.scheduling.decide import decide
from taskcenter.scheduling.state import Firing, Hold, Limits, Mode, Standing, State, TaskState
from taskcenter.scheduling.why import GATES, Gate, GateVerdict, why
from taskcenter.status import Origin, Priority, RunStatus
from tests.fleet import at, fleet, open_run, trigger

NOW = at("12:00:10")
HOURLY = trigger(cron_expression="0 * * * *")
PAUSED = Standing(Hold(Mode.PAUSED, at("11:30"), at("14:00"), by="ann", note="release"))
QUIET = Calendars([Calendar(name="quiet", exclude=(Rule(times=(TimeRange(first=time(12), last=time(13)),)),))])


def open_state() -> State:
    """Nothing is in the way: the slot 12:00 is due, and a worker is there."""
    return fleet(HOURLY, cursor=at("11:00"), worker_seen=at("12:00:05"))


def with_trigger(**about: object) -> State:
    state = open_state()
    return replace(state, triggers=(replace(state.triggers[0], trigger=HOURLY.model_copy(update=about)),))


def with_run(**about: object) -> State:
    return replace(open_state(), runs=(open_run(**about),))


def crowd(**about: object) -> State:
    others = [open_run(f"o{n}", task_id="other", trigger_id=None, created_at=at("11:59"), **about) for n in range(4)]
    return replace(open_state(), runs=tuple(others))


CLOSED: dict[str, Callable[[], State]] = {
    "timetable": lambda: fleet(HOURLY, cursor=at("12:00"), worker_seen=at("12:00:05")),
    "calendar": lambda: replace(with_trigger(calendar="quiet"), calendars=QUIET),
    "scheduler": lambda: replace(open_state(), standing=PAUSED),
    "task": lambda: replace(open_state(), tasks={"t": TaskState("t", standing=PAUSED)}),
    "trigger": lambda: fleet(HOURLY, cursor=at("11:00"), standings={"x": PAUSED}, worker_seen=at("12:00:05")),
    "misfire": lambda: with_trigger(misfire_policy="skip", misfire_grace_seconds=5),
    "overlap": lambda: with_run(status=RunStatus.RUNNING, started_at=at("11:00:01")),
    "limits": lambda: crowd(status=RunStatus.RUNNING),
    "priority": lambda: crowd(priority=Priority.HIGH),
    "retry": lambda: with_run(
        ready_at=at("12:05"), attempt=2, origin=Origin.SCHEDULER_RETRY, slot=at("11:00"), created_at=at("12:00")
    ),
    "worker": lambda: replace(open_state(), worker_seen=at("11:30")),
}


def held(gates: list[Gate]) -> list[str]:
    return [gate.name for gate in gates if gate.verdict is GateVerdict.HOLD]


def gate(state: State, name: str) -> Gate:
    return next(found for found in why(state, "t", NOW) if found.name == name)


def test_when_nothing_is_in_the_way_every_gate_says_so() -> None:
    gates = why(open_state(), "t", NOW)
    assert [found.name for found in gates] == list(GATES)
    assert held(gates) == []
    assert all(found.sentence for found in gates)


@pytest.mark.parametrize("name", GATES)
def test_each_gate_closed_alone_is_the_one_that_holds(name: str) -> None:
    gates = why(CLOSED[name](), "t", NOW)
    assert held(gates) == [name]
    assert [found.name for found in gates] == list(GATES)


@pytest.mark.parametrize("name", ["calendar", "scheduler", "task", "trigger", "misfire", "overlap"])
def test_a_closed_gate_is_what_decide_does(name: str) -> None:
    assert decide(open_state(), NOW).runs
    assert decide(CLOSED[name](), NOW).runs == ()


def test_all_that_is_in_the_way_is_told_at_once() -> None:
    state = replace(CLOSED["calendar"](), standing=PAUSED, worker_seen=at("11:00"))
    assert held(why(state, "t", NOW)) == ["calendar", "scheduler", "worker"]


def test_a_gate_says_since_when_until_when_and_by_whom() -> None:
    found = gate(CLOSED["scheduler"](), "scheduler")
    assert (found.since, found.until) == (at("11:30"), at("14:00"))
    assert found.sentence == "the scheduler is paused by ann until 2026-05-04T14:00:00+00:00: release"
    assert gate(CLOSED["timetable"](), "timetable").until == at("13:00")
    assert gate(CLOSED["calendar"](), "calendar").until == at("13:00")
    assert gate(CLOSED["retry"](), "retry").until == at("12:05")
    assert gate(CLOSED["worker"](), "worker").since == at("11:30")


def test_the_rank_in_the_queue_is_told() -> None:
    found = gate(CLOSED["priority"](), "priority")
    assert found.sentence.startswith("4 runs of 4 that wait go before it: all 4 places of the pool")
    assert gate(CLOSED["limits"](), "limits").sentence.startswith("all 4 places")


def test_a_limit_names_itself() -> None:
    state = replace(CLOSED["limits"](), limits=Limits(pool=10, tags={"etl": 4}))
    tasks = {"t": TaskState("t", tags=("etl",)), "other": TaskState("other", tags=("etl",))}
    assert gate(replace(state, tasks=tasks), "limits").sentence == "at most 4 runs with the tag etl go at once"


def test_the_future_can_be_asked_about() -> None:
    gates = why(open_state(), "t", at("11:30"))
    assert held(gates) == ["timetable"]
    assert held(why(replace(open_state(), worker_seen=None), "t", at("13:00"))) == []


def test_a_run_that_waits_is_asked_about_before_the_next_slot() -> None:
    state = open_state()
    after = apply(state, decide(state, NOW))
    assert held(why(after, "t", NOW)) == []
    assert gate(after, "timetable").sentence == "a run waits to start"
    assert held(why(replace(after, standing=PAUSED), "t", NOW)) == ["scheduler"]
    by_hand = tuple(replace(run, origin=Origin.MANUAL) for run in after.runs)
    assert held(why(replace(after, runs=by_hand, standing=PAUSED), "t", NOW)) == []


def test_a_task_without_a_trigger_and_one_that_nobody_asked() -> None:
    assert why(State((), {"t": TaskState("t")}), "t", NOW)[0].sentence == "the task has no trigger; a person may run it"
    asked = fleet(trigger(type="ad_hoc"))
    assert why(asked, "t", NOW)[0].sentence == "nobody has asked for it (trigger of type ad_hoc)"
    assert held(why(replace(asked, firings=(Firing("f", "x", NOW),)), "t", NOW)) == []


def test_one_trigger_of_several_can_be_named() -> None:
    state = fleet(HOURLY, HOURLY.model_copy(update={"id": "y", "cron_expression": "30 * * * *"}), cursor=at("12:00"))
    assert why(state, "t", NOW)[0].until == at("12:30")
    assert why(state, "t", NOW, trigger_id="x")[0].until == at("13:00")
