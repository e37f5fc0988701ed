"""The contract of ``taskcenter.ports.Store``: one suite for memory, SQLite and PostgreSQL."""

from __future__ import annotations

import itertools
import json
import math
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import empty
from pydantic import BaseModel
from store_makers import NOON, a_line, a_run, a_step, a_task, an_entry, an_event, at

from taskcenter.errors import Conflict, NotFound, Refused, ServerAway, ValidationFailed
from taskcenter.models import AuditEntry, LogLine, OutboxEvent, RetryPolicy, Run, StepRun, Task, Termination, Trigger
from taskcenter.ports import Changes, RunFilter, Store, TaskFilter
from taskcenter.status import RUN_TRANSITIONS, STEP_TRANSITIONS, Origin, Priority, RunPhase, RunStatus, StepStatus
from taskcenter_adapter import store_sql
from taskcenter_adapter.database import audit_deletes, make_engine, writing
from taskcenter_adapter.rows import TRIGGER_COLUMNS
from taskcenter_adapter.store import open_store
from taskcenter_adapter.store_memory import MemoryStore
from taskcenter_adapter.store_sql import SqlStore
from taskcenter_adapter.tables import metadata

STRANGE = "Größe 東京 🚀 '; DROP TABLE tasks; -- %_\\ \u202e\u0007"
GRAPH: dict[str, Any] = {
    "name": "nightly",
    "description": None,
    "steps": [
        {
            "payload": {"z": 1, "a": [1, 2.5, None, True, {"deep": STRANGE}]},
            "stepKey": "b",
            "taskType": "sql_script",
            "position": 2,
            "timeoutSeconds": 900,
            "onError": "continue",
            "enabled": True,
        },
        {
            "stepKey": "a",
            "referencedTaskId": "other",
            "payload": None,
            "position": "first",
            "timeoutSeconds": 0.5,
            "retries": 2,
            "retryBackoffMs": 500,
            "join": {"atLeast": 2},
            "mapOver": "{{steps.b.tables}}",
            "priority": "high",
            "name": "A",
            "enabled": None,
            "color": ["not", "ours"],
        },
    ],
    "continueOnError": False,
    "maxParallel": 8,
    "edges": [
        {"toStepKey": "b", "fromStepKey": "a", "condition": "result.rows > 0", "label": "x"},
        {"fromStepKey": "b", "toStepKey": "c"},
    ],
    "groups": {"load": ["a", "b"]},
    "inputs": {"day": {"default": "2026-11-20"}},
}


def full_task() -> Task:
    return Task(
        id="t-1",
        slug="orders-report",
        name=STRANGE,
        description="two\nlines",
        task_type="composite",
        payload={"sql": "select 1", "nested": {"list": [1, 1.5, -0.0, 10**30, None, STRANGE]}},
        tags=("sales", "nightly"),
        owner="Zoë",
        category="reports",
        icon="chart",
        danger="deletes rows",
        expensive=True,
        priority=Priority.HIGH,
        max_concurrent=3,
        environment={"A": "1", "ß": ""},
        termination=Termination(max_runtime=1.5, max_failures=2, kill_on_timeout=False),
        retry_policy=RetryPolicy(max_attempts=3, backoff_ms=100, strategy="exponential", max_backoff_ms=5000),
        triggers=(
            Trigger(id="g-2", type="interval", interval_seconds=0.1, anchor=at(1), payload={"x": 1}),
            Trigger(
                id="g-1",
                type="cron",
                cron_expression="0 1 * * *",
                timezone="Europe/Berlin",
                enabled=False,
                retry_policy=RetryPolicy(max_attempts=1),
                next_run_at=at(2),
                last_run_at=at(-2),
            ),
            Trigger(id="g-3", type="one_shot", run_at=at(3)),
        ),
        created_at=at(-100),
    )


def record(store: Store, *rows: Run | StepRun | LogLine | AuditEntry | OutboxEvent) -> None:
    """Each row is a report of its own, in this order."""
    names = {Run: "runs", StepRun: "steps", LogLine: "logs", AuditEntry: "audit", OutboxEvent: "events"}
    for row in rows:
        store.record(Changes(**{names[type(row)]: [row]}))


# definitions ---------------------------------------------------------------------------------------


def test_a_task_comes_back_as_it_was_saved(store: Store) -> None:
    task = full_task()
    saved = store.save_task(task)
    expected = task.model_copy(
        update={
            "updated_at": saved.updated_at,
            "triggers": tuple(trigger.model_copy(update={"task_id": "t-1"}) for trigger in task.triggers),
        }
    )
    assert saved == expected
    assert store.get_task("t-1") == saved
    assert store.get_task("orders-report") == saved
    assert store.list_tasks() == [saved]
    assert saved.created_at == at(-100)
    assert saved.triggers[0].anchor == at(1)
    assert saved.triggers[0].anchor.tzinfo is not None
    assert store.find_graph("t-1") is None


def test_a_graph_comes_back_key_for_key(store: Store) -> None:
    store.save_task(full_task(), graph=GRAPH)
    found = store.find_graph("t-1")
    assert found == GRAPH
    assert found is not None
    assert list(found) == list(GRAPH)
    assert [list(step) for step in found["steps"]] == [list(step) for step in GRAPH["steps"]]
    assert [repr(step.get("timeoutSeconds")) for step in found["steps"]] == ["900", "0.5"]


@pytest.mark.parametrize(
    "graph",
    [
        {},
        {"steps": []},
        {"edges": [], "steps": []},
        {"steps": [{"stepKey": "a"}], "settings": {"x": 1}},
        {"steps": [{"stepKey": "a", "timeoutSeconds": 900.0, "retries": True, "position": 2**70, "enabled": 1}]},
        {"steps": [{"stepKey": "a", "payload": "text", "name": 5, "join": None}]},
    ],
)
def test_odd_graphs_come_back_too(store: Store, graph: dict[str, Any]) -> None:
    store.save_task(full_task(), graph=graph)
    assert json.dumps(store.find_graph("t-1")) == json.dumps(graph)
    assert store.list_revisions("t-1")[0]["graph"] == graph


