"""Runs by a part of their task's or their own name, newest first, in a time that hardly depends on how many there are.

Two ways lead there. A common text is met soon in the list itself, which one index holds with the names; a rare one is
found by its trigrams and sorted. Which is the shorter one is told by how often the newest thousands have it. Letters
A to Z count the same in either case. (spec 6.1)
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, event
from sqlalchemy.sql.elements import Grouping
from sqlalchemy.sql.visitors import iterate

from .folding import folded
from .tables import UtcTime, task_runs

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
    "CREATE INDEX ix_task_runs_search ON task_runs USING gin"
    " (lower((task_slug || ' ' || name) COLLATE \"C\") gin_trgm_ops)",
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


_TRIGRAM = 3
_FIRST = 800
"""Rows of the list that are looked through before anything else."""
_FURTHER = 20_000
"""Rows of the list that cost about as much as the trigrams of a text that is as rare."""
_LOOKED_UP = 8_000
"""The same where the rows themselves must be read, because the list is by task or status."""


def search(connection: Connection, where: Sequence[ColumnElement[bool]], wanted: str, limit: int) -> list[str]:
    """Ids of the newest runs that meet ``where`` and have ``wanted`` in a name; at most ``limit``."""
    postgres = connection.dialect.name == "postgresql"
    if postgres:
        # A plan that is made once for every text would know nothing of how rare this one is.
        connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_custom_plan")
    text = folded(wanted)
    further = _FURTHER if _in_one_index(where) else min(_FURTHER, _LOOKED_UP)
    found: list[str] = []
    looked, rows, place = 0, _FIRST, None
    while rows and looked + rows <= further:
        part, place = _newest(connection, [*where, *_from(place)], text, limit - len(found), rows)
        found += part
        looked += rows
        if place is None or len(found) >= limit:
            return found
        # As many again as should hold the rest, and some for bad luck.
        rows = int(1.25 * looked * (limit - len(found)) / len(found)) + _FIRST if found else 0
    has = _has(task_runs.c, text, postgres)
    if len(text) < _TRIGRAM:
        run = task_runs.c
        query = sa.select(run.id).where(*where, has).order_by(run.created_at.desc(), run.id.desc()).limit(limit)
        return list(connection.execute(query).scalars())
    query = _by_trigrams_postgres(where, has, limit) if postgres else _by_trigrams_sqlite(where, has, text, limit)
    return list(connection.execute(query).scalars())


def _in_one_index(where: Sequence[ColumnElement[bool]]) -> bool:
    """Whether the index of all runs, which has the names, answers it alone."""
    asked = {part.name for condition in where for part in iterate(condition) if isinstance(part, sa.Column)}
    return asked <= {"created_at", "id"}


def _has(run: Any, wanted: str, postgres: bool) -> ColumnElement[bool]:
    both = run.task_slug + sa.literal_column("' '") + run.name
    if not postgres:
        return sa.func.instr(sa.func.lower(both), wanted) > 0
    # Written as the index has it, to the parentheses: else it is not used.
    text = sa.func.lower(sa.collate(Grouping(both), "C"))
    return text.contains(wanted, autoescape=True)


def _newest(
    connection: Connection, where: Sequence[ColumnElement[bool]], wanted: str, limit: int, rows: int
) -> tuple[list[str], tuple[datetime, str] | None]:
    """Those among the newest ``rows`` of the list, and the row after these (None: not needed, or not there)."""
    run = task_runs.c
    part = (
        sa.select(run.id, run.created_at, run.task_slug, run.name)
        .where(*where)
        .order_by(run.created_at.desc(), run.id.desc())
        .limit(rows)
    )
    postgres = connection.dialect.name == "postgresql"
    inner = part.subquery("part").c
    query = (
        sa.select(inner.id)
        .where(_has(inner, wanted, postgres))
        .order_by(inner.created_at.desc(), inner.id.desc())
        .limit(limit)
    )
    found = list(connection.execute(query).scalars())
    if len(found) >= limit:
        return found, None
    after = sa.select(run.created_at, run.id).where(*where).order_by(run.created_at.desc(), run.id.desc())
    row = connection.execute(after.limit(1).offset(rows)).first()
    return found, (row.created_at, row.id) if row is not None else None


def _from(place: tuple[datetime, str] | None) -> list[ColumnElement[bool]]:
    """The part of the list that begins with this row."""
    if place is None:
        return []
    run = task_runs.c
    here = sa.tuple_(sa.literal(place[0], UtcTime()), sa.literal(place[1], run.id.type))
    return [sa.tuple_(run.created_at, run.id) <= here]


def _by_trigrams_postgres(where: Sequence[ColumnElement[bool]], has: ColumnElement[bool], limit: int) -> Any:
    run = task_runs.c
    # Materialized: with the order and the limit in sight the planner would walk the list instead.
    hits = sa.select(run.id, run.created_at).where(has, *where).cte("hits").prefix_with("MATERIALIZED")
    return sa.select(hits.c.id).order_by(hits.c.created_at.desc(), hits.c.id.desc()).limit(limit)


def _by_trigrams_sqlite(where: Sequence[ColumnElement[bool]], has: ColumnElement[bool], wanted: str, limit: int) -> Any:
    run = task_runs.c
    quoted = '"' + wanted.replace('"', '""') + '"'
    # What FTS5 finds has every letter in either case, of any alphabet; the rule itself has the last word. The plus
    # signs keep SQLite from walking the list instead of the rows that were found.
    ids = sa.text("SELECT rowid FROM task_runs_search WHERE task_runs_search MATCH :quoted").bindparams(quoted=quoted)
    rowid: ColumnElement[Any] = sa.literal_column("task_runs.rowid")
    order: list[Any] = [sa.desc(sa.literal_column(f"+task_runs.{name}")) for name in ("created_at", "id")]
    return sa.select(run.id).where(rowid.in_(ids), has, *where).order_by(*order).limit(limit)
