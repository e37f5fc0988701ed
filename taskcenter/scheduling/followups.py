"""What follows runs: another attempt, the triggers that wait for them, and the end of those that waited too long.

A failed attempt is followed by the next one by its retry policy (spec 4.8). Only when no attempt follows has the run
ended for other tasks: then each ``after`` trigger that waits for it gets one request, once per upstream run (spec 4.1).
A queued run that cannot start within the grace of its trigger, because a limit is full or an older run of its scope
goes on, is dropped when the policy for that cause is skip or reschedule (spec 4.5); it never started, so its slot
becomes *skipped*.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..models import AfterCondition, Trigger
from ..quick import unguarded
from ..slot_reasons import SlotReason
from ..status import Origin, RunStatus
from .decisions import Cancel, RunRequest, TriggerMove, retry_key
from .ledger import Occurrence, Verdict
from .misfire import (
    CAPACITY,
    OVERLAP,
    SERVICE_DOWN,
    Cause,
    held_by,
    is_late,
    lateness,
    misfire_event,
    misfire_reason,
    policy_for,
)
from .retry import decide_retry, total_attempts
from .state import EndedRun, Firing, OpenRun, State, TriggerState

__all__ = ["Drop", "FollowUps", "drop_late", "follow_up", "may_drop", "waits_for"]

_MEETS: Mapping[AfterCondition, frozenset[RunStatus]] = {
    "success": frozenset({RunStatus.SUCCESS}),
    "failed": frozenset({RunStatus.FAILED}),
    "done": frozenset({RunStatus.SUCCESS, RunStatus.FAILED}),
}
WORKER_SILENCE = timedelta(seconds=60)


@unguarded
@dataclass(frozen=True, slots=True)
class FollowUps:
    runs: tuple[RunRequest, ...] = ()
    firings: tuple[Firing, ...] = ()
    ended: tuple[str, ...] = ()


def waits_for(trigger: Trigger, task_id: str, status: RunStatus) -> bool:
    """Whether an ``after`` trigger fires when a run of ``task_id`` ends like this."""
    return trigger.type == "after" and task_id in trigger.task_ids and status in _MEETS[trigger.condition]


def follow_up(state: State, now: datetime) -> FollowUps:
    """What follows each run in ``state.ended``."""
    if not state.ended:
        return FollowUps()
    waiting: dict[str, list[TriggerState]] = defaultdict(list)
    for ts in state.triggers:
        for task_id in dict.fromkeys(ts.trigger.task_ids if ts.trigger.type == "after" else ()):
            waiting[task_id].append(ts)
    runs: list[RunRequest] = []
    firings: list[Firing] = []
    for ended in state.ended:
        retry = _retry_of(ended, now)
        if retry is not None:
            runs.append(retry)
            continue
        for ts in waiting.get(ended.task_id, ()):
            if waits_for(ts.trigger, ended.task_id, ended.status):
                firings.append(Firing(f"{ts.id} {ended.id}", ts.id, ended.finished_at, None, ended.id))
    return FollowUps(tuple(runs), tuple(firings), tuple(ended.id for ended in state.ended))


def _retry_of(ended: EndedRun, now: datetime) -> RunRequest | None:
    if ended.status is not RunStatus.FAILED or ended.retry_policy is None:
        return None
    decision = decide_retry(ended.retry_policy, ended.attempt, ended.finished_at)
    if not decision.again:
        return None
    root = ended.root_run_id or ended.id
    return RunRequest(
        key=retry_key(root, ended.attempt + 1),
        task_id=ended.task_id,
        created_at=now,
        trigger_id=ended.trigger_id,
        slot=ended.slot,
        ready_at=decision.due,
        origin=Origin.SCHEDULER_RETRY,
        priority=ended.priority,
        attempt=ended.attempt + 1,
        total_attempts=total_attempts(ended.retry_policy),
        root_run_id=root,
        payload=ended.payload,
        caught_up=True,
    )


# --- too late to start ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Drop:
    """A queued run that is given up, with all that tells of it."""

    occurrence: Occurrence
    cancel: Cancel
    event: tuple[str, Mapping[str, Any]]
    move: TriggerMove | None = None


def drop_late(state: State, now: datetime, cancelled: Container[str] = ()) -> Iterator[Drop]:
    """The queued runs that are too late by the policy for what keeps them."""
    triggers: dict[str, TriggerState] | None = None
    running: set[tuple[str, str]] = set()
    for run in state.runs:
        if run.status is not RunStatus.QUEUED or run.caught_up or run.slot is None or run.trigger_id is None:
            continue
        if run.origin is not Origin.SCHEDULER or run.id in cancelled:
            continue
        if triggers is None:
            triggers = {ts.id: ts for ts in state.triggers}
            running = _running(state)
        ts, task = triggers.get(run.trigger_id), state.tasks.get(run.task_id)
        if ts is None or task is None or not may_drop(ts.trigger):
            continue
        standings = (state.standing, task.standing)  # a hold of its trigger keeps no run that waits already
        resumed = [hold.until for standing in standings for hold in standing.all() if hold.until is not None]
        due = max([run.due_at, *(until for until in resumed if until <= now)])
        if held_by(standings, now) is not None or not is_late(due, now, ts.trigger.misfire_grace_seconds):
            continue
        cause = _cause(state, run, running, now)
        policy = policy_for(ts.trigger, cause)
        if policy in ("skip", "reschedule"):
            reason = _reason(ts, run, lateness(due, now), policy, cause)
            yield _drop(state, ts, run, now, cause, reason)


def may_drop(trigger: Trigger) -> bool:
    policies = {trigger.misfire_policy, *trigger.misfire_by_cause.values()}
    return bool(policies & {"skip", "reschedule"})


def _running(state: State) -> set[tuple[str, str]]:
    keys = ((run.trigger_id or "", run.task_id) for run in state.runs if run.status is RunStatus.RUNNING)
    return {key for trigger_id, task_id in keys for key in (("trigger", trigger_id), ("task", task_id))}


def _cause(state: State, run: OpenRun, running: set[tuple[str, str]], now: datetime) -> Cause:
    scope = run.task_id if run.serial == "task" else run.trigger_id or ""
    if run.serial and (run.serial, scope) in running:
        return OVERLAP
    if state.worker_seen is not None and now - state.worker_seen > WORKER_SILENCE:
        return SERVICE_DOWN
    return CAPACITY


def _reason(ts: TriggerState, run: OpenRun, late: int, policy: str, cause: Cause) -> SlotReason:
    reason = misfire_reason(cause.code, late, policy, cause)
    if cause is not OVERLAP:
        return reason
    more = {"scope": run.serial, "overlap": ts.trigger.overlap, "run": "it waited for its turn"}
    return SlotReason(reason.code, {**reason.data, **more})


def _drop(state: State, ts: TriggerState, run: OpenRun, now: datetime, cause: Cause, reason: SlotReason) -> Drop:
    assert run.slot is not None
    policy = policy_for(ts.trigger, cause)
    row = Occurrence(ts.id, run.slot, Verdict.SKIPPED, reason, now, run.task_id, run.id, amends=Verdict.FIRED)
    move = None
    next_run_at = ts.next_slot
    if policy == "reschedule" and ts.trigger.type == "interval":
        seconds = ts.trigger.interval_seconds or 0
        next_run_at = now + timedelta(seconds=seconds)
        move = TriggerMove(
            ts.id, ts.cursor, max(now, ts.cursor or now), next_run_at, next_run_at, None, {"anchor": now}
        )
    elif policy == "reschedule" and ts.trigger.type == "one_shot":
        next_run_at = now + timedelta(seconds=1)
        again = {"run_at": next_run_at, "enabled": True}
        move = TriggerMove(ts.id, ts.cursor, ts.cursor, next_run_at, next_run_at, None, again)
    enabled = ts.trigger.enabled if move is None else bool(move.changes.get("enabled", ts.trigger.enabled))
    event = misfire_event(state.scheduler_id, ts, (run.slot, policy, cause), now, next_run_at, enabled)
    return Drop(row, Cancel(run.id, reason), event, move)
