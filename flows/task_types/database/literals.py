"""Python values as SQL literals of each engine, such that the engine reads back the same value.

For scripts that people and servers read later; statements that run at once bind their values instead.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from taskcenter.errors import StepFailed

from .values import clock_text, interval_text, utc_wall_clock

__all__ = ["literal", "text_literal"]

_MYSQL_ESCAPES = str.maketrans(
    {"\\": "\\\\", "'": "''", "\0": "\\0", "\n": "\\n", "\r": "\\r", "\x1a": "\\Z"},
)
_ESCAPED = re.compile(r"[\\'\0\n\r\x1a]")
_SQLITE_LARGEST = 2**63
_EXPONENT = re.compile(r"[eE]")


def literal(value: Any, dialect: str) -> str:
    """``value`` as the engine writes it; ``NULL`` for None.

    Raises StepFailed (``error_type="value"``) for what the engine cannot hold: a NUL in PostgreSQL text,
    a NaN or an infinity on MySQL, a NaN on SQLite (which would turn into NULL there).
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return ("TRUE" if value else "FALSE") if dialect == "postgresql" else ("1" if value else "0")
    if isinstance(value, str):
        return text_literal(value, dialect)
    if isinstance(value, int):
        # SQLite reads a larger whole number as a float and loses digits: text keeps them
        large = dialect == "sqlite" and not -_SQLITE_LARGEST <= value < _SQLITE_LARGEST
        return f"'{value}'" if large else str(value)
    if isinstance(value, float):
        return _float(value, dialect)
    if isinstance(value, Decimal):
        return _decimal(value, dialect)
    if isinstance(value, bytes | bytearray | memoryview):
        return _bytes(bytes(value), dialect)
    if isinstance(value, datetime):
        return f"'{_datetime(value, dialect)}'"
    if isinstance(value, date):
        return f"'{value.isoformat()}'"
    if isinstance(value, time):
        return f"'{value.isoformat()}'"
    if isinstance(value, timedelta):
        return f"'{interval_text(value) if dialect == 'postgresql' else clock_text(value)}'"
    if isinstance(value, UUID):
        return f"'{value}'"
    if isinstance(value, list | tuple) and dialect == "postgresql":
        return text_literal(_array(value), dialect)
    if isinstance(value, list | tuple | Mapping):
        return text_literal(json.dumps(value, ensure_ascii=False, default=str), dialect)
    return text_literal(str(value), dialect)


def text_literal(text: str, dialect: str) -> str:
    """A string literal; PostgreSQL's and SQLite's know no escape but the doubled quote."""
    if dialect == "mysql":
        return f"'{text.translate(_MYSQL_ESCAPES)}'" if _ESCAPED.search(text) else f"'{text}'"
    if "\0" in text:
        if dialect == "postgresql":
            raise _cannot("a text with a NUL character", dialect)
        return f"CAST(x'{text.encode('utf-8', 'surrogateescape').hex()}' AS TEXT)"
    if dialect == "sqlite" and not text.isascii() and _surrogates(text):
        return f"CAST(x'{text.encode('utf-8', 'surrogateescape').hex()}' AS TEXT)"
    return "'" + text.replace("'", "''") + "'"


def _surrogates(text: str) -> bool:
    return any("\udc80" <= char <= "\udcff" for char in text)


def _float(value: float, dialect: str) -> str:
    if math.isfinite(value):
        if dialect == "postgresql":
            return f"'{value!r}'" if _EXPONENT.search(repr(value)) or value == 0 else repr(value)
        text = repr(value)
        return text if dialect == "sqlite" or _EXPONENT.search(text) else f"{text}e0"
    if dialect == "postgresql":
        return f"'{'NaN' if math.isnan(value) else 'Infinity' if value > 0 else '-Infinity'}'"
    if dialect == "sqlite" and not math.isnan(value):
        return "9e999" if value > 0 else "-9e999"
    raise _cannot("NaN" if math.isnan(value) else "an infinite number", dialect)


def _decimal(value: Decimal, dialect: str) -> str:
    if value.is_finite():
        text = format(value, "f")
        # SQLite would read more digits than a double holds as a double: text keeps them where the column lets it
        return f"'{text}'" if dialect == "sqlite" and len(value.as_tuple().digits) > 15 else text
    if dialect == "postgresql":
        return f"'{'NaN' if value.is_nan() else 'Infinity' if value > 0 else '-Infinity'}'"
    return _float(float(value), dialect)


def _bytes(value: bytes, dialect: str) -> str:
    if dialect == "postgresql":
        return f"'\\x{value.hex()}'"
    return f"x'{value.hex()}'"


def _datetime(value: datetime, dialect: str) -> str:
    if value.tzinfo is None or dialect == "postgresql":
        return value.isoformat(sep=" ")
    return utc_wall_clock(value).isoformat(sep=" ")


def _array(value: list[Any] | tuple[Any, ...]) -> str:
    """PostgreSQL's ``{1,NULL,"a b"}``."""
    return "{" + ",".join(_element(item) for item in value) + "}"


def _element(item: Any) -> str:
    if item is None:
        return "NULL"
    if isinstance(item, list | tuple):
        return _array(item)
    if isinstance(item, bool):
        return "t" if item else "f"
    if isinstance(item, bytes | bytearray | memoryview):
        text = f"\\x{bytes(item).hex()}"
    elif isinstance(item, Mapping):
        text = json.dumps(item, ensure_ascii=False, default=str)
    elif isinstance(item, timedelta):
        text = interval_text(item)
    elif isinstance(item, float) and not math.isfinite(item):
        text = "NaN" if math.isnan(item) else "Infinity" if item > 0 else "-Infinity"
    else:
        text = str(item)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _cannot(what: str, dialect: str) -> StepFailed:
    names = {"postgresql": "PostgreSQL", "mysql": "MySQL/MariaDB", "sqlite": "SQLite"}
    return StepFailed(f"{what} cannot be written on {names.get(dialect, dialect)}", error_type="value")
