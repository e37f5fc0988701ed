"""The rows of a table of any engine as lines of canonical texts. See ``flows.task_types.data.canonical``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

from ..database.quoting import quote
from .canonical import Canon, Form
from .canonical_sql import mysql_row, postgresql_text
from .canonical_values import MARK, normaliser, sqlite_lines
from .lines import NULL, Chunk, escape_as_copy, fields
from .mysql_rows import mysql_chunks
from .pg_copy import copy_out
from .side import Side
from .sources import Reading, tuples

__all__ = ["canonical_chunks", "line_hash"]


def canonical_chunks(side: Side, reading: Reading, columns: Sequence[Canon]) -> Iterator[Chunk]:
    """The rows as lines of canonical texts, in the order that ``reading`` asks for."""
    if side.dialect == "postgresql":
        expressions = ", ".join(postgresql_text(c) for c in columns)
        sql = f"COPY ({reading.sql(expressions, 'postgresql')}) TO STDOUT"
        found: Iterator[Chunk] = ((data, data.count(b"\n")) for data in copy_out(side.driver, sql))
    elif side.dialect == "mysql":
        found = mysql_chunks(side, reading.sql(mysql_row(columns), "mysql"))
    else:
        yield from _sqlite(side, reading, columns)
        return
    loose = [(index, normaliser(c)) for index, c in enumerate(columns) if c.in_python]
    marked_only = all(c.form is Form.FLOAT for c in columns if c.in_python)
    for data, rows in found:
        needed = loose and (not marked_only or MARK in data)
        yield (_normalised(data, loose) if needed else data), rows


def _normalised(data: bytes | bytearray, loose: Sequence[tuple[int, Callable[[str], str]]]) -> bytes:
    made = []
    for line in data.decode("utf-8", "surrogateescape").split("\n")[:-1]:
        parts = line.split("\t")
        for index, write in loose:
            if parts[index] != NULL:
                text = fields(parts[index])[0]
                parts[index] = escape_as_copy(write(text or ""))
        made.append("\t".join(parts))
    made.append("")
    return "\n".join(made).encode("utf-8", "surrogateescape")


def _sqlite(side: Side, reading: Reading, columns: Sequence[Canon]) -> Iterator[Chunk]:
    names = ", ".join(quote(c.column.name, "sqlite") for c in columns)
    write = sqlite_lines(columns)
    for rows in tuples(side, reading.sql(names, "sqlite")):
        yield write(rows), len(rows)


def line_hash(line: bytes | bytearray) -> int:
    """64 bits of a canonical line."""
    return int.from_bytes(hashlib.md5(line, usedforsecurity=False).digest()[:8], "big")
