"""Looking ahead and back on the wire: why, simulate, backtest, previews of triggers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from taskcenter.models import CalendarRule, Model, TriggerType, Utc

from .wire_composites import Json, ProblemRow

__all__ = [
    "BacktestQuery",
    "BacktestView",
    "PreviewQuery",
    "PreviewView",
    "SimulationQuery",
    "SimulationView",
    "WhyQuery",
    "WhyView",
]

_Texts = Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=100)]


class WhyQuery(Model):
    at: Utc | None = Field(None, description="Another time than now; of a past one the ledger tells.")
    trigger: str | None = Field(None, max_length=200, description="For this one of the task's triggers.")


class GateRow(Model):
    gate: str
    verdict: Literal["pass", "hold"]
    sentence: str
    since: Utc | None
    until: Utc | None


class WhyView(Model):
    task: str
    at: Utc
    runs: bool | None = Field(description="Whether nothing holds it; null for a past time.")
    answer: str
    gates: list[GateRow] = Field(description="In order; none for a past time.")
    recorded: list[Json] = Field(description="For a past time: the last row of each trigger up to then.")


class SimulationQuery(Model):
    start: Utc | None = Field(None, alias="from", description="Default: now.")
    end: Utc | None = Field(None, alias="to", description="At most 31 days later. Default: a day later.")
    outage: _Texts = Field(default_factory=list, description="A/B: the service is away. Repeatable.")
    pause: _Texts = Field(default_factory=list, description="A/B: the scheduler is paused. Repeatable.")
    set: _Texts = Field(default_factory=list, description="limit=2, task.NAME=1, tag.NAME=1, connection.NAME=1.")
    seed: int | None = Field(None, description="Draw durations from the history; without it: the median.")
    runs: int = Field(1_000, ge=0, le=50_000, description="The most runs that are listed.")


class HourRow(Model):
    hour: Utc
    mean: float
    peak: int


class SimulatedTask(Model):
    task: str
    slots: int
    runs: int
    busy_seconds: float
    most_late_seconds: float


class SimulatedRunRow(Model):
    task: str
    trigger_id: str | None
    slot: Utc | None
    due: Utc
    started: Utc | None
    ended: Utc | None
    late_seconds: float
    cancelled: bool


class SimulationView(Model):
    start: Utc = Field(alias="from")
    end: Utc = Field(alias="to")
    seed: int | None
    pool: int
    slots: int
    verdicts: dict[str, int]
    misfires: int
    overlaps: int
    waiting: int
    lateness: dict[str, float]
    occupancy: list[HourRow]
    tasks: list[SimulatedTask] = Field(description="The busiest first.")
    run_count: int
    runs: list[SimulatedRunRow]


class BacktestQuery(Model):
    days: float = Field(30, gt=0, le=366)


class DifferenceRow(Model):
    trigger_id: str
    task: str | None
    slot: Utc
    recorded: str | None
    replayed: str | None


class DurationsView(Model):
    runs: int
    mean_error_seconds: float
    median_error_percent: float


class BacktestView(Model):
    start: Utc = Field(alias="from")
    end: Utc = Field(alias="to")
    compared: int
    agreed: int
    agreement: float = Field(description="Percent.")
    differences: list[DifferenceRow] = Field(description="The first hundred.")
    durations: DurationsView | None


class PreviewQuery(Model):
    trigger: str | None = Field(None, max_length=200, description="A saved trigger; the other fields are put over it.")
    type: TriggerType | None = None
    cron_expression: str | None = Field(None, max_length=500)
    cron_seconds: Literal["first", "last"] | None = None
    interval_seconds: float | None = None
    anchor: Utc | None = None
    run_at: Utc | None = None
    timezone: str | None = Field(None, max_length=100)
    start_at: Utc | None = None
    end_at: Utc | None = None
    calendar: str | None = Field(None, max_length=100)
    calendar_rule: CalendarRule | None = None
    count: int = Field(10, ge=1, le=1_000, description="How many slots.")


class SlotRow(Model):
    at: Utc
    wall: str
    mark: Literal["gap", "overlap"] | None


class QuietRow(Model):
    at: Utc
    tasks: int
    cron_expression: str | None


class PreviewView(Model):
    ok: bool
    sentence: str
    slots: list[SlotRow]
    problems: list[ProblemRow] = Field(description="Refusals (severity error) and warnings.")
    same_slot: int = Field(description="How many other tasks fire in the minute of the first slot.")
    suggestions: list[QuietRow]
