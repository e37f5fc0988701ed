"""``taskcenter up``: one foreground process tree for one machine."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from taskcenter.settings import Settings

from .stack import Stack

__all__ = ["running", "up"]


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@contextmanager
def running(settings: Settings, workers: int, say: Callable[[str], None]) -> Iterator[Stack]:
    """A started stack, stopped at the end however that comes: return, error, Ctrl-C or SIGTERM."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    stack = Stack(settings, workers, say)
    try:
        stack.start()
        yield stack
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C does not cut the stopping short
        stack.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, before)


def up(settings: Settings, workers: int = 4) -> int:
    """Start everything, serve until Ctrl-C or SIGTERM, stop everything. Returns the exit code."""

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        with running(settings, workers, say) as stack:
            print(file=sys.stdout)
            for name, address in stack.addresses():
                say(f"{name:12s}{address}")
            say(f"{'data':12s}{settings.home}")
            say(f"{'shell':12s}export PREFECT_API_URL={stack.prefect_api_url}   (for the prefect command elsewhere)")
            say("\nserving; Ctrl-C stops everything")
            stack.watch()
    except KeyboardInterrupt:
        say("stopped")
    return 0
