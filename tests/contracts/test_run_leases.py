"""Leases of runs: one holder, renewed together, taken away once. (spec 5.3)"""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from taskcenter.scheduling.state import OpenRun
from taskcenter_adapter.database import make_engine, upgrade
from taskcenter_adapter.leases import Lease, holder_of, this_machine
from taskcenter_adapter.run_gate import Asked, RunGate
from taskcenter_adapter.run_leases import CLOSING, LEASE, RunLeases
from taskcenter_adapter.store_sql import SqlStore

NOW = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)
LATER = NOW + LEASE + timedelta(seconds=1)


@pytest.fixture
def leases(tmp_path: Path) -> RunLeases:
    url = f"sqlite:///{tmp_path}/leases.db"
    upgrade(make_engine(url))
    return RunLeases(SqlStore(make_engine(url)))


def take(leases: RunLeases, run_id: str, holder: str, now: datetime, facts: dict[str, Any]) -> bool:
    """As a worker does."""
    asked = Asked(OpenRun(run_id, "", NOW))
    return run_id in RunGate(leases._store).admit([asked], holder, now, facts).start


def test_one_worker_has_a_run_until_its_lease_runs_out(leases: RunLeases) -> None:
    assert take(leases, "r-1", "a", NOW, {})
    assert not take(leases, "r-1", "a", NOW, {})
    assert not take(leases, "r-1", "b", NOW + LEASE - timedelta(seconds=1), {})
    assert take(leases, "r-1", "b", LATER, {})
    assert leases.renew("a", {"r-1"}, LATER) == set()
    assert leases.renew("b", {"r-1"}, LATER) == {"r-1"}
    leases.give_up("r-1", "a")
    assert [held.holder for held in leases.runs()] == ["b"]
    leases.give_up("r-1", "b")
    assert leases.runs() == []


def test_all_runs_of_a_worker_are_renewed_and_only_its_own(leases: RunLeases) -> None:
    for run_id, holder in (("r-1", "a"), ("r-2", "a"), ("r-3", "b")):
        assert take(leases, run_id, holder, NOW, {})
    leases.present("a", NOW, {})
    assert take(leases, "unknown", "a", NOW, {})  # the answer to this claim was lost
    assert leases.renew("a", {"r-1", "r-2", "r-3"}, LATER) == {"r-1", "r-2"}
    assert {held.name: held.until for held in leases.runs()} == {
        "r-1": LATER + LEASE,
        "r-2": LATER + LEASE,
        "r-3": NOW + LEASE,
        "unknown": NOW + LEASE,
    }


def test_a_run_is_taken_away_once_and_not_after_a_renewal(leases: RunLeases) -> None:
    assert take(leases, "r-1", "a", NOW, {"host": "h"})
    [seen] = leases.runs()
    leases.renew("a", {"r-1"}, NOW + timedelta(seconds=1))
    assert leases.take_over(seen, NOW) is None
    [seen] = leases.runs()
    taken: list[Lease | None] = []
    threads = [threading.Thread(target=lambda: taken.append(leases.take_over(seen, LATER))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [mine] = [one for one in taken if one is not None]
    assert leases.renew("a", {"r-1"}, LATER) == set()
    [held] = leases.runs()
    assert (held, held.taken, held.until) == (mine, True, LATER + CLOSING)
    leases.drop(seen)  # it is no longer as it was seen
    again = leases.take_over(held, LATER + CLOSING)  # who took it did not come to the end
    assert again is not None
    assert (again.holder, again.epoch) == (held.holder, held.epoch + 1)
    leases.drop(held)
    assert leases.runs() == [again]
    leases.drop(again)
    assert leases.runs() == []


def test_a_run_whose_end_is_in_doubt_is_left_to_the_service(leases: RunLeases) -> None:
    holder = holder_of()
    assert take(leases, "r-1", holder, NOW, this_machine())
    leases.leave("r-1", holder, NOW)
    [held] = leases.runs()
    assert (held.left, held.dead, held.until) == (True, True, NOW)
    assert leases.renew(holder, {"r-1"}, NOW) == set()
    leases.give_up("r-1", holder)
    assert leases.take_over(held, NOW) is not None


def test_a_worker_says_what_it_does_and_is_forgotten_in_time(leases: RunLeases) -> None:
    leases.present("a", NOW, {"limit": 4})
    leases.present("a", LATER, {"limit": 5})
    leases.present("b", NOW, {})
    assert [(held.name, held.facts) for held in leases.workers()] == [("a", {"limit": 5}), ("b", {})]
    leases.forget_silent(LATER)
    assert [held.name for held in leases.workers()] == ["a"]
    leases.gone("a")
    assert leases.workers() == []


def test_whether_a_worker_is_known_to_be_dead() -> None:
    def held(holder: str, **facts: str) -> Lease:
        return Lease("r-1", holder, 1, NOW, {**this_machine(), **facts})

    assert not held(holder_of()).dead
    assert held(f"here/{os.getpid()}@1").dead  # another process has its number now
    assert held("here/4194304@1").dead
    assert held(holder_of(), boot="before the power went").dead
    assert not held("elsewhere/4194304@1", host="elsewhere").dead
