"""What several modules say to both databases: many ids, words that a planner must see, inserts that may meet a row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Dialect, Engine, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import TypeDecorator, TypeEngine

from taskcenter.models import AuditEntry

from .rows import audit_row
from .tables import task_audit_logs

__all__ = ["add_audit", "chunks", "insert_into", "one_of", "written", "written_in"]

_CHUNK = 500


def chunks(values: Iterable[str]) -> Iterator[Sequence[str]]:
    """Ids a part at a time, in a steady order, so that two transactions take locks in the same one."""
    listed = sorted(set(values))
    for start in range(0, len(listed), _CHUNK):
        yield listed[start : start + _CHUNK]


def insert_into(table: Table, database: Connection | Engine) -> Any:
    """An INSERT that knows ``ON CONFLICT``: each of the two databases has its own kind of it."""
    return (postgresql.insert if database.dialect.name == "postgresql" else sqlite.insert)(table)


def add_audit(connection: Connection, entries: Sequence[AuditEntry]) -> None:
    """New entries, in the transaction of what they tell of."""
    if entries:
        connection.execute(sa.insert(task_audit_logs), [audit_row(entry) for entry in entries])


class _Ids(TypeDecorator[Any]):
    """Many ids as one parameter: an array on PostgreSQL, a JSON list on SQLite."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        array = dialect.name == "postgresql"
        return dialect.type_descriptor(postgresql.ARRAY(sa.Text()) if array else sa.Text())

    def process_bind_param(self, value: Any | None, dialect: Dialect) -> Any:
        return value if dialect.name == "postgresql" else json.dumps(value)


class _OneOf(sa.sql.functions.FunctionElement[bool]):
    name = "one_of"
    type = sa.Boolean()
    inherit_cache = True


def one_of(column: ColumnElement[Any], ids: Iterable[str]) -> ColumnElement[bool]:
    """``column IN ids``, however many: databases take only some ten thousand parameters."""
    return _OneOf(column, sa.literal(sorted(set(ids)), _Ids()))


@compiles(_OneOf, "postgresql")
def _on_postgresql(element: Any, compiler: Any, **more: Any) -> str:
    column, ids = (compiler.process(clause, **more) for clause in element.clauses)
    return f"({column} = ANY ({ids}))"


@compiles(_OneOf, "sqlite")
def _on_sqlite(element: Any, compiler: Any, **more: Any) -> str:
    column, ids = (compiler.process(clause, **more) for clause in element.clauses)
    return f"({column} IN (SELECT value FROM json_each({ids})))"


def written(word: str) -> ColumnElement[str]:
    """One of our own words inside a statement.

    With a parameter a planner does not see that the condition is that of a partial index, and it would be sent again
    with every row of a batch.
    """
    assert not word or word.isidentifier(), word
    return sa.literal_column(f"'{word}'", sa.String())


def written_in(column: ColumnElement[Any], words: Iterable[str]) -> ColumnElement[bool]:
    return column.in_([written(word) for word in words])
