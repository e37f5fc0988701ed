"""The scheduler in the service: one leader among all services, by a lease in the database. (spec 4.2)

Three threads. The *clock* holds the lease, decides what is due and writes the verdicts; it never waits for Prefect. The
*hand* makes, takes back and cancels flow runs. The *eye* looks for what was changed in Prefect and takes it over. Each
may die at any moment: all that they do is in the tables first.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from taskcenter.clock import utc_now
from taskcenter.errors import TaskCenterError
from taskcenter.scheduling.state import Firing, Horizon
from taskcenter.settings import Settings
from taskcenter_adapter.leases import Lease, LostLease, holder_of, this_machine
from taskcenter_adapter.schedule import DEFAULT_HORIZON, Schedule

from ..services.center import Center
from .dispatch import Dispatcher
from .take_over import TakeOver
from .tick import tick, tick_at

__all__ = ["Scheduler"]

_LOG = logging.getLogger("taskcenter.scheduler")
LEASE = timedelta(seconds=8)
"""A leader that is silent for so long is followed by a standby; renewed four times within it."""
_LOOK = 0.5
"""Seconds between two looks for what nobody announced: requests, ended runs, edits."""
_AHEAD = 2.0
"""Seconds before a slot from which on its verdicts may be written, unseen, to be committed when it comes."""
_MANY = 20
"""So many triggers at one slot are decided before it."""
_PACE = 0.001
"""Seconds that one of them takes, at least; measured again each time."""
_LATE_EVERY = 5.0
_PREFECT_EVERY, _PREFECT_AT_LEAST = 5.0, 10.0
"""Seconds between two looks for changes made in Prefect: more when a look takes long, never more than the second."""
_JUMP = timedelta(seconds=60)
_STARTUP_WITHIN = 60.0


class Scheduler:
    """Both threads of one service. ``now`` is the clock of the slots."""

    def __init__(
        self,
        settings: Settings,
        *,
        now: Callable[[], datetime] = utc_now,
        horizon: Horizon = DEFAULT_HORIZON,
        lease: timedelta = LEASE,
        open_center: Callable[[Settings], Center] = Center,
    ) -> None:
        self._settings = settings
        self._lease = lease
        self._open_center = open_center
        self._now = now
        self._horizon = horizon
        self.holder = holder_of()
        self._stopping = threading.Event()
        self._work = threading.Event()
        self._leads = threading.Event()
        self._threads = [
            threading.Thread(target=self._keep, args=(self._clock,), name="scheduler", daemon=True),
            threading.Thread(target=self._keep, args=(self._hand,), name="dispatcher", daemon=True),
            threading.Thread(target=self._keep, args=(self._eye,), name="take-over", daemon=True),
        ]
        self._deployments: list[dict[str, Any]] | None = None
        self._pace = _PACE
        self._born = time.monotonic()
        self._started_up = False

    @property
    def leads(self) -> bool:
        return self._leads.is_set()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._work.set()
        for thread in self._threads:
            thread.join(15)

    def _keep(self, body: Callable[[Center], None]) -> None:
        """A thread that goes on: what fails is said and tried again."""
        said = ""
        while not self._stopping.is_set():
            try:
                with self._open_center(self._settings) as center:
                    body(center)
            except TaskCenterError as error:
                text = error.message.splitlines()[0]
                if text != said:
                    _LOG.warning("%s", text)
                said = text
            except Exception:  # the slots of all other triggers must not end with one defect
                _LOG.exception("the scheduler met a defect")
            self._stopping.wait(1.0)

    # the clock -------------------------------------------------------------------------------------

    def _clock(self, center: Center) -> None:
        schedule = center.need_schedule()
        lease: Lease | None = None
        renew = late = 0.0
        seen: tuple[datetime, float] = (self._now(), time.monotonic())
        try:
            while not self._stopping.is_set():
                now, beat = self._now(), time.monotonic()
                if lease is None or beat >= renew:
                    lease, renew = self._take(schedule, lease, now), beat + self._lease.total_seconds() / 4
                if lease is None:
                    self._stopping.wait(self._lease.total_seconds() / 8)
                    seen = (self._now(), time.monotonic())
                    continue
                jump = self._jumped(seen, now, beat)
                seen = (now, beat)
                try:
                    done = tick(
                        schedule, now, lease, late=beat >= late, scheduler_id=self.holder, clock_jump=jump
                    )  # fmt: skip
                    if beat >= late:
                        late = beat + _LATE_EVERY
                    refilled = schedule.refill(now, self._horizon, lease)
                except LostLease:
                    _LOG.warning("another service has taken the lead")
                    lease = None
                    self._leads.clear()
                    continue
                if done.runs or done.verdicts or refilled:
                    self._work.set()
                self._wait(schedule, lease)
        finally:
            self._leads.clear()
            if lease is not None:
                schedule.lead.give_up(lease)

    def _take(self, schedule: Schedule, lease: Lease | None, now: datetime) -> Lease | None:
        facts: dict[str, Any] = {**this_machine(), "pid": os.getpid(), "tickedAt": now.isoformat()}
        # The lease counts real time, whatever clock the slots have.
        taken = schedule.lead.take(self.holder, utc_now(), self._lease, facts=facts)
        if taken is None:
            self._leads.clear()
        elif lease is None:
            _LOG.info("this service leads the scheduler (epoch %d)", taken.epoch)
            schedule.adopt(now)
            self._start_up(schedule, now)
            self._leads.set()
            self._work.set()
        return taken

    def _start_up(self, schedule: Schedule, now: datetime) -> None:
        """``startup`` triggers fire once when a service starts; a standby that takes over later has not started."""
        if self._started_up or time.monotonic() - self._born > _STARTUP_WITHIN:
            return
        self._started_up = True
        for trigger in schedule.startup_triggers():
            schedule.fire(Firing(f"{trigger.id} startup {self.holder}", trigger.id, now), trigger.task_id)

    @staticmethod
    def _jumped(seen: tuple[datetime, float], now: datetime, beat: float) -> tuple[datetime, datetime] | None:
        ran = timedelta(seconds=beat - seen[1])
        return (seen[0], now) if now - seen[0] > ran + _JUMP else None

    def _wait(self, schedule: Schedule, lease: Lease) -> None:
        """Until the next slot, at most a look's time; many triggers are decided a moment before it."""
        upcoming = schedule.next_look()
        seconds = _LOOK
        if upcoming is not None:
            left = (upcoming - self._now()).total_seconds()
            count = schedule.count_at(upcoming) if 0 < left < _AHEAD + _LOOK else 0
            if count >= _MANY:
                left -= min(_AHEAD, 0.1 + count * self._pace)
                if left <= 0:
                    if self._decide_ahead(schedule, upcoming, lease, count):
                        return
                    # Nothing could be prepared (their tasks are at work): asking again at once would find the same.
                    left = (upcoming - self._now()).total_seconds()
            seconds = min(seconds, max(0.0, left))
        self._stopping.wait(max(seconds, 0.005))

    def _decide_ahead(self, schedule: Schedule, slot: datetime, lease: Lease, count: int) -> bool:
        """All that a slot's triggers cost is done before it; what is left for the slot itself is one commit.

        False when nothing was written so.
        """
        begin = time.monotonic()

        def wait() -> bool:
            self._pace = max(2 * (time.monotonic() - begin) / count, _PACE)
            while (left := (slot - self._now()).total_seconds()) > 0:
                if left > _AHEAD or self._stopping.wait(left):  # the clock was set back, or this service ends
                    return False
            return True

        try:
            if not tick_at(schedule, slot, lease, wait, scheduler_id=self.holder).verdicts:
                return False
            self._work.set()
        except LostLease:
            pass  # the next tick finds out, too
        return True

    # the hand --------------------------------------------------------------------------------------

    def _hand(self, center: Center) -> None:
        schedule = center.need_schedule()
        dispatcher = Dispatcher(schedule.requests, center.gateway)
        try:
            while not self._stopping.is_set():
                if not self._leads.is_set():
                    self._stopping.wait(0.2)
                    continue
                self._work.clear()
                seen, self._deployments = self._deployments, None
                if seen is not None:
                    dispatcher.look(seen)
                did = schedule.batches.tend(self._now())
                if not dispatcher.step(self._now()) + did:
                    self._work.wait(_LOOK)
        finally:
            dispatcher.close()

    # the eye ---------------------------------------------------------------------------------------

    def _eye(self, center: Center) -> None:
        taken = TakeOver(center)
        while not self._stopping.is_set():
            begin = time.monotonic()
            if self._leads.is_set():
                self._deployments = taken.step()
            # A thousand deployments take Prefect seconds to read, and it is to have time for other things.
            took = time.monotonic() - begin
            rest = min(max(_PREFECT_EVERY, 2 * took), _PREFECT_AT_LEAST)
            self._stopping.wait(rest if self._leads.is_set() else 0.2)
