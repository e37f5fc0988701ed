"""No secret in any byte: after a run of everything, databases, logs, files and what is given out are read. (spec 6.6)

The secret is known to the runs by reference only. The tasks print, log, raise, return, keep and pass it on in every
written form (``leaks.py``), also while the database is away; afterwards all bytes are searched:
of PostgreSQL's data directory (tables, write-ahead log, its own log) and a plain dump of both databases (TOAST
compresses long values), or of both SQLite files with their logs of changes, of everything else under the home, and of
every answer that REST gives.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prefect import flow
from prefect.blocks.system import Secret

from blocks.connections import variable_name
from composites import Composite
from flows.composite import composite
from flows.run_task import python, shell
from flows.task_types.prefect_tasks import as_prefect_task
from taskcenter.errors import ServerAway
from taskcenter.models import Run
from taskcenter.ports import RunFilter
from taskcenter.status import StepStatus
from taskcenter_adapter import recorder
from taskcenter_adapter.runtime import spool_folder
from taskcenter_adapter.spool import replay_spool
from taskcenter_adapter.store_sql import SqlStore
from taskcenter_console.api.app import make_app
from taskcenter_console.services import secrets
from taskcenter_console.services import tasks as task_service
from tests.fakes import api_client
from tests.integration import leaks
from tests.integration.conftest import LiveCenter

PLACES = [("taskcenter", "postgresql"), ("prefect", "postgresql"), ("taskcenter", "sqlite")]


@pytest.fixture
def echo() -> Iterator[str]:
    with leaks.echo_server() as url:
        yield url


def name_of(word: str) -> str:
    return f"{word}-{uuid.uuid4().hex[:8]}"


def saved(live: LiveCenter, graph: Composite) -> str:
    data = {"name": graph.name, "taskType": "composite", "graph": graph.to_dict()}
    return task_service.save(live.center, data, live.caller).slug


def last_run(live: LiveCenter, slug: str) -> Run:
    return live.store.list_runs(RunFilter(task_id=task_service.get(live.center, slug).id, limit=1)).items[0]


def run_everything(live: LiveCenter, block: str, echo: str) -> tuple[list[Any], str]:
    """The states that Prefect was given, and the composite's slug."""
    inner = Composite(name_of("inner"), inputs={"t": ""})
    inner.step("says", "python", code="print(t)", kwargs={"t": "{{inputs.t}}"})
    graph = leaks.everything(name_of("everything"), block, echo, "shop", "branch", saved(live, inner))
    slug = saved(live, graph)
    outer = Composite(name_of("outer"))
    outer.step("inner", "composite", composite=slug)
    ref = {"secret": block}
    command = {"command": ["sh", "-c", 'echo "$V"; exit 3'], "environment": {"V": ref}}
    alone = {"name": name_of("alone"), "taskType": "shell", "payload": command}
    raising = {"code": leaks.RAISES, "kwargs": {"s": ref}, "isolate": False}
    states = [
        asyncio.run(composite(task=slug, return_state=True)),
        asyncio.run(composite(task=slug, dry_run=True, return_state=True)),
        asyncio.run(composite(task=saved(live, outer), return_state=True)),
    ]
    for body, data in ((shell, alone), (python, {"name": name_of("one"), "taskType": "python", "payload": raising})):
        one = task_service.save(live.center, data, live.caller)
        states.append(asyncio.run(body(task=one.slug, return_state=True)))
        assert states[-1].is_failed()

    @flow(log_prints=False)
    def by_hand() -> None:
        as_prefect_task("python")(**raising)

    states.append(by_hand(return_state=True))  # type: ignore[call-overload]
    assert states[-1].is_failed()
    return states, slug


