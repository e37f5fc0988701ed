"""The scheduler's memory, on every database: the lease, holds, requests for runs, the gate, ranges, calendars."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from taskcenter.errors import NotFound
from taskcenter.models import Run, Task, Trigger
from taskcenter.ports import Changes
from taskcenter.scheduling.calendars import Calendar, Rule
from taskcenter.scheduling.decide import decide
from taskcenter.scheduling.decisions import RunRequest
from taskcenter.scheduling.ledger import Occurrence, Verdict
from taskcenter.scheduling.state import Firing, Hold, Horizon, Mode
from taskcenter.slot_reasons import SlotReason, SlotReasonCode
from taskcenter.status import Origin, Priority, RunStatus, TaskStatus
from taskcenter_adapter.leases import LostLease
from taskcenter_adapter.schedule import Schedule, Stale
from taskcenter_adapter.schedule_write import Writer
from taskcenter_adapter.store_sql import SqlStore
from taskcenter_console.scheduler.tick import tick, tick_at

NOW = datetime(2026, 11, 20, 12, 0, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
TTL = timedelta(seconds=8)
HORIZON = Horizon(min_runs=3, min_time=timedelta(hours=1), max_runs=5)


class Clock:
    """Stands still until it is moved."""

    time = NOW

    def now(self) -> datetime:
        return self.time


@pytest.fixture
def schedule(sql_store: SqlStore) -> Schedule:
    sql_store._clock = Clock()
    return sql_store.schedule


def a_trigger(**about: object) -> Trigger:
    return Trigger.model_validate({"id": "r1", "type": "cron", "cron_expression": "* * * * *", **about})


def save(store: SqlStore, *triggers: Trigger, **about: object) -> Task:
    known = store.find_task("t1")
    task = known or Task(id="t1", name="t1", task_type="shell")
    return store.save_task(task.model_copy(update={"triggers": triggers, **about}))


def verdicts(schedule: Schedule) -> dict[datetime, str]:
    return {row.slot: row.verdict.value for row in schedule.ledger()}


def make_all(schedule: Schedule, now: datetime) -> list[str]:
    """Flow runs for all that is asked for; the ids say whose they are."""
    pairs = [(item.request, f"flow {item.request.key}") for item in schedule.requests.wanted(now, 1_000)]
    schedule.requests.made(pairs)
    return [run_id for _, run_id in pairs]


# the lease -----------------------------------------------------------------------------------------------


def test_one_holder_at_a_time_and_the_next_when_it_is_silent(schedule: Schedule) -> None:
    first = schedule.lead.take("a", NOW, TTL)
    assert first is not None
    assert schedule.lead.take("b", NOW + timedelta(seconds=7), TTL) is None
    again = schedule.lead.take("a", NOW + timedelta(seconds=7), TTL)
    assert again is not None
    assert again.epoch == first.epoch
    second = schedule.lead.take("b", NOW + timedelta(seconds=16), TTL)
    assert second is not None
    assert second.epoch == first.epoch + 1


def test_a_lease_that_is_given_up_is_free_at_once(schedule: Schedule) -> None:
    lease = schedule.lead.take("a", NOW, TTL)
    assert lease is not None
    schedule.lead.give_up(lease)
    assert schedule.lead.take("b", NOW, TTL) is not None


def test_a_clock_that_was_set_back_keeps_no_dead_holder_in_office(schedule: Schedule) -> None:
    schedule.lead.take("a", NOW + timedelta(hours=3), TTL)
    assert schedule.lead.take("b", NOW, TTL) is not None


def test_a_former_leader_writes_nothing(sql_store: SqlStore, schedule: Schedule) -> None:
    save(sql_store, a_trigger())
    old = schedule.lead.take("a", NOW, TTL)
    schedule.lead.take("b", NOW + 2 * TTL, TTL)
    with pytest.raises(LostLease):
        tick(schedule, NOW + MINUTE, old)
    with pytest.raises(LostLease):
        schedule.refill(NOW, HORIZON, old)
    assert schedule.ledger() == []


# deciding ------------------------------------------------------------------------------------------------


def test_a_slot_gets_its_verdict_its_run_and_its_row(sql_store: SqlStore, schedule: Schedule) -> None:
    save(sql_store, a_trigger())
    slot = NOW + timedelta(seconds=30)
    done = tick(schedule, slot)
    assert (done.verdicts, done.runs) == (1, 1)
    assert tick(schedule, slot).verdicts == 0
    (run_id,) = make_all(schedule, slot)
    run = sql_store.get_run(run_id)
    assert (run.slot, run.status, run.trigger_id, run.task_id) == (slot, RunStatus.QUEUED, "r1", "t1")
    (row,) = schedule.ledger()
    assert (row.verdict, row.run_id) == (Verdict.FIRED, run_id)
    task = sql_store.get_task("t1")
    assert task.triggers[0].next_run_at == slot + MINUTE
    assert task.triggers[0].last_run_at == slot


def test_runs_are_made_ahead_and_become_ours_with_their_slot(sql_store: SqlStore, schedule: Schedule) -> None:
    save(sql_store, a_trigger())
    tick(schedule, NOW)
    assert schedule.refill(NOW, HORIZON) == 1
    made = make_all(schedule, NOW)
    assert len(made) == 5
    assert sql_store.list_runs().items == ()
    slot = NOW + timedelta(seconds=30)
    tick(schedule, slot)
    assert [run.id for run in sql_store.list_runs().items] == made[:1]
    assert schedule.requests.wanted(slot) == []


def test_who_was_overtaken_decides_again(sql_store: SqlStore, schedule: Schedule) -> None:
    save(sql_store, a_trigger())
    slot = NOW + timedelta(seconds=30)
    part = schedule.due(slot)
    decisions = decide(part.state, slot)
    save(sql_store, a_trigger(cron_expression="*/5 * * * *"))
    with pytest.raises(Stale):
        schedule.commit(part, decisions, slot)
    assert schedule.ledger() == []
    assert schedule.requests.wanted(slot) == []


def test_the_same_decision_twice_is_refused(sql_store: SqlStore, schedule: Schedule) -> None:
    save(sql_store, a_trigger())
    slot = NOW + timedelta(seconds=30)
    part = schedule.due(slot)
    decisions = decide(part.state, slot)
    schedule.commit(part, decisions, slot)
    with pytest.raises(Stale):
        schedule.commit(part, decisions, slot)
    assert len(schedule.ledger()) == 1


def test_an_edit_takes_back_what_was_made_ahead(sql_store: SqlStore, schedule: Schedule) -> None:
    save(sql_store, a_trigger())
    tick(schedule, NOW)
    schedule.refill(NOW, HORIZON)
    made = make_all(schedule, NOW)
    save(sql_store, a_trigger(cron_expression="0 3 * * *"))
    assert sorted(run_id or "" for _, run_id in schedule.requests.withdrawn()) == sorted(made)
    schedule.requests.taken_back([item.request.key for item, _ in schedule.requests.withdrawn()])
    assert schedule.requests.withdrawn() == []
    assert set(verdicts(schedule).values()) == {"superseded"}
    tick(schedule, NOW)
    schedule.refill(NOW, HORIZON)
    assert [item.request.slot.hour for item in schedule.requests.wanted(NOW) if item.request.slot] == [3, 3, 3]


def test_a_run_that_is_taken_back_and_wanted_again_is_the_same(sql_store: SqlStore, schedule: Schedule) -> None:
    save(sql_store, a_trigger())
    tick(schedule, NOW)
    schedule.refill(NOW, HORIZON)
    made = make_all(schedule, NOW)
    schedule.hold(Hold(Mode.PAUSED, NOW), NOW)
    assert len(schedule.requests.withdrawn()) == 5
    schedule.hold(None, NOW)
    tick(schedule, NOW)
    schedule.refill(NOW, HORIZON)
    assert schedule.requests.withdrawn() == []
    assert schedule.requests.wanted(NOW) == []
    assert {run.run_id for ts in schedule.load().triggers for run in ts.planned} == set(made)


def test_runs_are_asked_for_by_time_then_priority(sql_store: SqlStore, schedule: Schedule) -> None:
    for key, priority in (("t1", Priority.LOW), ("t2", Priority.HIGH), ("t3", Priority.NORMAL)):
        trigger = a_trigger(id=f"r-{key}", priority=priority)
        sql_store.save_task(Task(id=key, name=key, task_type="shell", triggers=(trigger,)))
    tick(schedule, NOW + MINUTE)
    assert [item.slug for item in schedule.requests.wanted(NOW + MINUTE)] == ["t2", "t3", "t1"]


def test_a_run_that_waits_for_its_turn_is_not_made(sql_store: SqlStore, schedule: Schedule) -> None:
    save(sql_store, a_trigger(overlap="buffer_all"))
    first = NOW + timedelta(seconds=30)
    tick(schedule, first)
    (run_id,) = make_all(schedule, first)
    tick(schedule, first + MINUTE)
    assert make_all(schedule, first + MINUTE) == []
    assert len(schedule.load().runs) == 2
    run = sql_store.get_run(run_id)
    for status in (RunStatus.RUNNING, RunStatus.SUCCESS):
        run = run.model_copy(update={"status": status, "started_at": first, "finished_at": first + MINUTE})
        sql_store.record(Changes(runs=(run,)))
    (second,) = make_all(schedule, first + MINUTE)
    assert sql_store.get_run(second).slot == first + MINUTE


def a_backlog(store: SqlStore, count: int, request: RunRequest) -> None:
    """Many runs of the task b that were asked for, all of them due before anything else."""
    store.save_task(Task(id="b", name="b", task_type="shell"))
    slots = [request.created_at + number * timedelta(seconds=1) for number in range(count)]
    asked = [replace(request, key=f"b-{number:04}", slot=slot) for number, slot in enumerate(slots)]
    store.transaction(lambda connection: Writer(connection).requests(asked))


def of_b(origin: Origin, serial: str = "") -> RunRequest:
    return RunRequest("b", "b", NOW - timedelta(days=1), trigger_id="rb", origin=origin, serial=serial)


def test_a_backlog_that_waits_for_its_turn_keeps_no_other_task_waiting(sql_store: SqlStore, schedule: Schedule) -> None:
    a_backlog(sql_store, 500, of_b(Origin.BACKFILL, "trigger"))
    save(sql_store, a_trigger())
    tick(schedule, NOW + MINUTE)
    assert [item.slug for item in schedule.requests.wanted(NOW + MINUTE, 2)] == ["b", "t1"]
    first, _ = make_all(schedule, NOW + MINUTE)
    assert first == "flow b-0000"
    assert schedule.requests.wanted(NOW + MINUTE) == []


def test_the_backlog_of_a_task_that_is_held_keeps_no_other_task_waiting(
    sql_store: SqlStore, schedule: Schedule
) -> None:
    a_backlog(sql_store, 300, of_b(Origin.SCHEDULER))
    sql_store.save_task(sql_store.get_task("b").model_copy(update={"status": TaskStatus.PAUSED}))
    save(sql_store, a_trigger())
    tick(schedule, NOW + MINUTE)
    assert [item.slug for item in schedule.requests.wanted(NOW + MINUTE)] == ["t1"]


def test_a_failed_run_is_followed_by_its_next_attempt_once(sql_store: SqlStore, schedule: Schedule) -> None:
    save(sql_store, a_trigger(retry_policy={"max_attempts": 1, "backoff_ms": 30_000}, cron_expression="0 * * * *"))
    slot = datetime(2026, 11, 20, 13, tzinfo=UTC)
    tick(schedule, slot)
    (run_id,) = make_all(schedule, slot)
    run = sql_store.get_run(run_id)
    ended = slot + timedelta(seconds=5)
    for status in (RunStatus.RUNNING, RunStatus.FAILED):
        run = run.model_copy(update={"status": status, "started_at": slot, "finished_at": ended})
        sql_store.record(Changes(runs=(run,)))
    tick(schedule, ended)
    tick(schedule, ended)
    (item,) = schedule.requests.wanted(ended)
    assert item.request.attempt == 2
    assert item.request.ready_at == ended + timedelta(seconds=30)
    (again,) = make_all(schedule, ended)
    retried = sql_store.get_run(again)
    assert (retried.attempt, retried.root_run_id, retried.origin.value) == (2, run_id, "scheduler_retry")
    for status in (RunStatus.RUNNING, RunStatus.FAILED):
        retried = retried.model_copy(update={"status": status, "started_at": ended, "finished_at": ended})
        sql_store.record(Changes(runs=(retried,)))
    tick(schedule, ended + MINUTE)
    assert schedule.requests.wanted(ended + MINUTE) == []


@pytest.mark.parametrize("sql_store", ["sqlite"], indirect=True)
def test_what_a_tick_looks_for_has_an_index_of_its_own(sql_store: SqlStore, schedule: Schedule) -> None:
    """However long the history: SQLite uses a partial index only where the condition's words are written out."""
    asked: list[tuple[str, Any]] = []
    sa.event.listen(sql_store.engine, "before_cursor_execute", lambda *about: asked.append((about[2], about[3])))
    schedule.due(NOW, 100)
    for word, index in (("followed", "ix_task_runs_unfollowed"), ("consumed", "ix_trigger_firings_waiting")):
        ((query, values),) = [(text, values) for text, values in asked if word in text.partition("WHERE")[2]]
        with sql_store.engine.connect() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", values).all()
        assert any(index in row[3] for row in plan), plan


