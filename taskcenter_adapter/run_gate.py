"""The one decision about who may start, shared by all workers and by every run that starts elsewhere. (spec 5.2)

Whoever wants to start runs asks here with all that wait, in one short transaction that only one asker at a time is in.
A run is admitted when its claim is written in that same transaction, so that the claims *are* the places that are
taken: the leases of runs (``run_leases``), and, for a run under any other worker, a place of its own that its process
keeps. What the others wait for is written into their rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from taskcenter.scheduling.admission import Admission, Wait, WaitCode, admit
from taskcenter.scheduling.limits import connections_in
from taskcenter.scheduling.state import OpenRun, State
from taskcenter.status import RunPhase, RunStatus

from .mapping import MANAGED, priority_of
from .run_leases import LEASE, PLACE, RUN
from .schedule_tables import leases
from .statements import chunks
from .store_sql import SqlStore
from .tables import task_runs
from .task_needs import stored_limits, task_states

__all__ = ["Asked", "RunGate", "asked_of"]

_LOCK: Final = 0x7461736B63656E74
"""Of PostgreSQL's advisory locks; SQLite has one writer at a time anyway."""


@dataclass(frozen=True)
class Asked:
    """A run that wants to start. ``slug``: its task; empty for a flow that is none of ours."""

    run: OpenRun
    slug: str = ""


def asked_of(
    run_id: str, tags: Collection[str], parameters: Mapping[str, Any], created: datetime, slot: datetime | None,
    queue: str | None,
) -> Asked:  # fmt: skip
    """A flow run as the gate sees it."""
    slug = str(parameters.get("task") or "") if MANAGED in tags else ""
    priority = priority_of(tags, queue)
    own = connections_in(parameters.get("payload") or {}) if slug else ()
    return Asked(OpenRun(run_id, "", created, slot=slot, priority=priority, connections=own), slug)


class RunGate:
    """Over the database of a store."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    def admit(
        self,
        asked: Sequence[Asked],
        holder: str,
        now: datetime,
        facts: Mapping[str, Any],
        *,
        places: int | None = None,
        kind: str = RUN,
        told: MutableMapping[str, str] | None = None,
    ) -> Admission:
        """Claim for ``holder`` what may start. ``places``: how many of them it can start itself.

        ``told``: what the waiting runs' rows say already, as far as the asker knows; it learns what they say now. A run
        that Prefect has sooner than its row is there is told the next time.
        """

        def work(connection: Connection) -> tuple[Admission, dict[str, str]]:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            view = _Decision(connection, asked, now)
            found = view.decide(places)
            view.claim(found.start, holder, kind, facts)
            return found, _say(connection, found.waits, told or {})

        found, said = self._store.transaction(work, races=True)
        if told is not None:
            told.update(said)
        return found

    def look(self, asked: Sequence[Asked], now: datetime, *, places: int | None = None) -> Admission:
        """The same decision, and nothing is written."""
        with self._store.reading() as connection:
            return _Decision(connection, asked, now).decide(places)


class _Decision:
    """What one decision is made from."""

    def __init__(self, connection: Connection, asked: Sequence[Asked], now: datetime) -> None:
        self._connection, self._now = connection, now
        self._limits = stored_limits(connection)
        wanted = {item.run.id for item in asked}
        self._epochs: dict[str, int] = {}
        taken: dict[str, Mapping[str, Any]] = {}
        for row in connection.execute(sa.select(leases).where(sa.or_(*map(leases.c.name.startswith, (RUN, PLACE))))):
            kind, _, run_id = row.name.partition(":")
            live = row.until > now
            self._epochs[row.name] = row.epoch
            # a claim that ran out is a run that nobody has closed yet; a place that ran out is a process that is gone
            if live or (f"{kind}:" == RUN and run_id not in wanted):
                taken[run_id] = row.facts or {}
        self._waiting = [item for item in asked if item.run.id not in taken]
        slugs = {item.slug for item in self._waiting if item.slug}
        ids = {str(facts["task"]) for facts in taken.values() if facts.get("task")}
        self._tasks = task_states(connection, ids, slugs, connections=bool(self._limits.connections))
        by_slug = {state.slug: state for state in self._tasks.values()}
        self._runs = [_taken(run_id, facts, now) for run_id, facts in taken.items()]
        self._queue = [
            replace(item.run, task_id=by_slug[item.slug].id if item.slug in by_slug else f"?{item.run.id}")
            for item in self._waiting
        ]
        self._taken = len(taken)

    def decide(self, places: int | None) -> Admission:
        """``places`` beside those that are taken, as far as the whole pool has so many."""
        limits = self._limits
        if places is not None:
            own = self._taken + max(0, places)
            limits = replace(limits, pool=min(limits.pool, own) if limits.pool else own)
        if limits.pool == 0 and places is not None:  # nothing runs and nothing can start here
            return Admission(
                (),
                dict.fromkeys((run.id for run in self._queue), Wait(WaitCode.POOL)),
                tuple(run.id for run in self._queue),
            )
        return admit(State((), self._tasks, runs=[*self._runs, *self._queue], limits=limits), self._now)

    def claim(self, run_ids: Iterable[str], holder: str, kind: str, facts: Mapping[str, Any]) -> None:
        runs = {run.id: run for run in self._queue}
        for run_id in run_ids:
            run, name = runs[run_id], kind + run_id
            known = {**facts, **_claim_facts(run)}
            values = {"holder": holder, "until": self._now + LEASE, "facts": known}
            if (epoch := self._epochs.get(name)) is not None:
                changed = sa.update(leases).where(leases.c.name == name)
                self._connection.execute(changed, {"epoch": epoch + 1, **values})
            else:
                self._connection.execute(sa.insert(leases), {"name": name, "epoch": 1, **values})


def _claim_facts(run: OpenRun) -> dict[str, Any]:
    """What a claim keeps of its run for the decisions about others."""
    task = {} if run.task_id.startswith("?") else {"task": run.task_id}
    return {**task, **({"connections": list(run.connections)} if run.connections else {})}


def _taken(run_id: str, facts: Mapping[str, Any], now: datetime) -> OpenRun:
    own = tuple(facts.get("connections") or ())
    return OpenRun(run_id, str(facts.get("task") or f"?{run_id}"), now, status=RunStatus.RUNNING, connections=own)


def _say(connection: Connection, waits: Mapping[str, Wait], told: Mapping[str, str]) -> dict[str, str]:
    """The rows of the waiting runs say what they wait for; gives what those say that are there."""
    said: dict[str, str] = {}
    by_text: dict[str, list[str]] = defaultdict(list)
    for run_id, wait in waits.items():
        if told.get(run_id) != str(wait):
            by_text[str(wait)].append(run_id)
    row = task_runs.c
    for text, run_ids in sorted(by_text.items()):
        for some in chunks(run_ids):
            waiting = row.id.in_(some) & (row.status == RunStatus.QUEUED.value)
            values = {"phase": RunPhase.AWAITING_SLOT.value, "message": f"it waits: {text}"}
            change = sa.update(task_runs).where(waiting).values(**values).returning(row.id)
            said |= dict.fromkeys(connection.execute(change).scalars(), text)
    return said
