"""The scheduler's memory: what is due, what was decided, who leads, which runs are to be made. (spec 4.2–4.7)

Reads give the pure core its :class:`State`; writes carry out what it decided. Every write of the leader is fenced by
its lease: a former leader that comes back writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection

from taskcenter.models import AuditEntry, MisfirePolicy, OutboxEvent, Trigger
from taskcenter.scheduling.ahead import plan_ahead
from taskcenter.scheduling.decisions import Decisions, RunRequest
from taskcenter.scheduling.ledger import Occurrence
from taskcenter.scheduling.misfire import held_by
from taskcenter.scheduling.state import Firing, Hold, Horizon, Standing, State, TriggerState
from taskcenter.scheduling.timetable import next_run, start_of

from .batches import Batches
from .leases import Lead, Lease, Transactions
from .rows import event_row
from .schedule_calendars import CalendarBook
from .schedule_read import SCHEDULER, Part, Reader, trigger_of
from .schedule_requests import Requests
from .schedule_rows import occurrence_of, standing_of_row
from .schedule_tables import (
    slot_ledger,
    standings,
    trigger_states,
)
from .schedule_write import Stale, Writer
from .statements import add_audit, chunks, insert_into
from .tables import outbox_events, task_triggers
from .task_needs import stored_limits, task_states

__all__ = ["DEFAULT_HORIZON", "Schedule", "Stale"]

T = TypeVar("T")
_LONGEST_WAIT = 6_000
"""Milliseconds after which the database gives up a leader that was stopped while it waited for a slot."""
DEFAULT_HORIZON = Horizon(min_runs=3, min_time=timedelta(hours=1), max_runs=15)


class Schedule:
    """Over the database of a :class:`~taskcenter_adapter.store_sql.SqlStore`."""

    def __init__(self, store: Transactions) -> None:
        self._store = store
        self.lead = Lead(store)
        self.requests = Requests(store)
        self.calendars = CalendarBook(store)
        self.batches = Batches(store)

    # reading ---------------------------------------------------------------------------------------

    def load(self, trigger_ids: Collection[str] | None = None) -> State:
        """The state of the fleet, or of these triggers, with all their runs made ahead."""
        with self._store.reading() as connection:
            reader = Reader(connection)
            if trigger_ids is not None:
                return reader.some(trigger_ids).state
            state = reader.all().state
            ids = {*state.tasks, *(run.task_id for run in state.runs)}
            known = {key: task for key, task in task_states(connection, ids, ()).items() if key in ids}
            for key, task in state.tasks.items():
                if key in known:
                    known[key] = replace(task, connections=known[key].connections, uses=known[key].uses)
            return replace(state, tasks=known, limits=stored_limits(connection, pool=state.limits.pool))

    def due(self, now: datetime, limit: int = 2000, *, late: bool = False) -> Part:
        with self._store.reading() as connection:
            return Reader(connection).due(now, limit, late=late)

    def at_slot(self, slot: datetime, limit: int = 2000) -> Part:
        """What is to be decided at ``slot``, read before it comes."""
        with self._store.reading() as connection:
            return Reader(connection).at_slot(slot, limit)

    def count_at(self, slot: datetime) -> int:
        """How many triggers are to be looked at by ``slot``; 0 where nothing can be written before it (SQLite)."""
        if self._store.engine.dialect.name != "postgresql":
            return 0  # its one writer would keep all others waiting
        with self._store.reading() as connection:
            return Reader(connection).count_at(slot)

    def next_look(self) -> datetime | None:
        with self._store.reading() as connection:
            return Reader(connection).next_look()

    def ledger(
        self,
        *,
        task_id: str | None = None,
        trigger_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        verdict: str | None = None,
        limit: int = 1000,
    ) -> list[Occurrence]:
        """Newest slot first."""
        row = slot_ledger.c
        query = sa.select(slot_ledger).order_by(row.slot.desc(), row.trigger_id).limit(limit)
        for column, wanted in (("task_id", task_id), ("trigger_id", trigger_id), ("verdict", verdict)):
            if wanted is not None:
                query = query.where(row[column] == wanted)
        if since is not None:
            query = query.where(sa.func.coalesce(row.until, row.slot) >= since)
        if until is not None:
            query = query.where(row.slot <= until)
        with self._store.reading() as connection:
            return [occurrence_of(dict(item)) for item in connection.execute(query).mappings()]

    def verdict_counts(self, *, task_id: str | None = None, since: datetime | None = None) -> dict[str, int]:
        """Slots by verdict."""
        row = slot_ledger.c
        query = sa.select(row.verdict, sa.func.sum(row["count"])).group_by(row.verdict)
        if task_id is not None:
            query = query.where(row.task_id == task_id)
        if since is not None:
            query = query.where(row.slot >= since)
        with self._store.reading() as connection:
            return {verdict: int(count) for verdict, count in connection.execute(query)}

    # deciding --------------------------------------------------------------------------------------

    def commit(
        self,
        part: Part,
        decisions: Decisions,
        now: datetime,
        lease: Lease | None = None,
        *,
        wait: Callable[[], bool] | None = None,
    ) -> None:
        """Raises Stale when a trigger moved in between, LostLease when another service leads.

        ``wait``: called when all is written, so that only the commit is left for the slot itself; it comes back when
        the slot has come, or says no. Whoever edits or pauses these triggers waits meanwhile, and comes after.
        """

        def work(connection: Connection) -> None:
            self.lead.fence(connection, lease)
            if wait is not None:
                connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = {_LONGEST_WAIT}")
            Writer(connection).commit(part, decisions, now)
            if wait is not None:
                reader = Reader(connection)
                before = reader.runs_that_matter(part)
                if not wait() or reader.runs_that_matter(part) != before:
                    raise Stale

        self._store.transaction(work)

    def refill(self, now: datetime, horizon: Horizon, lease: Lease | None = None, limit: int = 200) -> int:
        """Ask for the runs that are missing ahead; how many triggers were looked at."""

        def work(connection: Connection) -> int:
            self.lead.fence(connection, lease)
            part = Reader(connection).to_refill(now, limit)
            if not part.versions:
                return 0
            writer = Writer(connection)
            writer.lock({}, part.tasks)
            state = replace(part.state, horizon=horizon)
            asked: list[RunRequest] = []
            again: list[dict[str, Any]] = []
            for ts in state.triggers:
                requests, refill = _ahead(state, ts, now)
                asked += requests
                again.append({"b_id": ts.id, "b_at": refill})
            writer.requests(asked)
            connection.execute(
                sa.update(trigger_states)
                .where(trigger_states.c.trigger_id == sa.bindparam("b_id"))
                .values(refill_at=sa.bindparam("b_at")),
                again,
            )
            return len(again)

        return self._store.transaction(work)

    def adopt(self, now: datetime) -> int:
        """Give every trigger that has none its place in the scheduler's memory."""

        def work(connection: Connection) -> int:
            query = (
                sa.select(task_triggers.c.id)
                .outerjoin(trigger_states, trigger_states.c.trigger_id == task_triggers.c.id)
                .where(trigger_states.c.trigger_id.is_(None))
            )
            ids = list(connection.execute(query).scalars())
            for some in chunks(ids):
                self._adopt(connection, some, now)
            return len(ids)

        return self._store.transaction(work, races=True)

    def _adopt(self, connection: Connection, ids: Sequence[str], now: datetime) -> None:
        rows = connection.execute(
            sa.select(task_triggers.c.id, task_triggers.c.task_id).where(task_triggers.c.id.in_(ids))
        )
        values = [
            {"trigger_id": row.id, "task_id": row.task_id, "since": now, "next_known": False, "look_at": now,
             "refill_at": now, "version": 1}
            for row in rows
        ]  # fmt: skip
        if values:
            insert = insert_into(trigger_states, connection).on_conflict_do_nothing(index_elements=["trigger_id"])
            connection.execute(insert, values)

    # holds -----------------------------------------------------------------------------------------

    def standing(self, scope: str = "scheduler", key: str = SCHEDULER) -> Standing:
        query = sa.select(standings).where(standings.c.scope == scope, standings.c.key == key)
        with self._store.reading() as connection:
            row = connection.execute(query).mappings().first()
        return standing_of_row(dict(row)) if row else Standing()

    def hold(
        self, hold: Hold | None, now: datetime, *, policy: MisfirePolicy | None = None,
        audit: Sequence[AuditEntry] = (), events: Sequence[OutboxEvent] = (),
    ) -> Standing:  # fmt: skip
        """Pause or disable the scheduler, or (None) let it run; ``policy``: for what the hold that ends has kept."""

        def work(connection: Connection) -> Standing:
            writer = Writer(connection)
            query = sa.select(standings).where(standings.c.scope == "scheduler", standings.c.key == SCHEDULER)
            row = connection.execute(query.with_for_update()).mappings().first()
            new = next_standing(standing_of_row(dict(row)) if row else Standing(), hold, now, policy)
            writer.put_standing("scheduler", SCHEDULER, None, new)
            if hold is not None:
                writer.withdraw_ahead(None)
            writer.look_now(None, None, now)
            self._say(connection, audit, events)
            return new

        return self._store.transaction(work, races=True)

    def _say(self, connection: Connection, audit: Sequence[AuditEntry], events: Sequence[OutboxEvent]) -> None:
        add_audit(connection, audit)
        if events:
            connection.execute(sa.insert(outbox_events), [event_row(event) for event in events])

    # requests that a trigger fire ------------------------------------------------------------------

    def fire(self, firing: Firing, task_id: str, audit: Sequence[AuditEntry] = ()) -> None:
        """Put a request into the inbox. The same id again changes nothing."""

        def work(connection: Connection) -> None:
            Writer(connection).add_firings([firing], {firing.trigger_id: task_id})
            self._say(connection, audit, ())

        self._store.transaction(work)

    def startup_triggers(self) -> list[Trigger]:
        query = sa.select(task_triggers).where(task_triggers.c.type == "startup")
        with self._store.reading() as connection:
            return [trigger_of(dict(row)) for row in connection.execute(query).mappings()]

    def find_token(self, token_hash: str) -> Trigger | None:
        """The ad_hoc trigger with this hash of its token."""
        with self._store.reading() as connection:
            rows = connection.execute(sa.select(task_triggers).where(task_triggers.c.type == "ad_hoc")).mappings()
            for row in rows:
                if (row["options"] or {}).get("token_hash") == token_hash:
                    return trigger_of(dict(row))
        return None

    def ask(self, request: RunRequest, occurrence: Occurrence | None = None, audit: Sequence[AuditEntry] = ()) -> None:
        """A request of a person's (a backfill), with the verdict that it gives its slot."""

        def work(connection: Connection) -> None:
            writer = Writer(connection)
            if occurrence is not None:
                writer.ledger([occurrence])
            writer.requests([request])
            self._say(connection, audit, ())

        self._store.transaction(work)

    def open_range(self, row: Occurrence, own: Sequence[datetime]) -> None:
        """A row of its own for each slot of a range, with the same verdict."""
        singles = [replace(row, slot=slot, until=None, count=1) for slot in own]

        def work(connection: Connection) -> None:
            same = (slot_ledger.c.trigger_id == row.trigger_id) & (slot_ledger.c.slot == row.slot)
            gone = connection.execute(sa.delete(slot_ledger).where(same, slot_ledger.c["count"] == row.count))
            if gone.rowcount:
                Writer(connection).ledger(singles)

        self._store.transaction(work)

    # what Prefect shows --------------------------------------------------------------------------------

    def published(self) -> dict[str, Any]:
        """Trigger id → its schedule as it was last written to Prefect."""
        query = sa.select(trigger_states.c.trigger_id, trigger_states.c.published)
        with self._store.reading() as connection:
            return {key: value for key, value in connection.execute(query) if value is not None}

    def set_published(self, schedules: Mapping[str, Any]) -> None:
        def work(connection: Connection) -> None:
            for trigger_id, schedule in sorted(schedules.items()):
                connection.execute(
                    sa.update(trigger_states)
                    .where(trigger_states.c.trigger_id == trigger_id)
                    .values(published=schedule)
                )

        if schedules:
            self._store.transaction(work)


