"""What a source gives and a target takes: columns in neutral words, for a table, a view or a query."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from taskcenter.errors import StepFailed

from ..database.model import Column, ColumnType, Table, TypeKind
from ..database.reflect import reflect
from .side import Side
from .sources import Reading

__all__ = ["describe", "find_table", "query_columns", "unknown_table"]


def find_table(side: Side, name: str) -> Table | None:
    """The table ``name`` or ``schema.name``; None when there is none."""
    return reflect(side.opened, tables=[name]).find_table(name)


def unknown_table(side: Side, name: str, role: str) -> StepFailed:
    """The error for a table that is not there, with those that are."""
    names = sorted(table.label for table in reflect(side.opened).tables)
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return StepFailed(
        f"there is no {role} table {name!r} on {side.connection.name} ({side.connection.describe()}); "
        f"it has {shown or 'no tables'}",
        error_type="missing_table",
    )


def describe(side: Side, reading: Reading) -> list[Column]:
    """The columns of a query, or of a view or foreign table that reflection does not list."""
    return query_columns(side, reading.sql("*", side.dialect))


def query_columns(side: Side, sql: str) -> list[Column]:
    """The columns that a SELECT gives. Nothing is read."""
    dialect = side.dialect
    with closing(side.driver.cursor()) as cursor:
        limited = f"SELECT * FROM (\n{sql}\n) AS described LIMIT 0"
        cursor.execute(limited)
        names = [str(column[0]) for column in cursor.description]
        if len({name.lower() for name in names}) < len(names):
            raise StepFailed(
                "two columns of the query have the same name: give one of them another with AS", error_type="columns"
            )
        if dialect == "postgresql":
            from ..database.reflect_postgresql import result_types

            result = cursor.pgresult
            found = [(result.ftype(i), result.fmod(i)) for i in range(len(names))]
            types = result_types(side.opened, found)
        elif dialect == "mysql":
            types = [_mysql_type(field) for field in cursor._result.fields]
        else:
            types = [ColumnType("", TypeKind.OTHER) for _ in names]
    return [Column(name, kind) for name, kind in zip(names, types, strict=True)]


_MYSQL: dict[int, tuple[TypeKind, int | None]] = {
    **dict.fromkeys((0, 246), (TypeKind.DECIMAL, None)),
    1: (TypeKind.INTEGER, 8),
    2: (TypeKind.INTEGER, 16),
    3: (TypeKind.INTEGER, 32),
    8: (TypeKind.INTEGER, 64),
    9: (TypeKind.INTEGER, 24),
    13: (TypeKind.INTEGER, 16),
    4: (TypeKind.FLOAT, 32),
    5: (TypeKind.FLOAT, 64),
    7: (TypeKind.TIMESTAMP_TZ, None),
    10: (TypeKind.DATE, None),
    11: (TypeKind.TIME, None),
    12: (TypeKind.TIMESTAMP, None),
    16: (TypeKind.BITS, None),
    245: (TypeKind.JSON, None),
    255: (TypeKind.OTHER, None),
}
_UNSIGNED = 32
_BINARY = 63


def _mysql_type(field: Any) -> ColumnType:
    """From the column definition of the protocol."""
    kind, bits = _MYSQL.get(field.type_code, (TypeKind.TEXT, None))
    unsigned = bool(field.flags & _UNSIGNED)
    if kind is TypeKind.DECIMAL:
        scale = field.scale
        precision = field.length - (1 if scale else 0) - (0 if unsigned else 1)
        return ColumnType(f"decimal({precision},{scale})", kind, precision=precision, scale=scale)
    if kind is TypeKind.BITS:
        return ColumnType(f"bit({field.length})", kind, length=field.length)
    if kind is TypeKind.TEXT and field.charsetnr == _BINARY:
        return ColumnType("longblob", TypeKind.BYTES)
    names = {1: "tinyint", 2: "smallint", 3: "int", 8: "bigint", 9: "mediumint", 13: "year", 4: "float", 5: "double"}
    fraction = {7: "timestamp(6)", 10: "date", 11: "time(6)", 12: "datetime(6)", 245: "json", 255: "geometry"}
    sql = names.get(field.type_code) or fraction.get(field.type_code) or "longtext"
    return ColumnType(f"{sql} unsigned" if unsigned and kind is TypeKind.INTEGER else sql, kind, bits, unsigned)
