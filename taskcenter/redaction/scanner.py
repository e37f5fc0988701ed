"""Many expressions in one pass over bytes. The door to hyperscan (Vectorscan), which is loaded at the first use.

Where its engine does not run (an old processor), :func:`make_scanner` gives None and callers take their slow road.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

__all__ = ["CASELESS", "MOST_HITS", "MULTILINE", "PLAIN", "Scanner", "Unscannable", "make_scanner"]

PLAIN, CASELESS, MULTILINE = 0, 1, 4
"""Flags of one expression (hyperscan's numbers)."""

Hit = tuple[int, int, int]
"""Which expression, 0 (where it begins is not asked: that costs speed), to."""


class Unscannable(ValueError):
    """The engine does not take an expression, and says why."""


MOST_HITS = 10_000
"""A text with more is not looked at place by place."""


def _note(number: int, start: int, end: int, _flags: int, hits: list[Hit]) -> bool:
    hits.append((number, start, end))
    return len(hits) > MOST_HITS


class Scanner:
    """Compiled expressions; any thread may scan."""

    def __init__(self, database: Any, terminated: type[Exception]) -> None:
        self._database = database  # its working memory does not keep it alive
        self._scan = database.scan
        self._first = database.scratch
        self._terminated = terminated
        self._local = threading.local()

    def scan(self, data: bytes) -> list[Hit] | None:
        """All hits in order of their ends; None when there are too many."""
        hits: list[Hit] = []
        try:
            scratch = self._local.scratch
        except AttributeError:  # an engine's working memory serves one thread at a time
            scratch = self._local.scratch = self._first.clone()
        try:
            self._scan(data, _note, 0, hits, scratch)
        except self._terminated:
            return None
        return hits


def make_scanner(expressions: Sequence[str], flags: Sequence[int]) -> Scanner | None:
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
    return Scanner(database, hyperscan.ScanTerminated)
