"""``maxFailures``: counted by root, paused once. (spec 5.7)"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from taskcenter.clock import utc_now
from taskcenter.models import Run, Task
from taskcenter.ports import Changes
from taskcenter.status import Origin, RunStatus, TaskStatus
from taskcenter_console.services import tasks as task_service
from taskcenter_console.services.center import Caller, Center
from taskcenter_console.services.enforcing import failures_in_a_row, pause_after_failures
from tests.fakes import fake_center

ME = Caller("test", "cli")
S, F, C, R = RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.RUNNING
BEGIN = datetime.fromisoformat("2026-11-20T10:00:00+00:00")


@pytest.fixture
def center(tmp_path: Path) -> Iterator[Center]:
    with fake_center(tmp_path) as center:
        yield center


def task_of(center: Center, failures: int, retries: int = 0) -> Task:
    data = {"name": "frail", "taskType": "wait", "payload": {"seconds": 0}, "retryPolicy": {"maxAttempts": retries},
            "termination": {"maxFailures": failures}}  # fmt: skip
    return task_service.save(center, data, ME)


def run_of(task: Task, n: int, status: RunStatus, attempt: int = 1, root: str = "", dry: bool = False) -> Run:
    at = BEGIN + timedelta(minutes=n)
    return Run(id=f"{n:08d}", task_id=task.id, task_slug=task.slug, task_type=task.task_type, status=status,
               attempt=attempt, root_run_id=root or f"{n:08d}", created_at=at, dry_run=dry, error="no luck",
               origin=Origin.SCHEDULER)  # fmt: skip


@pytest.mark.parametrize(
    ("statuses", "count"),
    [([], 0), ([F, F, F], 3), ([F, S, F, F], 2), ([F, F, S], 0), ([F, C, F, R], 2), ([C, C], 0)],
)
def test_failures_since_the_last_success(center: Center, statuses: list[RunStatus], count: int) -> None:
    task = task_of(center, 2)
    runs = [run_of(task, n, status) for n, status in enumerate(statuses)]
    assert len(failures_in_a_row(task, runs[::-1], None)) == count


def test_a_root_counts_once_and_when_no_attempt_follows(center: Center) -> None:
    task = task_of(center, 2, retries=1)
    first = [run_of(task, 0, F), run_of(task, 1, F, attempt=2, root="00000000")]
    assert [run.id for run in failures_in_a_row(task, first[::-1], None)] == ["00000001"]
    assert failures_in_a_row(task, [run_of(task, 2, F)], None) == []
    assert failures_in_a_row(task, [run_of(task, 2, F, dry=True)], None) == []
    by_person = run_of(task, 2, F).model_copy(update={"origin": Origin.MANUAL})  # not retried
    assert failures_in_a_row(task, [by_person], None) == [by_person]


def test_the_task_is_paused_once_with_its_reason(center: Center) -> None:
    task = task_of(center, 2)
    center.store.record(Changes(runs=[run_of(task, 0, F)]))
    assert pause_after_failures(center, utc_now()) == []
    center.store.record(Changes(runs=[run_of(task, 1, F)]))
    assert [done.slug for done in pause_after_failures(center, utc_now())] == ["frail"]
    assert center.store.get_task("frail").status is TaskStatus.PAUSED
    assert pause_after_failures(center, utc_now()) == []
    told = [entry for entry in center.store.list_audit(task_id=task.id) if entry.event_type == "task_paused_by_rule"]
    assert [entry.message for entry in told] == [
        "paused after 2 failures in a row (maxFailures 2); the last one: no luck"
    ]
    assert "task_paused_by_rule" in [event.name for event in center.store.list_events()]


def test_after_a_resume_it_counts_anew(center: Center) -> None:
    task = task_of(center, 1)
    center.store.record(Changes(runs=[run_of(task, 0, F)]))
    assert pause_after_failures(center, BEGIN + timedelta(minutes=5))
    task_service.save(center, {"status": "active"}, ME, update=task.id)
    assert pause_after_failures(center, BEGIN + timedelta(minutes=6)) == []
    center.store.record(Changes(runs=[run_of(task, 7, F)]))
    assert pause_after_failures(center, BEGIN + timedelta(minutes=8))
