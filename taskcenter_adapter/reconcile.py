"""Makes our run rows agree with Prefect's REST state, and says what it repaired. (spec 6.2)

Prefect is the truth for runs; for steps our recorder is, and a step that Prefect lost is named as a written
exception. One pass is idempotent, and two passes at once change nothing: rows only move along their transitions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from taskcenter import events
from taskcenter.errors import Refused
from taskcenter.models import AuditEntry, OutboxEvent, Run, StepRun
from taskcenter.ports import Changes, RunFilter, Store
from taskcenter.purge_plan import PURGED_SETTING
from taskcenter.redaction import redact_text
from taskcenter.status import TERMINAL_RUN, TERMINAL_STEP, Origin, RunPhase, RunStatus

from .closing import closed_steps
from .gateway import Gateway
from .mapping import MANAGED, SKIPPED, facts_from_tags, map_run, map_step

__all__ = ["Difference", "Report", "check", "reconcile", "reconcile_run"]

_SETTLE: Final = timedelta(seconds=15)
"""A row and Prefect may differ for a moment while a run starts or ends."""
_CHECKPOINT: Final = "reconcile_checkpoint"
_HELD: Final = {RunPhase.PAUSED, RunPhase.CANCELLING}
_OVERLAP: Final = timedelta(minutes=10)


@dataclass(frozen=True)
class Difference:
    """One thing that does not agree. ``exception``: known and left alone, with the reason."""

    run_id: str
    what: str
    ours: str
    prefect: str
    repaired: bool = False
    exception: str | None = None

    def __str__(self) -> str:
        tail = f" ({self.exception})" if self.exception else " (repaired)" if self.repaired else ""
        return f"run {self.run_id[:8]}: {self.what}: ours {self.ours}, Prefect {self.prefect}{tail}"


@dataclass
class Report:
    """What one pass looked at and found."""

    runs: int = 0
    steps: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def open(self) -> list[Difference]:
        """What is neither repaired nor a written exception."""
        return [d for d in self.differences if not d.repaired and d.exception is None]


def reconcile(store: Store, gateway: Gateway, now: datetime) -> Report:
    """One pass: open runs, and everything Prefect changed since the checkpoint. Repairs what differs."""
    since = _since(store, now)
    report = Report()
    _compare(store, gateway, now, since, report, repair=True)
    store.set_setting(_CHECKPOINT, now.isoformat())
    return report


def check(store: Store, gateway: Gateway, now: datetime, *, since: datetime | None = None) -> Report:
    """The same comparison over all of history (or ``since``), steps included, without writing anything."""
    report = Report()
    _compare(store, gateway, now, since or datetime(2000, 1, 1, tzinfo=now.tzinfo), report, repair=False)
    return report


def reconcile_run(store: Store, gateway: Gateway, run_id: str, now: datetime) -> Run | None:
    """The same for one run that has a row; gives the row as it stands then."""
    run, row = store.find_run(run_id), gateway.find_run(run_id)
    if run is not None and row is not None:
        _compare_run(store, gateway, run, row, now, Report(), repair=True)
    return store.find_run(run_id)


def _since(store: Store, now: datetime) -> datetime:
    saved = store.get_setting(_CHECKPOINT)
    return datetime.fromisoformat(saved) - _OVERLAP if saved else now - timedelta(days=365)


def _compare(store: Store, gateway: Gateway, now: datetime, since: datetime, report: Report, *, repair: bool) -> None:
    deployments = {d["id"]: d for d in gateway.deployments_with_flow(MANAGED)}
    theirs = {row["id"]: row for row in gateway.runs_since(since, list(deployments))}
    ours = {run.id: run for run in _our_runs(store, None if not repair else since)}
    purged = store.get_setting(PURGED_SETTING)
    missing = [run_id for run_id in ours if run_id not in theirs]
    theirs.update(gateway.runs_by_id(missing))
    for run_id, row in theirs.items():
        if _not_due(row, now):
            continue
        report.runs += 1
        run = ours.get(run_id) or store.find_run(run_id)
        if run is None and _was_purged(row, purged, now):
            continue  # retention took its row; Prefect's own goes with one of the next purges
        if run is None:
            _missing_row(store, row, deployments, now, report, repair)
        else:
            _compare_run(store, gateway, run, row, now, report, repair)
    for run_id in missing:
        if run_id not in theirs:
            _gone(store, ours[run_id], now, report, repair)


def _not_due(row: Mapping[str, Any], now: datetime) -> bool:
    """Prefect makes its scheduled runs up to a hundred ahead; they become ours when their time comes."""
    return row.get("state_type") == "SCHEDULED" and _time(row.get("expected_start_time"), now) > now


def _our_runs(store: Store, since: datetime | None) -> Iterable[Run]:
    """Open runs, and finished ones from ``since`` on (all when None)."""
    where = RunFilter(open_only=since is not None, limit=500)
    while True:
        page = store.list_runs(where)
        yield from page.items
        if page.next_cursor is None:
            return
        where = RunFilter(open_only=where.open_only, limit=500, cursor=page.next_cursor)


def _time(value: Any, default: datetime) -> datetime:
    return datetime.fromisoformat(value.replace("Z", "+00:00")) if isinstance(value, str) else default


def _was_purged(row: Mapping[str, Any], before: str | None, now: datetime) -> bool:
    """Whether the run ended before the time from which on retention leaves rows."""
    if not before or not row.get("end_time"):
        return False
    return _time(row["end_time"], now) < datetime.fromisoformat(before)


def _missing_row(
    store: Store,
    row: Mapping[str, Any],
    deployments: Mapping[str, Mapping[str, Any]],
    now: datetime,
    report: Report,
    repair: bool,
) -> None:
    """A run that a Prefect user or schedule started and that has not written a word yet."""
    status, phase = map_run(row["state_type"], row["state_name"])
    if row["state_name"] == SKIPPED:
        return  # it asked the gate and never began: its slot's verdict in the ledger is the record
    if status is RunStatus.QUEUED and (row.get("parameters") or {}).get("trigger_id"):
        return  # made ahead of its slot: it becomes ours with the slot's verdict
    if not repair and status not in TERMINAL_RUN:
        return  # it has its row as soon as its process starts or the next pass comes
    deployment = deployments.get(row.get("deployment_id") or "")
    if deployment is None:
        return
    if _was_purged(row, store.get_setting(PURGED_SETTING), now):
        return  # by a purge that has begun since
    task = store.find_task(str((row.get("parameters") or {}).get("task") or deployment["name"]))
    facts = facts_from_tags(row.get("tags") or ())
    origin = facts.get("origin") or ("scheduler" if row.get("auto_scheduled") else "prefect")
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
        slot=_time(row.get("expected_start_time"), now),
        created_at=_time(row.get("created"), now),
        started_at=_time(row["start_time"], now) if row.get("start_time") else None,
        finished_at=_time(row["end_time"], now) if row.get("end_time") else None,
        message=redact_text((row.get("state") or {}).get("message") or "") or None,
        prefect_state=row["state_name"],
        batch_id=facts.get("batch"),
        batch_item=int(facts["item"]) if "item" in facts else None,
    )
    if repair:
        store.record(Changes(runs=(run,), audit=(_audit(run, "run_found_in_prefect", f"{status} in Prefect", now),)))
    report.differences.append(Difference(run.id, "row", "missing", str(row["state_name"]), repair))


def _compare_run(
    store: Store,
    gateway: Gateway,
    run: Run,
    row: Mapping[str, Any],
    now: datetime,
    report: Report,
    repair: bool,
) -> None:
    status, phase = map_run(row["state_type"], row["state_name"])
    if not repair and run.status in TERMINAL_RUN and status in TERMINAL_RUN:
        _compare_steps(store, gateway, run, report)
    if run.status is status:
        if repair and run.status in TERMINAL_RUN:
            _close_steps(store, run, now, report)
        elif repair and _phase_differs(run, status, phase):
            store.record(Changes(runs=(run.model_copy(update={"phase": phase}),)))
        return
    if run.status in TERMINAL_RUN and status not in TERMINAL_RUN:
        _left_open_in_prefect(gateway, run, row, now, report, repair)
        return
    if run.status in TERMINAL_RUN:
        text = "both are final; the first report stands"
        report.differences.append(Difference(run.id, "status", run.status, status, exception=text))
        return
    if status not in TERMINAL_RUN and not repair and now - (run.started_at or run.created_at) < _SETTLE:
        return
    report.differences.append(Difference(run.id, "status", run.status, status, repair))
    if repair:
        _take_over(store, run, row, status, phase, now, report)


def _phase_differs(run: Run, status: RunStatus, phase: RunPhase | None) -> bool:
    """Whether the finer word is Prefect's to say. That a run waits for a place is ours: in Prefect it is Scheduled."""
    if run.phase is phase or (run.phase is RunPhase.AWAITING_SLOT and phase in (RunPhase.SCHEDULED, RunPhase.LATE)):
        return False
    return status is RunStatus.QUEUED or bool(_HELD & {run.phase, phase})