@pytest.mark.parametrize(
    ("graph", "place"),
    [
        ({"steps": {"a": {}}}, "steps"),
        ({"steps": [{"taskType": "x"}]}, "steps[0].stepKey"),
        ({"steps": [{"stepKey": "a"}, {"stepKey": "a"}]}, "steps.a"),
        ({"edges": ["a"]}, "edges[0]"),
        ({"edges": [{"fromStepKey": "a"}]}, "edges[0].toStepKey"),
        ({"limit": math.nan}, "graph"),
    ],
)
def test_a_graph_that_no_table_can_hold_is_refused_and_nothing_is_saved(
    store: Store, graph: dict[str, Any], place: str
) -> None:
    with pytest.raises(ValidationFailed) as refused:
        store.save_task(full_task(), graph=graph)
    assert [problem.path for problem in refused.value.problems] == [place]
    assert store.find_task("t-1") is None


def test_saving_again_replaces_everything_but_the_birthday(store: Store) -> None:
    first = store.save_task(full_task(), graph=GRAPH)
    second = store.save_task(
        a_task(
            "renamed", id="t-1", task_type="composite", triggers=(Trigger(id="g-1", type="one_shot", run_at=at(9)),)
        ),
        graph={"steps": [{"stepKey": "only"}], "edges": []},
    )
    assert second.revision == 2
    assert second.created_at == first.created_at
    assert second.updated_at is not None
    assert first.updated_at is not None
    assert second.updated_at > first.updated_at
    assert store.find_task("orders-report") is None
    assert store.get_task("renamed") == second
    assert [trigger.id for trigger in second.triggers] == ["g-1"]
    assert store.find_graph("t-1") == {"steps": [{"stepKey": "only"}], "edges": []}


def test_saving_without_a_graph_keeps_it_while_the_type_stays(store: Store) -> None:
    saved = store.save_task(full_task(), graph=GRAPH)
    store.save_task(saved.model_copy(update={"name": "Renamed"}))
    assert store.find_graph("t-1") == GRAPH
    assert store.list_revisions("t-1")[0]["graph"] == GRAPH
    store.save_task(saved.model_copy(update={"task_type": "python"}))
    assert store.find_graph("t-1") is None
    assert store.list_revisions("t-1")[0]["graph"] is None


def test_each_save_is_a_revision(store: Store) -> None:
    first = store.save_task(full_task(), graph=GRAPH)
    second = store.save_task(a_task("orders", id="t-1"))
    newest, oldest = store.list_revisions("t-1")
    assert (newest["revision"], oldest["revision"]) == (2, 1)
    assert newest["created_at"] == second.updated_at
    assert Task.model_validate(oldest["definition"]) == first
    assert oldest["graph"] == GRAPH
    assert newest["graph"] is None
    assert store.list_revisions("nobody") == []
    assert (store.find_revision("t-1", 1), store.find_revision("t-1", 2)) == (oldest, newest)
    assert store.find_revision("t-1", 3) is store.find_revision("nobody", 1) is None


def test_a_save_that_expects_another_revision_is_a_conflict(store: Store) -> None:
    with pytest.raises(Conflict, match="deleted in between"):
        store.save_task(a_task(), expected_revision=3)
    saved = store.save_task(a_task(), expected_revision=0)
    with pytest.raises(Conflict, match="exists already"):
        store.save_task(a_task(), expected_revision=0)
    again = store.save_task(saved, expected_revision=1)
    with pytest.raises(Conflict, match="revision 2, not 1"):
        store.save_task(saved, expected_revision=1, audit=[an_entry()], events=[an_event()])
    assert store.get_task("orders") == again
    assert len(store.list_revisions(saved.id)) == 2
    assert not store.list_audit()
    assert not store.list_events()


def test_a_slug_belongs_to_one_task(store: Store) -> None:
    store.save_task(a_task("orders"))
    with pytest.raises(Conflict, match="slug orders belongs"):
        store.save_task(a_task("orders", id="another"))
    store.save_task(a_task("free", id="another"))
    with pytest.raises(Conflict):
        store.save_task(a_task("orders", id="another"))
    assert store.get_task("another").slug == "free"


def test_a_trigger_belongs_to_one_task(store: Store) -> None:
    trigger = Trigger(id="g", type="one_shot", run_at=NOON)
    store.save_task(a_task("orders", triggers=(trigger,)))
    with pytest.raises(Conflict, match="belongs to another"):
        store.save_task(a_task("other", triggers=(trigger,)))
    with pytest.raises(Conflict, match="twice"):
        store.save_task(a_task("orders", triggers=(trigger, trigger)))
    assert store.find_task("other") is None


def test_an_id_wins_over_a_slug_that_looks_like_it(store: Store) -> None:
    store.save_task(a_task("first", id="second"))
    store.save_task(a_task("second", id="first"))
    assert store.get_task("first").slug == "second"
    with pytest.raises(NotFound, match="no task 'third'"):
        store.get_task("third")


def test_lists_filter_and_sort(store: Store) -> None:
    for slug, fields in {
        "b": {"name": "ábc 100%", "tags": ("x", "y"), "owner": "Ann", "status": "paused"},
        "a": {"name": "Zebra", "description": "has ÄPFEL in_it", "tags": ("y",), "category": "c"},
        "c": {"name": "apple", "task_type": "http", "owner": "Ann"},
        "d": {"name": "Apple\\", "tags": ("a-y",), "status": "disabled"},
    }.items():
        store.save_task(a_task(slug, **fields))

    def slugs(**where: Any) -> str:
        return "".join(task.slug for task in store.list_tasks(TaskFilter(**where)))

    assert slugs() == "cdab"  # by folded name, by code point
    assert slugs(sort_by="created_at") == "dcab"  # newest first
    store.save_task(store.get_task("a"))
    assert slugs(sort_by="updated_at") == "adcb"
    assert slugs(sort_by="status") == "cadb"
    assert slugs(status="active") == "ca"
    assert slugs(task_type="http") == "c"
    assert slugs(owner="Ann") == "cb"
    assert slugs(category="c") == "a"
    assert slugs(tag=" Y ") == "ab"
    assert slugs(search="APPLE") == "cd"
    assert slugs(search="Á") == "b"
    assert slugs(search="äpfel") == "a"
    assert slugs(search="%") == "b"
    assert slugs(search="n_i") == "a"
    assert slugs(search="\\") == "d"
    assert slugs(search="' or 1=1 --") == ""
    assert slugs(search="zebrahas") == ""
    assert slugs(limit=2) == "cd"
    assert slugs(limit=2, offset=3) == "b"
    assert slugs(limit=0) == ""
    with pytest.raises(ValidationFailed, match="'password' is none of"):
        slugs(sort_by="password")


