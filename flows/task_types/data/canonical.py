"""Values as texts that are the same when the values are, whichever engine holds them.

Numbers without trailing zeros, floats in their shortest form, times without trailing zeros in the fraction,
instants as UTC's wall clock, JSON with sorted keys, padded texts without their padding, bytes in hexadecimal digits.
What an engine can do itself it does in SQL; the rest (JSON between different engines, very large and small floats,
all of SQLite) is done here.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

from ..database.model import Column, ColumnType, TypeKind
from ..database.quoting import quote
from .lines import NULL, escape_as_copy, fields
from .pg_copy import copy_out
from .side import Side
from .sources import Chunk, Reading, tuples

__all__ = [
    "Canon",
    "Form",
    "canonical_chunks",
    "canons",
    "float_text",
    "form_of",
    "line_hash",
    "mysql_line",
    "postgresql_text",
]


class Form(StrEnum):
    """How two columns are compared."""

    INTEGER = "integer"
    DECIMAL = "decimal"
    FLOAT = "float"
    TEXT = "text"
    UUID = "uuid"
    BYTES = "bytes"
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    JSON = "json"


_NUMBERS = {TypeKind.INTEGER, TypeKind.DECIMAL, TypeKind.FLOAT, TypeKind.BOOLEAN}
_INSTANTS = {TypeKind.TIMESTAMP, TypeKind.TIMESTAMP_TZ}


def form_of(left: ColumnType, right: ColumnType) -> Form:
    """The form in which values of both types can be told apart or found equal."""
    kinds = {left.kind, right.kind}
    if kinds <= _NUMBERS:
        if TypeKind.FLOAT in kinds:
            return Form.FLOAT
        return Form.DECIMAL if TypeKind.DECIMAL in kinds else Form.INTEGER
    if kinds & {TypeKind.JSON, TypeKind.ARRAY}:
        return Form.JSON
    if kinds <= {TypeKind.BYTES}:
        return Form.BYTES
    if TypeKind.UUID in kinds:
        return Form.UUID
    if kinds & _INSTANTS:
        return Form.TIMESTAMP
    if TypeKind.DATE in kinds:
        return Form.DATE
    if TypeKind.TIME in kinds:
        return Form.TIME
    # a column that says nothing of its values (SQLite's) follows the other one
    known = kinds - {TypeKind.OTHER}
    if len(kinds) == 2 and len(known) == 1 and "" in (left.sql, right.sql):
        kind = left if left.kind in known else right
        return form_of(kind, kind)
    return Form.TEXT


@dataclass(frozen=True, slots=True)
class Canon:
    """One column of one side in the form that both sides share. ``padded``: trailing blanks do not count."""

    column: Column
    form: Form
    padded: bool = False
    in_python: bool = False
    """The engine's text is not yet the canonical one."""


def canons(pairs: Sequence[tuple[Column, Column]], left: str, right: str) -> tuple[list[Canon], list[Canon]]:
    """Both sides' columns in their shared forms. ``left`` and ``right`` are the engines."""
    lefts, rights = [], []
    for a, b in pairs:
        form = form_of(a.type, b.type)
        padded = form is Form.TEXT and (a.type.fixed or b.type.fixed)
        loose = form in (Form.FLOAT, Form.JSON) and (left != right or a.type.kind is not b.type.kind)
        loose = loose or (form is Form.JSON and left == "mysql")
        lefts.append(Canon(a, form, padded, loose))
        rights.append(Canon(b, form, padded, loose))
    return lefts, rights


def canonical_chunks(side: Side, reading: Reading, columns: Sequence[Canon]) -> Iterator[Chunk]:
    """The rows as lines of canonical texts, in the order that ``reading`` asks for."""
    if side.dialect == "postgresql":
        expressions = ", ".join(postgresql_text(c) for c in columns)
        found: Iterator[bytes | bytearray] = copy_out(
            side.driver, f"COPY ({reading.sql(expressions, 'postgresql')}) TO STDOUT"
        )
    elif side.dialect == "mysql":
        found = _joined(tuples(side, reading.sql(mysql_line(columns), "mysql")))
    else:
        yield from _sqlite(side, reading, columns)
        return
    loose = [(index, _text_normaliser(c)) for index, c in enumerate(columns) if c.in_python]
    marked_only = all(c.form is Form.FLOAT for c in columns if c.in_python)
    for data in found:
        needed = loose and (not marked_only or _MARK in data)
        yield (_normalised(data, loose) if needed else data), data.count(b"\n")


