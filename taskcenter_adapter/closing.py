"""What belongs to the end of a run that its own process did not write: its row, its open steps, event and audit.

Used by the reconciler, by the worker and by whoever cancels. (spec 5.1, 5.3, 5.4)
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from taskcenter import events
from taskcenter.models import AuditEntry, Run, StepRun
from taskcenter.ports import Changes, Store
from taskcenter.reasons import Reason, ReasonCode
from taskcenter.redaction import redact_text
from taskcenter.status import TERMINAL_STEP, RunPhase, RunStatus, StepStatus

from .merging import LOST

__all__ = ["close_run", "closed_steps"]


def close_run(
    store: Store, run: Run, status: RunStatus, message: str, now: datetime, audit: AuditEntry,
    phase: RunPhase | None = None,
) -> Run:  # fmt: skip
    """End an open run: row, steps, event and ``audit`` in one transaction. Gives the row as it stands then."""
    text = redact_text(message)
    took = max(0, round((now - run.started_at).total_seconds() * 1000)) if run.started_at else None
    ended = run.model_copy(
        update={
            "status": status,
            "phase": phase,
            "finished_at": now,
            "duration_ms": took,
            "message": text,
            "error": text if status is RunStatus.FAILED else None,
        }
    )
    steps = closed_steps(ended, store.list_steps(run.id), now)
    told = (events.run_finished(ended, now),)
    store.record(Changes(runs=(ended,), steps=steps, events=told, audit=(audit,)))
    return store.get_run(run.id)


def closed_steps(run: Run, rows: Iterable[StepRun], now: datetime) -> list[StepRun]:
    """The steps that an ended run left open, as they are closed: under a cancelled run skipped, else lost.

    Marked as what nobody reported: a report that is still on its way (in a spool) goes before it.
    """
    cancelled = run.status is RunStatus.CANCELLED
    text = str(Reason(ReasonCode.CANCELLED if cancelled else ReasonCode.LOST))
    end = run.finished_at or now
    closed = []
    for step in rows:
        if step.status in TERMINAL_STEP:
            continue
        failed = step.status is StepStatus.RUNNING and not cancelled
        took = max(0, round((end - step.started_at).total_seconds() * 1000)) if step.started_at else None
        closed.append(
            step.model_copy(
                update={
                    "status": StepStatus.FAILED if failed else StepStatus.SKIPPED,
                    "finished_at": end,
                    "duration_ms": took,
                    "error": text if failed else None,
                    "error_type": LOST,
                    "reason": text,
                }
            )
        )
    return closed
