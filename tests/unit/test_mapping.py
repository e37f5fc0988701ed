"""Prefect's states in our words, row by row."""

from __future__ import annotations

import pytest
from prefect.client.schemas.objects import StateType

from taskcenter.status import Origin, RunPhase, RunStatus, StepStatus
from taskcenter_adapter.mapping import facts_from_tags, map_run, map_step, tags_for

ROWS = [
    ("SCHEDULED", "Scheduled", RunStatus.QUEUED, RunPhase.SCHEDULED),
    ("SCHEDULED", "Late", RunStatus.QUEUED, RunPhase.LATE),
    ("SCHEDULED", "AwaitingRetry", RunStatus.QUEUED, RunPhase.AWAITING_RETRY),
    ("SCHEDULED", "AwaitingConcurrencySlot", RunStatus.QUEUED, RunPhase.AWAITING_SLOT),
    ("PENDING", "Pending", RunStatus.QUEUED, RunPhase.STARTING),
    ("PENDING", "Submitting", RunStatus.QUEUED, RunPhase.STARTING),
    ("RUNNING", "Running", RunStatus.RUNNING, None),
    ("RUNNING", "Retrying", RunStatus.RUNNING, None),
    ("PAUSED", "Paused", RunStatus.RUNNING, RunPhase.PAUSED),
    ("PAUSED", "Suspended", RunStatus.RUNNING, RunPhase.PAUSED),
    ("CANCELLING", "Cancelling", RunStatus.RUNNING, RunPhase.CANCELLING),
    ("COMPLETED", "Completed", RunStatus.SUCCESS, None),
    ("COMPLETED", "Cached", RunStatus.SUCCESS, None),
    ("FAILED", "Failed", RunStatus.FAILED, None),
    ("FAILED", "TimedOut", RunStatus.FAILED, RunPhase.TIMED_OUT),
    ("CRASHED", "Crashed", RunStatus.FAILED, RunPhase.CRASHED),
    ("CANCELLED", "Cancelled", RunStatus.CANCELLED, None),
]


@pytest.mark.parametrize(("kind", "name", "status", "phase"), ROWS)
def test_a_flow_run_state(kind: str, name: str, status: RunStatus, phase: RunPhase | None) -> None:
    assert map_run(kind, name) == (status, phase)


def test_every_state_type_of_the_installed_prefect_has_a_row() -> None:
    for kind in StateType:
        map_run(kind.value, None)
        assert isinstance(map_step(kind.value), StepStatus)


def test_a_run_says_of_itself_what_its_row_needs() -> None:
    tags = tags_for(Origin.SCHEDULER_RETRY, attempt=2, root="r-1", total=3, resumed_from="x")
    assert facts_from_tags([*tags, "team:blue", "plain"]) == {
        "origin": "scheduler_retry",
        "attempt": "2",
        "attempts": "3",
        "root": "r-1",
        "resumed": "x",
    }
    assert facts_from_tags(tags_for(Origin.MANUAL)) == {"origin": "manual"}
