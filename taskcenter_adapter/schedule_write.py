"""Writes what the scheduling core decided: verdicts, requests, cursors and events in one transaction. (spec 4.2, 4.4)

The rules are those of ``taskcenter.scheduling.apply``: all of it or nothing, and only while each trigger stands where
it was decided from. Whoever was overtaken gets :class:`Stale`, reads again and decides again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from taskcenter.models import OutboxEvent, Run
from taskcenter.scheduling.apply import move_trigger
from taskcenter.scheduling.decisions import Decisions, RunRequest, run_key
from taskcenter.scheduling.ledger import Occurrence, Verdict
from taskcenter.scheduling.misfire import held_by, is_disabled
from taskcenter.scheduling.state import Firing, Standing, State, TriggerState
from taskcenter.scheduling.timetable import BY_EVENT, advance, start_of
from taskcenter.status import RunPhase, RunStatus

from .rows import Row, event_row, run_row
from .schedule_read import Part
from .schedule_rows import ledger_row, request_json, request_of, request_row, standing_json
from .schedule_tables import (
    run_cancels,
    run_requests,
    slot_ledger,
    standings,
    trigger_firings,
    trigger_states,
)
from .statements import chunks, insert_into
from .tables import outbox_events, task_runs, task_triggers, tasks

__all__ = ["Stale", "Writer", "look_of"]


class Stale(Exception):
    """Somebody changed what this was decided from: read again, decide again."""


def look_of(ts: TriggerState, state: State, now: datetime, active: bool = False) -> datetime | None:
    """When the trigger is to be looked at next; None: not before something happens (a request, a run's end)."""
    if ts.trigger.type in BY_EVENT:
        return None
    task = state.tasks.get(ts.task_id)
    held = held_by((state.standing, task.standing if task else Standing(), ts.standing), now)
    if held is not None and not is_disabled(held):
        return held.hold.until if held.hold is not None else None
    if ts.trigger.counts_from == "completion":
        return advance(ts, start_of(ts), state.calendars, active)
    return ts.next_slot if ts.next_known else now


class Writer:
    """Writes over one connection, inside the caller's transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _many(self, statement: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            self._connection.execute(statement, list(rows))

    # one decision ----------------------------------------------------------------------------------

    def lock(self, versions: Mapping[str, int], task_ids: Iterable[str]) -> None:
        """Take the rows in one order, tasks first, as whoever saves a task does. Raises Stale."""
        for some in chunks(task_ids):
            self._connection.execute(
                sa.select(tasks.c.id).where(tasks.c.id.in_(some)).order_by(tasks.c.id)
                .with_for_update(read=True, key_share=True)
            )  # fmt: skip
        found: dict[str, int] = {}
        state = trigger_states.c
        for some in chunks(versions):
            query = sa.select(state.trigger_id, state.version).where(state.trigger_id.in_(some))
            locked = self._connection.execute(query.order_by(state.trigger_id).with_for_update())
            found.update({row.trigger_id: row.version for row in locked})
        if found != dict(versions):
            raise Stale

    def commit(self, part: Part, decisions: Decisions, now: datetime) -> None:
        """All of ``decisions``, which were made from ``part``."""
        self.lock(part.versions, part.tasks)
        by_id = {ts.id: ts for ts in part.state.triggers}
        self.ledger(decisions.occurrences)
        self.requests(decisions.runs)
        self.take(decisions)
        self.withdraw(decisions.withdraw)
        self.cancel(decisions, now)
        self._move(part, by_id, decisions, now)
        self.consume(decisions.consumed)
        self.add_firings(decisions.firings, {ts.id: ts.task_id for ts in part.state.triggers})
        for some in chunks(part.ended):
            self._connection.execute(sa.update(task_runs).where(task_runs.c.id.in_(some)).values(followed=True))
        self.tell(decisions.events, now)

    def tell(self, told: Iterable[tuple[str, Mapping[str, Any]]], now: datetime) -> None:
        """Into the outbox; a tick that decided nothing is not worth a row."""
        rows = [
            event_row(OutboxEvent(name=name, payload=dict(payload), created_at=now))
            for name, payload in told
            if name != "scheduler_tick" or payload.get("claimedTriggers")
        ]
        self._many(sa.insert(outbox_events), rows)

    # the ledger ------------------------------------------------------------------------------------

    def ledger(self, occurrences: Sequence[Occurrence]) -> None:
        self._many(sa.insert(slot_ledger), [ledger_row(row) for row in occurrences if row.amends is None])
        for row in occurrences:
            if row.amends is None:
                continue
            values = ledger_row(row)
            where = (
                (slot_ledger.c.trigger_id == row.trigger_id)
                & (slot_ledger.c.slot == row.slot)
                & (slot_ledger.c.verdict == row.amends.value)
            )
            if self._connection.execute(sa.update(slot_ledger).where(where), values).rowcount != 1:
                raise Stale

    # runs ------------------------------------------------------------------------------------------

    def requests(self, requests: Sequence[RunRequest]) -> None:
        """New ones, and those made ahead that changed (they wait for their turn now, or are late)."""
        row = run_requests.c
        insert = insert_into(run_requests, self._connection)
        new = insert.excluded
        back = sa.and_(row.status == "withdrawn", row.run_id.is_not(None))
        gone = sa.and_(row.status == "withdrawn", row.run_id.is_(None))
        upsert = insert.on_conflict_do_update(
            index_elements=["key"],
            set_={
                "status": sa.case((back, "made"), (gone, "wanted"), else_=row.status),
                "ahead": new.ahead,
                "due": new.due,
                "rank": new.rank,
                "serial": new.serial,
                "request": new.request,
                "created_at": new.created_at,  # as in the request itself: turns go by it
            },
        )
        self._many(upsert, [request_row(request) for request in requests])
        # Prefect would start it on its second; it is made again when its turn has come.
        waits = [request for request in requests if request.serial and request.run_id is not None]
        for request in waits:
            run = self._connection.execute(sa.select(row.run_id).where(row.key == request.key)).scalar()
            if run is None:
                continue
            self._note_cancel(run, "it waits for its turn", request.created_at)
            told = slot_ledger.c.run_id == run
            self._connection.execute(sa.update(slot_ledger).where(told).values(run_id=request.key))
            again = replace(request, run_id=None)
            self._connection.execute(
                sa.update(run_requests)
                .where(row.key == request.key)
                .values(status="wanted", run_id=None, request={**request_json(again), "again": True})
            )

    def take(self, decisions: Decisions) -> None:
        """Runs made ahead whose slot has fired: they are queued runs of ours from now on."""
        fired = [row for row in decisions.occurrences if row.verdict is Verdict.FIRED]
        taken: list[Row] = []
        for some in chunks(run_key(row.trigger_id, row.slot) for row in fired):
            # Locked: whoever makes runs may write the flow run's id at this moment, before or after, never beside it.
            query = sa.select(run_requests).where(run_requests.c.key.in_(some), run_requests.c.status != "withdrawn")
            locked = self._connection.execute(query.order_by(run_requests.c.key).with_for_update())
            taken += [dict(found) for found in locked.mappings()]
        self._not_ahead([found["key"] for found in taken if found["ahead"]])
        made = {found["key"]: found for found in taken if found["run_id"] is not None}
        self.add_runs((found["run_id"], request_of(found["request"])) for found in made.values())
        # Decided while the run was only asked for, written when it is made.
        keys = {row.run_id for row in decisions.occurrences if row.run_id is not None and row.run_id in made}
        ledger = slot_ledger.c
        self._many(
            sa.update(slot_ledger).where(ledger.run_id == sa.bindparam("b_key")).values(run_id=sa.bindparam("b_run")),
            [{"b_key": key, "b_run": made[key]["run_id"]} for key in sorted(keys)],
        )

    def _not_ahead(self, keys: Collection[str]) -> None:
        for some in chunks(keys):
            self._connection.execute(sa.update(run_requests).where(run_requests.c.key.in_(some)).values(ahead=False))

    def add_runs(self, made: Iterable[tuple[str, RunRequest]]) -> None:
        """Rows of runs that exist in Prefect. One that has begun already is left as it is."""
        pairs = list(made)
        about: dict[str, Row] = {}
        columns = sa.select(tasks.c.id, tasks.c.slug, tasks.c.task_type, tasks.c.revision)
        for some in chunks(request.task_id for _, request in pairs):
            found = self._connection.execute(columns.where(tasks.c.id.in_(some))).mappings()
            about.update({row["id"]: dict(row) for row in found})
        rows = [run_row(_run(run_id, request, about[request.task_id])) for run_id, request in pairs
                if request.task_id in about]  # fmt: skip
        self._many(insert_into(task_runs, self._connection).on_conflict_do_nothing(index_elements=["id"]), rows)

    def withdraw(self, ids: Collection[str]) -> None:
        """By flow run or by key: whoever makes runs takes them back in Prefect."""
        row = run_requests.c
        for some in chunks(ids):
            mine = sa.and_(sa.or_(row.run_id.in_(some), row.key.in_(some)), row.ahead.is_(True))
            self._connection.execute(sa.update(run_requests).where(mine).values(status="withdrawn"))

    def withdraw_ahead(self, trigger_ids: Collection[str] | None, task_ids: Collection[str] | None = None) -> None:
        """All runs made ahead of these triggers or tasks; both None: of the whole fleet."""
        row = run_requests.c
        base = sa.update(run_requests).where(row.ahead.is_(True)).values(status="withdrawn")
        if trigger_ids is None and task_ids is None:
            self._connection.execute(base)
        for some in chunks(trigger_ids or ()):
            self._connection.execute(base.where(row.trigger_id.in_(some)))
        for some in chunks(task_ids or ()):
            self._connection.execute(base.where(row.task_id.in_(some)))

    def cancel(self, decisions: Decisions, now: datetime) -> None:
        row = run_requests.c
        for cancel in decisions.cancel:
            text = str(cancel.reason)
            query = sa.select(row.run_id).where(row.key == cancel.run_id).with_for_update()
            asked = self._connection.execute(query).first()
            if asked is not None and asked.run_id is None:
                # Only asked for. Whoever made it may have died before it could say so: it is looked for by its key.
                gone = (row.key == cancel.run_id) & (row.status == "wanted")
                self._connection.execute(sa.update(run_requests).where(gone).values(status="withdrawn"))
                continue
            run_id = asked.run_id if asked is not None else cancel.run_id
            self._note_cancel(run_id, text, now)
            # A queued run is out of the way at once; the flow run follows.
            run = task_runs.c
            self._connection.execute(
                sa.update(task_runs)
                .where(run.id == run_id, run.status == RunStatus.QUEUED.value)
                .values(status=RunStatus.CANCELLED.value, phase=None, message=text, finished_at=now)
            )

    def _note_cancel(self, run_id: str, reason: str, now: datetime) -> None:
        insert = insert_into(run_cancels, self._connection).on_conflict_do_nothing(index_elements=["run_id"])
        self._connection.execute(insert, {"run_id": run_id, "reason": reason, "asked_at": now})

    # triggers --------------------------------------------------------------------------------------

    def _move(self, part: Part, by_id: Mapping[str, TriggerState], decisions: Decisions, now: datetime) -> None:
        rows: dict[str, list[Occurrence]] = defaultdict(list)
        for row in decisions.occurrences:
            rows[row.trigger_id].append(row)
        moves = {move.trigger_id: move for move in decisions.moves}
        finished = self._finished(part)
        active = {run.trigger_id for run in decisions.runs} | {run.trigger_id for run in part.state.runs}
        changed: list[tuple[TriggerState, TriggerState]] = []
        for ts in by_id.values():
            move, ended = moves.get(ts.id), finished.get(ts.id)
            if move is None and ended is None and ts.id not in part.due:
                continue
            new = move_trigger(ts, move, rows[ts.id]) if move is not None else ts
            changed.append((ts, replace(new, last_finished=ended) if ended is not None else new))
        values = []
        for _, new in changed:
            look = look_of(new, part.state, now, new.id in active)
            if decisions.unfinished and new.next_known and new.next_slot is not None and new.next_slot <= now:
                look = now
            values.append({**_state_values(new), "look_at": look, "b_id": new.id})
        statement = (
            sa.update(trigger_states)
            .where(trigger_states.c.trigger_id == sa.bindparam("b_id"))
            .values(
                **{name: sa.bindparam(name) for name in (*_STATE, "look_at")},
                version=trigger_states.c.version + 1,
            )
        )
        self._many(statement, values)
        self._trigger_rows(changed, moves, now)

    def _finished(self, part: Part) -> dict[str, datetime]:
        """When the last run of a trigger that counts from its runs' ends ended."""
        made: dict[str, datetime] = {}
        for ended in part.state.ended:
            if ended.trigger_id is not None:
                made[ended.trigger_id] = max(ended.finished_at, made.get(ended.trigger_id, ended.finished_at))
        return made

    def _trigger_rows(
        self, changed: Sequence[tuple[TriggerState, TriggerState]], moves: Mapping[str, Any], now: datetime
    ) -> None:
        row = task_triggers.c
        shown = [
            {"b_id": new.id, "b_next": moves[new.id].next_run_at, "b_last": moves[new.id].last_run_at}
            for _, new in changed
            if new.id in moves
        ]
        self._many(
            sa.update(task_triggers)
            .where(row.id == sa.bindparam("b_id"))
            .values(
                next_run_at=sa.bindparam("b_next"),
                last_run_at=sa.func.coalesce(sa.bindparam("b_last", type_=row.last_run_at.type), row.last_run_at),
            ),
            shown,
        )
        for old, new in changed:
            fields = {name: getattr(new.trigger, name) for name in ("anchor", "run_at", "enabled")}
            if new.id in moves and any(getattr(old.trigger, name) != value for name, value in fields.items()):
                self._connection.execute(sa.update(task_triggers).where(row.id == new.id).values(**fields))
                self.put_standing("trigger", new.id, new.task_id, new.standing)
                self.withdraw_ahead([new.id])
                self._connection.execute(
                    sa.update(trigger_states).where(trigger_states.c.trigger_id == new.id).values(refill_at=now)
                )

    def put_state(self, ts: TriggerState, state: State, now: datetime) -> None:
        """The row of a new trigger, or of one that was edited."""
        look = look_of(ts, state, now)
        refill = None if ts.trigger.type in BY_EVENT else now
        values = {**_state_values(ts), "trigger_id": ts.id, "task_id": ts.task_id, "look_at": look, "refill_at": refill}
        insert = insert_into(trigger_states, self._connection).values(**values, version=1)
        kept = {name: insert.excluded[name] for name in (*_STATE, "task_id", "look_at", "refill_at")}
        kept["version"] = trigger_states.c.version + 1
        self._connection.execute(insert.on_conflict_do_update(index_elements=["trigger_id"], set_=kept))
        if ts.standing.hold is not None or ts.standing.past:
            self.put_standing("trigger", ts.id, ts.task_id, ts.standing)

    def forget_trigger(self, trigger_id: str) -> None:
        """Its cursor, holds and requests go; its ledger stays with the task."""
        self.withdraw_ahead([trigger_id])
        for table, key in (
            (trigger_states, trigger_states.c.trigger_id),
            (trigger_firings, trigger_firings.c.trigger_id),
        ):
            self._connection.execute(sa.delete(table).where(key == trigger_id))
        own = (standings.c.scope == "trigger") & (standings.c.key == trigger_id)
        self._connection.execute(sa.delete(standings).where(own))

    def put_standing(self, scope: str, key: str, task_id: str | None, standing: Standing) -> None:
        hold, past = standing_json(standing)
        insert = insert_into(standings, self._connection)
        upsert = insert.on_conflict_do_update(
            index_elements=["scope", "key"], set_={"hold": insert.excluded.hold, "past": insert.excluded.past}
        )
        self._connection.execute(upsert, {"scope": scope, "key": key, "task_id": task_id, "hold": hold, "past": past})

    def look_now(self, trigger_ids: Collection[str] | None, task_ids: Collection[str] | None, now: datetime) -> None:
        """Something that held these triggers changed; both None: all of them."""
        row = trigger_states.c
        base = sa.update(trigger_states).values(look_at=now, refill_at=now, version=row.version + 1)
        if trigger_ids is None and task_ids is None:
            self._connection.execute(base)
        for some in chunks(trigger_ids or ()):
            self._connection.execute(base.where(row.trigger_id.in_(some)))
        for some in chunks(task_ids or ()):
            self._connection.execute(base.where(row.task_id.in_(some)))

    # requests that a trigger fire ------------------------------------------------------------------

    def add_firings(self, firings: Iterable[Firing], task_of: Mapping[str, str]) -> None:
        rows = [
            {
                "id": firing.id,
                "trigger_id": firing.trigger_id,
                "task_id": task_of[firing.trigger_id],
                "at": firing.at,
                "payload": dict(firing.payload) if firing.payload is not None else None,
                "upstream_run_id": firing.upstream_run_id,
                "consumed": False,
            }
            for firing in firings
        ]
        self._many(insert_into(trigger_firings, self._connection).on_conflict_do_nothing(index_elements=["id"]), rows)

    def consume(self, ids: Collection[str]) -> None:
        """They stay, so that the same cause is never asked for twice."""
        for some in chunks(ids):
            self._connection.execute(
                sa.update(trigger_firings).where(trigger_firings.c.id.in_(some)).values(consumed=True)
            )


_STATE = ("since", "cursor", "next_slot", "next_known", "last_finished")


def _state_values(ts: TriggerState) -> Row:
    return {name: getattr(ts, name) for name in _STATE}


def _run(run_id: str, request: RunRequest, task: Mapping[str, Any]) -> Run:
    waits = request.attempt > 1
    return Run(
        id=run_id,
        task_id=request.task_id,
        task_slug=task["slug"],
        task_type=task["task_type"],
        task_revision=task["revision"],
        trigger_id=request.trigger_id,
        origin=request.origin,
        status=RunStatus.QUEUED,
        phase=RunPhase.AWAITING_RETRY if waits else RunPhase.SCHEDULED,
        attempt=request.attempt,
        total_attempts=request.total_attempts,
        root_run_id=request.root_run_id or run_id,
        slot=request.slot,
        created_at=request.created_at,
        prefect_state="AwaitingRetry" if waits else "Scheduled",
        batch_id=request.batch_id,
        batch_item=request.batch_item,
    )
