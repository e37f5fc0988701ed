"""Rows of a driver's cursor in batches that are bounded in rows and, about, in bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["batches"]

_BYTES = 2 * 1024 * 1024
_STEP = 50
"""So many rows are asked for before anybody looks how wide they are."""


def batches(cursor: Any, most: int) -> Iterator[list[tuple[Any, ...]]]:
    """About ``most`` rows at a time, fewer of wide ones: the last of every few is weighed, which costs nothing."""
    rows: list[tuple[Any, ...]] = []
    weight, step = 0, 1
    while part := cursor.fetchmany(step):
        rows += part
        width = 1 + sum([len(value) for value in part[-1] if value.__class__ is str or value.__class__ is bytes])
        weight += width * len(part)
        step = max(1, min(_STEP, step * 2, _BYTES // width))
        if len(rows) >= most or weight >= _BYTES:
            yield rows
            rows, weight = [], 0
    if rows:
        yield rows