def test_a_manual_run_and_a_preview_are_followed_by_nothing(sql_store: SqlStore, schedule: Schedule) -> None:
    save(sql_store, a_trigger(id="after", type="after", cron_expression=None, task_ids=("t2",), condition="done"),
         retry_policy={"max_attempts": 3})  # fmt: skip
    sql_store.save_task(Task(id="t2", name="t2", task_type="shell"))
    for run_id, task_id, dry in (("manual", "t1", False), ("dry", "t2", True)):
        run = Run(id=run_id, task_id=task_id, task_slug=task_id, task_type="shell", created_at=NOW, dry_run=dry)
        sql_store.record(Changes(runs=(run,)))
        for status in (RunStatus.RUNNING, RunStatus.FAILED):
            sql_store.record(Changes(runs=(run.model_copy(update={"status": status, "finished_at": NOW}),)))
    tick(schedule, NOW)
    assert schedule.requests.wanted(NOW) == []


def test_runs_of_other_tasks_fire_what_waits_for_them_once(sql_store: SqlStore, schedule: Schedule) -> None:
    sql_store.save_task(Task(id="t2", name="t2", task_type="shell"))
    save(sql_store, a_trigger(type="after", cron_expression=None, task_ids=("t2",)))
    run = Run(id="up", task_id="t2", task_slug="t2", task_type="shell", created_at=NOW)
    sql_store.record(Changes(runs=(run,)))
    for status in (RunStatus.RUNNING, RunStatus.SUCCESS):
        sql_store.record(Changes(runs=(run.model_copy(update={"status": status, "finished_at": NOW}),)))
    tick(schedule, NOW)
    tick(schedule, NOW + MINUTE)
    (item,) = schedule.requests.wanted(NOW)
    assert item.request.upstream_run_id == "up"
    assert [row.verdict for row in schedule.ledger(task_id="t1")] == [Verdict.FIRED]


