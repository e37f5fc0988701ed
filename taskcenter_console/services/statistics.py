"""Numbers about the runs of a period: in all, per task, per tag, per day. (spec 5.8)"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

from taskcenter.clock import utc_now
from taskcenter.errors import Problem, ValidationFailed
from taskcenter.ports import TaskFilter
from taskcenter.statistics import Fact, summarize
from taskcenter_adapter.run_statistics import run_facts

from . import tasks as task_service
from .center import Center

__all__ = ["By", "as_csv", "numbers"]

By = Literal["task", "tag", "day"]
_DAYS = 30
_ALL_TASKS = 1_000_000


def numbers(
    center: Center,
    *,
    task: str | None = None,
    tag: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    by: By | None = None,
    timezone: str = "UTC",
) -> dict[str, Any]:
    """The numbers of a period (the last 30 days), and of its parts when ``by`` says which.

    Hours and days are those of ``timezone``. A run counts for each tag of its task.
    """
    end = until or utc_now()
    begin = since or end - timedelta(days=_DAYS)
    try:
        zone = ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        problem = Problem("timezone", "timezone", f"{timezone!r} is no time zone: write it as Europe/Berlin or UTC")
        raise ValidationFailed("the period", [problem]) from None
    if begin >= end:
        raise ValidationFailed("the period", [Problem("period", "since", "it begins after its end")])
    ids: frozenset[str] | None = None
    if task is not None:
        ids = frozenset({task_service.get(center, task).id})
    if tag is not None:
        tagged = frozenset(t.id for t in center.store.list_tasks(TaskFilter(tag=tag, limit=_ALL_TASKS)))
        ids = tagged if ids is None else ids & tagged
    facts = list(run_facts(center.store, begin, end, ids))
    parts = _parts(center, facts, by, zone, begin, end) if by is not None else {}
    return {
        "since": begin.astimezone(UTC).isoformat(),
        "until": end.astimezone(UTC).isoformat(),
        "timezone": timezone,
        **summarize(facts, zone),
        "parts": [{"key": key, **summarize(part, zone)} for key, part in parts.items()],
    }


def _parts(
    center: Center, facts: list[Fact], by: By, zone: ZoneInfo, begin: datetime, end: datetime
) -> dict[str, list[Fact]]:
    found: dict[str, list[Fact]] = defaultdict(list)
    if by == "day":
        day = begin.astimezone(zone).date()
        while day <= end.astimezone(zone).date():
            found[day.isoformat()] = []  # a day without runs is a row of zeros
            day += timedelta(days=1)
        for fact in facts:
            found[fact.created_at.astimezone(zone).date().isoformat()].append(fact)
        return dict(found)
    tags = {t.slug: t.tags for t in center.store.list_tasks(TaskFilter(limit=_ALL_TASKS))} if by == "tag" else {}
    for fact in facts:
        for key in (fact.task,) if by == "task" else tags.get(fact.task, ()):
            found[key].append(fact)
    return dict(sorted(found.items()))


def as_csv(found: dict[str, Any]) -> str:
    """One line for the whole and one for each part, for a spreadsheet."""
    out = io.StringIO()
    counters = ("total", "queued", "running", "paused", "completed", "failed", "cancelled", "successRate")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["key", *counters, *(f"{kind}_{p}" for kind in ("durationMs", "waitMs") for p in ("p50", "p95", "p99"))]
    )
    for row in ({"key": "all", **found}, *found["parts"]):
        spreads = [row[kind][p] for kind in ("durationMs", "waitMs") for p in ("p50", "p95", "p99")]
        key = str(row["key"])
        # a spreadsheet takes a text that begins so for a formula
        writer.writerow([f"'{key}" if key[:1] in "=+-@\t\r" else key, *(row[name] for name in counters), *spreads])
    return out.getvalue()
