"""Database values as plain JSON values."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from taskcenter.errors import ValidationFailed
from taskcenter.jsonable import to_jsonable

__all__ = ["plain"]


def plain(value: Any) -> Any:
    """``value`` as JSON, by the rules of ``taskcenter.jsonable``, with what a database adds to them.

    A decimal is a number where that is exact (10.50 → 10.5, so that conditions can compare it), else its text.
    NaN, infinities and the drivers' own types (ranges, addresses) become text.
    """
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    try:
        return to_jsonable(value)
    except ValidationFailed:
        return str(value)


def _decimal(value: Decimal) -> int | float | str:
    if not value.is_finite():
        return str(value)
    if value.adjusted() < 30 and value == value.to_integral_value():
        return int(value)
    number = float(value)
    return number if math.isfinite(number) and Decimal(repr(number)) == value else str(value)