# holds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["scheduler", "task", "trigger"])
def test_paused_slots_wait_and_are_owed_on_resume(sql_store: SqlStore, schedule: Schedule, scope: str) -> None:
    clock = sql_store._clock
    assert isinstance(clock, Clock)
    save(sql_store, a_trigger(misfire_policy="skip"))

    def switch(on: bool) -> None:
        if scope == "scheduler":
            schedule.hold(None if on else Hold(Mode.PAUSED, clock.time), clock.time, policy="fire_all" if on else None)
            return
        trigger = a_trigger(misfire_policy="skip", paused_reason=None if on or scope == "task" else "maintenance")
        status = TaskStatus.PAUSED if scope == "task" and not on else TaskStatus.ACTIVE
        task = sql_store.get_task("t1").model_copy(update={"triggers": (trigger,), "status": status})
        sql_store.save_task(task, resume_policy="fire_all" if on else None)

    switch(on=False)
    clock.time = NOW + timedelta(minutes=10)
    tick(schedule, clock.time)
    assert schedule.ledger() == []
    switch(on=True)
    tick(schedule, clock.time)
    assert list(verdicts(schedule).values()) == ["fired"] * 10  # as the person who resumed it chose
    assert {row.reason.code.value for row in schedule.ledger()} == {f"{scope}_paused"}


