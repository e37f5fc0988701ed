"""What waits and who executes. (spec 5.2, 7.4)"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter

from taskcenter.models import Model, Run, Utc
from taskcenter.status import Priority
from taskcenter_console.services import queue, workers

from .depends import CALLER, CenterOf
from .problems import documented

__all__ = ["router"]

router = APIRouter(prefix="/api", tags=["runs"])


class WaitingView(Model):
    """One run that waits; without a place its time has not come."""

    run_id: str
    name: str
    task: str
    priority: Priority
    since: Utc
    place: int | None


class QueuePage(Model):
    items: list[WaitingView]


class PriorityRequest(Model):
    priority: Priority = Priority.HIGH


class ProcessView(Model):
    """One process of a worker; memory of this machine's only."""

    role: Literal["worker", "warm", "run"]
    pid: int | None
    run_id: str | None
    phase: str | None
    since: Utc | None
    memory_mb: float | None


class WorkerView(Model):
    """One worker of the type `taskcenter`."""

    holder: str
    name: str | None
    pool: str | None
    host: str | None
    state: Literal["online", "silent", "gone"]
    limit: int | None
    running: int
    heard_until: Utc
    warm_seconds: float | None
    processes: list[ProcessView]


class WorkerPage(Model):
    items: list[WorkerView]


@router.get("/queue", responses=documented(503))
def list_queue(center: CenterOf) -> QueuePage:
    """The runs that wait, the next one first, then those of the next hour."""
    return QueuePage(items=[WaitingView.model_validate(item.to_json()) for item in queue.listing(center)])


@router.post("/runs/{run_id}/priority", responses=documented(404, 409, 422, 503))
def change_priority(center: CenterOf, run_id: str, body: PriorityRequest | None = None) -> Run:
    """Give a run that waits another priority."""
    return queue.bump(center, run_id, (body or PriorityRequest()).priority, CALLER)


@router.get("/workers")
def list_workers(center: CenterOf) -> WorkerPage:
    """The workers of the type `taskcenter` and their processes."""
    return WorkerPage(items=[WorkerView.model_validate(item) for item in workers.listing(center)])
