"""The worker's claims on its runs, renewed apart from everything else it does. (spec 5.3)"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from taskcenter.clock import utc_now
from taskcenter.errors import TaskCenterError
from taskcenter.scheduling.admission import Admission, Wait
from taskcenter.settings import Settings
from taskcenter_adapter.leases import holder_of, this_machine
from taskcenter_adapter.run_gate import Asked, RunGate
from taskcenter_adapter.run_leases import RENEW_SECONDS, RunLeases
from taskcenter_adapter.runtime import database_url
from taskcenter_adapter.store import open_store
from taskcenter_adapter.store_sql import SqlStore

__all__ = ["WorkerLeases"]


class WorkerLeases:
    """Leases of one worker. While the database is away nothing is claimed and nothing is lost: nobody can take it."""

    def __init__(self, settings: Settings, logger: logging.Logger | logging.LoggerAdapter[Any]) -> None:
        self._settings, self._logger = settings, logger
        self._store: SqlStore | None = None
        self._taken: set[str] = set()
        self._waits: dict[str, Wait] = {}
        self._told: dict[str, str] = {}
        """What the rows of waiting runs say by now, in the order of the last answer."""
        self._away = False
        self.holder = holder_of()
        self._machine = this_machine()

    def _leases(self) -> RunLeases:
        if self._store is None:
            store = open_store(database_url(self._settings))
            if not isinstance(store, SqlStore):
                raise TypeError("leases need a database")
            self._store = store
        return RunLeases(self._store)

    async def admit(self, asked: Sequence[Asked], places: int | None) -> Admission | None:
        """Who of these starts here now, each with its lease; None while the database cannot be asked."""
        ids = {item.run.id for item in asked}
        self._waits = {run_id: wait for run_id, wait in self._waits.items() if run_id in ids}
        self._told = {run_id: said for run_id, said in self._told.items() if run_id in ids}
        if places == 0 and ids <= self._waits.keys() & self._told.keys():
            return Admission((), self._waits, tuple(self._waits))  # nothing can start, and all rows say why
        return await asyncio.to_thread(self._admit, asked, places)

    def _admit(self, asked: Sequence[Asked], places: int | None) -> Admission | None:
        facts = {**self._machine, "pid": os.getpid()}
        try:
            self._leases()
            assert self._store is not None  # just opened
            gate = RunGate(self._store)
            found = gate.admit(asked, self.holder, utc_now(), facts, places=places, told=self._told)
        except TaskCenterError as error:
            self._logger.log(
                logging.DEBUG if self._away else logging.WARNING,
                "nothing starts while the gate cannot be asked: %s",
                error.message.splitlines()[0],
            )
            self._away = True
            return None
        self._away = False
        self._taken.update(found.start)
        self._waits = {run_id: found.waits[run_id] for run_id in found.order if run_id in found.waits}
        return found

    async def started(self, run_id: UUID, pid: int) -> None:
        """So that whoever rescues the run finds its process."""
        await asyncio.to_thread(self._started, str(run_id), pid)

    def _started(self, run_id: str, pid: int) -> None:
        with contextlib.suppress(TaskCenterError, OSError):  # away, or over already
            self._leases().started(run_id, self.holder, pid, {**self._machine, "pid": os.getpid()})

    async def give_up(self, run_id: UUID) -> None:
        self._taken.discard(str(run_id))
        await asyncio.to_thread(self._give_up, str(run_id))

    def _give_up(self, run_id: str) -> None:
        try:
            self._leases().give_up(run_id, self.holder)
        except TaskCenterError as error:
            self._logger.debug("the lease of %s runs out by itself: %s", run_id, error.message)

    async def leave(self, run_id: UUID) -> None:
        """The run did not end as it should: the service makes sure that its end is known."""
        self._taken.discard(str(run_id))
        await asyncio.to_thread(self._leave, str(run_id))

    def _leave(self, run_id: str) -> None:
        with contextlib.suppress(TaskCenterError):  # the database is away: it runs out by itself
            self._leases().leave(run_id, self.holder, utc_now())

    async def place(self) -> int:
        """This worker's place among those that are there, from 0; 0 while the database is away."""
        return await asyncio.to_thread(self._place)

    def _place(self) -> int:
        try:
            now = utc_now()
            there = sorted(held.holder for held in self._leases().workers() if held.until > now)
        except TaskCenterError:
            return 0
        return there.index(self.holder) if self.holder in there else 0

    async def keep(self, facts: Callable[[], dict[str, Any]], lost: Callable[[UUID], None]) -> None:
        """Renew for ever; ``lost`` is told of each run that was taken from this worker."""
        while True:
            before = set(self._taken)
            held = await asyncio.to_thread(self._renew, before, facts())
            if held is not None:
                for run_id in before & self._taken - held:
                    self._taken.discard(run_id)
                    lost(UUID(run_id))
            await asyncio.sleep(RENEW_SECONDS)

    def _renew(self, run_ids: set[str], facts: dict[str, Any]) -> set[str] | None:
        try:
            leases, now = self._leases(), utc_now()
            held = leases.renew(self.holder, run_ids, now)
            leases.present(self.holder, now, {**self._machine, **facts})
        except TaskCenterError as error:
            self._logger.debug("the leases were not renewed: %s", error.message)
            return None
        return held

    def close(self) -> None:
        """This worker is no more."""
        try:
            self._leases().gone(self.holder)
        except TaskCenterError as error:
            self._logger.debug("%s", error.message)
        if self._store is not None:
            self._store.close()
