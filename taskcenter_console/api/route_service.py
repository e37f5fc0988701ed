"""The service itself: health, the kinds of work it knows, audit and events."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

import taskcenter
from taskcenter.models import AuditRecord
from taskcenter.ports import AuditFilter
from taskcenter_console.services import auditing, health, history, task_types

from .depends import CALLER, CenterOf
from .problems import documented
from .wire_service import (
    AuditList,
    AuditQuery,
    AuditReport,
    EventList,
    EventQuery,
    HealthView,
    Part,
    PrefectPart,
    TaskTypeList,
    TaskTypeView,
    VerifyQuery,
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
    where = AuditFilter(**query.model_dump(exclude={"task", "run"}))
    return AuditList(items=list(auditing.page(center, where, task=query.task, run=query.run)))


@router.get("/audit/verify", responses=documented(409, 422))
def verify_audit(center: CenterOf, query: Annotated[VerifyQuery, Query()]) -> AuditReport:
    """Seal the audit up to now and find what was changed, removed, put in or moved."""
    return AuditReport.model_validate(auditing.verify(center, auditing.expected_of(query.expect)).to_dict())


@router.get(
    "/audit/export",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}, **documented(409)},
)
def export_audit(center: CenterOf) -> StreamingResponse:
    """The whole audit, one JSON object per line; `taskcenter audit verify FILE` reads it anywhere."""
    auditing.chain(center)  # refused before the answer begins
    lines = auditing.export(center, CALLER)
    return StreamingResponse(lines, media_type="application/x-ndjson")


@router.get("/audit/{entry_id}", responses=documented(404))
def get_audit_entry(center: CenterOf, entry_id: str) -> AuditRecord:
    """One entry, by its id or its number."""
    return auditing.show(center, entry_id)


@router.get("/events", responses=documented(422))
def list_events(center: CenterOf, query: Annotated[EventQuery, Query()]) -> EventList:
    """The outbox, in the order it was written."""
    return EventList(items=list(history.events(center, limit=query.limit)))