def test_a_disabled_scheduler_skips_slots_as_they_come(sql_store: SqlStore, schedule: Schedule) -> None:
    save(sql_store, a_trigger())
    schedule.hold(Hold(Mode.DISABLED, NOW, by="me", note="audit"), NOW)
    for minutes in (1, 2, 3):
        tick(schedule, NOW + minutes * MINUTE)
    assert list(verdicts(schedule).values()) == ["skipped"] * 3
    assert schedule.standing().hold == Hold(Mode.DISABLED, NOW, by="me", note="audit")


def test_a_pause_ends_by_itself(sql_store: SqlStore, schedule: Schedule) -> None:
    save(sql_store, a_trigger())
    until = NOW + timedelta(minutes=5)
    schedule.hold(Hold(Mode.PAUSED, NOW, until=until), NOW)
    tick(schedule, NOW + 2 * MINUTE)
    assert schedule.next_look() == until
    tick(schedule, until)
    assert list(verdicts(schedule).values()) == ["fired", *["coalesced"] * 4]


# requests, the gate, ranges, calendars --------------------------------------------------------------------


def test_a_request_is_taken_once(sql_store: SqlStore, schedule: Schedule) -> None:
    save(sql_store, a_trigger(type="ad_hoc", cron_expression=None, token_hash="abc"))
    for _ in range(2):
        schedule.fire(Firing("f1", "r1", NOW, {"x": 1}), "t1")
    tick(schedule, NOW)
    schedule.fire(Firing("f1", "r1", NOW, {"x": 1}), "t1")
    tick(schedule, NOW)
    (item,) = schedule.requests.wanted(NOW)
    assert item.request.payload == {"x": 1}
    found = schedule.find_token("abc")
    assert found is not None
    assert found.id == "r1"
    assert schedule.find_token("abd") is None


