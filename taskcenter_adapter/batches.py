"""Batches in the database: asked for whole or not at all, fed so many at once, closed when all is over. (spec 1.4)

An item waits as a request (``schedule_requests``) until a place of its batch is free. So at most ``parallel`` runs of a
batch are on their way, whatever was killed in between, and all limits of the gate count for each of them as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from taskcenter import events
from taskcenter.batches import Batch, BatchItem, ItemStatus, summary
from taskcenter.models import AuditEntry
from taskcenter.options import RunOptions
from taskcenter.scheduling.decisions import RunRequest
from taskcenter.status import Origin, Priority

from .leases import Transactions
from .rows import clean_json, clean_text, event_row
from .schedule_read import OPEN
from .schedule_tables import run_batches, run_requests
from .schedule_write import Writer
from .statements import add_audit, written, written_in
from .tables import outbox_events, task_runs

__all__ = ["Batches", "may_start"]

_TICK: Final = timedelta(microseconds=1)
_COLUMNS = [run_batches.c[name] for name in Batch.model_fields]


class Batches:
    """Over the database of a store."""

    def __init__(self, store: Transactions) -> None:
        self._store = store

    def ask(self, batch: Batch, priority: Priority, audit: Sequence[AuditEntry]) -> None:
        """Keep the batch and ask for all of its runs, in one transaction."""
        options = batch.options.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        row = {
            **{name: getattr(batch, name) for name in Batch.model_fields},
            **{"items": clean_json(list(batch.items)), "payload": clean_json(batch.payload), "options": options},
        }
        wanted = [
            RunRequest(
                key=_key(batch.id, number),
                task_id=batch.task_id,
                created_at=batch.created_at + number * _TICK,
                ready_at=batch.created_at + number * _TICK,
                origin=Origin.MANUAL,
                priority=priority,
                payload={**batch.payload, **item},
                options=options or None,
                caught_up=True,
                batch_id=batch.id,
                batch_item=number,
            )
            for number, item in enumerate(batch.items, 1)
        ]

        def work(connection: Connection) -> None:
            connection.execute(sa.insert(run_batches), row)
            Writer(connection).requests(wanted)
            add_audit(connection, audit)

        self._store.transaction(work)

    def find(self, batch_id: str) -> Batch | None:
        with self._store.reading() as connection:
            return _find(connection, batch_id)

    def ids(self, beginning: str, *, limit: int = 2) -> list[str]:
        """Ids that begin so, in their order."""
        row = run_batches.c
        query = sa.select(row.id).where(row.id.startswith(clean_text(beginning), autoescape=True))
        with self._store.reading() as connection:
            return list(connection.execute(query.order_by(row.id).limit(limit)).scalars())

    def page(self, task_id: str | None = None, *, limit: int = 50, offset: int = 0) -> list[Batch]:
        """Newest first."""
        row = run_batches.c
        query = sa.select(*_COLUMNS).order_by(row.created_at.desc(), row.id.desc()).limit(limit).offset(offset)
        if task_id is not None:
            query = query.where(row.task_id == task_id)
        with self._store.reading() as connection:
            return [_batch(item) for item in connection.execute(query).mappings()]

    def items(self, batch: Batch, *, results: bool = False) -> list[BatchItem]:
        """Each with its run, in their order. ``results``: with what each has given."""
        with self._store.reading() as connection:
            return _items(connection, batch, results=results)

    def cancel(self, batch_id: str, reason: str, audit: Sequence[AuditEntry]) -> list[str] | None:
        """No further item starts; gives the runs that are on their way, or None when it is over or cancelled."""

        def work(connection: Connection) -> list[str] | None:
            batch = _locked(connection, batch_id)
            if batch is None or batch.cancelled:
                return None
            _stop(connection, batch_id, reason, cancelled=True)
            add_audit(connection, audit)
            run = task_runs.c
            going = sa.select(run.id).where(run.batch_id == batch_id, written_in(run.status, OPEN))
            return list(connection.execute(going.order_by(run.batch_item)).scalars())

        return self._store.transaction(work)

    def tend(self, now: datetime) -> int:
        """Stop batches that met an error and are to stop then, close those that are over; how many were changed."""
        going = sa.select(run_batches.c.id).where(run_batches.c.closed_at.is_(None))
        with self._store.reading() as connection:
            ids = list(connection.execute(going.order_by(run_batches.c.created_at)).scalars())
        return sum(self._store.transaction(_tending(batch_id, now)) for batch_id in ids)


def may_start(connection: Connection) -> list[str]:
    """The keys of the requests whose turn in their batch has come."""
    found: list[str] = []
    batch, asked, run = run_batches.c, run_requests.c, task_runs.c
    bad = sa.exists().where(run.batch_id == batch.id, run.status == written("failed")).correlate(run_batches)
    going_on = sa.select(batch.id, batch.parallel).where(
        batch.closed_at.is_(None), batch.stopped.is_(None), sa.not_(sa.and_(batch.stop_on_error, bad))
    )
    for row in connection.execute(going_on):
        going = sa.select(sa.func.count()).where(run.batch_id == row.id, written_in(run.status, OPEN))
        room = row.parallel - connection.execute(going).scalar_one()
        if room > 0:
            mine = sa.select(asked.key).where(asked.batch_id == row.id, asked.status == written("wanted"))
            found += connection.execute(mine.order_by(asked.due, asked.key).limit(room)).scalars()
    return found


def _tending(batch_id: str, now: datetime) -> Callable[[Connection], int]:
    def work(connection: Connection) -> int:
        batch = _locked(connection, batch_id)
        if batch is None:
            return 0
        run, asked = task_runs.c, run_requests.c
        did = 0
        if batch.stop_on_error and batch.stopped is None:
            bad = sa.select(sa.func.min(run.batch_item)).where(run.batch_id == batch_id, run.status == "failed")
            if (number := connection.execute(bad).scalar()) is not None:
                text = f"item {number} failed, and the batch stops on an error"
                _stop(connection, batch_id, text)
                add_audit(connection, [_said("batch_stopped", batch, text, now)])
                batch, did = batch.model_copy(update={"stopped": text}), 1
        waiting = sa.exists().where(asked.batch_id == batch_id, asked.status == written("wanted"))
        going = sa.exists().where(run.batch_id == batch_id, written_in(run.status, OPEN))
        if connection.execute(sa.select(sa.or_(waiting, going))).scalar():
            return did
        _close(connection, batch, now)
        return 1

    return work


def _close(connection: Connection, batch: Batch, now: datetime) -> None:
    found = summary(_items(connection, batch))
    closed = batch.model_copy(update={"closed_at": now, "summary": found})
    values = {"closed_at": now, "summary": clean_json(found)}
    connection.execute(sa.update(run_batches).where(run_batches.c.id == batch.id), values)
    counts = {name: count for name, count in found["counts"].items() if count}
    text = ", ".join(f"{count} {name}" for name, count in counts.items())
    add_audit(connection, [_said("batch_finished", batch, text, now, counts=counts)])
    connection.execute(sa.insert(outbox_events), event_row(events.batch_finished(closed, now)))


def _stop(connection: Connection, batch_id: str, reason: str, *, cancelled: bool = False) -> None:
    """What was only asked for is taken back; whoever makes runs looks whether one was made all the same."""
    batch, asked = run_batches.c, run_requests.c
    connection.execute(
        sa.update(run_batches).where(batch.id == batch_id), {"stopped": clean_text(reason), "cancelled": cancelled}
    )
    waiting = (asked.batch_id == batch_id) & (asked.status == "wanted")
    connection.execute(sa.update(run_requests).where(waiting).values(status="withdrawn"))


def _locked(connection: Connection, batch_id: str) -> Batch | None:
    """The batch, if it is not over; until the end of the transaction it is nobody else's."""
    batch = run_batches.c
    query = sa.select(*_COLUMNS).where(batch.id == batch_id, batch.closed_at.is_(None)).with_for_update()
    row = connection.execute(query).mappings().first()
    return _batch(row) if row is not None else None


