"""The store without a database: for tests, for trying things out, and as the contract in plain Python.

It keeps the very rows the SQL store keeps and follows the same rules, so both give the same answers. A transaction
works on copies of the tables and puts them in place at its end: all of it or nothing.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

from taskcenter.clock import Clock, SystemClock
from taskcenter.models import AuditEntry, AuditRecord, LogLine, MisfirePolicy, OutboxEvent, Run, StepRun, Task
from taskcenter.ports import AuditFilter, Changes, Page, RunFilter, SchemaSnapshots, SettingsChange, TaskFilter
from taskcenter.status import TERMINAL_RUN, TERMINAL_STEP

from . import answers
from .folding import matches
from .graph_rows import join_graph, split_graph
from .merging import RUN_RULES, STEP_RULES, merge
from .paging import read_cursor, write_cursor
from .rows import (
    Row,
    audit_row,
    clean_json,
    clean_text,
    event_row,
    log_row,
    run_row,
    step_row,
    task_of,
    task_row,
    trigger_rows,
)
from .snapshots_memory import MemorySnapshots

__all__ = ["MemoryStore"]

_Graph = tuple[Row, list[Row], list[Row]]


@dataclass
class _Tables:
    """Rows by key. A row is never changed in place, so a copy of the dicts is a copy of the tables."""

    tasks: dict[str, Row] = field(default_factory=dict)
    triggers: dict[str, list[Row]] = field(default_factory=dict)
    graphs: dict[str, _Graph] = field(default_factory=dict)
    revisions: dict[tuple[str, int], Row] = field(default_factory=dict)
    runs: dict[str, Row] = field(default_factory=dict)
    steps: dict[tuple[str, str], Row] = field(default_factory=dict)
    logs: dict[tuple[str, int], Row] = field(default_factory=dict)
    audit: dict[str, Row] = field(default_factory=dict)
    events: dict[str, Row] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def copy(self) -> _Tables:
        return replace(self, **{table.name: dict(getattr(self, table.name)) for table in fields(self)})


class MemoryStore:
    """Task Center's memory for as long as the process lives. Safe for threads."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._tables = _Tables()
        self._turn = threading.RLock()
        self.snapshots: SchemaSnapshots = MemorySnapshots()

    def close(self) -> None:
        """Nothing to give back; what was stored stays readable."""

    # definitions -----------------------------------------------------------------------------------

    def save_task(
        self,
        task: Task,
        *,
        graph: Mapping[str, Any] | None = None,
        expected_revision: int | None = None,
        audit: Sequence[AuditEntry] = (),
        events: Sequence[OutboxEvent] = (),
        resume_policy: MisfirePolicy | None = None,
    ) -> Task:
        rows = split_graph(clean_text(task.id), graph) if graph is not None else None
        with self._write() as tables:
            stored = tables.tasks.get(clean_text(task.id))
            answers.check_revision(task, stored["revision"] if stored else None, expected_revision)
            new = answers.next_version(task, stored, self._clock.now())
            row, triggers = task_row(new), trigger_rows(new)
            _check_keys(tables, new, row, triggers)
            key = row["id"]
            tables.tasks[key], tables.triggers[key] = row, triggers
            if rows is not None:
                tables.graphs[key] = rows
            elif stored and stored["task_type"] != row["task_type"]:
                tables.graphs.pop(key, None)
            saved = task_of(row, triggers)
            kept = tables.graphs.get(key)
            tables.revisions[key, row["revision"]] = {
                "revision": row["revision"],
                "created_at": row["updated_at"],
                "created_by": audit[0].actor if audit else None,
                "reason": audit[0].message if audit else None,
                "definition": saved.to_json(),
                "graph": join_graph(*kept) if kept else None,
            }
            _add(tables, audit, events)
            return saved

    def find_task(self, id_or_slug: str) -> Task | None:
        wanted = clean_text(id_or_slug)
        with self._read() as tables:
            row = tables.tasks.get(wanted) or next((r for r in tables.tasks.values() if r["slug"] == wanted), None)
            return _as_task(tables, row) if row else None

    def get_task(self, id_or_slug: str) -> Task:
        task = self.find_task(id_or_slug)
        if task is None:
            raise answers.no_task(id_or_slug)
        return task

    def list_tasks(self, where: TaskFilter = TaskFilter()) -> Sequence[Task]:
        order = answers.order_of(where.sort_by)
        start, limit = max(where.offset, 0), max(where.limit, 0)
        with self._read() as tables:
            rows = sorted((row for row in tables.tasks.values() if _matches(row, where)), key=_value("id"))
            # Sorts are stable: the least important key first.
            for column, falling in reversed(order):
                rows.sort(key=_value(column), reverse=falling)
            return [_as_task(tables, row) for row in rows[start : start + limit]]

    def delete_task(
        self, task_id: str, *, audit: Sequence[AuditEntry] = (), events: Sequence[OutboxEvent] = ()
    ) -> None:
        key = clean_text(task_id)
        with self._write() as tables:
            if tables.tasks.pop(key, None) is None:
                raise answers.no_task(task_id)
            tables.triggers.pop(key, None)
            tables.graphs.pop(key, None)
            gone = {run["id"] for run in tables.runs.values() if run["task_id"] == key}
            tables.revisions = {at: row for at, row in tables.revisions.items() if at[0] != key}
            tables.runs = {at: row for at, row in tables.runs.items() if at not in gone}
            tables.steps = {at: row for at, row in tables.steps.items() if at[0] not in gone}
            tables.logs = {at: row for at, row in tables.logs.items() if at[0] not in gone}
            _add(tables, audit, events)

    def find_graph(self, task_id: str) -> dict[str, Any] | None:
        with self._read() as tables:
            rows = tables.graphs.get(clean_text(task_id))
            form: dict[str, Any] | None = clean_json(join_graph(*rows)) if rows else None
            return form

    def list_revisions(self, task_id: str) -> Sequence[Mapping[str, Any]]:
        with self._read() as tables:
            found = [row for (task, _), row in tables.revisions.items() if task == clean_text(task_id)]
            return [_own(row) for row in sorted(found, key=_value("revision"), reverse=True)]

    def find_revision(self, task_id: str, revision: int) -> Mapping[str, Any] | None:
        with self._read() as tables:
            row = tables.revisions.get((clean_text(task_id), revision))
            return _own(row) if row else None

    # history ---------------------------------------------------------------------------------------

    def record(self, changes: Changes) -> None:
        runs = [run_row(run) for run in changes.runs]
        children = [*map(step_row, changes.steps), *map(log_row, changes.logs)]
        with self._write() as tables:
            whole = True
            for row in runs:
                merged = merge(RUN_RULES, tables.runs.get(row["id"]), row)
                if merged is not None:
                    tables.runs[row["id"]] = merged
                    whole = whole and (merged["task_id"] is None or merged["task_id"] in tables.tasks)
            for row in children[: len(changes.steps)]:
                key = (row["run_id"], row["step_key"])
                merged = merge(STEP_RULES, tables.steps.get(key), row)
                if merged is not None:
                    tables.steps[key] = merged
            for row in children[len(changes.steps) :]:
                tables.logs.setdefault((row["run_id"], row["sequence"]), row)
            lost_runs = {row["run_id"] for row in children} - tables.runs.keys()
            if lost_runs or not whole:
                named = {row["task_id"] for row in runs if row["task_id"] is not None}
                raise answers.missing_parent(named - tables.tasks.keys(), lost_runs)
            _add(tables, changes.audit, changes.events)

    def find_run(self, run_id: str) -> Run | None:
        with self._read() as tables:
            row = tables.runs.get(clean_text(run_id))
            return Run(**_own(row)) if row else None

    def find_runs(self, run_ids: Collection[str]) -> Mapping[str, Run]:
        with self._read() as tables:
            wanted = {clean_text(run_id) for run_id in run_ids} & tables.runs.keys()
            return {run_id: Run(**_own(tables.runs[run_id])) for run_id in sorted(wanted)}

    def get_run(self, run_id: str) -> Run:
        wanted = clean_text(run_id.strip())
        run = self.find_run(wanted)
        if run is not None:
            return run
        if len(wanted) < answers.PREFIX_LENGTH:
            raise answers.no_run(run_id)
        with self._read() as tables:
            found = sorted(key for key in tables.runs if key.startswith(wanted))
            if len(found) > 1:
                raise answers.several_runs(wanted, found[:2])
            if not found:
                raise answers.no_run(run_id)
            return Run(**_own(tables.runs[found[0]]))

    def list_runs(self, where: RunFilter = RunFilter()) -> Page:
        wanted = {
            column: clean_text(str(getattr(where, column)))
            for column in ("task_id", "status", "trigger_id", "root_run_id", "batch_id")
            if getattr(where, column) is not None
        }
        here = read_cursor(where.cursor) if where.cursor is not None else None
        limit = max(where.limit, 1)
        text = clean_text(where.search.strip()) if where.search else ""
        with self._read() as tables:
            rows = [
                row
                for row in tables.runs.values()
                if all(row[column] == value for column, value in wanted.items())
                and not (where.open_only and row["status"] in TERMINAL_RUN)
                and (here is None or (row["created_at"], row["id"]) < here)
                and (where.since is None or row["created_at"] >= where.since)
                and (where.until is None or row["created_at"] < where.until)
                and (not text or matches(row["task_slug"], row["name"], text))
            ]
        rows.sort(key=lambda row: (row["created_at"], row["id"]), reverse=True)
        items = tuple(Run(**_own(row)) for row in rows[:limit])
        more = write_cursor(items[-1].created_at, items[-1].id) if len(rows) > limit else None
        return Page(items=items, next_cursor=more)

    def list_steps(self, run_id: str) -> Sequence[StepRun]:
        with self._read() as tables:
            rows = [row for (run, _), row in tables.steps.items() if run == clean_text(run_id)]
        return [StepRun(**_own(row)) for row in sorted(rows, key=lambda row: (row["position"], row["step_key"]))]

    def with_open_steps(self, run_ids: Collection[str]) -> Collection[str]:
        wanted = {clean_text(run_id) for run_id in run_ids}
        with self._read() as tables:
            steps = tables.steps.items()
            return {run for (run, _), row in steps if run in wanted and row["status"] not in TERMINAL_STEP}

    def list_logs(
        self, run_id: str, *, after: int = -1, limit: int = 1000, step_key: str | None = None
    ) -> Sequence[LogLine]:
        step = clean_text(step_key) if step_key is not None else None
        with self._read() as tables:
            rows = [
                row
                for (run, sequence), row in tables.logs.items()
                if run == clean_text(run_id) and sequence > after and (step is None or row["step_key"] == step)
            ]
        return [LogLine(**_own(row)) for row in sorted(rows, key=_value("sequence"))[: answers.log_limit(limit)]]

    def last_reports(self, run_id: str) -> Sequence[LogLine]:
        wanted = clean_text(run_id)
        with self._read() as tables:
            at_work = {key for (run, key), row in tables.steps.items() if run == wanted and row["status"] == "running"}
            newest: dict[str | None, Row] = {}
            for (run, _), row in sorted(tables.logs.items()):
                if run == wanted and row["stream"] == "progress" and row["step_key"] in {None, *at_work}:
                    newest[row["step_key"]] = row
        return [LogLine(**_own(row)) for row in sorted(newest.values(), key=_value("sequence"))]

    def next_log_sequence(self, run_id: str) -> int:
        with self._read() as tables:
            return max((sequence for run, sequence in tables.logs if run == clean_text(run_id)), default=-1) + 1

    def list_audit(
        self, *, task_id: str | None = None, run_id: str | None = None, limit: int = 100
    ) -> Sequence[AuditEntry]:
        wanted = {
            column: clean_text(value)
            for column, value in (("task_id", task_id), ("run_id", run_id))
            if value is not None
        }
        with self._read() as tables:
            rows = [
                row
                for row in reversed(tables.audit.values())
                if all(row[column] == value for column, value in wanted.items())
            ]
        return [AuditEntry(**_own(row)) for row in rows[: max(limit, 0)]]

    def page_audit(self, where: AuditFilter = AuditFilter()) -> Sequence[AuditRecord]:
        exact = ("id", "task_id", "run_id", "event_type", "actor", "channel", "result")
        wanted = {name: clean_text(value) for name in exact if (value := getattr(where, name)) is not None}
        with self._read() as tables:
            rows = [
                {**row, "sequence": sequence}
                for sequence, row in enumerate(tables.audit.values(), start=1)
                if all(row[column] == value for column, value in wanted.items())
                and (where.before is None or sequence < where.before)
                and (where.since is None or row["created_at"] >= where.since)
                and (where.until is None or row["created_at"] < where.until)
            ]
        return [AuditRecord(**_own(row)) for row in rows[::-1][: max(where.limit, 0)]]

    def list_events(self, *, undelivered: bool = False, limit: int = 100) -> Sequence[OutboxEvent]:
        with self._read() as tables:
            rows = [row for row in tables.events.values() if not (undelivered and row["delivered_at"])]
        return [OutboxEvent(**_own(row)) for row in rows[: max(limit, 0)]]

    def mark_delivered(self, event_ids: Sequence[str], at: datetime) -> None:
        with self._write() as tables:
            for key in map(clean_text, event_ids):
                row = tables.events.get(key)
                if row is not None and row["delivered_at"] is None:
                    tables.events[key] = {**row, "delivered_at": at.astimezone(UTC)}

    # settings --------------------------------------------------------------------------------------

    def get_setting(self, key: str) -> Any | None:
        with self._read() as tables:
            return clean_json(tables.settings.get(clean_text(key)))

    def set_setting(self, key: str, value: Any, *, audit: Sequence[AuditEntry] = ()) -> None:
        self.set_settings({key: value}, audit=audit)

    def set_settings(self, values: Mapping[str, Any], *, audit: Sequence[AuditEntry] = ()) -> None:
        with self._write() as tables:
            for key, value in values.items():
                tables.settings[clean_text(key)] = clean_json(value, key)
            _add(tables, audit, ())

    def change_settings(self, keys: Sequence[str], change: SettingsChange) -> None:
        with self._write() as tables:
            wanted = [clean_text(key) for key in keys]
            values, audit = change({key: clean_json(tables.settings[key]) for key in wanted if key in tables.settings})
            for key, value in values.items():
                tables.settings[clean_text(key)] = clean_json(value, key)
            _add(tables, audit, ())

    # transactions ----------------------------------------------------------------------------------

    @contextmanager
    def _read(self) -> Iterator[_Tables]:
        with self._turn:
            yield self._tables

    @contextmanager
    def _write(self) -> Iterator[_Tables]:
        with self._turn:
            tables = self._tables.copy()
            yield tables
            self._tables = tables


