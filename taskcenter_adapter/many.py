"""Conditions that need more than a parameter for each value: any number of ids, words that a planner must see."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Dialect
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import TypeDecorator, TypeEngine

__all__ = ["one_of", "written", "written_in"]


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
