"""The neutral text of a value on its way between engines, and how each engine writes and reads it.

Numbers in digits, booleans 1 and 0, dates and times as in ISO 8601 with a space, instants as the clock in UTC shows
them, bytes as lower-case hexadecimal, arrays as JSON, bit strings as 0 and 1, all else as the engine itself writes it.
Between two databases of the same engine the engine's own text is used wherever it reads that back.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from taskcenter.errors import StepFailed

from ..database.model import Column, TypeKind
from ..database.quoting import quote
from .lines import NULL, escape
from .mysql_rows import HEX_PREFIX, line_of

__all__ = ["SPATIAL", "Field", "from_sqlite", "line_of_mysql", "load_clauses", "select_list", "to_sqlite"]

_CLOCKS = (TypeKind.TIMESTAMP, TypeKind.TIMESTAMP_TZ)
SPATIAL = re.compile(r"^(geometry|point|linestring|polygon|multi\w+|geometrycollection)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Field:
    """One column of the source and where it goes. ``cast`` is a type of the source's engine, or empty."""

    source: Column
    target: Column
    cast: str = ""

    @property
    def is_hex(self) -> bool:
        """Whether it travels as hexadecimal digits."""
        return TypeKind.BYTES in (self.source.type.kind, self.target.type.kind)

    def name(self, dialect: str) -> str:
        """The source column as the source's SQL writes it, with its cast."""
        name = quote(self.source.name, dialect)
        return f"CAST({name} AS {self.cast})" if self.cast else name


def _prefix(field: Field, sink: str) -> str:
    """What stands before hexadecimal digits so that the sink reads bytes."""
    return "\\x" if sink == "postgresql" and field.target.type.kind is TypeKind.BYTES else ""


def select_list(fields: Sequence[Field], dialect: str, sink: str) -> str:
    """The expressions of a SELECT on PostgreSQL that give the neutral texts for a ``sink`` (engine or file type), or on
    SQLite, whose values ``from_sqlite`` writes."""
    return ", ".join(_postgresql(f, sink) if dialect == "postgresql" else f.name(dialect) for f in fields)


def _postgresql(field: Field, sink: str) -> str:
    name, kind = field.name("postgresql"), field.source.type.kind
    to = field.target.type.kind
    if sink == "postgresql" and (kind is to or to is not TypeKind.BYTES):
        return name
    if field.cast and to is not TypeKind.BYTES:
        return f"{name}::text"  # it is no longer what its column's type says
    if field.is_hex:
        made = name if kind is TypeKind.BYTES else f"convert_to({name}::text, 'UTF8')"
        return f"'{_prefix(field, sink)}' || encode({made}, 'hex')"
    if kind is TypeKind.BOOLEAN:
        return f"{name}::text" if sink == "csv" else f"{name}::int"
    if kind is TypeKind.BITS and to in (TypeKind.INTEGER, TypeKind.BOOLEAN):
        return f"{name}::bit(64)::bigint"
    if kind is TypeKind.TIMESTAMP_TZ and sink != "csv":
        return f"({name} AT TIME ZONE 'UTC')"
    if kind is TypeKind.ARRAY and sink != "sql:postgresql":
        return f"to_json({name})"
    if kind is TypeKind.FLOAT and field.source.type.bits == 32 and sink != "csv":
        return f"{name}::float8"  # 0.1 as a float4 is another number than 0.1 as a float8: all its digits travel
    if kind in (TypeKind.OTHER, TypeKind.TEXT) and (field.source.type.fixed or kind is TypeKind.OTHER):
        return f"{name}::text"
    return name


def _mysql(field: Field) -> str:
    name, source = field.name("mysql"), field.source.type
    kind = source.kind
    if kind is TypeKind.OTHER and SPATIAL.match(source.sql):
        name = f"ST_AsText({name})"
    if field.is_hex:
        return f"LOWER(HEX({name}))"
    if kind is TypeKind.FLOAT:
        return f"({name} + 0e0)"  # a FLOAT shows six digits only; as a double it shows them all
    if kind is TypeKind.BITS:
        if field.target.type.kind in (TypeKind.INTEGER, TypeKind.BOOLEAN):
            return f"({name} + 0)"
        return f"LPAD(BIN({name} + 0), {source.length or 1}, '0')"
    return name


