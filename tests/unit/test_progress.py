"""How far, how fast, how long still (spec 5.6)."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.task_types.database.progress import RowProgress
from taskcenter.context import RunContext
from taskcenter.models import LogLine, Run, StepRun, Task
from taskcenter.ports import Changes
from taskcenter.progress import Outlook, outlook
from taskcenter.status import RunStatus, StepStatus
from taskcenter_adapter.recorder import Recorder
from taskcenter_adapter.store_memory import MemoryStore
from taskcenter_console.services.progress import of_run
from tests.fakes import fake_center

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def test_its_own_rate_counts_as_soon_as_there_is_one() -> None:
    begin = NOW - timedelta(seconds=40)
    assert outlook(20, begin, NOW) == Outlook(0.5, (160, 160), "own rate")
    assert outlook(20, begin, NOW, done=4000).rate == 100
    assert outlook(0.5, begin, NOW, earlier=[60, 60]).by == "earlier runs"


def test_else_earlier_runs_give_a_band_and_a_run_beyond_them_is_overdue() -> None:
    earlier = [60.0, 70, 80, 90, 100]
    seen = outlook(None, NOW - timedelta(seconds=50), NOW, earlier=earlier)
    assert seen.rate is None
    assert seen.left is not None
    assert (seen.left[0], seen.by, seen.overdue) == (30, "earlier runs", False)
    assert seen.left[1] > seen.left[0]
    late = outlook(None, NOW - timedelta(seconds=200), NOW, earlier=earlier)
    assert (late.left, late.overdue) == ((0, 0), True)
    assert outlook(None, None, NOW, earlier=earlier) == outlook(None, NOW, NOW) == Outlook()


@pytest.mark.parametrize("given", [-5, 0, 50, 100, 1e9, float("nan")])
def test_what_is_reported_is_from_0_to_100(given: float) -> None:
    said: list[float] = []
    ctx = RunContext(on_progress=lambda percent, *_: said.append(percent))
    ctx.progress(given)
    assert 0 <= said[0] <= 100


def test_it_goes_back_only_when_it_is_reset() -> None:
    said: list[float] = []
    ctx = RunContext(on_progress=lambda percent, *_: said.append(percent))
    ctx.progress(60)
    ctx.progress(30)
    ctx.progress(30, reset=True)
    assert said == [60, 60, 30]


def test_a_run_is_measured_by_the_runs_of_its_task_only(tmp_path: Path) -> None:
    begin = NOW - timedelta(seconds=60)
    with fake_center(tmp_path) as center:
        center.store.save_task(Task(id="t", slug="t", name="t", task_type="python"))
        over = {"status": RunStatus.SUCCESS, "finished_at": begin, "duration_ms": 90_000}
        runs = [Run(id=f"e{n}", task_id="t", task_slug="t", task_type="python", created_at=begin, **over)
                for n in range(3)]  # fmt: skip
        at_work = {"status": RunStatus.RUNNING, "created_at": begin, "started_at": begin, "task_type": "composite"}
        runs += [Run(id="own", task_id="t", task_slug="t", **at_work), Run(id="alone", task_slug="x", **at_work)]
        steps = [StepRun(run_id="own", step_key="a", status=StepStatus.RUNNING, started_at=begin)]
        told = LogLine(run_id="own", sequence=0, time=begin, message="40 % of rows", step_key="a", stream="progress",
                       metadata={"percent": 40})  # fmt: skip
        center.store.record(Changes(runs=runs, steps=steps, logs=[told]))
        whole, step = of_run(center, center.store.get_run("own"), steps, NOW)
        assert (whole["by"], whole["leftSeconds"]) == ("earlier runs", [30, 30])
        assert (step["stepKey"], step["percent"], step["message"], step["leftSeconds"]) == (
            "a",
            40,
            "of rows",
            [90, 90],
        )
        [nothing] = of_run(center, center.store.get_run("alone"), [], NOW)
        assert (nothing["by"], nothing["overdue"]) == (None, False)


def test_rows_are_told_as_numbers_too() -> None:
    said: list[tuple[Any, ...]] = []
    ctx = RunContext(on_progress=lambda *told: said.append(told))
    rows = RowProgress(ctx, 200)
    rows.add(50)
    rows.say()
    rows.add(250)
    rows.say()
    RowProgress(ctx, None).say()
    assert said == [
        (25.0, "50 of about 200 rows", 50, 200),
        (99.0, "300 of about 300 rows", 300, 300),
        (99.0, "0 rows", 0, None),
    ]


def test_ten_thousand_reports_a_second_store_ten_at_most_and_the_last_one(tmp_path: Path) -> None:
    store, now = MemoryStore(), lambda: datetime.now(UTC)
    run = Run(id="r", task_slug="t", task_type="python", created_at=now())
    recorder = Recorder(store, run, spool=tmp_path, now=now)
    recorder.set_run(message="on its way")
    ctx = RunContext(on_progress=lambda *told: recorder.progress("step", *told))
    begin, count = time.monotonic(), 0
    while (gone := time.monotonic() - begin) < 2:
        ctx.progress(gone * 40, "rows", done=count, total=20_000)
        count += 1
    ctx.progress(99.5, "the last word")
    recorder.close()
    stored = [line for line in store.list_logs("r") if line.stream == "progress"]
    assert count > 20_000  # where nothing but reports was done
    assert len(stored) <= 21
    assert (stored[-1].message, stored[-1].metadata) == ("100 % the last word", {"percent": 99.5})
    assert {line.step_key for line in stored} == {"step"}
