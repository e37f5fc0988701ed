"""``taskcenter doctor``: what this machine has and what is missing, each with what to do."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

from composites.load import catalog
from taskcenter.errors import TaskCenterError
from taskcenter.settings import Settings
from taskcenter.task_types import registry
from taskcenter_adapter import postgres
from taskcenter_adapter.prefect_server import healthy
from taskcenter_adapter.processes import port_is_free, private_folder
from taskcenter_adapter.state import read_state

__all__ = ["doctor"]


def doctor(settings: Settings) -> list[tuple[str, bool, str]]:
    """Each check: its name, whether it is well, and a sentence."""
    return [
        ("python", sys.version_info >= (3, 11), f"Python {sys.version.split()[0]}; 3.11 or later is needed"),
        _versions(),
        _home(settings),
        _database(settings),
        *_servers(settings),
        _types(settings),
        _catalog(settings),
    ]


def _versions() -> tuple[str, bool, str]:
    try:
        prefect, fastapi = version("prefect"), version("fastapi")
    except PackageNotFoundError as error:
        return "versions", False, f"{error.name} is not installed; install with: pip install -c constraints.txt -e ."
    known = fastapi.startswith("0.150.")
    hint = "" if known else "; Prefect 3.8's server starts with fastapi 0.150 only: pip install -c constraints.txt -e ."
    return "versions", known, f"prefect {prefect}, fastapi {fastapi}{hint}"


def _home(settings: Settings) -> tuple[str, bool, str]:
    try:
        private_folder(settings.home)
    except TaskCenterError as error:
        return "home", False, error.message
    return "home", True, f"{settings.home} is writable and closed to others"


def _database(settings: Settings) -> tuple[str, bool, str]:
    if settings.database_url:
        from taskcenter_adapter.database import check, make_engine

        try:
            at_head = check(make_engine(settings.database_url))
        except TaskCenterError as error:
            return "database", False, error.message
        return "database", True, "the named database answers" + ("" if at_head else "; `taskcenter up` will migrate it")
    if postgres.available():
        return "database", True, "the embedded PostgreSQL is installed"
    return "database", True, "there is no embedded PostgreSQL for this platform: SQLite is used (slower)"


def _servers(settings: Settings) -> list[tuple[str, bool, str]]:
    state = read_state(settings.home)
    if state is None:
        found = []
        for name, port, option in (
            ("port", settings.port, "TASKCENTER_PORT"),
            ("prefect port", settings.prefect_port, "TASKCENTER_PREFECT_PORT"),
        ):
            free = port_is_free(port)
            text = f"127.0.0.1:{port} is {'free' if free else f'taken by another program; choose one with {option}'}"
            found.append((name, free, text))
        return [*found, ("center", True, "not running; start it with: taskcenter up")]
    prefect = healthy(state["prefectApiUrl"], 3.0)
    service = healthy(f"{state['serviceUrl']}/api", 3.0)
    return [
        ("prefect", prefect, f"{state['prefectApiUrl']} {'answers' if prefect else 'does not answer'}"),
        ("service", service, f"{state['serviceUrl']} {'answers' if service else 'does not answer'}"),
    ]


def _types(settings: Settings) -> tuple[str, bool, str]:
    registry.folder = registry.folder or settings.project / "task_types"
    known = registry.keys()
    for key in known:
        registry.find(key)
    if registry.broken:
        text = "; ".join(f"{name}: {why}" for name, why in registry.broken.items())
        return "task types", False, f"broken: {text}"
    return "task types", True, ", ".join(registry.keys())


def _catalog(settings: Settings) -> tuple[str, bool, str]:
    found, broken = catalog(settings.project / "composites")
    if broken:
        return "composites", False, "; ".join(f"{item.file}: {item.message}" for item in broken)
    return "composites", True, f"{len(found)} found"
