"""What limits count for a task's runs: its own, those of its tags and connections, and of its steps. (spec 5.2)"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from taskcenter.scheduling.limits import LIMITS_KEY, connections_in, limits_of
from taskcenter.scheduling.state import Limits, TaskState

from .statements import chunks
from .tables import composite_steps, task_manager_settings, tasks

__all__ = ["stored_limits", "task_states"]

_MOST_DEEP: Final = 8


def stored_limits(connection: Connection, *, pool: int = 0) -> Limits:
    """What people have set; ``pool`` where no limit of the pool is."""
    query = sa.select(task_manager_settings.c.value).where(task_manager_settings.c.key == LIMITS_KEY)
    return limits_of(connection.execute(query).scalar(), pool=pool)


def task_states(
    connection: Connection, ids: Collection[str], slugs: Collection[str], *, connections: bool = True
) -> dict[str, TaskState]:
    """These tasks with their limits and tags, and those that are steps of them.

    ``connections``: also what their payloads name, which is a lot to read.
    """
    columns: list[Any] = [tasks.c[name] for name in ("id", "slug", "task_type", "max_concurrent", "tags")]
    columns.append(tasks.c.payload if connections else sa.null().label("payload"))
    rows: dict[str, Any] = {}
    for column, wanted in ((tasks.c.id, ids), (tasks.c.slug, slugs)):
        for some in chunks(wanted):
            rows |= {row.id: row for row in connection.execute(sa.select(*columns).where(column.in_(some)))}
    steps: dict[str, list[Any]] = defaultdict(list)
    asked: set[str] = set()
    for _ in range(_MOST_DEEP):
        new = {key for key, row in rows.items() if row.task_type == "composite"} - asked
        if not new:
            break
        asked |= new
        fields: list[Any] = [composite_steps.c.task_id, composite_steps.c.referenced_task_id]
        fields.append(composite_steps.c.payload if connections else sa.null().label("payload"))
        for some in chunks(new):
            for step in connection.execute(sa.select(*fields).where(composite_steps.c.task_id.in_(some))):
                steps[step.task_id].append(step)
        named = {step.referenced_task_id for key in new for step in steps[key] if step.referenced_task_id}
        for some in chunks(named - rows.keys()):
            found = sa.select(*columns).where(sa.or_(tasks.c.id.in_(some), tasks.c.slug.in_(some)))
            rows |= {row.id: row for row in connection.execute(found)}
    plain = {key: _plain(row, steps[key]) for key, row in rows.items()}
    keys = {**{row.slug: key for key, row in rows.items()}, **{key: key for key in rows}}
    return {key: replace(state, uses=tuple(_used(key, steps, keys, plain))) for key, state in plain.items()}


def _plain(row: Any, steps: Sequence[Any]) -> TaskState:
    named = connections_in([row.payload or {}, *(step.payload or {} for step in steps)])
    return TaskState(row.id, row.slug, max_concurrent=row.max_concurrent, tags=tuple(row.tags or ()), connections=named)


def _used(
    key: str, steps: Mapping[str, Sequence[Any]], keys: Mapping[str, str], plain: Mapping[str, TaskState]
) -> list[TaskState]:
    """All that the task's steps refer to, through composites in composites too."""
    found: dict[str, TaskState] = {}
    todo = [key]
    while todo:
        for step in steps.get(todo.pop(), ()):
            which = keys.get(step.referenced_task_id or "")
            if which is not None and which != key and which not in found:
                found[which] = plain[which]
                todo.append(which)
    return list(found.values())
