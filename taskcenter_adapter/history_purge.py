"""Deleting history in the database: what a plan says, taken away a little at a time. (spec 6.5)

One set of conditions serves the preview and the purge. A step looks at the next rows by age from outside a
transaction and deletes among them in a short one; whoever calls decides how many and how often. It may be broken
off between any two steps and begun again.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Table, event

from taskcenter.errors import TaskCenterError
from taskcenter.purge_plan import DAYS_SETTING, POLICY_SETTING, Plan

from .database import make_engine
from .purge_conditions import Conditions
from .purge_preview import COUNTERS, STEP_RUNS
from .schedule_tables import run_batches, run_cancels, run_requests, slot_ledger, trigger_firings
from .search_index import merge_by_itself, merge_some
from .store_sql import SqlStore
from .tables import (
    composite_step_runs,
    outbox_events,
    task_audit_logs,
    task_manager_settings,
    task_run_logs,
    task_runs,
)
from .turns import Turns
from .write_ahead import begin_anew, catch_up

__all__ = ["HistoryPurge", "PolicyChanged", "Step", "policy_stamp"]

T = TypeVar("T")

_MERGED = 64
"""Pages."""
_PARTS = 2
_FEWEST = 60
_LONG_ENOUGH = 0.026
"""Seconds after which a transaction of SQLite begins no further statement; to write all of it takes its time too."""
_INSTANT = timedelta(microseconds=1)
_CACHE = -65_536
"""KiB of pages that SQLite keeps for the purge: deleting by age touches other indexes all over."""


class PolicyChanged(Exception):
    """Somebody changed the policy while the purge went on: it has to be planned anew."""


@dataclass(frozen=True)
class Step:
    """What one transaction deleted, how long it held on to the database, and where to go on (None: done)."""

    deleted: Mapping[str, int]
    seconds: float
    place: Any
    size: int
    """Among so many rows."""


@dataclass(frozen=True)
class _Window:
    """The next rows by age. ``end``: where the ones after them begin (None: nowhere)."""

    conditions: list[ColumnElement[bool]]
    end: datetime | None
    size: int
    crowded: bool = False
    """They share one instant, and are more than ``size``: they are taken in parts."""


class HistoryPurge:
    """A purge's own way into the database of ``store``; close it when done."""

    def __init__(self, store: SqlStore, plan: Plan, stamp: Any) -> None:
        self.plan = plan
        self._rules = Conditions(plan)
        self._postgres = store.engine.dialect.name == "postgresql"
        self._store = SqlStore(make_engine(store.engine.url))
        if not self._postgres:
            event.listen(self._store.engine, "connect", _prepare)
        self._stamp = stamp
        self._beside = ThreadPoolExecutor(1, "purge")
        self._ahead: tuple[datetime, Future[_Window]] | None = None
        self._turns = None if self._postgres else Turns(str(store.engine.url.database))
        self._merges = False
        self._inflow: Future[int] | None = None
        self._step = threading.Lock()
        self._go_on = threading.Event()
        self._go_on.set()

    def close(self) -> None:
        try:
            if self._merges:
                with suppress(TaskCenterError):  # as after a purge that was killed: the next one does it
                    self._store.transaction(lambda connection: merge_by_itself(connection, True))
        finally:
            self._beside.shutdown(cancel_futures=True)
            if self._turns is not None:
                self._turns.close()
            self._store.close()

    # deleting --------------------------------------------------------------------------------------

    def step(self, kind: str, place: Any, size: int) -> Step:
        """Delete among the next ``size`` rows of a kind, from ``place`` on, which the step before has given."""
        match kind:
            case "logs":
                return self._by_age(task_run_logs, task_run_logs.c.time, self._rules.log_goes(), place, size, kind)
            case "runs":
                return self._runs(place, size)
            case "audit":
                return self._audit(place, size)
            case "ledger":
                row = slot_ledger.c.decided_at
                return self._by_age(slot_ledger, row, self._rules.ledger_goes(), place, size, kind)
            case "requests":
                return self._requests(size)
            case "firings":
                at = trigger_firings.c.at
                return self._by_age(trigger_firings, at, self._rules.firing_goes(), place, size, kind)
            case "events":
                moment = outbox_events.c.created_at
                return self._by_age(outbox_events, moment, self._rules.event_goes(), place, size, kind)
        raise AssertionError(kind)

    def _window(self, moment: Any, place: datetime | None, size: int, latest: datetime) -> _Window:
        """Asked without a lock. Rows that come in meanwhile are deleted with them if they are old enough."""
        after = [moment >= place] if place is not None else []
        query = sa.select(moment).where(*after, moment < latest).order_by(moment).limit(1).offset(size)
        with self._store.reading() as connection:
            end: datetime | None = connection.execute(query).scalar()
        if end is None:
            return _Window([*after, moment < latest], None, size)
        if end == place:
            return _Window([moment == place], end + _INSTANT, size, crowded=True)
        return _Window([*after, moment < end], end, size)

    def _by_age(
        self, table: Table, moment: Any, goes: ColumnElement[bool], place: datetime | None, size: int, kind: str
    ) -> Step:
        latest = {
            "logs": self.plan.latest,
            "ledger": self.plan.cutoff(self.plan.ledger_days),
            "firings": self.plan.cutoff(self.plan.ledger_days),
            "events": self.plan.cutoff(self.plan.event_days),
        }[kind]
        window = self._window(moment, place, size, latest)
        where = sa.and_(*window.conditions, goes)
        if window.crowded:
            where = self._some(table, [where], size)

        def work(connection: Connection) -> int:
            return connection.execute(sa.delete(table).where(where)).rowcount

        deleted, seconds = self._write(work)
        again = window.crowded and deleted >= size
        return Step({COUNTERS[kind]: deleted}, seconds, place if again else window.end, size)

    def _some(self, table: Table, conditions: list[ColumnElement[bool]], size: int) -> ColumnElement[bool]:
        """At most ``size`` rows, by where they lie."""
        key: ColumnElement[Any] = sa.literal_column("ctid" if self._postgres else "rowid")
        found = sa.select(key).select_from(table).where(*conditions).limit(size)
        if self._postgres:
            return key == sa.func.any(sa.func.array(found.scalar_subquery()))
        return key.in_(found)

    def _runs(self, place: datetime | None, size: int) -> Step:
        window = self._next_runs(place, size)
        if not self._postgres:
            return self._runs_bit_by_bit(window, place)
        (deleted, steps), seconds = self._write(self._runs_at_once(self._runs_in(window), window.size))
        again = window.crowded and deleted >= window.size
        counts = {COUNTERS["runs"]: deleted, STEP_RUNS: steps}
        return Step(counts, seconds, place if again else window.end, window.size)

    def _runs_bit_by_bit(self, window: _Window, place: datetime | None) -> Step:
        """SQLite: in two or three statements, and none of them begun when the transaction's time is over.

        The index of trigrams is written with every statement: to delete run by run takes twice as long.
        """
        run = task_runs.c
        query = sa.select(run.id, run.finished_at).where(*self._runs_in(window)).order_by(run.finished_at)
        some = max(window.size // _PARTS, _FEWEST)
        until: datetime | None = None

        def work(connection: Connection) -> tuple[int, int]:
            nonlocal until
            began, deleted, steps = time.perf_counter(), 0, 0
            found = connection.execute(query.limit(window.size)).all()
            for start in range(0, len(found), some):
                if start and time.perf_counter() - began > _LONG_ENOUGH:
                    until = found[start][1]
                    break
                ids = tuple(run_id for run_id, _ in found[start : start + some])
                # Written out: for a list as one parameter it would read the whole table.
                listed = f"IN ({', '.join('?' * len(ids))})"
                do = connection.exec_driver_sql
                steps += do(f"DELETE FROM composite_step_runs WHERE run_id {listed}", ids).rowcount
                do(f"DELETE FROM run_cancels WHERE run_id {listed}", ids)
                deleted += do(f"DELETE FROM task_runs WHERE id {listed}", ids).rowcount
            return deleted, steps

        (deleted, steps), seconds = self._write(work)
        if deleted:
            self._merge()
        if until is None and window.crowded and deleted >= window.size:
            until = place
        counts = {COUNTERS["runs"]: deleted, STEP_RUNS: steps}
        return Step(counts, seconds, window.end if until is None else until, window.size)

    def _merge(self) -> None:
        """What the steps left in SQLite's index of trigrams, a little after each: by itself it takes much at once."""
        with suppress(PolicyChanged, TaskCenterError):  # the next step says so; what this one deleted has to be told
            if not self._merges:
                self._merges = True
                self._write(lambda connection: merge_by_itself(connection, False))
            self._write(lambda connection: merge_some(connection, _MERGED))

    def _runs_in(self, window: _Window) -> list[ColumnElement[bool]]:
        return [*window.conditions, self._rules.run_goes(logs_are_gone=True)]

    def _next_runs(self, place: datetime | None, size: int) -> _Window:
        """The window at ``place``; on PostgreSQL the one after it is looked through meanwhile, see ``_look_ahead``."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == place:
            window = ahead[1].result()
        else:
            window = self._window(task_runs.c.finished_at, place, size, self.plan.latest)
        if self._postgres and window.end is not None and not window.crowded:
            self._ahead = window.end, self._beside.submit(self._look_ahead, window.end, size)
        return window

    def _look_ahead(self, place: datetime, size: int) -> _Window:
        """The window at ``place``, and its runs looked at on a connection beside the one that deletes.

        What is found counts for nothing. But whether a run has a line left is told by pages all over an index, and to
        have them read is half of the work of deleting it.
        """
        window = self._window(task_runs.c.finished_at, place, size, self.plan.latest)
        with self._store.reading() as connection:
            connection.exec_driver_sql("SET LOCAL max_parallel_workers_per_gather = 0")
            connection.execute(sa.select(task_runs.c.id).where(*self._runs_in(window)).limit(size))
        return window

    def _runs_at_once(self, goes: list[ColumnElement[bool]], size: int) -> Callable[[Connection], tuple[int, int]]:
        """PostgreSQL: runs by where they lie, with their steps, in one statement: their ids stay on the server."""
        gone = sa.delete(task_runs).where(self._some(task_runs, goes, size)).returning(task_runs.c.id).cte("gone")
        step, cancel = composite_step_runs.c, run_cancels.c
        steps = sa.delete(composite_step_runs).where(step.run_id == gone.c.id).returning(step.run_id).cte("steps")
        cancels = sa.delete(run_cancels).where(cancel.run_id == gone.c.id).returning(cancel.run_id).cte("cancels")
        counts = [sa.select(sa.func.count()).select_from(each).scalar_subquery() for each in (gone, steps)]
        query = sa.select(*counts).add_cte(cancels)

        def work(connection: Connection) -> tuple[int, int]:
            deleted, its_steps = connection.execute(query).one()
            return int(deleted), int(its_steps)

        return work

    def _audit(self, place: tuple[datetime, int] | None, size: int) -> Step:
        chain, plan = self._store.chain, self.plan
        chain.seal_all()
        cutoff = plan.cutoff(plan.audit_days)
        found = chain.old(cutoff, size, place, self._rules.not_held(task_audit_logs.c))
        if not found:
            return Step({}, 0.0, None, size)
        numbers = [number for _, number in found]
        deleted, seconds = self._write(
            lambda connection: chain.purge(connection, numbers, cutoff, days=plan.audit_days, now=plan.now)
        )
        return Step({COUNTERS["audit"]: deleted}, seconds, found[-1], size)

    def _requests(self, size: int) -> Step:
        where = self._some(run_requests, [self._rules.request_goes()], size)
        batches = self._some(run_batches, [self._rules.batch_goes()], size)

        def work(connection: Connection) -> int:
            connection.execute(sa.delete(run_batches).where(batches))
            return connection.execute(sa.delete(run_requests).where(where)).rowcount

        deleted, seconds = self._write(work)
        return Step({COUNTERS["requests"]: deleted}, seconds, self.plan.now if deleted >= size else None, size)

    def _write(self, work: Callable[[Connection], T]) -> tuple[T, float]:
        """``work`` in one transaction, and for how long that kept others waiting."""
        began = 0.0

        def guarded(connection: Connection) -> T:
            nonlocal began
            began = time.perf_counter()
            if self._postgres:
                # A crash may bring the last deletions back: the next purge finds them again.
                connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
                # For so few rows its helpers take longer to start than to work.
                connection.exec_driver_sql("SET LOCAL max_parallel_workers_per_gather = 0")
            if connection.execute(_STAMP).all() != self._stamp:
                raise PolicyChanged
            return work(connection)

        if self._turns is not None:
            self._turns.let_in()
        self._go_on.wait()
        with self._step:
            found = self._store.transaction(guarded)
        return found, time.perf_counter() - began

    # space -----------------------------------------------------------------------------------------

    def breathe(self) -> int:
        """Begin to bring SQLite's log of changes into its file, beside the steps, and begin it anew.

        Gives how many pages it had the last time (0: it goes on, or is still being brought in).
        """
        if self._postgres or (self._inflow is not None and not self._inflow.done()):
            return 0
        pages = self._inflow.result() if self._inflow is not None else 0
        self._inflow = self._beside.submit(catch_up, self._store.engine, self._between_steps())
        return pages

    def settle(self) -> None:
        """All of SQLite's log is in its file."""
        if not self._postgres:
            self._beside.submit(begin_anew, self._store.engine).result()

    @contextmanager
    def _between_steps(self) -> Iterator[None]:
        """Inside, no step is carried out."""
        self._go_on.clear()
        try:
            with self._step:
                yield
        finally:
            self._go_on.set()

    def give_back(self, size: int) -> tuple[int, float] | None:
        """Give up to ``size`` free pages of the file back to the disk: how many, and how long. None: nothing (more).

        A SQLite file that was made without ``auto_vacuum`` keeps its size, and uses its free pages again.
        """
        if self._postgres:
            return None
        with self._store.reading() as connection:
            if connection.exec_driver_sql("PRAGMA auto_vacuum").scalar() != 2:
                return None
            free = int(connection.exec_driver_sql("PRAGMA freelist_count").scalar() or 0)
        if not free:
            return None

        def work(connection: Connection) -> int:
            # One page each time: some versions of the driver end the statement after its first page, whatever it says.
            cursor = _raw(connection)
            for _ in range(min(size, free)):
                cursor.execute("PRAGMA incremental_vacuum(1)").fetchall()
            return free - int(connection.exec_driver_sql("PRAGMA freelist_count").scalar() or 0)

        given, seconds = self._write(work)
        return (given, seconds) if given else None

    def vacuum(self, kinds: Mapping[str, int]) -> None:
        """PostgreSQL: make the room of deleted rows free for new ones now, where it is much."""
        if not self._postgres:
            return
        tables = {"deletedRunLogs": "task_run_logs", "deletedRuns": "task_runs", "deletedAuditLogs": "task_audit_logs",
                  "deletedStepRuns": "composite_step_runs"}  # fmt: skip
        with (
            suppress(sa.exc.DBAPIError),
            self._store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        ):
            for counter, table in tables.items():
                if kinds.get(counter, 0) >= 10_000:
                    connection.exec_driver_sql(f"VACUUM (SKIP_LOCKED) {table}")


_STAMP = (
    sa.select(task_manager_settings.c.key, task_manager_settings.c.updated_at)
    .where(task_manager_settings.c.key.in_((DAYS_SETTING, POLICY_SETTING)))
    .order_by(task_manager_settings.c.key)
)


def policy_stamp(store: SqlStore) -> Any:
    """Differs as soon as somebody saved the policy. Take it before the plan is made."""
    with store.reading() as connection:
        return connection.execute(_STAMP).all()


def _raw(connection: Connection) -> sqlite3.Cursor:
    raw = connection.connection.dbapi_connection
    assert isinstance(raw, sqlite3.Connection)
    return raw.cursor()


def _prepare(connection: Any, _record: Any) -> None:
    connection.execute(f"PRAGMA cache_size={_CACHE}")
    connection.execute("PRAGMA wal_autocheckpoint=0")  # see breathe
    # What belongs to a run is deleted before it, by name; to look for it again takes a tenth of a step.
    connection.execute("PRAGMA foreign_keys=OFF")
