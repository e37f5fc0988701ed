"""The scheduler's memory: what is due, what was decided, who leads, which runs are to be made. (spec 4.2–4.7)

Reads give the pure core its :class:`State`; writes carry out what it decided. Every write of the leader is fenced by
its lease: a former leader that comes back writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.dialects import postgresql, sqlite

from taskcenter.errors import NotFound
from taskcenter.models import AuditEntry, MisfirePolicy, OutboxEvent, Trigger
from taskcenter.scheduling.admission import BY_PERSON
from taskcenter.scheduling.ahead import plan_ahead
from taskcenter.scheduling.calendars import Calendar, Calendars
from taskcenter.scheduling.decisions import Decisions, RunRequest
from taskcenter.scheduling.ledger import Occurrence
from taskcenter.scheduling.misfire import held_by
from taskcenter.scheduling.state import Firing, Hold, Horizon, OpenRun, Standing, State, TriggerState
from taskcenter.scheduling.timetable import next_run, start_of
from taskcenter.status import Origin

from .rows import audit_row, event_row
from .schedule_read import SCHEDULER, Part, Reader, chunks, trigger_of
from .schedule_rows import occurrence_of, request_of, standing_of_row
from .schedule_tables import (
    calendars,
    leases,
    run_cancels,
    run_requests,
    slot_ledger,
    standings,
    trigger_states,
)
from .schedule_write import Stale, Writer
from .tables import outbox_events, task_audit_logs, task_runs, task_triggers, tasks

__all__ = ["Lease", "LostLease", "Schedule", "Stale", "Wanted"]

T = TypeVar("T")
_SOON, _LATER = timedelta(minutes=1), timedelta(hours=1)
"""An attempt that a pause keeps waiting stands so far ahead in Prefect, and is moved again in time."""
DEFAULT_HORIZON = Horizon(min_runs=3, min_time=timedelta(hours=1), max_runs=15)


class LostLease(Exception):
    """Another service leads now."""


@dataclass(frozen=True)
class Lease:
    name: str
    holder: str
    epoch: int
    until: datetime
    facts: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Wanted:
    """A run of the task ``slug`` to make in Prefect.

    ``again``: its first flow run was taken back because it had to wait for its turn.
    """

    request: RunRequest
    slug: str
    again: bool = False


class Transactions(Protocol):
    """What is needed of the store."""

    engine: Engine

    def reading(self) -> AbstractContextManager[Connection]: ...
    def transaction(self, work: Callable[[Connection], T], *, races: bool = False) -> T: ...


class Schedule:
    """Over the database of a :class:`~taskcenter_adapter.store_sql.SqlStore`."""

    def __init__(self, store: Transactions) -> None:
        self._store = store
        self._insert: Any = postgresql.insert if store.engine.dialect.name == "postgresql" else sqlite.insert

    # the lease -------------------------------------------------------------------------------------

    def take_lease(
        self,
        holder: str,
        now: datetime,
        ttl: timedelta,
        *,
        name: str = SCHEDULER,
        facts: Mapping[str, Any] | None = None,
        gone: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> Lease | None:
        """The lease, when it is free, run out or the holder's own; None while somebody else has it.

        ``gone`` may say of a holder's facts that it is known to be dead, before its lease has run out.
        """

        def work(connection: Connection) -> Lease | None:
            row = (
                connection.execute(sa.select(leases).where(leases.c.name == name).with_for_update()).mappings().first()
            )
            until = now + ttl
            values = {"holder": holder, "until": until, "facts": dict(facts) if facts else None}
            if row is None:
                connection.execute(sa.insert(leases), {"name": name, "epoch": 1, **values})
                return Lease(name, holder, 1, until)
            # A clock that was set back must not keep a dead holder in office for long.
            held = row["until"] > now and row["until"] - now <= 4 * ttl
            held = held and not (gone is not None and gone(row["facts"] or {}))
            if row["holder"] != holder and held:
                return None
            epoch = row["epoch"] if row["holder"] == holder else row["epoch"] + 1
            connection.execute(sa.update(leases).where(leases.c.name == name), {"epoch": epoch, **values})
            return Lease(name, holder, epoch, until)

        return self._store.transaction(work, races=True)

    def give_up_lease(self, lease: Lease) -> None:
        """So that a standby need not wait."""
        mine = (leases.c.name == lease.name) & (leases.c.holder == lease.holder) & (leases.c.epoch == lease.epoch)
        self._store.transaction(lambda connection: connection.execute(sa.delete(leases).where(mine)))

    def find_lease(self, name: str = SCHEDULER) -> Lease | None:
        with self._store.reading() as connection:
            row = connection.execute(sa.select(leases).where(leases.c.name == name)).mappings().first()
        return Lease(row["name"], row["holder"], row["epoch"], row["until"], row["facts"]) if row else None

    def _fence(self, connection: Connection, lease: Lease | None) -> None:
        if lease is None:
            return
        mine = (leases.c.name == lease.name) & (leases.c.holder == lease.holder) & (leases.c.epoch == lease.epoch)
        query = sa.select(leases.c.name).where(mine).with_for_update(read=True)
        if connection.execute(query).first() is None:
            raise LostLease

    # reading ---------------------------------------------------------------------------------------

    def load(self, now: datetime, trigger_ids: Collection[str] | None = None) -> State:
        """The state of the fleet, or of these triggers, with all their runs made ahead."""
        with self._store.reading() as connection:
            reader = Reader(connection)
            return (reader.all() if trigger_ids is None else reader.some(trigger_ids)).state

    def due(self, now: datetime, limit: int = 2000, *, late: bool = False) -> Part:
        with self._store.reading() as connection:
            return Reader(connection).due(now, limit, late=late)

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

    def commit(self, part: Part, decisions: Decisions, now: datetime, lease: Lease | None = None) -> None:
        """Raises Stale when a trigger moved in between, LostLease when another service leads."""

        def work(connection: Connection) -> None:
            self._fence(connection, lease)
            Writer(connection).commit(part, decisions, now)

        self._store.transaction(work)

    def refill(self, now: datetime, horizon: Horizon, lease: Lease | None = None, limit: int = 200) -> int:
        """Ask for the runs that are missing ahead; how many triggers were looked at."""

        def work(connection: Connection) -> int:
            self._fence(connection, lease)
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
            insert = self._insert(trigger_states).on_conflict_do_nothing(index_elements=["trigger_id"])
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
        if audit:
            connection.execute(sa.insert(task_audit_logs), [audit_row(entry) for entry in audit])
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

    # runs to make, take back, cancel -----------------------------------------------------------------

    def wanted(self, now: datetime, limit: int = 200) -> list[Wanted]:
        """Requests without a flow run, in the order of their time.

        Left out are those that wait for their turn, and those that no person asked for while the scheduler or their
        task is held.
        """
        row = run_requests.c
        query = (
            sa.select(row.request, tasks.c.slug)
            .join(tasks, tasks.c.id == row.task_id)
            .where(row.status == "wanted")
            .order_by(row.due, row.rank, row.key)
            .limit(limit)
        )
        with self._store.reading() as connection:
            found = [
                Wanted(request_of(data), slug, bool(data.get("again"))) for data, slug in connection.execute(query)
            ]
            found = self._not_held(connection, found, now)
            serial = [item.request for item in found if item.request.serial]
            open_runs = list(Reader(connection).open_runs({request.task_id for request in serial})) if serial else []
        return [item for item in found if not item.request.serial or _its_turn(item.request, open_runs)]

    def _not_held(self, connection: Connection, items: Sequence[Wanted], now: datetime) -> list[Wanted]:
        waits = {item.request.task_id for item in items if item.request.origin not in BY_PERSON}
        holds = Reader(connection).standings(waits) if waits else {}
        held = {task_id for task_id, own in holds.items() if held_by((*own, Standing()), now) is not None}
        return [item for item in items if item.request.origin in BY_PERSON or item.request.task_id not in held]

    def made(self, pairs: Sequence[tuple[RunRequest, str]]) -> None:
        """Flow runs exist for these requests. Those whose slot has its verdict are queued runs of ours."""

        def work(connection: Connection) -> None:
            row = run_requests.c
            keys = {request.key: run_id for request, run_id in pairs}
            connection.execute(
                sa.update(run_requests)
                .where(row.key == sa.bindparam("b_key"))
                .values(
                    run_id=sa.bindparam("b_run"),
                    status=sa.case((row.status == "wanted", "made"), else_=row.status),
                ),
                [{"b_key": key, "b_run": run_id} for key, run_id in sorted(keys.items())],
            )
            connection.execute(
                sa.update(slot_ledger)
                .where(slot_ledger.c.run_id == sa.bindparam("b_key"))
                .values(run_id=sa.bindparam("b_run")),
                [{"b_key": key, "b_run": run_id} for key, run_id in sorted(keys.items())],
            )
            now_ours: list[tuple[str, RunRequest]] = []
            for some in chunks(keys):
                query = sa.select(row.key, row.request).where(
                    row.key.in_(some), row.ahead.is_(False), row.status == "made"
                )
                now_ours += [(keys[key], request_of(data)) for key, data in connection.execute(query)]
            Writer(connection).add_runs(now_ours)

        if pairs:
            self._store.transaction(work)

    def withdrawn(self, limit: int = 200) -> list[tuple[Wanted, str | None]]:
        """Requests that are to be taken back in Prefect, with their flow run when it is known."""
        row = run_requests.c
        query = (
            sa.select(row.request, tasks.c.slug, row.run_id)
            .join(tasks, tasks.c.id == row.task_id)
            .where(row.status == "withdrawn")
            .limit(limit)
        )
        with self._store.reading() as connection:
            return [
                (Wanted(request_of(data), slug, bool(data.get("again"))), run_id)
                for data, slug, run_id in connection.execute(query)
            ]

    def taken_back(self, keys: Collection[str]) -> None:
        def work(connection: Connection) -> None:
            for some in chunks(keys):
                gone = run_requests.c.key.in_(some) & (run_requests.c.status == "withdrawn")
                connection.execute(sa.delete(run_requests).where(gone))

        self._store.transaction(work)

    def retries_to_move(self, now: datetime) -> list[tuple[str, str, datetime]]:
        """Key, flow run and new time of attempts that wait: beyond their hour while paused, at their own again after.

        A paused attempt keeps its flow run and its row; only its time in Prefect moves.
        """
        row = run_requests.c
        query = (
            sa.select(row.key, row.run_id, row.due, row.task_id, row.request)
            .join(task_runs, task_runs.c.id == row.run_id)
            .where(row.status == "made", row.slot.is_not(None), task_runs.c.status == "queued")
            .where(task_runs.c.attempt > 1, task_runs.c.origin == Origin.SCHEDULER_RETRY.value)
        )
        with self._store.reading() as connection:
            waiting = [dict(item) for item in connection.execute(query).mappings()]
            if not waiting:
                return []
            reader = Reader(connection)
            holds = reader.standings({item["task_id"] for item in waiting})
        moves: list[tuple[str, str, datetime]] = []
        for item in waiting:
            held = held_by((*holds[item["task_id"]], Standing()), now) is not None
            own = request_of(item["request"]).ready_at or item["due"]
            if held and item["due"] < now + _SOON:
                moves.append((item["key"], item["run_id"], now + _LATER))
            elif not held and item["due"] > max(own, now):
                moves.append((item["key"], item["run_id"], max(own, now)))
        return moves

    def moved(self, key: str, at: datetime) -> None:
        """The flow run of this request has another time in Prefect now."""
        self._store.transaction(
            lambda connection: connection.execute(
                sa.update(run_requests).where(run_requests.c.key == key).values(due=at)
            )
        )

    def cancels(self, limit: int = 100) -> list[tuple[str, str]]:
        """Runs to cancel in Prefect, each with the reason."""
        query = sa.select(run_cancels.c.run_id, run_cancels.c.reason).order_by(run_cancels.c.asked_at).limit(limit)
        with self._store.reading() as connection:
            return [(run_id, reason) for run_id, reason in connection.execute(query)]

    def known_runs(self, run_ids: Collection[str]) -> set[str]:
        """Those that are runs of ours; the others were made ahead and got no verdict that lets them start."""
        with self._store.reading() as connection:
            found: set[str] = set()
            for some in chunks(run_ids):
                found.update(connection.execute(sa.select(task_runs.c.id).where(task_runs.c.id.in_(some))).scalars())
        return found

    def cancelled(self, run_ids: Collection[str]) -> None:
        def work(connection: Connection) -> None:
            for some in chunks(run_ids):
                connection.execute(sa.delete(run_cancels).where(run_cancels.c.run_id.in_(some)))

        self._store.transaction(work)

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

    # the gate ----------------------------------------------------------------------------------------

    def gate(self, run_id: str, trigger_id: str, slot: datetime, *, patience: float = 5.0) -> str | None:
        """Whether a flow run that was made ahead may start: None, or the sentence that says why not.

        Waits for the verdict of its slot as long as somebody leads, at most ``patience`` seconds: with nobody there it
        starts, and gets its verdict when somebody is.
        """
        deadline = time.monotonic() + patience
        while True:
            with self._store.reading() as connection:
                request = connection.execute(
                    sa.select(*(run_requests.c[n] for n in ("ahead", "status", "run_id", "request"))).where(
                        run_requests.c.trigger_id == trigger_id, run_requests.c.slot == slot
                    )
                ).first()
                verdict = connection.execute(
                    sa.select(slot_ledger).where(
                        slot_ledger.c.trigger_id == trigger_id,
                        slot_ledger.c.slot <= slot,
                        sa.func.coalesce(slot_ledger.c.until, slot_ledger.c.slot) >= slot,
                    )
                ).mappings().first()  # fmt: skip
            if verdict is not None:
                found = occurrence_of(dict(verdict))
                if found.verdict.value in ("fired", "backfilled"):
                    if request is not None and request.request.get("again") and request.run_id != run_id:
                        return "it waits for its turn; another flow run is made for it then"
                    if request is None or request.run_id in (None, run_id) or not request.ahead:
                        return None
                elif found.verdict.value != "superseded":
                    return f"its slot was {found.verdict}: {found.reason}"
            if request is None or request.status == "withdrawn":
                return "its slot was taken back by Task Center's scheduler"
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.03)

    # calendars ---------------------------------------------------------------------------------------

    def calendars(self) -> Calendars:
        with self._store.reading() as connection:
            return Reader(connection).calendars()

    def put_calendar(self, calendar: Calendar, now: datetime, audit: Sequence[AuditEntry] = ()) -> None:
        """Triggers that use it (or a calendar made of it) look at their slots again."""

        def work(connection: Connection) -> None:
            insert = self._insert(calendars)
            values = {"name": calendar.name, "definition": calendar.to_json(), "updated_at": now}
            connection.execute(
                insert.on_conflict_do_update(
                    index_elements=["name"],
                    set_={"definition": insert.excluded.definition, "updated_at": insert.excluded.updated_at},
                ),
                values,
            )
            self._calendar_changed(connection, now)
            self._say(connection, audit, ())

        self._store.transaction(work)

    def delete_calendar(self, name: str, now: datetime, audit: Sequence[AuditEntry] = ()) -> None:
        def work(connection: Connection) -> None:
            if connection.execute(sa.delete(calendars).where(calendars.c.name == name)).rowcount == 0:
                raise NotFound(f"there is no calendar {name!r}", name=name)
            self._calendar_changed(connection, now)
            self._say(connection, audit, ())

        self._store.transaction(work)

    def _calendar_changed(self, connection: Connection, now: datetime) -> None:
        rows = connection.execute(sa.select(task_triggers.c.id, task_triggers.c.options))
        ids = [row.id for row in rows if (row.options or {}).get("calendar")]
        writer = Writer(connection)
        writer.withdraw_ahead(ids)
        writer.look_now(ids, [], now)
        for some in chunks(ids):
            connection.execute(
                sa.update(trigger_states).where(trigger_states.c.trigger_id.in_(some)).values(next_known=False)
            )

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


def _its_turn(request: RunRequest, open_runs: Sequence[OpenRun]) -> bool:
    """Whether no other run of its scope goes before it."""

    def same(run: OpenRun) -> bool:
        return run.task_id == request.task_id if request.serial == "task" else run.trigger_id == request.trigger_id

    mine = (request.created_at, request.slot or request.created_at, request.key)
    for run in open_runs:
        if run.id == request.key or not same(run):
            continue
        if run.status != "queued" or not run.serial or (run.created_at, run.slot or run.created_at, run.id) < mine:
            return False
    return True
