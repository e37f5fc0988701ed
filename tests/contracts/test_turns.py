"""Who waits to write into a SQLite file is seen by who writes all the time, and is let in. (spec 6.1, 6.5)"""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

from store_makers import a_run

from taskcenter.ports import Changes
from taskcenter_adapter.database import make_engine
from taskcenter_adapter.store_sql import SqlStore
from taskcenter_adapter.turns import Turns, waiting

_WAITS = """\
import sys, time
from taskcenter_adapter.turns import waiting
with waiting(sys.argv[1]):
    print("waits", flush=True)
    time.sleep(60)
"""


def test_a_waiting_process_is_seen_until_it_is_gone(tmp_path: Path) -> None:
    database = str(tmp_path / "store.db")
    turns = Turns(database)
    assert not turns.somebody_waits()
    argv = [sys.executable, "-c", _WAITS, database]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "waits\n"
        with waiting(database):
            assert turns.somebody_waits()
        assert turns.somebody_waits()
        other.send_signal(signal.SIGKILL)
    assert not turns.somebody_waits()
    turns.close()


def test_who_does_not_look_again_is_passed_over(tmp_path: Path) -> None:
    turns = Turns(str(tmp_path / "store.db"))
    with waiting(str(tmp_path / "store.db")):
        began = time.monotonic()
        turns.let_in(0.05)
        assert 0.05 <= time.monotonic() - began < 5
    turns.close()


def test_a_folder_that_cannot_be_written_changes_nothing() -> None:
    nowhere = "/proc/no/such/store.db"
    turns = Turns(nowhere)
    with waiting(nowhere):
        assert not turns.somebody_waits()
    turns.close()


def test_a_writer_that_finds_the_lock_taken_says_so(sqlite_url: str) -> None:
    store = SqlStore(make_engine(sqlite_url))
    path = sqlite_url.removeprefix("sqlite:///")
    turns, raw = Turns(path), sqlite3.connect(path, isolation_level=None)
    raw.execute("BEGIN IMMEDIATE")
    other = threading.Thread(target=lambda: store.record(Changes(runs=[a_run("waits")])))
    other.start()
    end = time.monotonic() + 5
    while not turns.somebody_waits() and time.monotonic() < end:
        time.sleep(0.001)
    assert turns.somebody_waits()
    raw.execute("COMMIT")
    other.join()
    assert not turns.somebody_waits()
    assert store.find_run("waits") is not None
    raw.close()
    turns.close()
    store.close()