def test_the_gate(sql_store: SqlStore, schedule: Schedule) -> None:
    save(sql_store, a_trigger())
    tick(schedule, NOW)
    schedule.refill(NOW, HORIZON)
    made = make_all(schedule, NOW)
    slot = NOW + timedelta(seconds=30)
    tick(schedule, slot)
    assert schedule.requests.gate(made[0], "r1", slot) is None
    assert "taken back" in str(schedule.requests.gate("x", "r1", slot + timedelta(seconds=1)))
    schedule.hold(Hold(Mode.DISABLED, slot), slot)
    tick(schedule, slot + MINUTE)
    assert "the scheduler is disabled" in str(schedule.requests.gate(made[1], "r1", slot + MINUTE))
    assert "taken back" in str(schedule.requests.gate(made[2], "r1", slot + 2 * MINUTE))


def test_with_nobody_there_to_decide_a_run_starts(sql_store: SqlStore, schedule: Schedule) -> None:
    save(sql_store, a_trigger())
    tick(schedule, NOW)
    schedule.refill(NOW, HORIZON)
    made = make_all(schedule, NOW)
    slot = NOW + timedelta(seconds=30)
    assert schedule.requests.gate(made[0], "r1", slot, patience=0.05) is None
    begun = Run(id=made[0], task_id="t1", task_slug="t1", task_type="shell", trigger_id="r1", slot=slot,
                status=RunStatus.RUNNING, created_at=slot, started_at=slot)  # fmt: skip
    sql_store.record(Changes(runs=(begun,)))
    tick(schedule, slot + timedelta(minutes=10))
    assert verdicts(schedule)[slot] == "fired"


def test_a_range_is_opened_into_its_slots(sql_store: SqlStore, schedule: Schedule) -> None:
    save(sql_store, a_trigger(misfire_policy="skip"))
    tick(schedule, NOW + timedelta(minutes=10))
    (row,) = schedule.ledger()
    assert row.count == 10
    schedule.open_range(row, [row.slot + n * MINUTE for n in range(10)])
    assert [found.count for found in schedule.ledger()] == [1] * 10
    schedule.open_range(row, [row.slot])  # it is no range any more
    assert len(schedule.ledger()) == 10
    assert schedule.verdict_counts(task_id="t1") == {"skipped": 10}


def test_a_verdict_is_amended_only_from_what_stands_there(sql_store: SqlStore, schedule: Schedule) -> None:
    save(sql_store, a_trigger(misfire_policy="skip"))
    tick(schedule, NOW + timedelta(minutes=3))
    row = schedule.ledger()[0]
    reason = SlotReason(SlotReasonCode.BACKFILL, {"by": "me"})
    again: Occurrence = replace(row, verdict=Verdict.BACKFILLED, reason=reason, amends=Verdict.EXPIRED)
    part = schedule.due(NOW)
    from taskcenter.scheduling.decisions import Decisions

    with pytest.raises(Stale):
        schedule.commit(part, Decisions(occurrences=(again,)), NOW)
    schedule.commit(part, Decisions(occurrences=(replace(again, amends=Verdict.SKIPPED),)), NOW)
    assert schedule.ledger()[0].verdict is Verdict.BACKFILLED


def test_calendars_are_kept_and_a_change_is_looked_at(sql_store: SqlStore, schedule: Schedule) -> None:
    schedule.calendars.put(Calendar(name="never", exclude=(Rule(weekdays=("fri",)),)), NOW)
    save(sql_store, a_trigger(calendar="never"))
    tick(schedule, NOW + MINUTE)
    assert [row.reason.code for row in schedule.ledger()] == [SlotReasonCode.CALENDAR_EXCLUDED]
    schedule.calendars.put(Calendar(name="never"), NOW + MINUTE)
    tick(schedule, NOW + 2 * MINUTE)
    assert schedule.ledger()[0].verdict is Verdict.FIRED
    schedule.calendars.delete("never", NOW)
    with pytest.raises(NotFound):
        schedule.calendars.delete("never", NOW)
    assert list(schedule.calendars.all()) == []


def test_a_trigger_that_is_removed_leaves_its_ledger(sql_store: SqlStore, schedule: Schedule) -> None:
    save(sql_store, a_trigger())
    tick(schedule, NOW + MINUTE)
    save(sql_store)
    tick(schedule, NOW + timedelta(hours=1))
    assert [row.verdict for row in schedule.ledger()] == [Verdict.FIRED]
    assert schedule.load().triggers == []
    sql_store.delete_task("t1")
    assert schedule.ledger() == []


