"""What the reconciler does about one run whose row does not say what Prefect says. (spec 6.2)

Each repair is one transaction: row, audit entry and events. Ids follow from what is told, so that two who repair the
same at the same time leave one trace.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from taskcenter import events
from taskcenter.errors import Refused
from taskcenter.models import AuditEntry, OutboxEvent, Run
from taskcenter.ports import Changes, Store
from taskcenter.redaction import redact_text
from taskcenter.status import TERMINAL_RUN, Origin, RunPhase, RunStatus

from .closing import closed_steps
from .differences import Difference, Report
from .gateway import Gateway
from .mapping import facts_from_tags, map_run

__all__ = ["SETTLE", "close_steps", "end_in_prefect", "gone", "new_row", "take_over", "time_of"]

SETTLE: Final = timedelta(seconds=15)
"""A row and Prefect may differ for a moment while a run is made, starts or ends."""
_BEGUN_AGAIN: Final = {"SCHEDULED", "PENDING", "RUNNING", "PAUSED"}


def time_of(value: Any, default: datetime) -> datetime:
    return datetime.fromisoformat(value.replace("Z", "+00:00")) if isinstance(value, str) else default


def new_row(
    store: Store,
    row: Mapping[str, Any],
    deployment: Mapping[str, Any],
    now: datetime,
    report: Report,
    repair: bool,
) -> None:
    """The row of a run that has none, as Prefect tells of it."""
    status, phase = map_run(row["state_type"], row["state_name"])
    task = store.find_task(str((row.get("parameters") or {}).get("task") or deployment["name"]))
    facts = facts_from_tags(row.get("tags") or ())
    origin = facts.get("origin") or ("scheduler" if row.get("auto_scheduled") else "prefect")
    began = time_of(row["start_time"], now) if row.get("start_time") else None
    ended = time_of(row["end_time"], now) if row.get("end_time") else None
    text = redact_text((row.get("state") or {}).get("message") or "") or None
    run = Run(
        id=row["id"],
        task_id=task.id if task else None,
        task_slug=task.slug if task else deployment["name"],
        task_type=deployment["flow_name"],
        trigger_id=(row.get("parameters") or {}).get("trigger_id"),
        origin=Origin(origin),
        status=status,
        phase=phase,
        attempt=int(facts.get("attempt", 1)),
        total_attempts=int(facts.get("attempts", 1)),
        root_run_id=facts.get("root") or row["id"],
        name=row.get("name") or "",
        slot=time_of(row.get("expected_start_time"), now),
        created_at=time_of(row.get("created"), now),
        started_at=began,
        finished_at=ended,
        duration_ms=round((ended - began).total_seconds() * 1000) if ended and began else None,
        error=text if status is RunStatus.FAILED else None,
        message=text,
        prefect_state=row["state_name"],
        batch_id=facts.get("batch"),
        batch_item=int(facts["item"]) if "item" in facts else None,
    )
    if repair:
        entry = _audit(run, "run_found_in_prefect", f"{status} in Prefect", now)
        store.record(Changes(runs=(run,), audit=(entry,), events=_told(run, now)))
    report.differences.append(Difference(run.id, "row", "missing", str(row["state_name"]), repair))


def take_over(
    store: Store,
    run: Run,
    row: Mapping[str, Any],
    status: RunStatus,
    phase: RunPhase | None,
    now: datetime,
    report: Report,
) -> None:
    message = redact_text((row.get("state") or {}).get("message") or "") or run.message
    started = run.started_at or (time_of(row["start_time"], now) if row.get("start_time") else None)
    ended = time_of(row.get("end_time"), now) if status in TERMINAL_RUN else None
    took = round((ended - started).total_seconds() * 1000) if ended and started else None
    fixed = run.model_copy(
        update={
            "status": status,
            "phase": phase,
            "started_at": started,
            "finished_at": ended,
            "duration_ms": took,
            "message": message,
            "error": message if status is RunStatus.FAILED else run.error,
            "prefect_state": row["state_name"],
        }
    )
    text = f"{run.status} became {status} as Prefect says ({row['state_name']})"
    kind = "run_cancelled" if status is RunStatus.CANCELLED else "run_reconciled"
    entry = _audit(fixed, kind, text, now, row.get("state_id"))
    store.record(Changes(runs=(fixed,), events=_told(fixed, now), audit=(entry,)))
    if status in TERMINAL_RUN:
        close_steps(store, fixed, now, report)


def _told(run: Run, now: datetime) -> tuple[OutboxEvent, ...]:
    """What the run's own process would have said by now. Who says it again changes nothing: the ids are the same."""
    began = (events.run_started(run, now),) if run.started_at is not None else ()
    return (*began, *((events.run_finished(run, now),) if run.status in TERMINAL_RUN else ()))


