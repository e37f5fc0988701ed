"""SQLite's log of changes is brought into its file beside others, and who waits to write gets a turn. (spec 6.1)"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from store_makers import a_run

from taskcenter.errors import ServerAway
from taskcenter.ports import Changes
from taskcenter_adapter import database
from taskcenter_adapter.database import make_engine
from taskcenter_adapter.store_sql import SqlStore
from taskcenter_adapter.write_ahead import begin_anew, bring_in, catch_up


def size_of_log(url: str) -> int:
    return Path(url.removeprefix("sqlite:///") + "-wal").stat().st_size


def test_the_log_begins_anew_and_does_not_grow(sqlite_url: str) -> None:
    store = SqlStore(make_engine(sqlite_url))
    store.record(Changes(runs=[a_run(f"first-{n}") for n in range(300)]))
    assert begin_anew(store.engine) > 0
    size = size_of_log(sqlite_url)
    for part in range(10):
        store.record(Changes(runs=[a_run(f"{part}-{n}") for n in range(30)]))
        assert begin_anew(store.engine) > 0
    assert size_of_log(sqlite_url) == size
    assert begin_anew(store.engine) >= 0
    store.close()


def test_beside_a_reader_the_log_goes_on(sqlite_url: str) -> None:
    store = SqlStore(make_engine(sqlite_url))
    store.record(Changes(runs=[a_run("first")]))
    with store.reading() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM task_runs").scalar()
        store.record(Changes(runs=[a_run("second")]))
        assert begin_anew(store.engine) == 0
        store.record(Changes(runs=[a_run("third")]))  # nobody is kept from writing
    assert begin_anew(store.engine) > 0
    store.close()


def test_behind_one_who_writes_all_the_time_the_log_begins_anew_too(sqlite_url: str) -> None:
    store, over, turn, stood = SqlStore(make_engine(sqlite_url)), threading.Event(), threading.Lock(), []
    raw = sqlite3.connect(
        sqlite_url.removeprefix("sqlite:///"), isolation_level=None, timeout=5, check_same_thread=False
    )
    raw.execute("PRAGMA wal_autocheckpoint=0")
    raw.execute("CREATE TABLE numbers (number)")

    def write_all_the_time() -> None:
        while not over.is_set():
            with turn:
                raw.execute("INSERT INTO numbers SELECT value FROM json_each('[1,2,3,4,5,6,7,8]')")
            time.sleep(0.0005)

    @contextmanager
    def alone() -> Iterator[None]:
        with turn:
            stood.append(True)
            yield

    other = threading.Thread(target=write_all_the_time)
    other.start()
    sizes = []
    for _ in range(10):
        time.sleep(0.05)
        assert catch_up(store.engine, alone()) > 0
        sizes.append(size_of_log(sqlite_url))
    over.set()
    other.join()
    assert len(stood) == 10
    assert sizes[-1] < 4 * sizes[2]  # it does not grow and grow
    raw.close()
    store.close()


def test_what_was_brought_in_stands_in_the_file(sqlite_url: str, tmp_path: Path) -> None:
    store = SqlStore(make_engine(sqlite_url))
    store.record(Changes(runs=[a_run("first")]))
    free, pages, done = bring_in(store.engine)
    assert (free, pages == done > 0) == (True, True)
    copy = tmp_path / "copy.db"
    copy.write_bytes(Path(sqlite_url.removeprefix("sqlite:///")).read_bytes())  # without its log
    with sqlite3.connect(copy) as raw:
        assert raw.execute("SELECT count(*) FROM task_runs").fetchone() == (1,)
    raw.close()
    store.close()


def test_who_waits_gets_a_turn_beside_somebody_who_writes_all_the_time(sqlite_url: str) -> None:
    store, over = SqlStore(make_engine(sqlite_url)), threading.Event()

    def write_all_the_time() -> None:
        raw = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None, timeout=5)
        while not over.is_set():
            raw.execute("BEGIN IMMEDIATE")
            time.sleep(0.02)
            raw.execute("COMMIT")
            time.sleep(0.005)
        raw.close()

    other = threading.Thread(target=write_all_the_time)
    other.start()
    waits = []
    for number in range(20):
        began = time.monotonic()
        store.record(Changes(runs=[a_run(f"run-{number}")]))
        waits.append(time.monotonic() - began)
    over.set()
    other.join()
    assert sorted(waits)[10] < 0.15  # SQLite alone looks again after 1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50, 100 ms
    store.close()


def test_a_writer_gives_up_after_its_patience(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 100)
    store = SqlStore(make_engine(sqlite_url))
    raw = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    raw.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with pytest.raises(ServerAway, match="locked"):
        store.record(Changes(runs=[a_run("late")]))
    assert time.monotonic() - began >= 0.1
    raw.execute("ROLLBACK")
    raw.close()
    store.record(Changes(runs=[a_run("late")]))
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 100
    store.close()
