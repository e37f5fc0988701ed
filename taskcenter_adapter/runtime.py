"""Wires a process to its store and its Prefect server, from the settings and what ``up`` wrote down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from taskcenter.errors import ServerAway
from taskcenter.ports import Store
from taskcenter.redaction import read_own_patterns
from taskcenter.settings import Settings

from .gateway import Gateway
from .state import read_state
from .store import open_store

__all__ = [
    "Runtime",
    "database_url",
    "prefect_api_url",
    "spool_folder",
]


def spool_folder(home: Path) -> Path:
    return home / "spool"


def _not_running(home: Path) -> ServerAway:
    return ServerAway(
        f"no Task Center is running for {home}. Start one with: taskcenter up "
        "(or name its data directory with TASKCENTER_HOME, or its database with TASKCENTER_DATABASE_URL)"
    )


def database_url(settings: Settings) -> str:
    """Where the task-center tables are; raises ServerAway when nothing says so."""
    if settings.database_url:
        return settings.database_url
    state = read_state(settings.home)
    if state is None:
        raise _not_running(settings.home)
    return str(state["databaseUrl"])


def prefect_api_url(settings: Settings) -> str:
    """The Prefect server of the running center, else the one PREFECT_API_URL names."""
    state = read_state(settings.home)
    if state is not None:
        return str(state["prefectApiUrl"])
    if settings.prefect_api_url:
        return settings.prefect_api_url
    raise _not_running(settings.home)


@dataclass
class Runtime:
    """One process's handles. Close it when done."""

    settings: Settings
    store: Store
    gateway: Gateway

    @classmethod
    def open(cls, settings: Settings | None = None) -> Runtime:
        settings = settings or Settings.from_env()
        read_own_patterns(settings.patterns_file)
        return cls(settings, open_store(database_url(settings)), Gateway(prefect_api_url(settings)))

    def close(self) -> None:
        self.store.close()
        self.gateway.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
