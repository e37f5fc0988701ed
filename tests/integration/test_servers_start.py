"""The first test of all: the pinned versions of Prefect, FastAPI and PostgreSQL start together and answer."""

from __future__ import annotations

from importlib.metadata import version

import httpx

from tests.integration.conftest import LiveCenter


def test_the_servers_start_and_answer(live_center: LiveCenter) -> None:
    assert live_center.gateway.version() == version("prefect")
    assert httpx.get(f"{live_center.api_url}/health").json() is True
    assert live_center.store.list_tasks() == [] or live_center.store.list_tasks()
    assert live_center.database_url.startswith("postgresql")


def test_the_prefect_ui_asks_nobody_outside(live_center: LiveCenter) -> None:
    """The page that is served names no host but its own."""
    page = httpx.get(live_center.api_url.removesuffix("/api") + "/", follow_redirects=True).text
    assert "<html" in page.lower()
    assert "https://" not in page.replace("https://www.w3.org", "")
