"""How far a run has come, step by step, and when it may end. (spec 5.6)"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from taskcenter.clock import utc_now
from taskcenter.models import LogLine, Run, StepRun
from taskcenter.ports import RunFilter
from taskcenter.progress import outlook
from taskcenter.status import TERMINAL_RUN, TERMINAL_STEP, RunStatus

from .center import Center

__all__ = ["of_run"]

_EARLIER = 20


def of_run(center: Center, run: Run, steps: list[StepRun], now: datetime | None = None) -> list[dict[str, Any]]:
    """The run first, then each step that reports: percent, words, rate and what is left. Empty when it is over."""
    if run.status in TERMINAL_RUN or run.started_at is None:
        return []
    at = now or utc_now()
    reports = {line.step_key: line for line in center.store.last_reports(run.id)}
    top = [step for step in steps if "[" not in step.step_key]
    over = sum(step.status in TERMINAL_STEP for step in top)
    share = 100 * over / len(top) if top else None
    found = [_item(None, reports.get(None), share, run.started_at, at, _earlier(center, run))]
    for step in steps:
        if step.step_key in reports:
            found.append(_item(step.step_key, reports[step.step_key], None, step.started_at, at, []))
    return found


def _item(
    key: str | None, report: LogLine | None, share: float | None, started: datetime | None, at: datetime,
    earlier: list[float],
) -> dict[str, Any]:  # fmt: skip
    known = (report.metadata or {}) if report is not None else {}
    percent, done = known.get("percent", share), known.get("done")
    seen = outlook(percent, started, at, done=done, earlier=earlier)
    words = report.message.partition(" % ")[2] if report is not None else ""
    return {"stepKey": key, "percent": percent, "message": words, "done": done, "total": known.get("total"),
            **seen.to_json()}  # fmt: skip


def _earlier(center: Center, run: Run) -> list[float]:
    """Seconds that the last successful runs of its task took."""
    if run.task_id is None:
        return []
    where = RunFilter(task_id=run.task_id, status=RunStatus.SUCCESS, limit=_EARLIER)
    known = center.store.list_runs(where).items
    return [one.duration_ms / 1000 for one in known if one.duration_ms is not None and not one.dry_run]
