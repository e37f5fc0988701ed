"""What saving a task means for its slots: ``revise`` for each trigger, in the same transaction. (spec 4.2)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from taskcenter.models import MisfirePolicy, Task, Trigger
from taskcenter.scheduling.decisions import Decisions
from taskcenter.scheduling.revise import Revision, revise
from taskcenter.scheduling.state import Hold, Mode, Standing, State, TaskState, TriggerState, standing_of
from taskcenter.status import TaskStatus

from .rows import Row
from .schedule_read import Part, Reader
from .schedule_rows import standing_of_row
from .schedule_tables import standings, trigger_states
from .schedule_write import Writer

__all__ = ["Edit", "prepare"]

_MODES = {TaskStatus.PAUSED: Mode.PAUSED, TaskStatus.DISABLED: Mode.DISABLED}
_UNTOUCHED = ("next_run_at", "last_run_at", "revision", "task_id")
"""Fields whose change is no edit."""


@dataclass
class Edit:
    """What is written after the task's own rows. ``task`` is the task with what settling has moved."""

    task: Task
    revisions: dict[str, Revision] = field(default_factory=dict)
    new: list[TriggerState] = field(default_factory=list)
    standing: Standing | None = None
    """The task's, when it changed."""

    def write(self, connection: Connection, now: datetime) -> None:
        writer = Writer(connection)
        known = TaskState(self.task.id, self.task.slug, self.standing or Standing())
        state = State((), {self.task.id: known})
        for trigger_id, revision in self.revisions.items():
            for decisions in revision.decisions:
                _write(writer, decisions, now)
            if revision.trigger is None:
                writer.forget_trigger(trigger_id)
            else:
                writer.withdraw_ahead([trigger_id])
                writer.put_state(revision.trigger, state, now)
                if revision.trigger.standing.hold is None and not revision.trigger.standing.past:
                    writer.put_standing("trigger", trigger_id, self.task.id, Standing())
        for ts in self.new:
            writer.put_state(ts, state, now)
        if self.standing is not None:
            writer.put_standing("task", self.task.id, self.task.id, self.standing)
            if self.standing.hold is not None:
                writer.withdraw_ahead(None, [self.task.id])
            writer.look_now(None, [self.task.id], now)


def _write(writer: Writer, decisions: Decisions, now: datetime) -> None:
    writer.ledger(decisions.occurrences)
    writer.requests(decisions.runs)
    writer.take(decisions)
    writer.withdraw(decisions.withdraw)
    writer.cancel(decisions, now)
    writer.consume(decisions.consumed)


def prepare(
    connection: Connection, stored: Row | None, task: Task, now: datetime, policy: MisfirePolicy | None = None
) -> Edit:
    """To be called before the task's triggers are written anew. ``policy``: for the slots that an ended hold kept."""
    held = None if stored is None else _standing_change(connection, stored, task, now, policy)
    if stored is None:
        standing = Standing(Hold(_MODES[task.status], now)) if task.status in _MODES else None
        return Edit(task, new=[_new(trigger, now) for trigger in task.triggers], standing=standing)
    ids = set(
        connection.execute(
            sa.select(trigger_states.c.trigger_id)
            .where(trigger_states.c.task_id == task.id)
            .order_by(trigger_states.c.trigger_id)
            .with_for_update()
        ).scalars()
    )
    part = Reader(connection).some(ids) if ids else Part(State((), {}))
    before = {ts.id: ts for ts in part.state.triggers}
    revisions: dict[str, Revision] = {}
    triggers: list[Trigger] = []
    new: list[TriggerState] = []
    for trigger in task.triggers:
        old = before.get(trigger.id)
        if old is None:
            new.append(_new(trigger, now))
            triggers.append(trigger)
        elif _same(old.trigger, trigger):
            triggers.append(trigger)
        else:
            revision = revise(part.state, trigger.id, trigger, now)
            revision = _with_policy(revision, now, policy)
            assert revision.trigger is not None
            revisions[trigger.id] = revision
            triggers.append(revision.trigger.trigger)
    for trigger_id in before.keys() - {trigger.id for trigger in task.triggers}:
        revisions[trigger_id] = revise(part.state, trigger_id, None, now)
    return Edit(task.model_copy(update={"triggers": tuple(triggers)}), revisions, new, held)


def _new(trigger: Trigger, now: datetime) -> TriggerState:
    return TriggerState(trigger, now, standing=standing_of(trigger, now))


def _same(old: Trigger, new: Trigger) -> bool:
    untouched = {name: None for name in _UNTOUCHED if name in ("next_run_at", "last_run_at")}
    same = {**untouched, "revision": 1, "task_id": ""}
    return old.model_copy(update=same) == new.model_copy(update=same)


def _with_policy(revision: Revision, now: datetime, policy: MisfirePolicy | None) -> Revision:
    ts = revision.trigger
    if policy is None or ts is None or not ts.standing.past or ts.standing.past[-1].until != now:
        return revision
    past = (*ts.standing.past[:-1], replace(ts.standing.past[-1], policy=policy))
    return replace(revision, trigger=replace(ts, standing=Standing(ts.standing.hold, past)))


def _standing_change(
    connection: Connection, stored: Mapping[str, Any], task: Task, now: datetime, policy: MisfirePolicy | None
) -> Standing | None:
    if stored["status"] == task.status.value:
        return None
    query = sa.select(standings).where(standings.c.scope == "task", standings.c.key == task.id)
    row = connection.execute(query).mappings().first()
    if row is not None:
        old = standing_of_row(dict(row))
    else:
        mode = _MODES.get(TaskStatus(stored["status"]))
        old = Standing(Hold(mode, stored["updated_at"]) if mode else None)
    past = old.past
    if old.hold is not None:
        past = (*past, replace(old.hold, until=now, policy=policy))
    return Standing(Hold(_MODES[task.status], now) if task.status in _MODES else None, past)
