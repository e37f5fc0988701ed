"""Runs whose process is gone while Prefect still believes in them. (spec 5.3)

When a worker and the process of its run die together, nobody reports the end and the run stays RUNNING for ever. So
each run leaves a note of its process in ``<home>/run/processes``; a note whose process is gone is a run that must be
closed, unless the worker that started it still lives: that one sees the end itself, within a second. Only runs of
this machine leave notes here.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from taskcenter.errors import Refused

from .gateway import Gateway

__all__ = ["MARK", "Note", "close_orphans", "hand_over", "held_file", "present", "process_started", "worker_lives"]

MARK = "TASKCENTER_RUN_PROCESS"
"""Variable of every process of a run that our worker started: ``<worker's pid>@<worker's start>/<run id>``."""
_OPEN = ("RUNNING", "CANCELLING", "PENDING")
_MESSAGE = "its process ended without a word, and nobody is left to report on it"
_CANCELLED = "it was asked to be cancelled, and its process is gone"


def _folder(home: Path) -> Path:
    return home / "run" / "processes"


def held_file(home: Path, run_id: str) -> Path:
    """There while a person holds the run; made and removed by whoever executes it."""
    return home / "run" / "held" / run_id


@contextlib.contextmanager
def present(home: Path, run_id: str) -> Iterator[None]:
    """While this lasts, the note says that this process works on the run.

    It stays when the body is broken off (a signal, a cancellation): then nobody has told the run's end yet.
    """
    folder = _folder(home)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    note = folder / run_id
    facts = [os.getpid(), psutil.Process().create_time(), os.environ.get(MARK, "")]
    note.write_text(json.dumps(facts), encoding="ascii")
    try:
        yield
    except Exception:
        note.unlink(missing_ok=True)
        raise
    else:
        note.unlink(missing_ok=True)


def hand_over(home: Path, run_id: str) -> None:
    """The worker is done with the run; whatever it could not tell Prefect is for ``close_orphans`` now."""
    file = _folder(home) / run_id
    if file.exists():
        note = Note.read(file)
        file.write_text(json.dumps([note.pid, note.created]), encoding="ascii")


@dataclass(frozen=True)
class Note:
    """What a run wrote down about its process."""

    run_id: str
    pid: int = 0
    created: float = 0.0
    mark: str = ""

    @classmethod
    def read(cls, file: Path) -> Note:
        """A damaged note tells of a process that nobody can find."""
        try:
            pid, created, *more = json.loads(file.read_text(encoding="ascii"))
            return cls(file.name, int(pid), float(created), str(more[0]) if more else "")
        except (OSError, ValueError, TypeError):
            return cls(file.name)

    @property
    def lives(self) -> bool:
        if not self.pid:
            return False
        try:
            process = psutil.Process(self.pid)
            return bool(process.create_time() == self.created and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.AccessDenied:
            return True
        except psutil.Error:
            return False

    @property
    def watched(self) -> bool:
        """Whether a worker of ours lives that sees the run's end. A composite inside the run has only us."""
        worker, _, run_id = self.mark.partition("/")
        return run_id == self.run_id and worker_lives(worker)


def process_started(pid: int) -> str:
    """When a process began, by a clock that nobody sets: ticks since the machine started, where they can be read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except FileNotFoundError:
        return f"{psutil.Process(pid).create_time():.0f}"


def worker_lives(worker: str) -> bool:
    """Whether the process ``<pid>@<start>`` runs; a pid alone comes back after a while."""
    pid, _, started = worker.partition("@")
    try:
        return process_started(int(pid)) == started and psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, psutil.Error):
        return False


def close_orphans(home: Path, gateway: Gateway) -> list[str]:
    """Close the runs of dead processes in Prefect; gives their ids. The reconciler then closes our rows."""
    closed: list[str] = []
    for file in sorted(_folder(home).glob("*")):
        note = Note.read(file)
        if note.lives or note.watched:
            continue
        run = gateway.find_run(note.run_id)
        if run is not None and run["state_type"] in _OPEN:
            asked = run["state_type"] == "CANCELLING"
            kind, message = ("CANCELLED", _CANCELLED) if asked else ("CRASHED", _MESSAGE)
            with contextlib.suppress(Refused):
                gateway.set_run_state(run["id"], kind, message=message)
                closed.append(run["id"])
        file.unlink(missing_ok=True)
    return closed
