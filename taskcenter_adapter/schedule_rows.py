"""Between the scheduling core and its rows: holds, requests, ledger rows as plain dicts, and back. (spec 4.2–4.7)"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from taskcenter.models import RetryPolicy, Task
from taskcenter.scheduling.admission import BY_PERSON
from taskcenter.scheduling.decisions import RunRequest
from taskcenter.scheduling.ledger import Occurrence, Verdict
from taskcenter.scheduling.state import EndedRun, Hold, Mode, OpenRun, Standing, TaskState
from taskcenter.slot_reasons import SlotReason, SlotReasonCode, iso
from taskcenter.status import Origin, Priority, RunStatus, TaskStatus

from .rows import Row, clean_json

__all__ = [
    "ended_of",
    "firing_payload",
    "hold_json",
    "ledger_row",
    "occurrence_of",
    "open_run_of",
    "request_json",
    "request_of",
    "request_row",
    "standing_json",
    "standing_of_row",
    "task_state",
]

_TIMES = frozenset({"created_at", "slot", "ready_at"})
_REQUEST = tuple(field.name for field in fields(RunRequest))
MOST_PAST_HOLDS = 50
"""Holds kept per scheduler, task or trigger: more than slots without a verdict can have met."""


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


# holds ---------------------------------------------------------------------------------------------


def hold_json(hold: Hold | None) -> dict[str, Any] | None:
    if hold is None:
        return None
    made = {
        "mode": hold.mode.value,
        "since": iso(hold.since),
        "until": iso(hold.until),
        "by": hold.by,
        "note": hold.note,
        "policy": hold.policy,
        "maxFailures": hold.max_failures,
    }
    return {name: value for name, value in made.items() if value not in (None, "", False)}


def _hold(data: Mapping[str, Any]) -> Hold:
    since = _time(data["since"])
    assert since is not None
    return Hold(
        mode=Mode(data["mode"]),
        since=since,
        until=_time(data.get("until")),
        by=data.get("by", ""),
        note=data.get("note", ""),
        policy=data.get("policy"),
        max_failures=data.get("maxFailures", False),
    )


def standing_json(standing: Standing) -> tuple[dict[str, Any] | None, list[Any]]:
    """The columns ``hold`` and ``past``."""
    return hold_json(standing.hold), [hold_json(hold) for hold in standing.past[-MOST_PAST_HOLDS:]]


def standing_of_row(row: Mapping[str, Any]) -> Standing:
    hold = row["hold"]
    return Standing(_hold(hold) if hold else None, tuple(_hold(data) for data in row["past"]))


def task_state(task: Task | Mapping[str, Any], standing: Standing | None) -> TaskState:
    """What scheduling knows of a task. ``standing``: its row; None: only its status tells."""
    row = task if isinstance(task, Mapping) else task.model_dump(mode="python")
    status = TaskStatus(row["status"])
    if standing is None:
        mode = {TaskStatus.PAUSED: Mode.PAUSED, TaskStatus.DISABLED: Mode.DISABLED}.get(status)
        standing = Standing(Hold(mode, row["updated_at"]) if mode else None)
    return TaskState(
        id=row["id"],
        slug=row["slug"],
        standing=standing,
        priority=Priority(row["priority"]),
        max_concurrent=row["max_concurrent"],
        tags=tuple(row["tags"]),
    )


# requests and runs ---------------------------------------------------------------------------------


def request_json(request: RunRequest) -> dict[str, Any]:
    made = {name: getattr(request, name) for name in _REQUEST}
    plain = {name: iso(value) if name in _TIMES else value for name, value in made.items()}
    cleaned: dict[str, Any] = clean_json({name: value for name, value in plain.items() if value is not None})
    return cleaned


def request_of(data: Mapping[str, Any]) -> RunRequest:
    """``again``, which is about making the run, is no part of it."""
    values: dict[str, Any] = {
        name: _time(value) if name in _TIMES else value for name, value in data.items() if name in _REQUEST
    }
    values["origin"], values["priority"] = Origin(values["origin"]), Priority(values["priority"])
    return RunRequest(**values)


def request_row(request: RunRequest) -> Row:
    return {
        "key": request.key,
        "task_id": request.task_id,
        "trigger_id": request.trigger_id,
        "slot": request.slot,
        "status": "wanted",
        "ahead": request.ahead,
        "due": request.ready_at or request.slot or request.created_at,
        "rank": (Priority.HIGH, Priority.NORMAL, Priority.LOW).index(request.priority),
        "run_id": None,
        "request": request_json(request),
        "created_at": request.created_at,
        "serial": request.serial or None,
        "by_person": request.origin in BY_PERSON,
        "batch_id": request.batch_id,
    }


def open_run_of(run: Mapping[str, Any], request: Mapping[str, Any] | None) -> OpenRun:
    """A queued or running run; ``request``: what the scheduler asked for, when it did."""
    asked = request_of(request) if request else None
    return OpenRun(
        id=run["id"],
        task_id=run["task_id"],
        created_at=run["created_at"],
        trigger_id=run["trigger_id"],
        slot=run["slot"],
        status=RunStatus(run["status"]),
        origin=Origin(run["origin"]),
        priority=asked.priority if asked else Priority.NORMAL,
        ready_at=asked.ready_at if asked else None,
        serial=asked.serial if asked else "",
        caught_up=asked.caught_up if asked else False,
        started_at=run["started_at"],
        attempt=run["attempt"],
        root_run_id=run["root_run_id"],
    )


def ended_of(run: Mapping[str, Any], policy: RetryPolicy | None, request: Mapping[str, Any] | None) -> EndedRun:
    asked = request_of(request) if request else None
    return EndedRun(
        id=run["id"],
        task_id=run["task_id"],
        status=RunStatus(run["status"]),
        finished_at=run["finished_at"] or run["created_at"],
        trigger_id=run["trigger_id"],
        slot=run["slot"] if run["trigger_id"] else None,
        origin=Origin(run["origin"]),
        priority=asked.priority if asked else Priority.NORMAL,
        attempt=run["attempt"],
        root_run_id=run["root_run_id"],
        retry_policy=policy,
        payload=asked.payload if asked else None,
    )


def firing_payload(payload: Any) -> dict[str, Any] | None:
    return dict(payload) if isinstance(payload, Mapping) else None


# the ledger ----------------------------------------------------------------------------------------


def ledger_row(occurrence: Occurrence) -> Row:
    return {
        "trigger_id": occurrence.trigger_id,
        "slot": occurrence.slot,
        "task_id": occurrence.task_id,
        "verdict": occurrence.verdict.value,
        "reason": occurrence.reason.code.value,
        "data": clean_json(dict(occurrence.reason.data)),
        "run_id": occurrence.run_id,
        "until": occurrence.until,
        "count": occurrence.count,
        "decided_at": occurrence.decided_at,
    }


def occurrence_of(row: Mapping[str, Any]) -> Occurrence:
    return Occurrence(
        trigger_id=row["trigger_id"],
        slot=row["slot"],
        verdict=Verdict(row["verdict"]),
        reason=SlotReason(SlotReasonCode(row["reason"]), row["data"]),
        decided_at=row["decided_at"],
        task_id=row["task_id"],
        run_id=row["run_id"],
        until=row["until"],
        count=row["count"],
    )


def without_none(values: Iterable[str | None]) -> list[str]:
    return sorted({value for value in values if value is not None})
