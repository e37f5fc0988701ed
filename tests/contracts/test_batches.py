"""Batches on both databases: kept whole, fed so many at once, stopped, cancelled, closed with what they came to."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from retention.policy import Policy, plan
from taskcenter.batches import Batch, BatchStatus, ItemStatus, batch_status, summary
from taskcenter.models import AuditEntry, Task
from taskcenter.options import RunOptions
from taskcenter.ports import AuditFilter, Changes, RunFilter
from taskcenter.status import Origin, Priority, RunStatus
from taskcenter_adapter.history_purge import HistoryPurge, policy_stamp
from taskcenter_adapter.mapping import facts_from_tags, tags_for
from taskcenter_adapter.store_sql import SqlStore

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def ask(store: SqlStore, count: int, parallel: int = 2, **about: Any) -> Batch:
    if store.find_task("t1") is None:
        store.save_task(Task(id="t1", name="t1", task_type="shell"))
    batch = Batch(task_id="t1", task_slug="t1", created_at=NOW, created_by="me", parallel=parallel,
                  items=tuple({"n": n} for n in range(count)), **about)  # fmt: skip
    entry = AuditEntry(event_type="batch_requested", object=f"batch {batch.id}", created_at=NOW)
    store.schedule.batches.ask(batch, Priority.NORMAL, [entry])
    return batch


def feed(store: SqlStore) -> list[str]:
    """One pass of the service: close and stop what is to be, then make the runs whose turn it is."""
    store.schedule.batches.tend(NOW)
    pairs = [(item.request, f"run {item.request.key}") for item in store.schedule.requests.wanted(NOW)]
    store.schedule.requests.made(pairs)
    return [run_id for _, run_id in pairs]


def end(store: SqlStore, run_ids: Iterable[str], status: RunStatus = RunStatus.SUCCESS, **about: Any) -> None:
    for run_id in run_ids:
        run = store.get_run(run_id)
        ended = {"status": status, "phase": None, "started_at": NOW, "finished_at": NOW, **about}
        store.record(Changes(runs=(run.model_copy(update=ended),)))


def statuses(store: SqlStore, batch: Batch) -> list[str]:
    found = store.schedule.batches.find(batch.id)
    assert found is not None
    return [item.status.value for item in store.schedule.batches.items(found)]


def closed(store: SqlStore, batch: Batch) -> Batch:
    found = store.schedule.batches.find(batch.id)
    assert found is not None
    return found


def test_it_is_fed_so_many_at_once_to_its_end(sql_store: SqlStore) -> None:
    options = RunOptions(skip=("a",))
    batch = ask(sql_store, 5, payload={"both": 1}, options=options)
    assert closed(sql_store, batch) == batch
    first = feed(sql_store)
    assert len(first) == 2
    assert feed(sql_store) == []
    assert statuses(sql_store, batch) == ["queued", "queued", "waiting", "waiting", "waiting"]
    end(sql_store, first[:1], result={"ok": 1})
    second = feed(sql_store)
    assert len(second) == 1
    end(sql_store, [*first[1:], *second])
    last = feed(sql_store)
    assert len(last) == 2
    end(sql_store, last)
    assert closed(sql_store, batch).closed_at is None
    assert feed(sql_store) == []
    done = closed(sql_store, batch)
    assert done.closed_at == NOW
    assert done.summary == summary(sql_store.schedule.batches.items(done))
    assert batch_status(done, done.summary["counts"]) is BatchStatus.SUCCESS
    assert sql_store.schedule.batches.items(done, results=True)[0].result == {"ok": 1}
    runs = sql_store.list_runs(RunFilter(batch_id=batch.id)).items
    assert sorted(run.batch_item for run in runs) == [1, 2, 3, 4, 5]
    assert {run.origin for run in runs} == {Origin.MANUAL}
    assert sql_store.schedule.batches.tend(NOW) == 0
    told = [entry.event_type for entry in sql_store.page_audit(AuditFilter())]
    assert told == ["batch_finished", "batch_requested"]
    assert [e.name for e in sql_store.list_events() if e.name == "task_batch_finished"] == ["task_batch_finished"]


def test_each_item_is_asked_for_with_its_own_arguments(sql_store: SqlStore) -> None:
    batch = ask(sql_store, 3, parallel=3, payload={"n": 9, "x": 1}, options=RunOptions(skip=("a",)))
    requests = [item.request for item in sql_store.schedule.requests.wanted(NOW)]
    assert [request.payload for request in requests] == [{"n": n, "x": 1} for n in range(3)]
    assert [request.options for request in requests] == [{"skip": ["a"]}] * 3
    assert [(request.batch_id, request.batch_item) for request in requests] == [(batch.id, n) for n in (1, 2, 3)]
    facts = facts_from_tags(tags_for(Origin.MANUAL, batch=batch.id, item=3))
    assert (facts["batch"], facts["item"]) == (batch.id, "3")


def test_two_batches_and_another_run_do_not_wait_for_each_other(sql_store: SqlStore) -> None:
    one, other = ask(sql_store, 4, parallel=1), ask(sql_store, 4, parallel=3)
    assert len(feed(sql_store)) == 4
    assert statuses(sql_store, one).count("queued") == 1
    assert statuses(sql_store, other).count("queued") == 3


def test_an_error_stops_what_waits_and_what_runs_goes_on(sql_store: SqlStore) -> None:
    batch = ask(sql_store, 5, parallel=2, stop_on_error=True)
    first = feed(sql_store)
    end(sql_store, first[1:], RunStatus.FAILED, error="no table\nmore", message="no table")
    assert sql_store.schedule.requests.wanted(NOW) == []  # also before anybody has stopped it
    assert feed(sql_store) == []
    assert statuses(sql_store, batch) == ["queued", "failed", "not_started", "not_started", "not_started"]
    assert closed(sql_store, batch).closed_at is None
    end(sql_store, first[:1])
    feed(sql_store)
    done = closed(sql_store, batch)
    assert done.stopped == "item 2 failed, and the batch stops on an error"
    assert done.summary is not None
    assert done.summary["errors"] == [{"error": "no table", "count": 1, "items": [2]}]
    assert batch_status(done, done.summary["counts"]) is BatchStatus.FAILED
    withdrawn = [item.request.key for item, _ in sql_store.schedule.requests.withdrawn()]
    assert len(withdrawn) == 3
    sql_store.schedule.requests.taken_back(withdrawn)
    assert statuses(sql_store, batch) == ["success", "failed", "not_started", "not_started", "not_started"]


def test_without_that_rule_errors_are_merged_and_nothing_is_lost(sql_store: SqlStore) -> None:
    batch = ask(sql_store, 3, parallel=3)
    runs = feed(sql_store)
    end(sql_store, runs[:2], RunStatus.FAILED, error="gone")
    end(sql_store, runs[2:])
    feed(sql_store)
    done = closed(sql_store, batch)
    assert done.summary is not None
    assert done.summary["errors"] == [{"error": "gone", "count": 2, "items": [1, 2]}]
    assert done.summary["counts"]["success"] == 1


def test_a_cancelled_one_starts_nothing_more_and_says_so_for_ever(sql_store: SqlStore) -> None:
    batch = ask(sql_store, 4, parallel=1)
    (run,) = feed(sql_store)
    assert sql_store.schedule.batches.cancel(batch.id, "cancelled by me", []) == [run]
    assert sql_store.schedule.batches.cancel(batch.id, "again", []) is None
    assert feed(sql_store) == []
    end(sql_store, [run], RunStatus.CANCELLED)
    feed(sql_store)
    done = closed(sql_store, batch)
    assert (done.stopped, done.closed_at) == ("cancelled by me", NOW)
    assert batch_status(done, (done.summary or {})["counts"]) is BatchStatus.CANCELLED
    assert sql_store.schedule.batches.cancel(batch.id, "late", []) is None


def test_a_run_that_was_made_by_somebody_who_died_then_is_not_made_again(sql_store: SqlStore) -> None:
    """The row of the run is there, its request still says that it is wanted."""
    ask(sql_store, 3, parallel=1)
    (item,) = sql_store.schedule.requests.wanted(NOW)
    sql_store.schedule.requests.made([(item.request, "r1")])
    assert sql_store.schedule.requests.wanted(NOW) == []
    assert sql_store.get_run("r1").batch_item == 1


def test_nothing_is_kept_when_one_part_cannot_be(sql_store: SqlStore) -> None:
    batch = ask(sql_store, 2)
    with pytest.raises(Exception, match=r"UNIQUE|unique|duplicate"):
        sql_store.schedule.batches.ask(batch, Priority.NORMAL, [])
    assert len(sql_store.schedule.batches.page()) == 1
    assert sql_store.schedule.batches.ids(batch.id[:4]) == [batch.id]


def test_they_go_with_their_task_and_with_the_last_of_their_runs(sql_store: SqlStore) -> None:
    batch = ask(sql_store, 1)
    end(sql_store, feed(sql_store))
    feed(sql_store)
    work = HistoryPurge(sql_store, plan(Policy(), (), NOW + timedelta(days=4000)), policy_stamp(sql_store))
    try:
        work.step("requests", None, 100)
        assert sql_store.schedule.batches.find(batch.id) is not None
        work.step("runs", None, 100)
        work.step("requests", None, 100)
        assert sql_store.schedule.batches.find(batch.id) is None
    finally:
        work.close()
    again = ask(sql_store, 1)
    sql_store.delete_task("t1")
    assert sql_store.schedule.batches.find(again.id) is None


def test_the_items_of_a_closed_one_are_known_without_their_runs(sql_store: SqlStore) -> None:
    batch = ask(sql_store, 2, parallel=2)
    runs = feed(sql_store)
    end(sql_store, runs[:1])
    end(sql_store, runs[1:], RunStatus.FAILED, error="x")
    feed(sql_store)
    done = closed(sql_store, batch)
    bare = done.model_copy(update={"id": "00000000-0000-0000-0000-000000000000"})
    found = sql_store.schedule.batches.items(bare)
    assert [item.status for item in found] == [ItemStatus.SUCCESS, ItemStatus.FAILED]