def _joined(batches: Iterator[list[tuple[Any, ...]]]) -> Iterator[bytes | bytearray]:
    for rows in batches:
        yield b"\n".join([line for (line,) in rows] + [b""])


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


def mysql_line(columns: Sequence[Canon]) -> str:
    """One expression that makes a whole canonical line on the server."""
    slash = chr(92)
    parts = []
    for canon in columns:
        text = _mysql_text(canon)
        if canon.form in (Form.TEXT, Form.UUID, Form.JSON) and canon.column.type.kind not in _NUMBERS:
            text = f"CONVERT({text} USING utf8mb4)"
            for plain, letter in ((slash * 2, slash * 4), ("\\t", "\\\\t"), ("\\n", "\\\\n"), ("\\r", "\\\\r")):
                text = f"REPLACE({text}, '{plain}', '{letter}')"
            # as PostgreSQL's COPY writes them
            text = f"REPLACE(REPLACE(REPLACE({text}, CHAR(8), '\\\\b'), CHAR(12), '\\\\f'), CHAR(11), '\\\\v')"
        parts.append(f"IFNULL({text}, '{slash * 2}N')")
    return f"CAST(CONCAT_WS('\\t', {', '.join(parts)}) AS BINARY)"


def _mysql_text(canon: Canon) -> str:
    name, kind = quote(canon.column.name, "mysql"), canon.column.type
    match canon.form:
        case Form.INTEGER:
            return f"({name} + 0)" if kind.kind is TypeKind.BITS else name
        case Form.DECIMAL:
            if kind.kind is TypeKind.DECIMAL and not kind.scale:
                return name
            return _untailed(name) if kind.kind is TypeKind.DECIMAL else name
        case Form.FLOAT:
            text = f"({name} + 0e0)"
            if not canon.in_python:
                return text
            # marked where MySQL may choose another notation than PostgreSQL
            return (
                f"IF({text} = 0, '0', IF(ABS({text}) >= 1e-4 AND ABS({text}) < 1e14, {text}, CONCAT(CHAR(1), {text})))"
            )
        case Form.BYTES:
            return f"LOWER(HEX({name}))"
        case Form.TIMESTAMP if kind.kind is TypeKind.DATE:
            return f"CONCAT({name}, ' 00:00:00')"
        case Form.TIMESTAMP | Form.TIME:
            return _untailed(name) if kind.precision or kind.precision is None else name
        case Form.DATE:
            return name
        case Form.UUID:
            return f"LOWER({name})"
    if kind.kind is TypeKind.BITS:
        return f"LPAD(BIN({name} + 0), {kind.length or 1}, '0')"
    if kind.kind is TypeKind.BYTES:
        return f"LOWER(HEX({name}))"
    return f"TRIM(TRAILING ' ' FROM {name})" if canon.padded else name


def _untailed(name: str) -> str:
    return f"IF(LOCATE('.', {name}) > 0, TRIM(TRAILING '.' FROM TRIM(TRAILING '0' FROM {name})), {name})"


_MARK = b"\x01"


def _text_normaliser(canon: Canon) -> Callable[[str], str]:
    """What makes an engine's text canonical."""
    return _marked_float if canon.form is Form.FLOAT else _json_text


def _marked_float(text: str) -> str:
    return _float_text(text[1:]) if text.startswith("\x01") else text


def _float_text(text: str) -> str:
    try:
        return float_text(float(text))
    except ValueError:
        return text


def float_text(value: float) -> str:
    """The shortest digits that read back as the same float."""
    text = repr(value)
    if text[-2:] == ".0" and -1e15 < value < 1e15:
        return text[:-2] if value else "0"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return text


