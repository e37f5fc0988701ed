"""Reading: the rows of a table or a query of any engine as chunks of lines, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from taskcenter.errors import StepFailed

from ..database.quoting import qualified
from .pg_copy import CHUNK, copy_out
from .side import Side
from .texts import Field, from_sqlite, line_of_mysql, select_list

__all__ = ["Chunk", "Reading", "chunks", "tuples"]

_FETCH = 1000

Chunk = tuple[bytes | bytearray, int]
"""Whole rows and how many."""


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


def chunks(side: Side, reading: Reading, fields: Sequence[Field], sink: str) -> Iterator[Chunk]:
    """The rows as lines of neutral texts for ``sink``; see ``flows.task_types.data.texts``."""
    dialect = side.dialect
    if dialect == "postgresql":
        sql = reading.sql(select_list(fields, dialect, sink), dialect)
        for data in copy_out(side.driver, f"COPY ({sql}) TO STDOUT"):
            yield data, data.count(b"\n")
    elif dialect == "mysql":
        yield from _mysql(side, reading.sql(line_of_mysql(fields, sink), dialect))
    else:
        write = from_sqlite(fields, sink)
        for rows in tuples(side, reading.sql(select_list(fields, dialect, sink), dialect)):
            yield write(rows), len(rows)


def tuples(side: Side, sql: str) -> Iterator[list[tuple[Any, ...]]]:
    """The rows as the driver gives them, in batches, never all at once. For MySQL and SQLite."""
    if side.dialect == "mysql":
        from pymysql.cursors import SSCursor

        cursor = side.driver.cursor(SSCursor)
    else:
        cursor = side.driver.cursor()
    done = False
    try:
        cursor.execute(sql)
        while rows := cursor.fetchmany(_FETCH):
            yield rows
        done = True
    finally:
        if not done and side.dialect == "mysql":
            # closing an unbuffered cursor reads all that is still to come: the server is told to stop first
            with suppress(Exception):
                side.stop()
        with suppress(Exception):  # a lost connection: what it said first counts
            cursor.close()


def _mysql(side: Side, sql: str) -> Iterator[Chunk]:
    lines: list[bytes] = []
    size = 0
    for rows in tuples(side, sql):
        for (line,) in rows:
            if line is None:
                raise StepFailed(
                    "a row is larger than the server's max_allowed_packet and cannot be read whole: "
                    "raise max_allowed_packet on the source, or leave the large column out",
                    error_type="too_large",
                )
        lines.extend(line for (line,) in rows)
        size += len(rows) * (len(rows[0][0]) + 1)
        if size >= CHUNK:
            lines.append(b"")
            yield b"\n".join(lines), len(lines) - 1
            lines, size = [], 0
    if lines:
        lines.append(b"")
        yield b"\n".join(lines), len(lines) - 1
