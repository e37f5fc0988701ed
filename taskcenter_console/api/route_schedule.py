"""Why, simulate, backtest, previews of triggers: questions to the scheduling core, which write nothing. (spec 4.9)"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from taskcenter.clock import utc_now
from taskcenter.errors import Problem, ValidationFailed
from taskcenter_console.services import lookahead, tasks, triggers
from taskcenter_console.services.periods import period

from .depends import CenterOf
from .problems import documented
from .wire_schedule import (
    BacktestQuery,
    BacktestView,
    PreviewQuery,
    PreviewView,
    SimulationQuery,
    SimulationView,
    WhyQuery,
    WhyView,
)

__all__ = ["router"]

router = APIRouter(prefix="/api", tags=["scheduling"])


@router.get("/tasks/{name}/why", responses=documented(404, 409, 422))
def why_task(center: CenterOf, name: str, query: Annotated[WhyQuery, Query()]) -> WhyView:
    """Why a task runs or does not: every gate in order, since when and until when it holds."""
    return WhyView.model_validate(lookahead.why(center, name, query.at, query.trigger).to_dict())


@router.get("/simulate", responses=documented(409, 422))
def simulate(center: CenterOf, query: Annotated[SimulationQuery, Query()]) -> SimulationView:
    """The whole fleet on a virtual clock: verdicts, lateness, occupancy, runs."""
    start = query.start or utc_now()
    found = lookahead.simulate(
        center,
        start,
        query.end,
        outages=[period(text, "outage", start) for text in query.outage],
        pauses=[period(text, "pause", start) for text in query.pause],
        sets=query.set,
        seed=query.seed,
    )
    return SimulationView.model_validate(found.to_dict(query.runs))


@router.get("/backtest", responses=documented(409, 422))
def backtest(center: CenterOf, query: Annotated[BacktestQuery, Query()]) -> BacktestView:
    """Replay the past: how many verdicts agree, and how well durations are foretold."""
    return BacktestView.model_validate(lookahead.backtest(center, query.days).to_dict())


@router.get("/triggers/preview", responses=documented(404, 409, 422))
def preview_trigger(center: CenterOf, query: Annotated[PreviewQuery, Query()]) -> PreviewView:
    """When a trigger would fire: in words, its next slots, what is doubtful, quieter minutes. Findings are a 200."""
    given = query.model_dump(exclude={"trigger", "count"}, exclude_none=True)
    if query.trigger is not None:
        given = {**triggers.find(center, query.trigger)[1].model_dump(mode="python"), **given}
    elif "type" not in given:
        raise ValidationFailed("the preview", [Problem("missing", "type", "is missing; or name a saved trigger")])
    others = [trigger for task in tasks.all_tasks(center) for trigger in task.triggers]
    calendars = center.calendars()
    found = lookahead.preview(given, others, count=query.count, calendars=calendars)
    return PreviewView.model_validate(found.to_dict())
