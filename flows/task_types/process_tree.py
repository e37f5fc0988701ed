"""End a child process with everything it started, also what has left its session or lost its parent.

Children are found three ways: by parentage, by session, and by a cookie in the environment that every
descendant inherits: a double fork breaks the first two, and almost nothing clears its environment.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

__all__ = ["COOKIE", "end_tree", "tree_of"]

COOKIE = "TASKCENTER_STEP_COOKIE"
_CHECK_SECONDS = 0.05
_KILL_SECONDS = 2.0


def tree_of(pid: int, cookie: str) -> list[psutil.Process]:
    """Every living process that descends from ``pid`` or carries ``cookie``; zombies are not alive."""
    found: dict[int, psutil.Process] = {}
    try:
        root = psutil.Process(pid)
        found = {p.pid: p for p in [root, *root.children(recursive=True)]}
    except psutil.NoSuchProcess:
        pass
    for process in psutil.process_iter():
        if process.pid not in found and process.pid != os.getpid() and _belongs(process, pid, cookie):
            found[process.pid] = process
    return [process for process in found.values() if _alive(process)]


def end_tree(process: subprocess.Popen[bytes], cookie: str, grace: float) -> list[int]:
    """TERM to all, up to ``grace`` seconds, KILL to what is left, then look. The pids that are still there."""
    deadline = time.monotonic() + grace
    asked: set[int] = set()
    while (living := tree_of(process.pid, cookie)) and time.monotonic() < deadline:
        _signal((p for p in living if p.pid not in asked), terminate=True)
        asked |= {p.pid for p in living}
        time.sleep(_CHECK_SECONDS)
        process.poll()
    deadline = time.monotonic() + _KILL_SECONDS
    while (living := tree_of(process.pid, cookie)) and time.monotonic() < deadline:
        _signal(living, terminate=False)
        process.poll()
        time.sleep(_CHECK_SECONDS)
    process.poll()
    return [p.pid for p in living]


def _signal(processes: Iterable[psutil.Process], *, terminate: bool) -> None:
    for process in processes:
        with suppress(psutil.Error):  # gone in between, or not ours: the final look tells
            process.terminate() if terminate else process.kill()


def _belongs(process: psutil.Process, session: int, cookie: str) -> bool:
    try:
        return os.getsid(process.pid) == session or process.environ().get(COOKIE) == cookie
    except (psutil.Error, OSError):
        return False


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