def test_triggers_from_before_the_scheduler_are_adopted(sql_store: SqlStore, schedule: Schedule) -> None:
    import sqlalchemy as sa

    save(sql_store, a_trigger())
    with sql_store.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM trigger_states"))
    assert schedule.load().triggers == []
    assert schedule.adopt(NOW) == 1
    assert schedule.adopt(NOW) == 0
    tick(schedule, NOW + MINUTE)
    assert list(verdicts(schedule).values()) == ["fired"]


def test_a_run_that_is_made_while_its_slot_is_decided_stands_in_the_ledger(
    sql_store: SqlStore, schedule: Schedule
) -> None:
    save(sql_store, a_trigger())
    tick(schedule, NOW)
    schedule.refill(NOW, HORIZON)
    slot = NOW + timedelta(minutes=3)
    part = schedule.due(slot)  # read while its run is only asked for
    decisions = decide(part.state, slot)
    made = make_all(schedule, NOW)
    schedule.commit(part, decisions, slot)
    rows = schedule.ledger()
    assert [row.verdict.value for row in rows] == ["fired", "coalesced", "coalesced"]
    assert {row.run_id for row in rows} == {made[2]}
    assert sql_store.get_run(made[2]).slot == rows[0].slot


def test_a_run_that_is_made_while_it_is_given_up_is_cancelled(sql_store: SqlStore, schedule: Schedule) -> None:
    save(sql_store, a_trigger(misfire_policy="skip", cron_expression="0 13 * * *"))
    slot = datetime(2026, 11, 20, 13, tzinfo=UTC)
    tick(schedule, slot)
    late = slot + timedelta(minutes=2)
    part = schedule.due(late, late=True)  # read while its run is only asked for
    decisions = decide(part.state, late)
    (run_id,) = make_all(schedule, slot)
    schedule.commit(part, decisions, late)
    assert sql_store.get_run(run_id).status is RunStatus.CANCELLED
    assert schedule.ledger()[0].verdict is Verdict.SKIPPED
    assert [found for found, _ in schedule.requests.cancels()] == [run_id]
    assert tick(schedule, late + MINUTE, late=True).verdicts == 0
    assert schedule.load().runs == ()


def test_an_attempt_that_waits_is_moved_by_a_pause_and_back(sql_store: SqlStore, schedule: Schedule) -> None:
    save(sql_store, a_trigger(retry_policy={"max_attempts": 1, "backoff_ms": 90_000}, cron_expression="0 * * * *"))
    slot = datetime(2026, 11, 20, 13, tzinfo=UTC)
    tick(schedule, slot)
    (run_id,) = make_all(schedule, slot)
    run = sql_store.get_run(run_id)
    for status in (RunStatus.RUNNING, RunStatus.FAILED):
        run = run.model_copy(update={"status": status, "started_at": slot, "finished_at": slot})
        sql_store.record(Changes(runs=(run,)))
    tick(schedule, slot)
    (again,) = make_all(schedule, slot)
    assert schedule.requests.retries_to_move(slot) == []
    schedule.hold(Hold(Mode.PAUSED, slot), slot)
    ready = slot + timedelta(seconds=90)
    assert schedule.requests.retries_to_move(slot) == []  # its time is far enough
    ((key, moved, at),) = schedule.requests.retries_to_move(slot + MINUTE)
    assert moved == again
    assert at > ready
    schedule.requests.moved(key, at)
    assert schedule.requests.retries_to_move(slot + MINUTE) == []
    schedule.hold(None, slot + MINUTE)
    assert [time for _, _, time in schedule.requests.retries_to_move(slot + MINUTE)] == [ready]
    late = slot + timedelta(minutes=5)
    assert [time for _, _, time in schedule.requests.retries_to_move(late)] == [late]


def test_no_attempt_is_made_while_its_task_is_paused(sql_store: SqlStore, schedule: Schedule) -> None:
    clock = sql_store._clock
    assert isinstance(clock, Clock)
    save(sql_store, a_trigger(retry_policy={"max_attempts": 1}, cron_expression="0 * * * *"))
    slot = clock.time = datetime(2026, 11, 20, 13, tzinfo=UTC)
    tick(schedule, slot)
    (run_id,) = make_all(schedule, slot)
    run = sql_store.get_run(run_id)
    save(sql_store, *sql_store.get_task("t1").triggers, status=TaskStatus.PAUSED)
    for status in (RunStatus.RUNNING, RunStatus.FAILED):
        run = run.model_copy(update={"status": status, "started_at": slot, "finished_at": slot})
        sql_store.record(Changes(runs=(run,)))
    tick(schedule, slot)
    assert schedule.requests.wanted(slot) == []
    save(sql_store, *sql_store.get_task("t1").triggers, status=TaskStatus.ACTIVE)
    assert [item.request.attempt for item in schedule.requests.wanted(slot)] == [2]


