"""Reports that could not be written, kept in files until the database is back. (spec 6.2)

A run's process leaves a file; the service, a worker, or the run's next process writes what is in it. Rows are upserts
and ids were made by the reporter, so whoever writes a file, and how often, the tables are the same afterwards.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from taskcenter.errors import ServerAway, SetupError, TaskCenterError
from taskcenter.models import AuditEntry, LogLine, Model, OutboxEvent, Run, StepRun
from taskcenter.ports import Changes, Store

__all__ = ["CANNOT_NOW", "record_all", "replay_spool", "spool"]

_LOG = logging.getLogger("taskcenter.recorder")
CANNOT_NOW: Final = (ServerAway, SetupError)
"""Errors that say something of the database and nothing of what was to be written."""
_KINDS: dict[str, type[Model]] = {
    "runs": Run,
    "steps": StepRun,
    "logs": LogLine,
    "audit": AuditEntry,
    "events": OutboxEvent,
}


def record_all(store: Store, changes: Changes) -> None:
    """Write all of it, or without the rows that are refused; raises one of ``CANNOT_NOW`` when there is no database.

    One row that cannot be stored (its run was deleted meanwhile) must not hold back the others.
    """
    try:
        store.record(changes)
    except CANNOT_NOW:
        raise
    except TaskCenterError as error:
        _LOG.warning("a part of the record is refused: %s", error.message)
        for part in _singly(changes):
            try:
                store.record(part)
            except CANNOT_NOW:
                raise
            except TaskCenterError:
                continue


def _singly(changes: Changes) -> Iterator[Changes]:
    """The same changes one row at a time, in the order in which they depend on each other."""
    yield from (Changes(runs=(row,)) for row in changes.runs)
    yield from (Changes(steps=(row,)) for row in changes.steps)
    yield from (Changes(logs=(row,)) for row in changes.logs)
    yield from (Changes(audit=(row,)) for row in changes.audit)
    yield from (Changes(events=(row,)) for row in changes.events)


def spool(folder: Path, run_id: str, changes: Changes) -> None:
    """Keep what could not be written in a file of its own, complete before it gets its name."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    data = {kind: [row.model_dump(mode="json") for row in getattr(changes, kind)] for kind in _KINDS}
    half = folder / f".{run_id}-{os.getpid()}"
    half.write_text(json.dumps(data), encoding="utf-8")
    half.rename(folder / f"{time.time_ns()}-{run_id}.json")


def replay_spool(store: Store, folder: Path, run_id: str = "*") -> int:
    """Write spooled changes, oldest first; how many files. ``run_id``: only those of this run.

    A file that is written is removed; one that can never be written is set aside and said, so that those behind it
    do not wait for ever.
    """
    count = 0
    for file in sorted(folder.glob(f"*-{run_id}.json")) if folder.is_dir() else ():
        try:
            record_all(store, _read(file))
        except FileNotFoundError:
            continue  # somebody else has just written it
        except CANNOT_NOW:
            raise
        except Exception:
            _LOG.exception("the spooled record %s cannot be written and is kept beside", file)
            file.rename(file.with_suffix(".damaged"))
            continue
        file.unlink(missing_ok=True)
        count += 1
    return count


def _read(file: Path) -> Changes:
    data = json.loads(file.read_text(encoding="utf-8"))
    rows: dict[str, Any] = {name: [kind.model_validate(row) for row in data[name]] for name, kind in _KINDS.items()}
    return Changes(**rows)
