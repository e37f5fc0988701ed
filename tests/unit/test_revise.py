"""What an edit, a pause, a resume and a deletion do to the slots of a trigger (spec 4.2, 4.4)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from taskcenter.models import Trigger
from taskcenter.scheduling.apply import apply
from taskcenter.scheduling.decide import decide
from taskcenter.scheduling.ledger import Ledger, Verdict
from taskcenter.scheduling.revise import revise
from taskcenter.scheduling.state import Firing, Hold, Horizon, Mode, Standing, State
from tests.fleet import at, every_minute, fleet, told, trigger

NOW = at("12:00:30")


def ahead(own: Trigger, cursor: str = "12:00") -> State:
    """A state whose runs are made three slots ahead."""
    state = fleet(own, cursor=at(cursor), horizon=Horizon(min_runs=3, min_time=at("12:01") - at("12:00")))
    return apply(state, decide(state, at(cursor)))


def put(state: State, revision: Any, ledger: Ledger) -> State:
    for decisions in revision.decisions:
        ledger.add(decisions.occurrences)
        state = apply(state, decisions)
    return replace(state, triggers=(revision.trigger,))


def test_runs_are_made_ahead_and_their_slot_gets_its_verdict_when_it_comes() -> None:
    state = ahead(every_minute())
    assert [run.slot for run in state.triggers[0].planned] == [at("12:01"), at("12:02"), at("12:03")]
    decisions = decide(state, at("12:01:00"))
    assert told(decisions) == {"12:01": Verdict.FIRED}
    assert decisions.occurrences[0].run_id == state.triggers[0].planned[0].run_id
    assert [(run.slot, run.ahead) for run in decisions.runs] == [(at("12:04"), True)]


def test_an_edit_supersedes_what_was_planned_and_owes_nothing() -> None:
    ledger, state = Ledger(), ahead(every_minute())
    quarter = every_minute().model_copy(update={"cron_expression": "*/2 * * * *", "revision": 2})
    found = revise(state, "x", quarter, NOW)
    state = put(state, found, ledger)
    assert {f"{row.slot:%H:%M}": row.verdict.value for row in ledger} == {"12:01": "superseded", "12:03": "superseded"}
    assert str(next(iter(ledger)).reason) == "revision 2 of the trigger no longer has it"
    assert len(found.decisions[-1].withdraw) == 3
    later = decide(state, at("12:02"))
    ledger.add(later.occurrences)
    assert [row.verdict.value for row in ledger.of("x")] == ["superseded", "fired", "superseded"]


def test_a_slot_comes_back_when_a_later_edit_has_it_again() -> None:
    ledger, state = Ledger(), ahead(every_minute())
    state = put(
        state, revise(state, "x", every_minute(id="x").model_copy(update={"cron_expression": "0 0 * * *"}), NOW), ledger
    )
    state = put(state, revise(state, "x", every_minute(), at("12:00:40")), ledger)
    decisions = decide(state, at("12:01"))
    ledger.add(decisions.occurrences)
    row = ledger.find("x", at("12:01"))
    assert row is not None
    assert (row.verdict, row.amends) == (Verdict.FIRED, Verdict.SUPERSEDED)


def test_an_edit_that_leaves_the_times_alone_moves_no_slot() -> None:
    ledger, state = Ledger(), ahead(every_minute())
    before = state.triggers[0]
    state = put(state, revise(state, "x", every_minute(payload={"n": 1}), NOW), ledger)
    after_edit = state.triggers[0]
    assert (len(ledger), after_edit.cursor, after_edit.next_slot) == (0, before.cursor, before.next_slot)
    again = decide(state, NOW)
    assert [run.payload for run in again.runs] == [{"n": 1}] * 3, "the runs made ahead are made anew"


def test_an_edit_settles_what_is_due_first() -> None:
    ledger, state = Ledger(), fleet(every_minute(), cursor=at("11:58"))
    put(state, revise(state, "x", trigger(cron_expression="0 0 * * *"), at("12:00:10")), ledger)
    assert {row.verdict.value for row in ledger} == {"fired", "coalesced"}


def test_slots_that_a_pause_still_held_are_superseded_by_an_edit() -> None:
    paused = Standing(Hold(Mode.PAUSED, at("11:50")))
    ledger, state = Ledger(), replace(fleet(every_minute(), cursor=at("11:50")), standing=paused)
    put(state, revise(state, "x", trigger(cron_expression="0 0 * * *", revision=5), at("12:00:10")), ledger)
    (row,) = ledger
    assert (row.verdict, row.count, row.slot) == (Verdict.SUPERSEDED, 10, at("11:51"))


def test_a_deletion_leaves_no_slot_and_no_request_without_a_verdict() -> None:
    ledger, state = Ledger(), ahead(every_minute())
    found = revise(state, "x", None, NOW)
    for decisions in found.decisions:
        ledger.add(decisions.occurrences)
    assert found.trigger is None
    assert {row.reason.code.value for row in ledger} == {"trigger_deleted"}
    asked = replace(fleet(trigger(type="ad_hoc")), firings=(Firing("f", "x", NOW),))
    held = replace(asked, standing=Standing(Hold(Mode.PAUSED, at("11:00"))))
    last = revise(held, "x", None, NOW).decisions[-1]
    assert (last.consumed, [row.verdict for row in last.occurrences]) == (("f",), [Verdict.SUPERSEDED])


def test_what_settling_moved_is_kept_by_an_edit_of_something_else() -> None:
    own = trigger(type="interval", interval_seconds=600, anchor=at("11:00"), misfire_policy="reschedule")
    found = revise(fleet(own, cursor=at("11:00")), "x", own.model_copy(update={"payload": {"n": 1}}), NOW)
    assert found.trigger is not None
    assert (found.trigger.trigger.anchor, found.trigger.trigger.payload) == (NOW, {"n": 1})


@pytest.mark.parametrize("past", [True, False])
def test_a_one_shot_gets_a_new_time(past: bool) -> None:
    state = fleet(trigger(type="one_shot", run_at=at("12:00")))
    state = apply(state, decide(state, at("12:00")))
    when = at("11:30") if past else at("12:00")
    again = trigger(type="one_shot", run_at=when)
    found = revise(state, "x", again, NOW)
    assert found.trigger is not None
    decisions = decide(replace(state, triggers=(found.trigger,), runs=()), NOW)
    assert [row.slot for row in decisions.occurrences] == ([when] if past else []), "a slot never fires twice"


# --- pause and resume, switch off and on ------------------------------------------------------------------------------


def change(state: State, ledger: Ledger, when: datetime, **fields: Any) -> State:
    """The trigger with these fields, as a person saves it at ``when``."""
    new = state.triggers[0].trigger.model_copy(update=fields)
    return put(state, revise(state, "x", new, when), ledger)


def look(state: State, ledger: Ledger, when: datetime) -> State:
    decisions = decide(state, when)
    ledger.add(decisions.occurrences)
    return apply(state, decisions)


OFF: dict[str, dict[str, Any]] = {
    "paused": {"paused_reason": "release"},
    "paused for a while": {"paused_until": at("12:03:20")},
    "disabled": {"enabled": False},
}
SLOTS = ("12:01", "12:02", "12:03")
ON = {"enabled": True, "paused_reason": None, "paused_until": None}


@pytest.mark.parametrize(
    ("off", "policy", "code", "runs"),
    [
        ("paused", "skip", "trigger_paused", 0),
        ("paused", "fire_now", "trigger_paused", 1),
        ("paused", "fire_all", "trigger_paused", 3),
        ("paused for a while", "skip", "trigger_paused", 0),
        ("paused for a while", "fire_all", "trigger_paused", 3),
        ("disabled", "skip", "trigger_disabled", 0),
        ("disabled", "fire_all", "trigger_disabled", 0),
    ],
)
def test_a_trigger_that_is_off_for_three_slots(off: str, policy: str, code: str, runs: int) -> None:
    ledger, state = Ledger(), ahead(every_minute(misfire_policy=policy))
    state = change(state, ledger, NOW, **OFF[off])
    assert state.triggers[0].planned == (), "what was made ahead is taken back"
    for minute in (1, 2, 3):
        state = look(state, ledger, at(f"12:0{minute}:00"))
        assert state.runs == ()
    waiting = 0 if off == "disabled" else 3
    assert len(ledger) == 3 - waiting, "what is paused waits for its verdict, what is disabled has it at once"
    state = change(state, ledger, at("12:03:40"), **ON)
    state = look(state, ledger, at("12:03:41"))
    assert {f"{row.slot:%H:%M}": row.reason.code.value for row in ledger.of("x")} == dict.fromkeys(SLOTS, code)
    assert len(state.runs) == sum(row.verdict is Verdict.FIRED for row in ledger) == runs
    state = look(state, ledger, at("12:03:50"))
    assert [run.slot for run in state.triggers[0].planned] == [at("12:04"), at("12:05"), at("12:06")]