def test_a_run_that_is_given_up_before_it_is_made_never_is(sql_store: SqlStore, schedule: Schedule) -> None:
    save(sql_store, a_trigger(misfire_policy="skip", cron_expression="0 13 * * *"))
    slot = datetime(2026, 11, 20, 13, tzinfo=UTC)
    tick(schedule, slot)
    tick(schedule, slot + timedelta(minutes=2), late=True)
    assert schedule.ledger()[0].verdict is Verdict.SKIPPED
    assert schedule.requests.wanted(slot) == []
    assert schedule.requests.cancels() == []  # there is no flow run that could be cancelled
    assert len(schedule.requests.withdrawn()) == 1  # but one may have been made, and is looked for by its key


def test_the_run_made_ahead_of_a_slot_that_must_wait_is_told_no(sql_store: SqlStore, schedule: Schedule) -> None:
    save(sql_store, a_trigger(overlap="buffer_all"))
    tick(schedule, NOW)
    schedule.refill(NOW, HORIZON)
    made = make_all(schedule, NOW)
    first = NOW + timedelta(seconds=30)
    tick(schedule, first)
    tick(schedule, first + MINUTE)  # the first is still active
    assert schedule.requests.gate(made[0], "r1", first) is None
    assert "waits for its turn" in str(schedule.requests.gate(made[1], "r1", first + MINUTE))
    assert [run.id for run in sql_store.list_runs().items] == [made[0]]
    assert [run_id for run_id, _ in schedule.requests.cancels()] == [made[1]]
    assert schedule.requests.known_runs(made) == {made[0]}
    run = sql_store.get_run(made[0])
    for status in (RunStatus.RUNNING, RunStatus.SUCCESS):
        run = run.model_copy(update={"status": status, "started_at": first, "finished_at": first + MINUTE})
        sql_store.record(Changes(runs=(run,)))
    (item,) = schedule.requests.wanted(first + MINUTE)
    assert item.again
    assert schedule.ledger()[0].run_id == item.request.key
    schedule.requests.made([(item.request, "again")])
    assert schedule.ledger()[0].run_id == "again"
    assert schedule.requests.gate("again", "r1", first + MINUTE) is None
    assert schedule.requests.gate(made[1], "r1", first + MINUTE) is not None


def test_an_interval_counts_from_the_end_of_the_run_that_has_just_ended(
    sql_store: SqlStore, schedule: Schedule
) -> None:
    save(sql_store, a_trigger(type="interval", cron_expression=None, interval_seconds=60, counts_from="completion"))
    slot = NOW + MINUTE
    tick(schedule, slot)
    (run_id,) = make_all(schedule, slot)
    run = sql_store.get_run(run_id)
    ended = slot + timedelta(seconds=90)
    for status in (RunStatus.RUNNING, RunStatus.SUCCESS):
        run = run.model_copy(update={"status": status, "started_at": slot, "finished_at": ended})
        sql_store.record(Changes(runs=(run,)))
    tick(schedule, ended + timedelta(seconds=1))
    assert len(schedule.ledger()) == 1
    assert schedule.next_look() == ended + MINUTE
    tick(schedule, ended + MINUTE)
    assert [row.slot for row in schedule.ledger()] == [ended + MINUTE, slot]


def test_a_run_that_waits_for_its_turn_waits_for_the_end_of_a_pause_too(
    sql_store: SqlStore, schedule: Schedule
) -> None:
    save(sql_store, a_trigger(overlap="buffer_all"))
    first = NOW + timedelta(seconds=30)
    tick(schedule, first)
    (run_id,) = make_all(schedule, first)
    tick(schedule, first + MINUTE)
    schedule.hold(Hold(Mode.PAUSED, first + MINUTE), first + MINUTE)
    run = sql_store.get_run(run_id)
    for status in (RunStatus.RUNNING, RunStatus.SUCCESS):
        run = run.model_copy(update={"status": status, "started_at": first, "finished_at": first + MINUTE})
        sql_store.record(Changes(runs=(run,)))
    assert schedule.requests.wanted(first + MINUTE) == []
    schedule.hold(None, first + MINUTE)
    assert len(schedule.requests.wanted(first + MINUTE)) == 1


# a slot that is decided before it comes ------------------------------------------------------------------


def a_run_at_work() -> Run:
    return Run(
        id="x", task_id="t1", task_slug="t1", task_type="shell", trigger_id="r1", created_at=NOW,
        started_at=NOW, status=RunStatus.RUNNING,
    )  # fmt: skip