def test_deleting_a_task_takes_all_of_it_but_the_audit(store: Store) -> None:
    for slug in ("orders", "kept"):
        store.save_task(
            a_task(slug, triggers=(Trigger(id=f"g-{slug}", type="one_shot", run_at=NOON),)),
            graph=GRAPH,
            audit=[an_entry("saved", task_id=f"id-of-{slug}")],
        )
        store.record(
            Changes(
                runs=[a_run(slug, task_id=f"id-of-{slug}", trigger_id=f"g-{slug}")],
                steps=[a_step("a", slug)],
                logs=[a_line(0, slug)],
                audit=[an_entry("ran", task_id=f"id-of-{slug}", run_id=slug)],
            )
        )
    store.delete_task("id-of-orders", audit=[an_entry("deleted", task_id="id-of-orders")], events=[an_event("gone")])

    assert store.find_task("orders") is None
    assert store.find_graph("id-of-orders") is None
    assert store.find_run("orders") is None
    assert not store.list_revisions("id-of-orders")
    assert not store.list_steps("orders")
    assert not store.list_logs("orders")
    assert [entry.event_type for entry in store.list_audit(task_id="id-of-orders")] == ["deleted", "ran", "saved"]
    assert [entry.event_type for entry in store.list_audit(run_id="orders")] == ["ran"]
    assert [event.name for event in store.list_events()] == ["gone"]
    if isinstance(store, SqlStore):
        with store.engine.connect() as connection:
            for name, count in {
                "tasks": 1, "task_triggers": 1, "task_revisions": 1, "composite_tasks": 1, "composite_steps": 2,
                "composite_edges": 2, "task_runs": 1, "composite_step_runs": 1, "task_run_logs": 1,
            }.items():  # fmt: skip
                assert (
                    connection.execute(sa.select(sa.func.count()).select_from(metadata.tables[name])).scalar() == count
                )

    assert store.get_task("kept").triggers[0].id == "g-kept"
    assert store.find_graph("id-of-kept") == GRAPH
    assert store.get_run("kept").trigger_id == "g-kept"
    with pytest.raises(NotFound):
        store.delete_task("id-of-orders", audit=[an_entry()])
    assert len(store.list_audit()) == 5


def test_a_run_remembers_its_trigger_when_that_is_gone(store: Store) -> None:
    saved = store.save_task(a_task(triggers=(Trigger(id="g", type="one_shot", run_at=NOON),)))
    record(store, a_run(task_id=saved.id, trigger_id="g"))
    store.save_task(saved.model_copy(update={"triggers": ()}))
    assert store.get_run("run-1").trigger_id == "g"


# history -------------------------------------------------------------------------------------------


def test_every_field_comes_back(store: Store) -> None:
    store.save_task(a_task())
    document = {"z": [1, 2.5, None, True, STRANGE, {"a": {}}], "a": 10**25}
    run = Run(
        id="0b0f7f66-run",
        task_id="id-of-orders",
        task_slug="orders",
        task_type="python",
        task_revision=4,
        trigger_id="g",
        origin=Origin.SCHEDULER_RETRY,
        status=RunStatus.RUNNING,
        phase=RunPhase.CANCELLING,
        attempt=2,
        total_attempts=4,
        root_run_id="root",
        resumed_from="before",
        dry_run=True,
        name=STRANGE,
        slot=at(1),
        created_at=at(2),
        started_at=at(3).astimezone(timezone(timedelta(hours=5, minutes=30))),
        finished_at=at(4),
        duration_ms=2**40,
        message=STRANGE,
        error="e",
        result=document,
        plan_hash="h",
        prefect_state="Running",
        batch_id="batch",
        batch_item=7,
    )
    step = StepRun(
        run_id=run.id,
        step_key="load[0]",
        name=STRANGE,
        task_type="http",
        position=3,
        wave=1,
        status=StepStatus.FAILED,
        attempts=2,
        started_at=at(5),
        finished_at=at(6),
        duration_ms=1000,
        execution=[document],
        error="boom",
        error_type="timeout",
        reason="because",
        reused=True,
        prefect_task_run_id="p",
    )
    line = LogLine(
        run_id=run.id,
        sequence=2**40,
        time=at(7),
        level="error",
        message=STRANGE,
        step_key="load[0]",
        stream="stderr",
        metadata=document,
    )
    entry = AuditEntry(
        event_type="x",
        task_id="t",
        run_id="r",
        actor="zoë",
        channel="api",
        address="10.0.0.1",
        object="task t",
        before={"a": 1},
        after=document,
        result="refused",
        message=STRANGE,
        metadata=document,
        created_at=at(8),
    )
    event = OutboxEvent(name="n", payload=document, created_at=at(9), delivered_at=at(10))
    store.record(Changes(runs=[run], steps=[step], logs=[line], audit=[entry], events=[event]))
    found = (
        store.get_run(run.id),
        store.list_steps(run.id)[0],
        store.list_logs(run.id)[0],
        store.list_audit()[0],
        store.list_events()[0],
    )
    assert found == (run, step, line, entry, event)
    models: tuple[tuple[BaseModel, BaseModel], ...] = tuple(zip(found, (run, step, line, entry, event), strict=True))
    for read, written in models:
        # Not only equal: no field was left at its default by the maker of this test.
        unset = {name for name in type(written).model_fields if name not in written.model_fields_set} - {"id"}
        assert not unset, (type(written), unset)
        assert read.model_dump(mode="json") == written.model_dump(mode="json")


NUMBERS = [1e15, 1e16, 1e23, -1.7976931348623157e308, 5e-324, 10**40, "1e+23", 'a "1e+23" \\', {"1e+5": [2e30, "\\"]}]


@pytest.mark.parametrize("value", [None, 0, 1.5, "", "text", True, False, [], {}, [None], "\u2028", {"": ""}, *NUMBERS])
def test_any_json_is_a_result(store: Store, value: Any) -> None:
    record(store, a_run(result=value))
    found = store.get_run("run-1").result
    assert found == value
    assert type(found) is type(value)