_BARE = {
    TypeKind.INTEGER,
    TypeKind.DECIMAL,
    TypeKind.FLOAT,
    TypeKind.BOOLEAN,
    TypeKind.DATE,
    TypeKind.TIME,
    TypeKind.TIMESTAMP,
    TypeKind.TIMESTAMP_TZ,
    TypeKind.BITS,
}
"""Kinds whose text holds nothing to escape."""


def line_of_mysql(fields: Sequence[Field], sink: str) -> str:
    """One expression that makes a whole row on the server, for ``mysql_chunks``."""
    parts = []
    for field in fields:
        made = _mysql(field)
        if field.is_hex:
            made = f"CONCAT({HEX_PREFIX}, {made})" if _prefix(field, sink) else made
        elif field.source.type.kind not in _BARE or field.cast:
            made = f"CAST(CONVERT({made} USING utf8mb4) AS BINARY)"
        parts.append(made)
    return line_of(parts)


def load_clauses(fields: Sequence[Field]) -> str:
    """``(a, @c1) SET b = UNHEX(@c1)``: how LOAD DATA puts the neutral texts into the columns."""
    names: list[str] = []
    sets: list[str] = []
    for index, field in enumerate(fields):
        target, name = field.target.type, quote(field.target.name, "mysql")
        variable = f"@c{index}"
        if target.kind is TypeKind.BYTES:
            sets.append(f"{name} = UNHEX({variable})")
        elif target.kind is TypeKind.BITS:
            sets.append(f"{name} = CAST(CONV({variable}, 2, 10) AS UNSIGNED)")
        elif target.kind is TypeKind.OTHER and SPATIAL.match(target.sql):
            sets.append(f"{name} = ST_GeomFromText({variable})")
        else:
            variable = name
        names.append(variable)
    return f"({', '.join(names)})" + (f" SET {', '.join(sets)}" if sets else "")


Batch = Sequence[tuple[Any, ...]]


def from_sqlite(fields: Sequence[Field], sink: str) -> Callable[[Batch], bytes]:
    """A function that makes lines of rows as SQLite's driver gives them, with whatever types the values have."""
    odd = [_odd_value(field, sink) for field in fields]
    quick, names = [], [f"v{i}" for i in range(len(fields))]
    scope: dict[str, Any] = {f"odd{i}": function for i, function in enumerate(odd)}
    for index, field in enumerate(fields):
        kind = field.target.type.kind
        zoned = kind is TypeKind.TIMESTAMP_TZ and sink == "postgresql"  # which reads any zone itself
        if field.is_hex or (kind in _CLOCKS and not zoned):
            quick.append(f"{{odd{index}(v{index})}}")
        else:
            usual = " or ".join(f"v{index}.__class__ is {name}" for name in _USUAL.get(kind, ("str",)))
            quick.append(f"{{v{index} if {usual} else odd{index}(v{index})}}")
    body = "\t".join(quick)
    source = f"lambda rows: [f'''{body}''' for ({', '.join(names)},) in rows]"
    make: Callable[[Batch], list[str]] = eval(source, scope)  # made of our own words only: no name or value is in it
    width = len(fields) - 1
    prefixed = [index for index, field in enumerate(fields) if field.is_hex and _prefix(field, sink)]
    for index in prefixed:
        scope[f"odd{index}"] = _doubled(odd[index])
    slow = [_escaped(function) for function in odd]

    def lines(rows: Batch) -> bytes:
        text = "\n".join(make(rows)) + "\n"
        if _is_clean(text, rows, width, prefixed):
            return text.encode("utf-8", "surrogateescape")
        made = ("\t".join([write(value) for write, value in zip(slow, row, strict=True)]) for row in rows)
        return "".join(f"{line}\n" for line in made).encode("utf-8", "surrogateescape")

    return lines


