"""A MySQL or MariaDB database as a script. ``SHOW CREATE`` says it best; names of the database itself are taken out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa

from .catalog import rows, scalar
from .dump_parts import Choice, Part, inserts, refuse, statement, views_in_order
from .fetching import batches
from .literals import text_literal
from .model import Column, Structure, Table, TypeKind
from .quoting import column_list, quote

__all__ = ["dump_mysql"]

_BATCH = 500
_DELIMITER = "//end//"
_MODE = "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES"


def dump_mysql(connection: sa.Connection, structure: Structure, choice: Choice, include_data: bool) -> Iterator[Part]:
    """See :func:`flows.task_types.database.dump.dump`. Definers are not carried over: who restores becomes it."""
    refuse(
        f"the table {table.label} with system versioning" for table in choice.tables if table.options.get("versioned")
    )
    hidden = [r.label for r in structure.routines if not r.definition] if not choice.named else []
    refuse(f"the {r}, whose text this login may not read" for r in hidden)
    _warn_of_engines(choice)
    charset, collation = rows(connection, "SELECT @@character_set_database, @@collation_database")[0]
    yield statement("SET NAMES utf8mb4")
    yield statement(
        f"SET SESSION time_zone = '+00:00', foreign_key_checks = 0, unique_checks = 0, sql_mode = '{_MODE}'"
    )
    yield statement(f"ALTER DATABASE CHARACTER SET {charset} COLLATE {collation}")
    if not choice.named or any("nextval(" in t.definition.lower() for t in choice.tables):
        yield from _sequences(connection, structure, include_data)
    for table in choice.tables:
        yield statement(table.definition)
    if include_data:
        for table in choice.tables:
            yield from _rows(connection, table)
    if not choice.named:
        yield from _routines(connection, structure, "function", "procedure")
        for view in views_in_order(structure, choice):
            yield statement(view.definition)
    yield from _triggers(connection, structure, choice)
    if not choice.named:
        yield from _routines(connection, structure, "event")
    yield statement("SET SESSION foreign_key_checks = 1, unique_checks = 1, sql_mode = DEFAULT")


def _warn_of_engines(choice: Choice) -> None:
    others = sorted(t.label for t in choice.tables if t.options.get("engine", "InnoDB") != "InnoDB")
    if others:
        choice.warnings.append(
            f"not InnoDB, so not part of the consistent snapshot: {', '.join(others)} (rows as they were when read)"
        )


def _sequences(connection: sa.Connection, structure: Structure, include_data: bool) -> Iterator[Part]:
    for sequence in structure.sequences:
        name = quote(sequence.name, "mysql")
        yield statement(f"CREATE SEQUENCE {name} {sequence.definition}")
        if include_data:
            value = scalar(connection, f"SELECT next_not_cached_value FROM {name}")
            yield statement(f"DO SETVAL({name}, {int(value)}, 0)")


def _rows(connection: sa.Connection, table: Table) -> Iterator[Part]:
    from pymysql.cursors import SSCursor

    columns = table.writable
    names = tuple(column.name for column in columns)
    writers = [_writer(column) for column in columns]
    driver: Any = connection.connection.driver_connection
    usual, driver.decoders = driver.decoders, {}  # the server's own texts: no value changes on the way
    cursor = driver.cursor(SSCursor)
    try:
        wanted = ", ".join(_read(column) for column in columns)
        cursor.execute(f"SELECT {wanted} FROM {quote(table.name, 'mysql')}")
        found = (
            ["NULL" if value is None else write(value) for write, value in zip(writers, row, strict=True)]
            for batch in batches(cursor, _BATCH)
            for row in batch
        )
        head = f"INSERT INTO {quote(table.name, 'mysql')} ({column_list(names, 'mysql')}) VALUES"
        begun = False
        for part in inserts(table.label, head, found):
            if not begun:
                begun = True
                yield statement("START TRANSACTION")
            yield part
        if begun:
            yield statement("COMMIT")
        cursor.close()
    except BaseException:
        # to close the cursor, or to forget its result, would read all that is left of the table
        if cursor._result is not None:
            cursor._result.unbuffered_active = False
        cursor.connection = None
        connection.invalidate()
        raise
    finally:
        driver.decoders = usual


def _read(column: Column) -> str:
    """A float is shown with six digits unless it is made a double."""
    name = quote(column.name, "mysql")
    return f"{name} + 0e0" if column.type.kind is TypeKind.FLOAT else name


_BARE = frozenset({TypeKind.INTEGER, TypeKind.DECIMAL, TypeKind.BOOLEAN})


def _writer(column: Column) -> Callable[[Any], str]:
    if column.type.kind in _BARE:
        return str
    return _quoted


def _quoted(value: Any) -> str:
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    return text_literal(value, "mysql")


def _routines(connection: sa.Connection, structure: Structure, *kinds: str) -> Iterator[Part]:
    modes = dict(
        rows(
            connection,
            "SELECT concat(lower(routine_type), ' ', routine_name), sql_mode FROM information_schema.routines "
            "WHERE routine_schema = database() UNION ALL SELECT concat('event ', event_name), sql_mode "
            "FROM information_schema.events WHERE event_schema = database()",
        )
    )
    for routine in structure.routines:
        if routine.kind in kinds:
            yield from _with_body(routine.definition, modes.get(f"{routine.kind} {routine.name}", ""))


def _triggers(connection: sa.Connection, structure: Structure, choice: Choice) -> Iterator[Part]:
    modes = dict(
        rows(
            connection,
            "SELECT trigger_name, sql_mode FROM information_schema.triggers WHERE trigger_schema = database()",
        )
    )
    for trigger in structure.triggers:
        if trigger.table in choice.labels:
            yield from _with_body(trigger.definition, modes.get(trigger.name, ""))


def _with_body(definition: str, mode: str) -> Iterator[Part]:
    """A routine keeps the mode it was made under."""
    yield statement(f"SET SESSION sql_mode = {text_literal(mode, 'mysql')}")
    yield Part(f"DELIMITER {_DELIMITER}\n{definition}{_DELIMITER}\nDELIMITER ;\n".encode())
    yield statement(f"SET SESSION sql_mode = '{_MODE}'")
