"""``/metrics`` says what the tables say. (spec 6.7)"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from taskcenter.clock import utc_now
from taskcenter.models import Run
from taskcenter.ports import Changes
from taskcenter.status import RunStatus
from tests.fakes import api_client, fake_center


def test_the_numbers_stand_in_prometheus_form(tmp_path: Path) -> None:
    with fake_center(tmp_path, scheduled=True) as center:
        now = utc_now()
        runs = [
            Run(id=f"run-{n}", task_slug="a", task_type="shell", created_at=now, status=status,
                finished_at=now if status is RunStatus.FAILED else None)
            for n, status in enumerate([RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.RUNNING, RunStatus.FAILED])
        ]  # fmt: skip
        slots = {"due": now - timedelta(seconds=1), "ahead": now + timedelta(hours=1)}
        runs += [Run(id=name, task_slug="a", task_type="shell", created_at=now, slot=at) for name, at in slots.items()]
        center.store.record(Changes(runs=runs))
        client = api_client(center)
        assert client.post("/api/retention/purge", json={}).status_code == 200
        answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert found["taskcenter_runs_open", "queued"] == 3
    assert found["taskcenter_runs_open", "running"] == 2
    assert found["taskcenter_runs_ended_last_day", "failed"] == 1
    assert found["taskcenter_queue_depth",] == 2
    assert found["taskcenter_scheduler_leads",] == 0
    assert found["taskcenter_last_purge_rows", "deletedRuns"] == 0
    assert found["taskcenter_workers", "online"] == 0
