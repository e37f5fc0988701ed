"""Values on their way between engines: what a driver gives as one neutral Python value, and back.

Neutral values: None, int, Decimal, float, bool, str, bytes, date, time, datetime (naive for a wall clock, aware in UTC
for an instant), timedelta, UUID, JSON as parsed data, list for arrays.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from taskcenter.errors import StepFailed

from .model import ColumnType, TypeKind

__all__ = ["clock_text", "driver_value", "interval_text", "neutral", "reader", "utc_wall_clock"]

_CLOCK = re.compile(r"(-?)(\d+):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?$")


def neutral(value: Any, kind: ColumnType) -> Any:
    """What a driver gave for a column of this type, as a neutral value.

    A value that does not fit its column's type (SQLite allows any) stays what it is.
    """
    return None if value is None else reader(kind)(value)


def reader(kind: ColumnType) -> Callable[[Any], Any]:
    """The function that makes neutral values of one column; not to be called with None."""
    return _READERS.get(kind.kind, _same)


def _same(value: Any) -> Any:
    return bytes(value) if isinstance(value, bytearray | memoryview) else value


def _whole(value: Any) -> Any:
    if isinstance(value, int):
        return value
    try:
        return int(value) if not isinstance(value, float) or value.is_integer() else value
    except (ValueError, OverflowError):
        return value


def _decimal(value: Any) -> Any:
    if isinstance(value, Decimal):
        return value
    try:
        return Decimal(repr(value) if isinstance(value, float) else str(value))
    except InvalidOperation:
        return value


def _float(value: Any) -> Any:
    try:
        return float(value)
    except (ValueError, OverflowError):
        return value


def _boolean(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, bytes):  # MySQL's BIT(1)
        return value != b"\0"
    return bool(value) if value in (0, 1) else value


def _bits(value: Any) -> Any:
    """A text of 0 and 1, as PostgreSQL has it; MySQL's bytes become one with leading zeros."""
    return "".join(f"{byte:08b}" for byte in value) if isinstance(value, bytes) else value


def _date(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.date()
    return value if isinstance(value, date) else _parsed(value, date.fromisoformat)


def _time(value: Any) -> Any:
    if isinstance(value, timedelta):  # MySQL: a time of day where it is one
        return (datetime.min + value).time() if timedelta(0) <= value < timedelta(days=1) else value
    return value if isinstance(value, time) else _parsed(value, time.fromisoformat)


def _wall_clock(value: Any) -> Any:
    found = value if isinstance(value, datetime) else _parsed(value, datetime.fromisoformat)
    return utc_wall_clock(found) if isinstance(found, datetime) and found.tzinfo else found


def _instant(value: Any) -> Any:
    found = value if isinstance(value, datetime) else _parsed(value, datetime.fromisoformat)
    if not isinstance(found, datetime):
        return found
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _interval(value: Any) -> Any:
    match = _CLOCK.match(value) if isinstance(value, str) else None
    if match is None:
        return value
    hours, minutes, seconds = int(match[2]), int(match[3]), int(match[4] or 0)
    span = timedelta(hours=hours, minutes=minutes, seconds=seconds, microseconds=int((match[5] or "0").ljust(6, "0")))
    return -span if match[1] else span


def _json(value: Any) -> Any:
    if not isinstance(value, str | bytes):
        return value
    try:
        return json.loads(value, parse_float=Decimal)
    except ValueError:
        return value


def _uuid(value: Any) -> Any:
    if isinstance(value, UUID):
        return value
    try:
        return UUID(bytes=value) if isinstance(value, bytes) else UUID(value)
    except (ValueError, AttributeError):
        return value


def _parsed(value: Any, parse: Callable[[str], Any]) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse(value)
    except ValueError:
        return value


_READERS: dict[TypeKind, Callable[[Any], Any]] = {
    TypeKind.INTEGER: _whole,
    TypeKind.DECIMAL: _decimal,
    TypeKind.FLOAT: _float,
    TypeKind.BOOLEAN: _boolean,
    TypeKind.BITS: _bits,
    TypeKind.DATE: _date,
    TypeKind.TIME: _time,
    TypeKind.TIMESTAMP: _wall_clock,
    TypeKind.TIMESTAMP_TZ: _instant,
    TypeKind.INTERVAL: _interval,
    TypeKind.JSON: _json,
    TypeKind.UUID: _uuid,
}


def driver_value(value: Any, dialect: str, kind: TypeKind | None = None) -> Any:
    """A neutral value as the engine's driver binds it to a column of ``kind`` there.

    Raises StepFailed (``error_type="value"``) for what the engine cannot hold.
    """
    if value is None or isinstance(value, bytes):
        return value
    if kind is TypeKind.JSON and dialect == "postgresql":
        return _json_text(value)
    if isinstance(value, str):
        if dialect == "postgresql" and "\0" in value:
            raise StepFailed("a text with a NUL character cannot be written on PostgreSQL", error_type="value")
        return value
    if dialect == "postgresql":
        return list(value) if isinstance(value, tuple) else _json_text(value) if isinstance(value, dict) else value
    return _OTHERS[dialect](value) if dialect in _OTHERS else value


def _mysql(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise StepFailed("NaN and infinite numbers cannot be written on MySQL/MariaDB", error_type="value")
    if isinstance(value, Decimal) and not value.is_finite():
        raise StepFailed("NaN and infinite numbers cannot be written on MySQL/MariaDB", error_type="value")
    if isinstance(value, datetime):
        return utc_wall_clock(value)
    if isinstance(value, time):
        return value.replace(tzinfo=None)
    return _plain(value)


def _sqlite(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        raise StepFailed("NaN cannot be written on SQLite, which would make it NULL", error_type="value")
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, Decimal):
        return str(value) if not value.is_finite() else format(value, "f")
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return clock_text(value)
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, list | tuple | dict):
        return _json_text(value)
    return value


_OTHERS: dict[str, Callable[[Any], Any]] = {"mysql": _mysql, "sqlite": _sqlite}


def _json_text(value: Any) -> str:
    """JSON; decimals keep their digits."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{json.dumps(str(k), ensure_ascii=False)}: {_json_text(v)}" for k, v in value.items())
            + "}"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_json_text(item) for item in value) + "]"
    if isinstance(value, bytes):
        return json.dumps(value.hex())
    return json.dumps(value, ensure_ascii=False, default=str)


def utc_wall_clock(value: datetime) -> datetime:
    """An instant as what a clock in UTC shows, without zone."""
    return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)


def clock_text(value: timedelta) -> str:
    """``-838:59:59.000001``: hours may go above 24."""
    whole = abs(value) // timedelta(microseconds=1)
    seconds, micros = divmod(whole, 1_000_000)
    sign = "-" if value < timedelta(0) else ""
    text = f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{micros:06}" if micros else text


def interval_text(value: timedelta) -> str:
    """What PostgreSQL reads as the same interval: days kept apart, the rest as a clock."""
    days, rest = value.days, value - timedelta(days=value.days)
    return f"{days} days {clock_text(rest)}"
