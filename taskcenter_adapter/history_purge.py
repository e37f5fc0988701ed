"""Deleting history in the database: what a plan says, taken away a little at a time. (spec 6.5)

One set of conditions serves the preview and the purge. A step looks at the next rows by age from outside a
transaction and deletes among them in a short one; whoever calls decides how many and how often. It may be broken
off between any two steps and begun again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Table, event

from taskcenter.purge_plan import DAYS_SETTING, POLICY_SETTING, Plan

from .database import make_engine
from .purge_conditions import Conditions
from .purge_preview import COUNTERS, STEP_RUNS
from .schedule_tables import run_batches, run_cancels, run_requests, slot_ledger, trigger_firings
from .statements import one_of
from .store_sql import SqlStore
from .tables import (
    composite_step_runs,
    outbox_events,
    task_audit_logs,
    task_manager_settings,
    task_run_logs,
    task_runs,
)
from .write_ahead import begin_anew

__all__ = ["HistoryPurge", "PolicyChanged", "Step", "policy_stamp"]

T = TypeVar("T")

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

    def close(self) -> None:
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

    def _window(
        self, moment: Any, place: datetime | None, size: int, latest: datetime
    ) -> tuple[list[ColumnElement[bool]], datetime | None, bool]:
        """The next rows by age: their condition, where the ones after them begin, and whether they share an instant.

        Asked without a lock. Rows that come in meanwhile are deleted with them if they are old enough.
        """
        after = [moment >= place] if place is not None else []
        query = sa.select(moment).where(*after, moment < latest).order_by(moment).limit(1).offset(size)
        with self._store.reading() as connection:
            end: datetime | None = connection.execute(query).scalar()
        if end is None:
            return [*after, moment < latest], None, False
        if end == place:
            # More rows of one instant than fit: they are taken in parts.
            return [moment == place], end + _INSTANT, True
        return [*after, moment < end], end, False

    def _by_age(
        self, table: Table, moment: Any, goes: ColumnElement[bool], place: datetime | None, size: int, kind: str
    ) -> Step:
        latest = {
            "logs": self.plan.latest,
            "ledger": self.plan.cutoff(self.plan.ledger_days),
            "firings": self.plan.cutoff(self.plan.ledger_days),
            "events": self.plan.cutoff(self.plan.event_days),
        }[kind]
        window, end, crowded = self._window(moment, place, size, latest)
        where = self._some(table, [*window, goes], size) if crowded else sa.and_(*window, goes)

        def work(connection: Connection) -> int:
            return connection.execute(sa.delete(table).where(where)).rowcount

        deleted, seconds = self._write(work)
        again = crowded and deleted >= size
        return Step({COUNTERS[kind]: deleted}, seconds, place if again else end)

    def _some(self, table: Table, conditions: list[ColumnElement[bool]], size: int) -> ColumnElement[bool]:
        """At most ``size`` rows, by where they lie."""
        key: ColumnElement[Any] = sa.literal_column("ctid" if self._postgres else "rowid")
        found = sa.select(key).select_from(table).where(*conditions).limit(size)
        if self._postgres:
            return key == sa.func.any(sa.func.array(found.scalar_subquery()))
        return key.in_(found)

    def _runs(self, place: datetime | None, size: int) -> Step:
        run = task_runs.c
        window, end, crowded = self._window(run.finished_at, place, size, self.plan.latest)
        ids = sa.select(run.id).where(*window, self._rules.run_goes(logs_are_gone=True)).limit(size)

        def among(column: Any, listed: list[str]) -> ColumnElement[bool]:
            # SQLite would read the whole table for a list that is not written out.
            return one_of(column, listed) if self._postgres else column.in_(listed)

        def work(connection: Connection) -> tuple[int, int]:
            gone = list(connection.execute(ids).scalars())
            if not gone:
                return 0, 0
            steps = connection.execute(sa.delete(composite_step_runs).where(among(composite_step_runs.c.run_id, gone)))
            connection.execute(sa.delete(run_cancels).where(among(run_cancels.c.run_id, gone)))
            return connection.execute(sa.delete(task_runs).where(among(run.id, gone))).rowcount, steps.rowcount

        (deleted, steps), seconds = self._write(work)
        again = crowded and deleted >= size
        return Step({COUNTERS["runs"]: deleted, STEP_RUNS: steps}, seconds, place if again else end)

    def _audit(self, place: tuple[datetime, int] | None, size: int) -> Step:
        chain, plan = self._store.chain, self.plan
        chain.seal_all()
        cutoff = plan.cutoff(plan.audit_days)
        found = chain.old(cutoff, size, place, self._rules.not_held(task_audit_logs.c))
        if not found:
            return Step({}, 0.0, None)
        numbers = [number for _, number in found]
        deleted, seconds = self._write(
            lambda connection: chain.purge(connection, numbers, cutoff, days=plan.audit_days, now=plan.now)
        )
        return Step({COUNTERS["audit"]: deleted}, seconds, found[-1])

    def _requests(self, size: int) -> Step:
        where = self._some(run_requests, [self._rules.request_goes()], size)
        batches = self._some(run_batches, [self._rules.batch_goes()], size)

        def work(connection: Connection) -> int:
            connection.execute(sa.delete(run_batches).where(batches))
            return connection.execute(sa.delete(run_requests).where(where)).rowcount

        deleted, seconds = self._write(work)
        return Step({COUNTERS["requests"]: deleted}, seconds, self.plan.now if deleted >= size else None)

    def _write(self, work: Callable[[Connection], T]) -> tuple[T, float]:
        """``work`` in one transaction, and for how long that kept others waiting."""
        began = 0.0

        def guarded(connection: Connection) -> T:
            nonlocal began
            began = time.perf_counter()
            if self._postgres:
                # A crash may bring the last deletions back: the next purge finds them again.
                connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
            if connection.execute(_STAMP).all() != self._stamp:
                raise PolicyChanged
            return work(connection)

        found = self._store.transaction(guarded)
        return found, time.perf_counter() - began

    # space -----------------------------------------------------------------------------------------

    def breathe(self) -> int:
        """Bring SQLite's log of changes into its file, and begin it anew; how many pages it had (0: it goes on)."""
        return 0 if self._postgres else begin_anew(self._store.engine)

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
