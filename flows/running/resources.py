"""Holds a run with all that it starts to the CPU time and the memory that its task allows. (spec 5.7)

The kernel's own limits are of one process each; here the whole tree counts. What the process had used before the work
began, Prefect and its modules, is not the work's.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import psutil

from taskcenter.models import ResourceLimits
from taskcenter.resource_limits import exceeded

__all__ = ["Usage", "watch_resources"]

_LOOK_SECONDS: Final = 0.3


class Usage:
    """What a run has used since this was made."""

    def __init__(self, others: Callable[[], Iterable[psutil.Process]]) -> None:
        self._others = others
        self._own = psutil.Process()
        self._memory = self._own.memory_info().rss
        self._cpu = self._own_cpu()
        self._looking = 0.0
        """What looking has cost: it is not the work's, and over a long run it is more than a small limit."""

    def now(self) -> tuple[float, int]:
        """CPU seconds, and bytes of memory."""
        began = time.thread_time()
        cpu, memory = self._all()
        cpu -= self._looking  # of the looks before: what this one costs was not read yet
        self._looking += time.thread_time() - began
        return max(cpu, 0.0), max(memory, 0)

    def _all(self) -> tuple[float, int]:
        cpu, memory = self._own_cpu() - self._cpu, self._own.memory_info().rss - self._memory
        for process in self._others():
            with contextlib.suppress(psutil.Error):  # it has ended; its time is with whoever waited for it
                times = process.cpu_times()
                cpu += times.user + times.system
                cpu += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
                memory += process.memory_info().rss
        return cpu, memory

    @staticmethod
    def _own_cpu() -> float:
        """Also of the processes that it has waited for."""
        times = os.times()
        return time.process_time() + times.children_user + times.children_system


@contextlib.contextmanager
def watch_resources(
    limits: ResourceLimits, others: Callable[[], Iterable[psutil.Process]], end: Callable[[str], None]
) -> Iterator[None]:
    """While this lasts, ``end`` is called, once, with the sentence of the first limit that the run goes over."""
    if limits.cpu_seconds is None and limits.memory_mb is None:
        yield
        return
    usage, done = Usage(others), threading.Event()

    def look() -> None:
        while not done.wait(_LOOK_SECONDS):
            cpu, memory = usage.now()
            text = exceeded(limits, cpu_seconds=cpu, memory=memory)
            if text is not None and not done.is_set():
                end(text)
                return

    threading.Thread(target=look, name="resources", daemon=True).start()
    try:
        yield
    finally:
        done.set()
