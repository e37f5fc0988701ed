"""When it is a worker's turn to make its warm process anew, and what marks a process that may leak. (spec 5.2)"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from deployments.worker_processes import ProcessBook
from taskcenter.recycling import decide_recycling, leak_marks, minute_of, next_turn
from taskcenter_adapter.leases import holder_of, this_machine
from taskcenter_adapter.run_leases import RunLeases
from taskcenter_console.services import workers
from tests.fakes import fake_center

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
OLD = NOON - 5 * HOUR


def test_the_first_twenty_workers_have_minutes_of_their_own() -> None:
    assert [minute_of(index) for index in (0, 1, 19, 20, 21)] == [0, 3, 57, 0, 3]
    assert len({minute_of(index) for index in range(20)}) == 20


@pytest.mark.parametrize(
    ("index", "after", "found"),
    [
        (1, NOON, NOON + 3 * MINUTE),
        (1, NOON + 3 * MINUTE, NOON + HOUR + 3 * MINUTE),
        (0, NOON, NOON + HOUR),
        (19, NOON + 59 * MINUTE, NOON + HOUR + 57 * MINUTE),
    ],
)
def test_the_next_turn(index: int, after: datetime, found: datetime) -> None:
    assert next_turn(index, after) == found


def test_a_turn_comes_once_an_hour_however_often_it_is_asked() -> None:
    turns, last = [], NOON
    for seconds in range(20, 3 * 3600, 20):
        now = NOON + timedelta(seconds=seconds)
        if decide_recycling(2, now, last, OLD, idle=True).renew:
            turns.append(now)
        last = now
    assert turns == [NOON + 6 * MINUTE, NOON + HOUR + 6 * MINUTE, NOON + 2 * HOUR + 6 * MINUTE]


def test_a_turn_that_was_slept_through_is_still_due() -> None:
    assert decide_recycling(1, NOON + 40 * MINUTE, NOON, OLD, idle=True).renew


@pytest.mark.parametrize(
    ("born", "idle", "marks", "renew", "reason"),
    [
        (OLD, True, (), True, "idle at its turn"),
        (OLD, False, ("grown by 300 MB",), False, "it has runs: it stays"),
        (NOON - MINUTE, True, (), False, "it is new"),
        (NOON - MINUTE, True, ("grown by 300 MB",), True, "grown by 300 MB"),
    ],
)
def test_what_is_done_at_a_turn(born: datetime, idle: bool, marks: tuple[str, ...], renew: bool, reason: str) -> None:
    found = decide_recycling(0, NOON + HOUR, NOON, born + HOUR, idle=idle, marks=marks)
    assert (found.collect, found.renew, found.reason, found.next_at) == (True, renew, reason, NOON + 2 * HOUR)


def test_marks() -> None:
    assert leak_marks(24 * HOUR, 100.0) == ()
    assert leak_marks(25 * HOUR, None) == ("25 h old",)
    assert leak_marks(HOUR, 130.4) == ("grown by 130 MB",)
    assert len(leak_marks(30 * HOUR, 101.0)) == 2


def test_a_process_is_measured_from_when_it_was_seen_first() -> None:
    book = ProcessBook()
    first = book.measure(psutil.Process().pid)
    kept = bytearray(b"x") * (40 << 20)
    later = book.measure(psutil.Process().pid)
    assert (first["grownMb"], later["grownMb"] > 30, later["cpuSeconds"] > 0) == (0.0, True, True)
    assert datetime.fromisoformat(first["since"]) < datetime.now(UTC)
    del kept
    assert book.measure(None) == {"pid": None}
    assert book.measure(2**22 + 1) == {"pid": 2**22 + 1}


def test_the_listing_says_what_each_worker_has_measured(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    center = fake_center(tmp_path, scheduled=True)
    leases: Any = RunLeases(center.store)  # type: ignore[arg-type]
    born = (NOON - 26 * HOUR).isoformat()
    process = {"pid": 7, "since": born, "cpuSeconds": 1.5, "memoryMb": 300.0, "grownMb": 150.0}
    facts = {"name": "w", "pool": "p", "limit": 4, "process": process, "heardAt": NOON.isoformat(),
             "warm": {"pid": 8, "seconds": 0.9, "renewed": 2},
             "runs": {"r1": {"pid": 9, "phase": "running"}}}  # fmt: skip
    leases.present(holder_of(), NOON, {**this_machine(), **facts})
    [found] = workers.listing(center, now=NOON)
    assert (found["state"], found["running"], found["free"], found["renewed"]) == ("online", 1, 3, 2)
    assert found["heardAt"] == NOON.isoformat()
    worker, warm, run = found["processes"]
    assert worker["marks"] == ["grown by 150 MB", "26 h old"]
    assert (worker["ageSeconds"], worker["cpuSeconds"]) == (26 * 3600, 1.5)
    assert (warm["role"], warm["marks"], run["runId"], run["phase"]) == ("warm", [], "r1", "running")
    [silent] = workers.listing(center, now=NOON + HOUR)
    assert (silent["state"], silent["free"]) == ("silent", 0)
    center.store.close()