def test_what_is_read_may_be_changed_without_changing_what_is_stored(store: Store) -> None:
    record(store, a_run(result={"list": [1]}))
    store.save_task(a_task(payload={"list": [1]}), graph={"steps": [{"stepKey": "a", "payload": {"x": 1}}]})
    store.set_setting("s", [1])
    store.get_run("run-1").result["list"].append(2)
    store.get_task("orders").payload["list"].append(2)
    (store.find_graph("id-of-orders") or {})["steps"][0]["payload"]["x"] = 2
    (store.get_setting("s") or []).append(2)
    assert store.get_run("run-1").result == {"list": [1]}
    assert store.get_task("orders").payload == {"list": [1]}
    assert store.find_graph("id-of-orders") == {"steps": [{"stepKey": "a", "payload": {"x": 1}}]}
    assert store.get_setting("s") == [1]


def test_nul_and_lone_surrogates_become_the_replacement_character(store: Store) -> None:
    store.save_task(
        a_task(
            description="a\x00b", payload={"k\x00": ["\x00", "\\u0000"], "\ud800": 1}, environment={"A\x00": "\x00"}
        ),
        graph={"steps": [{"stepKey": "a", "payload": {"x": "\x00"}}], "x": "\x00"},
    )
    task = store.get_task("orders")
    assert task.description == "a\ufffdb"
    assert task.payload == {"k\ufffd": ["\ufffd", "\\u0000"], "\ufffd": 1}
    assert task.environment == {"A\ufffd": "\ufffd"}
    graph = {"steps": [{"stepKey": "a", "payload": {"x": "\ufffd"}}], "x": "\ufffd"}
    assert store.find_graph("id-of-orders") == graph
    assert store.list_revisions("id-of-orders")[0]["graph"] == graph
    store.record(
        Changes(
            runs=[a_run("run\x001", error="\x00", result={"a": ["x\x00\udfffy"]})],
            steps=[a_step("s", "run\x001", execution="\x00")],
            logs=[a_line(0, "run\x001", message="bell \x07 nul \x00", metadata={"\x00": 1})],
            audit=[an_entry(message="\x00", run_id="run\x001")],
            events=[an_event(payload={"x": "\x00"})],
        )
    )
    run = store.get_run("run\x001")
    assert (run.id, run.error, run.result) == ("run\ufffd1", "\ufffd", {"a": ["x\ufffd\ufffdy"]})
    assert store.list_steps("run\x001")[0].execution == "\ufffd"
    assert store.list_logs("run\x001")[0].message == "bell \x07 nul \ufffd"
    assert store.list_logs("run\x001")[0].metadata == {"\ufffd": 1}
    assert store.next_log_sequence("run\x001") == 1
    assert store.list_audit(run_id="run\x001")[0].message == "\ufffd"
    assert store.list_events()[0].payload == {"x": "\ufffd"}
    assert store.find_task("\x00") is None
    assert not store.list_tasks(TaskFilter(search="\x00", tag="\x00"))
    store.set_setting("k\x00", {"a": "\x00"})
    assert store.get_setting("k\x00") == {"a": "\ufffd"}


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [math.nan, [math.inf], {"x": object()}, _nested(100_000)])
def test_what_is_not_json_is_refused_with_its_place_and_nothing_is_stored(store: Store, value: Any) -> None:
    with pytest.raises(ValidationFailed) as refused:
        store.record(Changes(runs=[a_run()], steps=[a_step(execution=value)], audit=[an_entry()]))
    assert [problem.path for problem in refused.value.problems] == ["execution"]
    assert store.find_run("run-1") is None
    assert not store.list_audit()


RUN_MOVES = list(itertools.product(RunStatus, RunStatus, [None, RunPhase.LATE, RunPhase.AWAITING_RETRY]))


@pytest.mark.parametrize(("before", "after", "phase"), RUN_MOVES)
def test_a_run_moves_only_as_its_states_allow(
    store: Store, before: RunStatus, after: RunStatus, phase: RunPhase | None
) -> None:
    record(store, a_run(status=before, message="old", started_at=at(1)))
    record(store, a_run(status=after, phase=phase, message="new", started_at=at(2), result=7))
    back = (before, after) == (RunStatus.RUNNING, RunStatus.QUEUED)
    allowed = after in RUN_TRANSITIONS[before] and (not back or phase is RunPhase.AWAITING_RETRY)
    final = before is after and not RUN_TRANSITIONS[before]
    run = store.get_run("run-1")
    assert run.status is (after if allowed or before is after else before)
    assert run.message == ("new" if allowed or (before is after and not final) else "old")
    assert run.result == (7 if allowed or before is after else None)
    assert run.started_at == at(1)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(StepStatus, StepStatus)))
def test_a_step_moves_only_as_its_states_allow(store: Store, before: StepStatus, after: StepStatus) -> None:
    record(store, a_run(), a_step(status=before, error="old", attempts=2))
    record(store, a_step(status=after, error=None, attempts=1, execution=[1], started_at=at(1)))
    allowed = after in STEP_TRANSITIONS[before]
    step = store.list_steps("run-1")[0]
    assert step.status is (after if allowed else before)
    assert step.error == (None if allowed else "old")
    assert step.execution == ([1] if allowed or before is after else None)
    assert step.started_at == (at(1) if allowed or before is after else None)
    assert step.attempts == 2


def test_a_final_row_only_fills_what_was_empty(store: Store) -> None:
    store.save_task(a_task())
    record(store, a_run(status="success", message="first", duration_ms=5, task_slug="", task_type=""))
    late = {
        "task_id": "id-of-orders", "task_slug": "orders", "task_type": "python", "name": "named", "root_run_id": "root",
        "message": "late", "duration_ms": 6, "result": {"rows": 1}, "finished_at": at(9), "started_at": at(8),
        "created_at": at(-9), "attempt": 7, "dry_run": True, "origin": "scheduler", "phase": "late",
    }  # fmt: skip
    record(store, a_run(status="success", **late))
    run = store.get_run("run-1")
    filled = {name: late[name] for name in late if name not in ("message", "duration_ms", "created_at", "attempt")}
    assert run == a_run(
        status="success", message="first", duration_ms=5, **{**filled, "dry_run": False, "origin": "manual"}
    )
    record(store, a_run(status="success", result={"rows": 2}, name="other"), a_run(status="failed", error="e"))
    assert store.get_run("run-1") == run


