"""One tick: read what is due, ask the core, write all of it. The same for the service and for tests. (spec 4.2)"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from taskcenter.scheduling.decide import decide
from taskcenter_adapter.leases import Lease
from taskcenter_adapter.schedule import Schedule, Stale

__all__ = ["Ticked", "tick", "tick_at"]

_LOG = logging.getLogger("taskcenter.scheduler")

BATCH = 2_000
_TRIES = 5
_MOST_ROUNDS = 100


@dataclass
class Ticked:
    """What one tick did: slots that got a verdict, runs asked for."""

    verdicts: int = 0
    runs: int = 0
    rounds: int = 0


def tick(
    schedule: Schedule,
    now: datetime,
    lease: Lease | None = None,
    *,
    late: bool = False,
    scheduler_id: str = "scheduler",
    clock_jump: tuple[datetime, datetime] | None = None,
    worker_seen: datetime | None = None,
) -> Ticked:
    """Decide everything that is due at ``now``. ``late``: also give up queued runs that waited too long.

    Raises LostLease when another service leads.
    """
    done = Ticked()
    for _ in range(_MOST_ROUNDS):
        for attempt in range(_TRIES):
            # A queued run that begins just now makes giving it up stale: what is due must not wait for that.
            part = schedule.due(now, BATCH, late=late and done.rounds == 0 and attempt < 2)
            if part.empty:
                return done
            state = replace(part.state, scheduler_id=scheduler_id, clock_jump=clock_jump, worker_seen=worker_seen)
            decisions = decide(state, now)
            try:
                schedule.commit(part, decisions, now, lease)
            except Stale:
                if attempt == _TRIES - 1:
                    _LOG.warning("%d triggers were changed while they were decided; the next tick comes soon",
                                 len(part.versions))  # fmt: skip
                    return done
                continue
            break
        done.rounds += 1
        done.verdicts += sum(row.count for row in decisions.occurrences)
        done.runs += len(decisions.runs)
        if not decisions.unfinished and not decisions.firings and len(part.due) < BATCH:
            return done
    return done


def tick_at(
    schedule: Schedule,
    slot: datetime,
    lease: Lease | None,
    wait: Callable[[], bool],
    *,
    scheduler_id: str = "scheduler",
) -> Ticked:
    """Decide what is due at ``slot`` before it comes, and commit when ``wait`` says that it has come.

    What cannot be settled so, or changes meanwhile, is left for the tick. Raises LostLease as it does.
    """
    part = schedule.at_slot(slot, BATCH)
    if part.empty:
        return Ticked()
    decisions = decide(replace(part.state, scheduler_id=scheduler_id), slot)
    try:
        schedule.commit(part, decisions, slot, lease, wait=wait)
    except Stale:
        return Ticked()
    return Ticked(sum(row.count for row in decisions.occurrences), len(decisions.runs), 1)
