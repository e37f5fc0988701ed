"""Wires a process to its store and its Prefect server, from the settings and what ``up`` wrote down.

``<home>/run/state.json`` says where the running center's database and servers are, so that a second shell, the
worker's runs and the command line need no settings at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from taskcenter.errors import ServerAway
from taskcenter.ports import Store
from taskcenter.settings import Settings

from .gateway import Gateway
from .store import open_store

__all__ = [
    "Runtime",
    "clear_state",
    "database_url",
    "prefect_api_url",
    "read_state",
    "spool_folder",
    "state_file",
    "write_state",
]


def state_file(home: Path) -> Path:
    return home / "run" / "state.json"


def spool_folder(home: Path) -> Path:
    return home / "spool"


def read_state(home: Path) -> dict[str, Any] | None:
    """What the center that runs on ``home`` wrote down; None when none runs."""
    try:
        state: dict[str, Any] = json.loads(state_file(home).read_text(encoding="utf-8"))
        alive = psutil.Process(int(state["pid"])).create_time() == state["pidCreated"]
    except (OSError, ValueError, KeyError, psutil.Error):
        return None
    return state if alive else None


def write_state(home: Path, state: Mapping[str, Any]) -> None:
    file = state_file(home)
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_suffix(f".{os.getpid()}")
    own = {"pid": os.getpid(), "pidCreated": psutil.Process().create_time()}
    half.touch(mode=0o600)
    half.write_text(json.dumps({**own, **state}, indent=2), encoding="utf-8")
    half.rename(file)


def clear_state(home: Path) -> None:
    state_file(home).unlink(missing_ok=True)


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
        return cls(settings, open_store(database_url(settings)), Gateway(prefect_api_url(settings)))

    def close(self) -> None:
        self.store.close()
        self.gateway.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
