"""What is said of a trigger before it is saved, and what an edit does to its slots (spec 4.1, 4.2)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from taskcenter.models import Trigger
from taskcenter.scheduling.apply import apply
from taskcenter.scheduling.calendars import Calendar, Calendars, Rule
from taskcenter.scheduling.check import check_after, check_trigger
from taskcenter.scheduling.decide import decide
from taskcenter.scheduling.ledger import Ledger, Verdict
from taskcenter.scheduling.revise import revise
from taskcenter.scheduling.state import Firing, Hold, Horizon, Mode, Standing, State
from tests.fleet import at, every_minute, fleet, told, trigger

NOW = at("12:00:30")
KNOWN = Calendars([Calendar(name="never", exclude=(Rule(rrule="FREQ=DAILY"),)), Calendar(name="all")])


def problems(**about: Any) -> list[tuple[str, str]]:
    own = trigger(**{"cron_expression": "0 * * * *" if about.get("type", "cron") == "cron" else None, **about})
    return [(problem.path, problem.code) for problem in check_trigger(own, NOW, "", KNOWN, {"t", "a", "b"})]


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"calendar": "all", "calendar_rule": "next_working_day", "jitter_seconds": 5},
        {"type": "interval", "interval_seconds": 60, "counts_from": "completion"},
        {"type": "one_shot", "run_at": at("11:00")},
        {"type": "planned", "plan": (at("11:00"), at("13:00"))},
        {"type": "ad_hoc", "token_hash": "c0ffee"},
        {"type": "after", "task_ids": ("a", "b"), "condition": "done"},
        {"type": "startup"},
    ],
)
def test_each_type_has_a_form_that_is_right(about: dict[str, Any]) -> None:
    assert problems(**about) == []


@pytest.mark.parametrize(
    ("about", "found"),
    [
        ({"type": "planned"}, [("plan", "missing")]),
        ({"type": "planned", "plan": (at("13:00"), at("13:00"))}, [("plan[1]", "twice")]),
        ({"type": "planned", "plan": (at("13:00"),), "end_at": at("12:30")}, [("plan[0]", "window")]),
        ({"type": "one_shot", "run_at": at("13:00"), "end_at": at("12:30")}, [("runAt", "window")]),
        ({"type": "after"}, [("taskIds", "missing")]),
        (
            {"type": "after", "task_ids": ("a", "a", " ", "zzz")},
            [("taskIds[1]", "twice"), ("taskIds[2]", "blank"), ("taskIds[3]", "unknown_task")],
        ),
        ({"plan": (at("13:00"),)}, [("plan", "wrong_field")]),
        ({"token_hash": "x"}, [("tokenHash", "wrong_field")]),
        ({"task_ids": ("a",)}, [("taskIds", "wrong_field")]),
        ({"condition": "failed"}, [("condition", "wrong_field")]),
        ({"counts_from": "completion"}, [("from", "wrong_field")]),
        ({"start_at": at("14:00"), "end_at": at("13:00")}, [("endAt", "window")]),
        ({"end_at": at("12:00")}, [("endAt", "window")]),
        ({"end_at": at("12:59")}, [("endAt", "never")]),
        ({"calendar": "never"}, [("calendar", "never")]),
        ({"calendar": "unknown"}, [("calendar", "unknown_calendar")]),
        ({"calendar_rule": "next_working_day"}, [("calendar", "missing")]),
        ({"type": "startup", "jitter_seconds": 3}, [("jitterSeconds", "wrong_field")]),
        ({"type": "interval", "interval_seconds": 60, "jitter_seconds": 60}, [("jitterSeconds", "jitter")]),
        ({"cron_expression": "0 0 30 2 *"}, [("cronExpression", "never")]),
        ({"timezone": "Mars/Olympus", "plan": (NOW,)}, [("timezone", "unknown_timezone"), ("plan", "wrong_field")]),
    ],
)
def test_each_bad_field_is_named(about: dict[str, Any], found: list[tuple[str, str]]) -> None:
    assert problems(**about) == found


def test_places_stand_below_the_path() -> None:
    own = trigger(type="after")
    assert [str(problem) for problem in check_trigger(own, NOW, "triggers[2]")] == [
        "triggers[2].taskIds: is missing; a trigger of type after needs the tasks that it waits for"
    ]


def after(task: str, *upstream: str) -> Trigger:
    return trigger(id=f"x-{task}", task_id=task, type="after", task_ids=upstream)


def test_tasks_that_wait_for_each_other_are_refused_with_the_way() -> None:
    names = {"1": "load", "2": "check", "3": "report"}
    found = check_after([after("1", "3"), after("2", "1"), after("3", "2", "9")], names)
    assert [problem.message for problem in found] == ["tasks wait for each other's runs: load → check → report → load"]
    assert [problem.message for problem in check_after([after("a", "a")])] == [
        "tasks wait for each other's runs: a → a"
    ]


def test_a_long_way_without_a_cycle_is_fine() -> None:
    chain = [after(str(n), str(n + 1), str(n + 2)) for n in range(5_000)]
    assert check_after(chain) == []
    assert len(check_after([*chain, after("5001", "4000")])) > 0


# --- edits ------------------------------------------------------------------------------------------------------------


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
