"""Makes in Prefect what the ledger asked for: flow runs, once per key; takes back and cancels others. (spec 4.2, 4.8)

Everything is asked for in our own tables first. So whatever dies here, the next pass finds the rest: a run that was
made before its row was written is found again by its idempotency key.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from deployments.spec import MANAGED_TAG
from taskcenter.errors import NotFound, Refused
from taskcenter.scheduling.decisions import RunRequest
from taskcenter.status import Origin, Priority
from taskcenter_adapter.gateway import Gateway, NewRun
from taskcenter_adapter.mapping import SKIPPED, tags_for
from taskcenter_adapter.schedule_requests import Requests, Wanted

__all__ = ["Dispatcher", "idempotency_key"]

_LOG = logging.getLogger("taskcenter.scheduler")
_AT_ONCE = 6
_BATCH = 200


def idempotency_key(deployment_id: str, schedule_id: str, slot: datetime, timezone: str) -> str:
    """The key that Prefect's own scheduler gives the run of a slot, so that both can never make two.

    (Source: ``prefect.server.models.deployments._generate_scheduled_flow_runs``; a test holds it.)
    """
    return f"scheduled {deployment_id} {schedule_id} {slot.astimezone(ZoneInfo(timezone))}"


@dataclass
class _Deployment:
    id: str
    schedules: dict[str, tuple[str, str]]
    """Trigger id → Prefect's id of its schedule, and its time zone."""


