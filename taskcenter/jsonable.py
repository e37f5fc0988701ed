"""Turn what a task type returns into plain JSON values, or say exactly which place cannot be. (spec 1.2)

What becomes what: dates, times and aware datetimes → ISO text (a UTC datetime keeps its ``+00:00``), timedelta →
seconds, Decimal → int when it is a whole number, else its exact text (a float would lose digits), UUID and paths →
text, bytes → base64, enums → their value, dataclasses, pydantic models and named tuples → objects, tuples, sets and
other iterables of known kind → lists (sets sorted, so that the same result gives the same text).
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePath
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from .errors import Problem, ValidationFailed

__all__ = ["size_of", "to_jsonable"]

_MOST_BITS = 13_000  # Python writes no int of more than 4300 digits as text, unless told otherwise
_AS_TEXT = (UUID, PurePath, IPv4Address, IPv4Network, IPv6Address, IPv6Network)


def to_jsonable(value: Any, *, max_depth: int = 64, root: str = "result") -> Any:
    """``value`` as JSON values only. Raises ValidationFailed with the path (``result.rows[3].x``) of the first misfit.

    Refused: NaN and infinities, cycles, more than ``max_depth`` levels, keys that collide once they are text, and
    objects of an unknown kind. ``root`` is the first word of the path.
    """
    return _convert(value, root, max_depth, [])


def size_of(value: Any) -> int:
    """How many bytes ``value`` (already JSON) takes as compact UTF-8 JSON text.

    A lone surrogate, which UTF-8 cannot hold, counts as the three bytes it would take.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode("utf-8", "surrogatepass"))


def _refuse(code: str, path: str, sentence: str) -> ValidationFailed:
    return ValidationFailed("the returned data", [Problem(code, path, sentence)])


def _convert(value: Any, path: str, depth: int, open_ids: list[int]) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    plain = _scalar(value, path)
    if plain is not _NOT_SCALAR:
        return plain
    if depth <= 0:
        raise _refuse("too_deep", path, "is nested too deeply to be stored")
    if id(value) in open_ids:
        raise _refuse("cycle", path, "contains itself, which JSON cannot say")
    open_ids.append(id(value))
    try:
        return _container(value, path, lambda item, at: _convert(item, at, depth - 1, open_ids))
    finally:
        open_ids.pop()


_NOT_SCALAR = object()


def _scalar(value: Any, path: str) -> Any:
    if isinstance(value, Enum):
        return _convert(value.value, path, 1, [])
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        if value.bit_length() > _MOST_BITS:
            raise _refuse("too_large", path, "is a number of more than 4000 digits")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refuse("not_finite", path, f"is {value}, which JSON has no number for")
        return float(value)
    if isinstance(value, Decimal):
        return _decimal(value, path)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(bytes(value)).decode("ascii")
    return str(value) if isinstance(value, _AS_TEXT) else _NOT_SCALAR


def _decimal(value: Decimal, path: str) -> int | str:
    if not value.is_finite():
        raise _refuse("not_finite", path, f"is {value}, which JSON has no number for")
    # 1E+1000000 is whole too, but would become a million digits: such a number keeps its own text.
    if value.adjusted() < 30 and value == value.to_integral_value():
        return int(value)
    return str(value)


def _container(value: Any, path: str, convert: Callable[[Any, str], Any]) -> Any:
    if isinstance(value, BaseModel):
        # Declared and extra fields, read without pydantic's own JSON rules, so that one set of rules holds everywhere.
        return _mapping({**value.__dict__, **(value.__pydantic_extra__ or {})}, path, convert)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _mapping({f.name: getattr(value, f.name) for f in dataclasses.fields(value)}, path, convert)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _mapping(value._asdict(), path, convert)
    if isinstance(value, Mapping):
        return _mapping(value, path, convert)
    if isinstance(value, (list, tuple)):
        return [convert(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, AbstractSet):
        items = [convert(item, f"{path}{{}}") for item in value]
        return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))
    raise _refuse("not_json", path, f"is a {type(value).__module__}.{type(value).__qualname__}, which has no JSON form")


def _mapping(value: Mapping[Any, Any], path: str, convert: Callable[[Any, str], Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, item in value.items():
        name = _key(key)
        at = f"{path}.{name}" if name.isidentifier() else f"{path}[{json.dumps(name)}]"
        if name in result:
            raise _refuse("same_key", at, "stands twice once its keys are text")
        result[name] = convert(item, at)
    return result


def _key(key: Any) -> str:
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, (datetime, date, time)):
        return key.isoformat()
    return str(key)
