"""The service itself: health, the kinds of work it knows, audit and events."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request

import taskcenter
from taskcenter_console.services import health, history, task_types

from .depends import CenterOf
from .problems import documented
from .wire_service import (
    AuditList,
    AuditQuery,
    EventList,
    EventQuery,
    HealthView,
    Part,
    PrefectPart,
    TaskTypeList,
    TaskTypeView,
)

__all__ = ["router"]

router = APIRouter(prefix="/api", tags=["service"])


@router.get("/health")
def get_health(center: CenterOf, request: Request) -> HealthView:
    """Whether the store and the Prefect server answer. Always 200: the body says what is wrong."""
    now = health.health(center)
    return HealthView(
        status="ok" if now.store is None and now.prefect is None else "degraded",
        version=taskcenter.__version__,
        uptime_seconds=round(time.monotonic() - request.app.state.began, 3),
        store=Part(ok=now.store is None, message=now.store),
        prefect=PrefectPart(
            ok=now.prefect is None, message=now.prefect, url=now.prefect_url, version=now.prefect_version
        ),
    )


@router.get("/task-types")
def list_task_types(center: CenterOf) -> TaskTypeList:
    """The kinds of work there are, and those that could not be loaded."""
    found, broken = task_types.list_types(center)
    lost = [{"file": name, "message": message} for name, message in broken.items()]
    return TaskTypeList.model_validate({"items": [task_types.describe(kind) for kind in found], "broken": lost})


@router.get("/task-types/{key}", responses=documented(404))
def get_task_type(center: CenterOf, key: str) -> TaskTypeView:
    """One kind of work with the JSON Schema of its payload."""
    kind = task_types.get(center, key)
    return TaskTypeView.model_validate({**task_types.describe(kind), "payloadSchema": kind.schema()})


@router.get("/audit", responses=documented(422))
def list_audit(center: CenterOf, query: Annotated[AuditQuery, Query()]) -> AuditList:
    """Who did what, newest first."""
    return AuditList(items=list(history.audit(center, task=query.task, run=query.run, limit=query.limit)))


@router.get("/events", responses=documented(422))
def list_events(center: CenterOf, query: Annotated[EventQuery, Query()]) -> EventList:
    """The outbox, in the order it was written."""
    return EventList(items=list(history.events(center, limit=query.limit)))
