"""What waits and who executes. (spec 5.2, 7.4)"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import Field

from taskcenter.models import Model, Run, Utc
from taskcenter.scheduling.limits import limits_json
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
    waits_for: str | None = Field(description="What keeps it, in words; none when a worker may take it.")


class QueuePage(Model):
    items: list[WaitingView]


class PriorityRequest(Model):
    priority: Priority = Priority.HIGH


class LimitsView(Model):
    """How many runs at once; 0: no limit but the places of the workers. Tasks by id."""

    pool: int
    task: dict[str, int]
    tag: dict[str, int]
    connection: dict[str, int]


class LimitRequest(Model):
    """`name` is left out for the pool. `atOnce` 0 takes the limit away."""

    scope: Literal["pool", "task", "tag", "connection"]
    name: str = Field("", max_length=500)
    at_once: int = Field(ge=0, le=10_000)


class ProcessView(Model):
    """One process of a worker, as that measured it last."""

    role: Literal["worker", "warm", "run"]
    pid: int | None
    run_id: str | None
    phase: str | None
    since: Utc | None
    age_seconds: int | None
    cpu_seconds: float | None
    memory_mb: float | None
    grown_mb: float | None = Field(description="Since the worker measured it first.")
    marks: list[str] = Field(description="Why to look at it: grown by more than 100 MB, older than 24 hours.")


class WorkerView(Model):
    """One worker of the type `taskcenter`."""

    holder: str
    name: str | None
    pool: str | None
    host: str | None
    state: Literal["online", "silent", "gone"]
    limit: int | None
    running: int
    free: int | None = Field(description="How many runs it could take; none: any number.")
    heard_at: Utc | None = Field(description="Its last sign of life.")
    heard_until: Utc
    warm_seconds: float | None
    renewed: int = Field(description="How often its warm process was made anew at its turn.")
    next_turn: Utc | None
    processes: list[ProcessView]


class WorkerPage(Model):
    items: list[WorkerView]


@router.get("/queue", responses=documented(503))
def list_queue(center: CenterOf) -> QueuePage:
    """The runs that wait, the next one first, then those of the next hour."""
    return QueuePage(items=[WaitingView.model_validate(item.to_json()) for item in queue.listing(center)])


@router.get("/queue/limits")
def get_limits(center: CenterOf) -> LimitsView:
    """How many runs may go at once: of the pool, of a task, with a tag, on a connection."""
    return LimitsView.model_validate(limits_json(queue.limits(center)))


@router.put("/queue/limits", responses=documented(404, 422))
def put_limit(center: CenterOf, body: LimitRequest) -> LimitsView:
    """Set one of them; all of them as they stand then. Runs that are on their way go on."""
    return LimitsView.model_validate(limits_json(queue.set_limit(center, body.scope, body.name, body.at_once, CALLER)))


@router.post("/runs/{run_id}/priority", responses=documented(404, 409, 422, 503))
def change_priority(center: CenterOf, run_id: str, body: PriorityRequest | None = None) -> Run:
    """Give a run that waits another priority."""
    return queue.bump(center, run_id, (body or PriorityRequest()).priority, CALLER)


@router.get("/workers")
def list_workers(center: CenterOf) -> WorkerPage:
    """The workers of the type `taskcenter` and their processes."""
    return WorkerPage(items=[WorkerView.model_validate(item) for item in workers.listing(center)])
