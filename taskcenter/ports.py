"""What the rest of the product asks of a store, whichever database stands behind it.

One contract suite (``tests/contracts``) holds for PostgreSQL, SQLite and the in-memory store. ``find_`` may
return None, ``get_`` raises NotFound; every write is one transaction: all of it or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from .models import AuditEntry, AuditRecord, LogLine, MisfirePolicy, OutboxEvent, Run, SchemaSnapshot, StepRun, Task
from .status import RunStatus

__all__ = ["AuditFilter", "Changes", "Page", "RunFilter", "SchemaSnapshots", "SettingsChange", "Store", "TaskFilter"]

SettingsChange = Callable[[Mapping[str, Any]], tuple[Mapping[str, Any], Sequence[AuditEntry]]]
"""From the settings as they stand to what they become, and what the audit says of it."""


@dataclass(frozen=True)
class Changes:
    """What one transaction writes. Runs and steps are upserts by key; logs, audit and events are only added.

    A row that is terminal keeps its status: a later report for it is dropped, with one exception: the same
    final status may fill fields that were empty (a result that came after the state). A step that was closed
    because nobody reported its end (``error_type`` is ``lost``) gives way to that report. Log lines are keyed
    by (run, sequence): writing the same line twice keeps one.
    """

    runs: Sequence[Run] = ()
    steps: Sequence[StepRun] = ()
    logs: Sequence[LogLine] = ()
    audit: Sequence[AuditEntry] = ()
    events: Sequence[OutboxEvent] = ()

    def __bool__(self) -> bool:
        return bool(self.runs or self.steps or self.logs or self.audit or self.events)


@dataclass(frozen=True)
class TaskFilter:
    status: str | None = None
    task_type: str | None = None
    owner: str | None = None
    tag: str | None = None
    category: str | None = None
    search: str | None = None
    """Substring of name or description, case-insensitive."""
    sort_by: str = "name"
    """name, created_at, updated_at, status"""
    limit: int = 100
    offset: int = 0


@dataclass(frozen=True)
class RunFilter:
    task_id: str | None = None
    status: RunStatus | None = None
    trigger_id: str | None = None
    root_run_id: str | None = None
    batch_id: str | None = None
    open_only: bool = False
    since: datetime | None = None
    until: datetime | None = None
    """Created from ``since`` on, and before ``until``."""
    search: str | None = None
    """Part of the task's slug or the run's name; A to Z in either case."""
    limit: int = 50
    cursor: str | None = None
    """The ``next_cursor`` of the page before (keyset paging, newest first by created_at then id)."""


@dataclass(frozen=True)
class AuditFilter:
    """Which entries of the audit; newest first."""

    id: str | None = None
    task_id: str | None = None
    run_id: str | None = None
    event_type: str | None = None
    actor: str | None = None
    channel: str | None = None
    result: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None
    """Only entries with a smaller sequence: the last one of the page before."""
    limit: int = 100


@dataclass(frozen=True)
class Page:
    items: Sequence[Any] = field(default_factory=tuple)
    next_cursor: str | None = None


class SchemaSnapshots(Protocol):
    """Structures of the users' databases as they were seen. (spec 2.3)"""

    def save(self, snapshot: SchemaSnapshot) -> SchemaSnapshot:
        """Keep it; as stored. The same hash of the same connection and database stands once.

        What stands already keeps its id, its structure and its first time, and gets the new time and run. A time before
        the one that stands changes nothing.
        """
        ...

    def find(self, id: str) -> SchemaSnapshot | None: ...
    def latest(self, connection: str, database: str = "") -> SchemaSnapshot | None:
        """The one that was seen last of this connection and database."""
        ...

    def before(self, snapshot: SchemaSnapshot) -> SchemaSnapshot | None:
        """The other one of its connection and database that was seen last before ``snapshot`` was.

        One that has come back since counts with its first time.
        """
        ...

    def ids(self, beginning: str, *, limit: int = 2) -> Sequence[str]:
        """Ids that begin so, in their order."""
        ...

    def page(self, connection: str | None = None, *, limit: int = 100, offset: int = 0) -> Sequence[SchemaSnapshot]:
        """Last seen first, then by id; without their structures (an empty object stands there)."""
        ...