def next_standing(
    standing: Standing, hold: Hold | None, now: datetime, policy: MisfirePolicy | None = None
) -> Standing:
    """The standing after a new hold, or (None) after the one in force was ended."""
    past = standing.past
    old = standing.hold
    if old is not None:
        ended = old if old.until is not None and old.until <= now else replace(old, until=now)
        past = (*past, replace(ended, policy=policy) if policy is not None else ended)
    return Standing(hold, past)


def _ahead(state: State, ts: TriggerState, now: datetime) -> tuple[list[RunRequest], datetime | None]:
    """The runs missing ahead of one trigger, and when to look again (None: when something changes)."""
    task = state.tasks[ts.task_id]
    held = held_by((state.standing, task.standing, ts.standing), now)
    if held is not None:
        return [], held.hold.until if held.hold is not None else None
    upcoming = ts.next_slot if ts.next_known else next_run(ts, max(now, start_of(ts)), state.calendars)
    if upcoming is not None and upcoming <= now:
        return [], now + timedelta(seconds=1)  # it is just being decided
    requests = plan_ahead(state, ts, upcoming, now)
    slots = [run.slot for run in ts.planned] + [request.slot for request in requests if request.slot is not None]
    if upcoming is None or not slots:
        return requests, None
    return requests, now + max(timedelta(seconds=20), (max(slots) - now) / 3)
