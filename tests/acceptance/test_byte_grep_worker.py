"""No secret in any byte of a whole center, after its own worker ran everything. (spec 6.6)

As ``tests/integration/test_byte_grep.py``, through a center as a user starts it: the runs are executed in warm
processes, two are held with the secret in hand and one of those is cancelled, and what the service, the worker and
``up`` printed is searched too.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from blocks.connections import variable_name
from composites import Composite
from tests.acceptance.conftest import Started, start_center, stop_center
from tests.acceptance.test_attempts import until
from tests.integration import leaks

VALUE = f"Pl'an\"ted <{uuid.uuid4().hex}> & And/so+weiter"


@pytest.fixture
def center(tmp_path: Path) -> Iterator[Started]:
    (tmp_path / "project" / "task_types").mkdir(parents=True)
    (tmp_path / "project" / "task_types" / "loud.py").write_text("from tests.integration.leaks import loud\n")
    users = tmp_path / "users"  # what users keep themselves is theirs
    users.mkdir()
    databases = {
        variable_name(name): leaks.fill_shop(users / f"{name}.db", VALUE, other=other)
        for name, other in (("shop", False), ("branch", True))
    }
    started = start_center(tmp_path / "home", cwd=tmp_path / "project", env=databases)
    try:
        yield started
    finally:
        stop_center(started)


def make(center: Started, data: dict[str, Any]) -> str:
    answer = httpx.post(f"{center.state['serviceUrl']}/api/tasks", json=data, timeout=30)
    assert answer.status_code in (200, 201), answer.text
    return str(answer.json()["slug"])


def composite(center: Started, graph: Composite) -> str:
    return make(center, {"name": graph.name, "taskType": "composite", "graph": graph.to_dict()})


def start(center: Started, slug: str) -> str:
    answer = httpx.post(f"{center.state['serviceUrl']}/api/tasks/{slug}/run", json={}, timeout=30)
    assert answer.status_code < 300, answer.text
    return str(answer.json()["id"])


def ended(center: Started, run_id: str) -> dict[str, Any]:
    over = ("success", "failed", "cancelled")
    run: dict[str, Any] = until(lambda: (r := center.api(f"/api/runs/{run_id}"))["status"] in over and r, 300)
    return run


def test_no_byte_of_a_secret_is_left_behind_by_a_worker(center: Started, tmp_path: Path) -> None:
    assert center.taskcenter("secret", "set", "planted", stdin=VALUE).returncode == 0
    ref = {"secret": "planted"}
    inner = Composite("inner", inputs={"t": ""})
    inner.step("says", "python", code="print(t)", kwargs={"t": "{{inputs.t}}"})
    with leaks.echo_server() as url:
        graph = leaks.everything("everything", "planted", url, "shop", "branch", composite(center, inner))
        whole = ended(center, start(center, composite(center, graph)))
    steps = {step["stepKey"]: step for step in whole["steps"]}
    good = {key for key, step in steps.items() if step["status"] == "success"}
    assert good == {"shouts", "inside", "loud", "reads", "binds", "looks", "keeps", "compares", "asks"}
    raising = {"code": leaks.RAISES, "kwargs": {"s": ref}, "isolate": False}
    alone = make(center, {"name": "alone", "taskType": "python", "payload": raising})
    assert ended(center, start(center, alone))["status"] == "failed"
    for end in ("continue", "cancel"):
        marker = tmp_path / end
        command = f'echo "$V"; touch {marker}; sleep 3; echo "$V" >&2; exit 4'
        payload = {"command": ["sh", "-c", command], "environment": {"V": ref}}
        run_id = start(center, make(center, {"name": f"to-{end}", "taskType": "shell", "payload": payload}))
        until(marker.exists)
        assert center.taskcenter("runs", "pause", run_id).returncode == 0
        assert center.taskcenter("runs", end, run_id).returncode == 0
        assert ended(center, run_id)["status"] == ("failed" if end == "continue" else "cancelled")

    needles = leaks.needles_of(VALUE)
    time.sleep(1.5)  # Prefect's recorders write behind
    with psycopg.connect(center.state["databaseUrl"].replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        (place,) = connection.execute("SHOW data_directory").fetchone() or ("",)
        (used,) = connection.execute(
            "SELECT count(*) FROM task_audit_logs WHERE event_type = 'secret_used'"
        ).fetchone() or (0,)
    assert used > 15
    for name in ("taskcenter", "prefect"):
        dumped = tmp_path / f"{name}.sql"
        dump(center, name, dumped)
        assert b"REDACTED" in dumped.read_bytes()
        assert leaks.find(dumped.read_bytes(), needles) == []
    shown = [center.api(path) for path in ("/api/runs?limit=100", "/api/events", f"/api/runs/{whole['id']}")]
    shown.append(center.taskcenter("runs", "logs", whole["id"]).stdout)
    assert "REDACTED" in str(shown[-1])
    assert leaks.find("\n".join(map(str, shown)).encode(), needles) == []
    assert leaks.find(center.output.read_bytes(), needles) == []
    assert leaks.find_files(Path(place), needles) == []
    assert leaks.find_files(center.home, needles) == []
    assert leaks.find((tmp_path / "users" / "shop.db").read_bytes(), needles)  # the search finds what there is


def dump(center: Started, name: str, into: Path) -> None:
    """Every table as text: what TOAST compresses stands here in the clear."""
    url = center.state["databaseUrl"].replace("+psycopg", "").replace("/taskcenter", f"/{name}", 1)
    with psycopg.connect(url) as connection, into.open("wb") as file:
        for (table,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall():
            with connection.cursor().copy(f'COPY "{table}" TO STDOUT') as rows:
                file.writelines(bytes(block) for block in rows)
