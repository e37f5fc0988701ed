"""The processes of one center on one machine: database, Prefect server, service, worker. (spec 0.5)

Started in order, watched, restarted when one dies, stopped in the opposite order; whatever happens to this process,
none of them is left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from deployments import housekeeping
from deployments.spec import MANAGED_TAG
from taskcenter.clock import utc_now
from taskcenter.errors import Refused, ServerAway, SetupError, TaskCenterError
from taskcenter.settings import Settings
from taskcenter_adapter import postgres, prefect_server
from taskcenter_adapter.database import make_engine
from taskcenter_adapter.orphans import close_orphans
from taskcenter_adapter.processes import Child, private_folder, require_port, start, wait_until
from taskcenter_adapter.reconcile import reconcile
from taskcenter_adapter.state import clear_state, read_state, write_state

from .services.center import Caller, Center
from .services.upgrading import upgrade

__all__ = ["Stack"]

SQLITE_COSTS = (
    "SQLite: Prefect answers slowly while composites with many steps run (its writers wait for each other), and only "
    "one machine can take part. The embedded PostgreSQL has neither limit."
)


@dataclass
class Stack:
    """One running center. ``say`` gets a line per thing that happens."""

    settings: Settings
    workers: int = 4
    say: Callable[[str], None] = print
    _lock: IO[str] | None = None
    _postgres: postgres.EmbeddedPostgres | None = None
    _children: dict[str, tuple[Child, Callable[[], Child]]] = field(default_factory=dict)
    _failures: dict[str, list[float]] = field(default_factory=dict)
    database_url: str = ""
    prefect_api_url: str = ""

    @property
    def service_url(self) -> str:
        return f"http://127.0.0.1:{self.settings.port}"

    @property
    def prefect_url(self) -> str:
        return self.prefect_api_url.removesuffix("/api")

    def start(self) -> None:
        """Bring everything up, or raise with a sentence and leave nothing running."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        home = private_folder(self.settings.home)
        self._take_lock(home)
        own_server = self.settings.prefect_api_url is None
        port = require_port(self.settings.port, "the Task Center service", "--port or TASKCENTER_PORT")
        self.settings = replace(self.settings, port=port)
        prefect_port = 0
        if own_server:
            option = "--prefect-port or TASKCENTER_PREFECT_PORT"
            prefect_port = require_port(self.settings.prefect_port, "the Prefect server", option)
        begin = time.monotonic()
        self.database_url, prefect_database = self._start_database(home)
        engine = make_engine(self.database_url)
        try:
            upgrade(engine, Caller("system", "system"))
        finally:
            engine.dispose()
        self.say(f"database    ready after {time.monotonic() - begin:.1f} s")
        if own_server:
            self.prefect_api_url = f"http://127.0.0.1:{prefect_port}/api"
            self._keep("prefect server", lambda: prefect_server.start_server(home, prefect_database, prefect_port))
        else:
            self.prefect_api_url = str(self.settings.prefect_api_url).rstrip("/")
            if not prefect_server.healthy(self.prefect_api_url, 5.0):
                raise SetupError(
                    f"PREFECT_API_URL={self.prefect_api_url} does not answer; start it or unset the variable"
                )
        self.say(f"prefect     ready after {time.monotonic() - begin:.1f} s  {self.prefect_url}")
        self._write_state()
        self._publish()
        self._keep("worker", lambda: prefect_server.start_worker(
            home, self.prefect_api_url, limit=self.workers, env=self._child_env()))  # fmt: skip
        self._keep("service", self._start_service)
        wait_until("the Task Center service", self._service_answers, self._children["service"][0], 60)
        self.say(f"service     ready after {time.monotonic() - begin:.1f} s  {self.service_url}")
        wait_until("the worker", self._worker_answers, self._children["worker"][0], 60)
        self.say(f"worker      ready after {time.monotonic() - begin:.1f} s  {self.workers} runs at once")

    def _take_lock(self, home: Path) -> None:
        (home / "run").mkdir(exist_ok=True)
        self._lock = open(home / "run" / "lock", "w", encoding="utf-8")  # noqa: SIM115  (held for our lifetime)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            state = read_state(home)
            self._lock.close()
            self._lock = None
            where = f" (process {state['pid']}, {state['serviceUrl']})" if state else ""
            raise Refused(
                f"a Task Center is running for {home} already{where}. Use it, stop it with Ctrl-C there, or choose "
                "another data directory with TASKCENTER_HOME"
            ) from None

    def _start_database(self, home: Path) -> tuple[str, str]:
        """Addresses of our database and of Prefect's (for its async driver)."""
        if self.settings.database_url:
            return self.settings.database_url, _beside(self.settings.database_url, home)
        kind = self.settings.database
        if kind == "auto" and not postgres.available():
            self.say("there is no embedded PostgreSQL for this platform, so SQLite is used")
            kind = "sqlite"
        if kind != "sqlite":
            self._postgres = postgres.start_postgres(home)
            return self._postgres.url("taskcenter"), self._postgres.url("prefect", "asyncpg")
        self.say(SQLITE_COSTS)
        (home / "prefect").mkdir(exist_ok=True)
        return f"sqlite:///{home}/taskcenter.db", f"sqlite+aiosqlite:///{home}/prefect/prefect.db"

    def _write_state(self) -> None:
        write_state(
            self.settings.home,
            {
                "databaseUrl": self.database_url,
                "prefectApiUrl": self.prefect_api_url,
                "serviceUrl": self.service_url,
                "project": str(self.settings.project),
                "children": {name: child.process.pid for name, (child, _) in self._children.items()},
            },
        )

    def _publish(self) -> None:
        """Save the catalogue and the project's composites, then make Prefect's deployments those of all tasks."""
        from .scheduler.take_over import TakeOver
        from .services.composites import adopt_catalog
        from .services.deploy import deploy
        from .services.tasks import all_tasks

        with Center(self.settings) as center:
            changed, broken = adopt_catalog(center, Caller("system", "system"))
            for item in broken:
                self.say(f"left out    {item.file}: {item.message}")
            if changed:
                self.say(f"composites  {len(changed)} saved: {', '.join(changed)}")
            # What was changed in Prefect while nothing of ours was running is taken over before it is written anew.
            TakeOver(center).schedules(center.gateway.deployments_with_flow(MANAGED_TAG))
            changes = deploy(center, all_tasks(center), everything=True)
            housekeeping.put(center.gateway)
            written = [change for change in changes if change.kind != "same"]
            self.say(f"deployments {len(changes)} in Prefect, {len(written)} changed")

    def _child_env(self) -> dict[str, str]:
        return {"TASKCENTER_PROJECT": str(self.settings.project)}

    def _start_service(self) -> Child:
        return start(
            "service",
            [sys.executable, "-m", "taskcenter_console.serve"],
            log=self.settings.home / "logs" / "service.log",
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
                "TASKCENTER_HOME": str(self.settings.home),
                "TASKCENTER_PORT": str(self.settings.port),
                "PREFECT_API_URL": self.prefect_api_url,
                **self._child_env(),
            },
            cwd=self.settings.home,
        )

    def _service_answers(self) -> bool:
        return prefect_server.healthy(f"{self.service_url}/api")

    def _worker_answers(self) -> bool:
        with Center(self.settings) as center:
            return center.gateway.workers_online(prefect_server.POOL) > 0

    def _keep(self, name: str, begin: Callable[[], Child]) -> None:
        self._children[name] = (begin(), begin)

    # watching and stopping ---------------------------------------------------------------------------

    def watch(self) -> None:
        """Serve until interrupted; a child that dies is started again, at most five times a minute."""
        self._write_state()
        while True:
            time.sleep(0.5)
            if self._postgres is not None and not self._postgres.child.alive:
                raise SetupError(f"the embedded PostgreSQL ended; its log: {self._postgres.child.log}")
            for name, (child, begin) in list(self._children.items()):
                if not child.alive:
                    self._restart(name, child, begin)

    def _restart(self, name: str, child: Child, begin: Callable[[], Child]) -> None:
        now = time.monotonic()
        recent = [at for at in self._failures.get(name, []) if now - at < 60]
        self._failures[name] = [*recent, now]
        if len(recent) >= 5:
            raise SetupError(f"the {name} ended {len(recent) + 1} times within a minute; it said:\n{child.tail()}")
        self.say(f"the {name} ended (exit code {child.process.returncode}) and is started again")
        with contextlib.suppress(TaskCenterError):
            self._keep(name, begin)
        self._write_state()

    def stop(self) -> None:
        """Stop in the opposite order: no new work, then the doors, then the servers, the database last."""
        if self._children:
            self.say("stopping …")
        for name in ("worker", "service", "prefect server"):
            pair = self._children.pop(name, None)
            if pair is not None:
                pair[0].stop()
                if name == "worker":
                    self._close_runs()
        if self._postgres is not None:
            self._postgres.stop()
            self._postgres = None
        if self._lock is not None:
            clear_state(self.settings.home)
            self._lock.close()
            self._lock = None

    def _close_runs(self) -> None:
        """The worker took its runs with it: Prefect and our rows are told before they stop too."""
        try:
            with Center(self.settings) as center:
                closed = close_orphans(self.settings.home, center.gateway)
                if closed:
                    self.say(f"{len(closed)} running runs were ended: {', '.join(run_id[:8] for run_id in closed)}")
                    reconcile(center.store, center.gateway, utc_now())
        except TaskCenterError as error:
            self.say(f"open runs could not be closed now and will be at the next start: {error.message}")

    def addresses(self) -> list[tuple[str, str]]:
        return [("Task Center", self.service_url), ("Prefect UI", self.prefect_url)]


