"""No secret in any byte: after a run of everything, databases, logs, files and what is given out are read.

(issue E, show 6) The secret is known to the runs by reference only. The tasks print, log, raise, return and pass it
on in every written form; afterwards the bytes of PostgreSQL's data directory (tables, write-ahead log, its own log),
a plain dump of both databases (TOAST compresses long values) and everything else under the home are searched.
"""

from __future__ import annotations

import asyncio
import http.server
import json
import logging
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prefect import flow
from prefect.blocks.system import Secret

from composites import Composite
from flows.composite import composite
from flows.run_task import python, shell
from flows.task_types.prefect_tasks import as_prefect_task
from taskcenter.redaction.forms import written_forms
from taskcenter_console.services import secrets
from taskcenter_console.services import tasks as task_service
from tests.integration.conftest import LiveCenter

SHOUTS = """
import base64, html, json, logging, sys
from urllib.parse import quote
print(s); print(repr(s)); print(json.dumps({"x": s})); print(quote(s, safe="")); print(html.escape(s))
print(base64.b64encode(b"ab" + s.encode()).decode()); print(s.encode().hex(), file=sys.stderr)
sys.stdout.write("x" * 16_370 + s + "\\n")
logging.warning("it is %s", s)
"""
RAISES = """
def inner():
    raise ValueError("inner " + s)
try:
    inner()
except ValueError as error:
    try:
        raise KeyError(s) from error
    except KeyError:
        raise ExceptionGroup("group " + s, [RuntimeError(s), OSError(2, s, s), ExceptionGroup("g", [ValueError(s)])])
"""


class Echo(http.server.BaseHTTPRequestHandler):
    """Gives back the headers it was sent."""

    def do_GET(self) -> None:
        body = json.dumps(dict(self.headers)).encode()
        self.send_response(200 if self.path == "/" else 500)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def echo() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def everything(name: str, secret: str, url: str) -> Composite:
    ref = {"secret": secret}
    graph = Composite(name, continue_on_error=True)
    said = graph.step("shouts", "python", code=SHOUTS + "result = {'kept': s, 'list': [s, {s: s}]}", kwargs={"s": ref})
    graph.step("raises", "python", code=RAISES, kwargs={"s": ref})
    graph.step("inside", "python", code=SHOUTS + "result = s", kwargs={"s": ref}, isolate=False)
    graph.step("raises-inside", "python", code=RAISES, kwargs={"s": ref}, isolate=False)
    graph.step("retried", "python", code=RAISES, kwargs={"s": ref}, retries=1)
    graph.step("prints", "shell", command=["sh", "-c", 'echo "$V"; echo "$V" >&2; exit 1'], environment={"V": ref})
    graph.step("asks", "http", url=url + "/", auth={"secret": secret}, headers={"X-One": ref})
    graph.step("is-refused", "http", url=url + "/no", auth={"secret": secret, "username": "u"})
    graph.step("selects", "sql_script", connection="shop", sql="select 1 / 0 as x", parameters={})
    passed = graph.step(
        "passed-on", "python", code="print(t); raise RuntimeError(str(t))", kwargs={"t": "{{steps.shouts.result}}"}
    )
    said >> passed
    return graph


def find_files(home: Path, needles: dict[str, bytes]) -> list[str]:
    found = []
    for path in sorted(home.rglob("*")):
        if path.is_file() and not path.is_symlink() and "programs" not in path.parts:
            data = path.read_bytes()
            found += [f"{path.relative_to(home)}: {form}" for form, needle in needles.items() if needle in data]
    return found


@pytest.mark.parametrize("store", ["taskcenter", "prefect"])
def test_no_byte_of_a_secret_is_left_behind(
    store: str, live: LiveCenter, echo: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    value = f"Pl'an\"ted <{uuid.uuid4().hex}> & Ünd/so+weiter"
    block = f"planted-{uuid.uuid4().hex[:8]}"
    if store == "prefect":
        Secret(value=value).save(block, overwrite=True, _sync=True)  # type: ignore[call-arg]
    else:
        secrets.put(live.center, block, value, live.caller)
    graph = everything(f"everything-{uuid.uuid4().hex[:8]}", block, echo)
    data = {"name": graph.name, "taskType": "composite", "graph": graph.to_dict()}
    slug = task_service.save(live.center, data, live.caller).slug
    state = asyncio.run(composite(task=slug, return_state=True))
    assert state.is_failed() or state.is_completed()
    asyncio.run(composite(task=slug, dry_run=True, return_state=True))
    outer = Composite(f"outer-{uuid.uuid4().hex[:8]}")
    outer.step("inner", "composite", composite=slug)
    asyncio.run(composite(task=_saved(live, outer), return_state=True))

    alone = {
        "taskType": "shell",
        "payload": {"command": ["sh", "-c", 'echo "$V"; exit 3'], "environment": {"V": {"secret": block}}},
    }
    one = task_service.save(live.center, {"name": f"alone-{uuid.uuid4().hex[:8]}", **alone}, live.caller)
    assert asyncio.run(shell(task=one.slug, return_state=True)).is_failed()
    raising = {"code": RAISES, "kwargs": {"s": {"secret": block}}, "isolate": False}
    two = task_service.save(
        live.center, {"name": f"raising-{uuid.uuid4().hex[:8]}", "taskType": "python", "payload": raising}, live.caller
    )
    assert asyncio.run(python(task=two.slug, return_state=True)).is_failed()

    @flow(log_prints=False)
    def by_hand() -> None:
        as_prefect_task("python")(code=RAISES, kwargs={"s": {"secret": block}}, isolate=False)

    with caplog.at_level(logging.INFO):
        assert by_hand(return_state=True).is_failed()  # type: ignore[call-overload]

    used = [entry for entry in live.store.list_audit(limit=1000) if entry.event_type == "secret_used"]
    mine = [entry.metadata for entry in used if entry.metadata["name"] == block]
    assert {entry["store"] for entry in mine} == {store}
    assert {"shouts", "prints", "asks", None} <= {entry["step"] for entry in mine}

    needles = {form: form.encode() for form in written_forms(value)}
    needles["its middle"] = value[10:42].encode()
    with psycopg.connect(live.database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        place = Path(str(connection.execute("SHOW data_directory").fetchone()[0]))  # type: ignore[index]
        dumps = [_dump(live.database_url, tmp_path / "ours.sql"), _dump(_prefect(live), tmp_path / "prefect.sql")]
    assert all(dump.stat().st_size > 10_000 for dump in dumps)
    assert b"REDACTED" in dumps[0].read_bytes()
    assert b"REDACTED" in dumps[1].read_bytes()
    shown = tmp_path / "shown.txt"
    shown.write_text(str([state, caplog.text, task_service.export(live.center, live.caller)]), "utf-8")
    assert find_files(tmp_path, needles) == []
    assert find_files(live.home, needles) == []
    assert find_files(place, needles) == []


def _saved(live: LiveCenter, graph: Composite) -> str:
    data = {"name": graph.name, "taskType": "composite", "graph": graph.to_dict()}
    return task_service.save(live.center, data, live.caller).slug


def _prefect(live: LiveCenter) -> str:
    head, _, rest = live.database_url.partition("/taskcenter")
    return f"{head}/prefect{rest}"


def _dump(url: str, into: Path) -> Path:
    """Every table as text: what TOAST compresses stands here in the clear."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection, into.open("wb") as file:
        for (table,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall():
            with connection.cursor().copy(f'COPY "{table}" TO STDOUT') as rows:
                file.writelines(bytes(block) for block in rows)
    return into
