"""The store over PostgreSQL and SQLite. (spec 6.1)

Reads are one consistent snapshot each; writes are one short transaction each, repeated a few times when the
database asks for it (a deadlock, a lock, a lost race). What an upsert does to a row stands in ``merging``.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Engine, Table
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError, IntegrityError

from taskcenter.clock import Clock, SystemClock
from taskcenter.models import AuditEntry, AuditRecord, LogLine, MisfirePolicy, OutboxEvent, Run, StepRun, Task
from taskcenter.ports import AuditFilter, Changes, Page, RunFilter, SettingsChange, TaskFilter
from taskcenter.status import TERMINAL_STEP, StepStatus

from . import answers
from .audit_chain import AuditChain
from .database import speaking, writing
from .graph_rows import join_graph, split_graph
from .merging import RUN_RULES, STEP_RULES, Keep, Rules
from .paging import write_cursor
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
from .run_filters import conditions_of, filters_of
from .run_search import search
from .schedule import Schedule
from .schedule_edit import prepare
from .secrets import SqlSecrets
from .snapshots import SqlSnapshots
from .statements import chunks, insert_into, one_of, written, written_in
from .tables import (
    composite_edges,
    composite_step_runs,
    composite_steps,
    composite_tasks,
    outbox_events,
    task_audit_logs,
    task_manager_settings,
    task_revisions,
    task_run_logs,
    task_runs,
    task_triggers,
    tasks,
)

__all__ = ["SqlStore"]

T = TypeVar("T")

_ATTEMPTS = 6
_PATIENCE = 5.0
"""Seconds after which no further attempt starts. SQLite waits about that long inside a single attempt."""

_AUDIT_COLUMNS = [task_audit_logs.c[name] for name in AuditEntry.model_fields]
_RECORD_COLUMNS = [task_audit_logs.c[name] for name in AuditRecord.model_fields]
_RUN_COLUMNS = [task_runs.c[name] for name in Run.model_fields]
_EVENT_COLUMNS = [outbox_events.c[name] for name in OutboxEvent.model_fields]


class SqlStore:
    """Task Center's memory in a database whose tables ``database.upgrade`` has made."""

    def __init__(self, engine: Engine, *, clock: Clock | None = None) -> None:
        self.engine = engine
        self._clock = clock or SystemClock()
        self._postgres = engine.dialect.name == "postgresql"
        self._writer = writing(engine)
        # One snapshot for all statements of one read; SQLite's transactions are snapshots anyway.
        self._reader = engine.execution_options(isolation_level="REPEATABLE READ") if self._postgres else engine
        # SQLite has one writer at a time: threads of one process wait here in turn instead of polling the file.
        self._turn = nullcontext() if self._postgres else threading.Lock()
        self._upsert_runs = _upsert(insert_into(task_runs, engine), task_runs, RUN_RULES)
        self._upsert_steps = _upsert(insert_into(composite_step_runs, engine), composite_step_runs, STEP_RULES)
        self._add_logs = insert_into(task_run_logs, engine).on_conflict_do_nothing(
            index_elements=["run_id", "sequence"]
        )
        # A report that is replayed from a spool brings the same ids again: they stay single.
        self._add_audit = insert_into(task_audit_logs, engine).on_conflict_do_nothing(index_elements=["id"])
        self._add_events = insert_into(outbox_events, engine).on_conflict_do_nothing(index_elements=["id"])
        setting = insert_into(task_manager_settings, engine)
        self._put_setting = setting.on_conflict_do_update(
            index_elements=["key"], set_={"value": setting.excluded.value, "updated_at": setting.excluded.updated_at}
        )

    @property
    def schedule(self) -> Schedule:
        """The scheduler's memory in the same database."""
        return Schedule(self)

    @property
    def chain(self) -> AuditChain:
        """The audit's sequencer, in the same database."""
        return AuditChain(self)

    @property
    def secrets(self) -> SqlSecrets:
        """Encrypted secrets, kept in the same database."""
        return SqlSecrets(self)

    @property
    def snapshots(self) -> SqlSnapshots:
        """Structures of the users' databases, kept in the same database."""
        return SqlSnapshots(self)

    def close(self) -> None:
        self.engine.dispose()

    def rehearse(self, *, write: bool) -> None:
        """Read and ``write`` as a run does, and take it back: what is compiled for it once is there for every fork."""
        nobody = "00000000-0000-0000-0000-000000000000"
        run = Run(id=nobody, task_slug="", task_type="", created_at=self._clock.now())

        with self.reading() as connection:
            _load_tasks(connection, sa.select(tasks).limit(1))
        self.get_setting("")
        self.find_task(nobody)
        self.find_run(nobody)
        self.next_log_sequence(nobody)
        if write:
            with self._turn, self._writer.connect() as connection:
                connection.execute(self._upsert_runs, [run_row(run)])
                connection.rollback()

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
        if graph is not None:
            split_graph(task.id, graph)  # what cannot be stored is said before anything is written
        audit_rows, event_rows = [audit_row(entry) for entry in audit], [event_row(event) for event in events]

        def work(connection: Connection) -> Task:
            stored = _first(connection, sa.select(tasks).where(tasks.c.id == clean_text(task.id)).with_for_update())
            answers.check_revision(task, stored["revision"] if stored else None, expected_revision)
            now = self._clock.now()
            new = answers.next_version(task, stored, now)
            edit = prepare(connection, stored, new, now, resume_policy)
            new = edit.task
            row, triggers = task_row(new), trigger_rows(new)
            self._check_keys(connection, new, row, triggers)
            if stored:
                connection.execute(sa.update(tasks).where(tasks.c.id == row["id"]), row)
                connection.execute(sa.delete(task_triggers).where(task_triggers.c.task_id == row["id"]))
            else:
                connection.execute(sa.insert(tasks), row)
            if triggers:
                connection.execute(sa.insert(task_triggers), triggers)
            edit.write(connection, now)
            kept = _save_graph(connection, row, stored, graph)
            saved = task_of(row, triggers)
            connection.execute(
                sa.insert(task_revisions),
                {
                    "task_id": row["id"],
                    "revision": row["revision"],
                    "created_at": row["updated_at"],
                    "created_by": audit[0].actor if audit else None,
                    "reason": audit[0].message if audit else None,
                    "definition": saved.to_json(),
                    "graph": kept,
                },
            )
            self._add(connection, audit_rows, event_rows)
            return saved

        return self.transaction(work, races=True)

    def _check_keys(self, connection: Connection, task: Task, row: Row, triggers: Sequence[Row]) -> None:
        same_slug = sa.select(tasks.c.id).where(tasks.c.slug == row["slug"], tasks.c.id != row["id"])
        owner = connection.execute(same_slug).scalar()
        if owner is not None:
            raise answers.slug_taken(task, owner)
        for ids in chunks([trigger["id"] for trigger in triggers]):
            others = sa.select(task_triggers.c.id).where(
                task_triggers.c.id.in_(ids), task_triggers.c.task_id != row["id"]
            )
            if connection.execute(others).first() is not None:
                raise answers.trigger_taken(task)

    def find_task(self, id_or_slug: str) -> Task | None:
        wanted = clean_text(id_or_slug)
        query = sa.select(tasks).where(sa.or_(tasks.c.id == wanted, tasks.c.slug == wanted))
        with self.reading() as connection:
            # An id wins over a slug that looks like it.
            found = _load_tasks(connection, query.order_by(sa.case((tasks.c.id == wanted, 0), else_=1)).limit(1))
        return found[0] if found else None

    def get_task(self, id_or_slug: str) -> Task:
        task = self.find_task(id_or_slug)
        if task is None:
            raise answers.no_task(id_or_slug)
        return task

    def list_tasks(self, where: TaskFilter = TaskFilter()) -> Sequence[Task]:
        query = sa.select(tasks)
        for column in ("status", "task_type", "owner", "category"):
            wanted = getattr(where, column)
            if wanted is not None:
                query = query.where(tasks.c[column] == clean_text(wanted))
        if where.tag is not None:
            query = query.where(self._has_tag(clean_text(where.tag.strip().lower())))
        if where.search:
            query = query.where(tasks.c.search_text.contains(clean_text(where.search).casefold(), autoescape=True))
        for column, falling in (*answers.order_of(where.sort_by), ("id", False)):
            query = query.order_by(tasks.c[column].desc() if falling else tasks.c[column])
        with self.reading() as connection:
            return _load_tasks(connection, query.limit(max(where.limit, 0)).offset(max(where.offset, 0)))

    def _has_tag(self, tag: str) -> ColumnElement[bool]:
        if self._postgres:
            return sa.type_coerce(tasks.c.tags, JSONB).contains([tag])
        each = sa.func.json_each(tasks.c.tags).table_valued("value", name="tag")
        return sa.exists(sa.select(sa.literal_column("1")).select_from(each).where(each.c.value == tag))

    def delete_task(
        self, task_id: str, *, audit: Sequence[AuditEntry] = (), events: Sequence[OutboxEvent] = ()
    ) -> None:
        audit_rows, event_rows = [audit_row(entry) for entry in audit], [event_row(event) for event in events]

        def work(connection: Connection) -> None:
            gone = connection.execute(sa.delete(tasks).where(tasks.c.id == clean_text(task_id)))
            if gone.rowcount == 0:
                raise answers.no_task(task_id)
            self._add(connection, audit_rows, event_rows)

        self.transaction(work)

    def find_graph(self, task_id: str) -> dict[str, Any] | None:
        with self.reading() as connection:
            return _load_graph(connection, clean_text(task_id))

    def list_revisions(self, task_id: str) -> Sequence[Mapping[str, Any]]:
        query = _revisions_of(task_id).order_by(task_revisions.c.revision.desc())
        with self.reading() as connection:
            return _all(connection, query)

    def find_revision(self, task_id: str, revision: int) -> Mapping[str, Any] | None:
        with self.reading() as connection:
            return _first(connection, _revisions_of(task_id).where(task_revisions.c.revision == revision))

    # history ---------------------------------------------------------------------------------------

    def record(self, changes: Changes) -> None:
        if not changes:
            return
        # Every transaction takes the rows in the same order, so two of them wait for each other but never
        # in a circle. The sort is stable: two reports about one row stay in their order.
        runs = sorted((run_row(run) for run in changes.runs), key=lambda row: str(row["id"]))
        steps = sorted((step_row(step) for step in changes.steps), key=lambda row: (row["run_id"], row["step_key"]))
        logs = sorted((log_row(line) for line in changes.logs), key=lambda row: (row["run_id"], row["sequence"]))
        audit, events = [audit_row(entry) for entry in changes.audit], [event_row(event) for event in changes.events]

        def work(connection: Connection) -> None:
            if runs:
                connection.execute(self._upsert_runs, runs)
            if steps:
                connection.execute(self._upsert_steps, steps)
            if logs:
                connection.execute(self._add_logs, logs)
            self._add(connection, audit, events)

        try:
            self.transaction(work)
        except IntegrityError as error:
            if not _broken_reference(error):
                raise
            raise self._missing_parent(runs, [*steps, *logs]) from error

    def _missing_parent(self, runs: Sequence[Row], children: Sequence[Row]) -> Exception:
        named_tasks = {row["task_id"] for row in runs if row["task_id"] is not None}
        named_runs = {row["run_id"] for row in children} - {row["id"] for row in runs}
        with self.reading() as connection:
            lost_tasks = named_tasks - _present(connection, tasks, named_tasks)
            lost_runs = named_runs - _present(connection, task_runs, named_runs)
        return answers.missing_parent(lost_tasks, lost_runs)

    def find_run(self, run_id: str) -> Run | None:
        with self.reading() as connection:
            row = _first(connection, sa.select(*_RUN_COLUMNS).where(task_runs.c.id == clean_text(run_id)))
        return Run(**row) if row else None

    def find_runs(self, run_ids: Collection[str]) -> Mapping[str, Run]:
        query = sa.select(*_RUN_COLUMNS).where(one_of(task_runs.c.id, map(clean_text, run_ids)))
        with self.reading() as connection:
            return {row["id"]: Run(**row) for row in connection.execute(query).mappings()}

    def get_run(self, run_id: str) -> Run:
        wanted = clean_text(run_id.strip())
        run = self.find_run(wanted)
        if run is not None:
            return run
        if len(wanted) < answers.PREFIX_LENGTH:
            raise answers.no_run(run_id)
        # A range, not LIKE: it reads the primary key's index and knows no wildcards.
        beginning = sa.and_(task_runs.c.id >= wanted, task_runs.c.id < wanted + "\U0010ffff")
        with self.reading() as connection:
            query = sa.select(*_RUN_COLUMNS).where(beginning).order_by(task_runs.c.id).limit(2)
            found = [Run(**row) for row in connection.execute(query).mappings()]
        if len(found) > 1:
            raise answers.several_runs(wanted, [run.id for run in found])
        if not found:
            raise answers.no_run(run_id)
        return found[0]

    def list_runs(self, where: RunFilter = RunFilter()) -> Page:
        run = task_runs.c
        filters = filters_of(where)
        limit = max(where.limit, 1)
        wanted = clean_text(where.search.strip()) if where.search else ""
        with self.reading() as connection:
            rows: Iterable[Mapping[Any, Any]]
            if wanted:
                rows = search(connection, _RUN_COLUMNS, filters, wanted, limit + 1)
            else:
                query = sa.select(*_RUN_COLUMNS).where(*conditions_of(filters.shape)).limit(limit + 1)
                query = query.order_by(run.created_at.desc(), run.id.desc())
                rows = connection.execute(query, dict(filters.values)).mappings()
            found = [Run(**row) for row in rows]
        items = found[:limit]
        more = write_cursor(items[-1].created_at, items[-1].id) if len(found) > limit else None
        return Page(items=tuple(items), next_cursor=more)

    def list_steps(self, run_id: str) -> Sequence[StepRun]:
        step = composite_step_runs.c
        query = sa.select(composite_step_runs).where(step.run_id == clean_text(run_id))
        with self.reading() as connection:
            rows = connection.execute(query.order_by(step.position, step.step_key)).mappings()
            return [StepRun(**row) for row in rows]

    def with_open_steps(self, run_ids: Collection[str]) -> Collection[str]:
        step = composite_step_runs.c
        over = written_in(step.status, sorted(TERMINAL_STEP))
        query = sa.select(step.run_id).distinct().where(one_of(step.run_id, map(clean_text, run_ids)), ~over)
        with self.reading() as connection:
            return set(connection.execute(query).scalars())

    def list_logs(
        self, run_id: str, *, after: int = -1, limit: int = 1000, step_key: str | None = None
    ) -> Sequence[LogLine]:
        line = task_run_logs.c
        query = sa.select(task_run_logs).where(line.run_id == clean_text(run_id), line.sequence > after)
        if step_key is not None:
            query = query.where(line.step_key == clean_text(step_key))
        query = query.order_by(line.sequence).limit(answers.log_limit(limit))
        with self.reading() as connection:
            return [LogLine(**row) for row in connection.execute(query).mappings()]

    def last_reports(self, run_id: str) -> Sequence[LogLine]:
        line, step, run = task_run_logs.c, composite_step_runs.c, clean_text(run_id)
        newest = sa.select(sa.func.max(line.sequence)).where(line.stream == written("progress"))
        of_step = newest.where(line.run_id == step.run_id, line.step_key == step.step_key).scalar_subquery()
        at_work = sa.select(of_step).where(step.run_id == run, step.status == written(StepStatus.RUNNING.value))
        own = newest.where(line.run_id == run, line.step_key.is_(None))
        query = sa.select(task_run_logs).where(line.run_id == run, line.sequence.in_(sa.union_all(at_work, own)))
        with self.reading() as connection:
            return [LogLine(**row) for row in connection.execute(query.order_by(line.sequence)).mappings()]

    def next_log_sequence(self, run_id: str) -> int:
        query = sa.select(sa.func.max(task_run_logs.c.sequence)).where(task_run_logs.c.run_id == clean_text(run_id))
        with self.reading() as connection:
            last = connection.execute(query).scalar()
        return 0 if last is None else last + 1

    def list_audit(
        self, *, task_id: str | None = None, run_id: str | None = None, limit: int = 100
    ) -> Sequence[AuditEntry]:
        query = _audit_of(sa.select(*_AUDIT_COLUMNS), AuditFilter(task_id=task_id, run_id=run_id))
        with self.reading() as connection:
            return [AuditEntry(**row) for row in connection.execute(query.limit(max(limit, 0))).mappings()]

    def page_audit(self, where: AuditFilter = AuditFilter()) -> Sequence[AuditRecord]:
        query = _audit_of(sa.select(*_RECORD_COLUMNS), where)
        with self.reading() as connection:
            return [AuditRecord(**row) for row in connection.execute(query.limit(max(where.limit, 0))).mappings()]

    def list_events(self, *, undelivered: bool = False, limit: int = 100) -> Sequence[OutboxEvent]:
        query = sa.select(*_EVENT_COLUMNS).order_by(outbox_events.c.sequence).limit(max(limit, 0))
        if undelivered:
            query = query.where(outbox_events.c.delivered_at.is_(None))
        with self.reading() as connection:
            return [OutboxEvent(**row) for row in connection.execute(query).mappings()]

    def mark_delivered(self, event_ids: Sequence[str], at: datetime) -> None:
        def work(connection: Connection) -> None:
            for ids in chunks(sorted(clean_text(key) for key in event_ids)):
                waiting = outbox_events.c.id.in_(ids) & outbox_events.c.delivered_at.is_(None)
                connection.execute(sa.update(outbox_events).where(waiting).values(delivered_at=at))

        if event_ids:
            self.transaction(work)

    # settings --------------------------------------------------------------------------------------

    def get_setting(self, key: str) -> Any | None:
        query = sa.select(task_manager_settings.c.value).where(task_manager_settings.c.key == clean_text(key))
        with self.reading() as connection:
            return connection.execute(query).scalar()

    def set_setting(self, key: str, value: Any, *, audit: Sequence[AuditEntry] = ()) -> None:
        self.set_settings({key: value}, audit=audit)

    def set_settings(self, values: Mapping[str, Any], *, audit: Sequence[AuditEntry] = ()) -> None:
        rows, audit_rows = self._setting_rows(values), [audit_row(entry) for entry in audit]

        def work(connection: Connection) -> None:
            if rows:
                connection.execute(self._put_setting, rows)
            self._add(connection, audit_rows, [])

        self.transaction(work)

    def change_settings(self, keys: Sequence[str], change: SettingsChange) -> None:
        setting = task_manager_settings.c
        query = sa.select(setting.key, setting.value).where(setting.key.in_([clean_text(key) for key in keys]))

        def work(connection: Connection) -> None:
            if self._postgres:  # a setting that was never set has no row to lock
                name = task_manager_settings.name
                connection.execute(sa.text(f"LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE"))
            values, audit = change({row.key: row.value for row in connection.execute(query)})
            if rows := self._setting_rows(values):
                connection.execute(self._put_setting, rows)
            self._add(connection, [audit_row(entry) for entry in audit], [])

        self.transaction(work)

    def _setting_rows(self, values: Mapping[str, Any]) -> list[Row]:
        now = self._clock.now()
        return [
            {"key": clean_text(key), "value": clean_json(value, key), "updated_at": now}
            for key, value in sorted(values.items())
        ]

    # transactions ----------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with speaking(self.engine), self._reader.connect() as connection:
            yield connection

    def transaction(self, work: Callable[[Connection], T], *, races: bool = False) -> T:
        """One transaction around ``work``. With ``races``, a lost race for a unique key is worth another attempt."""
        deadline = time.monotonic() + _PATIENCE
        with speaking(self.engine):
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    with self._turn, self._writer.begin() as connection:
                        return work(connection)
                except DBAPIError as error:
                    again = _transient(error) or (races and isinstance(error, IntegrityError))
                    if not again or attempt == _ATTEMPTS or time.monotonic() > deadline:
                        raise
                # Spread, so that those who met once do not meet again.
                time.sleep(0.01 * 2**attempt * random.uniform(0.5, 1.0))
        raise AssertionError("the last attempt returns or raises")

    def _add(self, connection: Connection, audit: Sequence[Row], events: Sequence[Row]) -> None:
        if audit:
            connection.execute(self._add_audit, audit)
        if events:
            connection.execute(self._add_events, events)


