"""Composites: the catalogue, check and plan of a JSON form, pictures. (spec 3)"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

from taskcenter_console.services import library

from .depends import CenterOf
from .problems import documented
from .wire_composites import CatalogueList, Check, CompositeBody, CompositeView
from .wire_runs import PlanView

__all__ = ["router"]

router = APIRouter(prefix="/api/composites", tags=["composites"])


class Picture(StrEnum):
    """How a composite is drawn."""

    TREE = "tree"
    MERMAID = "mermaid"
    DOT = "dot"
    JSON = "json"


@router.get("")
def list_composites(center: CenterOf) -> CatalogueList:
    """The composites that stand in files, and the files that could not be read. Saved ones are tasks."""
    found, broken = library.catalogue(center)
    items = [
        {
            "name": item.spec.name,
            "description": item.spec.description,
            "tags": item.spec.tags,
            "steps": len(item.spec.steps),
            "file": item.file.name,
        }
        for item in found
    ]
    lost = [{"file": item.file.name, "message": item.message} for item in broken]
    return CatalogueList.model_validate({"items": items, "broken": lost})


@router.post("/check", responses=documented(422))
def check_composite(center: CenterOf, body: CompositeBody) -> Check:
    """Every problem of a composite at once. Finding some is no error of the request."""
    problems = library.check_json(center, body)
    ok = all(problem.severity != "error" for problem in problems)
    return Check.model_validate({"ok": ok, "problems": [problem.to_dict() for problem in problems]})


@router.post("/plan", responses=documented(422))
def plan_composite(center: CenterOf, body: CompositeBody) -> PlanView:
    """The plan of a composite that is not saved anywhere."""
    return PlanView.model_validate(library.plan_json(center, body).to_dict())


@router.get("/{name}", responses=documented(404, 409))
def get_composite(center: CenterOf, name: str) -> CompositeView:
    """One composite: the saved one of that name, else the one of the catalogue."""
    named = library.show(center, name)
    return CompositeView.model_validate(
        {
            "name": named.spec.name,
            "source": Path(named.source).name,
            "taskId": named.task_id,
            "revision": named.revision,
            "composite": named.spec.to_dict(),
        }
    )


@router.get("/{name}/plan", responses=documented(404, 409, 422))
def plan_named_composite(center: CenterOf, name: str) -> PlanView:
    """What a run with its own inputs would do."""
    return PlanView.model_validate(library.plan_named(center, name).to_dict())


@router.get(
    "/{name}/render",
    response_class=PlainTextResponse,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}, "application/json": {}}},
        **documented(404, 409, 422),
    },
)
def render_composite(center: CenterOf, name: str, format: Picture = Picture.TREE) -> Response:
    """A composite as a text tree, as Mermaid or DOT source, or as JSON."""
    text = library.rendered(center, name, format.value)
    kind = "application/json" if format is Picture.JSON else "text/plain; charset=utf-8"
    return Response(text, media_type=kind)
