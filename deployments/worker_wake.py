"""What makes the worker look for work: the service's bell, an event of the server, a slot's second, a place set free.

Events may be late or lost (Prefect drops them when a subscriber lags), so they only wake; the worker's own polling
goes on beside them, and what a poll finds is what counts. (source: ``prefect.events.clients`` of 3.8)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateName,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.states import Scheduled

from taskcenter_adapter.doorbell import LONGEST, hang_up

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

__all__ = ["Waker", "let_next_in", "states_of"]

_SCHEDULED: Final = "prefect.flow-run.Scheduled"
_CANCELLING: Final = "prefect.flow-run.Cancelling"
_PAUSED: Final = "prefect.flow-run.Paused"
_OTHERS: Final = ("prefect.flow-run.AwaitingRetry", "prefect.flow-run.Resuming", "prefect.flow-run.Late")
_AGAIN: Final = 5.0


class Waker:
    """Calls ``poll`` when there may be work; one call at a time, and one more for what came meanwhile."""

    def __init__(
        self,
        poll: Callable[[], Awaitable[None]],
        changed: Callable[[UUID, StateType], None],
        taken: Callable[[UUID], bool],
        logger: logging.Logger | logging.LoggerAdapter[Any],
        home: Path,
    ) -> None:
        """``taken``: whether the worker has that run already, so that an event of it is no reason to look."""
        self._poll, self._state, self._taken, self._logger, self._home = poll, changed, taken, logger, home
        self._changed = asyncio.Event()
        self._asked = False
        self._named: set[UUID] = set()
        self._slots: set[datetime] = set()

    def wake(self) -> None:
        """Poll now."""
        self._asked = True
        self._changed.set()

    def wake_for(self, run_id: UUID) -> None:
        """Poll now, unless the run was taken meanwhile: the bell is faster than the event."""
        self._named.add(run_id)
        self._changed.set()

    def wake_at(self, slot: datetime) -> None:
        """Poll at that second."""
        if slot not in self._slots:
            self._slots.add(slot)
            self._changed.set()

    async def at_slots(self) -> None:
        """Poll when woken, and at the second of each slot that is known."""
        while True:
            wait = max((min(self._slots) - datetime.now(UTC)).total_seconds(), 0) if self._slots else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            self._changed.clear()
            now = datetime.now(UTC)
            later = {slot for slot in self._slots if slot > now}
            named, self._named = self._named, set()
            if self._asked or later != self._slots or not all(map(self._taken, named)):
                self._asked, self._slots = False, later
                await self._poll()

    async def at_bell(self) -> None:
        """Poll when the service on the same home says that it has made a run."""
        hung = hang_up(self._home)
        if hung is None:
            return
        bell, take_down = hung
        loop = asyncio.get_running_loop()
        try:
            loop.add_reader(bell, self._heard, bell)
            await loop.create_future()  # until the worker ends
        finally:
            loop.remove_reader(bell)
            take_down()

    def _heard(self, bell: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                run_id = bell.recv(LONGEST).decode("ascii", "replace")
                try:
                    self.wake_for(UUID(run_id))
                except ValueError:  # by another version
                    self.wake()

    async def at_events(self) -> None:
        """Listen to the server; after a break, again."""
        names = EventNameFilter(name=[_SCHEDULED, _CANCELLING, _PAUSED, *_OTHERS])
        while True:
            try:
                async with get_events_subscriber(filter=EventFilter(event=names)) as subscriber:
                    async for event in subscriber:
                        run_id = UUID(event.resource.id.removeprefix("prefect.flow-run."))
                        if event.event in (_CANCELLING, _PAUSED):
                            kind = StateType.CANCELLING if event.event == _CANCELLING else StateType.PAUSED
                            self._state(run_id, kind)
                        else:
                            self.wake_for(run_id)
            except Exception as error:
                self._logger.warning("no events (%s); polling goes on", type(error).__name__)
            await asyncio.sleep(_AGAIN)


async def let_next_in(client: PrefectClient, deployment_id: UUID) -> bool:
    """Of the runs that wait for a place of their deployment, the first one may ask for it now; True when one waits.

    Prefect would let each of them ask again after some time only, and who asks first then gets it.
    """
    waiting = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[deployment_id]),
            state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["AwaitingConcurrencySlot"])),
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
    )
    if not waiting:
        return False
    first = min(waiting, key=lambda run: (str(run.created), run.id))
    await client.set_flow_run_state(first.id, Scheduled(message="a place of its task is free"), force=True)
    return True


async def states_of(client: PrefectClient, ids: Sequence[UUID]) -> dict[UUID, StateType]:
    """The states of these runs; none when the server is away: the next look tells."""
    try:
        found = await client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=list(ids))))
    except Exception:
        return {}
    return {flow_run.id: flow_run.state_type for flow_run in found if flow_run.state_type is not None}
