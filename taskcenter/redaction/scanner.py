"""Many expressions in one pass over bytes. The door to hyperscan (Vectorscan), which is loaded at the first use.

Where its engine does not run (an old processor), :func:`make_scanner` gives None and callers take their slow road.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["CASELESS", "FROM_START", "MOST_HITS", "MULTILINE", "PLAIN", "Hit", "Scanner", "Unscannable", "make_scanner"]

PLAIN, CASELESS, MULTILINE, FROM_START = 0, 1, 4, 256
"""Flags of one expression (hyperscan's numbers)."""

Hit = tuple[int, int, int]
"""Which expression, from (0 unless FROM_START: that costs speed), to."""


class Unscannable(ValueError):
    """The engine does not take an expression, and says why."""


MOST_HITS = 10_000
"""A text with more is not looked at place by place."""


def _stop(_number: int, _start: int, _end: int, _flags: int, _context: object) -> bool:
    return True


class Scanner:
    """Compiled expressions; any thread may scan."""

    def __init__(self, database: Any, terminated: type[Exception], most: int = MOST_HITS) -> None:
        # functions instead of methods: they are called for every line of every log, and each look at `self` counts
        search, first = database.scan, database.scratch  # which does not keep the database alive: its method does
        local = threading.local()

        def note(number: int, start: int, end: int, _flags: int, hits: list[Hit]) -> bool:
            hits.append((number, start, end))
            return len(hits) > most

        def scan(data: bytes) -> list[Hit] | None:
            hits: list[Hit] = []
            try:
                search(data, note, 0, hits, scratch())
            except terminated:
                return None
            return hits

        def finds(data: bytes) -> bool:
            try:
                search(data, _stop, 0, None, local.scratch)
            except AttributeError:
                scratch()
                return finds(data)
            except terminated:
                return True
            return False

        def scratch() -> Any:
            """Working memory, which serves one thread at a time."""
            if not hasattr(local, "scratch"):
                local.scratch = first.clone()
            return local.scratch

        self.scan: Callable[[bytes], list[Hit] | None] = scan
        """All hits in order of their ends; None when there are too many."""
        self.finds: Callable[[bytes], bool] = finds
        """Whether there is one."""


def make_scanner(expressions: Sequence[str], flags: Sequence[int], most: int = MOST_HITS) -> Scanner | None:
    """Compile ``expressions``, numbered from 0; None where the engine does not run. Raises Unscannable."""
    try:
        import hyperscan
    except ImportError:
        return None
    try:
        database: Any = hyperscan.Database()
        database.compile(
            expressions=[expression.encode() for expression in expressions],
            ids=list(range(len(expressions))),
            elements=len(expressions),
            flags=list(flags),
        )
    except (hyperscan.ArchitectureError, hyperscan.DatabasePlatformError):
        return None
    except hyperscan.error as error:
        raise Unscannable(str(error)) from None
    return Scanner(database, hyperscan.ScanTerminated, most)
