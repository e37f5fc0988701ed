"""Keeps the history in order while the service runs: seals the audit, and purges once an hour when it leads.

On SQLite it also brings the log of changes into the file, so that no commit has to.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from taskcenter.errors import TaskCenterError
from taskcenter.settings import Settings
from taskcenter_adapter.store import sql_store
from taskcenter_adapter.write_ahead import bring_in

from .services.auditing import chain
from .services.center import Center
from .services.retaining import hourly

__all__ = ["Keeper"]

_LOG = logging.getLogger("taskcenter.keeper")
_SEAL_EVERY = 1.0
_PURGE_EVERY = 3600.0
_FIRST_PURGE = 60.0
"""Seconds after the start: the service has better things to do first."""


class Keeper(threading.Thread):
    """One per service. Services take turns at the chain's end, so several of them seal side by side."""

    def __init__(self, settings: Settings, leads: Callable[[], bool], holder: str = "") -> None:
        super().__init__(name="keeper", daemon=True)
        self._settings = settings
        self._leads = leads
        self._holder = holder
        self._stopping = threading.Event()
        self._purge_at = time.monotonic() + _FIRST_PURGE

    def run(self) -> None:
        with Center(self._settings) as center:
            said = ""
            while not self._stopping.is_set():
                try:
                    while chain(center).seal() and not self._stopping.is_set():
                        time.sleep(0.005)  # somebody else may want to write
                    self._purge(center)
                    if (own := sql_store(center.store)) is not None:
                        bring_in(own.engine)
                    said = ""
                except TaskCenterError as error:
                    text = error.message.splitlines()[0]
                    if text != said:
                        _LOG.warning("%s", text)
                    said = text
                except Exception:  # what fails once must not end the keeping
                    _LOG.exception("the keeper met a defect")
                self._stopping.wait(_SEAL_EVERY)

    def _purge(self, center: Center) -> None:
        if time.monotonic() < self._purge_at or not self._leads():
            return
        self._purge_at = time.monotonic() + _PURGE_EVERY
        found = hourly(center, self._holder, self._interrupted)
        if any(value for name, value in found.items() if name.startswith("deleted")):
            _LOG.info("history was purged: %s", found)

    def _interrupted(self) -> bool:
        """Asked between two steps of a purge: whether it has to end."""
        return self._stopping.is_set() or not self._leads()

    def stop(self) -> None:
        self._stopping.set()
        self.join(15)
