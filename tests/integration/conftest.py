"""One real center per session: the embedded PostgreSQL, a tuned Prefect server on it, our tables, a work pool."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from taskcenter.ports import Store
from taskcenter.settings import Settings
from taskcenter_adapter.database import make_engine, upgrade
from taskcenter_adapter.gateway import Gateway
from taskcenter_adapter.postgres import remove_cluster, start_postgres
from taskcenter_adapter.prefect_server import start_server
from taskcenter_adapter.processes import free_port
from taskcenter_adapter.state import clear_state, write_state
from taskcenter_adapter.store import open_store
from taskcenter_console.services.center import Caller, Center

if TYPE_CHECKING:
    from tests.integration.workers import Bench


@dataclass
class LiveCenter:
    """What the tests talk to."""

    home: Path
    api_url: str
    database_url: str
    settings: Settings
    center: Center
    caller: Caller

    @property
    def store(self) -> Store:
        return self.center.store

    @property
    def gateway(self) -> Gateway:
        return self.center.gateway


@pytest.fixture(scope="session")
def live_center() -> Iterator[LiveCenter]:
    home = Path(tempfile.mkdtemp(prefix="tc-it-"))
    postgres = start_postgres(home)
    port = free_port()
    server = start_server(home, postgres.url("prefect", "asyncpg"), port)
    url, api = postgres.url("taskcenter"), f"http://127.0.0.1:{port}/api"
    upgrade(make_engine(url))
    write_state(home, {"databaseUrl": url, "prefectApiUrl": api, "serviceUrl": ""})
    settings = Settings(home=home, database_url=url, prefect_api_url=api, project=home)
    center = Center(settings, open_store=lambda: open_store(url), open_gateway=lambda: Gateway(api))
    center.gateway.ensure_pool("taskcenter")
    try:
        yield LiveCenter(home, api, url, settings, center, Caller("tester", "cli"))
    finally:
        center.close()
        clear_state(home)
        server.stop()
        postgres.stop()
        remove_cluster(home)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def live(live_center: LiveCenter, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveCenter]:
    """The center, with this process pointed at it."""
    with _pointed_at(live_center, monkeypatch):
        yield live_center


@pytest.fixture
def live_on_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveCenter]:
    """A center of its own, with both databases in files, and this process pointed at it."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    port = free_port()
    server = start_server(home, f"sqlite+aiosqlite:///{home}/prefect.db", port)
    url, api = f"sqlite:///{home}/taskcenter.db", f"http://127.0.0.1:{port}/api"
    upgrade(make_engine(url))
    settings = Settings(home=home, database_url=url, prefect_api_url=api, project=home)
    center = Center(settings, open_store=lambda: open_store(url), open_gateway=lambda: Gateway(api))
    center.gateway.ensure_pool("taskcenter")
    found = LiveCenter(home, api, url, settings, center, Caller("tester", "cli"))
    try:
        with _pointed_at(found, monkeypatch):
            yield found
    finally:
        center.close()
        server.stop()


@contextmanager
def _pointed_at(live_center: LiveCenter, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setenv("TASKCENTER_HOME", str(live_center.home))
    monkeypatch.setenv("TASKCENTER_DATABASE_URL", live_center.database_url)
    monkeypatch.setenv("TASKCENTER_PROJECT", str(live_center.home))
    monkeypatch.setenv("PREFECT_API_URL", live_center.api_url)
    with temporary_settings({PREFECT_API_URL: live_center.api_url}):
        yield


@pytest.fixture(scope="module")
def bench(live_center: LiveCenter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A worker of the type ``taskcenter`` on the pool of the tasks, ten runs at once."""
    from tests.integration.workers import begin

    bench = begin(live_center, tmp_path_factory.mktemp("project"), "taskcenter", 10)
    try:
        yield bench
    finally:
        bench.worker.stop()


@pytest.fixture
def own(live_center: LiveCenter, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Makes a worker on a pool of its own, for tests that kill it or count its places."""
    from tests.integration.workers import begin

    made: list[Bench] = []

    def make(kind: str, limit: int = 2) -> Bench:
        pool = f"pool-{uuid.uuid4().hex[:8]}"
        live_center.gateway.ensure_pool(pool, kind)
        made.append(begin(live_center, tmp_path / "project", pool, limit))
        return made[-1]

    yield make
    for bench in made:
        bench.worker.stop()