def end_in_prefect(
    gateway: Gateway, run: Run, row: Mapping[str, Any], now: datetime, report: Report, repair: bool
) -> None:
    """The run told us its end and could not tell Prefect, whose server was away then."""
    if run.finished_at is not None and now - run.finished_at < SETTLE:
        return
    said = time_of((row.get("state") or {}).get("timestamp"), run.finished_at or now)
    if row["state_type"] in _BEGUN_AGAIN and run.finished_at is not None and said > run.finished_at:
        text = "it was begun again in Prefect under the same id; Task Center keeps its first end"
        report.differences.append(Difference(run.id, "status", run.status, str(row["state_name"]), exception=text))
        return
    if repair:
        kind = {"success": "COMPLETED", "failed": "FAILED", "cancelled": "CANCELLED"}[run.status.value]
        try:
            gateway.set_run_state(run.id, kind, message=run.message or "as Task Center recorded it")
        except Refused:
            repair = False
    report.differences.append(Difference(run.id, "status", run.status, str(row["state_name"]), repair))


def gone(store: Store, run: Run, now: datetime, report: Report, repair: bool) -> None:
    """Prefect does not know the run any more: deleted there, or never created."""
    if run.status in TERMINAL_RUN:
        text = "deleted in Prefect; Task Center keeps its history"
        report.differences.append(Difference(run.id, "run", run.status, "absent", exception=text))
        return
    if now - run.created_at < SETTLE:
        return
    report.differences.append(Difference(run.id, "run", run.status, "absent", repair))
    if repair:
        text = "the run was deleted in Prefect before it ended"
        closed = run.model_copy(
            update={
                "status": RunStatus.FAILED,
                "phase": RunPhase.LOST,
                "finished_at": now,
                "message": text,
                "error": text,
                "prefect_state": None,
            }
        )
        entry = _audit(closed, "run_reconciled", text, now)
        store.record(Changes(runs=(closed,), audit=(entry,), events=_told(closed, now)))
        close_steps(store, closed, now, report)


def close_steps(store: Store, run: Run, now: datetime, report: Report) -> None:
    """Steps that a finished run left open never end by themselves."""
    rows = {step.step_key: step for step in store.list_steps(run.id)}
    closed = closed_steps(run, rows.values(), now)
    if not closed:
        return
    store.record(Changes(steps=closed))
    for after in closed:
        what = f"step {after.step_key}"
        before = rows[after.step_key].status
        report.differences.append(Difference(run.id, what, before, str(after.status), repaired=True))


def _audit(run: Run, kind: str, message: str, now: datetime, state: str | None = None) -> AuditEntry:
    """Its id follows from what it tells, so that two who repair the same at the same time leave one entry."""
    return AuditEntry(
        id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"taskcenter {kind} {run.id} {run.status} {state}")),
        event_type=kind,
        task_id=run.task_id,
        run_id=run.id,
        actor="prefect",
        channel="prefect",
        object=f"run {run.id}",
        message=message,
        created_at=now,
    )