def run_while_away(live: LiveCenter, block: str, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A run whose reports nobody takes; the files that they are kept in."""
    graph = Composite(name_of("away"), continue_on_error=True)
    graph.step("loud", "loud", secret={"secret": block})
    graph.step("raises", "python", code=leaks.RAISES, kwargs={"s": {"secret": block}}, isolate=False)
    slug = saved(live, graph)

    def away(*_: Any) -> None:
        raise ServerAway("the database does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(SqlStore, "record", away)
        patch.setattr(recorder, "_PATIENCE", 0.1)
        asyncio.run(composite(task=slug, return_state=True))
    return list(spool_folder(live.home).glob("*.json"))


def shown_by_rest(live: LiveCenter, slug: str) -> str:
    """Every answer there is to a question, for this composite and its run."""
    run = last_run(live, slug)
    names = {"name": slug, "run_id": run.id, "other_id": run.id, "key": "loud",
             "snapshot_id": live.store.snapshots.page()[0].id,
             "entry_id": live.store.list_audit(run_id=run.id)[0].id}  # fmt: skip
    client = api_client(live.center)
    answers: dict[str, Any] = {}
    for path, item in make_app(live.center).openapi()["paths"].items():
        if "get" in item:
            answers[path] = client.get(re.sub(r"\{(\w+)\}", lambda part: names.get(part[1], "none"), path))
    good = {path for path, answer in answers.items() if answer.status_code == 200}
    of_run = {f"/api/runs/{{run_id}}{end}" for end in ("", "/steps", "/logs")}
    assert good >= {*of_run, "/api/audit/export", "/api/tasks/export", "/api/events", "/api/snapshots/{snapshot_id}"}
    return "\n".join(answer.text for answer in answers.values())


@pytest.mark.parametrize(("store", "database"), PLACES, ids=["-".join(place) for place in PLACES])
def test_no_byte_of_a_secret_is_left_behind(
    store: str, database: str, echo: str, request: pytest.FixtureRequest, tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    live: LiveCenter = request.getfixturevalue("live" if database == "postgresql" else "live_on_sqlite")
    value = f"Pl'an\"ted <{uuid.uuid4().hex}> & {'Ünd' if store == 'prefect' else 'And'}/so+weiter"
    block = f"planted-{uuid.uuid4().hex[:8]}"
    if store == "prefect":
        Secret(value=value).save(block, overwrite=True, _sync=True)  # type: ignore[call-arg]
    else:
        secrets.put(live.center, block, value, live.caller)
    users = tmp_path_factory.mktemp("users")  # what users keep themselves is theirs
    for name, other in (("shop", False), ("branch", True)):
        monkeypatch.setenv(variable_name(name), leaks.fill_shop(users / f"{name}.db", value, other=other))

    with caplog.at_level(logging.INFO):
        states, slug = run_everything(live, block, echo)
        kept = run_while_away(live, block, monkeypatch)
    steps = {step.step_key: step for step in live.store.list_steps(last_run(live, slug).id)}
    good = {key for key, step in steps.items() if step.status is StepStatus.SUCCESS}
    assert good - {"asks"} == {"shouts", "inside", "loud", "reads", "binds", "looks", "keeps", "compares"}
    assert ("asks" in good) == value.isascii()  # a header takes no other letters
    for key in ("handed-down", "handed-over"):
        assert "which Prefect keeps in clear" in str(steps[key].error)
    used = [entry for entry in live.store.list_audit(limit=1000) if entry.event_type == "secret_used"]
    mine = [entry.metadata for entry in used if entry.metadata["name"] == block]
    assert {entry["store"] for entry in mine} == {store}
    assert {"shouts", "prints", "asks", "loud", "binds"} <= {entry["step"] for entry in mine}

    needles = leaks.needles_of(value)
    assert leaks.find((users / "shop.db").read_bytes(), needles)  # the search finds what there is
    assert len(kept) == 1
    assert b"REDACTED" in kept[0].read_bytes()
    assert leaks.find(kept[0].read_bytes(), needles) == []
    assert replay_spool(live.store, spool_folder(live.home)) == 1
    time.sleep(1.5)  # Prefect's recorders write behind
    shown = [states, caplog.text, shown_by_rest(live, slug)]
    (tmp_path / "shown.txt").write_text("\n".join(map(str, shown)), "utf-8")
    if database == "postgresql":
        with psycopg.connect(live.database_url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("CHECKPOINT")
            place = Path(str(connection.execute("SHOW data_directory").fetchone()[0]))  # type: ignore[index]
        written = [_dump(live.database_url, tmp_path / "ours.sql"), _dump(_prefect(live), tmp_path / "prefect.sql")]
        assert leaks.find_files(place, needles) == []
    else:
        written = [max(live.home.glob(f"{name}.db*"), key=lambda file: file.stat().st_size)
                   for name in ("taskcenter", "prefect")]  # fmt: skip
    for file in written:
        assert b"REDACTED" in file.read_bytes(), file
    assert leaks.find_files(tmp_path, needles) == []
    assert leaks.find_files(live.home, needles) == []


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