def _take_over(
    store: Store,
    run: Run,
    row: Mapping[str, Any],
    status: RunStatus,
    phase: RunPhase | None,
    now: datetime,
    report: Report,
) -> None:
    message = redact_text((row.get("state") or {}).get("message") or "") or run.message
    started = run.started_at or (_time(row["start_time"], now) if row.get("start_time") else None)
    ended = _time(row.get("end_time"), now) if status in TERMINAL_RUN else None
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
    told: tuple[OutboxEvent, ...] = (events.run_finished(fixed, now),) if status in TERMINAL_RUN else ()
    text = f"{run.status} became {status} as Prefect says ({row['state_name']})"
    kind = "run_cancelled" if status is RunStatus.CANCELLED else "run_reconciled"
    store.record(Changes(runs=(fixed,), events=told, audit=(_audit(fixed, kind, text, now),)))
    if status in TERMINAL_RUN:
        _close_steps(store, fixed, now, report)


def _left_open_in_prefect(
    gateway: Gateway, run: Run, row: Mapping[str, Any], now: datetime, report: Report, repair: bool
) -> None:
    """The run told us its end and could not tell Prefect, whose server was away then."""
    if run.finished_at is not None and now - run.finished_at < _SETTLE:
        return
    if repair:
        kind = {"success": "COMPLETED", "failed": "FAILED", "cancelled": "CANCELLED"}[run.status.value]
        try:
            gateway.set_run_state(run.id, kind, message=run.message or "as Task Center recorded it")
        except Refused:
            repair = False
    report.differences.append(Difference(run.id, "status", run.status, str(row["state_name"]), repair))


