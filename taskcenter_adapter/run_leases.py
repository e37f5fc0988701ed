"""Who works on which run: claims that a worker renews, in the table ``leases``. (spec 5.3)

The gate (``run_gate``) gives a worker the lease of a run that it may start. The worker renews all of its leases in one
statement, and gives each up when its run is over. A lease that has run out is a run whose worker nobody has heard of:
whoever takes that lease over, one at a time, closes the run. A worker keeps a lease of its own too, with what it
says of itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from .leases import LEFT, TAKEN, Lease
from .orphans import process_started
from .schedule_tables import leases
from .statements import one_of
from .store_sql import SqlStore

__all__ = ["CLOSING", "LEASE", "PLACE", "RENEW_SECONDS", "RUN", "RunLeases"]

LEASE: Final = timedelta(seconds=30)
CLOSING: Final = timedelta(seconds=10)
"""For so long whoever takes a run over has it for himself."""
RENEW_SECONDS: Final = 5.0
RUN: Final = "run:"
PLACE: Final = "place:"
"""Of a run that no worker of ours started; it counts while it is renewed. See ``run_gate``."""
_WORKER: Final = "worker:"


class RunLeases:
    """The leases in a store's database."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    def started(self, run_id: str, holder: str, pid: int, facts: Mapping[str, Any]) -> None:
        """The run has a process now."""
        mine = (leases.c.name == RUN + run_id) & (leases.c.holder == holder)
        process = {**facts, "runPid": pid, "runStarted": process_started(pid)}

        def work(connection: sa.Connection) -> None:
            known = connection.execute(sa.select(leases.c.facts).where(mine)).scalar() or {}
            connection.execute(sa.update(leases).where(mine), {"facts": {**known, **process}})

        self._store.transaction(work)

    def renew(self, holder: str, run_ids: Collection[str], now: datetime, kind: str = RUN) -> set[str]:
        """Hold these runs (or places of runs) for longer; gives the ids of those that are still the holder's own.

        A claim that the worker does not know of, because the answer to it was lost, runs out.
        """
        mine = (leases.c.holder == holder) & one_of(leases.c.name, [kind + run_id for run_id in run_ids])

        def work(connection: sa.Connection) -> set[str]:
            connection.execute(sa.update(leases).where(mine), {"until": now + LEASE})
            return {
                name.removeprefix(kind) for name in connection.execute(sa.select(leases.c.name).where(mine)).scalars()
            }

        return self._store.transaction(work)

    def give_up(self, run_id: str, holder: str, kind: str = RUN) -> None:
        """The run is over, or somebody else's."""
        mine = (leases.c.name == kind + run_id) & (leases.c.holder == holder)
        self._store.transaction(lambda connection: connection.execute(sa.delete(leases).where(mine)))

    def leave(self, run_id: str, holder: str, now: datetime) -> None:
        """The worker has done with a run and does not know whether Prefect took its end: whoever rescues looks."""
        mine = (leases.c.name == RUN + run_id) & (leases.c.holder == holder)
        values = {"holder": f"{LEFT}{holder}", "until": now}
        self._store.transaction(lambda connection: connection.execute(sa.update(leases).where(mine), values))

    def held(self, run_ids: Collection[str]) -> set[str]:
        """Those of the runs that a worker of ours is at work on."""
        query = sa.select(leases.c.name).where(one_of(leases.c.name, [RUN + run_id for run_id in run_ids]))
        with self._store.reading() as connection:
            return {name.removeprefix(RUN) for name in connection.execute(query).scalars()}

    def runs(self) -> list[Lease]:
        return self._all(RUN)

    def take_over(self, held: Lease, now: datetime) -> Lease | None:
        """Take a run from its worker, to close it; for one caller only, and None when the worker renewed or ended.

        Who does not come to the end of it, or dies, has lost it after a while: another one closes the run then.
        """
        mine = Lease(held.name, TAKEN + held.holder.removeprefix(TAKEN), held.epoch + 1, now + CLOSING, held.facts)
        change = sa.update(leases).where(_same(held)).values(holder=mine.holder, epoch=mine.epoch, until=mine.until)
        return mine if self._store.transaction(lambda connection: connection.execute(change).rowcount) else None

    def drop(self, held: Lease) -> None:
        """The run is closed."""
        self._store.transaction(lambda connection: connection.execute(sa.delete(leases).where(_same(held))))

    def present(self, holder: str, now: datetime, facts: Mapping[str, Any]) -> None:
        """A worker says that it is there, and how it stands."""
        name = _WORKER + holder
        values = {"holder": holder, "until": now + LEASE, "facts": dict(facts)}

        def work(connection: sa.Connection) -> None:
            if not connection.execute(sa.update(leases).where(leases.c.name == name), values).rowcount:
                connection.execute(sa.insert(leases), {"name": name, "epoch": 1, **values})

        self._store.transaction(work, races=True)

    def gone(self, holder: str) -> None:
        """A worker that stops takes its name away."""
        mine = leases.c.name == _WORKER + holder
        self._store.transaction(lambda connection: connection.execute(sa.delete(leases).where(mine)))

    def workers(self) -> list[Lease]:
        return self._all(_WORKER)

    def forget_silent(self, before: datetime) -> None:
        """Workers, and places of runs, that nobody has heard of since then."""
        old = sa.or_(*map(leases.c.name.startswith, (_WORKER, PLACE))) & (leases.c.until < before)
        self._store.transaction(lambda connection: connection.execute(sa.delete(leases).where(old)))

    def _all(self, kind: str) -> list[Lease]:
        query = sa.select(leases).where(leases.c.name.startswith(kind)).order_by(leases.c.name)
        with self._store.reading() as connection:
            rows = connection.execute(query).mappings().all()
        return [
            Lease(row["name"].removeprefix(kind), row["holder"], row["epoch"], row["until"], row["facts"] or {})
            for row in rows
        ]


def _same(held: Lease) -> sa.ColumnElement[bool]:
    """The lease as it was seen."""
    return sa.and_(leases.c.name == RUN + held.name, leases.c.epoch == held.epoch, leases.c.until == held.until)
