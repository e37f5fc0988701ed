"""Batches: ask, plan, list, look at, cancel. (spec 1.4)"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from taskcenter_console.services import batching

from .depends import CALLER, CallerOf, CenterOf
from .problems import documented
from .wire_batches import BatchBody, BatchCancelled, BatchPage, BatchPlan, BatchQuery, BatchStart, BatchView, ShowQuery
from .wire_runs import WhyRequest

__all__ = ["router"]

router = APIRouter(prefix="/api", tags=["runs"])


@router.post("/tasks/{name}/batch", status_code=202, responses=documented(404, 409, 422, 503))
def run_batch(center: CenterOf, caller: CallerOf, name: str, body: BatchStart, response: Response) -> BatchView:
    """Run a task once for each set of arguments, so many at once. All of it is taken, or nothing."""
    batch = batching.start(center, name, body.request(), caller, confirm=body.confirm)
    response.headers["Location"] = f"/api/batches/{batch.id}"
    return BatchView.model_validate(batching.details(center, batch.id))


@router.post("/tasks/{name}/batch/plan", responses=documented(404, 409, 422))
def plan_batch(center: CenterOf, name: str, body: BatchBody) -> BatchPlan:
    """What a batch would do, item by item, and what is wrong with it; nothing is made."""
    return BatchPlan.model_validate(batching.plan(center, name, body.request()))


@router.get("/batches", responses=documented(404, 409, 422))
def list_batches(center: CenterOf, query: Annotated[BatchQuery, Query()]) -> BatchPage:
    """Newest first, each with its counts and its errors."""
    found = batching.list_batches(center, task=query.task, limit=query.limit, offset=query.offset)
    return BatchPage.model_validate({"items": found})


@router.get("/batches/{batch_id}", responses=documented(404, 409, 422))
def get_batch(center: CenterOf, batch_id: str, query: Annotated[ShowQuery, Query()]) -> BatchView:
    """A batch with its items; the beginning of its id (4 characters or more) is enough."""
    return BatchView.model_validate(batching.details(center, batch_id, results=query.results))


@router.post("/batches/{batch_id}/cancel", status_code=202, responses=documented(404, 409, 422, 503))
def cancel_batch(center: CenterOf, batch_id: str, body: WhyRequest | None = None) -> BatchCancelled:
    """No further item starts, and the runs on their way are cancelled."""
    runs = batching.cancel(center, batch_id, CALLER, reason=(body or WhyRequest()).reason)
    return BatchCancelled(items=runs)
