"""Slots that are late: the table of policies to the letter (spec 4.5)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from taskcenter.models import CatchUp
from taskcenter.scheduling.apply import apply
from taskcenter.scheduling.decide import SLOTS_PER_TRIGGER, decide
from taskcenter.scheduling.decisions import run_key
from taskcenter.scheduling.followups import drop_late
from taskcenter.scheduling.ledger import Verdict
from taskcenter.scheduling.misfire import decide_misfire, is_late
from taskcenter.scheduling.state import Firing, Hold, Mode, Standing, State, TaskState
from taskcenter.slot_reasons import SlotReasonCode
from taskcenter.status import RunStatus
from tests.fleet import at, every_minute, fleet, open_run, told, trigger

FIRED, COALESCED, SKIPPED, EXPIRED = Verdict.FIRED, Verdict.COALESCED, Verdict.SKIPPED, Verdict.EXPIRED
DOWN = at("12:03:05")
"""The service was away for 3 minutes and 5 seconds: the slots from 12:00 to 12:03 were missed."""


def missed(**about: Any) -> State:
    return fleet(every_minute(**about), cursor=at("11:59"))


# --- late -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("late", "seconds"), [(False, 60), (False, 60.999999), (True, 61), (True, 3600)])
def test_late_is_more_than_the_grace_in_whole_seconds(late: bool, seconds: float) -> None:
    assert is_late(at("12:00"), at("12:00") + timedelta(seconds=seconds), 60) is late


@pytest.mark.parametrize(("now", "runs"), [("12:01:00", 1), ("12:01:01", 0)])
def test_from_61_seconds_the_policy_is_asked(now: str, runs: int) -> None:
    hourly = trigger(cron_expression="0 * * * *", misfire_policy="skip")
    assert len(decide(fleet(hourly, cursor=at("11:00")), at(now)).runs) == runs


def test_the_grace_is_the_triggers_own() -> None:
    patient = trigger(cron_expression="0 * * * *", misfire_policy="skip", misfire_grace_seconds=600)
    assert len(decide(fleet(patient, cursor=at("11:00")), at("12:10:00.9")).runs) == 1
    assert decide(fleet(patient, cursor=at("11:00")), at("12:10:01")).runs == ()


# --- the table, for a cron --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "runs"), [("fire_all", 4), ("fire_now", 1), ("skip", 0), ("reschedule", 0)])
def test_down_for_three_minutes_and_five_seconds(policy: str, runs: int) -> None:
    state = missed(misfire_policy=policy)
    decisions = decide(state, DOWN)
    assert len(decisions.runs) == runs
    assert len(told(decisions)) == 4
    after = apply(state, decisions)
    after = replace(after, runs=())
    assert decide(after, at("12:03:59")).occurrences == ()
    on_time = decide(after, at("12:04:00"))
    assert told(on_time) == {"12:04": FIRED}
    assert on_time.occurrences[0].reason.code is SlotReasonCode.ON_TIME


def test_fire_now_makes_one_run_and_the_last_slot_carries_it() -> None:
    decisions = decide(missed(misfire_policy="fire_now"), DOWN)
    assert told(decisions) == {"12:00": COALESCED, "12:01": COALESCED, "12:02": COALESCED, "12:03": FIRED}
    key = run_key("x", at("12:03"))
    assert [run.key for run in decisions.runs] == [key]
    assert {row.run_id for row in decisions.occurrences} == {key}
    reason = decisions.occurrences[0].reason
    assert str(reason) == "it was 185 s late (service_down); the misfire policy is fire_now"


def test_fire_all_fires_each_oldest_first_and_one_after_another() -> None:
    decisions = decide(missed(misfire_policy="fire_all"), DOWN)
    assert [run.slot for run in decisions.runs] == [at("12:00"), at("12:01"), at("12:02"), at("12:03")]
    assert all(run.serial == "trigger" and run.caught_up for run in decisions.runs)


def test_112_minutes_down_owe_a_hundred_and_the_rest_expires() -> None:
    state = missed(misfire_policy="fire_all")
    decisions = decide(state, at("13:51:05"))
    assert len(decisions.runs) == 100
    counts: Counter[Verdict] = Counter()
    for row in decisions.occurrences:
        counts[row.verdict] += row.count
    assert counts == {FIRED: 100, EXPIRED: 12}
    last = decisions.occurrences[-1]
    assert (last.slot, last.until, last.count) == (at("13:40"), at("13:51"), 12)
    assert "at most 100 are made up for" in str(last.reason)
    # The next slot fires although the backlog is still being worked off.
    assert told(decide(apply(state, decisions), at("13:52"))) == {"13:52": FIRED}


def test_the_cap_and_the_window_are_the_triggers_own() -> None:
    few = CatchUp(max=2, window=130)
    decisions = decide(missed(misfire_policy="fire_all", catch_up=few), DOWN)
    assert told(decisions) == {"12:00": EXPIRED, "12:01": FIRED, "12:02": FIRED, "12:03": EXPIRED}


# --- the table, for the other types -----------------------------------------------------------------------------------


def interval(**about: Any) -> State:
    return fleet(
        trigger(type="interval", interval_seconds=600, anchor=at("12:03"), **about),
        cursor=at("12:03"),
        since=at("12:00"),
    )


def test_skip_keeps_the_phase_of_an_interval() -> None:
    decisions = decide(interval(misfire_policy="skip"), at("12:36:30"))
    assert told(decisions) == {"12:13": SKIPPED, "12:23": SKIPPED, "12:33": SKIPPED}
    assert decisions.moves[0].next_slot == at("12:43")


def test_reschedule_counts_an_interval_from_now() -> None:
    state = interval(misfire_policy="reschedule")
    decisions = decide(state, at("12:36:30"))
    assert (decisions.runs, decisions.moves[0].next_slot) == ((), at("12:46:30"))
    after = apply(state, decisions)
    assert [row.slot for row in decide(after, at("12:56:30")).occurrences] == [at("12:46:30"), at("12:56:30")]


def test_skip_switches_a_one_shot_off() -> None:
    state = fleet(trigger(type="one_shot", run_at=at("12:00"), misfire_policy="skip"))
    decisions = decide(state, at("12:05"))
    assert told(decisions) == {"12:00": SKIPPED}
    assert (decisions.moves[0].changes, decisions.moves[0].next_slot) == ({"enabled": False}, None)
    assert decide(apply(state, decisions), at("13:00")).occurrences == ()


def test_reschedule_makes_a_one_shot_due_a_second_later() -> None:
    state = fleet(trigger(type="one_shot", run_at=at("12:00"), misfire_policy="reschedule"))
    first = decide(state, at("12:05"))
    assert (first.runs, first.moves[0].next_slot) == ((), at("12:05:01"))
    second = decide(apply(state, first), at("12:05:01"))
    assert [(run.slot, run.origin.value) for run in second.runs] == [(at("12:05:01"), "scheduler")]
    assert second.moves[0].changes == {"enabled": False}


def test_a_one_shot_written_for_the_past_is_due_now_and_not_late() -> None:
    state = fleet(trigger(type="one_shot", run_at=at("09:00"), misfire_policy="skip"), since=at("12:00"))
    decisions = decide(state, at("12:00:01"))
    assert told(decisions) == {"09:00": FIRED}
    assert decisions.occurrences[0].reason.code is SlotReasonCode.ON_TIME


@pytest.mark.parametrize(("policy", "runs"), [("fire_now", 3), ("fire_all", 3), ("skip", 0), ("reschedule", 0)])
def test_requests_are_not_repetitions_of_each_other(policy: str, runs: int) -> None:
    asked = tuple(Firing(f"f{n}", "x", at("12:00"), {"n": n}) for n in range(3))
    state = fleet(trigger(type="ad_hoc", misfire_policy=policy, payload={"n": -1, "m": 1}), firings=asked)
    decisions = decide(state, at("13:00"))
    assert [run.payload for run in decisions.runs] == [{"n": n, "m": 1} for n in range(runs)]
    assert decisions.consumed == ("f0", "f1", "f2")
    assert sum(row.count for row in decisions.occurrences) == 3


@pytest.mark.parametrize("kind", ["cron", "planned", "interval"])
def test_nothing_else_changes_how_a_trigger_goes_on(kind: str) -> None:
    found = decide_misfire([at("12:00"), at("12:01")], at("12:10"), "skip", CatchUp(), kind)
    assert (found.skip, found.fire, found.next.value) == ((at("12:00"), at("12:01")), (), "goes_on")


# --- by cause ---------------------------------------------------------------------------------------------------------

PAUSED = Standing(None, (Hold(Mode.PAUSED, at("11:59:30"), at("12:03:05"), note="release"),))
CAUSES = ("service_down", "scheduler_paused", "task_paused", "trigger_paused")


def held(cause: str, **about: Any) -> State:
    """A minute trigger whose slots from 12:00 to 12:03 met a pause (or an outage) that has just ended."""
    state = missed(**about)
    if cause == "scheduler_paused":
        return replace(state, standing=PAUSED)
    if cause == "task_paused":
        return replace(state, tasks={"t": TaskState("t", standing=PAUSED)})
    if cause == "trigger_paused":
        return replace(state, triggers=(replace(state.triggers[0], standing=PAUSED),))
    return state


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_may_have_its_own_policy(cause: str) -> None:
    others = {other: "fire_all" for other in CAUSES if other != cause}
    state = held(cause, misfire_policy="fire_all", misfire_by_cause={**others, cause: "skip"})
    decisions = decide(state, DOWN)
    assert set(told(decisions).values()) == {SKIPPED}
    code = "misfire_policy" if cause == "service_down" else cause
    assert {row.reason.code.value for row in decisions.occurrences} == {code}
    assert {row.data["cause"] for row in decisions.occurrences} == {cause}


@pytest.mark.parametrize("cause", CAUSES)
def test_without_one_the_triggers_policy_holds(cause: str) -> None:
    assert len(decide(held(cause, misfire_policy="fire_all"), DOWN).runs) == 4


def test_a_person_may_choose_when_ending_the_pause() -> None:
    state = held("scheduler_paused", misfire_policy="skip")
    chosen = Standing(None, tuple(replace(hold, policy="fire_now") for hold in PAUSED.past))
    assert len(decide(replace(state, standing=chosen), DOWN).runs) == 1


def test_causes_in_one_batch_keep_their_policies() -> None:
    """Away until 12:10, and paused before that: the pause says fire_all, the outage skip."""
    about = {"misfire_policy": "skip", "misfire_by_cause": {"scheduler_paused": "fire_all"}}
    decisions = decide(replace(held("scheduler_paused", **about)), at("12:10:30"))
    assert [run.slot for run in decisions.runs] == [at("12:00"), at("12:01"), at("12:02"), at("12:03")]
    assert sum(row.count for row in decisions.occurrences if row.verdict is SKIPPED) == 7


def test_while_paused_slots_wait_and_while_disabled_they_are_skipped() -> None:
    state = missed()
    paused = replace(state, standing=Standing(Hold(Mode.PAUSED, at("11:59:30"))))
    assert (decide(paused, DOWN).occurrences, decide(paused, DOWN).moves) == ((), ())
    disabled = replace(state, standing=Standing(Hold(Mode.DISABLED, at("11:59:30"))))
    decisions = decide(disabled, DOWN)
    assert [row.reason.code.value for row in decisions.occurrences] == ["scheduler_disabled"] * 4
    assert decide(apply(disabled, decisions), at("12:03:30")).occurrences == ()


def test_a_pause_that_ends_within_the_grace_costs_nothing() -> None:
    paused = Standing(Hold(Mode.PAUSED, at("11:59:30"), at("12:00:40")))
    decisions = decide(replace(missed(misfire_policy="skip"), standing=paused), at("12:00:40"))
    assert told(decisions) == {"12:00": FIRED}


@pytest.mark.parametrize(("cause", "code"), [("capacity", "capacity"), ("overlap", "overlap")])
def test_a_queued_run_that_is_too_late_is_dropped_by_the_policy_of_its_cause(cause: str, code: str) -> None:
    waiting = open_run("run", slot=at("12:00"), created_at=at("12:00"), serial="trigger" if cause == "overlap" else "")
    going = open_run("going", status=RunStatus.RUNNING, started_at=at("11:00"))
    runs = (going, waiting) if cause == "overlap" else (waiting,)
    state = fleet(every_minute(overlap="buffer_one", misfire_by_cause={cause: "skip"}), cursor=at("12:01"), runs=runs)
    assert list(drop_late(state, at("12:01:00"))) == []
    decisions = decide(state, at("12:01:01"))
    row = decisions.occurrences[0]
    assert (row.slot, row.verdict, row.amends, row.reason.code.value) == (at("12:00"), SKIPPED, FIRED, code)
    assert [cancel.run_id for cancel in decisions.cancel] == ["run"]
    patient = replace(state, triggers=(replace(state.triggers[0], trigger=every_minute(overlap="buffer_one")),))
    assert decide(patient, at("12:01:01")).cancel == ()


# --- what is told, and how much at once -------------------------------------------------------------------------------


def test_a_handled_misfire_is_told() -> None:
    state = fleet(trigger(type="one_shot", run_at=at("12:00"), misfire_policy="skip"))
    payload = dict(decide(state, at("12:05")).events)["task-misfire-handled"]
    assert payload == {
        "triggerId": "x",
        "taskId": "t",
        "schedulerId": "scheduler",
        "scheduledAt": at("12:00").isoformat(),
        "handledAt": at("12:05").isoformat(),
        "latenessSeconds": 300,
        "policy": "skip",
        "nextRunAt": None,
        "enabled": False,
        "cause": "service_down",
    }


def test_a_tick_is_told() -> None:
    payload = dict(decide(missed(), DOWN).events)["scheduler_tick"]
    assert (payload["state"], payload["claimedTriggers"], payload["lagSeconds"]) == ("running", 1, 185)


@pytest.mark.parametrize("policy", ["fire_now", "fire_all", "skip"])
def test_a_clock_far_ahead_owes_no_more_than_the_cap(policy: str) -> None:
    state, now = missed(misfire_policy=policy), at("2026-05-24 12:00:30")
    runs = counted = looks = 0
    while True:
        decisions = decide(state, now)
        looks += 1
        runs += len(decisions.runs)
        counted += sum(row.count for row in decisions.occurrences)
        state = apply(state, decisions)
        if not decisions.unfinished:
            break
    assert looks == 3
    assert counted == 20 * 1440 + 1
    assert runs == {"fire_now": 1, "fire_all": 100, "skip": 0}[policy]


def test_a_jump_of_the_clock_has_its_own_word() -> None:
    now = at("2026-05-24 12:00:30")
    state = replace(missed(), clock_jump=(at("12:00:00"), now))
    row = decide(state, now).occurrences[-1]
    assert row.verdict is EXPIRED
    assert row.count >= SLOTS_PER_TRIGGER - 1
    assert row.reason.code is SlotReasonCode.CLOCK_JUMP


def test_a_clock_set_back_repeats_nothing() -> None:
    state = missed(misfire_policy="fire_all")
    state = apply(state, decide(state, DOWN))
    assert decide(state, at("11:30")).occurrences == ()
    assert decide(state, at("12:03:59")).occurrences == ()


def test_a_one_shot_that_is_moved_after_the_clock_was_set_back_still_comes() -> None:
    own = trigger(type="one_shot", run_at=at("12:00"), misfire_policy="reschedule")
    state = fleet(own, cursor=at("18:00"), since=at("11:00"))
    state = apply(state, decide(state, at("12:05")))
    assert state.triggers[0].next_slot == at("12:05:01")
    assert told(decide(state, at("12:05:01"))) == {"12:05": FIRED}