def test_reports_out_of_order(store: Store) -> None:
    store.save_task(a_task())
    record(
        store,
        a_run(status="running", started_at=at(5), task_id="id-of-orders", trigger_id="g", created_at=at(1)),
        a_run(status="queued", message="late report", created_at=at(0)),
        a_run(status="running", started_at=at(6), phase="paused", created_at=at(7)),
        a_run(status="queued", phase="awaiting_retry", message="again in 5 s", error="first try failed"),
        a_run(status="running", started_at=at(9)),
        a_run(status="success", result=[1], finished_at=at(10)),
        a_run(status="running"),
        a_run(status="cancelled", message="too late"),
    )
    run = store.get_run("run-1")
    assert run.status is RunStatus.SUCCESS
    assert (run.task_id, run.trigger_id, run.started_at, run.created_at) == ("id-of-orders", "g", at(5), at(1))
    assert (run.message, run.error, run.phase, run.result) == (None, None, None, [1])


@pytest.mark.parametrize("closed", [StepStatus.FAILED, StepStatus.SKIPPED])
@pytest.mark.parametrize("told", [StepStatus.SUCCESS, StepStatus.FAILED, StepStatus.SKIPPED])
def test_a_late_report_goes_before_the_end_that_nobody_reported(
    store: Store, closed: StepStatus, told: StepStatus
) -> None:
    guess = a_step(status=closed, error_type="lost", error="nobody said", reason="lost", finished_at=at(9))
    report = a_step(status=told, started_at=at(1), finished_at=at(2), attempts=2)
    report = report.model_copy(update={"error": None, "error_type": None, "reason": None, "execution": {"value": 1}})
    store.record(Changes(runs=(a_run(),), steps=(guess,)))
    for old in (StepStatus.PENDING, StepStatus.RUNNING):
        store.record(Changes(steps=(report.model_copy(update={"status": old}),)))
    assert store.list_steps("run-1")[0].status is closed
    store.record(Changes(steps=(report,)))
    store.record(Changes(steps=(guess,)))
    [step] = store.list_steps("run-1")
    assert (step.status, step.finished_at, step.attempts, step.execution) == (told, at(2), 2, {"value": 1})
    assert (step.error, step.error_type, step.reason) == (None, None, None)
    store.record(Changes(steps=(a_step(status=StepStatus.FAILED, error_type="other"),)))
    assert store.list_steps("run-1")[0].status is told


def test_many_runs_are_found_at_once(store: Store) -> None:
    steps = [a_step("a", "r2", status=StepStatus.SUCCESS), a_step("a", "r3", status=StepStatus.RUNNING)]
    store.record(Changes(runs=[a_run(key) for key in ("r1", "r2", "r3")], steps=steps))
    many = [*(f"x{number}" for number in range(40_000)), "r3", "r2", "r2"]
    assert dict(store.find_runs(many)) == {key: store.find_run(key) for key in ("r2", "r3")}
    assert set(store.with_open_steps([*many, "r1"])) == {"r3"}
    assert (len(store.find_runs([])), len(store.with_open_steps([]))) == (0, 0)


def test_a_batch_is_read_in_its_order(store: Store) -> None:
    store.record(
        Changes(
            runs=[a_run(), a_run("run-0"), a_run(status="running"), a_run(status="success"), a_run(status="queued")],
            steps=[
                a_step("b", status="running", attempts=1),
                a_step("a", status="running"),
                a_step("b", status="success", execution=2),
                a_step("b", status="running", attempts=9),
                a_step("a", status="pending"),
            ],
            logs=[a_line(1), a_line(0), a_line(1, message="another line 1")],
        )
    )
    assert store.get_run("run-1").status is RunStatus.SUCCESS
    steps = {step.step_key: step for step in store.list_steps("run-1")}
    assert (steps["a"].status, steps["b"].status) == (StepStatus.RUNNING, StepStatus.SUCCESS)
    assert (steps["b"].attempts, steps["b"].execution) == (1, 2)
    assert [line.message for line in store.list_logs("run-1")] == ["line 0", "line 1"]


def test_a_bad_row_leaves_nothing_of_its_batch(store: Store) -> None:
    record(store, a_run("run-0"))
    good = {
        "runs": [a_run(), a_run("run-0", status="running")],
        "steps": [a_step()],
        "logs": [a_line(0)],
        "audit": [an_entry()],
        "events": [an_event()],
    }
    for bad, lost in (
        ({"runs": [*good["runs"], a_run("run-2", task_id="nobody")]}, {"tasks": ["nobody"], "runs": []}),
        ({"steps": [*good["steps"], a_step("z", "run-9")]}, {"tasks": [], "runs": ["run-9"]}),
        ({"logs": [*good["logs"], a_line(0, "run-8")]}, {"tasks": [], "runs": ["run-8"]}),
    ):
        with pytest.raises(NotFound) as refused:
            store.record(Changes(**{**good, **bad}))
        assert refused.value.data == lost
        assert store.find_run("run-1") is None
        assert store.get_run("run-0").status is RunStatus.QUEUED
        assert not store.list_steps("run-1")
        assert not store.list_logs("run-1")
        assert not store.list_audit()
        assert not store.list_events()
    store.record(Changes(**good))
    assert store.get_run("run-0").status is RunStatus.RUNNING
    store.record(Changes())


def test_a_dropped_report_may_name_what_is_not_there(store: Store) -> None:
    record(store, a_run(status="success"), a_run(status="running", task_id="nobody"))
    assert store.get_run("run-1").task_id is None
    with pytest.raises(NotFound):
        record(store, a_run(status="success", task_id="nobody"))


def test_a_replay_writes_audit_and_events_once(store: Store) -> None:
    changes = Changes(runs=[a_run()], logs=[a_line(0)], audit=[an_entry()], events=[an_event()])
    store.record(changes)
    store.record(changes)
    assert len(store.list_audit()) == len(store.list_events()) == len(store.list_logs("run-1")) == 1


def test_a_run_is_found_by_its_beginning(store: Store) -> None:
    for run_id in ("abcd-1", "abcd-2", "abce", "ab%_", "ABCD-3"):
        record(store, a_run(run_id))
    assert store.get_run("abcd-1").id == "abcd-1"
    assert store.get_run(" abce ").id == "abce"
    assert store.get_run("ABCD").id == "ABCD-3"
    with pytest.raises(Refused, match="abcd-1, abcd-2"):
        store.get_run("abcd")
    with pytest.raises(NotFound, match="needs 4 characters"):
        store.get_run("abc")
    for nobody in ("ab%_x", "____", "%%%%", "abcd-3"):
        with pytest.raises(NotFound):
            store.get_run(nobody)
    assert store.find_run("abcd") is None


