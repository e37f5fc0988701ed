"""Whether what the service stands on answers. Never raises, never waits long."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from taskcenter.errors import TaskCenterError
from taskcenter.redaction import redact_text

from .center import Center

__all__ = ["Health", "health"]

PATIENCE = 3.0
"""Seconds until a part that is silent counts as away."""


@dataclass(frozen=True)
class Health:
    """``None`` for a part that is well, else the sentence that says what is wrong with it."""

    store: str | None
    prefect: str | None
    prefect_url: str | None
    prefect_version: str | None = None


def health(center: Center, patience: float = PATIENCE) -> Health:
    """Ask the store and the Prefect server, both at once."""
    asked = [_ask(lambda: center.store.get_setting("health")), _ask(lambda: center.gateway.version())]
    (_, store), (version, prefect) = (_answer(box, patience) for box in asked)
    url, _ = _answer(_ask(center.prefect_url), patience)
    return Health(store, prefect, url, None if version is None else str(version))


def _ask(call: Callable[[], Any]) -> queue.SimpleQueue[tuple[Any, str | None]]:
    """In a thread of its own that nobody has to wait for: a server that hangs must not hang this."""
    box: queue.SimpleQueue[tuple[Any, str | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            box.put((call(), None))
        except TaskCenterError as error:
            box.put((None, redact_text(error.message.splitlines()[0])))
        except Exception as error:  # health tells what is broken, it does not break
            box.put((None, f"failed with {type(error).__name__}"))

    threading.Thread(target=run, name="health", daemon=True).start()
    return box


def _answer(box: queue.SimpleQueue[tuple[Any, str | None]], patience: float) -> tuple[Any, str | None]:
    try:
        return box.get(timeout=patience)
    except queue.Empty:
        return None, f"does not answer within {patience:g} s"
