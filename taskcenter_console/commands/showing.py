"""How the commands answer: a list, or what was done; as JSON, as names only, or for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from taskcenter_console.terminal import emit, say, table

from .common import Out

__all__ = ["CHANGES", "show_list", "tell"]

T = TypeVar("T")

CHANGES = {"added": "+", "removed": "-", "changed": "~"}
"""What stands before a difference."""


def _json(item: Any) -> Any:
    return item.to_json() if hasattr(item, "to_json") else item


def show_list(
    out: Out,
    items: Sequence[T],
    *,
    name: Callable[[T], str],
    columns: Sequence[str],
    cells: Callable[[T], Sequence[Any]],
    empty: str,
    json: Callable[[T], Any] = _json,
    **beside: Any,
) -> bool:
    """A line for each item; True when people read it and notes may follow. ``beside``: what else the JSON holds."""
    if out.json:
        emit({"items": [json(item) for item in items], **beside})
    elif out.quiet:
        for item in items:
            say(name(item))
    else:
        table(columns, [cells(item) for item in items], empty=empty)
    return not (out.json or out.quiet)


def tell(out: Out, data: Any, name: str, sentence: str) -> None:
    """What was done: as data, by the name of what it was done to, or in a sentence."""
    if out.json:
        emit(data)
    else:
        say(name if out.quiet else sentence)
