"""Reads what the scheduling core decides from: all of the fleet, or the part of it that is due. (spec 4.2)

A part is enough, because each trigger is decided from its own row, its task, the open runs of that task and the holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from taskcenter.models import RetryPolicy, Run, Trigger
from taskcenter.scheduling.apply import opened
from taskcenter.scheduling.calendars import Calendar, Calendars
from taskcenter.scheduling.ledger import Verdict
from taskcenter.scheduling.misfire import held_by
from taskcenter.scheduling.state import (
    EndedRun,
    Firing,
    OpenRun,
    PlannedRun,
    Standing,
    State,
    TaskState,
    TriggerState,
    standing_of,
)
from taskcenter.scheduling.timetable import FINITE
from taskcenter.status import TERMINAL_RUN, Origin, RunStatus, TaskStatus

from .rows import TRIGGER_COLUMNS, Row
from .schedule_rows import ended_of, open_run_of, request_of, standing_of_row, task_state
from .schedule_tables import calendars, run_requests, slot_ledger, standings, trigger_firings, trigger_states
from .statements import chunks, written_in
from .tables import task_runs, task_triggers, tasks

__all__ = ["OPEN", "SCHEDULER", "Part", "Reader", "retry_policy_of"]

SCHEDULER = "scheduler"
"""The key of the scheduler's own standing, and of its lease."""
_MOST_ENDED = 500
_TRIGGERS = [
    *(task_triggers.c[name] for name in (*TRIGGER_COLUMNS, "options")),
    *(trigger_states.c[name] for name in ("since", "cursor", "next_slot", "next_known", "last_finished", "version")),
    *(trigger_states.c[name] for name in ("look_at", "refill_at")),
]
_TASKS = [
    tasks.c[name]
    for name in (
        *("id", "slug", "task_type", "status", "priority", "max_concurrent", "tags", "retry_policy", "revision"),
        "updated_at",
    )
]
_RUNS = [task_runs.c[name] for name in Run.model_fields]
BY_PERSON_ONLY = frozenset({Origin.MANUAL, Origin.MANUAL_RETRY, Origin.RESUME, Origin.PREFECT})
"""Runs that a person started: retried only when it was asked for."""


@dataclass(frozen=True)
class Part:
    """A state with what a write needs to know of the rows that it was read from."""

    state: State
    versions: Mapping[str, int] = field(default_factory=dict)
    """Trigger id → the version it was read at."""
    due: frozenset[str] = frozenset()
    """The triggers that were asked for because something of theirs is to be decided."""
    tasks: Mapping[str, Row] = field(default_factory=dict)
    ended: tuple[str, ...] = ()
    """All ended runs that were read; those of the state are the ones that something can follow."""

    @property
    def empty(self) -> bool:
        return not (self.state.triggers or self.ended)


def retry_policy_of(trigger: RetryPolicy | None, task: RetryPolicy) -> RetryPolicy:
    """The trigger's own policy when it has one, else the task's."""
    return trigger if trigger is not None and trigger.max_attempts else task


