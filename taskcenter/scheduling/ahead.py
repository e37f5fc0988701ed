"""Runs made ahead of their slot, so that a worker starts them on their second. (spec 4.2)

A run made ahead has no verdict yet: its slot gets one when it comes. Until then it may be taken back.
"""

from __future__ import annotations

from datetime import datetime

from .decisions import RunRequest, run_key
from .occurrences import slots
from .state import Horizon, State, TaskState, TriggerState
from .timetable import BY_EVENT, advance, is_plain, jitter, outside

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
    have = [run.slot for run in ts.planned if run.slot > now]
    if len(have) >= horizon.min_runs and max(have) >= now + horizon.min_time:
        return []
    if is_plain(trigger) and not ts.verdicts:
        wanted = _all_plain(ts, upcoming, horizon, now)
    else:
        wanted = _one_by_one(state, ts, upcoming, horizon, now)
    if wanted[: len(have)] == have:  # as a rule: those that are missing are the last ones
        missing = wanted[len(have) :]
    else:
        known = set(have)
        missing = [at for at in wanted if at not in known]
    return [_request(ts, task, at, now) for at in missing]


def _all_plain(ts: TriggerState, upcoming: datetime, horizon: Horizon, now: datetime) -> list[datetime]:
    """Of a trigger whose slots are those of its timetable: they can be asked for all at once."""
    farthest = now + horizon.max_time
    found = [upcoming] if upcoming <= farthest else []
    found += slots(ts.trigger, upcoming, min(now + horizon.min_time, farthest), horizon.max_runs - 1)
    if found and len(found) < horizon.min_runs:
        found += slots(ts.trigger, found[-1], farthest, horizon.min_runs - len(found))
    return found


def _one_by_one(state: State, ts: TriggerState, upcoming: datetime, horizon: Horizon, now: datetime) -> list[datetime]:
    found: list[datetime] = []
    at: datetime | None = upcoming
    for _ in range(_MOST_LOOKED_AT):
        enough = len(found) >= horizon.min_runs and at is not None and at > now + horizon.min_time
        if at is None or enough or len(found) >= horizon.max_runs or at > now + horizon.max_time:
            break
        settled = ts.verdicts.get(at)
        if (settled is None or settled == "superseded") and outside(ts, at, state.calendars) is None:
            found.append(at)
        at = advance(ts, at, state.calendars)
    return found


def _request(ts: TriggerState, task: TaskState, slot: datetime, now: datetime) -> RunRequest:
    trigger = ts.trigger
    return RunRequest(
        key=run_key(trigger.id, slot),
        task_id=task.id,
        created_at=now,
        trigger_id=trigger.id,
        slot=slot,
        ready_at=slot + jitter(trigger, slot) if trigger.jitter_seconds else slot,
        priority=trigger.priority or task.priority,
        total_attempts=1 + trigger.retry_policy.max_attempts,
        payload=trigger.payload,
        ahead=True,
    )
