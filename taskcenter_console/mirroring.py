"""Makes the run rows follow Prefect while the service runs: a pass every ten seconds, and at once what events tell.

Two threads. The housekeeper looks after everything and needs no events; the listener only makes it look sooner.
(spec 6.2)
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from taskcenter.clock import utc_now
from taskcenter.errors import ServerAway, TaskCenterError
from taskcenter.models import Run
from taskcenter.settings import Settings
from taskcenter.status import RunStatus
from taskcenter_adapter.differences import Report
from taskcenter_adapter.mapping import MANAGED, map_run
from taskcenter_adapter.orphans import close_orphans
from taskcenter_adapter.prefect_events import RunChanged, RunEvents
from taskcenter_adapter.reconcile import reconcile, reconcile_runs
from taskcenter_adapter.run_leases import RunLeases
from taskcenter_adapter.runtime import spool_folder
from taskcenter_adapter.spool import replay_spool
from taskcenter_adapter.store import sql_store

from .services.center import Center
from .services.enforcing import pause_after_failures
from .services.rescuing import Rescuer

__all__ = ["Housekeeper", "Listener"]

_LOG = logging.getLogger("taskcenter.service")
_EVERY = 10.0
"""Seconds between two passes of the reconciler."""
_WIDE = 300.0
"""Seconds between two passes that look as far back as the checkpoint says; those between them look at what is new. With
many runs a wide pass keeps the Prefect server from other work for seconds."""
_BACK = timedelta(minutes=1)
"""How far the others look back behind the one before: clocks differ, and a transaction takes its time."""
_LOOK = 3.0
"""Seconds between two looks for runs whose worker is gone."""
_GATHER = 0.03
"""Seconds in which events are gathered: a run's states come in a row, and one look shows the last of them."""
_AT_ONCE = 200
_AGAIN = 2.0
"""Seconds after which a broken subscription is tried again."""
_FORGET = 30.0
"""Seconds for which a deployment that is not ours is remembered as such."""


