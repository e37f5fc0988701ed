"""What the worker writes into our tables: a cancel that came through Prefect, and the end of a run it had to end.

A run's own process writes its record. Where that was killed, the reconciler would find out within ten seconds; the
worker knows at once. Every call blocks and is made in a thread; when the tables are away, the reconciler does it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

from taskcenter.clock import utc_now
from taskcenter.errors import TaskCenterError
from taskcenter.models import AuditEntry
from taskcenter.ports import Changes
from taskcenter.settings import Settings
from taskcenter.status import TERMINAL_RUN, RunPhase
from taskcenter_adapter.orphans import hand_over, held_file
from taskcenter_adapter.reconcile import reconcile_run
from taskcenter_adapter.runtime import Runtime, spool_folder
from taskcenter_adapter.spool import replay_spool

__all__ = ["RunRecords"]


class RunRecords:
    """Handles to our tables and to Prefect, opened when first needed."""

    def __init__(self, settings: Settings, logger: logging.Logger | logging.LoggerAdapter[Any]) -> None:
        self._settings, self._logger = settings, logger
        self._runtime: Runtime | None = None
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def _open(self) -> Iterator[Runtime]:
        """One call at a time; an absent database is said in the worker's log and is nobody's error."""
        with self._lock, contextlib.suppress(TaskCenterError):
            try:
                if self._runtime is None:
                    self._runtime = Runtime.open(self._settings)
                yield self._runtime
            except TaskCenterError as error:
                self._logger.debug("the record is left to the reconciler: %s", error.message)
                raise

    def cancelling(self, run_id: str) -> None:
        """Somebody asked for a cancel; who did it in Task Center stands in the audit already."""
        with self._open() as runtime:
            run = runtime.store.find_run(run_id)
            if run is None or run.status in TERMINAL_RUN:
                return
            audit: tuple[AuditEntry, ...] = ()
            known = runtime.store.list_audit(run_id=run_id)
            if not any(entry.event_type == "run_cancel_requested" for entry in known):
                entry = AuditEntry(
                    event_type="run_cancel_requested",
                    task_id=run.task_id,
                    run_id=run.id,
                    actor="prefect",
                    channel="prefect",
                    object=f"run {run.id}",
                    message="through Prefect, which does not say by whom",
                    created_at=utc_now(),
                )
                audit = (entry,)
            runtime.store.record(Changes(runs=(run.model_copy(update={"phase": RunPhase.CANCELLING}),), audit=audit))

    def hold(self, run_id: str) -> None:
        """A person holds the run: its process looks for this file, and its row says so."""
        file = held_file(self._settings.home, run_id)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.touch(mode=0o600)
        self.settle(run_id)

    def release(self, run_id: str) -> None:
        held_file(self._settings.home, run_id).unlink(missing_ok=True)
        self.settle(run_id)

    def settle(self, run_id: str) -> None:
        """The run's row and steps as Prefect has the run now."""
        with self._open() as runtime:
            reconcile_run(runtime.store, runtime.gateway, run_id, utc_now())

    def replay(self) -> None:
        """Write what runs of this home left in the spool."""
        folder = spool_folder(self._settings.home)
        if folder.is_dir() and any(folder.glob("*.json")):
            with self._open() as runtime, contextlib.suppress(OSError):
                replay_spool(runtime.store, folder)

    def done(self, run_id: str) -> None:
        """This worker has nothing more to do with the run."""
        held_file(self._settings.home, run_id).unlink(missing_ok=True)
        hand_over(self._settings.home, run_id)

    def close(self) -> None:
        with self._lock:
            if self._runtime is not None:
                self._runtime.close()
                self._runtime = None