@dataclass
class Dispatcher:
    """Between the tables and one Prefect server."""

    requests: Requests
    gateway: Gateway
    _known: dict[str, _Deployment] = field(default_factory=dict)
    _missing: set[str] = field(default_factory=set)
    """Tasks without a deployment: no reason to look again; the eye's looks find it when it is made."""
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_AT_ONCE, "dispatch"))

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def look(self, deployments: Sequence[dict[str, Any]] | None = None) -> None:
        """Learn the deployments as Prefect has them now."""
        found = self.gateway.deployments_with_flow(MANAGED_TAG) if deployments is None else deployments
        self._known = {
            str((deployment.get("parameters") or {}).get("task") or deployment["name"]): _Deployment(
                str(deployment["id"]),
                {
                    schedule["slug"]: (str(schedule["id"]), str(schedule["schedule"].get("timezone") or "UTC"))
                    for schedule in deployment.get("schedules") or []
                    if schedule.get("slug") and schedule.get("id")
                },
            )
            for deployment in found
        }
        self._missing -= self._known.keys()

    def step(self, now: datetime) -> int:
        """One pass; how much it did."""
        did = sum(self._try(part) for part in (self._take_back, self._cancel, lambda: self._move_retries(now)))
        wanted = self.requests.wanted(now, _BATCH)
        if not wanted:
            return did
        self._find(wanted)
        of_task: dict[str, list[Wanted]] = defaultdict(list)
        for item in wanted:
            of_task[item.slug].append(item)
        made = self._pool.map(self._make, of_task.values())
        pairs = [pair for group in made for pair in group]
        self.requests.made(pairs)
        return did + len(pairs)

    def _find(self, items: Sequence[Wanted]) -> None:
        """Look once for deployments that are not known yet; reading a thousand of them takes seconds."""
        slugs = {item.slug for item in items}
        if slugs - self._known.keys() - self._missing:
            self.look()
            self._missing = (self._missing | slugs) - self._known.keys()

    def _try(self, part: Callable[[], int]) -> int:
        """What Prefect refuses in one part must not keep runs of all tasks from being made."""
        try:
            return part()
        except Refused as error:
            _LOG.warning("%s", error.message)
            return 0

    def _make(self, items: Sequence[Wanted]) -> list[tuple[RunRequest, str]]:
        """The flow runs of one task, those of several slots at once; what could not be made is still wanted."""
        deployment = self._known.get(items[0].slug)
        if deployment is None:
            return []  # its deployment is made when Prefect is back; then this comes again
        runs = [self._run(deployment, item) for item in items]
        try:
            ids = self.gateway.create_runs(deployment.id, runs) if len(runs) > 1 else [None]
        except NotFound:
            self._known.pop(items[0].slug, None)
            return []
        except Refused:
            ids = [None] * len(runs)
        made: list[tuple[RunRequest, str]] = []
        for item, run, run_id in zip(items, runs, ids, strict=True):
            # What was not made among others is asked for alone: Prefect says why, and it keeps no other from its time.
            found = run_id or self._one(deployment, item, run)
            if found is not None:
                made.append((item.request, found))
        return made

    def _one(self, deployment: _Deployment, item: Wanted, run: NewRun) -> str | None:
        try:
            return str(self.gateway.create_run(deployment.id, run)["id"])
        except NotFound:
            self._known.pop(item.slug, None)
        except Refused as error:
            _LOG.warning("no run could be made for %s: %s", item.request.key, error.message)
        return None

    def _run(self, deployment: _Deployment, item: Wanted) -> NewRun:
        request = item.request
        parameters: dict[str, Any] = {"task": item.slug}
        if request.trigger_id:
            parameters["trigger_id"] = request.trigger_id
        if request.payload:
            parameters["payload"] = dict(request.payload)
        if request.options:
            parameters["options"] = dict(request.options)
        return NewRun(
            parameters,
            self._tags(request),
            at=request.ready_at or request.slot or request.created_at,
            retry=request.attempt > 1,
            idempotency_key=self._key(deployment, item),
        )

    def _tags(self, request: RunRequest) -> list[str]:
        tags = tags_for(
            request.origin, attempt=request.attempt, root=request.root_run_id, total=request.total_attempts,
            batch=request.batch_id, item=request.batch_item,
        )  # fmt: skip
        if request.priority is not Priority.NORMAL:
            tags.append(f"priority:{request.priority.value}")
        return [*tags, "auto-scheduled"] if request.origin is Origin.SCHEDULER else tags

    def _key(self, deployment: _Deployment, item: Wanted) -> str:
        request = item.request
        schedule = deployment.schedules.get(request.trigger_id or "")
        if request.origin is not Origin.SCHEDULER or request.slot is None:
            return request.key
        if schedule is None:
            key = idempotency_key(deployment.id, request.trigger_id or "", request.slot, "UTC")
        else:
            key = idempotency_key(deployment.id, schedule[0], request.slot, schedule[1])
        return f"{key} in its turn" if item.again else key

    def _move_retries(self, now: datetime) -> int:
        """Attempts that wait while something is paused do not start, and go on when it is resumed."""
        moves = self.requests.retries_to_move(now)
        for key, run_id, at in moves:
            try:
                details = {"scheduled_time": at.isoformat()}
                self.gateway.set_run_state(run_id, "SCHEDULED", "AwaitingRetry", details=details)
            except (NotFound, Refused) as error:
                _LOG.warning("the attempt %s could not be moved: %s", run_id, error.message)
            self.requests.moved(key, at)
        return len(moves)

    def _take_back(self) -> int:
        rows = self.requests.withdrawn(_BATCH)
        if not rows:
            return 0
        self._find([item for item, _ in rows])
        # One that was made and whose row was not written (something died in between) is found by its key.
        lost = [(item, self._known[item.slug]) for item, run_id in rows if not run_id and item.slug in self._known]
        found = self.gateway.runs_by_key([self._key(deployment, item) for item, deployment in lost])
        states = self.gateway.runs_by_id([run_id for _, run_id in rows if run_id]) | found
        # One that a worker has taken asks the gate, and is told no.
        there = [run_id for run_id, run in states.items() if run.get("state_type") == "SCHEDULED"]
        list(self._pool.map(self.gateway.delete_run, there))
        self.requests.taken_back([item.request.key for item, _ in rows])
        return len(rows)

    def _cancel(self) -> int:
        rows = self.requests.cancels()
        if not rows:
            return 0
        states = self.gateway.runs_by_id([run_id for run_id, _ in rows])
        known = self.requests.known_runs([run_id for run_id, _ in rows])
        for run_id, reason in rows:
            kind = states.get(run_id, {}).get("state_type")
            try:
                if kind != "SCHEDULED" and run_id not in known:
                    continue  # a worker has it: it asks the gate, and is told no
                if kind in ("SCHEDULED", "PENDING"):
                    self.gateway.set_run_state(run_id, "CANCELLED", SKIPPED, reason)
                elif kind == "RUNNING":
                    self.gateway.set_run_state(run_id, "CANCELLING", "Cancelling", reason)
            except (NotFound, Refused) as error:
                _LOG.warning("run %s could not be cancelled: %s", run_id, error.message)
        self.requests.cancelled([run_id for run_id, _ in rows])
        return len(rows)
