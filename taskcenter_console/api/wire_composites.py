"""Composites on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from taskcenter.models import Model

__all__ = [
    "BrokenFile",
    "CatalogueList",
    "CatalogueRow",
    "Check",
    "Composite",
    "CompositeBody",
    "CompositeView",
    "Edge",
    "Json",
    "ProblemRow",
    "Step",
]

Json = dict[str, Any]


class Described:
    """Gives a body that a service checks by itself (all problems at once) the schema of ``model`` in the document."""

    def __init__(self, model: type[Model]) -> None:
        self.model = model

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(self.model.__pydantic_core_schema__)


class Step(Model):
    """One step of a composite."""

    step_key: str
    position: int = 0
    task_type: str | None = None
    referenced_task_id: str | None = None
    payload: Any = Field(default_factory=dict)
    name: str | None = None
    on_error: Literal["stop", "continue", "skip"] | None = None
    enabled: bool = True
    join: str = "all"
    retries: int = 0
    retry_backoff_ms: int = 0
    timeout_seconds: float | None = None
    map_over: Any = None
    map_parallel: int | None = None
    map_max_items: int = 1_000
    tolerance: int = 0
    priority: Literal["high", "normal", "low"] = "normal"
    group: str | None = None


class Edge(Model):
    from_step_key: str
    to_step_key: str
    condition: str = "success"


class Composite(Model):
    """A whole graph with its settings."""

    name: str
    description: str | None = None
    tags: tuple[str, ...] = ()
    steps: tuple[Step, ...]
    edges: tuple[Edge, ...] = ()
    inputs: Json = Field(default_factory=dict)
    continue_on_error: bool = False
    fail_on_any_error: bool = True
    max_parallel: int = 8
    sequential: bool = False
    halt_mode: Literal["wait", "cancel"] = "wait"


CompositeBody = Annotated[Json, Described(Composite)]


class CatalogueRow(Model):
    name: str
    description: str | None
    tags: list[str]
    steps: int
    file: str


class BrokenFile(Model):
    file: str
    message: str


class CatalogueList(Model):
    items: list[CatalogueRow]
    broken: list[BrokenFile] = Field(description="Files that could not be read, and why.")


class CompositeView(Model):
    name: str
    source: str = Field(description="`saved`, or the file it stands in.")
    task_id: str | None
    revision: int | None
    composite: Json


class ProblemRow(Model):
    code: str
    path: str
    message: str
    severity: Literal["error", "warning"]


class Check(Model):
    ok: bool = Field(description="No problem is an error.")
    problems: list[ProblemRow]
