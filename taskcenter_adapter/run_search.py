"""Runs by a part of their task's or their own name, newest first, in a time that hardly depends on how many there are.

Two ways lead there. A common text is met soon in the list itself, which one index holds with the names; any other is
found by its trigrams, the newest part of them first. Which is the shorter one is told by how many of the newest
hundreds have it. Letters A to Z count the same in either case. (spec 6.1)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, event
from sqlalchemy.sql.elements import Grouping

from .folding import folded
from .run_filters import Filters
from .tables import task_runs

__all__ = ["SEARCH_INDEXES", "SEARCH_TABLES", "merge_by_itself", "merge_some", "search"]

SEARCH_TABLES = frozenset(
    f"task_runs_search{part}" for part in ("", "_data", "_idx", "_docsize", "_config", "_content")
)
"""SQLite's table of trigrams, and those it keeps itself."""
SEARCH_INDEXES = frozenset({"ix_task_runs_created_at", "ix_task_runs_search"})

_GONE = "INSERT INTO task_runs_search (task_runs_search, rowid, names) VALUES ('delete', old.rowid, {});"
_NEW = "INSERT INTO task_runs_search (rowid, names) VALUES (new.rowid, {});"
_OLD_NAMES, _NEW_NAMES = "old.task_slug || ' ' || old.name", "new.task_slug || ' ' || new.name"
_DELETE, _INSERT = _GONE.format(_OLD_NAMES), _NEW.format(_NEW_NAMES)

_SQLITE = (
    # SQLite knows no columns that an index only carries: the names stand in the key.
    "CREATE INDEX ix_task_runs_created_at ON task_runs (created_at, id, task_slug, name)",
    "CREATE VIEW task_runs_names AS SELECT rowid AS run, task_slug || ' ' || name AS names FROM task_runs",
    "CREATE VIRTUAL TABLE task_runs_search USING fts5(names, content='task_runs_names', content_rowid='run',"
    " tokenize='trigram', columnsize=0)",
    f"CREATE TRIGGER task_runs_search_insert AFTER INSERT ON task_runs BEGIN {_INSERT} END",
    f"CREATE TRIGGER task_runs_search_delete AFTER DELETE ON task_runs BEGIN {_DELETE} END",
    f"""CREATE TRIGGER task_runs_search_update AFTER UPDATE OF task_slug, name ON task_runs
    WHEN old.task_slug IS NOT new.task_slug OR old.name IS NOT new.name BEGIN {_DELETE} {_INSERT} END""",
)
_POSTGRESQL = (
    "CREATE INDEX ix_task_runs_created_at ON task_runs (created_at, id) INCLUDE (task_slug, name)",
    "CREATE EXTENSION IF NOT EXISTS pg_trgm",
    "CREATE EXTENSION IF NOT EXISTS btree_gin",
    "CREATE INDEX ix_task_runs_search ON task_runs USING gin"
    " (lower((task_slug || ' ' || name) COLLATE \"C\") gin_trgm_ops, ((created_at AT TIME ZONE 'UTC')::date))",
)


@event.listens_for(task_runs, "after_create")
def _create(_table: Any, connection: Connection, **_: Any) -> None:
    """Where tables are made without migrations, in tests."""
    for statement in _POSTGRESQL if connection.dialect.name == "postgresql" else _SQLITE:
        connection.exec_driver_sql(statement)


_TELL = "INSERT INTO task_runs_search (task_runs_search, rank) VALUES (?, ?)"
_AS_IT_COMES = 4
"""FTS5's own number of parts of one size that it merges."""


def merge_by_itself(connection: Connection, yes: bool) -> None:
    """Whether SQLite's index of trigrams merges its parts while somebody writes: some hundred pages now and then."""
    connection.exec_driver_sql(_TELL, ("automerge", _AS_IT_COMES if yes else 0))


def merge_some(connection: Connection, pages: int) -> None:
    """Merge parts of SQLite's index of trigrams, so many pages of it."""
    connection.exec_driver_sql(_TELL, ("merge", pages))


Row = dict[str, Any]
_TRIGRAM = 3
_FIRST = 800
"""Rows of the list that are looked through before anything else."""
_MANY_POSTGRES, _MANY_SQLITE = 8, 20
"""Of them; a text that so many have is met soon enough in the list."""
_NEAR = 25_000
"""Rows that SQLite looks through for what stands out of order, sooner than to read and sort all that have a text."""
_FEW = 500
"""Rows that SQLite looks at one by one, as came after the list's top and may belong below it."""
_FEW_DAYS, _DAYS = 1, 10
"""How many days PostgreSQL's index is asked for one by one: at first, and at most; for more, all of it at once."""
_SPARE = 1.5
"""So many times as many as should do: the text may be a little rarer further down."""
_ONE_DAY = timedelta(days=1)
_ROWID: ColumnElement[int] = sa.literal_column("task_runs.rowid", sa.Integer())
_FOUND = sa.table("task_runs_search", sa.column("rowid", sa.Integer()), sa.column("task_runs_search")).alias("found")
_DAY: ColumnElement[Any] = sa.literal_column("(task_runs.created_at AT TIME ZONE 'UTC')::date", sa.Date())


def search(connection: Connection, columns: Sequence[Any], where: Filters, wanted: str, limit: int) -> list[Row]:
    """``columns`` (all but those that one row is found by are up to the caller) of the newest runs that meet ``where``
    and have ``wanted`` in a name; at most ``limit``."""
    postgres = connection.dialect.name == "postgresql"
    text = folded(wanted)
    ask = _Asking(connection, _Questions.of(where, tuple(columns), postgres), where, text)
    found = ask.rows("newest", rows=_FIRST, limit=limit)
    if (_MANY_POSTGRES if postgres else _MANY_SQLITE) <= len(found) < limit:
        found = ask.rows("newest", rows=int(_SPARE * _FIRST * limit / len(found)), limit=limit)
    if len(found) >= limit:
        return found
    if len(text) < _TRIGRAM:
        return ask.rows("everywhere", limit=limit)
    return (_by_trigrams_postgres if postgres else _by_trigrams_sqlite)(ask, limit, len(found))


