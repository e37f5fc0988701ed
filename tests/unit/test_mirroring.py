"""What the service makes of Prefect's events before it asks Prefect anything. (spec 6.2)"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from taskcenter.models import Run
from taskcenter.settings import Settings
from taskcenter.status import RunPhase, RunStatus
from taskcenter_adapter.prefect_events import RunChanged
from taskcenter_console.mirroring import Housekeeper, Listener, _is_told


def run(status: RunStatus, phase: RunPhase | None = None) -> Run:
    return Run(id="r", task_slug="t", task_type="shell", created_at=datetime(2026, 1, 1, tzinfo=UTC), status=status,
               phase=phase)  # fmt: skip


def change(state: str, name: str = "") -> RunChanged:
    return RunChanged("r", "d", state, name or state.title())


@pytest.mark.parametrize(
    ("row", "heard", "told"),
    [
        (run(RunStatus.RUNNING), change("RUNNING"), True),
        (run(RunStatus.QUEUED, RunPhase.STARTING), change("PENDING"), True),
        (run(RunStatus.SUCCESS), change("COMPLETED"), True),
        (run(RunStatus.FAILED, RunPhase.CRASHED), change("FAILED"), True),
        (None, change("RUNNING"), False),
        (run(RunStatus.QUEUED, RunPhase.SCHEDULED), change("RUNNING"), False),
        (run(RunStatus.RUNNING), change("CANCELLING"), False),
        (run(RunStatus.RUNNING, RunPhase.PAUSED), change("RUNNING"), False),
        (run(RunStatus.RUNNING), change("COMPLETED"), False),
        (run(RunStatus.SUCCESS), change("FAILED"), False),
        (run(RunStatus.SUCCESS), RunChanged("r", "d"), False),  # deleted: it has no state
    ],
)
def test_only_what_the_row_does_not_say_is_asked_for(row: Run | None, heard: RunChanged, told: bool) -> None:
    assert _is_told(row, heard) is told


def test_an_end_is_not_forgotten_for_what_comes_late(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    listener = Listener(settings, Housekeeper(settings))
    for heard in (change("PENDING"), change("RUNNING"), change("COMPLETED"), change("RUNNING")):
        listener._hear(heard)
    assert listener._heard["r"].is_end
    listener._hear(RunChanged("gone", "d"))
    listener._hear(RunChanged("gone", "d", "RUNNING", "Running"))
    assert listener._heard["gone"].is_end