class Reader:
    """Reads over one connection: one snapshot for all that one decision is made from."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _rows(self, query: Any) -> list[Row]:
        return [dict(row) for row in self._connection.execute(query).mappings()]

    def _in(self, select: Any, column: Any, ids: Iterable[str]) -> Iterator[Row]:
        for some in chunks(ids):
            yield from self._rows(select.where(column.in_(some)))

    # the fleet -------------------------------------------------------------------------------------

    def all(self) -> Part:
        """Every trigger, with all runs made ahead and all open runs."""
        rows = self._rows(self._triggers())
        waiting = sa.select(trigger_firings).where(trigger_firings.c.consumed.is_(False))
        firings = [_firing(row) for row in self._rows(waiting)]
        return self._part(rows, planned_until=None, every_run=True, firings=firings)

    def some(self, trigger_ids: Collection[str], planned_until: datetime | None = None) -> Part:
        """These triggers, with their requests; ``planned_until``: only runs made ahead for slots up to then."""
        rows = list(self._in(self._triggers(), task_triggers.c.id, trigger_ids))
        waiting = sa.select(trigger_firings).where(trigger_firings.c.consumed.is_(False))
        firings = [_firing(row) for row in self._in(waiting, trigger_firings.c.trigger_id, trigger_ids)]
        return self._part(rows, planned_until=planned_until, due=frozenset(trigger_ids), firings=firings)

    def due(self, now: datetime, limit: int, *, late: bool = False) -> Part:
        """What is to be decided at ``now``: due triggers, requests, ended runs; with ``late`` queued runs too."""
        state = trigger_states.c
        ids = set(
            self._connection.execute(
                sa.select(state.trigger_id).where(state.look_at <= now).order_by(state.look_at).limit(limit)
            ).scalars()
        )
        firings = self._firings(now, limit)
        ids |= {firing.trigger_id for firing in firings}
        ended = self._rows(
            sa.select(*_RUNS)
            .where(task_runs.c.followed.is_(False), written_in(task_runs.c.status, _WORDS_OF_END))
            .order_by(task_runs.c.finished_at)
            .limit(_MOST_ENDED)
        )
        also: set[str] = set()
        if ended:
            also |= set(
                self._connection.execute(sa.select(task_triggers.c.id).where(task_triggers.c.type == "after")).scalars()
            )
            also |= {row["trigger_id"] for row in ended if row["trigger_id"]}
        if late:
            also |= self._queued_triggers(now)
        if not (ids or ended or also):
            return Part(State((), {}))
        rows = list(self._in(self._triggers(), task_triggers.c.id, ids | also))
        return self._part(rows, planned_until=now, due=frozenset(ids), firings=firings, ended=ended)

    def at_slot(self, slot: datetime, limit: int) -> Part:
        """What is to be decided at ``slot``, read before it comes.

        Left out is what would be decided otherwise if a run of its task ended until then.
        """
        state = trigger_states.c
        at_work = sa.exists().where(task_runs.c.task_id == state.task_id, task_runs.c.status.in_(OPEN))
        query = (
            sa.select(state.trigger_id, task_triggers.c.options, at_work.label("at_work"))
            .join(task_triggers, task_triggers.c.id == state.trigger_id)
            .where(state.look_at <= slot)
            .order_by(state.look_at)
            .limit(limit)
        )
        found = self._rows(query)
        ids = {
            row["trigger_id"] for row in found if not row["at_work"] or (row["options"] or {}).get("overlap") == "allow"
        }
        rows = list(self._in(self._triggers(), task_triggers.c.id, ids))
        return self._part(rows, planned_until=slot, due=frozenset(ids))

    def count_at(self, slot: datetime) -> int:
        """How many triggers are to be looked at by ``slot``."""
        query = sa.select(sa.func.count()).select_from(trigger_states).where(trigger_states.c.look_at <= slot)
        return int(self._connection.execute(query).scalar_one())

    def runs_that_matter(self, part: Part) -> set[str]:
        """The open runs that a decision of the part may depend on."""
        task_ids = {ts.task_id for ts in part.state.triggers if ts.trigger.overlap != "allow"}
        query = sa.select(task_runs.c.id).where(task_runs.c.status.in_(OPEN))
        return {row["id"] for row in self._in(query, task_runs.c.task_id, task_ids)}

    def to_refill(self, now: datetime, limit: int) -> Part:
        state = trigger_states.c
        ids = self._connection.execute(
            sa.select(state.trigger_id).where(state.refill_at <= now).order_by(state.refill_at).limit(limit)
        ).scalars()
        found = set(ids)
        return self.some(found) if found else Part(State((), {}))

    def next_look(self) -> datetime | None:
        found: datetime | None = self._connection.execute(sa.select(sa.func.min(trigger_states.c.look_at))).scalar()
        return found

    def _queued_triggers(self, now: datetime) -> set[str]:
        """Triggers with a run that has waited for more than a moment."""
        query = sa.select(task_runs.c.trigger_id).where(
            task_runs.c.status == "queued",
            task_runs.c.trigger_id.is_not(None),
            task_runs.c.slot < now - timedelta(seconds=1),
        )
        waiting = sa.select(run_requests.c.trigger_id).where(
            run_requests.c.status == "wanted",
            run_requests.c.ahead.is_(False),
            run_requests.c.trigger_id.is_not(None),
            run_requests.c.slot < now - timedelta(seconds=1),
        )
        found = {*self._connection.execute(query).scalars(), *self._connection.execute(waiting).scalars()}
        return {key for key in found if key is not None}

    # its parts -------------------------------------------------------------------------------------

    @staticmethod
    def _triggers() -> sa.Select[Any]:
        return sa.select(*_TRIGGERS).join(trigger_states, trigger_states.c.trigger_id == task_triggers.c.id)

    def _part(
        self,
        rows: Sequence[Row],
        *,
        planned_until: datetime | None,
        every_run: bool = False,
        due: frozenset[str] = frozenset(),
        firings: Sequence[Firing] = (),
        ended: Sequence[Row] = (),
    ) -> Part:
        ids = [row["id"] for row in rows]
        task_ids = {row["task_id"] for row in rows} | {row["task_id"] for row in ended if row["task_id"]}
        task_rows = {row["id"]: row for row in self._in(sa.select(*_TASKS), tasks.c.id, task_ids)}
        held = self._standings(ids, task_rows)
        verdicts = self._verdicts(rows)
        planned = self._planned(ids, planned_until)
        finished: dict[str, datetime] = {}
        for row in ended:
            if row["trigger_id"] and row["finished_at"]:
                before = finished.get(row["trigger_id"], row["finished_at"])
                finished[row["trigger_id"]] = max(before, row["finished_at"])
        states = [
            TriggerState(
                trigger=(trigger := trigger_of(row)),
                since=row["since"],
                cursor=row["cursor"],
                next_slot=row["next_slot"],
                next_known=row["next_known"],
                standing=held.get(("trigger", row["id"])) or standing_of(trigger, row["since"]),
                verdicts=verdicts.get(row["id"], {}),
                planned=tuple(planned.get(row["id"], ())),
                last_finished=max(filter(None, (row["last_finished"], finished.get(row["id"]))), default=None),
            )
            for row in rows
            if row["task_id"] in task_rows
        ]
        known: dict[str, TaskState] = {key: task_state(row, held.get(("task", key))) for key, row in task_rows.items()}
        policies = {ts.id: ts.trigger.retry_policy for ts in states}
        state = State(
            triggers=states,
            tasks=known,
            standing=held.get(("scheduler", SCHEDULER), Standing()),
            runs=tuple(self.open_runs(None if every_run else task_ids)),
            firings=tuple(firings),
            ended=tuple(self._ended([row for row in ended if not row["dry_run"]], policies, task_rows)),
            calendars=self.calendars() if any(ts.trigger.calendar for ts in states) else Calendars(),
        )
        versions = {row["id"]: row["version"] for row in rows}
        return Part(state, versions, due, task_rows, tuple(row["id"] for row in ended))

    def standings(self, task_ids: Collection[str]) -> dict[str, tuple[Standing, Standing]]:
        """Task id → the standing of the scheduler and of the task."""
        rows = {row["id"]: row for row in self._in(sa.select(*_TASKS), tasks.c.id, task_ids)}
        held = self._standings((), rows)
        own = held.get(("scheduler", SCHEDULER), Standing())
        return {key: (own, task_state(row, held.get(("task", key))).standing) for key, row in rows.items()}

    def held_tasks(self, now: datetime) -> set[str] | None:
        """Tasks that are held now; None: the scheduler is, and every task with it."""
        ids = sa.union(
            sa.select(tasks.c.id).where(tasks.c.status.in_((TaskStatus.PAUSED.value, TaskStatus.DISABLED.value))),
            sa.select(standings.c.key).where(standings.c.scope == "task", standings.c.hold.is_not(None)),
        )
        own = self._standings((), ()).get(("scheduler", SCHEDULER), Standing())
        if held_by((own,), now) is not None:
            return None
        found = self.standings(set(self._connection.execute(ids).scalars()))
        return {key for key, both in found.items() if held_by((*both, Standing()), now) is not None}

    def _standings(self, trigger_ids: Iterable[str], task_ids: Iterable[str]) -> dict[tuple[str, str], Standing]:
        row = standings.c
        found = self._rows(sa.select(standings).where(row.scope == "scheduler"))
        for scope, ids in (("trigger", trigger_ids), ("task", task_ids)):
            found += self._in(sa.select(standings).where(row.scope == scope), row.key, ids)
        return {(item["scope"], item["key"]): standing_of_row(item) for item in found}

    def _verdicts(self, rows: Sequence[Row]) -> dict[str, dict[datetime, Verdict]]:
        """Rows beyond the cursor; all of them for triggers with a list of times."""
        finite = [row["id"] for row in rows if row["type"] in FINITE]
        others = [row["id"] for row in rows if row["type"] not in FINITE]
        columns = sa.select(slot_ledger.c.trigger_id, slot_ledger.c.slot, slot_ledger.c.verdict)
        found = list(self._in(columns, slot_ledger.c.trigger_id, finite))
        beyond = columns.join(trigger_states, trigger_states.c.trigger_id == slot_ledger.c.trigger_id).where(
            slot_ledger.c.slot > trigger_states.c.cursor
        )
        found += self._in(beyond, slot_ledger.c.trigger_id, others)
        made: dict[str, dict[datetime, Verdict]] = defaultdict(dict)
        for row in found:
            made[row["trigger_id"]][row["slot"]] = Verdict(row["verdict"])
        return made

    def _planned(self, ids: Iterable[str], until: datetime | None) -> dict[str, list[PlannedRun]]:
        row = run_requests.c
        query = (
            sa.select(row.trigger_id, row.slot, row.key, row.run_id, task_runs.c.status)
            .outerjoin(task_runs, task_runs.c.id == row.run_id)
            .where(row.ahead.is_(True), row.status != "withdrawn")
            .order_by(row.slot)
        )
        if until is not None:
            query = query.where(row.slot <= until)
        made: dict[str, list[PlannedRun]] = defaultdict(list)
        for item in self._in(query, row.trigger_id, ids):
            started = item["status"] not in (None, "queued")
            made[item["trigger_id"]].append(PlannedRun(item["slot"], item["run_id"] or item["key"], started))
        return made

    def open_runs(self, task_ids: Collection[str] | None) -> list[OpenRun]:
        """Queued and running ones, and those that are asked for and not made yet, oldest first. None: of every task."""
        query = (
            sa.select(*_RUNS, run_requests.c.request)
            .outerjoin(run_requests, run_requests.c.run_id == task_runs.c.id)
            .where(task_runs.c.status.in_(OPEN), task_runs.c.task_id.is_not(None))
            .where(sa.or_(run_requests.c.ahead.is_(None), run_requests.c.ahead.is_(False)))
        )
        wanted = sa.select(run_requests.c.request).where(
            run_requests.c.status == "wanted", run_requests.c.ahead.is_(False)
        )
        if task_ids is None:
            found, asked = self._rows(query), self._rows(wanted)
        else:
            found = list(self._in(query, task_runs.c.task_id, task_ids))
            asked = list(self._in(wanted, run_requests.c.task_id, task_ids))
        runs = [open_run_of(row, row["request"]) for row in found]
        runs += [opened(request_of({**row["request"], "run_id": None})) for row in asked]
        return sorted(runs, key=lambda run: (run.created_at, run.slot or run.created_at, run.id))

    def _firings(self, now: datetime, limit: int) -> list[Firing]:
        row = trigger_firings.c
        query = sa.select(trigger_firings).where(row.consumed.is_(False)).order_by(row.at, row.id).limit(limit)
        return [_firing(item) for item in self._rows(query)]

    def _ended(
        self, rows: Sequence[Row], policies: Mapping[str, RetryPolicy], task_rows: Mapping[str, Row]
    ) -> Iterator[EndedRun]:
        asked = {
            row["run_id"]: row["request"]
            for row in self._in(
                sa.select(run_requests.c.run_id, run_requests.c.request), run_requests.c.run_id, (r["id"] for r in rows)
            )
        }
        for row in rows:
            request = asked.get(row["id"])
            policy = None
            task = task_rows.get(row["task_id"] or "")
            by_person = Origin(row["origin"]) in BY_PERSON_ONLY and not (request and request["total_attempts"] > 1)
            if task is not None and not by_person:
                policy = retry_policy_of(
                    policies.get(row["trigger_id"]), RetryPolicy.model_validate(task["retry_policy"])
                )
            yield ended_of({**row, "task_id": row["task_id"] or ""}, policy, request)

    def calendars(self) -> Calendars:
        return Calendars(
            Calendar.model_validate(row["definition"]) for row in self._rows(sa.select(calendars.c.definition))
        )


OPEN: Final = tuple(status.value for status in RunStatus if status not in TERMINAL_RUN)
_WORDS_OF_END = tuple(status.value for status in RunStatus if status in TERMINAL_RUN)


def _firing(row: Mapping[str, Any]) -> Firing:
    return Firing(row["id"], row["trigger_id"], row["at"], row["payload"], row["upstream_run_id"])


def trigger_of(row: Mapping[str, Any]) -> Trigger:
    return Trigger(**{name: row[name] for name in TRIGGER_COLUMNS}, **(row["options"] or {}))