def _find(connection: Connection, batch_id: str) -> Batch | None:
    query = sa.select(*_COLUMNS).where(run_batches.c.id == clean_text(batch_id))
    row = connection.execute(query).mappings().first()
    return _batch(row) if row is not None else None


def _batch(row: Any) -> Batch:
    values = dict(row)
    values["options"] = RunOptions.model_validate(values["options"] or {})
    return Batch(**values)


def _items(connection: Connection, batch: Batch, *, results: bool = False) -> list[BatchItem]:
    run, asked = task_runs.c, run_requests.c
    columns = [run[name] for name in ("batch_item", "id", "status", "message", "error", "duration_ms")]
    query = sa.select(*columns, *([run.result] if results else [])).where(run.batch_id == batch.id)
    of_run = {row["batch_item"]: row for row in connection.execute(query).mappings()}
    waits = sa.select(asked.key).where(asked.batch_id == batch.id, asked.status.in_(("wanted", "made")))
    waiting = {_number(key) for key in connection.execute(waits).scalars()} if batch.closed_at is None else set()
    ended = (batch.summary or {}).get("statuses") or []
    found = []
    for number in range(1, len(batch.items) + 1):
        row = of_run.get(number)
        if row is not None:
            found.append(
                BatchItem(
                    number, ItemStatus(row["status"]), row["id"], row["message"], row["error"], row["duration_ms"],
                    row["result"] if results else None,
                )
            )  # fmt: skip
        elif len(ended) >= number:  # retention may have taken its run since
            found.append(BatchItem(number, ItemStatus(ended[number - 1])))
        else:
            found.append(BatchItem(number, ItemStatus.WAITING if number in waiting else ItemStatus.NOT_STARTED))
    return found


def _key(batch_id: str, number: int) -> str:
    return f"batch {batch_id} {number:05}"


def _number(key: str) -> int:
    return int(key.rpartition(" ")[2])


def _said(kind: str, batch: Batch, message: str, now: datetime, **metadata: Any) -> AuditEntry:
    return AuditEntry(
        event_type=kind, task_id=batch.task_id, object=f"batch {batch.id}", message=message,
        metadata={"items": len(batch.items), **metadata}, created_at=now,
    )  # fmt: skip
