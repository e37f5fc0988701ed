"""Batches on the wire."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from taskcenter.batches import MOST_AT_ONCE, MOST_ITEMS, BatchStatus, ItemStatus
from taskcenter.models import Model, Run, Utc
from taskcenter.options import RunOptions
from taskcenter_console.services.batching import BatchRequest

from .wire_composites import Json

__all__ = [
    "BatchBody",
    "BatchCancelled",
    "BatchPage",
    "BatchPlan",
    "BatchQuery",
    "BatchStart",
    "BatchView",
    "ShowQuery",
]


class BatchBody(Model):
    """Many sets of arguments for one task."""

    items: list[Any] = Field(
        min_length=1, max_length=MOST_ITEMS, description="Objects, each laid over `payload` and the saved payload."
    )
    payload: Json = Field(default_factory=dict, description="What all items share.")
    options: RunOptions = RunOptions()
    parallel: int = Field(
        0, ge=-1, le=MOST_AT_ONCE, description=f"Runs at once; 0: as many as there are CPUs, -1: {MOST_AT_ONCE}."
    )
    stop_on_error: bool = Field(False, description="After a failed item no further one starts; those at work go on.")

    def request(self) -> BatchRequest:
        return BatchRequest(self.items, self.payload, self.options, self.parallel, self.stop_on_error)


class BatchStart(BatchBody):
    confirm: bool = Field(False, description="Needed for a task with a danger text.")


class BatchQuery(Model):
    """Which batches a list shows."""

    task: str | None = Field(None, max_length=200, description="Slug or id.")
    limit: int = Field(50, ge=1, le=500)
    offset: int = Field(0, ge=0, le=1_000_000_000)


class ShowQuery(Model):
    results: bool = Field(False, description="With what each run has given.")


class Counts(Model):
    """Items by how they stand."""

    waiting: int
    queued: int
    running: int
    success: int
    failed: int
    cancelled: int
    not_started: int


class MergedError(Model):
    error: str
    count: int
    items: list[int] = Field(description="The first of those that failed so.")


class BatchRow(Model):
    """A batch and what it came to so far."""

    id: str
    task: str
    task_id: str
    status: BatchStatus
    created_at: Utc
    created_by: str
    closed_at: Utc | None
    total: int
    parallel: int
    stop_on_error: bool
    stopped: str | None = Field(description="Why no further item starts.")
    counts: Counts
    errors: list[MergedError]


class BatchPage(Model):
    items: list[BatchRow] = Field(description="Newest first.")


class BatchItemView(Model):
    item: int = Field(description="From 1.")
    status: ItemStatus
    run_id: str | None
    arguments: Json
    message: str | None
    error: str | None
    duration_ms: int | None
    result: Any = None


class BatchView(BatchRow):
    """A batch with its items."""

    items: list[BatchItemView]


class BatchCancelled(Model):
    items: list[Run] = Field(description="The runs that were on their way.")


class ItemPlan(Model):
    item: int
    ok: bool
    summary: str | None = Field(description="Of the first hundred.")
    danger: list[str]


class BatchPlan(Model):
    """What a batch would do. Nothing was made."""

    task: str
    total: int
    parallel: int
    stop_on_error: bool
    danger: str | None
    problems: list[Json]
    items: list[ItemPlan]
