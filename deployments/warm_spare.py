"""The spare: one fork that waits for its run with everything done that needs no run. (spec 5.2)

A fork is a whole process at once and a fast one only later: each page that it touches first is copied then, and it
has no connection yet. The spare has had the time for that. It is a process like any other fork, and knows nothing of
the run that it will be.
"""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

__all__ = ["AFTER_FAILURE", "QUIET", "Spare", "wait_for_run"]

QUIET = 0.5
"""Seconds without a request after which one is made: while runs come in a row, it would only take their time."""

AFTER_FAILURE = 10.0
"""Seconds longer, after one that ended before it was ready."""


class Spare:
    """The warm process's side of it."""

    def __init__(self, pid: int, line: socket.socket) -> None:
        self.pid, self.line = pid, line
        self.ready = False

    def hear(self) -> bool:
        """It says that it is ready; False when it has ended instead."""
        with contextlib.suppress(OSError):
            self.ready = bool(self.line.recv(1))
        return self.ready

    def give(self, request: dict[str, Any]) -> bool:
        """Make it the process of a run; False when it has ended."""
        try:
            self.line.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            return False
        finally:
            self.line.close()
        return True


def wait_for_run(line: socket.socket) -> dict[str, Any] | None:
    """In the fork: make ready, say so, wait. None when the warm process ends before there is a run."""
    from .warm_prefect import rehearse_here

    rehearse_here()
    text = b""
    try:
        line.sendall(b".")
        while not text.endswith(b"\n"):
            part = line.recv(1 << 20)
            if not part:
                return None
            text += part
    except OSError:
        return None
    finally:
        line.close()
    request: dict[str, Any] = json.loads(text)
    return request
