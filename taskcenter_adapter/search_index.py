"""The indexes that runs are found by a part of a name with, on either database. (spec 6.1)"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, event

from .tables import task_runs

__all__ = ["SEARCH_INDEXES", "SEARCH_TABLES", "merge_by_itself", "merge_some"]

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