# statements ----------------------------------------------------------------------------------------


def _upsert(insert: Any, table: Table, rules: Rules) -> Any:
    """``merging.merge`` as ``INSERT … ON CONFLICT DO UPDATE``: one round trip, and safe beside other writers."""
    old, new = table.c, insert.excluded
    final = written_in(old.status, sorted(rules.terminal))
    moved = old.status != new.status
    corrected: ColumnElement[bool] = sa.false()
    useless: ColumnElement[bool] = sa.false()
    if rules.guess is not None:
        column, word = rules.guess

        def guessed(row: Any) -> ColumnElement[bool]:
            return sa.func.coalesce(row[column], written("")) == written(word)

        corrected = sa.and_(guessed(old), written_in(new.status, sorted(rules.terminal)), ~guessed(new))
        useless = sa.and_(final, guessed(new))
        final, moved = sa.and_(final, ~corrected), sa.or_(moved, corrected)

    def kept(name: str, keep: Keep) -> ColumnElement[Any]:
        before, after = old[name], new[name]
        blank = name in rules.blanks
        known_before = sa.func.nullif(before, written("")) if blank else before
        known_after = sa.func.nullif(after, written("")) if blank else after
        first: ColumnElement[Any] = sa.func.coalesce(known_before, after)
        going: dict[Keep, ColumnElement[Any]] = {
            Keep.LATEST: after,
            Keep.KNOWN: sa.func.coalesce(known_after, before),
            Keep.STATE: sa.case((moved, after), else_=sa.func.coalesce(after, before)),
            Keep.LARGER: sa.case((after > before, after), else_=before),
        }
        return first if keep is Keep.FIRST else sa.case((final, first), else_=going[keep])

    allowed = [
        sa.and_(
            old.status == written(move.source),
            new.status == written(move.target),
            *([new.phase == written(move.phase)] if move.phase else []),
        )
        for move in rules.moves
    ]
    return insert.on_conflict_do_update(
        index_elements=list(rules.key),
        set_={name: kept(name, keep) for name, keep in rules.keep.items()},
        where=sa.and_(sa.or_(old.status == new.status, *allowed, corrected), ~useless),
    )


