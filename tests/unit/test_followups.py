"""What follows a run that ended: another attempt, the triggers of other tasks (spec 4.1, 4.8)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from taskcenter.models import RetryPolicy
from taskcenter.scheduling.admission import admit
from taskcenter.scheduling.apply import apply, opened
from taskcenter.scheduling.decide import decide
from taskcenter.scheduling.decisions import RunRequest
from taskcenter.scheduling.followups import follow_up
from taskcenter.scheduling.state import EndedRun, Hold, Mode, Standing, State, TaskState
from taskcenter.status import Origin, Priority, RunStatus
from tests.fleet import at, fleet, trigger

NOW = at("12:00:10")
TWICE = RetryPolicy(max_attempts=2, backoff_ms=5_000)


def ended(**about: Any) -> EndedRun:
    return EndedRun(**{"id": "r1", "task_id": "t", "status": RunStatus.FAILED, "finished_at": at("12:00"), **about})


def followed(*runs: EndedRun, triggers: Any = ()) -> Any:
    return follow_up(replace(fleet(*triggers), ended=runs), NOW)


# --- attempts ---------------------------------------------------------------------------------------------------------


def attempts(policy: RetryPolicy, **about: Any) -> list[RunRequest]:
    """All attempts after the first, each of which fails 30 s after it was due."""
    run, made = ended(retry_policy=policy, **about), []
    while requests := followed(run).runs:
        (request,) = requests
        made.append(request)
        assert request.ready_at is not None
        run = replace(
            run, id=f"r{request.attempt}", attempt=request.attempt, root_run_id=request.root_run_id,
            finished_at=request.ready_at + timedelta(seconds=30),
        )  # fmt: skip
    return made


@pytest.mark.parametrize(
    ("policy", "due"),
    [
        ({}, []),
        ({"max_attempts": 1}, ["12:00:00"]),
        ({"max_attempts": 2, "backoff_ms": 5_000}, ["12:00:05", "12:00:45"]),
        ({"max_attempts": 3, "backoff_ms": 4_000, "strategy": "fixed"}, ["12:00:04", "12:00:38", "12:01:12"]),
        ({"max_attempts": 2, "backoff_ms": 4_000, "strategy": "exponential"}, ["12:00:04", "12:00:42"]),
        ({"max_attempts": 2, "backoff_ms": 9_000, "max_backoff_ms": 6_000}, ["12:00:06", "12:00:42"]),
    ],
)
def test_each_attempt_is_a_run_of_its_own_and_due_by_the_policy(policy: dict[str, Any], due: list[str]) -> None:
    made = attempts(RetryPolicy(**policy))
    assert [f"{request.ready_at:%H:%M:%S}" for request in made] == due
    assert [request.attempt for request in made] == list(range(2, 2 + len(due)))
    assert {request.total_attempts for request in made} <= {1 + len(due)}
    assert {request.root_run_id for request in made} <= {"r1"}
    assert len({request.key for request in made}) == len(due)


def test_an_attempt_keeps_what_its_root_was_made_with() -> None:
    about = {"slot": at("11:00"), "trigger_id": "x", "priority": Priority.HIGH, "payload": {"n": 1}}
    (request, _) = attempts(TWICE, **about)
    assert {name: getattr(request, name) for name in about} == about
    assert (request.origin, request.key) == (Origin.SCHEDULER_RETRY, "r1 attempt 2")


@pytest.mark.parametrize("status", [RunStatus.SUCCESS, RunStatus.CANCELLED])
def test_no_attempt_follows_a_success_or_a_cancel(status: RunStatus) -> None:
    found = followed(ended(status=status, retry_policy=TWICE))
    assert (found.runs, found.ended) == ((), ("r1",))


def test_without_a_policy_none_follows() -> None:
    assert followed(ended(retry_policy=None)).runs == ()


def test_an_attempt_is_decided_once_and_started_in_its_time() -> None:
    state = replace(fleet(trigger(cron_expression="0 0 * * *")), ended=(ended(retry_policy=TWICE),))
    decisions = decide(state, NOW)
    assert decisions.followed == ("r1",)
    state = apply(state, decisions)
    assert decide(state, NOW).runs == ()
    assert [admit(state, when).start for when in (at("12:00:04.9"), at("12:00:05"))] == [(), ("r1 attempt 2",)]


@pytest.mark.parametrize("whose", ["scheduler", "task"])
def test_an_attempt_does_not_start_while_the_scheduler_or_its_task_is_paused(whose: str) -> None:
    paused = Standing(Hold(Mode.PAUSED, at("11:00"), at("13:00")))
    attempt = opened(attempts(TWICE)[0])
    state = State((), {"t": TaskState("t", standing=paused if whose == "task" else Standing())}, runs=(attempt,))
    state = replace(state, standing=paused if whose == "scheduler" else Standing())
    assert [admit(state, when).start for when in (at("12:30"), at("13:00"))] == [(), ("r1 attempt 2",)]


def test_an_attempt_is_never_dropped_for_being_late() -> None:
    own = trigger(cron_expression="0 0 * * *", misfire_policy="skip")
    attempt = opened(attempts(TWICE, slot=at("11:00"), trigger_id="x")[0])
    assert decide(fleet(own, cursor=at("11:00"), runs=(attempt,)), at("18:00")).cancel == ()


# --- the triggers of other tasks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "fires"),
    [
        ("success", {RunStatus.SUCCESS}),
        ("failed", {RunStatus.FAILED}),
        ("done", {RunStatus.SUCCESS, RunStatus.FAILED}),
    ],
)
@pytest.mark.parametrize("status", [RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELLED])
def test_after_fires_by_its_condition(condition: str, fires: set[RunStatus], status: RunStatus) -> None:
    after = trigger(task_id="u", type="after", task_ids=("t",), condition=condition)
    firings = followed(ended(status=status), triggers=[after]).firings
    assert [(firing.upstream_run_id, firing.at) for firing in firings] == [("r1", at("12:00"))] * (status in fires)


def test_after_waits_for_the_last_attempt() -> None:
    after = trigger(task_id="u", type="after", task_ids=("t",), condition="done")
    assert followed(ended(retry_policy=TWICE), triggers=[after]).firings == ()
    last = ended(id="r3", attempt=3, root_run_id="r1", retry_policy=TWICE)
    assert [firing.upstream_run_id for firing in followed(last, triggers=[after]).firings] == ["r3"]


def test_after_fires_once_per_upstream_run() -> None:
    after = trigger(task_id="u", type="after", task_ids=("t", "v"))
    runs = [ended(id=name, task_id=task, status=RunStatus.SUCCESS) for name, task in (("a", "t"), ("b", "v"))]
    state = replace(fleet(after), ended=tuple(runs))
    asked = decide(state, NOW)
    assert [firing.id for firing in asked.firings] == ["x a", "x b"]
    state = apply(state, asked)
    fired = decide(state, NOW)
    assert [
        (row.verdict.value, run.upstream_run_id) for row, run in zip(fired.occurrences, fired.runs, strict=True)
    ] == [
        ("fired", "a"),
        ("fired", "b"),
    ]
    assert decide(apply(state, fired), NOW).runs == ()
