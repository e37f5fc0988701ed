"""Holding runs and letting them go on, where they were. (spec 5.5)

The state of the run in Prefect says so, hence a pause from Prefect's UI is one too; whoever executes the run makes
its processes stand still. Only our worker can.
"""

from __future__ import annotations

from datetime import timedelta

from taskcenter.clock import utc_now
from taskcenter.errors import Refused
from taskcenter.models import Run
from taskcenter.ports import Changes
from taskcenter.redaction import redact_text
from taskcenter.status import TERMINAL_RUN, RunPhase, RunStatus

from .center import Caller, Center

__all__ = ["pause", "proceed"]

_FOR_EVER = timedelta(days=3650)
"""Prefect fails a paused run when its pause is over; ours is over when a person says so."""


def pause(center: Center, run_id: str, caller: Caller, *, reason: str = "") -> Run:
    """Hold a run at work; gives its row with the phase ``paused``. Asked twice, nothing more happens."""
    run = center.store.get_run(run_id)
    if run.phase is RunPhase.PAUSED:
        return run
    if run.status is not RunStatus.RUNNING or run.phase is RunPhase.CANCELLING:
        where = run.phase.value if run.phase and run.status not in TERMINAL_RUN else run.status.value
        raise Refused(f"run {run.id[:8]} is {where}: only a run at work can be held")
    now = utc_now()
    why = redact_text(" ".join(reason.split()))
    words = f"held by {caller.actor}" + (f": {why}" if why else "")
    center.gateway.set_run_state(run.id, "PAUSED", "Paused", words, {"pause_timeout": (now + _FOR_EVER).isoformat()})
    return _record(
        center, run, caller, "run_paused", why, RunPhase.PAUSED, f"{words} since {now:%Y-%m-%d %H:%M:%S} UTC"
    )


def proceed(center: Center, run_id: str, caller: Caller, *, reason: str = "") -> Run:
    """Let a held run go on."""
    run = center.store.get_run(run_id)
    if run.phase is not RunPhase.PAUSED or run.status in TERMINAL_RUN:
        raise Refused(f"run {run.id[:8]} is not held, so it cannot go on")
    why = redact_text(" ".join(reason.split()))
    center.gateway.set_run_state(run.id, "RUNNING", "Running", f"{caller.actor} let it go on")
    return _record(center, run, caller, "run_continued", why, None, f"{caller.actor} let it go on")


def _record(
    center: Center, run: Run, caller: Caller, event: str, why: str, phase: RunPhase | None, message: str
) -> Run:
    entry = caller.entry(event, task_id=run.task_id, run_id=run.id, object=f"run {run.id}", message=why)
    current = center.store.get_run(run.id)  # it may have ended meanwhile: then its end stands
    changed = current.model_copy(update={"phase": phase, "message": message})
    center.store.record(Changes(runs=(changed,), audit=(entry,)))
    return center.store.get_run(run.id)
