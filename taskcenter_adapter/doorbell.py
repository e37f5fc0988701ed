"""A word from the service to the workers on the same home: there is a run to be taken.

Prefect's own events say it too, some hundredths of a second later and not always, and a worker polls beside them; so a
bell that nobody hears costs time and nothing else. It is a datagram with the run's id, on a socket in the home's
``run`` folder, which only its user may enter.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

__all__ = ["LONGEST", "hang_up", "ring"]

LONGEST = 64
"""Bytes of a ring."""

_FOLDER, _NAMES = "run", "worker-*.bell"
_HAS_BELLS = hasattr(socket, "AF_UNIX")


def ring(home: Path, run_id: str) -> None:
    """Tell the workers of this home to look for that run now. Never raises and never waits."""
    if not _HAS_BELLS:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell:
        bell.setblocking(False)
        for path in (home / _FOLDER).glob(_NAMES):
            try:
                bell.sendto(run_id.encode(), str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)  # of a worker that was killed
            except OSError:  # it has enough unread ones to wake up by
                continue


def hang_up(home: Path) -> tuple[socket.socket, Callable[[], None]] | None:
    """A bell for this process: the socket that becomes readable, and what takes it down. None where none can hang."""
    if not _HAS_BELLS:
        return None
    path = home / _FOLDER / f"worker-{os.getpid()}.bell"
    bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
        bell.bind(str(path))
        path.chmod(0o600)
        bell.setblocking(False)
    except OSError:  # a home with a very long path
        bell.close()
        return None

    def take_down() -> None:
        bell.close()
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)

    return bell, take_down
