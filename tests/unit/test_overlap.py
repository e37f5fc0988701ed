"""Slots that come while a run of the same trigger or task is active (spec 4.6)."""

from __future__ import annotations

from typing import Any

import pytest

from taskcenter.scheduling.apply import apply
from taskcenter.scheduling.decide import decide
from taskcenter.scheduling.ledger import Verdict
from taskcenter.scheduling.overlap import decide_overlap
from taskcenter.scheduling.simulate import simulate
from taskcenter.scheduling.simulation import Durations
from taskcenter.scheduling.state import Limits, State
from taskcenter.status import RunStatus
from tests.fleet import at, every_minute, fleet, open_run, told, trigger

GOING = open_run("going", status=RunStatus.RUNNING, started_at=at("11:58"))
WAITING = open_run("waiting", slot=at("11:59"), serial="trigger")


def busy(policy: str, *runs: Any, **about: Any) -> State:
    return fleet(every_minute(overlap=policy, **about), cursor=at("11:59"), runs=runs or (GOING,))


def test_skip_is_the_default_and_names_the_run() -> None:
    decisions = decide(fleet(every_minute(), cursor=at("11:59"), runs=(GOING,)), at("12:00"))
    assert told(decisions) == {"12:00": Verdict.SKIPPED}
    text = "a run of the same trigger was active (going), and the overlap policy is skip"
    assert str(decisions.occurrences[0].reason) == text


def test_buffer_one_keeps_one_and_coalesces_the_others_into_it() -> None:
    first = decide(busy("buffer_one"), at("12:00"))
    assert told(first) == {"12:00": Verdict.FIRED}
    assert first.runs[0].serial == "trigger"
    second = decide(apply(busy("buffer_one"), first), at("12:01"))
    assert told(second) == {"12:01": Verdict.COALESCED}
    assert second.occurrences[0].run_id == first.runs[0].key


def test_buffer_one_holds_for_slots_that_come_together_too() -> None:
    decisions = decide(busy("buffer_one", misfire_grace_seconds=600), at("12:02"))
    assert told(decisions) == {"12:00": Verdict.FIRED, "12:01": Verdict.COALESCED, "12:02": Verdict.COALESCED}


def test_buffer_all_lets_each_wait_its_turn() -> None:
    decisions = decide(busy("buffer_all", GOING, WAITING), at("12:00"))
    assert (told(decisions), decisions.runs[0].serial) == ({"12:00": Verdict.FIRED}, "trigger")


def test_cancel_other_cancels_all_that_is_active_and_waits_until_it_is_gone() -> None:
    decisions = decide(busy("cancel_other", GOING, WAITING), at("12:00"))
    assert [cancel.run_id for cancel in decisions.cancel] == ["going", "waiting"]
    assert decisions.runs[0].serial == "trigger"


def test_allow_starts_beside_it() -> None:
    decisions = decide(busy("allow"), at("12:00"))
    assert (told(decisions), decisions.runs[0].serial) == ({"12:00": Verdict.FIRED}, "")


@pytest.mark.parametrize(("scope", "verdict"), [("trigger", Verdict.FIRED), ("task", Verdict.SKIPPED)])
def test_the_scope_is_the_trigger_or_the_task(scope: str, verdict: Verdict) -> None:
    by_hand = open_run("by hand", trigger_id=None, status=RunStatus.RUNNING)
    assert told(decide(busy("skip", by_hand, overlap_scope=scope), at("12:00"))) == {"12:00": verdict}


def test_two_triggers_of_one_task_see_each_other_in_one_look() -> None:
    pair = [every_minute(overlap_scope="task", id=name) for name in ("a", "b")]
    decisions = decide(fleet(*pair, cursor=at("11:59")), at("12:00"))
    assert [(row.trigger_id, row.verdict.value) for row in decisions.occurrences] == [("a", "fired"), ("b", "skipped")]


def test_slots_that_come_together_are_not_each_others_overlap() -> None:
    every_ten = trigger(type="interval", interval_seconds=10, anchor=at("11:00"))
    decisions = decide(fleet(every_ten, cursor=at("12:00")), at("12:00:30"))
    assert [row.verdict for row in decisions.occurrences] == [Verdict.FIRED] * 3
    assert all(run.serial == "trigger" for run in decisions.runs)


def test_a_run_that_makes_up_for_a_late_slot_is_nobodys_overlap() -> None:
    late = open_run("late", caught_up=True, serial="trigger")
    decisions = decide(busy("skip", late), at("12:00"))
    assert (told(decisions), decisions.runs[0].serial) == ({"12:00": Verdict.FIRED}, "trigger")


def test_a_late_slot_that_meets_a_run_takes_its_coalesced_ones_along() -> None:
    decisions = decide(busy("skip"), at("12:03:05"))
    assert told(decisions) == dict.fromkeys(("12:00", "12:01", "12:02", "12:03"), Verdict.SKIPPED)


@pytest.mark.parametrize("policy", ["skip", "buffer_one", "buffer_all", "cancel_other", "allow"])
def test_every_slot_goes_somewhere(policy: Any) -> None:
    slots = [at("12:00"), at("12:01"), at("12:02")]
    for active in ([], [GOING], [GOING, WAITING]):
        found = decide_overlap(policy, slots, active)
        assert sorted([*found.fire, *found.skip, *found.coalesce]) == slots


# --- the five policies, on a clock ------------------------------------------------------------------------------------

F, C, S = "fired", "coalesced", "skipped"


@pytest.mark.parametrize("scope", ["trigger", "task"])
@pytest.mark.parametrize(
    ("policy", "verdicts", "starts", "cancelled"),
    [
        ("skip", (F, S, S, F, S, S), ("12:00:00", "12:03:00"), 0),
        ("buffer_one", (F, F, C, F, C, F), ("12:00:00", "12:02:20", "12:04:40"), 0),
        ("buffer_all", (F, F, F, F, F, F), ("12:00:00", "12:02:20", "12:04:40"), 0),
        ("cancel_other", (F, F, F, F, F, F), tuple(f"12:0{n}:00" for n in range(6)), 5),
        ("allow", (F, F, F, F, F, F), tuple(f"12:0{n}:00" for n in range(6)), 0),
    ],
)
def test_slots_of_each_minute_and_runs_of_140_seconds(
    policy: str, verdicts: tuple[str, ...], starts: tuple[str, ...], cancelled: int, scope: str
) -> None:
    """With the scope ``task`` the slots come from two triggers in turn, and meet each other's runs all the same."""
    names = ["x"] if scope == "trigger" else ["even", "odd"]
    times = {"x": "* * * * *", "even": "*/2 * * * *", "odd": "1-59/2 * * * *"}
    own = [trigger(id=name, cron_expression=times[name], overlap=policy, overlap_scope=scope) for name in names]
    state = fleet(*own, cursor=at("11:59"), limits=Limits(pool=0))
    found = simulate(state, at("12:00"), at("12:05:59"), Durations(default=140))
    assert tuple(row.verdict.value for row in found.rows) == verdicts
    began = sorted(run.started for run in found.runs if run.started is not None)
    assert tuple(f"{start:%H:%M:%S}" for start in began) == starts
    assert sum(run.cancelled for run in found.runs) == cancelled
