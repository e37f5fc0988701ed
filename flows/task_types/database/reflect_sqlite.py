"""SQLite's schema as a ``Structure``: pragmas for what they say, the text of CREATE TABLE for the rest."""

from __future__ import annotations

import re
import sqlite3

import sqlalchemy as sa

from taskcenter.errors import StepFailed

from .catalog import rows, scalar
from .model import Check, Column, ColumnType, ForeignKey, Index, Key, Structure, Table, Trigger, TypeKind, View
from .quoting import quote
from .sqlite_ddl import TableText, read_table

__all__ = ["declared_type", "reflect_sqlite"]

_SIZE = re.compile(r"\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)")
# The first word that stands in the declared type decides; SQLite's own affinity rules come last.
_WORDS = (
    ("BOOL", TypeKind.BOOLEAN),
    ("TIMESTAMPTZ", TypeKind.TIMESTAMP_TZ),
    ("WITH TIME ZONE", TypeKind.TIMESTAMP_TZ),
    ("TIMESTAMP", TypeKind.TIMESTAMP),
    ("DATETIME", TypeKind.TIMESTAMP),
    ("INTERVAL", TypeKind.INTERVAL),
    ("DATE", TypeKind.DATE),
    ("TIME", TypeKind.TIME),
    ("DECIMAL", TypeKind.DECIMAL),
    ("NUMERIC", TypeKind.DECIMAL),
    ("JSON", TypeKind.JSON),
    ("UUID", TypeKind.UUID),
    ("INT", TypeKind.INTEGER),
    ("CHAR", TypeKind.TEXT),
    ("CLOB", TypeKind.TEXT),
    ("TEXT", TypeKind.TEXT),
    ("BLOB", TypeKind.BYTES),
    ("BINARY", TypeKind.BYTES),
    ("REAL", TypeKind.FLOAT),
    ("FLOA", TypeKind.FLOAT),
    ("DOUB", TypeKind.FLOAT),
)


def reflect_sqlite(connection: sa.Connection, only: tuple[str, ...] | None = None) -> Structure:
    """See :func:`flows.task_types.database.reflect.reflect`."""
    wanted = None if only is None else {name.lower().removeprefix("main.") for name in only}
    found = rows(
        connection,
        "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
        "ORDER BY type, name",
    )
    shadows = {row[0] for row in rows(connection, "SELECT name FROM pragma_table_list WHERE type = 'shadow'")}
    tables = tuple(
        _table(connection, name, sql)
        for kind, name, _, sql in found
        if kind == "table" and name not in shadows and (wanted is None or name.lower() in wanted)
    )
    path = next((row[2] for row in rows(connection, "PRAGMA database_list") if row[1] == "main"), "")
    version = str(scalar(connection, "SELECT sqlite_version()"))
    if only is not None:
        return Structure("sqlite", version, path, tables)
    return Structure(
        "sqlite",
        version,
        path,
        tables,
        views=tuple(
            View("", name, sql, _view_columns(connection, name)) for kind, name, _, sql in found if kind == "view"
        ),
        triggers=tuple(Trigger("", table, name, sql) for kind, name, table, sql in found if kind == "trigger"),
    )


def _view_columns(connection: sa.Connection, name: str) -> tuple[str, ...]:
    try:
        return tuple(row[1] for row in rows(connection, f"PRAGMA table_xinfo({quote(name, 'sqlite')})"))
    except sqlite3.OperationalError:  # a view on what is gone: its text is all there is
        return ()


def _table(connection: sa.Connection, name: str, sql: str) -> Table:
    if re.match(r"(?is)\s*create\s+virtual\s", sql):
        return Table("", name, _plain_columns(connection, name), options={"kind": "virtual"}, definition=sql)
    text = read_table(sql)
    columns, primary = _columns(connection, name, text)
    unique, indexes = _indexes(connection, name, text)
    options = {"strict": "yes" if text.strict else "", "withoutRowid": "yes" if text.without_rowid else ""}
    return Table(
        schema="",
        name=name,
        columns=columns,
        primary_key=primary,
        unique_keys=unique,
        indexes=indexes,
        foreign_keys=_foreign_keys(connection, name, text),
        checks=tuple(Check(label, expression) for label, expression in text.checks),
        options={key: value for key, value in options.items() if value},
        definition=sql,
    )


