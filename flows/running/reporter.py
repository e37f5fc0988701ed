"""Tells Prefect of task runs in batches, so that a thousand steps cost a few requests. (spec 3.11)

Prefect 3 makes task runs from events, not from calls: its engine emits ``prefect.task-run.<State>`` and the
server's recorder writes the rows. The events here are the same; they are gathered for a moment, a step that began
and ended meanwhile is sent as its end only, and ``POST /api/events`` answers once they are queued, which the
engine's websocket does not. (Source: ``prefect.utilities.engine.emit_task_run_state_change_event`` of Prefect 3.8.)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import orjson
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.events.related import related_resources_from_run_context

__all__ = ["StepReport", "TaskRunReporter", "uuid7"]

_LOG = logging.getLogger("taskcenter.reporter")
_FINAL: Final = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
_MICRO: Final = timedelta(microseconds=1)
_BATCH: Final = 100
_EVERY: Final = 0.25
"""Seconds that states are gathered."""
_WINDOW: Final = 2_000
"""Events sent and not yet seen recorded: the server silently drops what it cannot queue (10,000 messages)."""
_PATIENCE: Final = 30.0


def uuid7() -> uuid.UUID:
    """A time-ordered id: Prefect's tables keep their order by it.

    Its random part need not be secret, and a call into the kernel for each would hand the interpreter lock to
    another thread every time.
    """
    value = (int(time.time() * 1000) << 80) | random.getrandbits(80)
    return uuid.UUID(int=value & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62)


@dataclass(slots=True)
class StepReport:
    """What Prefect is to know of one task run. ``key`` is its name, ``kind`` the task type."""

    reporter: TaskRunReporter
    key: str
    kind: str
    inputs: list[dict[str, str]] = field(default_factory=list)
    retries: int = 0
    id: uuid.UUID = field(default_factory=uuid7)
    _state: dict[str, Any] | None = None
    _at: datetime | None = None
    _expected: str | None = None
    _start: str | None = None
    _runs: int = 0
    _total: float = 0.0
    _follows: str | None = None
    _queue: list[dict[str, Any]] = field(default_factory=list)

    def set(self, kind: str, name: str, message: str = "", scheduled: str | None = None) -> None:
        """Enter a state: Prefect's type and name, and a message that is redacted already."""
        now = datetime.now(UTC)
        if self._at is not None and now <= self._at:
            now = self._at + _MICRO  # a row only moves to a strictly later state
        at = now.isoformat(timespec="microseconds")
        self._expected = self._expected or at
        before = self._state
        if before is not None and self._at is not None and before["type"] == "RUNNING":
            self._total += (now - self._at).total_seconds()
        if kind == "RUNNING":
            self._runs += 1
            self._start = self._start or at
        details: dict[str, Any] = {"untrackable_result": True} if kind == "COMPLETED" else {}
        if scheduled:
            details["scheduled_time"] = scheduled
        self._state = {"type": kind, "name": name, "message": message, "state_details": details}
        self._at = now
        if not self._queue:
            self.reporter.dirty.append(self)
        self._queue.append(self._event(at, before, self._state, kind in _FINAL))
        self.reporter.notice()

    def take(self) -> list[dict[str, Any]]:
        """The events to send now, each following the one before."""
        queue, self._queue = self._queue, []
        if self._follows is None and len(queue) > 1:
            kinds = [event["payload"]["validated_state"]["type"] for event in queue]
            if kinds[-1] in ("RUNNING", "COMPLETED") and set(kinds[:-1]) <= {"PENDING", "RUNNING"}:
                queue = queue[-1:]
        for event in queue:
            event["follows"], self._follows = self._follows, event["id"]
        return queue

    def _event(self, at: str, before: Mapping[str, Any] | None, now: Mapping[str, Any], final: bool) -> dict[str, Any]:
        run: dict[str, Any] = {
            "name": self.key,
            "task_key": self.kind,
            "dynamic_key": self.key,
            "empirical_policy": {
                "max_retries": 0,
                "retry_delay_seconds": 0.0,
                "retries": self.retries,
                "retry_delay": 0,
            },
            "tags": [],
            "labels": {},
            "task_inputs": {"wait_for": self.inputs} if self.inputs else {},
            "run_count": self._runs,
            "flow_run_run_count": self.reporter.flow_run_count,
            "expected_start_time": self._expected,
            "total_run_time": self._total,
        }
        if self._start:
            run["start_time"] = self._start
        if final:
            run["end_time"] = at
        return {
            "id": str(uuid7()),
            "occurred": at,
            "event": f"prefect.task-run.{now['name']}",
            "resource": {
                "prefect.resource.id": f"prefect.task-run.{self.id}",
                "prefect.resource.name": self.key,
                "prefect.run-count": str(self._runs),
                "prefect.state-message": now["message"],
                "prefect.state-name": now["name"],
                "prefect.state-timestamp": at,
                "prefect.state-type": now["type"],
                "prefect.orchestration": "client",  # the server's recorder ignores every other event
            },
            "related": self.reporter.related,
            "payload": {
                "intended": {"from": before["type"] if before else None, "to": now["type"]},
                "initial_state": before,
                "validated_state": {**now, "data": None},
                "task_run": run,
            },
        }


