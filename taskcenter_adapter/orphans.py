"""Runs whose process is gone while Prefect still believes in them. (spec 5.3)

Prefect's process worker writes ``host:pid`` into a run that it starts. When worker and process die together, nobody
reports the end and the run stays RUNNING for ever. Only processes of this machine are judged.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import psutil

from taskcenter.errors import Refused

from .gateway import Gateway

__all__ = ["close_orphans", "is_orphan"]

_TAG = "taskcenter"
_MESSAGE = "its process ended without a word, and nobody is left to report on it"


def is_orphan(run: Mapping[str, Any], host: str) -> bool:
    """Whether a running flow run was started on ``host`` by a process that is gone or is another one by now."""
    where, _, pid = str(run.get("infrastructure_pid") or "").rpartition(":")
    if where != host or not pid.isdigit():
        return False
    try:
        process = psutil.Process(int(pid))
        return run["id"] not in process.environ().values() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.AccessDenied:
        return False
    except psutil.Error:
        return True


def close_orphans(gateway: Gateway) -> list[str]:
    """Set such runs Crashed in Prefect; gives their ids. The reconciler then closes our rows."""
    host = socket.gethostname()
    closed: list[str] = []
    for run in gateway.open_runs(_TAG):
        if is_orphan(run, host):
            try:
                gateway.set_run_state(run["id"], "CRASHED", message=_MESSAGE)
            except Refused:
                continue
            closed.append(run["id"])
    return closed
