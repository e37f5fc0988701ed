"""How far a run has come and when it may end: its own rate, else how long it took before. (spec 5.6)"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

__all__ = ["Outlook", "outlook"]

_ENOUGH: Final = 1.0
"""Percent, and seconds, from which a run's own rate says something."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """``rate``: percent (or units, where the total is known) per second. ``left``: a band of seconds, low to high.

    ``by``: whose rate it is, the run's own or that of earlier runs. ``overdue``: it takes longer than 95 % of them.
    """

    rate: float | None = None
    left: tuple[float, float] | None = None
    by: str = ""
    overdue: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "rate": self.rate,
            "leftSeconds": list(self.left) if self.left else None,
            "by": self.by or None,
            "overdue": self.overdue,
        }


def outlook(
    percent: float | None,
    started_at: datetime | None,
    now: datetime,
    *,
    done: float | None = None,
    earlier: Sequence[float] = (),
) -> Outlook:
    """``percent`` is None where nothing was reported; ``earlier``: seconds that successful runs took."""
    if started_at is None:
        return Outlook()
    gone = max(0.0, (now - started_at).total_seconds())
    middle = statistics.median(earlier) if earlier else None
    most = statistics.quantiles(earlier, n=20)[-1] if len(earlier) > 1 else middle
    overdue = most is not None and gone > most
    if percent is not None and percent >= _ENOUGH and gone >= _ENOUGH:
        left = gone * (100 - percent) / percent
        return Outlook((percent if done is None else done) / gone, (left, left), "own rate", overdue)
    if middle is None or most is None:
        return Outlook()
    return Outlook(None, (max(0.0, middle - gone), max(0.0, most - gone)), "earlier runs", overdue)
