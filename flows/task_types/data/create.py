"""A table for rows that come from elsewhere: CREATE TABLE with types that hold the same values on another engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..database.model import Column, ColumnType, TypeKind
from ..database.quoting import column_list, quote
from .texts import Field

__all__ = ["create_table", "mapped", "widened"]

_KEY_CHARACTERS = 768
"""How many characters of four bytes fit into one key of InnoDB."""


def create_table(
    table: str, fields: Sequence[Field], key: Sequence[str], source: str, target: str, *, text_collation: str = ""
) -> str:
    """CREATE TABLE ``table`` (quoted) on the engine ``target`` for rows of ``source``; ``key`` are target columns.

    Columns, NOT NULL and the primary key; defaults, further keys and indexes are the schema's business.
    """
    key_texts = sum(1 for f in fields if f.target.name in key and f.source.type.kind in _LONG)
    parts = []
    for field in fields:
        in_key = field.target.name in key
        kind = mapped(field.target.type, source, target, in_key=key_texts if in_key else 0)
        collation = f" {text_collation}" if text_collation and _is_text(kind) else ""
        required = " NOT NULL" if in_key or not field.target.nullable else ""
        parts.append(f"{quote(field.target.name, target)} {kind}{collation}{required}")
    if key:
        parts.append(f"PRIMARY KEY ({column_list(list(key), target)})")
    end = " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4" if target == "mysql" else ""
    return f"CREATE TABLE {table} (\n  " + ",\n  ".join(parts) + f"\n){end}"


def _is_text(kind: str) -> bool:
    return kind.startswith(("VARCHAR", "LONGTEXT", "CHAR"))


_LONG = {TypeKind.TEXT, TypeKind.BYTES, TypeKind.ENUM, TypeKind.SET, TypeKind.OTHER, TypeKind.INTERVAL}


def mapped(kind: ColumnType, source: str, target: str, *, in_key: int = 0) -> str:
    """The type on ``target`` that holds what ``kind`` holds on ``source``. ``in_key``: how many texts share its key."""
    own = kind.kind not in (TypeKind.ENUM, TypeKind.OTHER) or source != "postgresql"
    if source == target and own and (kind.sql or source == "sqlite"):
        return kind.sql  # on SQLite a column without a type takes each value as it is
    return _TARGETS[target](kind, source, in_key)


def widened(column: Column, source: str) -> ColumnType:
    """What a value of a column may be: SQLite does not hold its columns to their sizes."""
    if source != "sqlite":
        return column.type
    kind = column.type
    return ColumnType(kind.sql, kind.kind, bits=64 if kind.kind is TypeKind.INTEGER else kind.bits)


def _postgresql(kind: ColumnType, source: str, in_key: int) -> str:
    match kind.kind:
        case TypeKind.INTEGER:
            bits = (kind.bits or 64) + (1 if kind.unsigned else 0)
            return "smallint" if bits <= 16 else "integer" if bits <= 32 else "bigint" if bits <= 64 else "numeric(20)"
        case TypeKind.DECIMAL:
            return f"numeric({kind.precision},{kind.scale or 0})" if kind.precision else "numeric"
        case TypeKind.FLOAT:
            return "real" if kind.bits == 32 else "double precision"
        case TypeKind.TEXT:
            return f"varchar({kind.length})" if kind.length and kind.length <= 10_485_760 else "text"
        case TypeKind.BITS:
            return f"bit({kind.length})" if kind.length else "varbit"
        case TypeKind.OTHER if source == "postgresql" and kind.sql:
            return kind.sql
    names = {
        TypeKind.BOOLEAN: "boolean",
        TypeKind.BYTES: "bytea",
        TypeKind.DATE: "date",
        TypeKind.TIME: "time",
        TypeKind.TIMESTAMP: "timestamp",
        TypeKind.TIMESTAMP_TZ: "timestamptz",
        TypeKind.INTERVAL: "interval",
        TypeKind.JSON: "jsonb",
        TypeKind.UUID: "uuid",
        TypeKind.ARRAY: "jsonb",
    }
    return names.get(kind.kind, "text")


def _mysql(kind: ColumnType, source: str, in_key: int) -> str:
    size = _KEY_CHARACTERS // in_key if in_key else 0
    match kind.kind:
        case TypeKind.INTEGER:
            bits = kind.bits or 64
            name = "SMALLINT" if bits <= 16 else "INT" if bits <= 32 else "BIGINT"
            return f"{name} UNSIGNED" if kind.unsigned else name
        case TypeKind.DECIMAL:
            if kind.precision and kind.precision <= 65 and 0 <= (kind.scale or 0) <= 30:
                return f"DECIMAL({kind.precision},{kind.scale or 0})"
            return "DECIMAL(65,30)"
        case TypeKind.FLOAT:
            return "FLOAT" if kind.bits == 32 else "DOUBLE"
        case TypeKind.TEXT:
            short = kind.length if kind.length and kind.length <= 255 else 0
            return f"VARCHAR({min(short or size, size or short)})" if short or size else "LONGTEXT"
        case TypeKind.BYTES:
            return f"VARBINARY({size})" if size else "LONGBLOB"
        case TypeKind.BITS if kind.length and kind.length <= 64 and (kind.fixed or source != "postgresql"):
            return f"BIT({kind.length})"  # one of varying length would lose its leading zeros
    names = {
        TypeKind.BOOLEAN: "BOOLEAN",
        TypeKind.DATE: "DATE",
        TypeKind.TIME: "TIME(6)",
        TypeKind.TIMESTAMP: "DATETIME(6)",
        TypeKind.TIMESTAMP_TZ: "DATETIME(6)",  # TIMESTAMP ends in 2038
        TypeKind.INTERVAL: "VARCHAR(100)",
        TypeKind.JSON: "JSON",
        TypeKind.UUID: "CHAR(36)",
        TypeKind.ARRAY: "JSON",
    }
    return names.get(kind.kind) or (f"VARCHAR({size})" if size else "LONGTEXT")


def _sqlite(kind: ColumnType, source: str, in_key: int) -> str:
    """Declared types whose affinity keeps the values: one with TEXT in it keeps digits that a float would lose."""
    match kind.kind:
        case TypeKind.INTEGER:
            return "DECIMAL_TEXT(20,0)" if kind.unsigned and (kind.bits or 64) == 64 else "INTEGER"
        case TypeKind.DECIMAL:
            size = f"({kind.precision},{kind.scale or 0})" if kind.precision else ""
            return f"DECIMAL{size}" if kind.precision and kind.precision <= 15 else f"DECIMAL_TEXT{size}"
        case TypeKind.TEXT:
            return f"VARCHAR({kind.length})" if kind.length else "TEXT"
    names = {
        TypeKind.FLOAT: "REAL",
        TypeKind.BOOLEAN: "BOOLEAN",
        TypeKind.BYTES: "BLOB",
        TypeKind.DATE: "DATE_TEXT",
        TypeKind.TIME: "TIME_TEXT",
        TypeKind.TIMESTAMP: "TIMESTAMP_TEXT",
        TypeKind.TIMESTAMP_TZ: "TIMESTAMPTZ_TEXT",
        TypeKind.JSON: "JSON_TEXT",
        TypeKind.UUID: "UUID_TEXT",
        TypeKind.ARRAY: "JSON_TEXT",
    }
    return names.get(kind.kind, "TEXT")


_TARGETS: dict[str, Callable[[ColumnType, str, int], str]] = {
    "postgresql": _postgresql,
    "mysql": _mysql,
    "sqlite": _sqlite,
}
