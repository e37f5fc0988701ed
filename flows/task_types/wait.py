"""``wait``: some seconds, or until an instant. (spec 2.9)"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from taskcenter.clock import utc_now
from taskcenter.context import PlanNote, RunContext
from taskcenter.task_types import task_type

from .payload import Payload, Seconds

__all__ = ["WaitPayload", "wait"]

_STEP_SECONDS = 0.2
_LONGEST = 31 * 86_400


def _aware(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class WaitPayload(Payload):
    """Exactly one of ``seconds`` and ``until`` (ISO time; without a zone it is UTC)."""

    seconds: Annotated[Seconds, Field(le=_LONGEST)] | None = None
    until: Annotated[datetime, AfterValidator(_aware)] | None = None

    @model_validator(mode="after")
    def _one_of(self) -> WaitPayload:
        if (self.seconds is None) == (self.until is None):
            raise ValueError("give exactly one of seconds and until")
        return self


def plan(payload: WaitPayload, ctx: RunContext) -> PlanNote:
    """Says how long."""
    what = f"{payload.seconds:g} s" if payload.seconds is not None else f"until {payload.until:%Y-%m-%d %H:%M:%S} UTC"
    return PlanNote(f"waits {what}")


def estimate(payload: WaitPayload, ctx: RunContext) -> float | None:
    """Expected seconds; None for an instant, which depends on when the step starts."""
    return payload.seconds


@task_type("wait", title="Wait", category="control", icon="hourglass", plan=plan, estimate=estimate)
def wait(payload: WaitPayload, ctx: RunContext) -> dict[str, Any]:
    """Wait for so many seconds, or until an instant.

    One that has passed is not waited for. Gives ``{executor, waitedSeconds}``. Raises Cancelled.
    """
    started = time.monotonic()
    total = payload.seconds if payload.seconds is not None else _seconds_until(payload.until)
    while True:
        ctx.checkpoint()
        # An instant is asked of the clock each time: a machine that slept or was set right still ends on time.
        gone = time.monotonic() - started
        left = total - gone if payload.until is None else _seconds_until(payload.until)
        if left <= 0:
            return {"executor": "wait", "waitedSeconds": round(gone, 3)}
        ctx.progress(100.0 * gone / (gone + left), f"{left:.0f} s left")
        time.sleep(min(_STEP_SECONDS, left))


def _seconds_until(instant: datetime | None) -> float:
    return (instant - utc_now()).total_seconds() if instant is not None else 0.0
