"""One flow run as Task Center sees it: its facts, its task, its record and its log. (spec 0.4, 5.1, 6.2)"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger

from blocks.connections import Connection
from taskcenter import events
from taskcenter.audit import ended
from taskcenter.clock import utc_now
from taskcenter.context import RunContext
from taskcenter.errors import Refused, ServerAway, TaskCenterError
from taskcenter.models import AuditEntry, ResourceLimits, Run, Task
from taskcenter.options import RunOptions
from taskcenter.ports import Store
from taskcenter.redaction import read_own_patterns, redact_text
from taskcenter.settings import Settings
from taskcenter.status import Origin, RunPhase, RunStatus
from taskcenter_adapter.gateway import Gateway
from taskcenter_adapter.mapping import facts_from_tags
from taskcenter_adapter.orphans import MARK, present
from taskcenter_adapter.recorder import Recorder
from taskcenter_adapter.resolve_secret import resolve_secret, use_of
from taskcenter_adapter.runtime import database_url, prefect_api_url, spool_folder
from taskcenter_adapter.spool import replay_spool
from taskcenter_adapter.store import open_store, sql_store

from .hold import Hold
from .masking import MASKING, Masked, connection, masked_errors
from .own_output import masked_output
from .place import place_for

__all__ = ["NotNow", "Session", "open_session"]


class NotNow(Exception):
    """The scheduler gave the slot of this run another verdict: the run ends cancelled, nothing was done."""


_PATIENCE = 120.0
_LEVELS = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning"}


@dataclass
class Session:
    """What the body of a flow works with."""

    settings: Settings
    store: Store
    flow_run: FlowRun
    recorder: Recorder
    task: Task | None
    options: RunOptions
    dry_run: bool
    logger: logging.Logger
    temp_dir: Path
    hold: Hold
    _used: set[tuple[str, str | None]] = field(default_factory=set, repr=False)
    _printed: int = field(default=0, repr=False)
    _counting: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def run(self) -> Run:
        return self.recorder.run

    def context(self, step_key: str | None = None, is_cancelled: Callable[[], bool] | None = None) -> RunContext:
        """What a task type is handed."""

        def on_output(line: str, stream: str) -> None:
            self.recorder.log("info", line, step_key=step_key, stream=stream)

        def on_progress(percent: float, message: str, done: float | None, total: float | None) -> None:
            self.recorder.progress(step_key, percent, message, done, total)

        return RunContext(
            run_id=self.run.id,
            root_run_id=self.run.root_run_id or self.run.id,
            task=self.run.task_slug,
            step_key=step_key,
            attempt=self.run.attempt,
            origin=self.run.origin,
            slot=self.run.slot,
            dry_run=self.dry_run,
            env=dict(self.task.environment) if self.task else {},
            logger=_logger(self.recorder, self.logger, step_key),
            data_dir=self.settings.home,
            temp_dir=self.temp_dir,
            resolve_connection=self.connection,
            resolve_secret=partial(self.secret, step_key=step_key),
            resolve_snapshots=lambda: self.store.snapshots,
            on_progress=on_progress,
            on_output=on_output,
            limits=self.task.termination.limits if self.task else ResourceLimits(),
            printed=self.printed,
            is_cancelled=is_cancelled,
            is_held=lambda: self.hold.held,
            held_seconds=self.hold.seconds,
        )

    def printed(self, size: int) -> int:
        """A process of the run has printed so many bytes more; how many all of them have."""
        with self._counting:
            self._printed += size
            return self._printed

    def connection(self, name: str) -> Connection:
        return connection(name, self.settings.home)

    def secret(self, name: str, step_key: str | None = None) -> str:
        """The value of a secret, only in this process. Its use is audited, once for each step."""
        value, found = resolve_secret(name, self.settings, self.store)
        if (name, step_key) not in self._used:
            self._used.add((name, step_key))
            run = self.run
            entry = use_of(found, run.task_slug, run.id, task_id=run.task_id, step=step_key)
            self.recorder.set_run(audit=entry)
        return value

    def log(self, message: str, level: Any = "info") -> None:
        """One line into our run log and into Prefect's."""
        _forward(self.logger, level, self.recorder.log(level, message))

    def finish(
        self, status: RunStatus, *, message: str, result: Any = None, error: str | None = None,
        phase: RunPhase | None = None,
    ) -> None:  # fmt: skip
        """Close the run's row with its audit entry and its event."""
        now = utc_now()
        run = self.recorder.run
        took = round((now - run.started_at).total_seconds() * 1000) if run.started_at else None
        values = {"status": status, "phase": phase, "finished_at": now, "duration_ms": took}
        done = run.model_copy(update={**values, "error": redact_text(error) if error else None})
        self.recorder.set_run(
            **values,
            message=message,
            result=result,
            error=error,
            event=events.run_finished(done, now),
            audit=AuditEntry(
                event_type=ended(run.origin, status),
                task_id=run.task_id,
                run_id=run.id,
                actor="system",
                object=f"run {run.id}",
                result="ok" if status is RunStatus.SUCCESS else "failed",
                message=redact_text(message),
                metadata={"status": status.value, "attempt": run.attempt, "durationMs": took},
                created_at=now,
            ),
        )

    def cancel_asked(self) -> str | None:
        """When somebody asked for a cancel while the work came to its end by itself: who and why."""
        try:
            with Gateway(prefect_api_url(self.settings), tries=1) as gateway:
                known = gateway.find_run(str(self.flow_run.id))
        except TaskCenterError:
            return None
        if known is None or known["state_type"] != "CANCELLING":
            return None
        return str((known.get("state") or {}).get("message") or "cancelled in Prefect")