def _gone(store: Store, run: Run, now: datetime, report: Report, repair: bool) -> None:
    """Prefect does not know the run any more: deleted there, or never created."""
    if run.status in TERMINAL_RUN:
        text = "deleted in Prefect; Task Center keeps its history"
        report.differences.append(Difference(run.id, "run", run.status, "absent", exception=text))
        return
    if now - run.created_at < _SETTLE:
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
        store.record(Changes(runs=(closed,), audit=(_audit(closed, "run_reconciled", text, now),)))
        _close_steps(store, closed, now, report)


def _close_steps(store: Store, run: Run, now: datetime, report: Report) -> None:
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


def _compare_steps(store: Store, gateway: Gateway, run: Run, report: Report) -> None:
    """Our step rows against Prefect's task runs of the same names."""
    ours = {step.prefect_task_run_id: step for step in store.list_steps(run.id) if step.prefect_task_run_id}
    open_steps = [step for step in store.list_steps(run.id) if step.status not in TERMINAL_STEP]
    for step in open_steps:
        report.differences.append(Difference(run.id, f"step {step.step_key}", step.status, "run has ended"))
    if not ours:
        return
    theirs = {row["id"]: row for row in gateway.task_runs(run.id)}
    for task_run_id, step in ours.items():
        report.steps += 1
        row = theirs.get(task_run_id)
        if row is None:
            text = "Prefect did not keep this task run; Task Center's row is the record"
            what = f"step {step.step_key}"
            report.differences.append(Difference(run.id, what, step.status, "absent", exception=text))
        elif map_step(row["state_type"]) is not step.status:
            _unequal_step(run, step, row, report)


def _unequal_step(run: Run, step: StepRun, row: Mapping[str, Any], report: Report) -> None:
    text = None
    if map_step(row["state_type"]) not in TERMINAL_STEP:
        text = "Prefect lost the end of this task run; Task Center's row is the record"
    report.differences.append(
        Difference(run.id, f"step {step.step_key}", step.status, str(row["state_name"]), exception=text)
    )


def _audit(run: Run, kind: str, message: str, now: datetime) -> AuditEntry:
    return AuditEntry(
        event_type=kind,
        task_id=run.task_id,
        run_id=run.id,
        actor="prefect",
        channel="prefect",
        object=f"run {run.id}",
        message=message,
        created_at=now,
    )
