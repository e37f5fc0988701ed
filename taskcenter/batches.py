"""A batch: one task run many times, each time with arguments of its own, so many at once. (spec 1.4)

Pure: how many go at once, what stops the rest, and what all of it came to. Where batches are kept stands in
``taskcenter_adapter.batches``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pydantic import Field

from .models import Model, Utc, new_id
from .options import RunOptions

__all__ = [
    "MOST_AT_ONCE",
    "MOST_ITEMS",
    "Batch",
    "BatchItem",
    "BatchStatus",
    "ItemStatus",
    "at_once",
    "batch_status",
    "summary",
]

MOST_AT_ONCE: Final = 128
MOST_ITEMS: Final = 1_000
_NAMED: Final = 20
"""Numbers of items that one error names; how many there are is said anyway."""


class BatchStatus(StrEnum):
    """How a batch stands."""

    RUNNING = "running"
    """Items wait or run; the leading service makes the next runs, the worker ends those that go."""
    SUCCESS = "success"
    """Every item succeeded. Final."""
    FAILED = "failed"
    """Every item is over, and at least one failed, was cancelled or was never started. Final."""
    CANCELLED = "cancelled"
    """A person cancelled it: what waited never started. Final."""


class ItemStatus(StrEnum):
    """How one item of a batch stands: as its run does, or without one."""

    WAITING = "waiting"
    """Its run is not made yet: so many of the batch as may go at once are on their way."""
    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"
    NOT_STARTED = "not_started"
    """The batch was cancelled, or stopped at an error, before its turn came. Final."""


class Batch(Model):
    """What was asked for. ``items`` are laid over ``payload`` and both over the task's own, key by key."""

    id: str = Field(default_factory=new_id)
    task_id: str
    task_slug: str
    created_at: Utc
    created_by: str
    parallel: int
    """How many of its runs are on their way at once."""
    stop_on_error: bool = False
    items: tuple[dict[str, Any], ...]
    payload: dict[str, Any] = Field(default_factory=dict)
    options: RunOptions = RunOptions()
    stopped: str | None = None
    """Why no further item starts, when somebody or something stopped it."""
    cancelled: bool = False
    closed_at: Utc | None = None
    summary: dict[str, Any] | None = None
    """What it came to, kept when it is over: its runs may go before it does."""


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One item, numbered from 1, and its run."""

    item: int
    status: ItemStatus
    run_id: str | None = None
    message: str | None = None
    error: str | None = None
    duration_ms: int | None = None
    result: Any = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "item": self.item,
            "status": self.status.value,
            "runId": self.run_id,
            "message": self.message,
            "error": self.error,
            "durationMs": self.duration_ms,
            "result": self.result,
        }


def at_once(asked: int, cpus: int | None) -> int:
    """How many runs go at once: as many as ``asked`` (1 to 128); 0: as many as there are CPUs; -1: 128."""
    if asked == 0:
        return max(1, min(cpus or 1, MOST_AT_ONCE))
    return MOST_AT_ONCE if asked == -1 else asked


def summary(items: Sequence[BatchItem]) -> dict[str, Any]:
    """How many stand how, the errors with the items that have each, and how each stands."""
    counts = Counter(item.status for item in items)
    merged: dict[str, list[int]] = {}
    for item in items:
        if item.status is ItemStatus.FAILED:
            merged.setdefault(_first_line(item.error or item.message), []).append(item.item)
    errors = [
        {"error": error, "count": len(numbers), "items": numbers[:_NAMED]}
        for error, numbers in sorted(merged.items(), key=lambda pair: (-len(pair[1]), pair[1][0]))
    ]
    return {
        "counts": {_camel(status): counts[status] for status in ItemStatus},
        "errors": errors,
        "statuses": [item.status.value for item in items],
    }


def _first_line(text: str | None) -> str:
    return (text or "it failed and did not say why").partition("\n")[0]


def _camel(status: ItemStatus) -> str:
    return "notStarted" if status is ItemStatus.NOT_STARTED else status.value


def batch_status(batch: Batch, counts: Mapping[str, int]) -> BatchStatus:
    """How the batch stands, by the counts of its ``summary``."""
    if batch.closed_at is None:
        return BatchStatus.RUNNING
    if batch.cancelled:
        return BatchStatus.CANCELLED
    well = counts.get(ItemStatus.SUCCESS.value, 0) == len(batch.items)
    return BatchStatus.SUCCESS if well else BatchStatus.FAILED
