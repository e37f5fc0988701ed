"""When a long-lived process is old or has grown, and when it is its turn to be made anew. (spec 5.2)

Pure: the time and what was measured come in, a decision with its reason comes out. Turns are staggered over the hour,
by the worker's place among all workers, so that they are never all busy with themselves at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

__all__ = ["AGE", "GROWTH_MB", "Recycling", "decide_recycling", "leak_marks", "minute_of", "next_turn"]

GROWTH_MB: Final = 100.0
AGE: Final = timedelta(hours=24)
_EACH: Final = 3
"""Minutes between the turns of two workers."""
_SETTLED: Final = timedelta(minutes=30)
"""A process that is younger at its turn was made anew for another reason, and waits for the next one."""


@dataclass(frozen=True, slots=True)
class Recycling:
    """What is to be done now, and why. ``collect``: look for garbage; ``renew``: make the warm process anew."""

    collect: bool
    renew: bool
    reason: str
    next_at: datetime


def minute_of(index: int) -> int:
    """The minute of each hour that belongs to the worker with this place, counted from 0."""
    return index * _EACH % 60


def next_turn(index: int, after: datetime) -> datetime:
    """The first beginning of the worker's minute after ``after``."""
    turn = after.replace(minute=minute_of(index), second=0, microsecond=0)
    return turn if turn > after else turn + timedelta(hours=1)


def leak_marks(age: timedelta, grown_mb: float | None) -> tuple[str, ...]:
    """Why somebody should look at a process; none: it is as it should be. What has grown by 100 MB may leak."""
    found = []
    if grown_mb is not None and grown_mb > GROWTH_MB:
        found.append(f"grown by {grown_mb:.0f} MB")
    if age > AGE:
        found.append(f"{age / timedelta(hours=1):.0f} h old")
    return tuple(found)


def decide_recycling(
    index: int, now: datetime, last: datetime, born: datetime, *, idle: bool, marks: Sequence[str] = ()
) -> Recycling:
    """What the worker with the place ``index`` does at ``now``.

    ``last``: when it was asked before (a turn that came since then is due, however late); ``born``: when its warm
    process was made; ``idle``: that one has no run.
    """
    turn = next_turn(index, last)
    upcoming = next_turn(index, now)
    if now < turn:
        return Recycling(False, False, "its minute has not come", turn)
    if not idle:
        return Recycling(True, False, "it has runs: it stays", upcoming)
    if marks:
        return Recycling(True, True, ", ".join(marks), upcoming)
    if now - born < _SETTLED:
        return Recycling(True, False, "it is new", upcoming)
    return Recycling(True, True, "idle at its turn", upcoming)
