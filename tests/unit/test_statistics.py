"""Numbers about runs. (spec 5.8)"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from taskcenter.errors import ValidationFailed
from taskcenter.models import Run
from taskcenter.ports import Changes
from taskcenter.statistics import percentile
from taskcenter.status import RunPhase, RunStatus
from taskcenter_adapter.database import make_engine, upgrade
from taskcenter_adapter.store_sql import SqlStore
from taskcenter_console.cli import cli
from taskcenter_console.commands import common
from taskcenter_console.services import statistics
from taskcenter_console.services.center import Caller, Center
from taskcenter_console.services.tasks import save
from tests.fakes import FakeGateway, api_client, fake_center

ME = Caller("test", "cli")
BEGIN = datetime(2026, 11, 1, 23, 30, tzinfo=UTC)
PERIOD: dict[str, Any] = {"since": BEGIN, "until": BEGIN + timedelta(days=3)}


@pytest.fixture(params=["memory", "sqlite"])
def center(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Center]:
    made = fake_center(tmp_path, FakeGateway())
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/numbers.db"
        upgrade(make_engine(url))
        store = SqlStore(make_engine(url))
        made.open_store = lambda: store
    monkeypatch.setattr(common, "open_center", lambda: made)
    with made:
        for name, tags in (("=one", ["nightly"]), ("two", ["nightly", "heavy"])):
            save(
                made,
                {"name": name, "slug": name.strip("="), "taskType": "wait", "payload": {"seconds": 0}, "tags": tags},
                ME,
            )
        yield made


def add(center: Center, task: str, n: int, status: RunStatus, took: int | None = None, **more: Any) -> None:
    at = BEGIN + timedelta(hours=n)
    known = center.store.get_task(task)
    run = Run(id=f"{task}-{n:08d}", task_id=known.id, task_slug=task, task_type="wait", status=status, created_at=at,
              started_at=at + timedelta(seconds=n) if took is not None else None, duration_ms=took, **more)  # fmt: skip
    center.store.record(Changes(runs=(run,)))


def fill(center: Center) -> None:
    for n, took in enumerate((100, 200, 300, 400)):
        add(center, "one", n, RunStatus.SUCCESS, took)
    add(center, "one", 4, RunStatus.FAILED, 1000, error="no luck\nat all")
    add(center, "one", 5, RunStatus.FAILED, 3000, phase=RunPhase.TIMED_OUT)
    add(center, "two", 30, RunStatus.QUEUED)
    add(center, "two", 31, RunStatus.RUNNING, phase=RunPhase.PAUSED)
    add(center, "two", 32, RunStatus.CANCELLED)
    add(center, "two", 33, RunStatus.SUCCESS, 1, dry_run=True)
    add(center, "two", 100, RunStatus.SUCCESS, 1)


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.95, 4), (0.0, 1), (1.0, 4), (0.51, 3)])
def test_a_percentile_is_a_value_that_was_seen(share: float, value: int) -> None:
    assert percentile([4, 1, 3, 2], share) == value
    assert percentile([], share) == 0


def test_no_runs_give_zeros(center: Center) -> None:
    found = statistics.numbers(center, **PERIOD)
    assert (found["total"], found["successRate"], found["durationMs"]) == (0, 0.0, {"p50": 0, "p95": 0, "p99": 0})
    assert found["hours"] == [0] * 24
    assert (found["failures"], found["parts"]) == ([], [])


def test_the_numbers(center: Center) -> None:
    fill(center)
    found = statistics.numbers(center, **PERIOD)
    counters = ("total", "queued", "running", "paused", "completed", "failed", "cancelled")
    assert [found[name] for name in counters] == [9, 1, 0, 1, 4, 2, 1]
    assert found["successRate"] == round(4 / 6, 4)
    assert found["durationMs"] == {"p50": 300, "p95": 3000, "p99": 3000}
    assert found["waitMs"]["p50"] == 2000
    assert found["failures"] == [{"reason": "no luck", "count": 1}, {"reason": "timed_out", "count": 1}]
    assert found["hours"][23] == 1


def test_parts_by_task_tag_and_day(center: Center) -> None:
    fill(center)

    def parts(by: statistics.By, **more: Any) -> dict[str, int]:
        found = statistics.numbers(center, by=by, **{**PERIOD, **more})
        return {part["key"]: part["total"] for part in found["parts"]}

    assert parts("task") == {"one": 6, "two": 3}
    assert parts("tag") == {"heavy": 3, "nightly": 9}
    assert parts("day") == {"2026-11-01": 1, "2026-11-02": 5, "2026-11-03": 3, "2026-11-04": 0}
    assert parts("day", timezone="Europe/Berlin") == {
        "2026-11-02": 6,
        "2026-11-03": 3,
        "2026-11-04": 0,
        "2026-11-05": 0,
    }
    assert parts("task", task="two") == {"two": 3}
    assert parts("task", tag="heavy") == {"two": 3}


@pytest.mark.parametrize("wrong", [{"timezone": "Mars/Base"}, {"timezone": "../etc"}, {"until": BEGIN}])
def test_a_period_that_is_none(center: Center, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationFailed):
        statistics.numbers(center, **{**PERIOD, **wrong})


def test_on_the_command_line_and_over_rest(center: Center) -> None:
    fill(center)
    given = ["--since", "2026-11-01", "--until", "2026-11-05"]
    lines = CliRunner().invoke(cli, ["stats", *given, "--by", "task", "--csv"]).stdout.splitlines()
    assert [line.split(",")[:2] for line in lines] == [["key", "total"], ["all", "9"], ["one", "6"], ["two", "3"]]
    assert "timed_out" in CliRunner().invoke(cli, ["stats", *given]).stdout
    answer = api_client(center).get("/api/statistics", params={"since": "2026-11-01T00:00:00Z", "by": "day",
                                                               "until": "2026-11-05T00:00:00Z"})  # fmt: skip
    assert (answer.status_code, answer.json()["total"], len(answer.json()["parts"])) == (200, 9, 5)
    assert api_client(center).get("/api/statistics", params={"by": "moon"}).status_code == 422


def test_a_key_is_no_formula() -> None:
    numbers = dict.fromkeys(("total", "queued", "running", "paused", "completed", "failed", "cancelled"), 0)
    spread = {"p50": 0, "p95": 0, "p99": 0}
    row = {**numbers, "successRate": 0.0, "durationMs": spread, "waitMs": spread}
    text = statistics.as_csv({**row, "parts": [{"key": "=1+1", **row}]})
    assert text.splitlines()[2].startswith("'=1+1,")
