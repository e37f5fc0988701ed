"""Runs made ahead of their slot, so that a worker starts them on their second. (spec 4.2)

A run made ahead has no verdict yet: its slot gets one when it comes. Until then it may be taken back.
"""

from __future__ import annotations

from datetime import datetime

from .decisions import RunRequest, run_key
from .state import State, TriggerState
from .timetable import BY_EVENT, advance, jitter, outside

__all__ = ["plan_ahead"]

_MOST_LOOKED_AT = 1_000


def plan_ahead(state: State, ts: TriggerState, upcoming: datetime | None, now: datetime) -> list[RunRequest]:
    """The runs that are missing ahead. ``upcoming``: the next slot of ``ts`` after now."""
    horizon, trigger = state.horizon, ts.trigger
    task = state.tasks.get(ts.task_id)
    if horizon is None or task is None or upcoming is None or trigger.type in BY_EVENT:
        return []
    if trigger.counts_from == "completion" or not trigger.enabled:
        return []
    have = {run.slot for run in ts.planned if run.slot > now}
    if len(have) >= horizon.min_runs and max(have) >= now + horizon.min_time:
        return []
    made: list[RunRequest] = []
    counted = 0
    at: datetime | None = upcoming
    for _ in range(_MOST_LOOKED_AT):
        enough = counted >= horizon.min_runs and at is not None and at > now + horizon.min_time
        if at is None or enough or counted >= horizon.max_runs or at > now + horizon.max_time:
            break
        settled = ts.verdicts.get(at)
        if (settled is None or settled == "superseded") and outside(ts, at, state.calendars) is None:
            counted += 1
            if at not in have:
                made.append(
                    RunRequest(
                        key=run_key(trigger.id, at),
                        task_id=task.id,
                        created_at=now,
                        trigger_id=trigger.id,
                        slot=at,
                        ready_at=at + jitter(trigger, at),
                        priority=trigger.priority or task.priority,
                        total_attempts=1 + trigger.retry_policy.max_attempts,
                        payload=trigger.payload,
                        ahead=True,
                    )
                )
        at = advance(ts, at, state.calendars)
    return made
