"""The task type ``composite`` as a step: another composite, run as a flow of its own below this one. (spec 2.9)"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from taskcenter import RunContext, task_type
from taskcenter.context import PlanNote
from taskcenter.errors import Refused


class CompositePayload(BaseModel):
    """Which composite, and the inputs it gets."""

    model_config = ConfigDict(extra="forbid")

    composite: str = Field(min_length=1, description="Slug of the composite.")
    payload: dict[str, Any] | None = Field(default=None, description="Its inputs.")


def _plan(payload: CompositePayload, ctx: RunContext) -> PlanNote:
    return PlanNote(f"runs the composite {payload.composite}; plan it with: taskcenter plan {payload.composite}")


@task_type("composite", title="Composite", category="flow", icon="graph", plan=_plan)
def composite(payload: CompositePayload, ctx: RunContext) -> dict[str, Any]:
    """Run several steps in the order of their dependencies.

    Only a flow can do that: the composite's own flow does, before this function is asked.
    """
    raise Refused(f"the composite {payload.composite!r} runs inside a Prefect flow only: taskcenter run")