def _json_text(text: str) -> str:
    try:
        found = json.loads(text, parse_float=_number, parse_int=_number, parse_constant=str)
    except (ValueError, RecursionError):
        return text
    return json.dumps(found, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _number(text: str) -> Any:
    """1.0 and 1 are the same number."""
    number = Decimal(text)
    if number == number.to_integral_value() and number.adjusted() < 300:
        return int(number)
    return float(number)


def _sqlite(side: Side, reading: Reading, columns: Sequence[Canon]) -> Iterator[Chunk]:
    names = ", ".join(quote(c.column.name, "sqlite") for c in columns)
    write = _sqlite_lines(columns)
    for rows in tuples(side, reading.sql(names, "sqlite")):
        yield write(rows), len(rows)


def _sqlite_lines(columns: Sequence[Canon]) -> Callable[[Sequence[tuple[Any, ...]]], bytes]:
    writers = [_value_writer(c) for c in columns]
    slow = [_escaped(w) for w in writers]
    scope: dict[str, Any] = {f"w{i}": w for i, w in enumerate(writers)}
    parts, names = [], [f"v{i}" for i in range(len(columns))]
    for index, canon in enumerate(columns):
        usual = None if canon.padded else _USUAL.get(canon.form)
        call = f"w{index}(v{index})"
        parts.append(f"{{v{index} if v{index}.__class__ is {usual} else {call}}}" if usual else f"{{{call}}}")
    source = f"lambda rows: [f'''{chr(9).join(parts)}''' for ({', '.join(names)},) in rows]"
    make: Callable[[Any], list[str]] = eval(source, scope)  # made of our own words only: no name or value is in it
    width = len(columns) - 1

    def lines(rows: Sequence[tuple[Any, ...]]) -> bytes:
        text = "\n".join(make(rows)) + "\n"
        if not _is_clean(text, rows, width):
            made = ("\t".join([write(v) for write, v in zip(slow, row, strict=True)]) for row in rows)
            text = "".join(f"{line}\n" for line in made)
        return text.encode("utf-8", "surrogateescape")

    return lines


_USUAL = {Form.INTEGER: "int", Form.TEXT: "str", Form.DATE: "str", Form.DECIMAL: "int"}
"""The forms whose text Python makes right away for the class that SQLite usually gives."""


def _is_clean(text: str, rows: Sequence[tuple[Any, ...]], width: int) -> bool:
    """Whether no value holds a character that must be escaped."""
    if text.count("\t") != width * len(rows) or text.count("\n") != len(rows):
        return False
    if "\r" in text or "\b" in text or "\f" in text or "\v" in text:
        return False
    backslashes = text.count("\\")
    return not backslashes or backslashes == sum(row.count(None) for row in rows)


def _escaped(write: Callable[[Any], str]) -> Callable[[Any], str]:
    return lambda value: NULL if value is None else escape_as_copy(write(value))


def _value_writer(canon: Canon) -> Callable[[Any], str]:
    """The canonical text, not yet escaped, of a value as SQLite holds it, in whatever storage class."""
    make = _BY_FORM.get(canon.form, str)
    padded = canon.padded
    if canon.form is Form.BYTES:
        return lambda value: (
            NULL if value is None else value.hex() if isinstance(value, bytes) else str(value).encode().hex()
        )

    def write(value: Any) -> str:
        if value is None:
            return NULL
        text = value.hex() if value.__class__ is bytes else make(value)
        return text.rstrip(" ") if padded else text

    return write


def _whole_text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _decimal_text(value: Any) -> str:
    if value.__class__ is float:
        text = repr(value)
        if "e" not in text and "n" not in text:
            return text if text[-2:] != ".0" else text[:-2] if value else "0"
    try:
        number = Decimal(repr(value) if isinstance(value, float) else str(value))
    except InvalidOperation:
        return str(value)
    if not number.is_finite():
        return str(value)
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def _clock_text(value: Any) -> str:
    text = str(value)
    if text[-6:] == "+00:00":
        text = text[:-6]
    if len(text) == 19 and text[10] == " ":
        return text
    if len(text) == 10:
        return text + " 00:00:00"
    if len(text) > 19 and (text[-1] in "zZ" or "+" in text[19:] or "-" in text[19:]):
        try:
            text = datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ")
        except ValueError:
            return text
    if len(text) >= 19 and text[10] == "T":
        text = text.replace("T", " ", 1)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _time_text(value: Any) -> str:
    text = str(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


_BY_FORM: dict[Form, Callable[[Any], str]] = {
    Form.INTEGER: _whole_text,
    Form.DECIMAL: _decimal_text,
    Form.FLOAT: lambda value: float_text(value) if value.__class__ is float else _float_text(str(value)),
    Form.UUID: lambda value: str(value).lower(),
    Form.TIMESTAMP: _clock_text,
    Form.TIME: _time_text,
    Form.JSON: lambda value: _json_text(value) if isinstance(value, str) else _json_text(str(value)),
}


def line_hash(line: bytes | bytearray) -> int:
    """64 bits of a canonical line."""
    return int.from_bytes(hashlib.md5(line, usedforsecurity=False).digest()[:8], "big")
