"""Who waits to write into a SQLite file says so, and who writes all the time lets them in. (spec 6.1, 6.5)

SQLite's lock has no queue: who waits looks again after a while, and beside somebody who writes all the time misses
one gap after the other. So a waiting process holds a shared lock on an empty file beside the database, which the
kernel takes back whatever becomes of the process; and a purge looks between two steps whether anybody holds it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["Turns", "waiting"]

_SUFFIX = "-waiting"
_LOOK_SECONDS = 0.0004
_MOST_SECONDS = 0.02
"""A waiting process that does not look again for so long (it is stopped, or was forked from one) is passed over."""


def _open(database: str) -> int:
    return os.open(database + _SUFFIX, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextmanager
def waiting(database: str) -> Iterator[None]:
    """Inside, this process is seen to wait for its turn to write. A folder that allows no such file changes nothing."""
    sign = -1
    with suppress(OSError):
        sign = _open(database)
        fcntl.flock(sign, fcntl.LOCK_SH)
    try:
        yield
    finally:
        if sign >= 0:
            os.close(sign)


class Turns:
    """The other side: of one that writes all the time. Close it when done."""

    def __init__(self, database: str) -> None:
        self._sign = -1
        with suppress(OSError):
            self._sign = _open(database)

    def somebody_waits(self) -> bool:
        if self._sign < 0:
            return False
        try:
            fcntl.flock(self._sign, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.flock(self._sign, fcntl.LOCK_UN)
        return False

    def let_in(self, most: float = _MOST_SECONDS) -> None:
        """Returns when nobody waits any more, at the latest after ``most`` seconds."""
        until = time.monotonic() + most
        while self.somebody_waits() and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)

    def close(self) -> None:
        if self._sign >= 0:
            os.close(self._sign)
            self._sign = -1