def _pages(store: Store, meanwhile: Callable[[], None] = lambda: None, **where: Any) -> list[str]:
    seen: list[str] = []
    cursor = None
    while True:
        page = store.list_runs(RunFilter(cursor=cursor, **where))
        assert len(page.items) <= where.get("limit", 50)
        seen += [run.id for run in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return seen
        meanwhile()


def test_pages_do_not_move_under_new_runs(store: Store) -> None:
    ids = [f"r{number:02}" for number in range(25)]
    # Four runs share each instant: the id decides between them.
    store.record(Changes(runs=[a_run(run_id, created_at=at(index // 4)) for index, run_id in enumerate(ids)]))
    number = itertools.count()
    newest_first = ids[::-1]
    assert _pages(store, limit=4) == newest_first
    assert _pages(store, limit=25) == newest_first
    assert store.list_runs(RunFilter(limit=25)).next_cursor is None
    assert (
        _pages(store, lambda: record(store, a_run(f"new{next(number)}", created_at=at(100))), limit=4) == newest_first
    )


def test_run_lists_filter(store: Store) -> None:
    store.save_task(a_task())
    for index in range(12):
        record(
            store,
            a_run(
                f"r{index:02}",
                created_at=at(index),
                status=list(RunStatus)[index % 5],
                task_id="id-of-orders" if index % 2 else None,
                trigger_id=f"g{index % 3}",
                root_run_id=f"root{index % 4}",
            ),
        )
    assert _pages(store, limit=2, task_id="id-of-orders") == ["r11", "r09", "r07", "r05", "r03", "r01"]
    assert _pages(store, limit=2, status=RunStatus.FAILED) == ["r08", "r03"]
    assert _pages(store, limit=1, trigger_id="g2") == ["r11", "r08", "r05", "r02"]
    assert _pages(store, limit=2, root_run_id="root3") == ["r11", "r07", "r03"]
    assert _pages(store, limit=2, open_only=True) == ["r11", "r10", "r06", "r05", "r01", "r00"]
    assert _pages(store, limit=2, open_only=True, task_id="id-of-orders", status=RunStatus.RUNNING) == ["r11", "r01"]
    assert _pages(store, task_id="nobody") == []


def test_a_cursor_that_was_changed_is_refused(store: Store) -> None:
    store.record(Changes(runs=[a_run(f"r{index}") for index in range(3)]))
    cursor = store.list_runs(RunFilter(limit=1)).next_cursor
    assert cursor is not None
    swapped = cursor[:12] + ("A" if cursor[12] != "A" else "B") + cursor[13:]
    for bad in ("", "x", "ä", "!!!!", cursor[:-2], cursor + "AAAA", swapped, "W10", "' or 1=1"):
        with pytest.raises(ValidationFailed, match="cursor"):
            store.list_runs(RunFilter(cursor=bad))


def test_steps_by_position_then_key(store: Store) -> None:
    record(store, a_run(), a_run("other"))
    for key, position in (("b", 1), ("Z", 1), ("a", 2), ("ä", 1), ("c", 0)):
        record(store, a_step(key, position=position))
    record(store, a_step("x", "other"))
    assert [step.step_key for step in store.list_steps("run-1")] == ["c", "Z", "b", "ä", "a"]
    assert store.list_steps("nobody") == []


def test_log_lines_in_order(store: Store) -> None:
    record(store, a_run(), a_run("other"))
    assert store.next_log_sequence("run-1") == 0
    lines = [a_line(number, step_key=f"s{number % 2}") for number in range(2_100)]
    store.record(Changes(logs=[*lines[1_000:], *lines[:1_000], a_line(5_000, "other")]))
    assert [line.sequence for line in store.list_logs("run-1")] == list(range(1_000))
    assert [line.sequence for line in store.list_logs("run-1", after=9, limit=3)] == [10, 11, 12]
    assert len(store.list_logs("run-1", limit=9_999)) == 2_000
    assert store.list_logs("run-1", limit=0) == []
    assert [line.sequence for line in store.list_logs("run-1", after=10, limit=2, step_key="s0")] == [12, 14]
    assert store.list_logs("run-1", after=2_099) == []
    assert store.next_log_sequence("run-1") == 2_100
    assert store.next_log_sequence("other") == 5_001
    assert store.next_log_sequence("nobody") == 0


def test_the_last_reports_of_what_is_at_work(store: Store) -> None:
    """Whatever was printed since; of steps that are over none."""
    states = {"a": "running", "b": "running", "c": "success", "d": "running"}
    store.record(Changes(runs=[a_run(), a_run("run-2")], steps=[a_step(k, status=s) for k, s in states.items()]))
    told = [(None, 1), ("a", 2), ("a", 3), ("c", 4), (None, 5), ("b", 6)]
    reports = [a_line(number, step_key=key, stream="progress", metadata={"percent": number}) for key, number in told]
    printed = [a_line(number, step_key="a", stream="stdout") for number in range(10, 2100)]
    other = [a_line(9, "run-2", stream="progress")]
    store.record(Changes(logs=[*reports, *printed, *other]))
    assert [(line.step_key, line.sequence) for line in store.last_reports("run-1")] == [("a", 3), (None, 5), ("b", 6)]
    assert store.last_reports("nobody") == []


def test_audit_newest_first(store: Store) -> None:
    for number in range(5):
        record(store, an_entry(f"e{number}", task_id=f"t{number % 2}", run_id=f"r{number % 3}"))
    assert [entry.event_type for entry in store.list_audit()] == ["e4", "e3", "e2", "e1", "e0"]
    assert [entry.event_type for entry in store.list_audit(task_id="t0")] == ["e4", "e2", "e0"]
    assert [entry.event_type for entry in store.list_audit(task_id="t0", run_id="r2")] == ["e2"]
    assert [entry.event_type for entry in store.list_audit(limit=2)] == ["e4", "e3"]


def test_events_in_order_until_delivered(store: Store) -> None:
    events = [an_event(f"e{number}", created_at=at(-number)) for number in range(5)]
    store.record(Changes(events=events[:3]))
    store.save_task(a_task(), events=events[3:])
    assert [event.name for event in store.list_events()] == ["e0", "e1", "e2", "e3", "e4"]
    assert [event.name for event in store.list_events(limit=2)] == ["e0", "e1"]
    store.mark_delivered([events[0].id, events[2].id, "unknown"], at(5))
    store.mark_delivered([events[0].id], at(6))
    store.mark_delivered([], at(7))
    assert [event.name for event in store.list_events(undelivered=True)] == ["e1", "e3", "e4"]
    assert [event.delivered_at for event in store.list_events()] == [at(5), None, at(5), None, None]


def test_settings(store: Store) -> None:
    assert store.get_setting("days") is None
    for value in (30, {"a": [1, None]}, "text", False, None):
        store.set_setting("days", value, audit=[an_entry("retention_policy_updated")])
        assert store.get_setting("days") == value
    assert len(store.list_audit()) == 5
    with pytest.raises(ValidationFailed):
        store.set_setting("days", math.inf, audit=[an_entry()])
    assert len(store.list_audit()) == 5


def test_settings_are_changed_from_what_they_are(store: Store) -> None:
    seen: list[dict[str, Any]] = []

    def change(before: Mapping[str, Any]) -> tuple[dict[str, Any], list[AuditEntry]]:
        seen.append(dict(before))
        return {"a": before.get("a", 0) + 1}, [an_entry("changed")]

    store.set_setting("b", None)
    store.change_settings(["a", "b", "c"], change)
    store.change_settings(["a"], change)
    assert seen == [{"b": None}, {"a": 1}]
    assert store.get_setting("a") == 2

    def refuse(_before: Mapping[str, Any]) -> tuple[dict[str, Any], list[AuditEntry]]:
        raise ValidationFailed("it", [])

    with pytest.raises(ValidationFailed):
        store.change_settings(["a"], refuse)
    with pytest.raises(ValidationFailed):
        store.change_settings(["a"], lambda _: ({"a": math.inf}, [an_entry()]))
    store.change_settings(["a"], lambda _: ({}, ()))
    assert store.get_setting("a") == 2
    assert len(store.list_audit()) == 2


# many at once --------------------------------------------------------------------------------------


def _together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What each of ``count`` threads returned or raised; they start at the same moment."""
    gate = threading.Barrier(count)
    results: list[Any] = [None] * count

    def run(index: int) -> None:
        gate.wait()
        try:
            results[index] = work(index)
        except Exception as error:  # the test looks at what each thread met
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def test_of_two_who_save_the_same_revision_exactly_one_wins(store: Store) -> None:
    for round_number in range(5):
        task = store.save_task(
            a_task(f"t{round_number}", triggers=(Trigger(type="one_shot", run_at=NOON),)), graph=GRAPH
        )
        results = _together(
            2, lambda index, task=task: store.save_task(task, graph={"by": index}, expected_revision=task.revision)
        )
        assert sorted(type(result).__name__ for result in results) == ["Conflict", "Task"]
        winner = next(index for index, result in enumerate(results) if isinstance(result, Task))
        assert store.find_graph(task.id) == {"by": winner}
        assert [row["revision"] for row in store.list_revisions(task.id)] == [2, 1]


def test_of_many_who_create_the_same_slug_exactly_one_wins(store: Store) -> None:
    results = _together(6, lambda index: store.save_task(a_task("one", id=f"t{index}"), expected_revision=0))
    assert sorted(type(result).__name__ for result in results) == ["Conflict"] * 5 + ["Task"]
    results = _together(6, lambda _index: store.save_task(a_task("same"), expected_revision=0))
    assert sorted(type(result).__name__ for result in results) == ["Conflict"] * 5 + ["Task"]


def test_saves_that_expect_nothing_all_count(store: Store) -> None:
    results = _together(6, lambda _index: store.save_task(a_task()))
    assert sorted(result.revision for result in results) == [1, 2, 3, 4, 5, 6]


def test_of_two_who_change_a_setting_neither_loses(store: Store) -> None:
    """Also of the first two, who find nothing to lock."""

    def add(index: int) -> None:
        def change(before: Mapping[str, Any]) -> tuple[dict[str, Any], list[AuditEntry]]:
            return {"names": [*before.get("names", []), index]}, [an_entry("changed", after={"count": index})]

        for _ in range(10):
            store.change_settings(["names"], change)

    assert _together(2, add) == [None, None]
    assert sorted(store.get_setting("names") or []) == [0] * 10 + [1] * 10
    assert len(store.list_audit()) == 20


def test_writers_of_the_same_rows_do_not_lose_or_lock_each_other(store: Store) -> None:
    store.save_task(a_task())
    runs = [f"run-{number}" for number in range(6)]
    store.record(Changes(runs=[a_run(run_id, task_id="id-of-orders") for run_id in runs]))

    def report(index: int) -> None:
        order = runs if index % 2 else runs[::-1]
        for number in range(10):
            store.record(
                Changes(
                    runs=[a_run(run_id, status="running") for run_id in order],
                    steps=[a_step(f"s{number}", run_id, status="running") for run_id in order],
                    logs=[a_line(index * 10 + number, run_id) for run_id in order],
                    audit=[an_entry()],
                )
            )

    assert _together(6, report) == [None] * 6
    assert [len(store.list_logs(run_id)) for run_id in runs] == [60] * 6
    assert [len(store.list_steps(run_id)) for run_id in runs] == [10] * 6
    assert len(store.list_audit(limit=100)) == 60


def test_a_reader_sees_a_whole_save(store: Store) -> None:
    """Triggers, graph and task of one save belong together for whoever reads in between."""

    def version(number: int) -> Task:
        triggers = tuple(Trigger(id=f"g{place}", type="one_shot", run_at=NOON) for place in range(number % 3))
        return a_task(max_concurrent=number % 3, triggers=triggers)

    store.save_task(version(0))
    done = threading.Event()

    def work(index: int) -> int:
        if index == 0:
            for number in range(40):
                store.save_task(version(number))
            done.set()
            return 0
        seen = 0
        while not done.is_set():
            task = store.get_task("orders")
            assert len(task.triggers) == task.max_concurrent
            seen += 1
        return seen

    results = _together(3, work)
    assert not [result for result in results if isinstance(result, Exception)]


# the databases' own ----------------------------------------------------------------------------------


def test_audit_entries_are_never_changed_or_removed(sql_store: SqlStore) -> None:
    record(sql_store, an_entry("first"), an_entry("second"))
    statements = ["UPDATE task_audit_logs SET message = 'x'", "DELETE FROM task_audit_logs"]
    if sql_store.engine.dialect.name == "postgresql":
        statements.append("TRUNCATE task_audit_logs")
    for statement in statements:
        with pytest.raises(sa.exc.DBAPIError, match="never changed"), sql_store.engine.begin() as connection:
            connection.exec_driver_sql(statement)
    assert [entry.event_type for entry in sql_store.list_audit()] == ["second", "first"]


def test_an_audit_entry_is_not_replaced_either(sqlite_url: str) -> None:
    store = SqlStore(make_engine(sqlite_url))
    record(store, an_entry("first"))
    with store.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT OR REPLACE INTO task_audit_logs (sequence, id, event_type, actor, channel, object, result, "
            "message, metadata, created_at) "
            "VALUES (1, 'new', 'forged', '', '', '', '', '', '{}', '2026-01-01 00:00:00.000000')"
        )
    assert [entry.event_type for entry in store.list_audit()] == ["first"]
    store.close()


def test_retention_has_one_door_to_the_audit(sql_store: SqlStore) -> None:
    record(sql_store, an_entry("first"), an_entry("second"))
    table = metadata.tables["task_audit_logs"]
    delete_first = sa.delete(table).where(table.c.event_type == "first")
    writer = writing(sql_store.engine)

    def after_the_door(connection: sa.Connection) -> None:
        with audit_deletes(connection):
            connection.execute(delete_first)
        connection.execute(sa.delete(table))

    with pytest.raises(sa.exc.DBAPIError, match="never changed"), writer.begin() as connection:
        after_the_door(connection)
    assert len(sql_store.list_audit()) == 2
    with writer.begin() as connection, audit_deletes(connection):
        connection.execute(delete_first)
    with (
        pytest.raises(sa.exc.DBAPIError, match="never changed"),
        writer.begin() as connection,
        audit_deletes(connection),
    ):
        connection.execute(sa.update(table).values(message="x"))
    with pytest.raises(sa.exc.DBAPIError, match="never changed"), writer.begin() as connection:
        connection.execute(sa.delete(table))
    assert [entry.event_type for entry in sql_store.list_audit()] == ["second"]
    record(sql_store, an_entry("third"))
    with sql_store.engine.connect() as connection:
        rows = connection.execute(sa.select(table.c.event_type, table.c.sequence).order_by(table.c.sequence)).all()
    assert [name for name, _ in rows] == ["second", "third"]


def test_the_audit_has_places_for_its_chain(sql_store: SqlStore) -> None:
    record(sql_store, an_entry("a"), an_entry("b"))
    table = metadata.tables["task_audit_logs"]
    with sql_store.engine.connect() as connection:
        rows = connection.execute(sa.select(table.c.sequence, table.c.prev_hash, table.c.hash)).all()
    assert rows[0].sequence < rows[1].sequence
    assert [(row.prev_hash, row.hash) for row in rows] == [(None, None)] * 2


def test_every_field_of_the_models_has_a_column() -> None:
    for model, table, elsewhere in (
        (Task, "tasks", {"triggers"}),
        (Trigger, "task_triggers", set(Trigger.model_fields) - set(TRIGGER_COLUMNS)),
        (Run, "task_runs", set()),
        (StepRun, "composite_step_runs", set()),
        (LogLine, "task_run_logs", set()),
        (AuditEntry, "task_audit_logs", set()),
        (OutboxEvent, "outbox_events", set()),
    ):
        assert set(model.model_fields) - elsewhere <= set(metadata.tables[table].columns.keys()), table


def test_the_fields_of_a_trigger_without_a_column_come_back(store: Store) -> None:
    trigger = Trigger(
        type="planned",
        plan=(datetime(2027, 1, 1, 12, tzinfo=UTC), datetime(2027, 2, 1, 12, 0, 0, 5, tzinfo=UTC)),
        misfire_policy="skip",
        misfire_by_cause={"overlap": "fire_now"},
        overlap="buffer_one",
        calendar="holidays – ü",
        jitter_seconds=2.5,
        paused_until=datetime(2027, 3, 1, tzinfo=UTC),
    )
    saved = store.save_task(Task(name="options", task_type="shell", triggers=(trigger,)))
    assert store.get_task("options").triggers == (trigger.model_copy(update={"task_id": saved.id}),)


def test_passing_trouble_is_tried_again_and_lasting_trouble_is_said(
    sql_store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(store_sql.time, "sleep", waits.append)

    class Deadlock(Exception):
        sqlstate = "40P01"

        def __str__(self) -> str:
            return "database is locked"

    calls = 0

    def work(fail: int) -> Callable[[sa.Connection], str]:
        def once(connection: sa.Connection) -> str:
            nonlocal calls
            calls += 1
            if calls <= fail:
                raise sa.exc.OperationalError("x", {}, Deadlock())
            return "done"

        return once

    assert sql_store.transaction(work(3)) == "done"
    assert (calls, len(waits)) == (4, 3)
    calls = 0
    with pytest.raises((ServerAway, sa.exc.OperationalError)):
        sql_store.transaction(work(99))
    assert calls == 6


def test_a_locked_file_is_said_within_its_patience(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskcenter_adapter.database.BUSY_MS", 100)
    monkeypatch.setattr(store_sql, "_PATIENCE", 0.2)
    store, holder = SqlStore(make_engine(sqlite_url)), make_engine(sqlite_url)
    with writing(holder).begin(), pytest.raises(ServerAway, match="is locked by another program"):
        store.record(Changes(runs=[a_run()]))
    with writing(holder).begin():
        assert store.find_run("run-1") is None  # readers never wait for a writer
    store.record(Changes(runs=[a_run()]))
    holder.dispose()
    store.close()


def test_a_locked_row_is_said_within_its_patience(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskcenter_adapter.database.BUSY_MS", 100)
    monkeypatch.setattr(store_sql, "_PATIENCE", 0.2)
    store, holder = SqlStore(make_engine(postgres_url)), make_engine(postgres_url)
    record(store, a_run())
    with holder.begin() as connection:
        connection.exec_driver_sql("SELECT 1 FROM task_runs FOR UPDATE")
        with pytest.raises(ServerAway, match="is locked by another program"):
            record(store, a_run(status="running"))
        assert store.get_run("run-1").status is RunStatus.QUEUED  # readers never wait for a writer
    record(store, a_run(status="running"))
    empty(holder)
    holder.dispose()
    store.close()


def test_an_address_opens_its_store(sqlite_url: str) -> None:
    assert isinstance(open_store("memory://"), MemoryStore)
    store = open_store(sqlite_url)
    assert isinstance(store, SqlStore)
    assert store.list_tasks() == []
    store.close()
