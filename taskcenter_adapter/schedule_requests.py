"""Requests for runs, between the ledger and Prefect: to make, to take back, to cancel; and the gate of runs made ahead.

A request stands in the table before its flow run does, and goes when that is taken back. (spec 4.2, 4.8)
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from taskcenter.scheduling.decisions import RunRequest
from taskcenter.scheduling.misfire import held_by
from taskcenter.scheduling.state import Standing
from taskcenter.status import Origin

from .batches import may_start
from .leases import Transactions
from .schedule_read import OPEN, Reader
from .schedule_rows import occurrence_of, request_of
from .schedule_tables import run_cancels, run_requests, slot_ledger
from .schedule_write import Writer
from .statements import chunks, one_of, written, written_in
from .tables import task_runs, tasks

__all__ = ["Requests", "Wanted"]

_WAVE = 4
"""So many runs of one task are made together: it is cheaper for Prefect, and keeps no other task waiting for long."""
_SOON, _LATER = timedelta(minutes=1), timedelta(hours=1)
"""An attempt that a pause keeps waiting stands so far ahead in Prefect, and is moved again in time."""


@dataclass(frozen=True)
class Wanted:
    """A run of the task ``slug`` to make in Prefect.

    ``again``: its first flow run was taken back because it had to wait for its turn.
    """

    request: RunRequest
    slug: str
    again: bool = False


class Requests:
    """Over the database of a store."""

    def __init__(self, store: Transactions) -> None:
        self._store = store

    def wanted(self, now: datetime, limit: int = 200) -> list[Wanted]:
        """Requests without a flow run, in the order of their time, a few of each task together.

        Left out are those that wait for their turn, and those that no person asked for while the scheduler or their
        task is held. They do not count to ``limit``: a backlog of one task keeps no other from its time.
        """
        row = run_requests.c
        with self._store.reading() as connection:
            held = Reader(connection).held_tasks(now)
            may_go = [row.status == written("wanted"), _may_go()]
            turns = may_start(connection)
            may_go.append(sa.or_(row.batch_id.is_(None), row.key.in_(turns)) if turns else row.batch_id.is_(None))
            if held is None:
                may_go.append(row.by_person.is_(True))
            elif held:
                may_go.append(sa.or_(row.by_person.is_(True), ~one_of(row.task_id, held)))
            nth = sa.func.row_number().over(partition_by=row.task_id, order_by=row.due)
            waves = (
                sa.select(row.key, row.task_id, row.rank, row.due, ((nth - 1) // _WAVE).label("wave"))
                .where(*may_go)
                .subquery()
            )
            first = sa.func.min(waves.c.due).over(partition_by=(waves.c.task_id, waves.c.wave))
            inner = sa.select(waves.c.key, waves.c.rank, waves.c.due, first.label("first")).subquery()
            query = (
                sa.select(row.request, tasks.c.slug)
                .join(inner, inner.c.key == row.key)
                .join(tasks, tasks.c.id == row.task_id)
                .order_by(inner.c.first, inner.c.rank, row.task_id, inner.c.due, row.key)
                .limit(limit)
            )
            return [Wanted(request_of(data), slug, bool(data.get("again"))) for data, slug in connection.execute(query)]

    def made(self, pairs: Sequence[tuple[RunRequest, str]]) -> None:
        """Flow runs exist for these requests. Those whose slot has its verdict are queued runs of ours."""

        def work(connection: Connection) -> None:
            row = run_requests.c
            keys = {request.key: run_id for request, run_id in pairs}
            connection.execute(
                sa.update(run_requests)
                .where(row.key == sa.bindparam("b_key"))
                .values(
                    run_id=sa.bindparam("b_run"),
                    status=sa.case((row.status == "wanted", "made"), else_=row.status),
                ),
                [{"b_key": key, "b_run": run_id} for key, run_id in sorted(keys.items())],
            )
            connection.execute(
                sa.update(slot_ledger)
                .where(slot_ledger.c.run_id == sa.bindparam("b_key"))
                .values(run_id=sa.bindparam("b_run")),
                [{"b_key": key, "b_run": run_id} for key, run_id in sorted(keys.items())],
            )
            now_ours: list[tuple[str, RunRequest]] = []
            for some in chunks(keys):
                query = sa.select(row.key, row.request).where(
                    row.key.in_(some), row.ahead.is_(False), row.status == "made"
                )
                now_ours += [(keys[key], request_of(data)) for key, data in connection.execute(query)]
            Writer(connection).add_runs(now_ours)

        if pairs:
            self._store.transaction(work)

    def withdrawn(self, limit: int = 200) -> list[tuple[Wanted, str | None]]:
        """Requests that are to be taken back in Prefect, with their flow run when it is known."""
        row = run_requests.c
        query = (
            sa.select(row.request, tasks.c.slug, row.run_id)
            .join(tasks, tasks.c.id == row.task_id)
            .where(row.status == "withdrawn")
            .limit(limit)
        )
        with self._store.reading() as connection:
            return [
                (Wanted(request_of(data), slug, bool(data.get("again"))), run_id)
                for data, slug, run_id in connection.execute(query)
            ]

    def taken_back(self, keys: Collection[str]) -> None:
        def work(connection: Connection) -> None:
            for some in chunks(keys):
                gone = run_requests.c.key.in_(some) & (run_requests.c.status == "withdrawn")
                connection.execute(sa.delete(run_requests).where(gone))

        self._store.transaction(work)

    def retries_to_move(self, now: datetime) -> list[tuple[str, str, datetime]]:
        """Key, flow run and new time of attempts that wait: beyond their hour while paused, at their own again after.

        A paused attempt keeps its flow run and its row; only its time in Prefect moves.
        """
        row = run_requests.c
        query = (
            sa.select(row.key, row.run_id, row.due, row.task_id, row.request)
            .join(task_runs, task_runs.c.id == row.run_id)
            .where(row.status == "made", row.slot.is_not(None), task_runs.c.status == "queued")
            .where(task_runs.c.attempt > 1, task_runs.c.origin == Origin.SCHEDULER_RETRY.value)
        )
        with self._store.reading() as connection:
            waiting = [dict(item) for item in connection.execute(query).mappings()]
            if not waiting:
                return []
            reader = Reader(connection)
            holds = reader.standings({item["task_id"] for item in waiting})
        moves: list[tuple[str, str, datetime]] = []
        for item in waiting:
            held = held_by((*holds[item["task_id"]], Standing()), now) is not None
            own = request_of(item["request"]).ready_at or item["due"]
            if held and item["due"] < now + _SOON:
                moves.append((item["key"], item["run_id"], now + _LATER))
            elif not held and item["due"] > max(own, now):
                moves.append((item["key"], item["run_id"], max(own, now)))
        return moves

    def moved(self, key: str, at: datetime) -> None:
        """The flow run of this request has another time in Prefect now."""
        self._store.transaction(
            lambda connection: connection.execute(
                sa.update(run_requests).where(run_requests.c.key == key).values(due=at)
            )
        )

    def cancels(self, limit: int = 100) -> list[tuple[str, str]]:
        """Runs to cancel in Prefect, each with the reason."""
        query = sa.select(run_cancels.c.run_id, run_cancels.c.reason).order_by(run_cancels.c.asked_at).limit(limit)
        with self._store.reading() as connection:
            return [(run_id, reason) for run_id, reason in connection.execute(query)]

    def known_runs(self, run_ids: Collection[str]) -> set[str]:
        """Those that are runs of ours; the others were made ahead and got no verdict that lets them start."""
        with self._store.reading() as connection:
            found: set[str] = set()
            for some in chunks(run_ids):
                found.update(connection.execute(sa.select(task_runs.c.id).where(task_runs.c.id.in_(some))).scalars())
        return found

    def cancelled(self, run_ids: Collection[str]) -> None:
        def work(connection: Connection) -> None:
            for some in chunks(run_ids):
                connection.execute(sa.delete(run_cancels).where(run_cancels.c.run_id.in_(some)))

        self._store.transaction(work)

    # the gate ----------------------------------------------------------------------------------------

    def gate(self, run_id: str, trigger_id: str, slot: datetime, *, patience: float = 5.0) -> str | None:
        """Whether a flow run that was made ahead may start: None, or the sentence that says why not.

        Waits for the verdict of its slot as long as somebody leads, at most ``patience`` seconds: with nobody there it
        starts, and gets its verdict when somebody is.
        """
        deadline = time.monotonic() + patience
        while True:
            with self._store.reading() as connection:
                request = connection.execute(
                    sa.select(*(run_requests.c[n] for n in ("ahead", "status", "run_id", "request"))).where(
                        run_requests.c.trigger_id == trigger_id, run_requests.c.slot == slot
                    )
                ).first()
                verdict = connection.execute(
                    sa.select(slot_ledger).where(
                        slot_ledger.c.trigger_id == trigger_id,
                        slot_ledger.c.slot <= slot,
                        sa.func.coalesce(slot_ledger.c.until, slot_ledger.c.slot) >= slot,
                    )
                ).mappings().first()  # fmt: skip
            if verdict is not None:
                found = occurrence_of(dict(verdict))
                if found.verdict.value in ("fired", "backfilled"):
                    if request is not None and request.request.get("again") and request.run_id != run_id:
                        return "it waits for its turn; another flow run is made for it then"
                    if request is None or request.run_id in (None, run_id) or not request.ahead:
                        return None
                elif found.verdict.value != "superseded":
                    return f"its slot was {found.verdict}: {found.reason}"
            if request is None or request.status == "withdrawn":
                return "its slot was taken back by Task Center's scheduler"
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.03)


def _may_go() -> ColumnElement[bool]:
    """Whether no run of its scope, of those asked for and of those that are open, goes before a request."""
    mine = run_requests.c
    return sa.case(
        (mine.serial.is_(None), sa.true()),
        (mine.key.not_in(_first_of_scope()), sa.false()),
        else_=~sa.exists(_open_before().correlate(run_requests)),
    )  # in this order: the last is asked for the few that are left


def _first_of_scope() -> sa.Select[Any]:
    """The keys of serial requests before which nothing else of their scope is asked for, all found in one pass."""
    row = run_requests.c
    waiting = (row.status == written("wanted"), row.ahead.is_(False))
    plain = row.serial.is_(None)
    order = (row.created_at, sa.func.coalesce(row.slot, row.created_at), row.key)
    with_turns = sa.select(row.task_id).where(*waiting, ~plain)
    columns: list[Any] = [row.key, row.serial]
    for scope in (row.task_id, row.trigger_id):
        columns += [
            sa.func.row_number().over(partition_by=(scope, plain), order_by=order).label(f"place_in_{scope.name}"),
            sa.func.sum(sa.case((plain, 1), else_=0)).over(partition_by=scope).label(f"plain_in_{scope.name}"),
        ]
    asked = sa.select(*columns).where(*waiting, row.task_id.in_(with_turns)).subquery("asked").c
    return sa.select(asked.key).where(
        asked.serial.is_not(None),
        sa.case(
            (asked.serial == written("task"), (asked.place_in_task_id == 1) & (asked.plain_in_task_id == 0)),
            else_=(asked.place_in_trigger_id == 1) & (asked.plain_in_trigger_id == 0),
        ),
    )


def _open_before() -> sa.Select[Any]:
    """Runs of its scope that are queued or running and go before the request of the row outside."""
    mine = run_requests.c
    run, asked = task_runs.alias("run"), run_requests.alias("asked")
    own = sa.tuple_(mine.created_at, sa.func.coalesce(mine.slot, mine.created_at), mine.key)
    place = sa.tuple_(run.c.created_at, sa.func.coalesce(run.c.slot, run.c.created_at), run.c.id)
    found: sa.Select[Any] = sa.select(sa.literal_column("1")).select_from(
        run.outerjoin(asked, asked.c.run_id == run.c.id)
    )
    return found.where(
        written_in(run.c.status, OPEN),
        run.c.task_id == mine.task_id,
        sa.or_(mine.serial == written("task"), run.c.trigger_id == mine.trigger_id),
        # one that was made ahead goes before nobody until its slot has a verdict
        sa.or_(asked.c.key.is_(None), asked.c.ahead.is_(False)),
        sa.or_(run.c.status != written("queued"), asked.c.serial.is_(None), place < own),
    )
