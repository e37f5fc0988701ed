"""A clock that stands still until it is moved."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["VirtualClock", "instant"]


def instant(when: datetime | str) -> datetime:
    """An aware time in UTC; text is ISO, in UTC when it names no zone."""
    found = datetime.fromisoformat(when) if isinstance(when, str) else when
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


class VirtualClock:
    """A :class:`~taskcenter.clock.Clock`. It begins on Monday 5 January 2026 at midnight, UTC."""

    def __init__(self, start: datetime | str = "2026-01-05") -> None:
        self._now = instant(start)

    def now(self) -> datetime:
        return self._now

    def set(self, when: datetime | str) -> datetime:
        """Backwards too, as clocks of machines are set."""
        self._now = instant(when)
        return self._now

    def advance(self, by: timedelta | None = None, **parts: float) -> datetime:
        """``advance(hours=2)``, ``advance(timedelta(days=1))``."""
        return self.set(self._now + (by or timedelta()) + timedelta(**parts))
