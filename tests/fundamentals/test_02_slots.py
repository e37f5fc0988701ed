"""A guided tour of slots. Read from top to bottom: each test teaches one idea.

Nothing here needs a server, a database or a clock: the core is one pure function of a state and a time.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from taskcenter.errors import Conflict
from taskcenter.models import Trigger
from taskcenter.scheduling.apply import apply
from taskcenter.scheduling.decide import decide
from taskcenter.scheduling.ledger import Ledger, Verdict
from taskcenter.scheduling.simulate import simulate
from taskcenter.scheduling.simulation import Durations
from taskcenter.scheduling.state import Hold, Mode, Standing, State, TaskState, TriggerState
from taskcenter.scheduling.why import GateVerdict, why
from taskcenter.status import RunStatus


def monday(clock: str) -> datetime:
    return datetime.fromisoformat(f"2026-05-04 {clock}").replace(tzinfo=UTC)


def every_ten_minutes(**about: object) -> State:
    """One task with one trigger, all of its slots up to 12:00 decided."""
    trigger = Trigger.model_validate(
        {"id": "every-ten", "taskId": "report", "type": "cron", "cronExpression": "*/10 * * * *", **about}
    )
    ts = TriggerState(trigger, since=monday("08:00"), cursor=monday("12:00"))
    return State(triggers=(ts,), tasks={"report": TaskState("report")})


# --- a slot and its verdict -------------------------------------------------------------------------------------------


def test_a_slot_is_a_time_at_which_a_trigger_should_fire_and_it_gets_one_verdict() -> None:
    decisions = decide(every_ten_minutes(), monday("12:10:00"))
    (row,) = decisions.occurrences
    assert (row.slot, row.verdict) == (monday("12:10"), Verdict.FIRED)
    assert str(row.reason) == "it was due, and nothing held it"
    (run,) = decisions.runs
    assert row.run_id == run.key


def test_nothing_is_decided_before_its_time_or_a_second_time() -> None:
    state = every_ten_minutes()
    assert decide(state, monday("12:09:59")).occurrences == ()
    state = apply(state, decide(state, monday("12:10:00")))
    assert decide(state, monday("12:10:01")).occurrences == ()
    assert decide(state, monday("11:00")).occurrences == (), "not even when the clock is set back"


def test_the_ledger_takes_one_verdict_for_a_slot_and_no_second() -> None:
    decisions = decide(every_ten_minutes(), monday("12:10:00"))
    ledger = Ledger(decisions.occurrences)
    with pytest.raises(Conflict):
        ledger.add(decisions.occurrences)


# --- late -------------------------------------------------------------------------------------------------------------


def test_a_policy_says_what_becomes_of_slots_that_were_missed() -> None:
    """The service was away from 12:05 to 12:31: three slots were missed."""
    runs = {
        policy: [run.slot for run in decide(every_ten_minutes(misfirePolicy=policy), monday("12:31:30")).runs]
        for policy in ("fire_now", "fire_all", "skip")
    }
    assert runs == {
        "fire_now": [monday("12:30")],
        "fire_all": [monday("12:10"), monday("12:20"), monday("12:30")],
        "skip": [],
    }


def test_every_missed_slot_says_what_became_of_it() -> None:
    decisions = decide(every_ten_minutes(), monday("12:31:30"))
    assert [row.verdict.value for row in decisions.occurrences] == ["coalesced", "coalesced", "fired"]
    assert str(decisions.occurrences[0].reason) == "it was 1290 s late (service_down); the misfire policy is fire_now"


def test_while_paused_slots_wait_and_on_resume_the_policy_speaks() -> None:
    paused = Standing(Hold(Mode.PAUSED, since=monday("12:05"), until=monday("12:45")))
    state = replace(every_ten_minutes(misfirePolicy="skip"), standing=paused)
    assert decide(state, monday("12:31:30")).occurrences == ()
    resumed = decide(state, monday("12:45"))
    assert {(row.verdict.value, row.reason.code.value) for row in resumed.occurrences} == {
        ("skipped", "scheduler_paused")
    }


# --- overlap ----------------------------------------------------------------------------------------------------------


def test_a_slot_that_comes_while_its_run_before_is_active_is_skipped_unless_said_otherwise() -> None:
    state = every_ten_minutes()
    state = apply(state, decide(state, monday("12:10:00")))
    (row,) = decide(state, monday("12:20:00")).occurrences
    assert (row.verdict.value, row.reason.code.value) == ("skipped", "overlap")


# --- one core for every question --------------------------------------------------------------------------------------


def test_why_asks_the_same_functions() -> None:
    state = every_ten_minutes()
    state = apply(state, decide(state, monday("12:10:00")))
    running = tuple(replace(run, status=RunStatus.RUNNING) for run in state.runs)
    gates = why(replace(state, runs=running), "report", monday("12:20:00"))
    assert [gate.name for gate in gates if gate.verdict is GateVerdict.HOLD] == ["overlap"]


def test_simulate_drives_the_same_core_on_a_virtual_clock() -> None:
    day = simulate(
        every_ten_minutes(),
        monday("08:00"),
        monday("23:59"),
        Durations(default=30),
        outages=[(monday("13:00"), monday("15:05"))],
    )
    assert day.verdicts == {"fired": 84, "coalesced": 12}
    assert sum(day.verdicts.values()) == 16 * 6, "every slot has its verdict"
    assert day.lateness["max"] == timedelta(minutes=5).total_seconds()
