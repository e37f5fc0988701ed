"""Reads what the numbers about runs need, column by column. (spec 5.8)"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import sqlalchemy as sa

from taskcenter.ports import RunFilter, Store
from taskcenter.statistics import Fact
from taskcenter.status import RunPhase, RunStatus

from .store_sql import SqlStore
from .tables import task_runs

__all__ = ["run_facts"]


def run_facts(store: Store, since: datetime, until: datetime, task_ids: frozenset[str] | None = None) -> Iterator[Fact]:
    """Runs that were asked for in ``[since, until)``; dry runs are none. ``task_ids``: only of these tasks."""
    if not isinstance(store, SqlStore):
        yield from _slowly(store, since, until, task_ids)
        return
    run = task_runs.c
    query = sa.select(
        run.status, run.phase, run.created_at, run.slot, run.started_at, run.duration_ms, run.error, run.task_slug
    ).where(run.created_at >= since, run.created_at < until, run.dry_run.is_(False))
    if task_ids is not None:
        query = query.where(run.task_id.in_(task_ids))
    with store.reading() as connection:
        for row in connection.execution_options(stream_results=True, yield_per=2000).execute(query):
            yield Fact(
                RunStatus(row[0]), RunPhase(row[1]) if row[1] else None, row[2], row[3], row[4], row[5], row[6], row[7]
            )


def _slowly(store: Store, since: datetime, until: datetime, task_ids: frozenset[str] | None) -> Iterator[Fact]:
    cursor: str | None = None
    while True:
        page = store.list_runs(RunFilter(limit=500, cursor=cursor))
        for run in page.items:
            if since <= run.created_at < until and not run.dry_run and (task_ids is None or run.task_id in task_ids):
                yield Fact(run.status, run.phase, run.created_at, run.slot, run.started_at, run.duration_ms, run.error,
                           run.task_slug)  # fmt: skip
        if page.next_cursor is None:
            return
        cursor = page.next_cursor
