"""Reading: the rows of a table or a query of any engine as chunks of lines, in bounded memory."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..database.fetching import batches
from ..database.quoting import qualified
from .lines import Chunk
from .mysql_rows import mysql_chunks
from .pg_copy import copy_out
from .side import Side
from .texts import Field, from_sqlite, line_of_mysql, select_list

__all__ = ["Reading", "chunks", "tuples"]

_FETCH = 1000


@dataclass(frozen=True, slots=True)
class Reading:
    """What to read: a table with an optional condition, or a query. ``tail`` is put behind: ORDER BY, LIMIT."""

    schema: str = ""
    table: str = ""
    query: str = ""
    where: str = ""
    tail: str = ""

    def sql(self, expressions: str, dialect: str) -> str:
        """The SELECT of these expressions."""
        source = (
            f"(\n{self.query.strip().rstrip(';')}\n) AS q"
            if self.query
            else qualified(self.schema, self.table, dialect)
        )
        condition = f" WHERE (\n{self.where}\n)" if self.where else ""
        return f"SELECT {expressions} FROM {source}{condition}{' ' + self.tail if self.tail else ''}"


def chunks(side: Side, reading: Reading, fields: Sequence[Field], sink: str) -> Generator[Chunk, None, None]:
    """The rows as lines of neutral texts for ``sink``; see ``flows.task_types.data.texts``."""
    dialect = side.dialect
    if dialect == "postgresql":
        sql = reading.sql(select_list(fields, dialect, sink), dialect)
        for data in copy_out(side.driver, f"COPY ({sql}) TO STDOUT"):
            yield data, data.count(b"\n")
    elif dialect == "mysql":
        yield from mysql_chunks(side, reading.sql(line_of_mysql(fields, sink), dialect))
    else:
        write = from_sqlite(fields, sink)
        for rows in tuples(side, reading.sql(select_list(fields, dialect, sink), dialect)):
            yield write(rows), len(rows)


def tuples(side: Side, sql: str) -> Iterator[list[tuple[Any, ...]]]:
    """The rows as SQLite's driver gives them, in batches, never all at once."""
    cursor = side.driver.cursor()
    try:
        cursor.execute(sql)
        yield from batches(cursor, _FETCH)
    finally:
        with suppress(Exception):  # left unread until its database was closed
            cursor.close()