def _forward(logger: logging.Logger, level: str, text: str) -> None:
    """A redacted line into Prefect's log of the run, marked so that our own handler does not take it back."""
    logger.log(getattr(logging, level.upper()), Masked(text), extra={"taskcenter": True})


class _ToRecord(logging.Handler):
    """Log records of the run into our table. ``forward_to``: also into Prefect's own log of the run."""

    def __init__(self, recorder: Recorder, step_key: str | None, stream: str, forward_to: Any = None) -> None:
        super().__init__()
        self._recorder, self._step, self._stream, self._forward = recorder, step_key, stream, forward_to

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "taskcenter", False):
            return
        if self._stream == "prefect" and getattr(record, "flow_run_id", "") != self._recorder.run.id:
            return  # a nested composite runs in this process too and has a record of its own
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
        level: Any = _LEVELS.get(record.levelno, "error" if record.levelno > logging.WARNING else "debug")
        text = self._recorder.log(level, text, step_key=self._step, stream=self._stream)
        if self._forward is not None:
            _forward(self._forward, level, f"[{self._step}] {text}" if self._step else text)


def _wait_for(store: Store) -> None:
    """A run that begins while the database is away begins when it is back. Raises ServerAway after two minutes."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            store.get_setting("")
            return
        except ServerAway:
            if time.monotonic() > end:
                raise
            time.sleep(1)


def _ask_gate(store: Store, flow_run: FlowRun) -> None:
    """A run that was made ahead of its slot, by us or by Prefect's own loop, starts when its slot has fired.

    Raises NotNow.
    """
    trigger = (flow_run.parameters or {}).get("trigger_id")
    origin = facts_from_tags(flow_run.tags).get("origin")
    own = sql_store(store)
    if trigger is None or own is None or flow_run.expected_start_time is None:
        return
    if origin != Origin.SCHEDULER and not (origin is None and flow_run.auto_scheduled):
        return
    said = own.schedule.requests.gate(str(flow_run.id), str(trigger), flow_run.expected_start_time)
    if said is not None:
        raise NotNow(said)


def _logger(recorder: Recorder, prefect_logger: Any, step_key: str | None) -> logging.Logger:
    """A logger of its own for one step: not registered, so that a thousand of them leave nothing behind."""
    logger = logging.Logger(f"taskcenter.run.{step_key or 'task'}", logging.DEBUG)
    logger.addHandler(_ToRecord(recorder, step_key, "log", prefect_logger))
    return logger


def _first_row(flow_run: FlowRun, task: Task | None, slug: str, kind: str, known: Run | None, dry_run: bool) -> Run:
    """The run's row at its start: what the service wrote when it asked for it, or what Prefect's run says of itself."""
    facts = facts_from_tags(flow_run.tags)
    now = utc_now()
    if known is not None:
        base = known
    else:
        origin = facts.get("origin") or ("scheduler" if flow_run.auto_scheduled else "prefect")
        base = Run(
            id=str(flow_run.id),
            task_slug=slug,
            task_type=kind,
            origin=Origin(origin),
            attempt=int(facts.get("attempt", 1)),
            total_attempts=int(facts.get("attempts", 1)),
            root_run_id=facts.get("root") or str(flow_run.id),
            resumed_from=facts.get("resumed"),
            created_at=flow_run.created or now,
            slot=flow_run.expected_start_time,
            batch_id=facts.get("batch"),
            batch_item=int(facts["item"]) if "item" in facts else None,
        )
    trigger = (flow_run.parameters or {}).get("trigger_id")
    return base.model_copy(
        update={
            "task_id": task.id if task else base.task_id,
            "task_revision": task.revision if task else None,
            "task_type": kind,
            "trigger_id": trigger or base.trigger_id,
            "dry_run": dry_run,
            "name": flow_run.name,
            "slot": base.slot or flow_run.expected_start_time,
            "status": RunStatus.RUNNING,
            "phase": None,
            "started_at": base.started_at or now,
            "prefect_state": "Running",
        }
    )


def _outermost(flow_run: FlowRun) -> str:
    """The run that this process was started for: a composite inside it is held with it."""
    return os.environ.get(MARK, "").partition("/")[2] or str(flow_run.id)


@contextlib.contextmanager
def open_session(slug: str, kind: str, *, dry_run: bool, options: dict[str, Any] | None) -> Iterator[Session]:
    """Everything the body of a flow needs, and the end of its record however the body ends."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise Refused("this runs inside a Prefect flow only")
    flow_run = context.flow_run
    settings = Settings.from_env()
    chosen = RunOptions.model_validate(options or {})
    prefect_logger: Any = get_run_logger()
    with contextlib.ExitStack() as stack, masked_errors():
        read_own_patterns(settings.patterns_file)
        store = open_store(database_url(settings))
        stack.callback(store.close)
        _wait_for(store)
        _ask_gate(store, flow_run)
        stack.enter_context(place_for(flow_run, store, settings))
        task = store.find_task(slug)
        known = store.find_run(str(flow_run.id))
        # An earlier process of the same run may have left lines, which come before ours.
        replay_spool(store, spool_folder(settings.home), str(flow_run.id))
        row = _first_row(flow_run, task, task.slug if task else slug, kind, known, dry_run)
        first_line = store.next_log_sequence(row.id) if known else 0
        recorder = Recorder(store, row, spool=spool_folder(settings.home), now=utc_now, first_line=first_line)
        stack.callback(recorder.close)
        recorder.set_run(
            event=events.run_started(row, utc_now()),
            audit=AuditEntry(
                event_type="run_started",
                task_id=row.task_id,
                run_id=row.id,
                actor="scheduler" if row.origin in (Origin.SCHEDULER, Origin.SCHEDULER_RETRY) else "system",
                channel="prefect" if row.origin is Origin.PREFECT else "system",
                object=f"run {row.id}",
                metadata={"origin": row.origin.value, "attempt": row.attempt, "steps": chosen.overridden_steps()},
                created_at=utc_now(),
            ),
        )
        handler = _ToRecord(recorder, None, "prefect")
        for logger in map(logging.getLogger, ("prefect.flow_runs", "prefect.task_runs")):
            logger.addFilter(MASKING)
            logger.addHandler(handler)
            stack.callback(logger.removeHandler, handler)
        if task is not None and flow_run.parent_task_run_id is None:
            os.environ.update(task.environment)  # the run has a process of its own
        with (
            present(settings.home, row.id),
            masked_output(MASKING),
            tempfile.TemporaryDirectory(prefix="taskcenter-run-") as temp,
        ):
            hold = Hold(settings.home, str(_outermost(flow_run)))
            stack.callback(hold.close)
            yield Session(settings, store, flow_run, recorder, task, chosen, dry_run, prefect_logger, Path(temp), hold)