def _plain_columns(connection: sa.Connection, name: str) -> tuple[Column, ...]:
    try:
        found = rows(connection, f"PRAGMA table_xinfo({quote(name, 'sqlite')})")
    except sqlite3.OperationalError as error:
        raise StepFailed(
            f"the virtual table {name!r} cannot be read here: {error}; its extension is not loaded",
            error_type="unsupported",
        ) from None
    return tuple(Column(row[1], declared_type(row[2]), default=row[4]) for row in found if not row[6])


def _columns(connection: sa.Connection, name: str, text: TableText) -> tuple[tuple[Column, ...], Key | None]:
    keyed: list[tuple[int, str]] = []
    made: list[Column] = []
    for _, column, declared, required, default, place, hidden in rows(
        connection, f"PRAGMA table_xinfo({quote(name, 'sqlite')})"
    ):
        if hidden == 1:
            continue
        if place:
            keyed.append((place, column))
        extra = text.columns.get(column.lower())
        made.append(
            Column(
                name=column,
                type=declared_type(declared),
                nullable=not required,
                default=default,
                generated=(extra.generated if extra else None) or ("" if hidden else None),
                stored=hidden == 3,
                identity="auto_increment" if extra and extra.autoincrement else "",
                collation=extra.collation if extra else None,
            )
        )
    columns = tuple(column for _, column in sorted(keyed))
    return tuple(made), Key(text.primary_name, columns, "PRIMARY KEY") if columns else None


def declared_type(text: str) -> ColumnType:
    """What a declared type is meant to hold; SQLite itself would keep anything in it."""
    upper = text.upper()
    kind = next((kind for word, kind in _WORDS if word in upper), TypeKind.OTHER)
    match = _SIZE.search(text)
    first, second = (int(match[1]), int(match[2]) if match[2] else None) if match else (None, None)
    return ColumnType(
        sql=text,
        kind=kind,
        bits=64 if kind in (TypeKind.INTEGER, TypeKind.FLOAT) else None,
        length=first if kind in (TypeKind.TEXT, TypeKind.BYTES) else None,
        precision=first if kind is TypeKind.DECIMAL else None,
        scale=(second or 0) if kind is TypeKind.DECIMAL and first is not None else None,
    )


def _indexes(connection: sa.Connection, name: str, text: TableText) -> tuple[tuple[Key, ...], tuple[Index, ...]]:
    unique: list[Key] = []
    indexes: list[Index] = []
    definitions = dict(
        rows(
            connection,
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? COLLATE NOCASE",
            [name],
        )
    )
    for _, index, is_unique, origin, partial in rows(connection, f"PRAGMA index_list({quote(name, 'sqlite')})"):
        parts = [row for row in rows(connection, f"PRAGMA index_xinfo({quote(index, 'sqlite')})") if row[5]]
        columns = tuple(row[2] for row in parts if row[2] is not None)
        if origin == "u":
            unique.append(Key(text.unique_name(columns), columns, "UNIQUE"))
        elif origin == "c":
            sql = definitions.get(index) or ""
            inner, where = _index_text(sql)
            simple = len(columns) == len(parts) and not partial
            indexes.append(Index(index, inner, bool(is_unique), "", where, columns if simple else (), sql))
    return tuple(sorted(unique, key=lambda k: k.columns)), tuple(sorted(indexes, key=lambda i: i.name))


def _index_text(sql: str) -> tuple[tuple[str, ...], str | None]:
    """The parts between the parentheses of a CREATE INDEX, and its WHERE."""
    from .sqlite_ddl import index_parts

    return index_parts(sql)


def _foreign_keys(connection: sa.Connection, name: str, text: TableText) -> tuple[ForeignKey, ...]:
    grouped: dict[int, list[tuple[int, str, str, str | None, str, str]]] = {}
    for number, place, target, column, to_column, update, delete, _ in rows(
        connection, f"PRAGMA foreign_key_list({quote(name, 'sqlite')})"
    ):
        grouped.setdefault(number, []).append((place, target, column, to_column, update, delete))
    made = []
    for parts in grouped.values():
        parts.sort()
        columns = tuple(part[2] for part in parts)
        to_columns = tuple(part[3] for part in parts if part[3] is not None)
        if not to_columns:  # REFERENCES other: its primary key is meant
            found = rows(connection, f"PRAGMA table_info({quote(parts[0][1], 'sqlite')})")
            to_columns = tuple(row[1] for row in sorted((r for r in found if r[5]), key=lambda r: int(r[5])))
        label, deferrable = text.foreign_key(columns, parts[0][1])
        made.append(ForeignKey(label, columns, "", parts[0][1], to_columns, parts[0][4], parts[0][5], deferrable))
    return tuple(sorted(made, key=lambda k: (k.name, k.columns, k.to_table)))