def _is_clean(text: str, rows: Batch, width: int, prefixed: Sequence[int]) -> bool:
    """Whether no value holds a character that must be escaped: then separators and our own signs are all there is."""
    if "\r" in text or text.count("\t") != width * len(rows) or text.count("\n") != len(rows):
        return False
    backslashes = text.count("\\")
    if not backslashes:
        return True
    bytes_there = sum(row[index] is not None for index in prefixed for row in rows)
    return backslashes == list(chain.from_iterable(rows)).count(None) + 2 * bytes_there  # a count per row takes long


def _doubled(write: Callable[[Any], str]) -> Callable[[Any], str]:
    def doubled(value: Any) -> str:
        return NULL if value is None else "\\" + write(value)

    return doubled


_USUAL = {
    TypeKind.INTEGER: ("int",),
    TypeKind.BOOLEAN: ("int",),
    TypeKind.FLOAT: ("float", "int"),
    TypeKind.DECIMAL: ("int", "float"),
}
"""What SQLite usually holds for a kind, and Python formats right away."""


def _escaped(write: Callable[[Any], str]) -> Callable[[Any], str]:
    def escaped(value: Any) -> str:
        return NULL if value is None else escape(write(value))

    return escaped


_ENGINES = ("postgresql", "mysql")
_HOLDS_DIGITS = (TypeKind.TEXT, TypeKind.UUID, TypeKind.ENUM, TypeKind.OTHER)
"""Where the digits of bytes are not taken for a number, a day or a document: 0x861161 is not 861161."""


def _odd_value(field: Field, sink: str) -> Callable[[Any], str]:
    """The text of a value of any storage class for this target; NULL's own sign for None."""
    to, prefix = field.target.type.kind, _prefix(field, sink)
    whole = to in (TypeKind.INTEGER, TypeKind.BOOLEAN)

    def write(value: Any) -> str:
        if value is None:
            return NULL
        if field.is_hex:
            raw = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
            return prefix + raw.hex()
        if isinstance(value, float):
            if not math.isfinite(value):
                return "Infinity" if value > 0 else "-Infinity"
            return str(int(value)) if whole and value.is_integer() else repr(value)
        if isinstance(value, bytes):
            if sink in _ENGINES and to not in _HOLDS_DIGITS:
                raise StepFailed(
                    f"the column {field.source.name!r} holds bytes, and {field.target.type.sql} on the target holds "
                    "none: give the column a cast, or leave these rows out",
                    error_type="value",
                )
            return value.hex()
        if to in _CLOCKS and isinstance(value, str):
            return _wall_clock(value)
        return str(value)

    return write


def _wall_clock(text: str) -> str:
    """An instant with a zone as UTC's wall clock; anything else as it is."""
    if len(text) > 19 and (text[-1] in "zZ" or "+" in text[19:] or "-" in text[19:]):
        try:
            return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ")
        except ValueError:
            return text
    return text.replace("T", " ", 1) if len(text) >= 19 and text[10] == "T" else text


def to_sqlite(fields: Sequence[Field]) -> list[tuple[int, Callable[[str], Any]]]:
    """Which fields of a row are converted before SQLite's driver binds them; its column affinities do the rest."""
    made: list[tuple[int, Callable[[str], Any]]] = []
    for index, field in enumerate(fields):
        kind = field.target.type.kind
        if kind is TypeKind.BYTES:
            made.append((index, bytes.fromhex))
        elif kind is TypeKind.FLOAT:
            made.append((index, _float))  # SQLite's own reading of digits may miss the nearest float
        elif kind is TypeKind.TIMESTAMP_TZ:
            made.append((index, _with_zone))
        elif kind in (TypeKind.OTHER,) and field.source.type.kind in (TypeKind.INTEGER, TypeKind.BOOLEAN):
            made.append((index, int))
        elif kind in (TypeKind.OTHER,) and field.source.type.kind is TypeKind.FLOAT:
            made.append((index, _float))
    return made


def _float(text: str) -> float | str:
    """SQLite makes NULL of a float that is no number: that one stays the word for it."""
    value = float(text)
    return text if math.isnan(value) else value


def _with_zone(text: str) -> str:
    return text if text[-1:].isalpha() or "+" in text else f"{text}+00:00"
