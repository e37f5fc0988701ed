"""Cancelling runs: at once what waits, for real what runs. (spec 5.4)

A run at work is asked through Prefect; whoever executes it ends it and says so. Our worker does that when no
process of the run lives any more, and only then the row says ``cancelled``.
"""

from __future__ import annotations

from taskcenter.audit import ended
from taskcenter.clock import utc_now
from taskcenter.errors import NotFound
from taskcenter.models import Run
from taskcenter.ports import Changes
from taskcenter.redaction import redact_text
from taskcenter.status import TERMINAL_RUN, RunPhase, RunStatus
from taskcenter_adapter.closing import close_run
from taskcenter_adapter.reconcile import reconcile_run

from .center import Caller, Center

__all__ = ["cancel"]


def cancel(center: Center, run_id: str, caller: Caller, *, reason: str = "") -> Run:
    """Ask for the end of a run; gives its row: ``cancelled`` when it was waiting, else with the phase ``cancelling``.

    A run that is over is given unchanged; asking twice changes nothing.
    """
    run = center.store.get_run(run_id)
    if run.status in TERMINAL_RUN:
        return run
    why = redact_text(" ".join(reason.split()))
    words = f"cancelled by {caller.actor}" + (f": {why}" if why else "")
    if run.phase is not RunPhase.CANCELLING:
        entry = caller.entry(
            "run_cancel_requested",
            task_id=run.task_id,
            run_id=run.id,
            object=f"run {run.id}",
            message=why,
            before={"status": run.status.value, "phase": run.phase.value if run.phase else None},
        )
        center.store.record(Changes(audit=(entry,)))
    try:
        state = center.gateway.ask_cancel(run.id, words)
    except NotFound:  # it was never handed to Prefect, or deleted there
        state = "CANCELLED"
    now = utc_now()
    run = center.store.get_run(run.id)  # its process may have written meanwhile
    if run.status in TERMINAL_RUN:
        return run
    if state == "CANCELLED":
        entry = caller.entry(
            ended(run.origin, RunStatus.CANCELLED), task_id=run.task_id, run_id=run.id, object=f"run {run.id}",
            message="it never started",
        )  # fmt: skip
        return close_run(center.store, run, RunStatus.CANCELLED, words, now, entry)
    if state == "CANCELLING":
        center.store.record(Changes(runs=(run.model_copy(update={"phase": RunPhase.CANCELLING}),)))
        return center.store.get_run(run.id)
    return reconcile_run(center.store, center.gateway, run.id, now) or run