class Housekeeper(threading.Thread):
    """Replays spooled records and reconciles with Prefect, on handles of its own."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="housekeeper", daemon=True)
        self._settings = settings
        self._stopping = False
        self._woken = threading.Event()
        self._wide_at = 0.0
        self._last: datetime | None = None
        """When the pass before began; None after one that did not come to its end."""

    def run(self) -> None:
        with Center(self._settings) as center:
            rescuer = Rescuer(center)
            at = 0.0
            while not self._stopping:
                pause = _LOOK
                try:
                    for run_id in rescuer.look(utc_now()):
                        _LOG.info("run %s: its worker is gone", run_id)
                    if self._woken.is_set() or time.monotonic() >= at:
                        if self._woken.is_set():
                            self._last = None
                        self._woken.clear()
                        at = time.monotonic() + _EVERY
                        self._pass(center)
                    pause = min(_LOOK, at - time.monotonic())
                except TaskCenterError as error:
                    self._woken.clear()
                    _LOG.warning("%s", error.message.splitlines()[0])
                except Exception:  # a pass that fails must not end the passes after it
                    self._woken.clear()
                    _LOG.exception("a pass of the reconciler failed")
                self._woken.wait(max(0.0, pause))

    def _pass(self, center: Center) -> None:
        replayed = replay_spool(center.store, spool_folder(self._settings.home))
        if replayed:
            _LOG.info("%d spooled records were written", replayed)
        for run_id in close_orphans(self._settings.home, center.gateway):
            _LOG.info("run %s: its process is gone, Prefect was told", run_id)
        for task in pause_after_failures(center, utc_now()):
            _LOG.warning("task %s is paused: maxFailures", task.slug)
        now, beat, last = utc_now(), time.monotonic(), self._last
        self._last = None
        if last is None or beat >= self._wide_at:
            self._wide_at = beat + _WIDE
            last = None
        _say(reconcile(center.store, center.gateway, now, since=last - _BACK if last else None))
        self._last = now

    def wake(self) -> None:
        """Make a wide pass now."""
        self._woken.set()

    def stop(self) -> None:
        self._stopping = True
        self._woken.set()
        self.join(15)


def _say(report: Report) -> None:
    for difference in report.repaired:
        _LOG.info("reconciled: %s", difference)


def _is_told(run: Run | None, change: RunChanged) -> bool:
    """Whether the row says already what the event tells, as that of a run that a worker of ours has does: the server
    has less to do when it is not asked. What an old event hides, a pass finds."""
    if run is None or not change.state_type:
        return False
    status, phase = map_run(change.state_type, change.state_name)
    return run.status is status and (run.phase is phase or status not in (RunStatus.QUEUED, RunStatus.RUNNING))


class Listener(threading.Thread):
    """Looks at the runs that Prefect's events name. After every gap it asks the housekeeper for a whole pass."""

    def __init__(self, settings: Settings, housekeeper: Housekeeper) -> None:
        super().__init__(name="listener", daemon=True)
        self._settings, self._housekeeper = settings, housekeeper
        self._stopping = threading.Event()
        self._events: RunEvents | None = None
        self._heard: dict[str, RunChanged] = {}
        self._some = threading.Condition()
        self._deployments: Mapping[str, Mapping[str, Any]] = {}
        self._foreign: dict[str, float] = {}
        self._looker = threading.Thread(target=self._look, name="listener's looks", daemon=True)

    # hearing: this thread takes what comes and never waits for a database ---------------------------------

    def run(self) -> None:
        self._looker.start()
        said = False
        with Center(self._settings) as center:
            while not self._stopping.is_set():
                try:
                    self._events = RunEvents(center.gateway.api_url)
                    said = False
                    self._housekeeper.wake()  # nobody knows what happened before
                    for change in self._events:
                        self._hear(change)
                except TaskCenterError as error:
                    if not said:
                        _LOG.warning("%s; looking every %g s goes on", error.message, _EVERY)
                    said = True
                except Exception:
                    _LOG.exception("listening to Prefect's events failed")
                self._stopping.wait(_AGAIN)

    def _hear(self, change: RunChanged) -> None:
        with self._some:
            known = self._heard.get(change.run_id)
            if known is None or not known.is_end:  # whatever comes late, an end is looked at
                self._heard[change.run_id] = change
            self._some.notify()

    # looking ---------------------------------------------------------------------------------------------

    def _look(self) -> None:
        with Center(self._settings) as center:
            while True:
                with self._some:
                    while not self._heard and not self._stopping.is_set():
                        self._some.wait()
                if self._stopping.wait(_GATHER):
                    return
                with self._some:
                    some = dict(list(self._heard.items())[:_AT_ONCE])
                    for run_id in some:
                        del self._heard[run_id]
                try:
                    _say(self._look_at(center, some.values()))
                except ServerAway as error:
                    _LOG.debug("left to the next pass: %s", error.message)
                except TaskCenterError as error:
                    _LOG.warning("left to the next pass: %s", error.message.splitlines()[0])
                except Exception:
                    _LOG.exception("looking at runs that events named failed")

    def _look_at(self, center: Center, heard: Iterable[RunChanged]) -> Report:
        ours = [change for change in heard if self._is_ours(center, change.deployment_id)]
        if not ours:
            return Report()
        replay_spool(center.store, spool_folder(self._settings.home))  # what a run said itself goes first
        rows = center.store.find_runs([change.run_id for change in ours])
        news = {change.run_id: change for change in ours if not _is_told(rows.get(change.run_id), change)}
        store = sql_store(center.store)
        under_way = RunLeases(store).held(list(news)) if store is not None and news else set()
        asked = [run_id for run_id, change in news.items() if run_id not in under_way or change.is_end]
        if not asked:
            return Report()
        return reconcile_runs(center.store, center.gateway, asked, self._deployments, utc_now(), under_way)

    def _is_ours(self, center: Center, deployment_id: str) -> bool:
        """Other flows may live on the same server. A deployment that is new here is asked for, now and then again."""
        if deployment_id in self._deployments:
            return True
        now = time.monotonic()
        if not deployment_id or now < self._foreign.get(deployment_id, 0.0):
            return False
        self._deployments = {d["id"]: d for d in center.gateway.deployments_with_flow(MANAGED)}
        self._foreign = {key: until for key, until in self._foreign.items() if now < until}
        if deployment_id not in self._deployments:
            self._foreign[deployment_id] = now + _FORGET
        return deployment_id in self._deployments

    def stop(self) -> None:
        self._stopping.set()
        with self._some:
            self._some.notify_all()
        if self._events is not None:
            self._events.close()
        self.join(5)
        self._looker.join(5)
