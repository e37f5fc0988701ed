"""MySQL's rows as plain bytes: one line each, made on the server, read in bulk below the driver's rows.

The server joins the fields with bytes that no UTF-8 text holds, which costs it nothing; what must be escaped is seen
here, whole chunks at a time. Whatever is not a plain row (the end, an error, a row larger than the buffer) the driver
reads itself.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from taskcenter.errors import StepFailed

from . import lines
from .lines import Chunk
from .pg_copy import CHUNK
from .side import Side

__all__ = ["HEX_PREFIX", "line_of", "mysql_chunks"]

_BETWEEN, _NULL, _PREFIX = b"\xfe", b"\xff", b"\xfd"
HEX_PREFIX = "UNHEX('FD')"
"""Stands for the ``\\x`` that tells PostgreSQL of hexadecimal digits."""
_SPECIAL = (b"\\", b"\t", b"\r", b"\b", b"\f", b"\v")
_LONGEST_HEADER = 8


def line_of(fields: Sequence[str]) -> str:
    """One expression that makes a line of texts; NULL where it would be larger than a packet."""
    parts = ", ".join(f"IFNULL({field}, UNHEX('FF'))" for field in fields)
    return f"CAST(CONCAT_WS(UNHEX('FE'), {parts}) AS BINARY)"


def mysql_chunks(side: Side, sql: str) -> Iterator[Chunk]:
    """The rows of a SELECT of one ``line_of`` as lines in PostgreSQL's COPY form."""
    held: list[bytes] = []
    size = 0
    for rows, took in _single_column(side, sql):
        held += rows
        size += took
        if size >= CHUNK // 2:
            yield _chunk(held), len(held)
            held, size = [], 0
    if held:
        yield _chunk(held), len(held)


def _chunk(rows: list[bytes]) -> bytes:
    data = b"\n".join(rows)
    if data.count(b"\n") >= len(rows) or any(sign in data for sign in _SPECIAL):
        data = b"\n".join(map(lines.escape_bytes, rows))
    data = data.replace(_BETWEEN, b"\t").replace(_NULL, b"\\N").replace(_PREFIX, b"\\\\x")
    return data + b"\n"


def _single_column(side: Side, sql: str) -> Iterator[tuple[list[bytes], int]]:
    """The values of the only column, in batches of what one read has brought, and how many bytes these took."""
    from pymysql.cursors import SSCursor

    link = side.driver
    link._rfile = io.BufferedReader(link._rfile.detach(), CHUNK)  # between two statements nothing waits in it
    cursor = link.cursor(SSCursor)
    done = False
    try:
        cursor.execute(sql)
        while (row := cursor.fetchone()) is not None:
            if row[0] is None:
                raise StepFailed(
                    "a row is larger than the server's max_allowed_packet and cannot be read whole: "
                    "raise max_allowed_packet on the source, or leave the large column out",
                    error_type="too_large",
                )
            rows, took = _buffered(link)
            yield [row[0], *rows], took + len(row[0])
        done = True
    finally:
        if not done:
            # closing an unbuffered cursor reads all that is still to come: the server is told to stop first
            with suppress(Exception):
                side.stop()
        try:
            cursor.close()
        except Exception:  # a lost connection: what it said first counts; nobody may try to read on
            if cursor._result is not None:
                cursor._result.unbuffered_active = False
            cursor.connection = None


def _buffered(link: Any) -> tuple[list[bytes], int]:
    """The plain rows that the read buffer holds as a whole, and how many bytes they took there."""
    try:
        data = link._rfile.peek()
    except OSError:  # the driver's next read says it in the driver's words
        return [], 0
    rows: list[bytes] = []
    add = rows.append
    begin, last, size = 0, 0, len(data)
    while begin + _LONGEST_HEADER < size:
        length = data[begin + 4]  # behind the packet's header: the length of the only value
        if length < 251:
            start = begin + 5
        elif length == 252:
            start, length = begin + 7, data[begin + 5] | data[begin + 6] << 8
        elif length == 253:
            start, length = begin + 8, data[begin + 5] | data[begin + 6] << 8 | data[begin + 7] << 16
        else:  # NULL, the end, an error
            break
        end = start + length
        if end > size:
            break
        add(data[start:end])
        last, begin = begin, end
    if rows:
        link._next_seq_id = (data[last + 3] + 1) % 256
        link._rfile.read(begin)
    return rows, begin
