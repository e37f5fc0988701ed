"""The table of spec 4.5, row by row: what each policy makes of late slots, for each type and each cause."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from taskcenter.models import Trigger
from taskcenter.scheduling.apply import apply
from taskcenter.scheduling.decide import decide
from taskcenter.scheduling.decisions import Decisions
from taskcenter.scheduling.state import Hold, Mode, Standing, State, TaskState
from taskcenter.status import RunStatus
from tests.fleet import at, every_minute, fleet, open_run, trigger

NOW = at("12:36:30")
KINDS: dict[str, dict[str, Any]] = {
    "cron": {"cron_expression": "3-59/10 * * * *"},
    "interval": {"interval_seconds": 600, "anchor": at("09:03")},
    "one_shot": {"run_at": at("12:33")},
    "planned": {"plan": (at("12:13"), at("12:23"), at("12:33"), at("12:43"))},
}
F, C, S = "fired", "coalesced", "skipped"
TABLE: dict[tuple[str, str], tuple[tuple[str, ...], str | None]] = {
    # (type, policy): the verdicts of the slots 12:13, 12:23, 12:33 (a one_shot has the last alone), the next slot
    ("cron", "fire_now"): ((C, C, F), "12:43:00"),
    ("cron", "fire_all"): ((F, F, F), "12:43:00"),
    ("cron", "skip"): ((S, S, S), "12:43:00"),
    ("cron", "reschedule"): ((S, S, S), "12:43:00"),
    ("interval", "fire_now"): ((C, C, F), "12:43:00"),
    ("interval", "fire_all"): ((F, F, F), "12:43:00"),
    ("interval", "skip"): ((S, S, S), "12:43:00"),
    ("interval", "reschedule"): ((S, S, S), "12:46:30"),
    ("one_shot", "fire_now"): ((F,), None),
    ("one_shot", "fire_all"): ((F,), None),
    ("one_shot", "skip"): ((S,), None),
    ("one_shot", "reschedule"): ((S,), "12:36:31"),
    ("planned", "fire_now"): ((C, C, F), "12:43:00"),
    ("planned", "fire_all"): ((F, F, F), "12:43:00"),
    ("planned", "skip"): ((S, S, S), "12:43:00"),
    ("planned", "reschedule"): ((S, S, S), "12:43:00"),
}
DELAYS = ("service_down", "scheduler_paused", "task_paused", "trigger_paused")
POLICIES = ("fire_now", "fire_all", "skip", "reschedule")


def late(own: Trigger, cause: str) -> State:
    """Three slots were missed, for this cause, which has just ended."""
    state = fleet(own, cursor=at("12:10"), since=at("08:00"))
    held = Standing(None, (Hold(Mode.PAUSED, at("12:10"), NOW),))
    match cause:
        case "scheduler_paused":
            return replace(state, standing=held)
        case "task_paused":
            return replace(state, tasks={"t": TaskState("t", standing=held)})
        case "trigger_paused":
            return replace(state, triggers=(replace(state.triggers[0], standing=held),))
    return state


def next_of(decisions: Decisions) -> str | None:
    at_ = decisions.moves[0].next_slot
    return None if at_ is None else f"{at_:%H:%M:%S}"


@pytest.mark.parametrize("cause", DELAYS)
@pytest.mark.parametrize(("kind", "policy"), TABLE)
def test_late_slots(kind: str, policy: str, cause: str) -> None:
    verdicts, following = TABLE[kind, policy]
    opposite = "skip" if policy.startswith("fire") else "fire_all"
    own = trigger(type=kind, misfire_policy=opposite, misfire_by_cause={cause: policy}, **KINDS[kind])
    state = late(own, cause)
    decisions = decide(state, NOW)
    assert tuple(found.verdict.value for found in decisions.occurrences) == verdicts
    assert next_of(decisions) == following
    assert len(decisions.runs) == verdicts.count(F)
    assert {found.data["cause"] for found in decisions.occurrences} == {cause}
    told = dict(decisions.events)["task-misfire-handled"]
    assert (told["policy"], told["cause"]) == (policy, cause)
    after = replace(apply(state, decisions), runs=())
    if following is None:
        assert after.triggers[0].trigger.enabled is False
        assert decide(after, at("18:00")).occurrences == ()
    else:
        on_time = decide(after, at(following))
        assert [(found.verdict.value, found.slot) for found in on_time.occurrences] == [(F, at(following))]


@pytest.mark.parametrize("policy", POLICIES)
def test_slots_in_grace_are_on_time_whatever_the_policy(policy: str) -> None:
    own = trigger(misfire_policy=policy, **KINDS["cron"])
    decisions = decide(fleet(own, cursor=at("12:30")), at("12:34:00"))
    assert [(row.verdict.value, row.reason.code.value) for row in decisions.occurrences] == [(F, "on_time")]
    assert "task-misfire-handled" not in dict(decisions.events)


# --- runs that wait too long: overlap and capacity --------------------------------------------------------------------


def waiting(own: Trigger, cause: str, cursor: str) -> State:
    """The run of the slot 12:00 waits, behind a run of the same trigger or for a place in the pool."""
    serial = "trigger" if cause == "overlap" else ""
    run = open_run("late", slot=at("12:00"), created_at=at("12:00"), serial=serial)
    going = open_run("going", status=RunStatus.RUNNING, started_at=at("11:00"))
    state = fleet(own, cursor=at(cursor), since=at("08:00"), runs=(going, run) if serial else (run,))
    return apply(state, decide(state, at(cursor)))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("cause", ["overlap", "capacity"])
@pytest.mark.parametrize("kind", ["cron", "interval", "one_shot"])
def test_a_run_that_waits_too_long(cause: str, policy: str, kind: str) -> None:
    times = {**KINDS, "cron": {"cron_expression": "*/10 * * * *"}, "one_shot": {"run_at": at("12:00")}}
    own = trigger(type=kind, overlap="buffer_all", misfire_by_cause={cause: policy}, **times[kind])
    if kind == "one_shot":
        own = own.model_copy(update={"enabled": False})  # it has fired
    state = waiting(own, cause, "12:00:30")
    assert decide(state, at("12:01:00.9")).cancel == ()
    decisions = decide(state, at("12:01:01"))
    if policy.startswith("fire"):
        assert (decisions.cancel, decisions.occurrences) == ((), ())
        return
    assert [cancel.run_id for cancel in decisions.cancel] == ["late"]
    assert [(row.slot, row.verdict.value, row.reason.code.value) for row in decisions.occurrences] == [
        (at("12:00"), S, cause)
    ]
    again = {"interval": "12:11:01", "one_shot": "12:01:02"}.get(kind) if policy == "reschedule" else None
    assert [next_of(decisions) for _ in decisions.moves] == ([again] if again else [])
    after = apply(state, decisions)
    following = {"cron": "12:10:00", "interval": "12:03:00", "one_shot": None}[kind] if again is None else again
    found = decide(replace(after, runs=()), at("12:12"))
    assert [row.slot for row in found.occurrences][:1] == ([] if following is None else [at(following)])


def test_a_drop_and_a_slot_of_the_same_look_both_count() -> None:
    """At 12:01:01 the run of 12:00 is too late, and the slot 12:01 is due: it fires, and the interval counts anew."""
    own = trigger(
        type="interval", interval_seconds=60, anchor=at("11:00"), overlap="allow",
        misfire_by_cause={"capacity": "reschedule"},
    )  # fmt: skip
    run = open_run("late", slot=at("12:00"), created_at=at("12:00"))
    state = fleet(own, cursor=at("12:00"), runs=(run,))
    decisions = decide(state, at("12:01:01"))
    assert [(row.slot, row.verdict.value) for row in decisions.occurrences] == [(at("12:01"), F), (at("12:00"), S)]
    (move,) = decisions.moves
    assert (move.next_slot, move.cursor, move.changes) == (at("12:02:01"), at("12:01:01"), {"anchor": at("12:01:01")})
    assert move.last_run_at == at("12:01:01")


def test_nothing_is_dropped_while_more_is_due_than_one_look_takes() -> None:
    """A drop may move its trigger to now: then what is still due would be lost."""
    own = every_minute(misfire_policy="skip", misfire_by_cause={"capacity": "skip"})
    state = fleet(
        own, cursor=at("2026-01-01 00:00"), runs=(open_run("late", slot=at("00:00"), created_at=at("00:00")),)
    )
    looks: list[Decisions] = []
    now: datetime = at("12:00")
    while not looks or looks[-1].unfinished:
        looks.append(decide(state, now))
        state = apply(state, looks[-1])
    assert [len(look.cancel) for look in looks] == [0] * (len(looks) - 1) + [1]
    assert len(looks) > 2
