"""Small fleets for the tests of the scheduling core: one task ``t`` with one trigger ``x``, unless said otherwise."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from taskcenter.models import Trigger
from taskcenter.scheduling.decisions import Decisions
from taskcenter.scheduling.ledger import Verdict
from taskcenter.scheduling.state import OpenRun, Standing, State, TaskState, TriggerState, standing_of

__all__ = ["at", "every_minute", "fleet", "open_run", "told", "trigger"]


def at(text: str) -> datetime:
    """``12:03:05`` on Monday 4 May 2026, or ``2026-03-29 01:30``, in UTC."""
    text = text if "-" in text else f"2026-05-04 {text}"
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def trigger(**about: Any) -> Trigger:
    return Trigger(**{"id": "x", "task_id": "t", "type": "cron", **about})


def every_minute(**about: Any) -> Trigger:
    return trigger(cron_expression="* * * * *", **about)


def fleet(*triggers: Trigger, cursor: datetime | None = None, since: datetime | None = None, **more: Any) -> State:
    """All slots up to ``cursor`` are decided. ``standings``: trigger id → its holds."""
    since = since or cursor or at("00:00")
    standings: dict[str, Standing] = more.pop("standings", {})
    states = tuple(
        TriggerState(own, since, cursor, standing=standings.get(own.id, standing_of(own, since))) for own in triggers
    )
    tasks = more.pop("tasks", None) or {own.task_id: TaskState(own.task_id) for own in triggers}
    return State(states, tasks, **more)


def open_run(run_id: str = "old", **about: Any) -> OpenRun:
    return OpenRun(**{"id": run_id, "task_id": "t", "created_at": at("00:00"), "trigger_id": "x", **about})


def told(decisions: Decisions) -> dict[str, Verdict]:
    """Slot → verdict, in words; a range as its two ends."""
    return {
        f"{row.slot:%H:%M}{f'-{row.last:%H:%M}' if row.until else ''}": row.verdict for row in decisions.occurrences
    }
