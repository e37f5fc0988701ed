"""Numbers about runs: counts, durations, waiting, reasons of failure, busy hours; zero runs give zeros. (spec 5.8)

Percentiles are of the nearest rank, so that each is a duration that was really seen. Milliseconds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from .status import RunPhase, RunStatus

__all__ = ["Fact", "percentile", "summarize"]

_REASONS = 10


@dataclass(frozen=True, slots=True)
class Fact:
    """What the numbers need of one run."""

    status: RunStatus
    phase: RunPhase | None
    created_at: datetime
    slot: datetime | None
    started_at: datetime | None
    duration_ms: int | None
    error: str | None
    task: str

    @property
    def waited_ms(self) -> int | None:
        """From when it could have started to when it did."""
        if self.started_at is None:
            return None
        due = max(self.created_at, self.slot) if self.slot is not None else self.created_at
        return max(0, round((self.started_at - due).total_seconds() * 1000))


def percentile(values: Sequence[int], share: float) -> int:
    """The smallest value that ``share`` (0..1) of all do not exceed; 0 of none."""
    if not values:
        return 0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summarize(facts: Iterable[Fact], zone: tzinfo) -> dict[str, Any]:
    """All numbers of these runs; hours are those of ``zone``."""
    runs = list(facts)
    statuses = Counter(run.status for run in runs)
    done, failed = statuses[RunStatus.SUCCESS], statuses[RunStatus.FAILED]
    paused = sum(run.phase is RunPhase.PAUSED and run.status is RunStatus.RUNNING for run in runs)
    durations = [run.duration_ms for run in runs if run.duration_ms is not None]
    waits = [wait for run in runs if (wait := run.waited_ms) is not None]
    reasons = Counter(_reason(run) for run in runs if run.status is RunStatus.FAILED)
    most = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    hours = Counter(run.started_at.astimezone(zone).hour for run in runs if run.started_at is not None)
    return {
        "total": len(runs),
        "queued": statuses[RunStatus.QUEUED],
        "running": statuses[RunStatus.RUNNING] - paused,
        "paused": paused,
        "completed": done,
        "failed": failed,
        "cancelled": statuses[RunStatus.CANCELLED],
        "successRate": round(done / (done + failed), 4) if done + failed else 0.0,
        "durationMs": _spread(durations),
        "waitMs": _spread(waits),
        "failures": [{"reason": reason, "count": count} for reason, count in most[:_REASONS]],
        "hours": [hours[hour] for hour in range(24)],
    }


def _spread(values: Sequence[int]) -> dict[str, int]:
    return {"p50": percentile(values, 0.5), "p95": percentile(values, 0.95), "p99": percentile(values, 0.99)}


def _reason(run: Fact) -> str:
    """The phase where it says why, else the first line of the error."""
    if run.phase is not None:
        return run.phase.value
    return (run.error or "no message").partition("\n")[0][:120]
