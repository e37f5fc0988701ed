"""What a list of runs is narrowed by: conditions, put together once for each choice of filters. (spec 6.1)"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement

from taskcenter.ports import RunFilter

from .paging import read_cursor
from .rows import clean_text
from .schedule_read import OPEN
from .statements import written_in
from .tables import task_runs

__all__ = ["Filters", "conditions_of", "filters_of"]

_EQUAL = ("task_id", "status", "trigger_id", "batch_id")


@dataclass(frozen=True)
class Filters:
    """Which there are (``shape``), and the values that ``conditions_of`` it are asked with."""

    shape: tuple[str, ...]
    values: Mapping[str, Any]


def filters_of(where: RunFilter) -> Filters:
    """Without ``search`` and ``limit``."""
    values: dict[str, Any] = {}
    for name in (*_EQUAL, "root_run_id"):
        wanted = getattr(where, name)
        if wanted is not None:
            values[name] = clean_text(str(wanted))
    for name in ("since", "until"):
        if getattr(where, name) is not None:
            values[name] = getattr(where, name)
    shape = [*values, *(["open_only"] if where.open_only else [])]
    if where.cursor is not None:
        values["cursor_moment"], values["cursor_key"] = read_cursor(where.cursor)
        shape.append("cursor")
    return Filters(tuple(shape), {f"of_{name}": value for name, value in values.items()})


@functools.lru_cache(maxsize=256)
def conditions_of(shape: tuple[str, ...]) -> tuple[ColumnElement[bool], ...]:
    run = task_runs.c

    def given(name: str, column: str) -> Any:
        return sa.bindparam(f"of_{name}", type_=run[column].type)

    found: list[ColumnElement[bool]] = [run[name] == given(name, name) for name in shape if name in _EQUAL]
    if "root_run_id" in shape:
        # As the index of further attempts has it; the first one is its own root.
        root = given("root_run_id", "id")
        further = sa.and_(run.root_run_id == root, run.root_run_id != run.id)
        found.append(sa.or_(further, sa.and_(run.id == root, run.root_run_id == root)))
    if "open_only" in shape:
        # Written out, so that the planner sees it is the condition of the index of open runs.
        found.append(written_in(run.status, OPEN))
    if "since" in shape:
        found.append(run.created_at >= given("since", "created_at"))
    if "until" in shape:
        found.append(run.created_at < given("until", "created_at"))
    if "cursor" in shape:
        here = sa.tuple_(given("cursor_moment", "created_at"), given("cursor_key", "id"))
        found.append(sa.tuple_(run.created_at, run.id) < here)
    return tuple(found)
