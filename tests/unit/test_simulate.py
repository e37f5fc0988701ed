"""The fleet on a virtual clock, and the replay of the past (spec 4.9)."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from taskcenter.scheduling.backtest import Facts, backtest
from taskcenter.scheduling.ledger import Ledger, Occurrence, Verdict
from taskcenter.scheduling.occurrences import slots
from taskcenter.scheduling.simulate import simulate
from taskcenter.scheduling.simulation import Durations, Simulation
from taskcenter.scheduling.state import Firing, Hold, Limits, Mode, Standing, State, TaskState, TriggerState
from taskcenter.slot_reasons import ON_TIME
from taskcenter.status import RunStatus
from tests.fleet import at, every_minute, fleet, open_run, trigger

START, END = at("00:00"), at("06:00")
HOURLY = trigger(cron_expression="0 * * * *")


def run(*triggers: Any, seconds: float = 30, **about: Any) -> Simulation:
    more = {key: about.pop(key) for key in ("limits", "tasks", "calendars") if key in about}
    state = fleet(*triggers, cursor=START, **more)
    return simulate(state, START, END, Durations({}, default=seconds), **about)


def big_fleet(count: int) -> tuple[State, Durations]:
    chance = random.Random(1)
    triggers, tasks, history = [], {}, {}
    for n in range(count):
        minute, kind = chance.randrange(60), chance.random()
        text = f"{minute} {chance.randrange(24)} * * *" if kind < 0.8 else f"{minute} * * * *"
        if kind > 0.97:
            text = f"{minute % 15}-59/15 * * * *"
        own = trigger(id=f"x{n}", task_id=f"t{n}", cron_expression=text, timezone="Europe/Berlin")
        triggers.append(TriggerState(own, START))
        tasks[f"t{n}"] = TaskState(f"t{n}")
        history[f"t{n}"] = [20 + chance.random() * 200 for _ in range(20)]
    return State(triggers, tasks, limits=Limits(pool=40)), Durations(history)


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_every_slot_has_its_verdict() -> None:
    found = run(every_minute())
    assert found.verdicts == {"fired": 361}
    assert [row.slot for row in found.rows] == slots(every_minute(), START - timedelta(seconds=1), END, 1_000)
    assert (found.misfires, found.overlaps, found.waiting) == (0, 0, 0)


def test_occupancy_counts_what_runs_at_once() -> None:
    found = run(trigger(cron_expression="0 * * * *"), seconds=1800)
    assert [(hour.mean, hour.peak) for hour in found.occupancy] == [(0.5, 1)] * 6


def test_runs_that_meet_their_like_are_skipped() -> None:
    found = run(every_minute(), seconds=150)
    assert found.overlaps == found.verdicts["skipped"] == 240


def test_a_full_pool_makes_runs_late() -> None:
    many = [trigger(id=f"x{n}", task_id=f"t{n}", cron_expression="0 * * * *") for n in range(6)]
    found = run(*many, seconds=600)
    assert found.lateness == {"p50": 0.0, "p95": 600.0, "max": 600.0}
    assert run(*many, seconds=600, limits=Limits(pool=6)).lateness["max"] == 0


def test_an_outage_is_a_misfire_and_the_next_slot_is_on_time() -> None:
    down = [(at("02:00"), at("02:03:05"))]
    found = run(every_minute(misfire_policy="fire_all"), seconds=1, outages=down)
    assert (found.verdicts, found.misfires) == ({"fired": 361}, 1)
    assert found.lateness["max"] > 180
    now = run(every_minute(misfire_policy="fire_now"), seconds=1, outages=down)
    assert now.verdicts == {"fired": 358, "coalesced": 3}
    assert next(row.reason.data["cause"] for row in now.rows if row.verdict is Verdict.COALESCED) == "service_down"
    assert run(every_minute(misfire_policy="skip"), seconds=1, outages=down).verdicts == {"fired": 357, "skipped": 4}


def test_a_pause_has_its_own_cause() -> None:
    found = run(every_minute(misfire_policy="skip"), seconds=1, pauses=[(at("02:00"), at("02:30:10"))])
    assert found.verdicts == {"fired": 330, "skipped": 31}
    assert {row.reason.code.value for row in found.rows if row.verdict is Verdict.SKIPPED} == {"scheduler_paused"}


def test_a_limit_can_be_tried_out() -> None:
    state = fleet(*[trigger(id=f"x{n}", task_id=f"t{n}", cron_expression="0 * * * *") for n in range(4)], cursor=START)
    free, tight = (simulate(state, START, END, Durations({}, 600), limits=limits) for limits in (None, Limits(pool=2)))
    assert (free.lateness["max"], tight.lateness["max"]) == (0, 600)


def test_a_hold_of_a_task_ends_by_itself() -> None:
    paused = TaskState("t", standing=Standing(Hold(Mode.PAUSED, at("00:00"), at("03:00:10"))))
    found = run(HOURLY, tasks={"t": paused})
    assert found.verdicts == {"fired": 4, "coalesced": 3}


def test_all_types_of_triggers_take_part() -> None:
    triggers = [
        trigger(id="cron", task_id="a", cron_expression="0 * * * *"),
        trigger(id="after", task_id="b", type="after", task_ids=("a",)),
        trigger(id="interval", task_id="c", type="interval", interval_seconds=7200, anchor=START),
        trigger(id="completion", task_id="d", type="interval", interval_seconds=3600, counts_from="completion"),
        trigger(id="one_shot", task_id="e", type="one_shot", run_at=at("01:30")),
        trigger(id="planned", task_id="f", type="planned", plan=(at("01:00"), at("02:00"))),
        trigger(id="ad_hoc", task_id="g", type="ad_hoc"),
        trigger(id="startup", task_id="h", type="startup"),
    ]
    asked = [Firing("1", "ad_hoc", at("03:00")), Firing("2", "startup", START)]
    found = run(*triggers, seconds=1800, firings=asked, limits=Limits(pool=0))
    assert Counter(row.trigger_id for row in found.rows if row.verdict is Verdict.FIRED) == {
        "cron": 7,
        "after": 6,
        "interval": 4,
        "completion": 4,
        "one_shot": 1,
        "planned": 2,
        "ad_hoc": 1,
        "startup": 1,
    }
    assert [f"{row.slot:%H:%M}" for row in found.rows if row.trigger_id == "completion"] == [
        "00:59",
        "02:29",
        "03:59",
        "05:29",
    ]


def test_cancel_other_lets_the_new_one_start() -> None:
    found = run(trigger(cron_expression="0 * * * *", overlap="cancel_other"), seconds=5400)
    assert sum(run.cancelled for run in found.runs) == 6
    assert all(run.late_seconds == 0 for run in found.runs)


def test_what_runs_at_the_start_goes_on() -> None:
    going = open_run("going", status=RunStatus.RUNNING, started_at=START - timedelta(seconds=50))
    state = replace(fleet(every_minute(), cursor=START), runs=(going,))
    found = simulate(state, START, at("00:02"), Durations({}, 60))
    assert next(run for run in found.runs if run.id == "going").ended == START + timedelta(seconds=10)


def test_policies_that_drop_are_obeyed() -> None:
    many = [
        trigger(id=f"x{n}", task_id=f"t{n}", cron_expression="0 * * * *", misfire_by_cause={"capacity": "skip"})
        for n in range(3)
    ]
    found = run(*many, seconds=600, limits=Limits(pool=1))
    assert found.verdicts == {"fired": 9, "skipped": 12}
    Ledger(sorted(found.rows, key=lambda row: row.decided_at))


# --- the same again ---------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_to_the_last_row() -> None:
    state, durations = big_fleet(60)
    days = at("2026-05-06 00:00")
    one, two = (simulate(state, START, days, durations, seed=7) for _ in range(2))
    assert one == two
    other = simulate(state, START, days, durations, seed=8)
    assert [run.ended for run in other.runs] != [run.ended for run in one.runs]


def test_without_a_seed_runs_last_as_long_as_usual() -> None:
    durations = Durations({"t": [10, 20, 90]})
    found = simulate(fleet(HOURLY, cursor=START), START, END, durations)
    assert {(run.ended - run.started).total_seconds() for run in found.runs if run.ended and run.started} == {20}


def test_a_thousand_tasks_over_a_week_take_seconds() -> None:
    state, durations = big_fleet(1_000)
    began = time.process_time()
    found = simulate(state, START, START + timedelta(days=7), durations, seed=1)
    took = time.process_time() - began
    expected = sum(
        len(slots(ts.trigger, START - timedelta(seconds=1), START + timedelta(days=7), 10_000)) for ts in state.triggers
    )
    assert sum(found.verdicts.values()) == expected > 40_000
    assert took < 20, f"{took:.1f} s for {expected} slots"


# --- the past ---------------------------------------------------------------------------------------------------------


def recorded(outages: Any = ()) -> tuple[State, Simulation]:
    state, durations = big_fleet(40)
    return state, simulate(state, START, at("2026-05-06 00:00"), durations, seed=3, outages=outages)


def facts_of(state: State, past: Simulation, **about: Any) -> Facts:
    took = {
        (run.trigger_id or "", run.slot): (run.ended - run.started).total_seconds()
        for run in past.runs
        if run.slot and run.started and run.ended
    }
    _, history = big_fleet(40)
    return Facts(state, past.rows, took, history, **about)


def test_what_was_recorded_is_replayed_to_the_last_verdict() -> None:
    down = [(at("03:00"), at("05:30"))]
    state, past = recorded(down)
    found = backtest(facts_of(state, past, outages=down), START, at("2026-05-06 00:00"))
    assert (found.agreement, found.differences) == (100.0, ())
    assert found.compared > 400
    assert found.durations is not None
    assert found.durations.count > 400
    assert 0 < found.durations.median_percent < 100


def test_a_fact_that_is_left_out_shows_as_differences() -> None:
    down = [(at("03:00"), at("05:30"))]
    state, past = recorded(down)
    found = backtest(facts_of(state, past), START, at("2026-05-06 00:00"))
    assert 50 < found.agreement < 100
    assert "coalesced was recorded, fired replayed" in str(found.differences[0])


def test_ranges_are_compared_slot_by_slot_and_what_people_did_is_left_out() -> None:
    state = fleet(every_minute(misfire_policy="skip"), cursor=START)
    past = simulate(state, START, END, Durations({}, 1), outages=[(at("02:00"), at("03:00:30"))])
    skipped = next(row for row in past.rows if row.verdict is Verdict.SKIPPED)
    assert skipped.count == 61
    rows = [row for row in past.rows if row.slot != at("04:00")]
    rows.append(replace(skipped, slot=at("04:00"), until=None, count=1, verdict=Verdict.CANCELLED))
    facts = Facts(state, rows, {}, Durations({}, 1), outages=[(at("02:00"), at("03:00:30"))])
    found = backtest(facts, START, END)
    assert (found.compared, found.agreement) == (360, 100.0)
    assert found.durations is None


def test_nothing_recorded_is_nothing_wrong() -> None:
    empty = backtest(Facts(State((), {}), ()), START, END)
    assert (empty.compared, empty.agreement, empty.durations) == (0, 100.0, None)


@pytest.mark.parametrize("rows", [[], [Occurrence("gone", START, Verdict.FIRED, ON_TIME, START)]])
def test_a_trigger_that_is_gone_differs(rows: list[Occurrence]) -> None:
    found = backtest(Facts(State((), {}), rows), START, END)
    assert len(found.differences) == len(rows)
