"""What a JSON body may be, looked at before any route sees it: UTF-8, finite, storable, of a sane shape. (spec 7.4)"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from taskcenter.errors import Problem, TaskCenterError

__all__ = ["MAX_DEPTH", "MAX_VALUES", "BadJson", "check_json"]

MAX_DEPTH = 100
"""Levels of nesting; a composite inside an import needs about ten beside its payloads' 64."""
MAX_VALUES = 250_000
"""Values in one body; a composite of 10,000 steps has about half as many."""
_MOST = 2**63 - 1
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class BadJson(TaskCenterError):
    """The body is not JSON that can be taken"""

    status = 400
    code = "not_json"

    def __init__(self, message: str, path: str = "", code: str = "not_json") -> None:
        super().__init__(message)
        self.problems = (Problem(code, path, message),)


def check_json(raw: bytes) -> None:
    """Raises BadJson, with a path where one value is to blame. The value itself is read again by the route."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadJson(f"the body is not UTF-8 text: byte {error.start} cannot stand there") from None
    try:
        value = json.loads(text, parse_constant=_constant, parse_float=_float, object_pairs_hook=_object)
    except RecursionError:
        raise BadJson(f"the body is nested deeper than {MAX_DEPTH} levels", code="too_deep") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise BadJson(f"the body is not JSON: {error.msg} at {where}") from None
    except ValueError:  # Python's own limit on the digits of one number
        raise BadJson("the body holds a number of thousands of digits; send it as text", code="too_large") from None
    _walk(value, odd_texts="\\u0000" in text or _SURROGATE.search(text) is not None)


def _constant(name: str) -> Any:
    raise BadJson(f"the body is not JSON: {name} is not a JSON number", code="not_finite")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BadJson(f"the number {text[:40]} is too large; send it as text", code="not_finite")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadJson(f"the body is ambiguous: one object names {twice[:100]!r} twice", code="same_key")
    return made


def _walk(value: Any, *, odd_texts: bool) -> None:
    """Depth, number and kind of all values, without recursion. Paths are only made for what is refused."""
    stack: list[tuple[Any, int, tuple[Any, ...] | None]] = [(value, 1, None)]
    seen = 0
    while stack:
        item, depth, place = stack.pop()
        seen += 1
        if seen > MAX_VALUES:
            raise BadJson(f"the body holds more than {MAX_VALUES} values", code="too_many")
        kind = type(item)
        if kind is dict or kind is list:
            if depth > MAX_DEPTH:
                raise BadJson(f"the body is nested deeper than {MAX_DEPTH} levels", _path(place), "too_deep")
            inner = item.items() if kind is dict else enumerate(item)
            for key, child in inner:
                if odd_texts and kind is dict:
                    _check_text(key, place)
                stack.append((child, depth + 1, (place, key)))
        elif kind is str:
            if odd_texts:
                _check_text(item, place)
        elif kind is int and not -_MOST <= item <= _MOST:
            raise BadJson("is a whole number of more than 64 bits; send it as text", _path(place), "too_large")


def _check_text(text: Any, place: tuple[Any, ...] | None) -> None:
    if "\x00" in text:
        raise BadJson("holds the character NUL, which no text here may hold", _path(place), "nul")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadJson("holds half of a character pair (a lone surrogate)", _path(place), "surrogate") from None


def _path(place: tuple[Any, ...] | None) -> str:
    parts: list[str] = []
    while place is not None:
        place, key = place
        parts.append(f"[{key}]" if isinstance(key, int) else f".{key}")
    return "".join(reversed(parts))[:500].removeprefix(".")
