"""Makes our run rows agree with Prefect's REST state, and says what it repaired. (spec 6.2)

Prefect is the truth for runs; for steps our recorder is, and a step that Prefect lost is named as a written
exception. One pass is idempotent, and two passes at once change nothing: rows only move along their transitions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from taskcenter.models import Run, StepRun
from taskcenter.ports import Changes, RunFilter, Store
from taskcenter.purge_plan import PURGED_SETTING
from taskcenter.status import TERMINAL_RUN, TERMINAL_STEP, RunPhase, RunStatus

from .differences import Difference, Report
from .gateway import Gateway
from .mapping import MANAGED, SKIPPED, facts_from_tags, map_run, map_step
from .repairs import SETTLE, close_steps, end_in_prefect, gone, new_row, take_over, time_of

__all__ = ["check", "reconcile", "reconcile_run", "reconcile_runs"]

_CHECKPOINT: Final = "reconcile_checkpoint"
_HELD: Final = {RunPhase.PAUSED, RunPhase.CANCELLING}
_OVERLAP: Final = timedelta(minutes=10)
_KEPT: Final = timedelta(minutes=2)
"""A checkpoint that is no older than this is left as it is: a pass that repairs nothing writes nothing."""


def reconcile(store: Store, gateway: Gateway, now: datetime, *, since: datetime | None = None) -> Report:
    """One pass: open runs, and everything Prefect changed since the checkpoint. Repairs what differs.

    ``since``: only what changed since then, which costs Prefect less; the checkpoint stays where it is.
    """
    if since is not None:
        report = Report()
        _compare(store, gateway, now, since, report, repair=True)
        return report
    saved = store.get_setting(_CHECKPOINT)
    last = datetime.fromisoformat(saved) if saved else None
    report = Report()
    _compare(store, gateway, now, last - _OVERLAP if last else now - timedelta(days=365), report, repair=True)
    if last is None or report.repaired or not now - _KEPT <= last <= now:
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


def reconcile_runs(
    store: Store,
    gateway: Gateway,
    run_ids: Collection[str],
    deployments: Mapping[str, Mapping[str, Any]],
    now: datetime,
    under_way: Collection[str] = (),
) -> Report:
    """The same for the runs that something was heard of; with ``deployments`` by id, as Prefect has them.

    Runs ``under_way`` are told of by their own process: of them only the end is taken over.
    """
    report = Report()
    theirs = gateway.runs_by_id(sorted(run_ids))
    for run_id in [key for key, row in theirs.items() if key in under_way and not _is_over(row)]:
        del theirs[run_id]
    _compare_rows(store, gateway, theirs, {}, deployments, now, report, repair=True)
    return report


def _is_over(row: Mapping[str, Any]) -> bool:
    return map_run(row["state_type"], row["state_name"])[0] in TERMINAL_RUN


def _compare(store: Store, gateway: Gateway, now: datetime, since: datetime, report: Report, *, repair: bool) -> None:
    deployments = {d["id"]: d for d in gateway.deployments_with_flow(MANAGED)}
    theirs = {row["id"]: row for row in gateway.runs_since(since, list(deployments))}
    ours = {run.id: run for run in _our_runs(store, None if not repair else since)}
    missing = [run_id for run_id in ours if run_id not in theirs]
    theirs.update(gateway.runs_by_id(missing))
    _compare_rows(store, gateway, theirs, ours, deployments, now, report, repair=repair)
    for run_id in missing:
        if run_id not in theirs:
            gone(store, ours[run_id], now, report, repair)


def _compare_rows(
    store: Store,
    gateway: Gateway,
    theirs: Mapping[str, Mapping[str, Any]],
    ours: Mapping[str, Run],
    deployments: Mapping[str, Mapping[str, Any]],
    now: datetime,
    report: Report,
    *,
    repair: bool,
) -> None:
    """Runs as Prefect has them against our rows, of which ``ours`` are known already."""
    due = {run_id: row for run_id, row in theirs.items() if not _not_due(row, now)}
    rows = {**store.find_runs(due.keys() - ours.keys()), **ours}
    half_open = store.with_open_steps([run_id for run_id in due if run_id in rows and _is_over(due[run_id])])
    purged = store.get_setting(PURGED_SETTING)
    for run_id, row in due.items():
        report.runs += 1
        run = rows.get(run_id)
        if run is None and _was_purged(row, purged, now):
            continue  # retention took its row; Prefect's own goes with one of the next purges
        if run is None:
            _missing_row(store, row, deployments, now, report, repair)
        else:
            _compare_run(store, gateway, run, row, now, report, repair, close=run_id in half_open)


def _not_due(row: Mapping[str, Any], now: datetime) -> bool:
    """Prefect makes its scheduled runs up to a hundred ahead; they become ours when their time comes."""
    return row.get("state_type") == "SCHEDULED" and time_of(row.get("expected_start_time"), now) > now


def _our_runs(store: Store, since: datetime | None) -> Iterable[Run]:
    """Open runs, and finished ones from ``since`` on (all when None)."""
    where = RunFilter(open_only=since is not None, limit=500)
    while True:
        page = store.list_runs(where)
        yield from page.items
        if page.next_cursor is None:
            return
        where = RunFilter(open_only=where.open_only, limit=500, cursor=page.next_cursor)


def _was_purged(row: Mapping[str, Any], before: str | None, now: datetime) -> bool:
    """Whether the run ended before the time from which on retention leaves rows."""
    if not before or not row.get("end_time"):
        return False
    return time_of(row["end_time"], now) < datetime.fromisoformat(before)


def _missing_row(
    store: Store,
    row: Mapping[str, Any],
    deployments: Mapping[str, Mapping[str, Any]],
    now: datetime,
    report: Report,
    repair: bool,
) -> None:
    """A run that a Prefect user or schedule started and that has not written a word yet."""
    status = map_run(row["state_type"], row["state_name"])[0]
    if row["state_name"] == SKIPPED:
        return  # it asked the gate and never began: its slot's verdict in the ledger is the record
    if status is RunStatus.QUEUED and (row.get("parameters") or {}).get("trigger_id"):
        return  # made ahead of its slot: it becomes ours with the slot's verdict
    if not repair and (status not in TERMINAL_RUN or _fresh(row, now)):
        return  # it has its row as soon as its process starts or the next pass comes
    deployment = deployments.get(row.get("deployment_id") or "")
    if deployment is None:
        return
    if _was_purged(row, store.get_setting(PURGED_SETTING), now):
        return  # by a purge that has begun since
    facts = facts_from_tags(row.get("tags") or ())
    if "origin" in facts and status is RunStatus.QUEUED and now - time_of(row.get("created"), now) < SETTLE:
        return  # who asked for it is about to write its row, and says who that was
    new_row(store, row, deployment, now, report, repair)


def _compare_run(
    store: Store,
    gateway: Gateway,
    run: Run,
    row: Mapping[str, Any],
    now: datetime,
    report: Report,
    repair: bool,
    close: bool = True,
) -> None:
    """``close``: whether the run may have steps that did not end."""
    status, phase = map_run(row["state_type"], row["state_name"])
    if not repair and run.status in TERMINAL_RUN and status in TERMINAL_RUN:
        _compare_steps(store, gateway, run, report)
    if run.status is status:
        if repair and close and run.status in TERMINAL_RUN:
            close_steps(store, run, now, report)
        elif repair and _phase_differs(run, status, phase):
            store.record(Changes(runs=(run.model_copy(update={"phase": phase}),)))
        return
    if run.status in TERMINAL_RUN and status not in TERMINAL_RUN:
        end_in_prefect(gateway, run, row, now, report, repair)
        return
    if run.status in TERMINAL_RUN:
        text = "both are final; the first report stands"
        report.differences.append(Difference(run.id, "status", run.status, status, exception=text))
        return
    if not repair and (_fresh(row, now) or now - (run.started_at or run.created_at) < SETTLE):
        return
    report.differences.append(Difference(run.id, "status", run.status, status, repair))
    if repair:
        take_over(store, run, row, status, phase, now, report)


def _fresh(row: Mapping[str, Any], now: datetime) -> bool:
    """Whether Prefect has only just said so."""
    said = (row.get("state") or {}).get("timestamp")
    return said is not None and now - time_of(said, now) < SETTLE


def _phase_differs(run: Run, status: RunStatus, phase: RunPhase | None) -> bool:
    """Whether the finer word is Prefect's to say. That a run waits for a place is ours: in Prefect it is Scheduled."""
    if run.phase is phase or (run.phase is RunPhase.AWAITING_SLOT and phase in (RunPhase.SCHEDULED, RunPhase.LATE)):
        return False
    return status is RunStatus.QUEUED or bool(_HELD & {run.phase, phase})


def _compare_steps(store: Store, gateway: Gateway, run: Run, report: Report) -> None:
    """Our step rows against Prefect's task runs of the same names."""
    steps = store.list_steps(run.id)
    ours = {step.prefect_task_run_id: step for step in steps if step.prefect_task_run_id}
    for step in [step for step in steps if step.status not in TERMINAL_STEP]:
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