def _revisions_of(task_id: str) -> sa.Select[Any]:
    columns = [column for column in task_revisions.c if column.name != "task_id"]
    return sa.select(*columns).where(task_revisions.c.task_id == clean_text(task_id))


def _audit_of(query: sa.Select[Any], where: AuditFilter) -> sa.Select[Any]:
    entry = task_audit_logs.c
    for column in ("id", "task_id", "run_id", "event_type", "actor", "channel", "result"):
        wanted = getattr(where, column)
        if wanted is not None:
            query = query.where(entry[column] == clean_text(wanted))
    if where.since is not None:
        query = query.where(entry.created_at >= where.since)
    if where.until is not None:
        query = query.where(entry.created_at < where.until)
    if where.before is not None:
        query = query.where(entry.sequence < where.before)
    return query.order_by(entry.sequence.desc())


def _first(connection: Connection, query: sa.Select[Any]) -> Row | None:
    row = connection.execute(query).mappings().first()
    return dict(row) if row is not None else None


def _all(connection: Connection, query: sa.Select[Any]) -> list[Row]:
    return [dict(row) for row in connection.execute(query).mappings()]


def _present(connection: Connection, table: Table, ids: set[str]) -> set[str]:
    found: set[str] = set()
    for some in chunks(sorted(ids)):
        found.update(connection.execute(sa.select(table.c.id).where(table.c.id.in_(some))).scalars())
    return found


