"""The REST API: routes over the services, one guard before them, one form for every refusal. (spec 7.4)"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.alias_generators import to_camel

import taskcenter
from taskcenter_console.services.center import Center

from . import (
    page,
    route_batches,
    route_composites,
    route_metrics,
    route_retention,
    route_runs,
    route_schedule,
    route_secrets,
    route_service,
    route_snapshots,
    route_statistics,
    route_tasks,
    route_triggers,
    route_workers,
)
from .guard import LOOPBACK, Guard
from .problems import MEDIA_TYPE, add_handlers, documented

__all__ = ["make_app"]

_EVERYWHERE = (400, 403, 413, 415, 421, 422)


def make_app(center: Center, *, allowed_hosts: Sequence[str] = LOOPBACK) -> FastAPI:
    """The service over ``center``, which stays the caller's to close.

    ``allowed_hosts`` are the names it answers to, each with any port unless it names one: ``127.0.0.1``,
    ``localhost``, ``[::1]``, ``tasks.example.org:443``.
    """
    app = FastAPI(
        title="Task Center",
        version=taskcenter.__version__,
        summary="Jobs on Prefect: planned before they run, explained while they run, remembered after.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # it loads its scripts from another server
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        openapi_tags=[
            {"name": "tasks", "description": "Definitions: named, saved units of work."},
            {"name": "runs", "description": "Attempts at executing a task."},
            {"name": "composites", "description": "Tasks made of steps and edges."},
            {"name": "scheduling", "description": "Triggers, hooks, the scheduler, its ledger, calendars."},
            {
                "name": "service",
                "description": "Health, kinds of work, snapshots of databases, audit, retention and events.",
            },
        ],
    )
    app.state.center = center
    app.state.began = time.monotonic()
    for module in (
        route_service,
        route_tasks,
        route_schedule,
        route_triggers,
        route_runs,
        route_batches,
        route_workers,
        route_statistics,
        route_retention,
        route_metrics,
        route_snapshots,
        route_composites,
        route_secrets,
        page,
    ):
        app.include_router(module.router)
    add_handlers(app)
    app.add_middleware(Guard, allowed_hosts=tuple(allowed_hosts))
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


def _operation_id(route: APIRoute) -> str:
    return to_camel(route.name)


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with refusals as the problems they are."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            routes=app.routes,
            tags=app.openapi_tags,
            separate_input_output_schemas=app.separate_input_output_schemas,
        )
        schema = {"$ref": "#/components/schemas/ProblemDocument"}
        for item in made["paths"].values():
            for method, operation in item.items():
                answers = operation["responses"]
                codes = _EVERYWHERE if method in ("post", "patch", "put", "delete") else (400, 421)
                for code in codes:
                    answers.setdefault(str(code), {"description": documented(code)[code]["description"]})
                for code, answer in answers.items():
                    if code >= "400":
                        answer["content"] = {MEDIA_TYPE: {"schema": schema}}
        for name in ("HTTPValidationError", "ValidationError"):
            made["components"]["schemas"].pop(name, None)
        app.openapi_schema = made
    return app.openapi_schema
