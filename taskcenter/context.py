"""What a task type is handed while it works, and what it hands back for a plan. (spec 1.2)"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from .errors import ConnectionUnavailable, Refused
from .models import ResourceLimits
from .ports import SchemaSnapshots
from .status import Origin

__all__ = ["Cancelled", "PlanNote", "RunContext"]


_HELD_SECONDS = 0.1


class Cancelled(Exception):
    """The run was asked to stop; raised from ``checkpoint()``."""


@dataclass(frozen=True, slots=True)
class PlanNote:
    """What a task type would do, without doing it."""

    summary: str
    details: Mapping[str, Any] = field(default_factory=dict)
    danger: tuple[str, ...] = ()
    connections: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "summary": self.summary,
            "details": dict(self.details),
            "danger": list(self.danger),
            "connections": list(self.connections),
        }


def _no_connection(name: str) -> NoReturn:
    raise ConnectionUnavailable(f"no connection named {name!r} can be resolved here", name=name)


def _no_snapshots() -> NoReturn:
    raise Refused(
        "there is no Task Center database here to keep snapshots in: start one (taskcenter up), or set persistSnapshot "
        "to false and compareWith to none or a connection"
    )


def _no_secret(name: str) -> NoReturn:
    raise Refused(f"no secret named {name!r} can be resolved here", name=name)


@dataclass
class RunContext:
    """The run that a task type works for. Everything a type may know or ask stands here.

    ``connection(name)`` gives a connection block; ``progress(percent)`` takes 0..100 and never goes back;
    ``checkpoint()`` raises :class:`Cancelled` when the run was asked to stop and waits while a person holds it: call it
    between batches.
    """

    run_id: str = ""
    root_run_id: str = ""
    """The first attempt; the same for all attempts of one piece of work."""
    task: str = ""
    step_key: str | None = None
    attempt: int = 1
    origin: Origin = Origin.MANUAL
    slot: datetime | None = None
    dry_run: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    """The variables of the task, for the processes that it starts; nothing of the worker's own."""
    state: dict[str, Any] = field(default_factory=dict)
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("taskcenter.run"))
    data_dir: Path = Path(".")
    temp_dir: Path = Path(".")
    resolve_connection: Callable[[str], Any] = _no_connection
    resolve_secret: Callable[[str], str] = _no_secret
    resolve_snapshots: Callable[[], SchemaSnapshots] = _no_snapshots
    on_progress: Callable[[float, str, float | None, float | None], None] | None = None
    is_cancelled: Callable[[], bool] | None = None
    is_held: Callable[[], bool] | None = None
    held_seconds: Callable[[], float] = lambda: 0.0
    """How long the run was held by a person so far: no time-out counts that."""
    on_output: Callable[[str, str], None] | None = None
    limits: ResourceLimits = field(default_factory=ResourceLimits)
    """How much the run may use."""
    printed: Callable[[int], int] | None = None
    """Told how many bytes a process has printed; gives how many all of the run have."""
    tags: list[str] = field(default_factory=list)
    summary_text: str = ""
    _percent: float = 0.0

    def connection(self, name: str) -> Any:
        """The saved connection ``name`` (a ``blocks.connections`` block); an error that names it when absent."""
        return self.resolve_connection(name)

    def secret(self, name: str) -> str:
        """The value of the secret ``name``, only ever in this process."""
        return self.resolve_secret(name)

    def snapshots(self) -> SchemaSnapshots:
        """Where structures of databases are kept; Refused when this run has no such place."""
        return self.resolve_snapshots()

    def progress(
        self,
        percent: float,
        message: str = "",
        *,
        done: float | None = None,
        total: float | None = None,
        reset: bool = False,
    ) -> None:
        """Report 0..100, as often as you like; clamped, never goes backwards but with ``reset``."""
        at_least = 0.0 if reset else self._percent
        self._percent = max(at_least, min(100.0, float(percent)))
        if self.on_progress is not None:
            self.on_progress(self._percent, message, done, total)

    def output(self, line: str, stream: str = "stdout") -> None:
        """One line of the work's own output, into the run log as it comes."""
        if self.on_output is not None:
            self.on_output(line, stream)
        else:
            self.logger.info(line)

    def checkpoint(self) -> None:
        """Go on, wait here while a person holds the run, or raise Cancelled when it was asked to stop."""
        while True:
            if self.is_cancelled is not None and self.is_cancelled():
                raise Cancelled("the run was asked to stop")
            if self.is_held is None or not self.is_held():
                return
            time.sleep(_HELD_SECONDS)

    def tag(self, *tags: str) -> None:
        self.tags.extend(tags)

    def summary(self, text: str) -> None:
        self.summary_text = text
