"""A SQLite database as a script. Its own texts of CREATE are kept to the letter."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa

from .catalog import rows, scalar
from .dump_parts import Choice, Part, inserts, refuse, statement, views_in_order
from .fetching import batches
from .literals import literal, text_literal
from .model import Structure, Table
from .quoting import column_list, quote

__all__ = ["dump_sqlite", "exact_float"]

_BATCH = 500
_TWO_62 = 1 << 62


def dump_sqlite(connection: sa.Connection, structure: Structure, choice: Choice, include_data: bool) -> Iterator[Part]:
    """See :func:`flows.task_types.database.dump.dump`."""
    refuse(f"the virtual table {table.label}" for table in choice.tables if table.options.get("kind") == "virtual")
    encoding = str(scalar(connection, "PRAGMA encoding"))
    yield statement("PRAGMA foreign_keys = OFF")
    yield statement(f"PRAGMA encoding = '{encoding}'")
    yield statement("BEGIN")
    for table in choice.tables:
        yield statement(table.definition)
    if include_data:
        for table in choice.tables:
            yield from _rows(connection, table, encoding)
        yield from _counters(connection, choice)
    for table in choice.tables:
        for index in table.indexes:
            yield statement(index.definition)
    if not choice.named:
        for view in views_in_order(structure, choice):
            yield statement(view.definition)
    views = {view.name for view in structure.views} if not choice.named else set()
    for trigger in structure.triggers:
        if trigger.table in choice.labels or trigger.table in views:
            yield statement(trigger.definition)
    for name in ("user_version", "application_id"):
        yield statement(f"PRAGMA {name} = {int(scalar(connection, f'PRAGMA {name}'))}")
    yield statement("COMMIT")


def _rows(connection: sa.Connection, table: Table, encoding: str) -> Iterator[Part]:
    driver: Any = connection.connection.driver_connection
    usual = driver.text_factory
    # a text that is no UTF-8 must come out as it went in
    driver.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    names = tuple(column.name for column in table.writable)
    written = column_list(names, "sqlite")
    writers = _writers(encoding)
    try:
        cursor = driver.execute(f"SELECT {written} FROM {quote(table.name, 'sqlite')}")
        found = ([writers[type(value)](value) for value in row] for batch in batches(cursor, _BATCH) for row in batch)
        yield from inserts(table.label, f"INSERT INTO {quote(table.name, 'sqlite')} ({written}) VALUES", found)
    finally:
        driver.text_factory = usual


def _counters(connection: sa.Connection, choice: Choice) -> Iterator[Part]:
    """What AUTOINCREMENT has given out so far."""
    if not scalar(connection, "SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_sequence'"):
        return
    names = {table.name for table in choice.tables if any(c.identity for c in table.columns)}
    found = [row for row in rows(connection, "SELECT name, seq FROM sqlite_sequence ORDER BY name") if row[0] in names]
    if names:
        yield statement("DELETE FROM sqlite_sequence")
    for name, value in found:
        yield statement(f"INSERT INTO sqlite_sequence VALUES ({literal(name, 'sqlite')}, {literal(value, 'sqlite')})")


def _text_of(encoding: str) -> Callable[[str], str]:
    """How a text is written. A cast reads bytes in the encoding of the database."""
    codec = {"UTF-16le": "utf-16-le", "UTF-16be": "utf-16-be"}.get(encoding)
    if codec is None:
        return lambda text: text_literal(text, "sqlite")

    def write(text: str) -> str:
        if "\0" in text:
            return f"CAST(x'{text.encode(codec, 'surrogatepass').hex()}' AS TEXT)"
        return text_literal(text, "sqlite")

    return write


def _writers(encoding: str) -> dict[type, Callable[[Any], str]]:
    """How each kind of value that SQLite holds is written."""
    return {
        int: str,
        float: exact_float,
        str: _text_of(encoding),
        bytes: lambda value: f"x'{value.hex()}'",
        type(None): lambda value: "NULL",
    }


def exact_float(value: float) -> str:
    """A float such that every SQLite reads the same bits back.

    SQLite's own reading of decimals may be off in the last bit, so what is not exact in few digits is written as a
    whole number times or divided by powers of two, which no version can get wrong.
    """
    if not math.isfinite(value) or value == 0:
        return "-0.0" if value == 0 and math.copysign(1, value) < 0 else literal(value, "sqlite")
    bottom = value.as_integer_ratio()[1]
    if abs(value) < 2**53 and bottom <= 64:
        return repr(value)
    sign = "-" if value < 0 else ""
    mantissa, exponent = math.frexp(abs(value))
    whole, exponent = int(mantissa * 2**53), exponent - 53
    while whole % 2 == 0:
        whole, exponent = whole // 2, exponent + 1
    text = f"{sign}{whole}*1.0"
    step = "*" if exponent > 0 else "/"
    for _ in range(abs(exponent) // 62):
        text += f"{step}{_TWO_62}"
    rest = 1 << (abs(exponent) % 62)
    return text if rest == 1 else f"{text}{step}{rest}"