class _Questions:
    """The statements for one choice of filters, each put together once: it takes longer than the database does."""

    def __init__(self, where: Filters, columns: tuple[Any, ...], postgres: bool) -> None:
        self._where, self._columns, self._postgres = list(where.conditions), columns, postgres
        self._made: dict[str, sa.Select[Any]] = {}

    @staticmethod
    @functools.lru_cache(maxsize=256)
    def of(where: Filters, columns: tuple[Any, ...], postgres: bool) -> _Questions:
        return _Questions(where, columns, postgres)

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

    def edges(self) -> sa.Select[Any]:
        """The times between which the newest ``rows`` of the list are, and how many there are."""
        part = self._list(of=(task_runs.c.created_at,)).limit(sa.bindparam("rows")).subquery().c.created_at
        return sa.select(sa.func.max(part), sa.func.min(part), sa.func.count())

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
        elsewhere = sa.or_(sa.bindparam("last") > _ROWID, sa.bindparam("top") < _ROWID)
        return self._list(elsewhere, self._has(task_runs.c))

    def late(self) -> sa.Select[Any]:
        """The same, newer than a run."""
        run = task_runs.c
        oldest = sa.tuple_(sa.bindparam("moment", type_=run.created_at.type), sa.bindparam("key", type_=run.id.type))
        return self.strays().where(sa.tuple_(run.created_at, run.id) > oldest).limit(sa.bindparam("limit"))


class _Asking:
    """One search."""

    def __init__(self, connection: Connection, questions: _Questions, where: Filters, wanted: str) -> None:
        self.connection, self._questions = connection, questions
        self.narrow = bool({*where.shape} - {"since", "until", "cursor"})
        self.since: datetime | None = where.values.get("of_since")
        pattern = wanted.replace("/", "//").replace("%", "/%").replace("_", "/_")
        quoted = '"' + wanted.replace('"', '""') + '"'
        self._values = {**where.values, "wanted": wanted, "pattern": f"%{pattern}%", "quoted": quoted}

    def execute(self, name: str, **values: Any) -> sa.CursorResult[Any]:
        return self.connection.execute(self._questions[name], {**self._values, **values})

    def rows(self, name: str, **values: Any) -> list[Row]:
        return list(map(dict, self.execute(name, **values).mappings()))


def _by_trigrams_postgres(ask: _Asking, limit: int, known: int) -> list[Row]:
    """By its index, which has the day of each run beside the trigrams and answers for a day in a part of the time.

    ``known``: how many of the newest ones have it.
    """
    newest, oldest, rows = ask.execute("edges", rows=_FIRST).one()
    if rows < _FIRST:
        return ask.rows("newest", rows=rows, limit=limit)  # it is the whole list
    # A plan that is made once for every text would know nothing of how rare this one is.
    ask.connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_custom_plan")
    found: list[Row] = []
    until, left = newest.astimezone(UTC).date() + _ONE_DAY, _DAYS
    expected = (newest - oldest) / _ONE_DAY * _SPARE * limit / max(known, 0.5)
    days = max(1, math.ceil(min(expected, _FEW_DAYS)))
    while days <= left:
        on = {f"day{n}": until - n * _ONE_DAY for n in range(1, days + 1)}
        found += ask.rows(f"days {days}", limit=limit - len(found), **on)
        if len(found) >= limit:
            return found
        until, left = until - days * _ONE_DAY, left - days
        if ask.since is not None and until <= ask.since.astimezone(UTC).date():
            return found
        days = math.ceil(_SPARE * days * (limit - len(found)) / len(found)) if found else left + 1
    return found + ask.rows("older", limit=limit - len(found), before=datetime.combine(until, time(), UTC))


def _by_trigrams_sqlite(ask: _Asking, limit: int, _known: int) -> list[Row]:
    """By its index, from the row at the list's top on, as if rows came in the order of their time.

    Most do. What did not stands in the list among what was found, and is looked for there.
    """
    top = ask.execute("top").scalar()
    if top is None:
        return []
    if ask.narrow:  # most of what is found by the text may not be meant
        return ask.rows("all", limit=limit)
    bottom = ask.execute("bottom").scalar_one() if ask.since is not None else 0
    found = ask.rows("down", top=top, bottom=bottom, limit=limit)
    rowids = [row.pop("rowid") for row in found]
    if len(found) < limit:
        if ask.since is not None and top - bottom <= _NEAR:
            found += ask.rows("strays", last=bottom, top=top)
            return sorted(found, key=_place, reverse=True)[:limit]
        if ask.since is None and top == ask.execute("last").scalar():
            return sorted(found, key=_place, reverse=True)
        beside = list(ask.execute("beside", top=top, bottom=bottom, limit=_FEW).scalars())
        if len(beside) < _FEW:
            found += ask.rows("among", rowids=beside) if beside else []
            return sorted(found, key=_place, reverse=True)[:limit]
        return ask.rows("all", limit=limit)
    if top - rowids[-1] > _NEAR:
        return ask.rows("all", limit=limit)
    oldest = min(found, key=_place)
    found += ask.rows("late", moment=oldest["created_at"], key=oldest["id"], last=rowids[-1], top=top, limit=limit)
    return sorted(found, key=_place, reverse=True)[:limit]


def _place(row: Row) -> tuple[datetime, str]:
    return row["created_at"], row["id"]
