"""The one place that asks the system what time it is. Everything else takes ``now``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "SystemClock", "utc_now"]


class Clock(Protocol):
    def now(self) -> datetime:
        """The current instant, aware, in UTC, with microseconds."""
        ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


def utc_now() -> datetime:
    """Now, for the edges (commands, recorder, service); the core takes it as an argument."""
    return datetime.now(UTC)
