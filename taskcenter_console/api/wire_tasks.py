"""Tasks on the wire: filters, drafts, views, import and export."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from taskcenter.models import Model, Task, Utc
from taskcenter.status import RunStatus, TaskStatus

from .wire_composites import Described, Edge, Json, Step

__all__ = [
    "DiffQuery",
    "FieldDiff",
    "ImportBody",
    "ImportResult",
    "ImportRow",
    "PatchBody",
    "Revision",
    "RevisionDiff",
    "RevisionList",
    "RollbackBody",
    "TaskBody",
    "TaskDraft",
    "TaskDraftList",
    "TaskExport",
    "TaskPage",
    "TaskPatch",
    "TaskQuery",
    "TaskRow",
    "TaskView",
]

_SHORT = Field(None, max_length=200)


class TaskQuery(Model):
    """Which tasks a list shows."""

    status: TaskStatus | None = None
    task_type: str | None = _SHORT
    owner: str | None = _SHORT
    tag: str | None = _SHORT
    category: str | None = _SHORT
    search: str | None = Field(None, max_length=200, description="Part of the name or description, in any case.")
    sort_by: Literal["name", "created_at", "updated_at", "status"] = "name"
    limit: int = Field(100, ge=1, le=500)
    offset: int = Field(0, ge=0, le=1_000_000_000)


class TaskRow(Task):
    """A task with what its runs and triggers say about it."""

    last_run_status: RunStatus | None = None
    last_run_at: Utc | None = None
    next_run_at: Utc | None = None


class TaskView(TaskRow):
    """A task with its graph, when it is a composite."""

    graph: Json | None = None


class TaskPage(Model):
    items: list[TaskRow]
    limit: int
    offset: int


class Revision(Model):
    revision: int
    created_at: datetime
    created_by: str | None = None
    reason: str | None = None
    definition: Json
    graph: Json | None = None


class RevisionList(Model):
    items: list[Revision] = Field(description="Newest first.")


class DiffQuery(Model):
    """Which two revisions; by default the last change."""

    old: int | None = Field(None, ge=1, alias="from", description="Default: the one before `to`.")
    new: int | None = Field(None, ge=1, alias="to", description="Default: the newest.")


class FieldDiff(Model):
    path: str = Field(description="`payload.sql`, `steps[load].retries`, `edges[a → b]`")
    kind: Literal["added", "removed", "changed"]
    before: Any = None
    after: Any = None


class RevisionDiff(Model):
    old: int = Field(alias="from")
    new: int = Field(alias="to")
    items: list[FieldDiff]


class RollbackBody(Model):
    revision: int = Field(ge=1)
    reason: str = Field("", max_length=500)


class TaskExport(Model):
    schema_version: Literal[1] = 1
    import_mode: str
    tasks: list[Json]


class ImportRow(Model):
    name: str
    kind: Literal["create", "update", "same", "refused"]
    problems: list[Json]


class ImportResult(Model):
    applied: bool
    items: list[ImportRow]


class TaskDraft(Task):
    """A task to be made; a composite brings its ``graph``, or its ``steps`` and ``edges``."""

    graph: Json | None = None
    steps: list[Step] | None = None
    edges: list[Edge] | None = None
    schedule: str | Json | None = Field(None, description="A cron expression, in place of `triggers`.")


class TaskDraftList(Model):
    """What an export holds."""

    schema_version: Literal[1] = 1
    import_mode: str = "create_task_requests"
    tasks: list[TaskDraft]


_optional: dict[str, Any] = {name: (item.annotation | None, None) for name, item in TaskDraft.model_fields.items()}  # type: ignore[operator]
TaskPatch = create_model(
    "TaskPatch",
    __base__=Model,
    __doc__="What changes in a task: an absent field stays, null puts it back to its default.",
    **_optional,
)


TaskBody = Annotated[Json, Described(TaskDraft)]
PatchBody = Annotated[Json, Described(TaskPatch)]
ImportBody = Annotated[Json, Described(TaskDraftList)]
