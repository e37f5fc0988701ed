"""A run that a person holds, and how long a run has really worked. (spec 5.5, 5.7)

Whoever executes the run makes the file ``<home>/run/held/<run id>`` while it is held, and may stop its processes
altogether. No new step starts then, checkpoints wait, and no time-out counts: neither while the file is there nor
while this process stood still.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from taskcenter_adapter.orphans import held_file

__all__ = ["Hold"]

T = TypeVar("T")
_TICK = 0.25
_STOOD_STILL = 1.5
"""A longer pause between two ticks is no busy machine: this process was stopped."""
_END_SECONDS = 1.0


class Hold:
    """Knows whether one run is held, and for how long it was."""

    def __init__(self, home: Path, run_id: str) -> None:
        self._file = held_file(home, run_id)
        self._seconds = 0.0
        self._over = threading.Event()
        threading.Thread(target=self._count, name="hold", daemon=True).start()

    def close(self) -> None:
        self._over.set()

    @property
    def held(self) -> bool:
        return self._file.exists()

    def seconds(self) -> float:
        """How long it was held so far."""
        return self._seconds

    def _count(self) -> None:
        last = time.monotonic()
        while not self._over.wait(_TICK):
            now = time.monotonic()
            if now - last > _STOOD_STILL or self.held:
                self._seconds += now - last
            last = now

    async def may_start(self) -> None:
        """Returns when a new step may start."""
        while self.held:
            await asyncio.sleep(_TICK)

    async def within(self, limit: float | None, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``; raises TimeoutError, with ``work`` cancelled, after ``limit`` seconds not held."""
        if not limit:
            return await work
        task = asyncio.ensure_future(work)
        begin = time.monotonic() - self._seconds
        try:
            while (left := limit - (time.monotonic() - begin - self._seconds)) > 0:
                done, _ = await asyncio.wait({task}, timeout=left)
                if done:
                    return task.result()
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task}, timeout=_END_SECONDS)
            raise
        task.cancel("timed_out")
        await asyncio.wait({task}, timeout=_END_SECONDS)
        raise TimeoutError(f"it ran longer than {limit:g} s")
