"""The only door to Prefect's REST API: plain calls over httpx, errors as sentences. (spec 0.3)

The API itself and not Prefect's client: importing that costs about a second, which every command would pay.
Answers are the API's own JSON objects. (Source: the OpenAPI document of Prefect 3.8.)
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from taskcenter.errors import NotFound, Refused, ServerAway
from taskcenter.status import Priority

__all__ = ["Gateway", "NewRun"]

_PAGE = 200
_FEW = 50
"""Of runs, where others wait for the server too: it does nothing else while it writes out an answer."""
_MOST_AT_ONCE = 100
"""Runs in one request, as Prefect allows."""
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NewRun:
    """A flow run to make, now or ``at`` a time (``retry``: as Prefect's AwaitingRetry).

    With an idempotency key that was used before, Prefect gives the run of that time.
    """

    parameters: Mapping[str, Any]
    tags: Sequence[str]
    at: datetime | None = None
    retry: bool = False
    idempotency_key: str | None = None

    def body(self) -> Json:
        """As Prefect's API takes it.

        The parameters are ours, so their schema is not asked: the server checks the schema itself each time, which is
        two fifths of what making a run costs it.
        """
        body: Json = {"parameters": dict(self.parameters), "tags": list(self.tags), "enforce_parameter_schema": False}
        if self.idempotency_key:
            body["idempotency_key"] = self.idempotency_key
        if self.at is not None:
            details = {"scheduled_time": self.at.isoformat()}
            state = "AwaitingRetry" if self.retry else "Scheduled"
            body["state"] = {"type": "SCHEDULED", "name": state, "state_details": details}
        return body


class Gateway:
    """Calls to one Prefect server. ``tries`` repeats a call that did not reach it, with a growing pause."""

    def __init__(self, api_url: str, *, timeout: float = 20.0, tries: int = 3) -> None:
        self.api_url = api_url.rstrip("/")
        self._tries = tries
        self._flows: dict[str, str] = {}
        self._queued: set[str] = set()
        self._lock = threading.Lock()
        self._client = httpx.Client(base_url=self.api_url, timeout=timeout, trust_env=False)

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        for attempt in range(1, self._tries + 1):
            try:
                answer = self._client.request(method, path, json=body)
            except httpx.TransportError as error:
                if attempt < self._tries:
                    time.sleep(0.2 * 2**attempt)
                    continue
                raise ServerAway(
                    f"the Prefect server at {self.api_url} does not answer ({type(error).__name__}). "
                    "Start one with: taskcenter up"
                ) from None
            if answer.status_code in (429, 503) and attempt < self._tries:
                time.sleep(0.2 * 2**attempt)
                continue
            return self._read(answer, method, path)
        raise AssertionError("every path of the loop returns or raises")

    def _read(self, answer: httpx.Response, method: str, path: str) -> Any:
        if answer.status_code == 404:
            raise NotFound(f"Prefect does not know {path}", path=path)
        if answer.status_code in (429, 503):
            raise ServerAway(f"the Prefect server at {self.api_url} is too busy ({answer.status_code})")
        if answer.status_code >= 400:
            raise Refused(f"Prefect refused {method} {path} ({answer.status_code}): {answer.text[:500]}")
        return answer.json() if answer.content else None

    def _pages(self, path: str, body: Mapping[str, Any], size: int = _PAGE) -> Iterator[Json]:
        """A run that comes in meanwhile moves the others: what stands on two pages is given once."""
        offset, seen = 0, set[str]()
        while True:
            page = self._call("POST", path, {**body, "limit": size, "offset": offset})
            for row in page:
                if row["id"] not in seen:
                    seen.add(row["id"])
                    yield row
            if len(page) < size:
                return
            offset += size

    # server and pools --------------------------------------------------------------------------------

    def version(self) -> str:
        return str(self._call("GET", "/admin/version"))

    def ensure_pool(self, name: str, kind: str = "taskcenter") -> bool:
        """Make the work pool if it is not there; True when it was made.

        One of another type stays as it is: Prefect cannot change the type, and our worker serves process pools too.
        """
        try:
            self._call("GET", f"/work_pools/{name}")
        except NotFound:
            self._call("POST", "/work_pools/", {"name": name, "type": kind, "base_job_template": {}})
            return True
        return False

    def ensure_queues(self, pool: str) -> None:
        """One queue for each priority; Prefect's own ``default`` comes after them."""
        if pool in self._queued:
            return
        for rank, priority in enumerate(Priority, start=1):
            try:
                self._call("GET", f"/work_pools/{pool}/queues/{priority.value}")
            except NotFound:
                body = {
                    "name": priority.value,
                    "priority": rank,
                    "description": f"runs with the priority {priority.value}",
                }
                self._call("POST", f"/work_pools/{pool}/queues", body)
        self._queued.add(pool)

    def waiting_runs(self, pool: str, before: datetime) -> list[tuple[str, Json]]:
        """The runs that a worker of the pool would be given, each with the name of its queue; at most 200 of each."""
        found: list[tuple[str, Json]] = []
        for queue in self._call("POST", f"/work_pools/{pool}/queues/filter", {"limit": _PAGE}):
            body = {"work_queue_names": [queue["name"]], "scheduled_before": before.isoformat(), "limit": _PAGE}
            entries = self._call("POST", f"/work_pools/{pool}/get_scheduled_flow_runs", body)
            found += [(str(queue["name"]), entry["flow_run"]) for entry in entries]
        return found

    def set_run_tags(self, run_id: str, tags: Sequence[str]) -> None:
        self._call("PATCH", f"/flow_runs/{run_id}", {"tags": list(tags)})

    def workers_online(self, pool: str) -> int:
        try:
            found = self._call("POST", f"/work_pools/{pool}/workers/filter", {"limit": _PAGE})
        except NotFound:
            return 0
        return sum(worker.get("status") == "ONLINE" for worker in found)

    def worker_seen(self, pool: str) -> datetime | None:
        """The last sign of life of any worker of the pool; None when it never had one."""
        try:
            found = self._call("POST", f"/work_pools/{pool}/workers/filter", {"limit": _PAGE})
        except NotFound:
            return None
        beats = (worker.get("last_heartbeat_time") for worker in found)
        return max((datetime.fromisoformat(beat.replace("Z", "+00:00")) for beat in beats if beat), default=None)

    # deployments -------------------------------------------------------------------------------------

    def flow_id(self, name: str) -> str:
        """The id of the flow ``name``, made when it is not there."""
        with self._lock:
            if name not in self._flows:
                self._flows[name] = str(self._call("POST", "/flows/", {"name": name})["id"])
            return self._flows[name]

    def find_deployment(self, name: str) -> Json | None:
        """By ``flow/deployment``."""
        try:
            found: Json = self._call("GET", f"/deployments/name/{name}")
        except NotFound:
            return None
        return found

    def list_deployments(self, tag: str) -> list[Json]:
        return list(self._pages("/deployments/filter", {"deployments": {"tags": {"all_": [tag]}}}))

    def put_deployment(self, body: Mapping[str, Any]) -> Json:
        """Create, or replace the one of the same flow and name with its schedules."""
        made: Json = self._call("POST", "/deployments/", dict(body))
        return made

    def deployments_with_flow(self, tag: str) -> list[Json]:
        """As ``list_deployments``, each with the name of its flow under ``flow_name``."""
        deployments = self.list_deployments(tag)
        ids = sorted({str(d["flow_id"]) for d in deployments})
        names: dict[str, str] = {}
        for at in range(0, len(ids), _PAGE):
            which: Json = {"flows": {"id": {"any_": ids[at : at + _PAGE]}}}
            names.update({str(flow["id"]): flow["name"] for flow in self._pages("/flows/filter", which)})
        return [{**d, "flow_name": names[str(d["flow_id"])]} for d in deployments]

    def update_deployment(self, deployment_id: str, fields: Mapping[str, Any]) -> None:
        """Change fields of a deployment; its schedules stay as they are."""
        self._call("PATCH", f"/deployments/{deployment_id}", dict(fields))

    def delete_deployment(self, deployment_id: str) -> None:
        self._call("DELETE", f"/deployments/{deployment_id}")

    def put_schedules(self, deployment_id: str, have: Sequence[Json], want: Sequence[Mapping[str, Any]]) -> None:
        """Make the schedules of a deployment those of ``want``, by slug; unchanged ones are left alone."""
        by_slug = {schedule.get("slug"): schedule for schedule in have}
        wanted = {schedule["slug"] for schedule in want}
        for slug, known in by_slug.items():
            if slug not in wanted:
                self._call("DELETE", f"/deployments/{deployment_id}/schedules/{known['id']}")
        new = [dict(schedule) for schedule in want if schedule["slug"] not in by_slug]
        if new:
            self._call("POST", f"/deployments/{deployment_id}/schedules", new)
        for schedule in want:
            old = by_slug.get(schedule["slug"])
            if old is not None:
                self._call("PATCH", f"/deployments/{deployment_id}/schedules/{old['id']}", dict(schedule))

    # flow runs ---------------------------------------------------------------------------------------

    def create_run(self, deployment_id: str, run: NewRun) -> Json:
        """A flow run of a deployment."""
        made: Json = self._call("POST", f"/deployments/{deployment_id}/create_flow_run", run.body())
        return made

    def create_runs(self, deployment_id: str, runs: Sequence[NewRun]) -> list[str | None]:
        """Many at once, for half of what each alone costs the server.

        The ids of the flow runs; None for one that Prefect did not make.
        """
        bodies = [run.body() for run in runs]
        made: list[str | None] = []
        for at in range(0, len(bodies), _MOST_AT_ONCE):
            path = f"/deployments/{deployment_id}/create_flow_run/bulk"
            results = self._call("POST", path, bodies[at : at + _MOST_AT_ONCE])["results"]
            made += [result.get("flow_run_id") if result["status"] == "CREATED" else None for result in results]
        return made

    def find_run(self, run_id: str) -> Json | None:
        try:
            found: Json = self._call("GET", f"/flow_runs/{run_id}")
        except NotFound:
            return None
        return found

    def runs_by_id(self, ids: Sequence[str]) -> dict[str, Json]:
        found: dict[str, Json] = {}
        for at in range(0, len(ids), _PAGE):
            part = list(ids[at : at + _PAGE])
            rows: list[Json] = self._call(
                "POST", "/flow_runs/filter", {"flow_runs": {"id": {"any_": part}}, "limit": _PAGE}
            )
            found.update({row["id"]: row for row in rows})
        return found

    def runs_by_key(self, keys: Sequence[str]) -> dict[str, Json]:
        """Id → run, of the runs with these idempotency keys."""
        found: dict[str, Json] = {}
        for at in range(0, len(keys), _PAGE):
            which = {"flow_runs": {"idempotency_key": {"any_": list(keys[at : at + _PAGE])}}, "limit": _PAGE}
            rows: list[Json] = self._call("POST", "/flow_runs/filter", which)
            found.update({row["id"]: row for row in rows})
        return found

    def runs_since(self, since: datetime, deployment_ids: Sequence[str]) -> Iterator[Json]:
        """Runs of these deployments that started, ended or should have started since then, in any state."""
        after = {"after_": since.isoformat()}
        which: Json = {"operator": "or_", "start_time": after, "end_time": after, "expected_start_time": after}
        for at in range(0, len(deployment_ids), _PAGE):
            theirs = {"id": {"any_": list(deployment_ids[at : at + _PAGE])}}
            body = {"flow_runs": which, "deployments": theirs, "sort": "ID_DESC"}
            yield from self._pages("/flow_runs/filter", body, _FEW)

    def ended_runs(self, before: datetime, deployment_ids: Sequence[str], offset: int = 0) -> list[Json]:
        """A page of the runs of these deployments that ended before then, the oldest first; empty after the last.

        ``offset``: how many of them are known to stay.
        """
        which: Json = {
            "end_time": {"before_": before.isoformat()},
            "state": {"type": {"any_": ["COMPLETED", "FAILED", "CANCELLED", "CRASHED"]}},
            "deployment_id": {"any_": list(deployment_ids)},
        }
        body = {"flow_runs": which, "sort": "START_TIME_ASC", "limit": _PAGE, "offset": offset}
        found: list[Json] = self._call("POST", "/flow_runs/filter", body)
        return found

    def task_runs(self, flow_run_id: str) -> list[Json]:
        which = {"flow_runs": {"id": {"any_": [flow_run_id]}}, "sort": "ID_DESC"}
        return list(self._pages("/task_runs/filter", which))

    def set_run_state(
        self,
        run_id: str,
        kind: str,
        name: str | None = None,
        message: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Put a run into a state, whatever Prefect's rules say of the way there."""
        state: Json = {"type": kind, "name": name or kind.capitalize(), "message": message}
        if details:
            state["state_details"] = dict(details)
        self._call("POST", f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})

    def delete_run(self, run_id: str) -> None:
        """One that is not there any more is gone too."""
        with contextlib.suppress(NotFound):
            self._call("DELETE", f"/flow_runs/{run_id}")

    def ask_cancel(self, run_id: str, message: str) -> str:
        """Ask for a run to be cancelled; gives the type of the state it is in then.

        Prefect answers CANCELLED for a run that nobody has started, CANCELLING for one at work, and leaves one that
        is over as it is.
        """
        state = {"type": "CANCELLING", "name": "Cancelling", "message": message}
        answer = self._call("POST", f"/flow_runs/{run_id}/set_state", {"state": state, "force": False})
        if answer["status"] == "ACCEPT":
            return "CANCELLING"
        run = self.find_run(run_id)
        return str(run["state_type"]) if run is not None else "CANCELLED"
