"""Random histories told to two stores: whatever is asked afterwards, both answer alike."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from conftest import empty
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_makers import a_line, a_task, an_entry, an_event, at

from taskcenter.errors import TaskCenterError
from taskcenter.models import Run, StepRun, Trigger
from taskcenter.ports import Changes, RunFilter, Store, TaskFilter
from taskcenter.status import Origin, RunPhase, RunStatus, StepStatus, TaskStatus
from taskcenter_adapter.database import make_engine
from taskcenter_adapter.store_memory import MemoryStore
from taskcenter_adapter.store_sql import SqlStore

few_tasks = st.sampled_from(["t1", "t2", "T3"])
few_runs = st.sampled_from(["run-a1", "run-a2", "run-B"])
few_texts = st.sampled_from(["", "a", "B", "ß", "a\x00", "100%", "_", "é\ud800", "x'\"\\"])
texts = few_texts.filter(lambda text: text.isascii()) | st.text(max_size=5)
times = st.integers(0, 5).map(at)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
documents = st.dictionaries(texts, json_values, max_size=3)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def made(model: Callable[..., Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """``st.builds`` would fill in the camelCase spelling of each field as well."""
    return st.fixed_dictionaries(fields).map(lambda values: model(**values))


triggers = made(
    Trigger,
    id=st.sampled_from(["g1", "g2", "g3"]),
    type=st.just("interval"),
    interval_seconds=st.floats(0.1, 1e6),
    payload=maybe(documents),
    next_run_at=maybe(times),
)
tasks = st.builds(
    a_task,
    st.sampled_from(["one", "two", "three"]),
    id=few_tasks,
    name=st.sampled_from(["A b", "a B", "Äpfel", "äpfel", "100%"]),
    description=maybe(few_texts.filter(lambda text: "\ud800" not in text)),
    task_type=st.sampled_from(["composite", "python"]),
    status=st.sampled_from(TaskStatus),
    tags=st.lists(st.sampled_from(["x", "y", "X "]), max_size=2).map(tuple),
    payload=documents,
    triggers=st.lists(triggers, max_size=2).map(tuple),
)
step_forms = st.fixed_dictionaries(
    {"stepKey": st.sampled_from(["a", "b", "c"])},
    optional=dict.fromkeys(("position", "payload", "enabled", "timeoutSeconds", "join", "other"), json_values),
)
edge_forms = st.fixed_dictionaries({"fromStepKey": texts, "toStepKey": texts}, optional={"condition": json_values})
graphs = st.fixed_dictionaries(
    {},
    optional={
        "steps": st.lists(step_forms, max_size=3),
        "edges": st.lists(edge_forms, max_size=2),
        "groups": documents,
    },
)
runs = made(
    Run,
    id=few_runs,
    task_id=maybe(few_tasks),
    task_slug=st.sampled_from(["", "one"]),
    task_type=st.sampled_from(["", "python"]),
    task_revision=maybe(st.integers(1, 3)),
    trigger_id=maybe(st.sampled_from(["g1", "g2"])),
    origin=st.sampled_from(Origin),
    status=st.sampled_from(RunStatus),
    phase=maybe(st.sampled_from([RunPhase.AWAITING_RETRY, RunPhase.LATE])),
    attempt=st.integers(1, 3),
    root_run_id=st.sampled_from(["", "run-a1"]),
    dry_run=st.booleans(),
    name=st.sampled_from(["", "n", "m"]),
    created_at=times,
    started_at=maybe(times),
    finished_at=maybe(times),
    duration_ms=maybe(st.integers(0, 9)),
    message=maybe(st.sampled_from(["", "m1", "m2"])),
    error=maybe(st.sampled_from(["e1", "e2"])),
    result=json_values,
)
steps = made(
    StepRun,
    run_id=few_runs,
    step_key=st.sampled_from(["a", "b", "Z"]),
    name=st.sampled_from(["", "n", "m"]),
    position=st.integers(0, 2),
    status=st.sampled_from(StepStatus),
    attempts=st.integers(0, 3),
    started_at=maybe(times),
    finished_at=maybe(times),
    execution=json_values,
    error=maybe(st.sampled_from(["", "e"])),
    reason=maybe(st.sampled_from(["r1", "r2"])),
    reused=st.booleans(),
)
# Ids of entries and events come from a small set too: a replay brings the same ones again.
entries = made(
    lambda number, **fields: an_entry(f"e{number}", id=f"e{number}", **fields),
    number=st.integers(0, 5),
    task_id=maybe(few_tasks),
    run_id=maybe(few_runs),
)
events = made(lambda number, **fields: an_event(id=f"v{number}", **fields), number=st.integers(0, 5), payload=documents)
lines = st.builds(
    lambda sequence, run, message, step: a_line(sequence, run, message=message, step_key=step),
    st.integers(0, 5),
    few_runs,
    texts,
    maybe(st.sampled_from(["a", "b"])),
)
changes = st.builds(
    Changes,
    runs=st.lists(runs, max_size=5),
    steps=st.lists(steps, max_size=5),
    logs=st.lists(lines, max_size=3),
    audit=st.lists(entries, max_size=2),
    events=st.lists(events, max_size=2),
)


@dataclass(frozen=True)
class Told:
    """One thing that is told to a store."""

    name: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    def tell(self, store: Store) -> Any:
        try:
            return getattr(store, self.name)(*self.arguments, **self.options)
        except TaskCenterError as refused:
            return type(refused), str(refused), refused.data


histories = st.lists(
    st.one_of(
        st.builds(
            lambda task, graph, expected, audit: Told(
                "save_task", (task,), {"graph": graph, "expected_revision": expected, "audit": audit}
            ),
            tasks,
            maybe(graphs),
            maybe(st.integers(0, 3)),
            st.lists(entries, max_size=1),
        ),
        st.builds(lambda some: Told("record", (some,), {}), changes),
        st.builds(lambda some: Told("record", (some,), {}), changes),
        st.builds(lambda key: Told("delete_task", (key,), {}), few_tasks),
        st.builds(lambda ids: Told("mark_delivered", (ids, at(9)), {}), st.lists(st.sampled_from(["v1", "v2", "v3"]))),
        st.builds(lambda key, value: Told("set_setting", (key, value), {}), few_texts, json_values),
    ),
    max_size=12,
)


def everything(store: Store) -> dict[str, Any]:
    """All that a store can be asked about the small world of this test."""
    answers: dict[str, Any] = {
        "tasks": {
            (sort, tag, search): store.list_tasks(TaskFilter(sort_by=sort, tag=tag, search=search))
            for sort, tag, search in itertools.product(
                ("name", "created_at", "updated_at", "status"), (None, "x"), (None, "Ä", "%", "a b")
            )
        },
        "audit": store.list_audit(),
        "events": (store.list_events(), store.list_events(undelivered=True)),
        "settings": [store.get_setting(key) for key in ("", "a", "B", "ß", "a\x00", "é\ud800")],
    }
    for task in ("t1", "t2", "T3"):
        answers[task] = (store.find_graph(task), store.list_revisions(task), store.list_audit(task_id=task))
    for run in ("run-a1", "run-a2", "run-B"):
        logs = store.list_logs(run), store.list_logs(run, after=2, step_key="a"), store.next_log_sequence(run)
        answers[run] = (store.find_run(run), store.list_steps(run), logs, store.list_audit(run_id=run))
    for name in ("run-a", "run-B", "run", "one"):
        answers[f"get {name}"] = Told("get_run", (name,), {}).tell(store), Told("get_task", (name,), {}).tell(store)
    for where in (RunFilter(limit=1), RunFilter(open_only=True), RunFilter(task_id="t1", limit=2)):
        page = store.list_runs(where)
        answers[f"runs {where}"] = page
        if page.next_cursor:
            answers[f"then {where}"] = store.list_runs(RunFilter(cursor=page.next_cursor))
    return answers


class SameClock:
    """Both stores look at it; the time moves only between two things that are told."""

    time = at(0)

    def now(self) -> datetime:
        return self.time


def agree(history: list[Told], clock: SameClock, sql: Store) -> None:
    one, other = MemoryStore(clock=clock), sql
    for number, told in enumerate(history):
        clock.time = at(number)
        assert told.tell(one) == told.tell(other), told
    expected, found = everything(one), everything(other)
    for question, answer in expected.items():
        assert found[question] == answer, question


numbers = itertools.count()
EXAMPLES = int(os.environ.get("TASKCENTER_TEST_EXAMPLES", "100"))
quietly = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@quietly
@given(history=histories)
def test_memory_and_sqlite_agree(history: list[Told], sqlite_template: Path, tmp_path: Path) -> None:
    path = tmp_path / f"{next(numbers)}.db"
    shutil.copy(sqlite_template, path)
    clock = SameClock()
    sql = SqlStore(make_engine(f"sqlite:///{path}"), clock=clock)
    try:
        agree(history, clock, sql)
    finally:
        sql.close()


@settings(quietly, max_examples=max(EXAMPLES // 2, 1))
@given(history=histories)
def test_memory_and_postgresql_agree(history: list[Told], postgres_url: str) -> None:
    clock = SameClock()
    sql = SqlStore(make_engine(postgres_url), clock=clock)
    try:
        agree(history, clock, sql)
    finally:
        empty(sql.engine)
        sql.close()
