"""Expectations of a SQL result: ``rows == 0``, ``value > 100``. Parsed, never evaluated as code."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

__all__ = ["Expectation", "parse"]

_SHAPE = re.compile(r"^\s*(rows|value)\s*(==|!=|<>|>=|<=|=|>|<)\s*(.+?)\s*$", re.DOTALL)
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True)
class Expectation:
    """``subject`` is ``rows`` (of the last statement: returned, or else changed) or ``value`` (first cell)."""

    subject: str
    operator: str
    literal: Any

    def broken(self, *, rows: int, value: Any) -> str:
        """Empty when it holds, else what was found instead."""
        found = rows if self.subject == "rows" else _number(value)
        try:
            held = _OPERATORS[self.operator](found, self.literal)
        except TypeError:
            return (
                f"{self.subject} is {_shown(value)}, which cannot be compared with {json.dumps(_shown(self.literal))}"
            )
        return "" if held else f"{self.subject} is {_shown(found)}"


def parse(text: Any) -> Expectation:
    """Read ``rows == 0``; the right side is a JSON value ('single' quotes are fine). ValueError says what is wrong."""
    match = _SHAPE.match(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f'an expectation looks like "rows == 0" or "value > 100", not {text!r}')
    sign = {"=": "==", "<>": "!="}.get(match[2], match[2])
    right = match[3]
    literal: Any
    if len(right) >= 2 and right[0] == right[-1] == "'":
        literal = right[1:-1].replace("''", "'")
    else:
        try:
            literal = json.loads(right, parse_float=Decimal)
        except json.JSONDecodeError:
            raise ValueError(f'the right side of {text!r} must be a number, a "text", true, false or null') from None
    if match[1] == "rows" and (isinstance(literal, bool) or not isinstance(literal, int)):
        raise ValueError(f"rows can only be compared with a whole number, not {right}")
    return Expectation(match[1], sign, literal)


def _number(value: Any) -> Any:
    """Comparable across drivers: floats by their decimal text, dates by their ISO text."""
    if isinstance(value, float):
        return Decimal(repr(value))
    return value.isoformat() if isinstance(value, date | datetime) else value


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
