"""The Task Center service: the API on one loopback port, the scheduler, the reconciler, spooled records."""

from __future__ import annotations

import logging
import os
import threading
import time

import uvicorn

from taskcenter.clock import utc_now
from taskcenter.errors import TaskCenterError
from taskcenter.settings import Settings
from taskcenter_adapter.orphans import close_orphans
from taskcenter_adapter.processes import require_port
from taskcenter_adapter.reconcile import reconcile
from taskcenter_adapter.recorder import replay_spool
from taskcenter_adapter.runtime import spool_folder

from .api.app import make_app
from .keeping import Keeper
from .scheduler.leader import Scheduler
from .services.center import Center
from .services.enforcing import pause_after_failures
from .services.rescuing import Rescuer

__all__ = ["serve"]

_LOG = logging.getLogger("taskcenter.service")
_EVERY = 10.0
"""Seconds between two passes of the reconciler."""
_LOOK = 3.0
"""Seconds between two looks for runs whose worker is gone."""


class _Housekeeper(threading.Thread):
    """Replays spooled records and reconciles with Prefect, on handles of its own."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="housekeeper", daemon=True)
        self._settings = settings
        self._stopping = threading.Event()

    def run(self) -> None:
        with Center(self._settings) as center:
            rescuer = Rescuer(center)
            at = 0.0
            while not self._stopping.is_set():
                try:
                    for run_id in rescuer.look(utc_now()):
                        _LOG.info("run %s: its worker is gone", run_id)
                    if time.monotonic() < at:
                        self._stopping.wait(_LOOK)
                        continue
                    at = time.monotonic() + _EVERY
                    replayed = replay_spool(center.store, spool_folder(self._settings.home))
                    if replayed:
                        _LOG.info("%d spooled records were written", replayed)
                    for run_id in close_orphans(self._settings.home, center.gateway):
                        _LOG.info("run %s: its process is gone, Prefect was told", run_id)
                    for task in pause_after_failures(center, utc_now()):
                        _LOG.warning("task %s is paused: maxFailures", task.slug)
                    report = reconcile(center.store, center.gateway, utc_now())
                    for difference in report.differences:
                        if difference.repaired:
                            _LOG.info("reconciled: %s", difference)
                except TaskCenterError as error:
                    _LOG.warning("%s", error.message.splitlines()[0])
                except Exception:  # a pass that fails must not end the passes after it
                    _LOG.exception("a pass of the reconciler failed")
                self._stopping.wait(_LOOK)

    def stop(self) -> None:
        self._stopping.set()
        self.join(15)


def serve(settings: Settings) -> int:
    """Serve on 127.0.0.1 until SIGTERM or Ctrl-C; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    require_port(settings.port, "the Task Center service", "--port or TASKCENTER_PORT")
    housekeeper = _Housekeeper(settings)
    scheduler = Scheduler(settings)
    keeper = Keeper(settings, lambda: scheduler.leads, scheduler.holder)
    with Center(settings) as center:
        hosts = ("127.0.0.1", "localhost", "[::1]")
        app = make_app(center, allowed_hosts=hosts)
        server = uvicorn.Server(
            uvicorn.Config(
                app, host="127.0.0.1", port=settings.port, log_level="warning", access_log=False, server_header=False
            )
        )
        housekeeper.start()
        scheduler.start()
        keeper.start()
        try:
            server.run()
        finally:
            scheduler.stop()
            keeper.stop()
            housekeeper.stop()
    return 0


if __name__ == "__main__":
    os.umask(0o077)
    raise SystemExit(serve(Settings.from_env()))
