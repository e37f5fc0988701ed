"""Runs and plans on the wire."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from taskcenter.models import LogLine, Model, Run, StepRun, Utc
from taskcenter.options import RunOptions
from taskcenter.status import RunStatus

from .wire_composites import Json

__all__ = [
    "AgainRequest",
    "Comparison",
    "DifferenceView",
    "Expected",
    "LogPage",
    "LogQuery",
    "PlanNoteView",
    "PlanRequest",
    "PlanStepView",
    "PlanView",
    "RunPage",
    "RunQuery",
    "RunRequest",
    "RunView",
    "StepList",
    "WhyRequest",
]


class RunRequest(Model):
    """How a task is to be run. Everything has a default: an empty body runs it as it is saved."""

    payload: Json | None = Field(None, description="Laid over the saved payload, key by key.")
    options: RunOptions = RunOptions()
    dry_run: bool = False
    at: Utc | None = Field(None, description="When; now if absent.")
    confirm: bool = Field(False, description="Needed for a task with a danger text.")


class AgainRequest(Model):
    """How a run is repeated."""

    step: str | None = Field(None, max_length=200, description="Of a resume: this step and all after it run again.")
    confirm: bool = Field(False, description="Needed for a task with a danger text.")


class DifferenceView(Model):
    what: str = Field(description="A field of the run, or `steps.<key>.<field>`.")
    first: Any
    second: Any


class Comparison(Model):
    """Two runs side by side."""

    runs: list[Run]
    differences: list[DifferenceView]


class WhyRequest(Model):
    """Why a run is cancelled, held or let go on."""

    reason: str = Field("", max_length=1000, description="Stands in the audit and in the run's message.")


class PlanRequest(Model):
    """What the plan should assume."""

    payload: Json | None = None
    options: RunOptions = RunOptions()


class RunQuery(Model):
    """Which runs a list shows."""

    task: str | None = Field(None, max_length=200, description="Slug or id.")
    status: RunStatus | None = None
    q: str | None = Field(None, max_length=200, description="Part of the task's slug or of the run's name.")
    batch: str | None = Field(None, max_length=200, description="Only items of this batch; its whole id.")
    since: Utc | None = Field(None, description="Created from then on.")
    until: Utc | None = Field(None, description="Created before.")
    limit: int = Field(50, ge=1, le=500)
    cursor: str | None = Field(None, max_length=1000, description="The `nextCursor` of the page before.")


class RunPage(Model):
    items: list[Run] = Field(description="Newest first.")
    next_cursor: str | None = None


class ProgressView(Model):
    """How far a run, or a step of it that reports, has come."""

    step_key: str | None = Field(description="None: the run as a whole.")
    percent: float | None
    message: str
    done: float | None
    total: float | None
    rate: float | None = Field(description="Per second: units where `done` is known, else percent.")
    left_seconds: tuple[float, float] | None = Field(description="From, to.")
    by: Literal["own rate", "earlier runs"] | None = Field(description="What `leftSeconds` is reckoned from.")
    overdue: bool = Field(description="It takes longer than 95 % of the earlier runs.")


class RunView(Run):
    """A run with its steps."""

    steps: list[StepRun]
    progress: list[ProgressView] = Field(description="Of a run at work: the run, then each step that reports.")
    prefect_url: str | None = Field(None, description="The same run in Prefect's UI.")


class StepList(Model):
    items: list[StepRun]


class LogQuery(Model):
    """Which lines."""

    after: int = Field(-1, ge=-1, le=2**62, description="Only lines with a greater `sequence`.")
    limit: int = Field(1000, ge=1, le=2000)


class LogPage(Model):
    items: list[LogLine] = Field(description="In order; ask again `after` the last one's `sequence`.")


class PlanNoteView(Model):
    summary: str
    details: Json
    danger: list[str]
    connections: list[str]


class Expected(Model):
    p50: float
    p95: float
    n: int


class PlanStepView(Model):
    """One step of a plan, in the order in which they would start (or be skipped)."""

    step: int
    step_key: str
    name: str
    task_type: str
    position: int
    wave: int
    status: Literal["planned"]
    certain: bool
    depends_on: list[str]
    predicted: str
    reason: str | None
    resolved_payload: Any
    mapping_error: str | None
    note: PlanNoteView | None
    note_error: str | None
    danger: str | None
    expensive: bool
    secrets: list[str]
    connections: dict[str, bool | None]
    expected_seconds: Expected | None
    expected_start: float | None
    expected_end: float | None
    items: int | None


class PlanView(Model):
    """What a run would do, and why. Nothing was executed."""

    executor: str
    task_id: str | None
    name: str
    dry_run: Literal[True]
    total_steps: int
    waves: int
    continue_on_error: bool
    fail_on_any_error: bool
    max_parallel: int
    revision: int | None
    plan_hash: str = Field(description="Give it to a run as `options.planHash`: it is refused when the plan changed.")
    critical_path: list[str]
    expected_seconds: float | None
    steps: list[PlanStepView]
