"""The shared decision about who starts: claims are the places, whoever asks. (spec 5.2)"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from store_makers import a_task

from deployments.worker_leases import WorkerLeases
from taskcenter.models import Run
from taskcenter.ports import Changes
from taskcenter.scheduling.admission import WaitCode
from taskcenter.scheduling.limits import LIMITS_KEY
from taskcenter.scheduling.state import OpenRun
from taskcenter.settings import Settings
from taskcenter.status import Priority, RunPhase
from taskcenter_adapter.database import make_engine, upgrade
from taskcenter_adapter.run_gate import Asked, RunGate
from taskcenter_adapter.run_leases import LEASE, PLACE, RunLeases
from taskcenter_adapter.store_sql import SqlStore

NOW = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def open_one(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], SqlStore]:
    """Opens the same database again, as another worker does."""
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/gate.db" if sqlite else request.getfixturevalue("new_postgres")()
    upgrade(make_engine(url))
    return lambda: SqlStore(make_engine(url))


def asked(name: str, slug: str = "orders", seconds: float = 0, **about: Any) -> Asked:
    return Asked(OpenRun(name, "", NOW + timedelta(seconds=seconds - 60), **about), slug)


def limit(store: SqlStore, **limits: Any) -> None:
    store.set_setting(LIMITS_KEY, limits)


def test_askers_at_once_never_start_more_than_a_limit_allows(open_one: Callable[[], SqlStore]) -> None:
    first = open_one()
    first.save_task(a_task(tags=("etl",)))
    limit(first, tag={"etl": 3})
    many = [asked(f"r{n:02}", seconds=n) for n in range(12)]
    started: list[tuple[str, tuple[str, ...]]] = []
    stores = [open_one() for _ in range(4)]

    def ask(store: SqlStore, holder: str) -> None:
        for _ in range(3):
            started.append((holder, RunGate(store).admit(many, holder, NOW, {}, places=2).start))

    threads = [threading.Thread(target=ask, args=(store, f"w{n}")) for n, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(run_id for _, ids in started for run_id in ids) == ["r00", "r01", "r02"]
    assert sorted(lease.name for lease in RunLeases(first).runs()) == ["r00", "r01", "r02"]
    leases = RunLeases(first)
    [mine] = [lease for lease in leases.runs() if lease.name == "r01"]
    leases.give_up("r01", mine.holder)
    assert RunGate(first).admit(many[3:], "w9", NOW, {}).start == ("r03",)


def test_each_limit_counts_what_all_claims_use(open_one: Callable[[], SqlStore]) -> None:
    store = open_one()
    gate = RunGate(store)
    store.save_task(a_task("one", max_concurrent=1))
    store.save_task(a_task("dump", payload={"source": {"connection": "erp"}, "targetConnectionId": "lake"}))
    store.save_task(a_task("load", payload={"connection": "lake"}))
    limit(store, connection={"lake": 1}, task={"id-of-load": 5})
    assert gate.admit([asked("a", "one"), asked("b", "dump")], "w1", NOW, {}).start == ("a", "b")
    found = gate.admit([asked("c", "one"), asked("d", "load"), asked("e", "none-of-ours")], "w2", NOW, {})
    assert found.start == ("e",)
    assert {run_id: wait.code for run_id, wait in found.waits.items()} == {
        "c": WaitCode.TASK_LIMIT,
        "d": WaitCode.CONNECTION,
    }
    # its own payload names another connection than its task's
    store.save_task(a_task("plain"))
    mine = asked("f", "plain", connections=("lake",))
    assert gate.admit([mine], "w2", NOW, {}).waits["f"].code is WaitCode.CONNECTION
    limit(store, pool=4)
    assert gate.admit([asked("d", "load"), asked("g", "load")], "w2", NOW, {}).start == ("d",)


def test_payloads_are_read_only_where_a_connection_is_limited(open_one: Callable[[], SqlStore]) -> None:
    store = open_one()
    store.save_task(a_task("load", payload={"connection": "lake"}))
    graph = {"steps": [{"stepKey": "x", "taskType": "sql_script", "payload": {"connection": "erp"}}], "edges": []}
    store.save_task(a_task("nightly", task_type="composite"), graph=graph)
    read: list[str] = []
    sa.event.listen(store.engine, "before_cursor_execute", lambda *about: read.append(about[2]))
    ask = [asked("a", "load"), asked("b", "nightly")]
    RunGate(store).look(ask, NOW)
    assert not [text for text in read if ".payload" in text]
    limit(store, connection={"lake": 1})
    read.clear()
    RunGate(store).look(ask, NOW)
    assert len([text for text in read if ".payload" in text]) == 2


def test_a_step_that_is_a_saved_task_brings_its_limits(open_one: Callable[[], SqlStore]) -> None:
    store = open_one()
    gate = RunGate(store)
    store.save_task(a_task("load", payload={"connection": "lake"}, tags=("etl",), max_concurrent=1))
    graph = {"steps": [{"stepKey": "x", "referencedTaskId": "id-of-load"}, {"stepKey": "y", "taskType": "sql_script",
                        "payload": {"connection": "erp"}}], "edges": []}  # fmt: skip
    store.save_task(a_task("nightly", task_type="composite"), graph=graph)
    assert gate.admit([asked("a", "load")], "w", NOW, {}).start == ("a",)
    wait = gate.admit([asked("b", "nightly")], "w", NOW, {}).waits["b"]
    assert str(wait) == "at most 1 runs of load go at once, and that is a step of it"
    RunLeases(store).give_up("a", "w")
    assert gate.admit([asked("b", "nightly")], "w", NOW, {}).start == ("b",)
    limit(store, connection={"erp": 1}, tag={"etl": 1})
    store.save_task(a_task("other", payload={"connection": "erp"}))
    store.save_task(a_task("tagged", tags=("etl",)))
    found = gate.admit([asked("c", "load"), asked("d", "other"), asked("e", "tagged")], "w", NOW, {})
    assert Counter(wait.code for wait in found.waits.values()) == {
        WaitCode.TASK_LIMIT: 1, WaitCode.CONNECTION: 1, WaitCode.TAG: 1,
    }  # fmt: skip


def test_the_rows_of_those_that_wait_say_for_what(open_one: Callable[[], SqlStore]) -> None:
    store = open_one()
    task = store.save_task(a_task(tags=("etl",)))
    limit(store, tag={"etl": 1})
    names = ("r-first", "r-second")
    store.record(
        Changes(
            runs=[Run(id=n, task_id=task.id, task_slug="orders", task_type="python", created_at=NOW) for n in names]
        )
    )
    waiting = [asked("r-first"), asked("r-second", seconds=1, priority=Priority.LOW)]
    RunGate(store).admit(waiting, "w", NOW, {})
    [first, second] = [store.get_run(name) for name in names]
    assert first.phase is not RunPhase.AWAITING_SLOT
    text = "it waits: at most 1 runs with the tag etl go at once"
    assert (second.phase, second.message) == (RunPhase.AWAITING_SLOT, text)


def test_a_row_that_comes_later_is_told_then(open_one: Callable[[], SqlStore]) -> None:
    store, told = open_one(), dict[str, str]()
    task = store.save_task(a_task(tags=("etl",)))
    limit(store, tag={"etl": 1})
    waiting = [asked("r-first"), asked("r-second", seconds=1)]
    RunGate(store).admit(waiting, "w", NOW, {}, told=told)
    assert told == {}
    late = Run(id="r-second", task_id=task.id, task_slug="orders", task_type="python", created_at=NOW)
    store.record(Changes(runs=[late]))
    RunGate(store).admit(waiting[1:], "w", NOW, {}, told=told)
    text = "at most 1 runs with the tag etl go at once"
    assert (told, store.get_run("r-second").message) == ({"r-second": text}, f"it waits: {text}")


def test_a_full_worker_still_knows_who_waits(open_one: Callable[[], SqlStore], tmp_path: Path) -> None:
    """So that the next run that ends starts the next one, without asking Prefect who waits."""
    store = open_one()
    url = store.engine.url.render_as_string(hide_password=False)
    settings = Settings(home=tmp_path, project=tmp_path, database_url=url)
    leases = WorkerLeases(settings, logging.getLogger("worker"))
    many = [asked(name, seconds=n) for n, name in enumerate(("a", "b", "c"))]
    found = [asyncio.run(leases.admit(some, 0)) for some in (many, many, many[1:])]
    leases.close()
    assert [each.order for each in found if each] == [("a", "b", "c"), ("a", "b", "c"), ("b", "c")]
    assert all(each and each.start == () and list(each.waits) == list(each.order) for each in found)


def test_a_claim_counts_until_it_is_closed_and_a_place_until_it_is_not_renewed(
    open_one: Callable[[], SqlStore],
) -> None:
    store = open_one()
    gate, later = RunGate(store), NOW + LEASE + timedelta(seconds=1)
    store.save_task(a_task(max_concurrent=1))
    assert gate.admit([asked("a")], "gone", NOW, {}).start == ("a",)
    assert gate.admit([asked("b")], "w", later, {}).start == ()  # nobody has closed a yet
    assert gate.admit([asked("a"), asked("b")], "w", later, {}).start == ("a",)  # it waits again, and is taken over
    RunLeases(store).give_up("a", "w")
    assert gate.admit([asked("c")], "process", NOW, {}, kind=PLACE).start == ("c",)
    assert gate.admit([asked("b")], "w", NOW, {}).start == ()
    RunLeases(store).renew("process", ["c"], NOW + timedelta(seconds=20), PLACE)
    assert gate.admit([asked("b")], "w", later, {}).start == ()
    RunLeases(store).give_up("c", "process", PLACE)
    assert gate.admit([asked("b")], "w", later, {}).start == ("b",)
