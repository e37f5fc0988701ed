"""Numbers about runs. (spec 5.8)"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from taskcenter.models import Model, Utc
from taskcenter_console.services import statistics

from .depends import CenterOf
from .problems import documented

__all__ = ["router"]

router = APIRouter(prefix="/api", tags=["runs"])


class Spread(Model):
    p50: int
    p95: int
    p99: int


class Failure(Model):
    reason: str
    count: int


class Numbers(Model):
    total: int
    queued: int
    running: int
    paused: int
    completed: int
    failed: int
    cancelled: int
    success_rate: float
    duration_ms: Spread
    wait_ms: Spread
    failures: list[Failure]
    hours: list[int]
    """Runs that began in each hour of the day."""


class Part(Numbers):
    key: str


class Statistics(Numbers):
    since: Utc
    until: Utc
    timezone: str
    parts: list[Part]


class StatisticsQuery(Model):
    """Which runs."""

    task: str | None = None
    tag: str | None = None
    since: Utc | None = None
    until: Utc | None = None
    by: Literal["task", "tag", "day"] | None = None
    timezone: str = "UTC"


@router.get("/statistics", responses=documented(404, 422))
def get_statistics(center: CenterOf, query: Annotated[StatisticsQuery, Query()]) -> Statistics:
    """Counts, durations, waiting, reasons of failure and busy hours of a period, and of its parts."""
    found = statistics.numbers(center, task=query.task, tag=query.tag, since=query.since, until=query.until,
                               by=query.by, timezone=query.timezone)  # fmt: skip
    return Statistics.model_validate(found)
