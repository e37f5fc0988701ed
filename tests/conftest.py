"""Shared by all tests: the smoke test of the real server runs first, and no test reads this machine's settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

for _name in [n for n in os.environ if n.startswith(("PREFECT_", "TASKCENTER_"))]:
    if not _name.startswith(("TASKCENTER_TEST_", "TASKCENTER_OUTSIDE_")):
        del os.environ[_name]
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """When the servers do not start, nothing else is worth waiting for; the slow tests come last."""
    order = {"test_servers_start.py": 0, "acceptance": 2}

    def rank(item: pytest.Item) -> int:
        path = Path(item.path)
        return order.get(path.name, order.get(path.parent.name, 1))

    items.sort(key=rank)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data directory, named in the environment."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("TASKCENTER_HOME", str(folder))
    return folder