def _load_tasks(connection: Connection, query: sa.Select[Any]) -> list[Task]:
    rows = _all(connection, query)
    triggers: dict[str, list[Row]] = {row["id"]: [] for row in rows}
    for ids in chunks(list(triggers)):
        theirs = sa.select(task_triggers).where(task_triggers.c.task_id.in_(ids)).order_by(task_triggers.c.position)
        for trigger in _all(connection, theirs):
            triggers[trigger["task_id"]].append(trigger)
    return [task_of(row, triggers[row["id"]]) for row in rows]


def _load_graph(connection: Connection, task_id: str) -> dict[str, Any] | None:
    composite = _first(connection, sa.select(composite_tasks).where(composite_tasks.c.task_id == task_id))
    if composite is None:
        return None
    steps, edges = (
        _all(connection, sa.select(table).where(table.c.task_id == task_id).order_by(table.c.ordinal))
        for table in (composite_steps, composite_edges)
    )
    return join_graph(composite, steps, edges)


def _save_graph(
    connection: Connection, row: Row, stored: Row | None, graph: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Put the given graph in the place of the stored one. None keeps it, unless the task changed its type."""
    if graph is None and stored and stored["task_type"] == row["task_type"]:
        return _load_graph(connection, row["id"])
    if stored:
        connection.execute(sa.delete(composite_tasks).where(composite_tasks.c.task_id == row["id"]))
    if graph is None:
        return None
    composite, steps, edges = split_graph(row["id"], graph)
    connection.execute(sa.insert(composite_tasks), composite)
    if steps:
        connection.execute(sa.insert(composite_steps), steps)
    if edges:
        connection.execute(sa.insert(composite_edges), edges)
    return join_graph(composite, steps, edges)


# errors --------------------------------------------------------------------------------------------


def _transient(error: DBAPIError) -> bool:
    """Whether the same transaction may succeed if it is tried again."""
    # Serialization failure, deadlock, lock not available.
    if getattr(error.orig, "sqlstate", None) in ("40001", "40P01", "55P03"):
        return True
    text = str(error.orig)
    return "database is locked" in text or "database table is locked" in text


def _broken_reference(error: IntegrityError) -> bool:
    return getattr(error.orig, "sqlstate", None) == "23503" or "FOREIGN KEY" in str(error.orig)
