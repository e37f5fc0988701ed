"""Services that are killed while minute triggers fire: one verdict per slot, and never two runs. (spec 4.2, 5.3)"""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from taskcenter.clock import utc_now
from taskcenter.models import Task, Trigger
from taskcenter.scheduling.ledger import Occurrence, Verdict
from taskcenter.scheduling.occurrences import slots
from taskcenter_adapter.database import make_engine, upgrade
from taskcenter_adapter.postgres import remove_cluster, start_postgres
from taskcenter_adapter.store_sql import SqlStore
from tests.scheduler_process import START

ROOT = Path(__file__).resolve().parents[2]
SPEED = 450.0
"""Five hours in forty seconds."""
HOURS = 5


@pytest.fixture
def database(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "home").mkdir()
    postgres = start_postgres(tmp_path / "home")
    try:
        yield postgres.url("taskcenter")
    finally:
        postgres.stop()
        remove_cluster(tmp_path / "home")


class Services:
    """Processes over one database; ``began`` is the real time of the first simulated instant."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.file, self.log = url, folder / "prefect.db", folder / "services.log"
        self.began = utc_now()
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "tests.scheduler_process", self.url, str(self.file), self.began.isoformat()]
        with open(self.log, "ab") as log:
            process = subprocess.Popen([*argv, str(SPEED)], cwd=ROOT, stderr=log, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", self.log.read_text()
        self.running.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        self.running.remove(process)

    def stop(self) -> None:
        for process in list(self.running):
            process.terminate()
            process.wait(30)
        self.running.clear()

    def now(self) -> datetime:
        return START + (utc_now() - self.began) * SPEED

    def flow_runs(self) -> list[tuple[str, str]]:
        return sqlite3.connect(self.file).execute("SELECT trigger_id, at FROM runs").fetchall()

    def startable(self, but: set[str]) -> set[tuple[str, str]]:
        """Trigger and slot of the flow runs that a worker would start; ``but`` are those that are to be cancelled."""
        rows = sqlite3.connect(self.file).execute("SELECT id, trigger_id, at FROM runs WHERE state = 'SCHEDULED'")
        return {(trigger_id, at) for run_id, trigger_id, at in rows if run_id not in but}


class Clock:
    """Definitions were written at the first simulated instant."""

    def now(self) -> datetime:
        return START


POLICIES = ("fire_now", "fire_all", "skip")


def _triggers(store: SqlStore) -> list[Trigger]:
    made: list[Trigger] = []
    for number in range(6):
        trigger = Trigger(
            id=f"r{number}",
            type="cron",
            cron_expression="* * * * *",
            timezone="Europe/Berlin",
            misfire_policy=POLICIES[number % 3],  # type: ignore[arg-type]
            overlap="allow",
        )
        store.save_task(Task(id=f"t{number}", name=f"t{number}", task_type="shell", triggers=(trigger,)))
        made.append(trigger)
    return made


def test_killed_twenty_times_in_five_hours_of_minute_triggers(database: str, tmp_path: Path) -> None:
    engine = make_engine(database)
    upgrade(engine)
    store = SqlStore(engine, clock=Clock())
    triggers = _triggers(store)
    services = Services(database, tmp_path)
    chance = random.Random(20)
    end = START + timedelta(hours=HOURS)
    kills = 0
    try:
        process = services.start()
        while services.now() < end or kills < 20:
            time.sleep(chance.uniform(0.4, 2.4))
            services.kill(process)
            kills += 1
            process = services.start()
        mark = services.now()
        _until(lambda: all(_is_made(row) for row in store.schedule.ledger(until=mark, verdict="fired", limit=10_000)))
        services.stop()
    finally:
        services.stop()
    assert kills >= 20
    rows = store.schedule.ledger(limit=1_000_000)
    for trigger in triggers:
        own = [row for row in rows if row.trigger_id == trigger.id]
        last = max(row.last for row in own)
        assert last >= end - timedelta(minutes=1)
        computed = slots(trigger, START, last, 100_000)
        # one verdict for each slot, and for nothing else
        told = Counter({slot: sum(row.covers(slot) for row in own) for slot in computed})
        assert set(told.values()) == {1}
        assert sum(row.count for row in own) == len(computed)
        fired = {str(row.slot) for row in own if row.verdict is Verdict.FIRED}
        made = Counter(at for trigger_id, at in services.flow_runs() if trigger_id == trigger.id)
        assert set(made.values()) == {1}
        assert {at for at in fired if at <= str(mark)} <= set(made)  # what fired has its run
        back = {str(item.request.slot) for item, _ in store.schedule.requests.withdrawn(100_000)}
        cancelled = {run_id for run_id, _ in store.schedule.requests.cancels(100_000)}
        past = {at for key, at in services.startable(cancelled) if key == trigger.id and at <= str(last)}
        # no other slot that is past has one, but those that the last service had yet to take back in Prefect
        assert past - fired - back == set()
    store.close()


def _is_made(row: Occurrence) -> bool:
    """Whether its run is a flow run, and no longer only asked for under its key."""
    return row.run_id is not None and " " not in row.run_id


def test_a_standby_takes_over_and_nothing_doubles(database: str, tmp_path: Path) -> None:
    engine = make_engine(database)
    upgrade(engine)
    store = SqlStore(engine, clock=Clock())
    trigger = Trigger(id="r0", type="interval", interval_seconds=60, anchor=START, misfire_policy="fire_all",
                      overlap="allow")  # fmt: skip
    store.save_task(Task(id="t0", name="t0", task_type="shell", triggers=(trigger,)))
    services = Services(database, tmp_path)
    try:
        leader, _standby = services.start(), services.start()
        _until(lambda: len(store.schedule.ledger(limit=10_000)) > 5)
        first = store.schedule.lead.find()
        assert first is not None
        holder = next(p for p in services.running if f"/{p.pid}@" in first.holder)
        begin = time.monotonic()
        services.kill(holder)
        _until(lambda: (lease := store.schedule.lead.find()) is not None and lease.holder != first.holder)
        assert time.monotonic() - begin < 15
        count = len(store.schedule.ledger(limit=10_000))
        _until(lambda: len(store.schedule.ledger(limit=10_000)) > count + 5)
        assert leader.pid > 0
    finally:
        services.stop()
    made = Counter(services.flow_runs())
    assert set(made.values()) == {1}
    store.close()


def _until(true: object, seconds: float = 30) -> None:
    assert callable(true)
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
