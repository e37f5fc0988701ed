"""What a worker measures of its processes, for whoever looks: age, CPU time, memory and how much it has grown. (5.2)"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any, Final

import psutil

__all__ = ["ProcessBook"]

_MEGABYTE: Final = 1 << 20
_REMEMBERED: Final = 500
"""Processes after which those that are gone are forgotten."""


class ProcessBook:
    """Remembers the memory in which each process was seen first."""

    def __init__(self) -> None:
        self._first: dict[tuple[int, float], float] = {}

    def measure(self, pid: int | None) -> dict[str, Any]:
        """``{pid, since, cpuSeconds, memoryMb, grownMb}``; only the pid of a process that is gone."""
        found: dict[str, Any] = {"pid": pid}
        if pid is None:
            return found
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            with process.oneshot():
                born, times = process.create_time(), process.cpu_times()
                memory = process.memory_info().rss / _MEGABYTE
            if len(self._first) > _REMEMBERED:
                self._first = {key: value for key, value in self._first.items() if psutil.pid_exists(key[0])}
            first = self._first.setdefault((pid, born), memory)
            found |= {
                "since": datetime.fromtimestamp(born, UTC).isoformat(),
                "cpuSeconds": round(times.user + times.system, 2),
                "memoryMb": round(memory, 1),
                "grownMb": round(memory - first, 1),
            }
        return found
