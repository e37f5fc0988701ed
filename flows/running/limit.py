"""``maxRuntime`` and what a run may use: its whole tree ends within two seconds after its limit. (spec 5.7)

First in order: the work is cancelled, statements are cancelled on their servers, children are ended. What cannot be
ended so (a thread in a loop, an event loop that is blocked) ends with this process, after the run's end was written.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import psutil

from taskcenter import events
from taskcenter.clock import utc_now
from taskcenter.errors import TaskCenterError
from taskcenter.models import AuditEntry, Termination
from taskcenter.status import RunPhase, RunStatus
from taskcenter_adapter.gateway import Gateway
from taskcenter_adapter.runtime import prefect_api_url

from .resources import watch_resources
from .steps import threads_at_work

if TYPE_CHECKING:
    from .session import Session

__all__ = ["end_children", "keep_limit"]

T = TypeVar("T")
_LEAVING = threading.Lock()
_ORDERLY = 0.4
"""Seconds that threads have to notice the end of their work."""
_HARD = 1.5
"""Seconds after the limit when this process ends, whatever it is doing."""
_EXIT = 1


async def keep_limit(session: Session, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work`` within what the task allows a run; raises TimeoutError when ``maxRuntime`` is over."""
    rules = session.task.termination if session.task is not None else None
    if rules is None or session.flow_run.parent_task_run_id is not None:
        return await work
    run_id = session.run.id
    with watch_resources(rules.limits, lambda: _children(run_id), lambda text: leave(session, f"stopped: {text}")):
        return await _within_time(session, rules, work)


async def _within_time(session: Session, rules: Termination, work: Coroutine[Any, Any, T]) -> T:
    if rules.max_runtime is None:
        return await work
    limit = rules.max_runtime
    watch = _Watch(session, limit, rules.kill_on_timeout)
    try:
        if not rules.kill_on_timeout:
            return await work
        return await session.hold.within(limit, work)
    except TimeoutError:
        if watch.over:
            await watch.end_work()
        raise
    finally:
        watch.stop()


class _Watch:
    """Looks at the clock from a thread of its own: the event loop may be what does not end."""

    def __init__(self, session: Session, limit: float, kill: bool) -> None:
        self._session, self._limit, self._kill = session, limit, kill
        self._done = threading.Event()
        self._begin = time.monotonic() - session.hold.seconds()
        threading.Thread(target=self._look, name="limit", daemon=True).start()

    def stop(self) -> None:
        self._done.set()

    @property
    def over(self) -> bool:
        return self._left() <= 0

    def _left(self) -> float:
        return self._limit - (time.monotonic() - self._begin - self._session.hold.seconds())

    def _look(self) -> None:
        late = _HARD if self._kill else 0.0
        while not self._done.wait(max(0.05, self._left() + late)):
            if self._left() + late <= 0:
                self._hard() if self._kill else self._overdue()
                return

    async def end_work(self) -> None:
        """Children and statements, then a look whether anything still works in this process."""
        await asyncio.to_thread(end_children, self._session.run.id, 0.4)
        end = time.monotonic() + _ORDERLY
        while threads_at_work() and time.monotonic() < end:
            await asyncio.sleep(0.05)
        if threads_at_work():
            await asyncio.to_thread(self._hard)

    def _hard(self) -> None:
        leave(self._session, f"stopped after {self._limit:g} s (maxRuntime)", RunPhase.TIMED_OUT)

    def _overdue(self) -> None:
        """``killOnTimeout: false``: it is said, and the run goes on."""
        session, now = self._session, utc_now()
        text = f"it has run longer than {self._limit:g} s (maxRuntime) and goes on"
        session.recorder.log("warning", text)
        entry = AuditEntry(
            event_type="run_overdue", task_id=session.run.task_id, run_id=session.run.id,
            object=f"run {session.run.id}", message=text, created_at=now,
        )  # fmt: skip
        session.recorder.set_run(message=text, audit=entry, event=events.run_overdue(session.run, self._limit, now))


def leave(session: Session, text: str, phase: RunPhase | None = None) -> NoReturn:
    """Write and tell the end, then leave: a thread in a loop cannot be ended in any other way."""
    _LEAVING.acquire()  # once, and for ever
    session.recorder.log("error", text)
    session.finish(RunStatus.FAILED, message=text, error=text, phase=phase)
    session.recorder.flush(1.0)
    name = "TimedOut" if phase is RunPhase.TIMED_OUT else "Failed"
    with (
        contextlib.suppress(TaskCenterError),
        Gateway(prefect_api_url(session.settings), tries=1, timeout=2) as gateway,
    ):
        gateway.set_run_state(str(session.flow_run.id), "FAILED", name, text)
    end_children(session.run.id, 0)
    os._exit(_EXIT)


def end_children(run_id: str, grace: float) -> None:
    """TERM, ``grace`` seconds, KILL to everything this run has started and that is not this process."""
    asked: set[int] = set()
    end = time.monotonic() + grace
    while (living := _children(run_id)) and time.monotonic() < end:
        for process in living:
            if process.pid not in asked:
                with contextlib.suppress(psutil.Error):
                    process.terminate()
        asked |= {process.pid for process in living}
        time.sleep(0.05)
    end = time.monotonic() + 1.0
    while (living := _children(run_id)) and time.monotonic() < end:
        for process in living:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.05)


def _children(run_id: str) -> list[psutil.Process]:
    found = {process.pid: process for process in psutil.Process().children(recursive=True)}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get("TASKCENTER_RUN_ID") == run_id:
                found[process.pid] = process
    living = []
    for process in found.values():
        with contextlib.suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
    return living
