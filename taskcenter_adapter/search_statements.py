"""The statements of a search for runs, which ``run_search`` chooses from. (spec 6.1)"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement
from sqlalchemy.sql.elements import Grouping

from .run_filters import conditions_of
from .tables import task_runs

__all__ = ["Questions"]

_ROWID: ColumnElement[int] = sa.literal_column("task_runs.rowid", sa.Integer())
_FOUND = sa.table("task_runs_search", sa.column("rowid", sa.Integer()), sa.column("task_runs_search")).alias("found")
_DAY: ColumnElement[Any] = sa.literal_column("(task_runs.created_at AT TIME ZONE 'UTC')::date", sa.Date())


class Questions:
    """The statements for one choice of filters, each put together once: it takes longer than the database does."""

    def __init__(self, shape: tuple[str, ...], columns: tuple[Any, ...], postgres: bool) -> None:
        self._where, self._columns, self._postgres = conditions_of(shape), columns, postgres
        self._made: dict[str, sa.Select[Any]] = {}

    @staticmethod
    @functools.lru_cache(maxsize=256)
    def of(shape: tuple[str, ...], columns: tuple[Any, ...], postgres: bool) -> Questions:
        return Questions(shape, columns, postgres)

    def __getitem__(self, name: str) -> sa.Select[Any]:
        if name not in self._made:
            kind, _, number = name.partition(" ")
            self._made[name] = getattr(self, kind)(*map(int, number.split()))
        return self._made[name]

    def _list(self, *more: ColumnElement[bool], of: Sequence[Any] = ()) -> sa.Select[Any]:
        run = task_runs.c
        query = sa.select(*(of or self._columns)).select_from(task_runs).where(*self._where, *more)
        return query.order_by(run.created_at.desc(), run.id.desc())

    def _rows(self, ids: sa.Select[Any]) -> sa.Select[Any]:
        run = task_runs.c
        query = sa.select(*self._columns).where(run.id.in_(ids))
        return query.order_by(run.created_at.desc(), run.id.desc())

    def _has(self, run: Any) -> ColumnElement[bool]:
        both = run.task_slug + sa.literal_column("' '") + run.name
        if not self._postgres:
            return sa.func.instr(sa.func.lower(both), sa.bindparam("wanted")) > 0
        # Written as the index has it, to the parentheses: else it is not used.
        return sa.func.lower(sa.collate(Grouping(both), "C")).like(sa.bindparam("pattern"), escape="/")

    def newest(self) -> sa.Select[Any]:
        """Those among the newest ``rows`` of the list."""
        run = task_runs.c
        part = self._list(of=(run.id, run.created_at, run.task_slug, run.name)).limit(sa.bindparam("rows"))
        inner = part.subquery("part").c
        ids = sa.select(inner.id).where(self._has(inner))
        return self._rows(ids.order_by(inner.created_at.desc(), inner.id.desc()).limit(sa.bindparam("limit")))

    def everywhere(self) -> sa.Select[Any]:
        return self._list(self._has(task_runs.c)).limit(sa.bindparam("limit"))

    def start(self) -> sa.Select[Any]:
        """The time of the list's first run, and how many of the newest ``rows`` there are."""
        part = self._list(of=(task_runs.c.created_at,)).limit(sa.bindparam("rows")).subquery().c.created_at
        return sa.select(sa.func.max(part), sa.func.count())

    def days(self, days: int) -> sa.Select[Any]:
        """Those of the days ``day1``, ``day2`` …"""
        return self._hits([sa.bindparam(f"day{n}", type_=sa.Date()) == _DAY for n in range(1, days + 1)])

    def older(self) -> sa.Select[Any]:
        return self._hits([task_runs.c.created_at < sa.bindparam("before")])

    def _hits(self, parts: Sequence[ColumnElement[bool]]) -> sa.Select[Any]:
        run = task_runs.c
        found = sa.select(run.id, run.created_at).where(*self._where, self._has(run))
        # Materialized: with the order and the limit in sight the planner would walk the list instead.
        hits = sa.union_all(*(found.where(part) for part in parts)).cte("hits").prefix_with("MATERIALIZED")
        ids = sa.select(hits.c.id).order_by(hits.c.created_at.desc(), hits.c.id.desc())
        return self._rows(ids.limit(sa.bindparam("limit")))

    def top(self) -> sa.Select[Any]:
        return self._list(of=(_ROWID,)).limit(1)

    def bottom(self) -> sa.Select[Any]:
        run = task_runs.c
        first = sa.select(_ROWID).select_from(task_runs).where(*self._where)
        return first.order_by(run.created_at, run.id).limit(1)

    def _matches(self) -> ColumnElement[bool]:
        # What FTS5 finds has every letter in either case, of any alphabet; the rule itself has the last word.
        return _FOUND.c.task_runs_search.op("MATCH")(sa.bindparam("quoted"))

    def down(self) -> sa.Select[Any]:
        """From the row ``top`` down to ``bottom``, the last that came first."""
        joined = _FOUND.join(task_runs, _FOUND.c.rowid == _ROWID)
        query = sa.select(*self._columns, _ROWID.label("rowid")).select_from(joined)
        query = query.where(self._matches(), _FOUND.c.rowid.between(sa.bindparam("bottom"), sa.bindparam("top")))
        query = query.where(self._has(task_runs.c), *self._where)
        return query.order_by(_FOUND.c.rowid.desc()).limit(sa.bindparam("limit"))

    def beside(self) -> sa.Select[Any]:
        """Rows above ``top`` or below ``bottom``."""
        outside = sa.or_(_FOUND.c.rowid > sa.bindparam("top"), _FOUND.c.rowid < sa.bindparam("bottom"))
        return sa.select(_FOUND.c.rowid).where(self._matches(), outside).limit(sa.bindparam("limit"))

    def among(self) -> sa.Select[Any]:
        return self._list(_ROWID.in_(sa.bindparam("rowids", expanding=True)), self._has(task_runs.c))

    def all(self) -> sa.Select[Any]:
        run = task_runs.c
        # The plus signs keep SQLite from walking the list instead of the rows that were found.
        order: list[Any] = [sa.desc(sa.literal_column(f"+task_runs.{name}")) for name in ("created_at", "id")]
        matching = _ROWID.in_(sa.select(_FOUND.c.rowid).where(self._matches()))
        ids = sa.select(run.id).where(matching, self._has(run), *self._where).order_by(*order)
        return self._rows(ids.limit(sa.bindparam("limit")))

    def last(self) -> sa.Select[Any]:
        """The row that came last of all."""
        return sa.select(sa.func.max(_ROWID)).select_from(task_runs)

    def strays(self) -> sa.Select[Any]:
        """Not between the rows ``last`` and ``top``."""
        elsewhere = ~_ROWID.between(sa.bindparam("last"), sa.bindparam("top"))
        return self._list(elsewhere, self._has(task_runs.c)).limit(sa.bindparam("limit"))

    def late(self) -> sa.Select[Any]:
        """The same, not older than ``moment``: a pair with the id would take SQLite twice as long."""
        run = task_runs.c
        newer = run.created_at >= sa.bindparam("moment", type_=run.created_at.type)
        return self.strays().where(newer)
