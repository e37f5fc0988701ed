"""Tasks: list, make, change, delete, import, export, plan. (spec 1.1)"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from taskcenter.errors import Conflict, Problem, ValidationFailed
from taskcenter.models import Task
from taskcenter.ports import TaskFilter
from taskcenter_console.services import history, planning, revisions, tasks

from .depends import CALLER, CenterOf
from .problems import PreconditionFailed, documented
from .wire_runs import PlanRequest, PlanView
from .wire_tasks import (
    DiffQuery,
    ImportBody,
    ImportResult,
    PatchBody,
    RevisionDiff,
    RevisionList,
    RollbackBody,
    TaskBody,
    TaskExport,
    TaskPage,
    TaskQuery,
    TaskView,
)

__all__ = ["router"]

router = APIRouter(prefix="/api/tasks", tags=["tasks"])
IfMatch = Annotated[str | None, Header(description="The ETag that must still be the current one.")]
_TAGGED: dict[str, Any] = {"headers": {"ETag": {"description": "The revision.", "schema": {"type": "string"}}}}


@router.get("", responses=documented(422))
def list_tasks(center: CenterOf, query: Annotated[TaskQuery, Query()]) -> TaskPage:
    """Tasks by filter, each with its last run and its next slot."""
    rows = tasks.list_tasks(center, TaskFilter(**query.model_dump()))
    return TaskPage.model_validate({"items": rows, "limit": query.limit, "offset": query.offset})


@router.post("", status_code=201, responses={201: _TAGGED, **documented(409, 422)})
def create_task(center: CenterOf, body: TaskBody, response: Response) -> TaskView:
    """Check a task whole, save it and publish its deployment; or refuse it with every problem."""
    task = tasks.save(center, body, CALLER)
    response.headers["Location"] = f"/api/tasks/{task.slug}"
    return _view(center, task.id, response)


@router.get("/export", responses=documented(404))
def export_tasks(center: CenterOf, task: Annotated[list[str] | None, Query(max_length=500)] = None) -> TaskExport:
    """A list that the import takes; all tasks unless some are named."""
    return TaskExport.model_validate(tasks.export(center, CALLER, task or ()))


@router.post("/import", responses=documented(409, 422))
def import_tasks(center: CenterOf, body: ImportBody, apply: bool = False) -> ImportResult:
    """Say what an import would do; with `apply=true` do it, unless one of its tasks is refused."""
    items = tasks.import_tasks(center, body, CALLER, apply=apply)
    if apply and any(item.kind == "refused" for item in items):
        raise ValidationFailed(
            "the import",
            [
                Problem(problem.code, f"tasks[{index}].{problem.path}".rstrip("."), problem.message)
                for index, item in enumerate(items)
                for problem in item.problems
            ],
        )
    return ImportResult.model_validate({"applied": apply, "items": [item.to_dict() for item in items]})


@router.get("/{name}", responses={200: _TAGGED, **documented(404)})
def get_task(center: CenterOf, name: str, response: Response) -> TaskView:
    """One task, by slug or id, with its graph."""
    return _view(center, name, response)


@router.patch("/{name}", responses={200: _TAGGED, **documented(404, 409, 412, 422)})
def update_task(center: CenterOf, name: str, body: PatchBody, response: Response, if_match: IfMatch = None) -> TaskView:
    """Merge into a task: an absent field stays, null puts it back to its default."""
    task = tasks.get(center, name)
    expected = _expected(task, if_match)
    try:
        saved = tasks.save(center, body, CALLER, update=task.id, expected_revision=expected)
    except Conflict as error:
        if expected is None or "revision" not in error.data:
            raise
        raise PreconditionFailed(error.message) from None
    return _view(center, saved.id, response)


@router.delete("/{name}", status_code=204, responses=documented(404, 412, 503))
def delete_task(center: CenterOf, name: str, if_match: IfMatch = None) -> None:
    """Remove a task with its runs and its deployment; the audit stays."""
    task = tasks.get(center, name)
    _expected(task, if_match)
    tasks.delete(center, task.id, CALLER)


@router.get("/{name}/revisions", responses=documented(404))
def list_revisions(center: CenterOf, name: str) -> RevisionList:
    """Every saved version, newest first."""
    return RevisionList.model_validate({"items": history.revisions(center, name)})


@router.get("/{name}/diff", responses=documented(404, 422))
def diff_revisions(center: CenterOf, name: str, query: Annotated[DiffQuery, Query()]) -> RevisionDiff:
    """What differs between two revisions, field by field; steps and edges by their keys."""
    old, new, found = revisions.diff(center, name, query.old, query.new)
    return RevisionDiff.model_validate({"from": old, "to": new, "items": [item.to_dict() for item in found]})


@router.post("/{name}/rollback", responses={200: _TAGGED, **documented(404, 409, 422)})
def rollback_task(center: CenterOf, name: str, body: RollbackBody, response: Response) -> TaskView:
    """Make the definition of an old revision the newest, as a revision of its own."""
    saved = revisions.rollback(center, name, body.revision, CALLER, reason=body.reason)
    return _view(center, saved.id, response)


@router.post("/{name}/plan", responses=documented(404, 409, 422))
def plan_task(center: CenterOf, name: str, body: PlanRequest | None = None) -> PlanView:
    """What a run would do, step by step, without running anything."""
    asked = body or PlanRequest()
    task = tasks.get(center, name)
    made, _ = planning.plan_saved(center, task.slug, payload=asked.payload, options=asked.options)
    return PlanView.model_validate(made.to_dict())


def _view(center: CenterOf, name: str, response: Response) -> TaskView:
    task = TaskView.model_validate(tasks.details(center, name))
    response.headers["ETag"] = f'"{task.revision}"'
    return task


def _expected(task: Task, if_match: str | None) -> int | None:
    """The revision that must still stand there while saving; None: any. Raises when it is another one already."""
    if if_match is None or if_match.strip() == "*":
        return None
    if f'"{task.revision}"' not in [tag.strip() for tag in if_match.split(",")]:
        raise PreconditionFailed(
            f"the task {task.slug} is at revision {task.revision}, not at {if_match}: load it again"
        )
    return task.revision
