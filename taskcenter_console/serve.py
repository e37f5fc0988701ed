"""The Task Center service: the API on one loopback port, the scheduler, the reconciler, spooled records."""

from __future__ import annotations

import logging
import os

import uvicorn

from taskcenter.redaction import read_own_patterns
from taskcenter.settings import Settings
from taskcenter_adapter.processes import require_port

from .api.app import make_app
from .keeping import Keeper
from .mirroring import Housekeeper, Listener
from .scheduler.leader import Scheduler
from .services.center import Center

__all__ = ["serve"]


def serve(settings: Settings) -> int:
    """Serve on 127.0.0.1 until SIGTERM or Ctrl-C; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    require_port(settings.port, "the Task Center service", "--port or TASKCENTER_PORT")
    read_own_patterns(settings.patterns_file)
    housekeeper = Housekeeper(settings)
    listener = Listener(settings, housekeeper)
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
        listener.start()
        scheduler.start()
        keeper.start()
        try:
            server.run()
        finally:
            scheduler.stop()
            keeper.stop()
            listener.stop()
            housekeeper.stop()
    return 0


if __name__ == "__main__":
    os.umask(0o077)
    raise SystemExit(serve(Settings.from_env()))
