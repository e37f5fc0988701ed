"""The worker's side of the warm process: start it, ask it for runs, notice its end, make it anew. (spec 5.2)"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from taskcenter.clock import utc_now

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


class _WarmProcess:
    """One of them, from its start to its end."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.pid: int | None = None
        self.born = utc_now()
        self.running: dict[str, Started] = {}
        self._starting: dict[str, asyncio.Future[Started]] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ready.add_done_callback(lambda done: done.cancelled() or done.exception())  # it may have no waiter
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def alive(self) -> bool:
        return self._writer is not None

    @property
    def idle(self) -> bool:
        """Whether it has no run, and is asked for none."""
        return self._idle.is_set()

    async def open(self, environment: dict[str, str]) -> None:
        ours, its = socket.socketpair()
        # -P: a folder of the user's named like one of our packages must not come first
        argv = [sys.executable, "-P", "-m", "deployments.warm", str(its.fileno())]
        self._process = subprocess.Popen(
            argv, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL, env=environment, start_new_session=True
        )
        its.close()
        self.pid = self._process.pid
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=1 << 24)
        self._reader = asyncio.create_task(self._listen(reader), name="warm process")

    async def ready(self) -> None:
        """Returns when it can be asked for runs; raises WarmProcessAway when it does not come up."""
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), _START_SECONDS)
        except TimeoutError:
            raise WarmProcessAway(f"the warm process was not ready after {_START_SECONDS:g} s") from None

    async def launch(self, request: dict[str, Any]) -> Started:
        if self._writer is None:
            raise WarmProcessAway("the warm process ended")
        answer: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        self._starting[request["id"]] = answer
        self._idle.clear()
        self._writer.write(json.dumps(request).encode() + b"\n")
        return await answer

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                self._hear(json.loads(line))
                if not self.running and not self._starting:
                    self._idle.set()
        except (ConnectionError, ValueError):
            pass  # a line cut short: it was killed while it wrote
        finally:
            self._lost()

    def _hear(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self.facts = message["ready"]
            if not self._ready.done():
                self._ready.set_result(None)
        elif "started" in message:
            run = Started(message["pid"], asyncio.get_running_loop().create_future())
            self.running[message["started"]] = run
            answer = self._starting.pop(message["started"])
            if not answer.done():
                answer.set_result(run)
        elif "refused" in message:
            answer = self._starting.pop(message["refused"])
            if not answer.done():
                answer.set_exception(WarmProcessAway(message["why"]))
        elif "ended" in message:
            ended = self.running.pop(message["ended"]).ended
            if not ended.done():
                ended.set_result(message["status"])

    def _lost(self) -> None:
        """The socket ended: whoever waits is told."""
        if self._writer is not None:
            self._writer.close()
        self._writer, self.pid = None, None
        away = WarmProcessAway("the warm process ended")
        everyone: list[asyncio.Future[Any]] = [self._ready, *self._starting.values()]
        for waiting in everyone:
            if not waiting.done():
                waiting.set_exception(away)
        for run in self.running.values():
            if not run.ended.done():
                run.ended.set_result(LOST)
        self._starting.clear()
        self.running.clear()
        self._idle.set()
        if self._process is not None:
            self._process.poll()

    async def wait_lost(self) -> None:
        """Returns when it has ended."""
        if self._reader is not None:
            await asyncio.wait([self._reader])

    async def close_when_idle(self) -> None:
        """It gets no new run; when the last one is over, it ends."""
        await self._idle.wait()
        await self.close()

    async def close(self) -> None:
        """End it; it ends the runs that are left first."""
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


@dataclass
class WarmPool:
    """One warm process, started again when it dies. Used from one event loop."""

    environment: dict[str, str]
    renewed: int = 0
    """How often it was made anew at its turn."""
    _current: _WarmProcess | None = None
    _retired: dict[asyncio.Task[None], _WarmProcess] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _closed: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        """What it said when it was ready: seconds, threads, broken modules, versions."""
        return self._current.facts if self._current is not None else {}

    @property
    def versions(self) -> dict[str, str]:
        """Of our flows, by module."""
        found: dict[str, str] = self.facts.get("versions", {})
        return found

    @property
    def pid(self) -> int | None:
        return self._current.pid if self._current is not None else None

    @property
    def born(self) -> datetime | None:
        return self._current.born if self._current is not None else None

    @property
    def idle(self) -> bool:
        return self._current is not None and self._current.idle

    async def start(self) -> None:
        """Have a warm process that is ready; raises WarmProcessAway when it does not come up."""
        await self._ready_one()

    async def _ready_one(self) -> _WarmProcess:
        async with self._lock:
            if not self._closed and (self._current is None or not self._current.alive):
                made = _WarmProcess()
                await made.open(self.environment)
                self._current = made
            current = self._current
        if current is None or self._closed:
            raise WarmProcessAway("the worker is stopping")
        await current.ready()
        return current

    async def launch(self, request: dict[str, Any]) -> Started:
        """Ask for a run; gives its process as soon as it is forked."""
        while True:
            current = await self._ready_one()
            if current is self._current:  # or it was made anew meanwhile
                return await current.launch(request)

    async def renew(self) -> None:
        """Put a new warm process in the place of this one, without a moment in which there is none.

        The old one ends when it has no run any more. Raises WarmProcessAway when the new one does not come up; then the
        old one stays.
        """
        made = _WarmProcess()
        await made.open(self.environment)
        try:
            await made.ready()
        except WarmProcessAway:
            await made.close()
            raise
        async with self._lock:
            old, self._current = self._current, made
        self.renewed += 1
        if self._closed:
            await made.close()
        if old is not None:
            task = asyncio.create_task(old.close_when_idle(), name="retired warm process")
            self._retired[task] = old
            task.add_done_callback(self._retired.pop)

    async def wait_lost(self) -> None:
        """Returns when the warm process has ended by itself."""
        while True:
            current = self._current
            if current is not None:
                await current.wait_lost()
            if current is self._current:
                return

    async def close(self) -> None:
        """End it; it ends the runs that are left first."""
        self._closed = True
        left = [*self._retired.values(), *([self._current] if self._current is not None else [])]
        await asyncio.gather(*(process.close() for process in left))
        if self._retired:
            await asyncio.wait(set(self._retired), timeout=GRACE)
