"""The worker's side of the warm process: start it, ask it for runs, notice its end. (spec 5.2)"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

from .worker_tree import GRACE

__all__ = ["LOST", "Started", "WarmPool", "WarmProcessAway"]

LOST = -255
"""Status of a run whose warm process died, so that nobody knows how the run ended."""
_START_SECONDS = 60.0


class WarmProcessAway(RuntimeError):
    """The warm process did not start, or ended before it could start the run."""


@dataclass
class Started:
    """A run's process. ``ended`` gives its exit code (negative: the signal), or LOST."""

    pid: int
    ended: asyncio.Future[int]


@dataclass
class WarmPool:
    """One warm process, started again when it dies. Used from one event loop."""

    environment: dict[str, str]
    facts: dict[str, Any] = field(default_factory=dict)
    """What it said when it was ready: seconds, threads, broken modules."""
    pid: int | None = None
    _process: subprocess.Popen[bytes] | None = None
    _writer: asyncio.StreamWriter | None = None
    _reader: asyncio.Task[None] | None = None
    _starting: dict[str, asyncio.Future[Started]] = field(default_factory=dict)
    _running: dict[str, Started] = field(default_factory=dict)
    _ready: asyncio.Future[None] | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _closed: bool = False

    async def start(self) -> None:
        """Have a warm process that is ready; raises WarmProcessAway when it does not come up."""
        async with self._lock:
            if self._writer is None and not self._closed:
                await self._start()
            ready = self._ready
        if ready is None:
            raise WarmProcessAway("the worker is stopping")
        try:
            await asyncio.wait_for(asyncio.shield(ready), _START_SECONDS)
        except TimeoutError:
            raise WarmProcessAway(f"the warm process was not ready after {_START_SECONDS:g} s") from None

    async def _start(self) -> None:
        ours, its = socket.socketpair()
        # -P: a folder of the user's named like one of our packages must not come first
        argv = [sys.executable, "-P", "-m", "deployments.warm", str(its.fileno())]
        self._process = subprocess.Popen(
            argv, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL, env=self.environment, start_new_session=True
        )
        its.close()
        self.pid = self._process.pid
        self._ready = asyncio.get_running_loop().create_future()
        self._ready.add_done_callback(lambda done: done.cancelled() or done.exception())  # it may have no waiter
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=1 << 24)
        self._reader = asyncio.create_task(self._listen(reader), name="warm process")

    async def launch(self, request: dict[str, Any]) -> Started:
        """Ask for a run; gives its process as soon as it is forked."""
        await self.start()
        if self._writer is None:
            raise WarmProcessAway("the warm process ended")
        answer: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        self._starting[request["id"]] = answer
        self._writer.write(json.dumps(request).encode() + b"\n")
        return await answer

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                self._hear(json.loads(line))
        except (ConnectionError, ValueError):
            pass  # a line cut short: it was killed while it wrote
        finally:
            self._lost()

    def _hear(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self.facts = message["ready"]
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
        elif "started" in message:
            run = Started(message["pid"], asyncio.get_running_loop().create_future())
            self._running[message["started"]] = run
            answer = self._starting.pop(message["started"])
            if not answer.done():
                answer.set_result(run)
        elif "refused" in message:
            answer = self._starting.pop(message["refused"])
            if not answer.done():
                answer.set_exception(WarmProcessAway(message["why"]))
        elif "ended" in message:
            ended = self._running.pop(message["ended"]).ended
            if not ended.done():
                ended.set_result(message["status"])

    def _lost(self) -> None:
        """The socket ended: whoever waits is told."""
        if self._writer is not None:
            self._writer.close()
        self._writer, self.pid = None, None
        away = WarmProcessAway("the warm process ended")
        for waiting in (self._ready, *self._starting.values()):
            if waiting is not None and not waiting.done():
                waiting.set_exception(away)
        for run in self._running.values():
            if not run.ended.done():
                run.ended.set_result(LOST)
        self._starting.clear()
        self._running.clear()
        if self._process is not None:
            self._process.poll()

    async def wait_lost(self) -> None:
        """Returns when the warm process has ended."""
        if self._reader is not None:
            await asyncio.wait([self._reader])

    async def close(self) -> None:
        """End it; it ends the runs that are left first."""
        self._closed = True
        if self._writer is not None:
            self._writer.close()
        process = self._process
        if process is None:
            return
        try:
            await asyncio.to_thread(process.wait, GRACE + 7)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
