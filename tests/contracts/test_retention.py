"""What retention deletes in real databases: the seed's order, strictness and counters, and nothing else. (spec 6.5)"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_makers import NOON, a_line, a_run, a_step, a_task, an_entry, an_event

from retention import history
from retention.policy import Policy, parse, plan
from retention.purge import Pace, Report, purge
from taskcenter.errors import ValidationFailed
from taskcenter.models import AuditEntry, Run
from taskcenter.ports import AuditFilter, Changes, RunFilter
from taskcenter.purge_plan import DAYS_SETTING, PURGED_SETTING, Group, Plan
from taskcenter.status import TERMINAL_RUN, RunStatus
from taskcenter_adapter import purge_preview
from taskcenter_adapter.database import make_engine
from taskcenter_adapter.purge_conditions import Conditions
from taskcenter_adapter.schedule_tables import run_requests, slot_ledger, trigger_firings
from taskcenter_adapter.store_sql import SqlStore
from taskcenter_adapter.tables import metadata, task_audit_logs, task_run_logs, task_runs

DAY = timedelta(days=1)
CUTOFF = NOON - 30 * DAY
QUICK = Pace(size=3)


def entry(event_type: str, **values: Any) -> AuditEntry:
    return AuditEntry(event_type=event_type, actor="Zoë", channel="cli", created_at=NOON, **values)


def ended(run_id: str, at: datetime, status: RunStatus = RunStatus.SUCCESS, **fields: Any) -> Run:
    return a_run(run_id, status=status, finished_at=at, **{"created_at": at - timedelta(minutes=1), **fields})


def purged(store: SqlStore, **options: Any) -> dict[str, Any]:
    return history.purge_history(store, entry, now=NOON, pace=QUICK, **options)


def names(store: SqlStore) -> set[str]:
    return {run.id for run in store.list_runs(RunFilter(limit=500)).items}


def lines(store: SqlStore) -> set[tuple[str, int]]:
    with store.engine.connect() as connection:
        return {tuple(row) for row in connection.execute(sa.select(task_run_logs.c.run_id, task_run_logs.c.sequence))}


# the seed --------------------------------------------------------------------------------------------


def test_the_order_the_strictness_and_the_counters_of_the_seed(sql_store: SqlStore) -> None:
    second = timedelta(microseconds=1)
    runs = [
        ended("old", CUTOFF - second),
        ended("on-the-edge", CUTOFF),
        ended("new", NOON - DAY),
        ended("old-with-a-late-line", CUTOFF - DAY),
        ended("old-with-lines", CUTOFF - DAY, RunStatus.FAILED),
        ended("old-cancelled", CUTOFF - DAY, RunStatus.CANCELLED),
        a_run("open", status=RunStatus.RUNNING, created_at=NOON - 300 * DAY, started_at=NOON - 300 * DAY),
        a_run("waits", created_at=NOON - 300 * DAY),
    ]
    logs = [
        a_line(0, "old-with-a-late-line", time=CUTOFF),
        a_line(1, "old-with-a-late-line", time=CUTOFF - second),
        *(a_line(n, "old-with-lines", time=CUTOFF - DAY) for n in range(7)),
        a_line(0, "open", time=NOON - 200 * DAY),
        a_line(1, "open", time=NOON),
    ]
    audit = [an_entry(id=f"audit-{n}", created_at=CUTOFF + n * second) for n in (-2, -1, 0, 1)]
    steps = [a_step("a", "old"), a_step("b", "old"), a_step("a", "new")]
    sql_store.record(Changes(runs=runs, logs=logs, audit=audit, steps=steps))
    found = purged(sql_store)
    assert (found["deletedRunLogs"], found["deletedRuns"], found["deletedAuditLogs"]) == (9, 3, 2)
    assert (found["deletedStepRuns"], found["retentionDays"], found["finished"]) == (2, 30, True)
    assert names(sql_store) == {"on-the-edge", "new", "old-with-a-late-line", "open", "waits"}
    assert lines(sql_store) == {("old-with-a-late-line", 0), ("open", 1)}
    left = {one.id for one in sql_store.page_audit() if one.id.startswith("audit-")}
    assert left == {"audit-0", "audit-1"}
    again = purged(sql_store)
    assert [value for name, value in again.items() if name.startswith("deleted")] == [0] * 10


def test_a_purge_is_an_audit_entry_and_an_event_with_the_counters(sql_store: SqlStore) -> None:
    sql_store.record(Changes(runs=[ended("old", CUTOFF - DAY)], logs=[a_line(0, "old", time=CUTOFF - DAY)]))
    purged(sql_store, scheduler="host/1")
    told = sql_store.page_audit(AuditFilter(event_type="history_purged"))[0]
    assert (told.actor, told.metadata["deletedRunLogs"], told.metadata["deletedRuns"]) == ("Zoë", 1, 1)
    event = sql_store.list_events()[-1]
    assert event.name == "task_history_purged"
    assert event.payload["schedulerId"] == "host/1"
    assert event.payload["retentionDays"] == 30
    assert datetime.fromisoformat(event.payload["cutoffAt"]) == CUTOFF
    assert datetime.fromisoformat(event.payload["triggeredAt"]) == NOON
    assert (event.payload["deletedRunLogs"], event.payload["deletedRuns"]) == (1, 1)
    count = len(sql_store.list_events())
    purged(sql_store, by_hand=False)  # nothing was deleted: the hourly one says nothing
    assert len(sql_store.list_events()) == count
    assert sql_store.chain.verify().ok


def test_days_by_hand_hold_for_that_call_only(sql_store: SqlStore) -> None:
    sql_store.record(Changes(runs=[ended("a", NOON - 10 * DAY), ended("b", NOON - 3 * DAY)]))
    assert purged(sql_store, days=5)["retentionDays"] == 5
    assert names(sql_store) == {"b"}
    assert history.read(sql_store).days == 30


@pytest.mark.parametrize("days", [0, -1, 3651, "30", 1.5, True])
def test_days_out_of_range_are_an_error(sql_store: SqlStore, days: Any) -> None:
    with pytest.raises(ValidationFailed, match="days"):
        history.save(sql_store, {"days": days}, entry)
    assert sql_store.get_setting(DAYS_SETTING) is None
    with pytest.raises(ValidationFailed):
        purged(sql_store, days=days)


def test_the_policy_is_kept_and_audited(sql_store: SqlStore) -> None:
    assert history.read(sql_store) == Policy()
    history.save(sql_store, {"days": 1, "failedDays": 3650, "keepLast": 2}, entry)
    assert sql_store.get_setting(DAYS_SETTING) == 1
    changed = history.save(sql_store, {"failedDays": None, "rules": [{"tag": "x", "days": 9}]}, entry)
    assert history.read(sql_store) == changed
    assert (changed.days, changed.failed_days, changed.keep_last, changed.rules[0].days) == (1, None, 2, 9)
    told = sql_store.page_audit(AuditFilter(event_type="retention_policy_updated"))
    assert len(told) == 2
    assert told[1].after == {"days": 1, "failedDays": 3650, "keepLast": 2}
    assert told[1].metadata == {"retentionDays": 1, "previousRetentionDays": 30}


def test_runs_that_prefect_keeps_go_along_when_theirs_are_gone(sql_store: SqlStore) -> None:
    from tests.fakes import FakeGateway

    gateway = FakeGateway()
    made = gateway.put_deployment({"flow_id": "flow:shell", "name": "orders", "tags": ["taskcenter"]})
    for name, days in (("old", 31), ("kept", 31), ("new", 3)):
        gateway.runs[name] = {
            "id": name, "deployment_id": made["id"], "end_time": (NOON - days * DAY).isoformat()
        }  # fmt: skip
    sql_store.record(Changes(runs=[ended("old", NOON - 31 * DAY), ended("kept", NOON - 31 * DAY)]))
    history.save(sql_store, {"holds": [{"run": "kept"}]}, entry)
    assert purged(sql_store, gateway=gateway)["deletedPrefectRuns"] == 1
    assert set(gateway.runs) == {"kept", "new"}
    history.save(sql_store, {"holds": None, "prefect": False}, entry)
    assert purged(sql_store, gateway=gateway)["deletedPrefectRuns"] == 0
    gateway.away = True
    history.save(sql_store, {"prefect": None}, entry)
    assert "does not answer" in purged(sql_store, gateway=gateway)["notes"][0]


def test_runs_that_are_kept_here_do_not_keep_others_in_prefect(sql_store: SqlStore) -> None:
    from tests.fakes import FakeGateway

    gateway = FakeGateway()
    made = gateway.put_deployment({"flow_id": "flow:shell", "name": "orders", "tags": ["taskcenter"]})
    kept, gone = [f"kept-{n}" for n in range(230)], [f"gone-{n}" for n in range(30)]
    for name in (*kept, *gone):
        gateway.runs[name] = {"id": name, "deployment_id": made["id"], "end_time": (NOON - 31 * DAY).isoformat()}
    sql_store.record(Changes(runs=[ended(name, NOON - 31 * DAY) for name in kept]))
    history.save(sql_store, {"keepLast": 500}, entry)
    sql_store.save_task(a_task("orders"))
    with sql_store.engine.begin() as connection:
        connection.execute(sa.update(task_runs).values(task_id="id-of-orders"))
    assert purged(sql_store, gateway=gateway)["deletedPrefectRuns"] == 30
    assert set(gateway.runs) == set(kept)


def test_a_purge_that_is_interrupted_tells_what_it_did(sql_store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    old = CUTOFF - DAY
    sql_store.record(Changes(runs=[ended(f"run-{n}", old + n * timedelta(seconds=1)) for n in range(20)]))
    looks = 0

    def stop() -> bool:
        nonlocal looks
        looks += 1
        if looks == 4:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        purged(sql_store, stop=stop, by_hand=False)
    (told,) = sql_store.page_audit(AuditFilter(event_type="history_purged"))
    assert told.metadata["deletedRuns"] == 20 - len(names(sql_store)) > 0
    assert told.metadata["finished"] is False
    assert told.message.endswith("; it was broken off")
    assert sql_store.list_events()[-1].name == "task_history_purged"
    monkeypatch.setattr(sql_store, "record", lambda *_: 1 / 0)
    looks = 0
    with pytest.raises(KeyboardInterrupt):  # the purge's own end is the one to hear of
        purged(sql_store, stop=stop)


# beyond the seed -------------------------------------------------------------------------------------


def test_failures_stay_longer_and_the_last_of_each_task_whatever_its_age(sql_store: SqlStore) -> None:
    for slug in ("orders", "billing"):
        sql_store.save_task(a_task(slug, tags=["slow"] if slug == "billing" else []))
    runs = [
        ended(f"{slug}-{n}", NOON - n * DAY, RunStatus.FAILED if n % 2 else RunStatus.SUCCESS, task_id=f"id-of-{slug}")
        for slug in ("orders", "billing")
        for n in (40, 41, 42, 43, 60, 61, 100, 101)
    ]
    logs = [a_line(0, run.id, time=run.created_at) for run in runs]
    sql_store.record(Changes(runs=runs, logs=logs))
    history.save(sql_store, {"failedDays": 50, "rules": [
        {"tag": "slow", "days": 90}, {"task": "orders", "keepLast": 1}]}, entry)  # fmt: skip
    purged(sql_store)
    assert names(sql_store) == {
        "orders-40",  # the last one
        *("orders-41", "orders-43"),  # failures, 50 days
        *(f"billing-{n}" for n in (40, 41, 42, 43, 60, 61)),  # by the tag, 90 days
    }
    assert lines(sql_store) == {(name, 0) for name in names(sql_store)}


def test_a_hold_keeps_everything_of_a_task_and_of_a_run(sql_store: SqlStore) -> None:
    sql_store.save_task(a_task("orders"))
    old = CUTOFF - DAY
    runs = [ended("held", old, task_id="id-of-orders"), ended("alone", old), ended("gone", old)]
    audit = [an_entry(id=f"of-{r.id}", task_id=r.task_id, run_id=r.id, created_at=old) for r in runs]
    sql_store.record(Changes(runs=runs, logs=[a_line(0, r.id, time=old) for r in runs], audit=audit))
    history.save(sql_store, {"holds": [{"task": "orders", "note": "a lawsuit"}, {"run": "alone"}]}, entry)
    found = purged(sql_store)
    assert (found["deletedRuns"], found["deletedRunLogs"], found["deletedAuditLogs"]) == (1, 1, 1)
    assert names(sql_store) == {"held", "alone"}
    assert sql_store.chain.verify().findings == []


def test_a_policy_that_changes_while_the_purge_goes_on_is_followed(sql_store: SqlStore) -> None:
    old = CUTOFF - DAY
    sql_store.record(Changes(runs=[ended(f"run-{n}", old + n * timedelta(seconds=1)) for n in range(20)]))
    looks = 0

    def stop() -> bool:
        nonlocal looks
        looks += 1
        if looks == 4:
            history.save(sql_store, {"days": 60}, entry)
        return False

    found = purged(sql_store, stop=stop)
    assert found["retentionDays"] == 60
    assert 0 < len(names(sql_store)) < 20


def test_ledger_requests_and_events_have_their_days(sql_store: SqlStore) -> None:
    old, new = NOON - 40 * DAY, NOON - DAY
    sql_store.save_task(
        a_task("orders", triggers=[{"id": "once", "task_id": "id-of-orders", "type": "one_shot", "run_at": old}])
    )
    slots = [
        {"trigger_id": trigger, "slot": at, "task_id": "id-of-orders", "verdict": "fired", "reason": "due", "data": {},
         "run_id": None, "until": None, "count": 1, "decided_at": at}
        for trigger in ("once", "gone") for at in (old, new)
    ]  # fmt: skip
    requests = [
        {"key": f"{status}-{at:%d}", "task_id": "id-of-orders", "trigger_id": None, "slot": at, "status": status,
         "ahead": False, "due": at, "rank": 1, "run_id": None, "request": {}, "created_at": at}
        for status in ("made", "wanted") for at in (old, new)
    ]  # fmt: skip
    with sql_store.engine.begin() as connection:
        connection.execute(sa.insert(slot_ledger), slots)
        connection.execute(sa.insert(run_requests), requests)
    sql_store.record(Changes(events=[an_event(id=f"event-{n}", created_at=at) for n, at in enumerate((old, new))]))
    history.save(sql_store, {"eventDays": 60}, entry)
    found = purged(sql_store)
    assert (found["deletedLedgerRows"], found["deletedRunRequests"], found["deletedEvents"]) == (1, 1, 0)
    with sql_store.engine.connect() as connection:
        left = connection.execute(sa.select(slot_ledger.c.trigger_id, slot_ledger.c.slot)).all()
    # A trigger with a list of times must not fire them again.
    assert {(name, at) for name, at in left} == {("once", old), ("once", new), ("gone", new)}


def test_used_firings_go_by_their_age_alone(sql_store: SqlStore) -> None:
    sql_store.save_task(a_task("orders"))
    firings = [
        {"id": f"{n}-{consumed}", "trigger_id": "r1", "task_id": "id-of-orders", "at": at, "consumed": consumed}
        for n, at in enumerate([CUTOFF - DAY] * 10 + [CUTOFF, NOON]) for consumed in (True, False)
    ]  # fmt: skip
    with sql_store.engine.begin() as connection:
        connection.execute(sa.insert(trigger_firings), firings)
    assert history.preview(sql_store, now=NOON)[1].counts["deletedFirings"] == 10
    assert purged(sql_store)["deletedFirings"] == 10
    with sql_store.engine.connect() as connection:
        left = list(connection.execute(sa.select(trigger_firings.c.id)).scalars())
    assert len(left) == 14
    assert {key for key in left if key.endswith("True")} == {"10-True", "11-True"}


def test_a_policy_that_becomes_shorter_meanwhile_is_told_to_the_reconciler(sql_store: SqlStore) -> None:
    def stop() -> bool:
        if history.read(sql_store).days == 30:
            history.save(sql_store, {"days": 10}, entry)
        return False

    purged(sql_store, stop=stop)
    assert datetime.fromisoformat(sql_store.get_setting(PURGED_SETTING)) == NOON - 10 * DAY


def test_the_reconciler_is_told_what_may_be_gone(sql_store: SqlStore) -> None:
    purged(sql_store)
    assert datetime.fromisoformat(sql_store.get_setting(PURGED_SETTING)) == CUTOFF
    purged(sql_store, days=300)
    assert datetime.fromisoformat(sql_store.get_setting(PURGED_SETTING)) == CUTOFF


# properties ------------------------------------------------------------------------------------------

AGES = st.integers(0, 80)
STATES = st.sampled_from([*RunStatus])
RUNS = st.lists(
    st.tuples(AGES, STATES, st.sampled_from(["orders", "billing", None]), st.lists(AGES, max_size=3)), max_size=25
)
DAYS = st.integers(1, 70)
POLICIES = st.fixed_dictionaries(
    {"days": DAYS},
    optional={
        "successDays": DAYS,
        "failedDays": DAYS,
        "cancelledDays": DAYS,
        "auditDays": DAYS,
        "keepLast": st.integers(0, 3),
        "rules": st.lists(
            st.one_of(
                st.fixed_dictionaries(
                    {"task": st.just("orders")}, optional={"days": DAYS, "keepLast": st.integers(0, 3)}
                ),
                st.fixed_dictionaries({"tag": st.just("b")}, optional={"days": DAYS, "failedDays": DAYS}),
            ),
            max_size=2,
        ),
        "holds": st.lists(st.sampled_from([{"task": "billing"}, {"run": "run-1"}, {"run": "run-3"}]), max_size=2),
    },
)


def expected(
    made: Plan, runs: list[Run], logs: list[tuple[str, int, datetime]]
) -> tuple[set[str], set[tuple[str, int]]]:
    """What stays, said in plain Python, one row after another."""
    groups = made.groups

    def group(run: Run) -> Any:
        return next(g for g in groups if g.task_ids is None or run.task_id in g.task_ids)

    def days(run: Run) -> int:
        return int(group(run).by_status.get(run.status, group(run).days))

    def kept(run: Run) -> bool:
        if run.task_id in made.held_tasks or run.id in made.held_runs:
            return True
        if run.task_id is None:
            return False
        newest = sorted((r for r in runs if r.task_id == run.task_id), key=lambda r: (r.created_at, r.id))[::-1]
        return run in newest[: group(run).keep_last]

    by_id = {run.id: run for run in runs}
    lines = {
        (run_id, number)
        for run_id, number, at in logs
        if kept(by_id[run_id]) or not at < made.cutoff(days(by_id[run_id]))
    }
    left = {
        run.id
        for run in runs
        if run.finished_at is None
        or kept(run)
        or not run.finished_at < made.cutoff(days(run))
        or any(name == run.id for name, _ in lines)
    }
    return left, lines


@pytest.fixture
def clear(sql_store: SqlStore) -> Callable[[], None]:
    from taskcenter_adapter.database import audit_deletes

    def empty() -> None:
        with sql_store.engine.begin() as connection, audit_deletes(connection):
            for table in reversed(metadata.sorted_tables):
                connection.execute(sa.delete(table))

    return empty


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=POLICIES, drawn=RUNS, ages=st.lists(AGES, max_size=12), size=st.integers(1, 5), breaks=st.integers(1, 9))
def test_rows_within_the_policy_never_go_and_the_preview_is_what_goes(
    sql_store: SqlStore, clear: Callable[[], None], data: dict[str, Any], drawn: Any, ages: Any, size: int, breaks: int
) -> None:
    clear()
    for slug in ("orders", "billing"):
        sql_store.save_task(a_task(slug, tags=["b"] if slug == "billing" else []))
    runs, logs = [], []
    for number, (age, status, slug, lines_) in enumerate(drawn):
        final = status not in (RunStatus.QUEUED, RunStatus.RUNNING)
        runs.append(
            a_run(f"run-{number}", status=status, created_at=NOON - (age + 1) * DAY, task_id=slug and f"id-of-{slug}",
                  finished_at=NOON - age * DAY if final else None)
        )  # fmt: skip
        logs += [(f"run-{number}", k, NOON - line * DAY) for k, line in enumerate(lines_)]
    audit = [an_entry(id=f"audit-{n}", created_at=NOON - age * DAY) for n, age in enumerate(ages)]
    sql_store.record(Changes(runs=runs, logs=[a_line(k, r, time=at) for r, k, at in logs], audit=audit,
                             steps=[a_step("a", run.id) for run in runs]))  # fmt: skip
    policy = parse(data)
    made = plan(policy, [sql_store.get_task(slug) for slug in ("orders", "billing")], NOON)
    wanted, wanted_lines = expected(made, runs, logs)
    with sql_store.reading() as connection:
        told = purge_preview.preview(connection, Conditions(made))
    counts: dict[str, int] = {}
    for attempt in range(100):  # broken off after every few steps, and begun again
        left = iter(range(breaks))
        report = Report(made)
        purge(sql_store, report, lambda: made, stop=lambda left=left: next(left, None) is None,
              pace=Pace(size=size))  # fmt: skip
        for name, count in report.counts.items():
            counts[name] = counts.get(name, 0) + count
        if report.finished:
            break
        breaks += attempt
    assert report.finished
    assert names(sql_store) == wanted
    assert lines(sql_store) == wanted_lines
    assert told.counts == counts
    cutoff = NOON - (policy.audit_days or policy.days) * DAY
    stays = {f"audit-{n}" for n, age in enumerate(ages) if not NOON - age * DAY < cutoff}
    assert {one.id for one in sql_store.page_audit(AuditFilter(limit=500)) if one.id.startswith("audit-")} == stays
    assert sql_store.chain.verify().findings == []


def test_a_plan_may_name_more_tasks_than_a_statement_takes_parameters(sql_store: SqlStore) -> None:
    for slug in ("orders", "billing"):
        sql_store.save_task(a_task(slug))
    at = CUTOFF + 20 * DAY
    runs = [ended(slug, at, task_id=f"id-of-{slug}") for slug in ("orders", "billing")]
    sql_store.record(Changes(runs=[*runs, ended("alone", at), ended("held", at)]))
    many = frozenset(f"task-{number}" for number in range(40_000))
    made = Plan(
        NOON,
        30,
        [
            Group(many | {"id-of-orders"}, 5, dict.fromkeys(TERMINAL_RUN, 5)),
            Group(None, 30, dict.fromkeys(TERMINAL_RUN, 30), keep_last=2),
        ],
        held_tasks=many,
        held_runs=many | {"held"},
    )
    report = Report(made)
    with sql_store.reading() as connection:
        told = purge_preview.preview(connection, Conditions(made))
    purge(sql_store, report, lambda: made, pace=Pace())
    assert names(sql_store) == {"billing", "alone", "held"}
    assert told.counts == report.counts
    assert report.counts["deletedRuns"] == 1


# a busy database -------------------------------------------------------------------------------------


def test_many_rows_of_one_instant_go_in_parts(sql_store: SqlStore) -> None:
    old = CUTOFF - DAY
    sql_store.record(Changes(runs=[ended(f"run-{n}", old) for n in range(30)],
                             logs=[a_line(n, f"run-{n % 30}", time=old) for n in range(100)]))  # fmt: skip
    sizes = []
    found = purged(sql_store, stop=lambda: bool(sizes.append(1)))
    assert (found["deletedRuns"], found["deletedRunLogs"]) == (30, 100)
    assert len(sizes) > 12


def test_a_line_that_comes_while_the_purge_is_under_way_keeps_its_run(sql_store: SqlStore) -> None:
    """The runs of the next step were looked at already when it comes."""
    old = CUTOFF - DAY
    sql_store.record(Changes(runs=[ended(f"run-{n:02}", old + timedelta(minutes=n)) for n in range(30)]))
    late = iter(f"run-{n:02}" for n in range(29, 0, -4))

    def meanwhile() -> bool:
        for run_id in late:
            if run_id in names(sql_store):
                sql_store.record(Changes(logs=[a_line(0, run_id, time=NOON)]))
                break
        return False

    purged(sql_store, stop=meanwhile)
    left = names(sql_store)
    assert left == {run_id for run_id, _ in lines(sql_store)}
    assert len(left) >= 3


def test_what_belongs_to_a_run_is_deleted_before_it_by_name() -> None:
    """On SQLite the purge does without the foreign keys: a new table that refers to runs needs its place there."""
    refers = {key.parent.table.name for table in metadata.tables.values() for key in table.foreign_keys
              if key.column.table is task_runs}  # fmt: skip
    assert refers == {"task_run_logs", "composite_step_runs"}


def test_the_purge_leaves_nothing_without_its_run(sql_store: SqlStore) -> None:
    old = CUTOFF - DAY
    runs = [ended(f"run-{n}", old) for n in range(20)]
    steps = [a_step(key, run.id) for run in runs for key in "abc"]
    sql_store.record(Changes(runs=[*runs, ended("new", NOON)], steps=[*steps, a_step("a", "new")]))
    found = purged(sql_store)
    assert (found["deletedRuns"], found["deletedStepRuns"]) == (20, 60)
    assert [step.step_key for step in sql_store.list_steps("new")] == ["a"]
    with sql_store.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            assert connection.exec_driver_sql("PRAGMA foreign_key_check").first() is None
            # what it merged by hand meanwhile is merged by itself again
            config = "SELECT v FROM task_runs_search_config WHERE k = 'automerge'"
            assert connection.exec_driver_sql(config).scalar() == 4
            connection.exec_driver_sql("INSERT INTO task_runs_search (task_runs_search) VALUES ('integrity-check')")
        assert connection.exec_driver_sql("SELECT count(*) FROM composite_step_runs").scalar() == 1


def test_the_file_gets_smaller(sqlite_url: str) -> None:
    store = SqlStore(make_engine(sqlite_url))
    old = CUTOFF - DAY
    for part in range(10):
        run = ended(f"run-{part}", old)
        text = "x" * 400
        store.record(Changes(runs=[run], logs=[a_line(n, run.id, time=old, message=text) for n in range(1_000)]))
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA auto_vacuum").scalar() == 2
        before = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    made = plan(Policy(), (), NOON)
    report = Report(made)
    purge(store, report, lambda: made)
    with store.engine.connect() as connection:
        after = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    assert report.pages_given_back > 1_000
    assert report.steps < 200  # many pages at a time
    assert after < before / 4
    store.close()


def test_a_pace_finds_its_size() -> None:
    pace = Pace()
    size = 200
    for _ in range(40):
        size = pace.after(size, size * 1e-5)
    assert 0.8 < size * 1e-5 / pace.aim < 1.25
    assert pace.after(10_000, 0.3) == 3_333
    assert pace.after(1, 10.0) == 1
    for _ in range(40):
        pace.breathed(round(400 * pace.every))
    assert pace.every * 400 == pytest.approx(pace.pages, rel=0.01)
    pace.breathed(0)  # it was not brought in
    assert pace.every * 400 == pytest.approx(pace.pages, rel=0.01)


def test_the_tables_are_those_the_purge_knows() -> None:
    """A new table with history needs its place in the purge, or a reason here why it has none."""
    kept = {
        *("tasks", "task_triggers", "task_revisions", "composite_tasks", "composite_steps", "composite_edges"),
        *("task_manager_settings", "audit_head", "trigger_states", "standings", "calendars", "leases"),
        "schema_snapshots",  # kept once per hash
        "secrets",
    }
    purged_ = {
        *("task_run_logs", "task_runs", "composite_step_runs", "task_audit_logs", "slot_ledger", "run_requests"),
        *("outbox_events", "run_cancels", "trigger_firings", "run_batches"),
    }
    assert {task_runs.name, task_audit_logs.name} < purged_
    assert set(metadata.tables) == kept | purged_