def _add(tables: _Tables, audit: Sequence[AuditEntry], events: Sequence[OutboxEvent]) -> None:
    for entry in audit:
        row = audit_row(entry)
        tables.audit.setdefault(row["id"], row)
    for event in events:
        row = event_row(event)
        tables.events.setdefault(row["id"], row)


def _check_keys(tables: _Tables, task: Task, row: Row, triggers: Sequence[Row]) -> None:
    for other in tables.tasks.values():
        if other["slug"] == row["slug"] and other["id"] != row["id"]:
            raise answers.slug_taken(task, other["id"])
    ids = {trigger["id"] for trigger in triggers}
    for owner, others in tables.triggers.items():
        if owner != row["id"] and any(other["id"] in ids for other in others):
            raise answers.trigger_taken(task)


def _matches(row: Row, where: TaskFilter) -> bool:
    for column in ("status", "task_type", "owner", "category"):
        wanted = getattr(where, column)
        if wanted is not None and row[column] != clean_text(wanted):
            return False
    if where.tag is not None and clean_text(where.tag.strip().lower()) not in row["tags"]:
        return False
    return not where.search or clean_text(where.search).casefold() in row["search_text"]


def _value(column: str) -> Callable[[Row], Any]:
    return lambda row: row[column]


def _own(row: Row) -> Row:
    """A copy for the reader: what is done to it does not reach the stored row."""
    return {name: copy.deepcopy(value) if isinstance(value, dict | list) else value for name, value in row.items()}


def _as_task(tables: _Tables, row: Row) -> Task:
    return task_of(_own(row), [_own(trigger) for trigger in tables.triggers[row["id"]]])
