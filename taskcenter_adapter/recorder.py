"""Writes what a run does into our tables, from the run's own process. (spec 6.2, 6.3)

Changes are redacted, gathered for a moment and written by one thread in one transaction each time: rows, log
lines, audit and events together. The work never waits for the database; when that is away the changes are
kept, and at the end of the run spooled to a file (see ``spool``).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from composites.engine import StepChange
from composites.model import CompositeSpec
from taskcenter.models import AuditEntry, LogLine, OutboxEvent, Run, StepRun
from taskcenter.ports import Changes, Store
from taskcenter.redaction import redact, redact_text
from taskcenter.status import TERMINAL_STEP, StepStatus

from .spool import CANNOT_NOW, record_all, spool

__all__ = ["Recorder", "step_row"]

Level = Literal["debug", "info", "warning", "error"]
_LOG = logging.getLogger("taskcenter.recorder")
_EVERY = 0.05
"""Seconds that changes are gathered before they are written."""
_PATIENCE = 10.0
"""Seconds that the end of a run waits for an absent database before it spools."""
_STUCK = 5.0
"""Seconds more that it waits for a database that neither takes a report nor refuses it."""


def step_row(run_id: str, change: StepChange) -> StepRun:
    """The row of one step after one transition, redacted."""
    return StepRun.model_construct(
        run_id=run_id,
        step_key=change.key,
        name=change.step.name or change.key,
        task_type=change.step.task_type or f"task {change.step.referenced_task_id}",
        position=change.step.position,
        wave=change.wave,
        status=change.status,
        attempts=change.attempts,
        started_at=change.started_at,
        finished_at=change.at if change.status in TERMINAL_STEP else None,
        duration_ms=change.duration_ms,
        execution=redact(change.execution),
        error=redact_text(change.error) if change.error else None,
        error_type=change.error_type,
        reason=str(change.reason) if change.reason else None,
        reused=change.reused,
        prefect_task_run_id=change.task_run_id,
    )


def _sentence(row: StepRun) -> tuple[Level, str]:
    """Level and text of the log line that a transition is."""
    took = f" in {row.duration_ms} ms" if row.duration_ms is not None else ""
    match row.status:
        case StepStatus.RUNNING:
            return "info", f"step {row.step_key} started ({row.task_type}, wave {row.wave + 1})"
        case StepStatus.SUCCESS if row.reused:
            return "info", f"step {row.step_key}: the result of the earlier run is reused"
        case StepStatus.SUCCESS:
            return "info", f"step {row.step_key} succeeded{took}"
        case StepStatus.SKIPPED:
            return "info", f"step {row.step_key} skipped: {row.reason or 'no reason given'}"
        case _:
            return "error", f"step {row.step_key} failed{took}: {row.error or row.error_type or 'no message'}"


_PROGRESS_EVERY = 0.12
"""Seconds between two reports of a step that are stored."""
_Report = tuple[float, str, float | None, float | None]


class Recorder:
    """Keeps the record of one run. Thread-safe; every method returns at once but ``flush`` and ``close``."""

    def __init__(
        self, store: Store, run: Run, *, spool: Path, now: Callable[[], datetime], first_line: int = 0
    ) -> None:
        self.run = run
        self._store, self._spool, self._now = store, spool, now
        self._sequence = first_line
        self._wake = threading.Condition()
        self._runs: dict[str, Run] = {}
        self._steps: dict[str, StepRun] = {}
        self._logs: list[LogLine] = []
        self._progress: dict[str | None, _Report] = {}
        self._reported: dict[str | None, _Report] = {}
        self._quiet = True
        self._progress_at = 0.0
        self._audit: list[AuditEntry] = []
        self._events: list[OutboxEvent] = []
        self._closing = False
        self._written = 0
        self._asked = 0
        self._failing_since: float | None = None
        self._kept = Changes()
        self._thread = threading.Thread(target=self._loop, name="recorder", daemon=True)
        self._thread.start()

    # taking ------------------------------------------------------------------------------------------

    def set_run(self, *, audit: AuditEntry | None = None, event: OutboxEvent | None = None, **values: Any) -> Run:
        """Change fields of the run's row; texts and results are redacted."""
        for name in ("message", "error"):
            if values.get(name):
                values[name] = redact_text(values[name])
        if "result" in values:
            values["result"] = redact(values["result"])
        with self._wake:
            self.run = self.run.model_copy(update=values)
            self._runs[self.run.id] = self.run
            if audit is not None:
                self._audit.append(audit)
            if event is not None:
                self._events.append(event)
            self._touch()
        return self.run

    def step(self, change: StepChange) -> None:
        """One transition: the row and its log line."""
        row = step_row(self.run.id, change)
        level, text = _sentence(row)
        with self._wake:
            self._steps[row.step_key] = row
            self._line(change.at, level, text, row.step_key, "step", None)
            self._touch()

    def expect(self, spec: CompositeSpec, waves: Mapping[str, int]) -> None:
        """One pending row per step, so that a run that dies tells what it had still to do."""
        with self._wake:
            for step in spec.steps:
                self._steps[step.step_key] = StepRun.model_construct(
                    run_id=self.run.id,
                    step_key=step.step_key,
                    name=step.name or step.step_key,
                    task_type=step.task_type or f"task {step.referenced_task_id}",
                    position=step.position,
                    wave=waves.get(step.step_key, 0),
                    status=StepStatus.PENDING,
                )
            self._touch()

    def log(
        self,
        level: Level,
        message: str,
        *,
        step_key: str | None = None,
        stream: str = "log",
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """One line into the run log; gives it as it stands there, redacted."""
        text = redact_text(message)
        with self._wake:
            self._line(self._now(), level, text, step_key, stream, redact(dict(metadata)) if metadata else None)
            self._touch()
        return text

    def progress(
        self, step_key: str | None, percent: float, message: str, done: float | None = None, total: float | None = None
    ) -> None:
        """How far a step (None: the run) has come. Between two writes only the last report counts."""
        self._progress[step_key] = (percent, message, done, total)
        if self._quiet:  # read after the report stands there: it was taken, or is asked for here
            with self._wake:
                self._quiet = False
                self._touch()

    def _line(
        self, at: datetime, level: Level, text: str, step: str | None, stream: str, metadata: dict[str, Any] | None
    ) -> None:
        line = LogLine.model_construct(
            run_id=self.run.id,
            sequence=self._sequence,
            time=at,
            level=level,
            message=text,
            step_key=step,
            stream=stream,
            metadata=metadata,
        )
        self._sequence += 1
        self._logs.append(line)

    def _touch(self) -> None:
        self._asked += 1
        if self._asked == self._written + 1:
            self._wake.notify()

    # writing -----------------------------------------------------------------------------------------

    def _take(self) -> tuple[Changes, int]:
        asked, now = self._asked, time.monotonic()
        if self._closing or now - self._progress_at >= _PROGRESS_EVERY:
            self._progress_at = now
            self._take_progress()
        elif not self._quiet:
            self._asked += 1  # in the next round
        changes = Changes(
            runs=tuple(self._runs.values()),
            steps=tuple(self._steps.values()),
            logs=tuple(self._logs),
            audit=tuple(self._audit),
            events=tuple(self._events),
        )
        self._runs, self._steps = {}, {}
        self._logs, self._audit, self._events = [], [], []
        return changes, asked

    def _take_progress(self) -> None:
        self._quiet = True
        for key, report in list(self._progress.items()):
            if self._reported.get(key) is not report:
                self._reported[key] = report
                percent, message, done, total = report
                facts = {name: value for name, value in (("done", done), ("total", total)) if value is not None}
                text = redact_text(f"{percent:.0f} % {message}".rstrip())
                self._line(self._now(), "info", text, key, "progress", {"percent": round(percent, 2), **facts})

    def _loop(self) -> None:
        asked = 0
        while True:
            with self._wake:
                while self._asked == self._written and not self._closing:
                    self._wake.wait()
                if self._closing and self._asked == self._written:
                    return
                if not self._closing:
                    self._wake.wait(_EVERY)
                fresh, asked = self._take()
                self._kept = _merged(self._kept, fresh)
            if self._write(self._kept):
                with self._wake:
                    self._kept = Changes()
                    self._written = asked
                    self._wake.notify_all()
            elif self._closing and time.monotonic() - (self._failing_since or 0) > _PATIENCE:
                self._spool_all()
                return
            else:
                time.sleep(0.5)

    def _write(self, changes: Changes) -> bool:
        """False when the database is away and the changes must be kept."""
        try:
            record_all(self._store, changes)
        except CANNOT_NOW as error:
            if self._failing_since is None:
                self._failing_since = time.monotonic()
                _LOG.warning("the record cannot be written now and is kept: %s", error.message)
            return False
        except Exception:  # a defect must not take what comes later with it
            _LOG.exception("a part of the record could not be written")
            spool(self._spool, self.run.id, changes)
        self._failing_since = None
        return True

    def _spool_all(self) -> None:
        with self._wake:
            fresh, _ = self._take()
            kept, self._kept = _merged(self._kept, fresh), Changes()
            self._written = self._asked
            self._wake.notify_all()
        if kept:
            spool(self._spool, self.run.id, kept)

    def flush(self, timeout: float = 30.0) -> bool:
        """Wait until all that was taken so far is written (or the time is up)."""
        with self._wake:
            target = self._asked
            self._wake.notify_all()
            return self._wake.wait_for(lambda: self._written >= target, timeout)

    def close(self) -> None:
        """Write or spool everything, then end."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join(_PATIENCE + _STUCK)
        if self._thread.is_alive():  # what hangs in the connection may yet be written, and is written once
            self._spool_all()


def _merged(old: Changes, new: Changes) -> Changes:
    if not old:
        return new
    return Changes(
        runs=tuple({**{r.id: r for r in old.runs}, **{r.id: r for r in new.runs}}.values()),
        steps=tuple({**{s.step_key: s for s in old.steps}, **{s.step_key: s for s in new.steps}}.values()),
        logs=(*old.logs, *new.logs),
        audit=(*old.audit, *new.audit),
        events=(*old.events, *new.events),
    )
