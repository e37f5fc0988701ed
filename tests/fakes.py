"""A Prefect server that is only a few dicts, and a service over it: for tests that start nothing."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskcenter.errors import NotFound, ServerAway
from taskcenter.ports import Store
from taskcenter.settings import Settings
from taskcenter_adapter.gateway import Gateway, NewRun
from taskcenter_adapter.store_memory import MemoryStore
from taskcenter_console.services.center import Center

if TYPE_CHECKING:
    from starlette.testclient import TestClient

__all__ = ["FakeGateway", "api_client", "fake_center"]

Json = dict[str, Any]
_WAITING: Json = {"state_type": "SCHEDULED", "state_name": "Scheduled"}


class FakeGateway(Gateway):
    """Keeps deployments and runs in memory. ``away`` makes every call fail; ``on_run`` is told of each new run."""

    def __init__(self, on_run: Callable[[Json], None] | None = None) -> None:
        self.api_url = "http://127.0.0.1:4200/api"
        self.away = False
        self.on_run = on_run
        self.deployments: dict[str, Json] = {}
        self.runs: dict[str, Json] = {}
        self.pools: set[str] = set()

    def close(self) -> None:
        """Nothing is open."""

    def _reach(self) -> None:
        if self.away:
            raise ServerAway(f"the Prefect server at {self.api_url} does not answer")

    def version(self) -> str:
        self._reach()
        return "3.8.8"

    def ensure_pool(self, name: str, kind: str = "taskcenter") -> bool:
        self._reach()
        new = name not in self.pools
        self.pools.add(name)
        return new

    def ensure_queues(self, pool: str) -> None:
        self._reach()

    def waiting_runs(self, pool: str, before: datetime) -> list[tuple[str, Json]]:
        self._reach()
        return [("normal", run) for run in self.runs.values() if run.get("state_type", "SCHEDULED") == "SCHEDULED"]

    def set_run_tags(self, run_id: str, tags: Sequence[str]) -> None:
        self._reach()
        self.runs[run_id]["tags"] = list(tags)

    def worker_seen(self, pool: str) -> datetime | None:
        self._reach()
        return None

    def flow_id(self, name: str) -> str:
        self._reach()
        return f"flow:{name}"

    def find_deployment(self, name: str) -> Json | None:
        self._reach()
        return self.deployments.get(name)

    def list_deployments(self, tag: str) -> list[Json]:
        self._reach()
        return [d for d in self.deployments.values() if tag in d["tags"]]

    def deployments_with_flow(self, tag: str) -> list[Json]:
        return [{**d, "flow_name": d["flow_id"].removeprefix("flow:")} for d in self.list_deployments(tag)]

    def put_deployment(self, body: Mapping[str, Any]) -> Json:
        self._reach()
        name = f"{body['flow_id'].removeprefix('flow:')}/{body['name']}"
        known = self.deployments.get(name, {"id": str(uuid.uuid4())})
        self.deployments[name] = {**known, **body}
        return self.deployments[name]

    def update_deployment(self, deployment_id: str, fields: Mapping[str, Any]) -> None:
        self._reach()
        self._by_id(deployment_id).update(fields)

    def put_schedules(self, deployment_id: str, have: Sequence[Json], want: Sequence[Mapping[str, Any]]) -> None:
        self._reach()
        self._by_id(deployment_id)["schedules"] = [dict(schedule) for schedule in want]

    def delete_deployment(self, deployment_id: str) -> None:
        self._reach()
        self.deployments = {name: d for name, d in self.deployments.items() if d["id"] != deployment_id}

    def create_run(self, deployment_id: str, run: NewRun) -> Json:
        self._reach()
        self._by_id(deployment_id)
        made: Json = {
            "id": str(uuid.uuid4()),
            "name": "calm-otter",
            "state_name": "Scheduled",
            "deployment_id": deployment_id,
            "parameters": dict(run.parameters),
            "tags": list(run.tags),
            "at": run.at,
            "idempotency_key": run.idempotency_key,
        }
        self.runs[made["id"]] = made
        if self.on_run is not None:
            self.on_run(made)
        return made

    def create_runs(self, deployment_id: str, runs: Sequence[NewRun]) -> list[str | None]:
        return [str(self.create_run(deployment_id, run)["id"]) for run in runs]

    def runs_by_key(self, keys: Sequence[str]) -> dict[str, Json]:
        self._reach()
        return {run["id"]: run for run in self.runs.values() if run["idempotency_key"] in keys}

    def find_run(self, run_id: str) -> Json | None:
        self._reach()
        return self.runs.get(run_id)

    def runs_by_id(self, ids: Sequence[str]) -> dict[str, Json]:
        self._reach()
        return {run_id: _WAITING | self.runs[run_id] for run_id in ids if run_id in self.runs}

    def runs_since(self, since: datetime, deployment_ids: Sequence[str]) -> Iterator[Json]:
        self._reach()
        yield from [_WAITING | run for run in self.runs.values() if run["deployment_id"] in deployment_ids]

    def task_runs(self, flow_run_id: str) -> list[Json]:
        self._reach()
        return []

    def ended_runs(self, before: datetime, deployment_ids: Sequence[str], offset: int = 0) -> list[Json]:
        self._reach()
        found = [
            run
            for run in self.runs.values()
            if run.get("end_time") and run["end_time"] < before.isoformat() and run["deployment_id"] in deployment_ids
        ]
        return found[offset : offset + 200]

    def delete_run(self, run_id: str) -> None:
        self._reach()
        self.runs.pop(run_id, None)

    def set_run_state(
        self,
        run_id: str,
        kind: str,
        name: str | None = None,
        message: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self._reach()
        self.runs[run_id] |= {"state_type": kind, "state_name": name or kind.capitalize()}

    def ask_cancel(self, run_id: str, message: str) -> str:
        """As Prefect does: at once for a run that waits."""
        self._reach()
        run = self.runs.get(run_id)
        if run is None:
            raise NotFound("Prefect does not know it")
        state = run.get("state_type", "SCHEDULED")
        new = {"SCHEDULED": "CANCELLED", "PENDING": "CANCELLING", "RUNNING": "CANCELLING"}.get(state, state)
        run |= {"state_type": new, "state_name": new.capitalize(), "state": {"message": message}}
        return str(new)

    def _by_id(self, deployment_id: str) -> Json:
        found = next((d for d in self.deployments.values() if d["id"] == deployment_id), None)
        if found is None:
            raise NotFound(f"Prefect does not know /deployments/{deployment_id}")
        return found


def fake_center(folder: Path, gateway: FakeGateway | None = None, *, scheduled: bool = False) -> Center:
    """A center with an empty store and a fake Prefect server; ``folder`` is its home and its project.

    ``scheduled``: with a database, and with it the scheduler's memory.
    """
    fake = gateway or FakeGateway()
    store: Store = _database(folder) if scheduled else MemoryStore()
    return Center(
        Settings(home=folder / "home", project=folder / "project"),
        open_store=lambda: store,
        open_gateway=lambda: fake,
    )


def _database(folder: Path) -> Store:
    from taskcenter_adapter.database import make_engine
    from taskcenter_adapter.store_sql import SqlStore
    from taskcenter_adapter.tables import metadata

    engine = make_engine(f"sqlite:///{folder}/store.db")
    metadata.create_all(engine)  # a migration costs more than most tests
    return SqlStore(engine)


def api_client(center: Center, **options: Any) -> TestClient:
    """Speaks to the service over ``center`` as a program on this machine does; no port is opened."""
    with warnings.catch_warnings():  # it asks for another client library than the one in the house
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient

    from taskcenter_console.api.app import make_app

    return TestClient(make_app(center, **options), base_url="http://127.0.0.1:8787")