def _beside(url: str, home: Path) -> str:
    """Prefect's own database beside ours: the database ``prefect`` on the same server, or a file in ``home``."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parts = make_url(url)
    except ArgumentError:
        raise SetupError("TASKCENTER_DATABASE_URL is not an address like postgresql://user:password@host/db") from None
    if not parts.drivername.startswith("postgresql"):
        (home / "prefect").mkdir(exist_ok=True)
        return f"sqlite+aiosqlite:///{home}/prefect/prefect.db"
    import psycopg

    plain: Any = parts.set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)
    where = parts.host or "local"
    try:
        opened = psycopg.connect(plain, autocommit=True, connect_timeout=10)
    except psycopg.Error as error:
        raise ServerAway(
            f"the PostgreSQL server of TASKCENTER_DATABASE_URL ({where}) does not let us in: "
            f"{str(error).splitlines()[0]}"
        ) from None
    try:
        with opened as connection:
            if connection.execute("select 1 from pg_database where datname = 'prefect'").fetchone() is None:
                connection.execute("create database prefect")
    except psycopg.Error as error:
        raise SetupError(
            f"the server of TASKCENTER_DATABASE_URL ({where}) does not give Prefect a database of its own: "
            f"{str(error).splitlines()[0]}. Create the database 'prefect' there."
        ) from None
    return parts.set(drivername="postgresql+asyncpg", database="prefect").render_as_string(hide_password=False)