ON_POSTGRESQL = pytest.mark.parametrize("sql_store", ["postgresql"], indirect=True)


@pytest.fixture
def ahead(schedule: Schedule, sql_store: SqlStore) -> datetime:
    """The next slot of r1 and r2, each of a task of its own."""
    for n in (1, 2):
        task = Task(id=f"t{n}", name=f"t{n}", task_type="shell", triggers=(a_trigger(id=f"r{n}", overlap="skip"),))
        sql_store.save_task(task)
    schedule.adopt(NOW)
    tick(schedule, NOW)
    upcoming = schedule.next_look()
    assert upcoming is not None
    assert schedule.count_at(upcoming) == 2
    return upcoming


@ON_POSTGRESQL
def test_nobody_sees_the_verdicts_before_the_slot(schedule: Schedule, ahead: datetime) -> None:
    seen: list[int] = []

    def wait() -> bool:
        seen.append(len(schedule.ledger()))
        return True

    assert tick_at(schedule, ahead, None, wait).verdicts == 2
    assert seen == [0]
    assert {(row.trigger_id, row.slot, row.verdict.value) for row in schedule.ledger()} == {
        ("r1", ahead, "fired"),
        ("r2", ahead, "fired"),
    }
    assert tick(schedule, ahead).verdicts == 0


@ON_POSTGRESQL
def test_a_slot_that_does_not_come_leaves_nothing(schedule: Schedule, ahead: datetime) -> None:
    assert tick_at(schedule, ahead, None, lambda: False).verdicts == 0
    assert not schedule.ledger()
    assert not schedule.requests.wanted(NOW)
    assert tick(schedule, ahead).verdicts == 2


@ON_POSTGRESQL
def test_a_run_that_begins_meanwhile_is_seen(schedule: Schedule, sql_store: SqlStore, ahead: datetime) -> None:
    def wait() -> bool:
        run = a_run_at_work()
        sql_store.record(Changes(runs=(run,)))
        return True

    assert tick_at(schedule, ahead, None, wait).verdicts == 0
    tick(schedule, ahead)
    assert {row.trigger_id: row.verdict.value for row in schedule.ledger()} == {"r1": "skipped", "r2": "fired"}


@ON_POSTGRESQL
def test_a_task_at_work_is_left_for_the_tick(schedule: Schedule, sql_store: SqlStore, ahead: datetime) -> None:
    run = a_run_at_work()
    sql_store.record(Changes(runs=(run,)))
    assert tick_at(schedule, ahead, None, lambda: True).verdicts == 1
    assert [row.trigger_id for row in schedule.ledger()] == ["r2"]


@ON_POSTGRESQL
def test_where_runs_may_overlap_none_of_them_matters(schedule: Schedule, sql_store: SqlStore, ahead: datetime) -> None:
    sql_store.record(Changes(runs=(a_run_at_work(),)))
    save(sql_store, a_trigger(overlap="allow"))
    tick(schedule, NOW)

    def wait() -> bool:
        ended = a_run_at_work().model_copy(update={"status": RunStatus.SUCCESS, "finished_at": NOW})
        sql_store.record(Changes(runs=(ended,)))
        return True

    assert tick_at(schedule, ahead, None, wait).verdicts == 2


@ON_POSTGRESQL
def test_a_pause_waits_for_the_slot_that_is_being_written(schedule: Schedule, ahead: datetime) -> None:
    """It comes after it: the slot has fired, the next one has not."""
    pausing = threading.Thread(target=schedule.hold, args=(Hold(Mode.PAUSED, NOW), NOW))

    def wait() -> bool:
        pausing.start()
        pausing.join(0.3)
        assert pausing.is_alive()
        return True

    assert tick_at(schedule, ahead, None, wait).verdicts == 2
    pausing.join(10)
    assert tick(schedule, ahead + MINUTE).verdicts == 0


@ON_POSTGRESQL
def test_a_leader_that_was_followed_writes_nothing_ahead(schedule: Schedule, ahead: datetime) -> None:
    lost = schedule.lead.take("a", NOW, TTL)
    schedule.lead.take("b", NOW + timedelta(seconds=20), TTL)
    with pytest.raises(LostLease):
        tick_at(schedule, ahead, lost, lambda: True)
    assert not schedule.ledger()


@pytest.mark.parametrize("sql_store", ["sqlite"], indirect=True)
def test_the_one_writer_of_sqlite_never_waits_for_a_slot(schedule: Schedule, sql_store: SqlStore) -> None:
    save(sql_store, a_trigger())
    schedule.adopt(NOW)
    tick(schedule, NOW)
    upcoming = schedule.next_look()
    assert upcoming is not None
    assert schedule.count_at(upcoming) == 0
