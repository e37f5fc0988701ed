"""Leases in the table ``leases``: what one is, and the one that makes a service the scheduler's leader. (spec 4.2, 5.3)

The leases of runs and workers, of the same table, stand in ``run_leases``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from .orphans import process_started, worker_lives
from .schedule_read import SCHEDULER
from .schedule_tables import leases

__all__ = ["LEFT", "TAKEN", "Lead", "Lease", "LostLease", "Transactions", "holder_of", "this_machine"]

T = TypeVar("T")
LEFT: Final = "left by "
"""Before the holder of a lease whose process has done with it."""
TAKEN: Final = "taken from "
"""Before the holder of a lease that somebody took in order to close its run."""


class LostLease(Exception):
    """Another service leads now."""


class Transactions(Protocol):
    """What is needed of the store."""

    engine: Engine

    def reading(self) -> AbstractContextManager[Connection]: ...
    def transaction(self, work: Callable[[Connection], T], *, races: bool = False) -> T: ...


def this_machine() -> dict[str, str]:
    """Host and boot: a process number means something only there, and only until the next boot."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return {"host": socket.gethostname(), "boot": boot}


def holder_of(pid: int | None = None) -> str:
    """``host/pid@start`` of a process."""
    number = pid or os.getpid()
    return f"{socket.gethostname()}/{number}@{process_started(number)}"


@dataclass(frozen=True)
class Lease:
    """``name`` is what it is a lease of: the scheduler, a run's id, a worker's holder."""

    name: str
    holder: str
    epoch: int
    until: datetime
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def left(self) -> bool:
        """Whether its holder lives and has done with it."""
        return self.holder.startswith(LEFT)

    @property
    def taken(self) -> bool:
        """Whether somebody is closing its run, or was and did not come to the end of it."""
        return self.holder.startswith(TAKEN)

    @property
    def here(self) -> bool:
        """Whether its holder is, or was, a process of this machine."""
        return bool(self.facts.get("host") == socket.gethostname())

    @property
    def dead(self) -> bool:
        """Whether its holder is known to be gone: another boot of this machine, or no such process."""
        if not self.here:
            return self.left
        if self.left:
            return True
        rebooted = self.facts.get("boot") != this_machine()["boot"]
        return rebooted or not worker_lives(self.holder.partition("/")[2])

    @property
    def pid(self) -> int | None:
        """The run's own process, while that lives on this machine."""
        number, began = self.facts.get("runPid"), self.facts.get("runStarted")
        if not self.here or number is None or not worker_lives(f"{number}@{began}"):
            return None
        return int(number)


class Lead:
    """The lease of the scheduler: one service at a time, and a former holder writes nothing."""

    def __init__(self, store: Transactions) -> None:
        self._store = store

    def take(
        self, holder: str, now: datetime, ttl: timedelta, *, facts: Mapping[str, Any] | None = None
    ) -> Lease | None:
        """The lease, when it is free, run out or the holder's own; None while somebody else has it.

        A holder that was a process of this machine and is gone has it no longer, even before it has run out.
        """

        def work(connection: Connection) -> Lease | None:
            query = sa.select(leases).where(leases.c.name == SCHEDULER).with_for_update()
            row = connection.execute(query).mappings().first()
            until = now + ttl
            values = {"holder": holder, "until": until, "facts": dict(facts) if facts else None}
            if row is None:
                connection.execute(sa.insert(leases), {"name": SCHEDULER, "epoch": 1, **values})
                return Lease(SCHEDULER, holder, 1, until)
            # A clock that was set back must not keep a dead holder in office for long.
            held = row["until"] > now and row["until"] - now <= 4 * ttl
            held = held and not _of_row(dict(row)).dead
            if row["holder"] != holder and held:
                return None
            epoch = row["epoch"] if row["holder"] == holder else row["epoch"] + 1
            connection.execute(sa.update(leases).where(leases.c.name == SCHEDULER), {"epoch": epoch, **values})
            return Lease(SCHEDULER, holder, epoch, until)

        return self._store.transaction(work, races=True)

    def give_up(self, lease: Lease) -> None:
        """So that a standby need not wait."""
        mine = (leases.c.name == lease.name) & (leases.c.holder == lease.holder) & (leases.c.epoch == lease.epoch)
        self._store.transaction(lambda connection: connection.execute(sa.delete(leases).where(mine)))

    def find(self) -> Lease | None:
        with self._store.reading() as connection:
            row = connection.execute(sa.select(leases).where(leases.c.name == SCHEDULER)).mappings().first()
        return _of_row(dict(row)) if row else None

    def fence(self, connection: Connection, lease: Lease | None) -> None:
        """Raises LostLease in the caller's transaction when ``lease`` is no longer the one in force."""
        if lease is None:
            return
        mine = (leases.c.name == lease.name) & (leases.c.holder == lease.holder) & (leases.c.epoch == lease.epoch)
        query = sa.select(leases.c.name).where(mine).with_for_update(read=True)
        if connection.execute(query).first() is None:
            raise LostLease


def _of_row(row: Mapping[str, Any]) -> Lease:
    return Lease(row["name"], row["holder"], row["epoch"], row["until"], row["facts"] or {})
