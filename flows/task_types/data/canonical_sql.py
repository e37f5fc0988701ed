"""Canonical texts of values, made by PostgreSQL and MySQL themselves. See ``flows.task_types.data.canonical``."""

from __future__ import annotations

from collections.abc import Sequence

from ..database.model import TypeKind
from ..database.quoting import quote
from .canonical import NUMBERS, Canon, Form
from .mysql_rows import line_of
from .texts import SPATIAL

__all__ = ["mysql_line", "mysql_row", "postgresql_text"]


def postgresql_text(canon: Canon) -> str:
    """A SQL expression whose text is canonical (or nearly, for ``in_python``)."""
    name, kind = quote(canon.column.name, "postgresql"), canon.column.type.kind
    match canon.form:
        case Form.INTEGER:
            return f"{name}::int" if kind is TypeKind.BOOLEAN else name
        case Form.DECIMAL:
            return f"trim_scale({f'{name}::int' if kind is TypeKind.BOOLEAN else name}::numeric)"
        case Form.FLOAT:
            # plus zero: -0 is 0
            text = f"({f'{name}::int' if kind is TypeKind.BOOLEAN else name}::float8 + 0)"
            if not canon.in_python:
                return text
            # marked where the digits may be others than Python's
            return f"CASE WHEN abs({text}) < 1e15 THEN {text}::text ELSE chr(1) || {text}::text END"
        case Form.BYTES:
            return f"encode({name}, 'hex')"
        case Form.TIMESTAMP if kind is TypeKind.TIMESTAMP_TZ:
            return f"({name} AT TIME ZONE 'UTC')"
        case Form.TIMESTAMP if kind is TypeKind.DATE:
            return f"{name}::timestamp"
        case Form.DATE | Form.TIME | Form.TIMESTAMP:
            return name
        case Form.JSON:
            if canon.in_python:
                return f"to_json({name})" if kind is TypeKind.ARRAY else name
            return f"{name}::jsonb" if kind is TypeKind.JSON else name
        case Form.UUID:
            return f"lower({name}::text)"
    text = f"encode({name}, 'hex')" if kind is TypeKind.BYTES else f"{name}::text"
    return f"rtrim({text})" if canon.padded else text


def mysql_row(columns: Sequence[Canon]) -> str:
    """One expression that makes a row of canonical texts for ``mysql_chunks``, which is cheaper for the server."""
    return line_of([f"CAST({_in_utf8(c)} AS BINARY)" if _is_text(c) else _mysql_text(c) for c in columns])


def mysql_line(columns: Sequence[Canon]) -> str:
    """One expression that makes a whole canonical line on the server, as PostgreSQL's COPY writes it."""
    slash = chr(92)
    parts = []
    for canon in columns:
        text = _mysql_text(canon)
        if _is_text(canon):
            text = _in_utf8(canon)
            for plain, letter in ((slash * 2, slash * 4), ("\\t", "\\\\t"), ("\\n", "\\\\n"), ("\\r", "\\\\r")):
                text = f"REPLACE({text}, '{plain}', '{letter}')"
            text = f"REPLACE(REPLACE(REPLACE({text}, CHAR(8), '\\\\b'), CHAR(12), '\\\\f'), CHAR(11), '\\\\v')"
        parts.append(f"IFNULL({text}, '{slash * 2}N')")
    return f"CAST(CONCAT_WS('\\t', {', '.join(parts)}) AS BINARY)"


def _is_text(canon: Canon) -> bool:
    """Whether its text may hold characters that must be escaped."""
    return canon.form in (Form.TEXT, Form.UUID, Form.JSON) and canon.column.type.kind not in NUMBERS


def _in_utf8(canon: Canon) -> str:
    return f"CONVERT({_mysql_text(canon)} USING utf8mb4)"


def _mysql_text(canon: Canon) -> str:
    name, kind = quote(canon.column.name, "mysql"), canon.column.type
    match canon.form:
        case Form.INTEGER:
            return f"({name} + 0)" if kind.kind is TypeKind.BITS else name
        case Form.DECIMAL:
            if kind.kind is TypeKind.DECIMAL and not kind.scale:
                return name
            return _untailed(name, kind.scale is not None) if kind.kind is TypeKind.DECIMAL else name
        case Form.FLOAT:
            text = f"({name} + 0e0)"
            if not canon.in_python:
                return text
            # marked where MySQL may choose another notation than PostgreSQL
            shown = name if kind.sql == "double" else text
            small, odd = (
                f"ABS({shown}) >= 1e-4 AND ABS({shown}) < 1e14",
                f"IF({shown} = 0, '0', CONCAT(CHAR(1), {shown}))",
            )
            return f"IF({small}, {shown}, {odd})"
        case Form.BYTES:
            return f"LOWER(HEX({name}))"
        case Form.TIMESTAMP if kind.kind is TypeKind.DATE:
            return f"CONCAT({name}, ' 00:00:00')"
        case Form.TIMESTAMP | Form.TIME:
            return name if kind.precision == 0 else _untailed(name, kind.precision is not None)
        case Form.DATE:
            return name
        case Form.UUID:
            return f"LOWER({name})"
    if kind.kind is TypeKind.BITS:
        return f"LPAD(BIN({name} + 0), {kind.length or 1}, '0')"
    if kind.kind is TypeKind.BYTES:
        return f"LOWER(HEX({name}))"
    if kind.kind is TypeKind.OTHER and SPATIAL.match(kind.sql):
        return f"ST_AsText({name})"
    return f"TRIM(TRAILING ' ' FROM {name})" if canon.padded else name


def _untailed(name: str, has_point: bool) -> str:
    """Without zeros at the end of its fraction."""
    cut = f"TRIM(TRAILING '.' FROM TRIM(TRAILING '0' FROM {name}))"
    return cut if has_point else f"IF(LOCATE('.', {name}) > 0, {cut}, {name})"
