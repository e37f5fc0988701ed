"""Progress in rows, said at most every two seconds."""

from __future__ import annotations

import time

from taskcenter.context import RunContext

__all__ = ["RowProgress"]

_SECONDS = 2.0


class RowProgress:
    """Counts rows towards ``total`` (an estimate; None when nobody knows) and listens for a cancel."""

    def __init__(self, ctx: RunContext, total: int | None, upto: float = 100.0) -> None:
        self.ctx, self.total, self.upto = ctx, total, upto
        self.done = 0
        self._said = time.monotonic()

    def add(self, count: int) -> None:
        """``count`` more rows are done. Raises Cancelled when the run was asked to stop."""
        self.ctx.checkpoint()
        self.done += count
        if time.monotonic() - self._said >= _SECONDS:
            self.say()

    def say(self) -> None:
        self._said = time.monotonic()
        if self.total:
            percent = min(self.upto - 1, self.upto * self.done / max(self.total, 1))
            total = max(self.total, self.done)
            self.ctx.progress(percent, f"{self.done:,} of about {total:,} rows", done=self.done, total=total)
        else:
            self.ctx.progress(0, f"{self.done:,} rows", done=self.done)
