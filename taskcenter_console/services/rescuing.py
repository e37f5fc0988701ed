"""Closes runs whose worker nobody has heard of, and ends what is left of them here. (spec 5.3)

A worker that is gone from this machine is known to be gone; of any other only its silence is known, and a lease that
ran out says so. Whoever rescues must have been there for a while: after an outage of the database all leases look old.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from datetime import datetime

from deployments.worker_tree import end_processes, processes_of
from taskcenter.errors import NotFound, Refused, TaskCenterError
from taskcenter.models import AuditEntry, Run
from taskcenter.status import TERMINAL_RUN, RunPhase, RunStatus
from taskcenter_adapter.closing import close_run
from taskcenter_adapter.leases import Lease
from taskcenter_adapter.reconcile import reconcile_run
from taskcenter_adapter.run_leases import LEASE, RENEW_SECONDS, RunLeases
from taskcenter_adapter.store_sql import SqlStore

from .center import Center

__all__ = ["Rescuer"]

_LOG = logging.getLogger("taskcenter.rescue")
_SETTLE = 2 * RENEW_SECONDS
"""Seconds of sight that a rescuer needs before a lease that ran out counts: living workers renew in that time."""
_BLIND = 15.0
_FORGET = 20 * LEASE


@dataclass
class Rescuer:
    """Looks again and again. ``look`` gives the ids of the runs it closed or put back."""

    center: Center
    _seeing_since: float | None = None
    _looked: float = field(default=0.0)

    def look(self, now: datetime, *, patient: bool = True) -> list[str]:
        """One look. ``patient``: count a lease that ran out only when this rescuer has seen the tables for a while."""
        store = self.center.store
        if not isinstance(store, SqlStore):
            return []
        leases, beat = RunLeases(store), time.monotonic()
        held = leases.runs()
        if self._seeing_since is None or beat - self._looked > _BLIND:
            self._seeing_since = beat
        self._looked = beat
        sees = not patient or beat - self._seeing_since >= _SETTLE
        done = []
        for lease in held:
            try:
                if self._is_over(lease, now, sees) and (mine := leases.take_over(lease, now)) is not None:
                    self._close(lease, now)
                    leases.drop(mine)
                    done.append(lease.name)
            except TaskCenterError as error:
                _LOG.warning("run %s is not rescued yet: %s", lease.name, error.message.splitlines()[0])
        leases.forget_silent(now - _FORGET)
        return done

    def _is_over(self, lease: Lease, now: datetime, sees: bool) -> bool:
        """Whether nobody works on the run any more; ends what is left of it on this machine."""
        if lease.taken:
            return lease.until <= now
        silent = lease.until <= now and sees
        if lease.dead and not silent:
            return not processes_of(lease.name, lease.pid)  # its warm process may be ending it in order
        if silent and lease.here:
            left = end_processes(lambda: processes_of(lease.name, lease.pid), grace=0)
            if left:
                _LOG.error("run %s: its processes %s cannot be ended", lease.name, left)
                return False
        return silent

    def _close(self, lease: Lease, now: datetime) -> None:
        known = self.center.gateway.find_run(lease.name)
        state = known["state_type"] if known else None
        if state == "PENDING":  # it never began: it waits again
            self.center.gateway.set_run_state(lease.name, "SCHEDULED", message="its worker was lost before it began")
            _LOG.info("run %s goes back to the queue", lease.name)
            return
        store = self.center.store
        run = store.find_run(lease.name)
        text = _why(lease)
        if state == "CANCELLING":
            self._tell(lease.name, "CANCELLED", f"it was asked to be cancelled, and {text}")
        elif state in ("RUNNING", "PAUSED"):
            if run is not None and run.status not in TERMINAL_RUN:
                phase = RunPhase.CRASHED if lease.left else RunPhase.LOST
                close_run(store, run, RunStatus.FAILED, text, now, _entry(run, text, now), phase)
            self._tell(lease.name, "CRASHED", text)
            _LOG.warning("run %s is lost: %s", lease.name, text)
        if run is not None:
            reconcile_run(store, self.center.gateway, run.id, now)

    def _tell(self, run_id: str, kind: str, message: str) -> None:
        try:
            self.center.gateway.set_run_state(run_id, kind, message=message)
        except (NotFound, Refused) as error:
            _LOG.warning("run %s: Prefect does not take its end: %s", run_id, error.message)


def _why(lease: Lease) -> str:
    if lease.left:
        return "its process ended without a word"
    if lease.taken:
        return "its worker is gone"
    if lease.dead:
        return f"its worker {lease.holder} is gone"
    return f"nothing was heard of its worker {lease.holder} for {LEASE.total_seconds():g} s"


def _entry(run: Run, text: str, now: datetime) -> AuditEntry:
    return AuditEntry(
        event_type="run_lost", task_id=run.task_id, run_id=run.id, object=f"run {run.id}", result="failed",
        message=text, created_at=now,
    )  # fmt: skip
