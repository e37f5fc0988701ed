"""The processes of one run, found and ended. (spec 5.4)

A run is the process the worker forked and everything below it: its descendants, the members of its session, and
whatever carries its mark in the environment it was started with, which a double fork and a new session keep.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable

import psutil

from taskcenter_adapter.orphans import MARK, process_started, worker_lives

__all__ = [
    "GRACE",
    "MARK",
    "continue_processes",
    "end_processes",
    "left_behind",
    "mark_of",
    "own_identity",
    "processes_of",
    "stop_processes",
]

GRACE = 10.0
"""Seconds between TERM and KILL."""
_ASK_SECONDS = 0.5
"""For what is asked only after the grace."""
_KILL_SECONDS = 5.0
_LOOK_SECONDS = 0.2


def own_identity() -> str:
    """Says which worker: a pid alone comes back after a while."""
    return f"{os.getpid()}@{process_started(os.getpid())}"


def mark_of(worker: str, run_id: str) -> str:
    return f"{worker}/{run_id}"


def processes_of(run_id: str, pid: int | None) -> list[psutil.Process]:
    """Every living process of the run; ``pid`` is the forked one while it lives. Zombies are not alive."""
    found: dict[int, psutil.Process] = {}
    if pid is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            found = {process.pid: process for process in (root, *root.children(recursive=True))}
    for process in psutil.process_iter():
        if process.pid not in found and process.pid != os.getpid() and _belongs(process, run_id, pid):
            found[process.pid] = process
    return [process for process in found.values() if _alive(process)]


def _belongs(process: psutil.Process, run_id: str, session: int | None) -> bool:
    try:
        if session is not None and os.getsid(process.pid) == session:
            return True
        environment = process.environ()
    except (psutil.Error, OSError):  # gone meanwhile, or somebody else's
        return False
    return environment.get(MARK, "").endswith(f"/{run_id}") or environment.get("TASKCENTER_RUN_ID") == run_id


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def left_behind() -> list[psutil.Process]:
    """Processes of runs whose worker is gone: it was killed together with everything that could end them."""
    found = []
    for process in psutil.process_iter():
        try:
            worker, _, _ = process.environ().get(MARK, "").partition("/")
            if worker and not worker_lives(worker) and _alive(process):
                found.append(process)
        except psutil.Error:
            continue
    return found


def end_processes(
    find: Callable[[], list[psutil.Process]],
    grace: float = GRACE,
    pause: Callable[[float], None] = time.sleep,
    first: Callable[[], int | None] = lambda: None,
) -> list[int]:
    """TERM to all that ``find`` finds, up to ``grace`` seconds, KILL to what is left, then look again.

    While ``first`` names a living process, only that one is asked: a run ends its own work in order (a statement on
    its server, a child of its own), and an end from outside would look to it like the work's failure. Gives the pids
    that are still there: normally none. Blocks, so a coroutine calls it in a thread.
    """
    asked: set[int] = set()
    end = time.monotonic() + grace
    while (living := find()) and time.monotonic() < end:
        root = [process for process in living if process.pid == first()]
        _ask(root or living, asked)
        pause(_LOOK_SECONDS)
    if grace and any(process.pid not in asked for process in living):  # the first one did not end
        _ask(living, asked)
        end = time.monotonic() + _ASK_SECONDS
        while find() and time.monotonic() < end:
            pause(_LOOK_SECONDS / 4)
    end = time.monotonic() + _KILL_SECONDS
    while (living := find()) and time.monotonic() < end:
        _send(living, kill=True)
        pause(_LOOK_SECONDS / 4)
    return [process.pid for process in living]


def stop_processes(run_id: str, pid: int | None, with_first: bool, known: set[int]) -> set[int]:
    """Make the processes of a run stand still; gives the pids that are new to ``known``. ``pid`` only if asked to."""
    new = set()
    for process in processes_of(run_id, pid):
        if process.pid not in known and (with_first or process.pid != pid):
            with contextlib.suppress(psutil.Error):
                process.suspend()
                new.add(process.pid)
    return new


def continue_processes(run_id: str, pid: int | None) -> None:
    for process in processes_of(run_id, pid):
        with contextlib.suppress(psutil.Error):
            process.resume()


def _ask(processes: Iterable[psutil.Process], asked: set[int]) -> None:
    """TERM, once to each."""
    new = [process for process in processes if process.pid not in asked]
    _send(new, kill=False)
    asked |= {process.pid for process in new}


def _send(processes: Iterable[psutil.Process], *, kill: bool) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):  # gone in between, or not ours: the next look tells
            process.kill() if kill else process.terminate()
            if process.status() == psutil.STATUS_STOPPED:
                process.resume()  # a process that stands still hears no TERM