class TaskRunReporter:
    """Collects states and posts them from a background task of the flow's event loop.

    ``async with TaskRunReporter(flow_run) as reporter``; leaving waits until everything is handed over, for at most
    30 s. When the server is away the events are dropped after several tries: our tables are the record of steps.
    """

    def __init__(self, flow_run: FlowRun) -> None:
        self.flow_run_id = str(flow_run.id)
        self.flow_run_count = flow_run.run_count
        self.related: list[dict[str, Any]] = []
        self.dirty: list[StepReport] = []
        self.lost = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._finals = self._unseen = 0

    def report(self, key: str, kind: str, upstream: list[str], retries: int = 0) -> StepReport:
        """A new task run; ``upstream`` are the ids of the task runs it waited for (the edges of Prefect's graph)."""
        return StepReport(self, key, kind, [{"input_type": "task_run", "id": i} for i in upstream], retries)

    def notice(self) -> None:
        if len(self.dirty) >= _BATCH:
            self._wake.set()

    async def __aenter__(self) -> TaskRunReporter:
        self._stack = contextlib.AsyncExitStack()
        self._client: PrefectClient = await self._stack.enter_async_context(get_client())
        try:
            related = await related_resources_from_run_context(self._client)
        except httpx.HTTPError as error:  # the graph loses its labels, the run goes on
            _LOG.warning("Prefect does not say what this run belongs to: %s", type(error).__name__)
            related = []
        self.related = [resource.model_dump() for resource in related]
        self._pump_task = asyncio.create_task(self._pump(), name="task-run-reporter")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        self._wake.set()
        try:
            # shielded: it also finishes while the flow is being cancelled
            await asyncio.wait_for(asyncio.shield(self._pump_task), _PATIENCE)
        except TimeoutError:
            self._pump_task.cancel()
        finally:
            await self._stack.aclose()

    async def _pump(self) -> None:
        while self.dirty or not self._closing:
            if not self._closing:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), _EVERY)
                self._wake.clear()
            while self.dirty:
                batch, self.dirty = self.dirty[:_BATCH], self.dirty[_BATCH:]
                await self._post([event for report in batch for event in report.take()])

    async def _post(self, events: list[dict[str, Any]]) -> None:
        body = orjson.dumps(events)
        for attempt in range(4):  # ids are unique, so a second post of the same events changes nothing
            try:
                answer = await self._client.request(
                    "POST", "/events", content=body, headers={"content-type": "application/json"}
                )
                answer.raise_for_status()
            except Exception as error:  # whatever the client makes of an absent server; the run goes on without it
                _LOG.debug("posting %d step states failed: %s", len(events), type(error).__name__)
                await asyncio.sleep(0.2 * 2**attempt)
                continue
            await self._pace(events)
            return
        self.lost += len(events)
        _LOG.warning("Prefect did not take %d step states; Task Center's own tables have them", len(events))

    async def _pace(self, events: list[dict[str, Any]]) -> None:
        """Do not run ahead of the server's recorder by more than the window."""
        self._unseen += len(events)
        self._finals += sum(event["payload"]["validated_state"]["type"] in _FINAL for event in events)
        if self._unseen >= _WINDOW:
            await self._recorded(self._finals - 200)  # it keeps up to a batch of 200 for a second
            self._unseen = 0

    async def _recorded(self, count: int, timeout: float = 20.0) -> None:
        body = {
            "flow_runs": {"id": {"any_": [self.flow_run_id]}},
            "task_runs": {"state": {"type": {"any_": sorted(_FINAL)}}},
        }
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            answer = await self._client.request("POST", "/task_runs/count", json=body)
            if answer.status_code == 200 and answer.json() >= count:
                return
            await asyncio.sleep(0.1)