class Store(Protocol):
    """Task Center's own memory."""

    @property
    def snapshots(self) -> SchemaSnapshots: ...

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
        """Insert or replace a task with its triggers and, for a composite, its graph (seed form, spec 3.1).

        ``expected_revision``: the revision that must stand there now (None: do not check; 0: must not exist).
        Raises Conflict when it does not, or when the slug belongs to another task. Each save is also an
        immutable row in ``task_revisions``, and what it means for its triggers' slots is written with it
        (``resume_policy``: for slots kept by a pause that this save ends; the memory store has no scheduler).
        Returns the task as stored (its revision is the old one + 1).
        """
        ...

    def find_task(self, id_or_slug: str) -> Task | None: ...
    def get_task(self, id_or_slug: str) -> Task: ...
    def list_tasks(self, where: TaskFilter = ...) -> Sequence[Task]: ...
    def delete_task(
        self, task_id: str, *, audit: Sequence[AuditEntry] = (), events: Sequence[OutboxEvent] = ()
    ) -> None:
        """Removes triggers, runs, logs, graph, step runs and revisions with it. Audit entries stay."""
        ...

    def find_graph(self, task_id: str) -> dict[str, Any] | None:
        """The stored composite in the seed's JSON form, or None when the task is not a composite."""
        ...

    def list_revisions(self, task_id: str) -> Sequence[Mapping[str, Any]]:
        """Newest first: revision, created_at, created_by, reason, definition (task JSON), graph."""
        ...

    def find_revision(self, task_id: str, revision: int) -> Mapping[str, Any] | None:
        """One of them."""
        ...

    # history ---------------------------------------------------------------------------------------
    def record(self, changes: Changes) -> None:
        """Write all of it in one transaction."""
        ...

    def find_run(self, run_id: str) -> Run | None: ...
    def find_runs(self, run_ids: Collection[str]) -> Mapping[str, Run]:
        """Those of them that are there, by id."""
        ...

    def get_run(self, run_id: str) -> Run:
        """By full id, or by a prefix of at least 4 characters that only one run has."""
        ...

    def list_runs(self, where: RunFilter = ...) -> Page: ...
    def list_steps(self, run_id: str) -> Sequence[StepRun]:
        """By position, then key."""
        ...

    def with_open_steps(self, run_ids: Collection[str]) -> Collection[str]:
        """Those of the runs that have a step which has not ended."""
        ...

    def list_logs(
        self, run_id: str, *, after: int = -1, limit: int = 1000, step_key: str | None = None
    ) -> Sequence[LogLine]:
        """In order of sequence, only those with sequence > after; at most 2,000."""
        ...

    def last_reports(self, run_id: str) -> Sequence[LogLine]:
        """The newest line of the stream ``progress`` of the run itself and of each of its steps at work."""
        ...

    def next_log_sequence(self, run_id: str) -> int: ...
    def list_audit(
        self, *, task_id: str | None = None, run_id: str | None = None, limit: int = 100
    ) -> Sequence[AuditEntry]:
        """Newest first."""
        ...

    def page_audit(self, where: AuditFilter = ...) -> Sequence[AuditRecord]:
        """Newest first, each with its place and its hashes once it is sealed."""
        ...

    def list_events(self, *, undelivered: bool = False, limit: int = 100) -> Sequence[OutboxEvent]:
        """In the order they were written."""
        ...

    def mark_delivered(self, event_ids: Sequence[str], at: datetime) -> None: ...

    # settings --------------------------------------------------------------------------------------
    def get_setting(self, key: str) -> Any | None: ...
    def set_setting(self, key: str, value: Any, *, audit: Sequence[AuditEntry] = ()) -> None: ...
    def set_settings(self, values: Mapping[str, Any], *, audit: Sequence[AuditEntry] = ()) -> None:
        """All of them in one transaction."""
        ...

    def change_settings(self, keys: Sequence[str], change: SettingsChange) -> None:
        """Read, change and write settings in one transaction, meanwhile nobody else writes any: no change is lost.

        ``change`` gets those of ``keys`` that are set, and must not write to the store itself. It is called again when
        the transaction has to be repeated. Where it changes nothing, nothing is written.
        """
        ...

    def close(self) -> None: ...
