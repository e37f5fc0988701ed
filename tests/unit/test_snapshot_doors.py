"""Kept snapshots over the command line and REST. (spec 2.3)"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from taskcenter.models import SchemaSnapshot
from taskcenter_console.cli import cli
from taskcenter_console.commands import common
from taskcenter_console.services.center import Center
from tests.fakes import FakeGateway, api_client, fake_center

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def table(**columns: str) -> dict[str, Any]:
    return {"columns": {name: {"type": kind, "nullable": True} for name, kind in columns.items()}}


OLD = {"tables": {"public.orders": table(id="bigint", note="text"), "public.gone": table(id="int")}}
NEW = {"tables": {"public.orders": table(id="bigint"), "public.fresh": table(id="int")}, "views": {}}


@pytest.fixture
def center(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Center:
    made = fake_center(tmp_path, FakeGateway())
    monkeypatch.setattr(common, "open_center", lambda: made)
    for number, (connection, dialect, structure) in enumerate(
        (("shop", "postgresql", OLD), ("shop", "postgresql", NEW), ("other", "sqlite", OLD))
    ):
        at = START + timedelta(hours=number)
        made.store.snapshots.save(
            SchemaSnapshot(
                id=f"{number}abcdef0-0000-4000-8000-000000000000",
                connection=connection,
                database="main",
                dialect=dialect,
                schema_hash=f"{number}" * 64,
                structure=structure,
                first_captured_at=at,
                captured_at=at,
            )
        )
    return made


def call(*args: str) -> Result:
    return CliRunner().invoke(cli, args)


def test_the_list_is_light_and_by_connection(center: Center) -> None:
    answer = call("snapshot", "list", "--connection", "shop", "--json")
    items = json.loads(answer.output)["items"]
    assert [item["id"][0] for item in items] == ["1", "0"]
    assert "structure" not in items[0]
    text = call("snapshot", "list").output
    assert "1abcdef0" in text
    assert "sqlite" in text
    found = api_client(center).get("/api/snapshots", params={"connection": "shop", "limit": 1}).json()
    assert [item["schemaHash"] for item in found["items"]] == ["1" * 64]
    assert call("snapshot", "list", "--connection", "nobody").output.startswith("no snapshot is kept")


def test_one_is_found_by_the_beginning_of_its_id(center: Center) -> None:
    assert "public.fresh" in call("snapshot", "show", "1abcde").output
    client = api_client(center)
    assert client.get("/api/snapshots/1abcdef0").json()["structure"] == NEW
    assert client.get("/api/snapshots/9abcdef0").status_code == 404
    missing = call("snapshot", "show", "9abcdef0")
    assert missing.exit_code == 3
    assert "there is no snapshot '9abcdef0'" in missing.output


def test_what_changed_since_the_one_before(center: Center) -> None:
    answer = call("snapshot", "diff", "1abcdef0")
    assert answer.exit_code == 1
    assert "breaking: the table public.gone is gone" in answer.output
    assert "public.fresh" in answer.output
    found = api_client(center).get("/api/snapshots/1abcdef0/diff").json()
    assert found["changed"] is True
    assert found["before"]["id"].startswith("0")
    assert {item["name"] for item in found["diff"]["removed"]} == {"public.gone", "public.orders.note"}
    assert len(found["breaking"]) == 2
    same = call("snapshot", "diff", "1abcdef0", "1abcdef0")
    assert (same.exit_code, "nothing changed" in same.output) == (0, True)


def test_a_structure_that_came_back_and_one_of_long_ago(center: Center) -> None:
    kept = center.store.snapshots
    back = kept.find("0abcdef0-0000-4000-8000-000000000000")
    assert back is not None
    later = START + timedelta(days=1)
    kept.save(back.model_copy(update={"captured_at": later}))
    found = api_client(center).get("/api/snapshots/1abcdef0/diff").json()
    assert found["before"]["id"].startswith("0")
    for number in range(1001):
        update = {"id": f"new-{number}", "schema_hash": f"{number:064}", "captured_at": later, "connection": "new"}
        kept.save(back.model_copy(update=update))
    assert call("snapshot", "show", "2abcde").exit_code == 0


def test_what_cannot_be_compared_is_said(center: Center) -> None:
    first = call("snapshot", "diff", "0abcdef0")
    assert first.exit_code == 3
    assert "no snapshot of shop was seen before 0abcdef0" in first.output
    assert call("snapshot", "diff", "2abcdef0", "1abcdef0").exit_code == 4
    assert api_client(center).get("/api/snapshots/2abcdef0/diff", params={"before": "1abcdef0"}).status_code == 409
