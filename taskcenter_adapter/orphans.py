"""Runs whose process is gone while Prefect still believes in them. (spec 5.3)

When a worker and the process of its run die together, nobody reports the end and the run stays RUNNING for ever. So
each run leaves a note of its process in ``<home>/run/processes`` while it lasts; a note whose process is gone is a run
that must be closed. Only runs of this machine leave notes here.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from taskcenter.errors import Refused

from .gateway import Gateway

__all__ = ["close_orphans", "present"]

_OPEN = ("RUNNING", "CANCELLING", "PENDING")
_MESSAGE = "its process ended without a word, and nobody is left to report on it"


def _folder(home: Path) -> Path:
    return home / "run" / "processes"


@contextlib.contextmanager
def present(home: Path, run_id: str) -> Iterator[None]:
    """While this lasts, the note says that this process works on the run."""
    folder = _folder(home)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    note = folder / run_id
    note.write_text(json.dumps([os.getpid(), psutil.Process().create_time()]), encoding="ascii")
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def _lives(note: Path) -> bool:
    try:
        pid, created = json.loads(note.read_text(encoding="ascii"))
        process = psutil.Process(pid)
        return bool(process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.AccessDenied:
        return True
    except (OSError, ValueError, psutil.Error):
        return False


def close_orphans(home: Path, gateway: Gateway) -> list[str]:
    """Set the runs of dead processes Crashed in Prefect; gives their ids. The reconciler then closes our rows."""
    closed: list[str] = []
    for note in sorted(_folder(home).glob("*")):
        if _lives(note):
            continue
        run = gateway.find_run(note.name)
        if run is not None and run["state_type"] in _OPEN:
            with contextlib.suppress(Refused):
                gateway.set_run_state(run["id"], "CRASHED", message=_MESSAGE)
                closed.append(run["id"])
        note.unlink(missing_ok=True)
    return closed
