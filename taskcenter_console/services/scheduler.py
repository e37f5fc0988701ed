"""The scheduler as a whole: its state, who leads, pausing and resuming it. (spec 4.2)"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from taskcenter.clock import utc_now
from taskcenter.errors import Problem, Refused, ValidationFailed
from taskcenter.models import MisfirePolicy, OutboxEvent
from taskcenter.scheduling.state import Hold, Mode, Standing
from taskcenter.slot_reasons import iso

from . import triggers
from .center import Caller, Center

__all__ = ["SchedulerState", "hold", "resume", "state"]


@dataclass(frozen=True)
class SchedulerState:
    """``mode`` since when, by whom, why and until when; and the service that leads."""

    mode: str
    since: datetime | None
    until: datetime | None
    by: str
    note: str
    owed: int
    """Slots that wait for their verdict."""
    leader: dict[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "state": self.mode,
            "since": iso(self.since),
            "until": iso(self.until),
            "by": self.by,
            "note": self.note,
            "owed": self.owed,
            "leader": self.leader,
        }


def state(center: Center) -> SchedulerState:
    now = utc_now()
    schedule = center.need_schedule()
    standing = schedule.standing()
    held = standing.at(now)
    lease = schedule.lead.find()
    leader = None
    if lease is not None and lease.until > now:
        leader = {"holder": lease.holder, "epoch": lease.epoch, "until": iso(lease.until), **dict(lease.facts or {})}
    return SchedulerState(
        mode=(held.mode if held else Mode.RUNNING).value,
        since=held.since if held else None,
        until=held.until if held else None,
        by=held.by if held else "",
        note=held.note if held else "",
        owed=triggers.owed(center) if held is not None and held.mode is Mode.PAUSED else 0,
        leader=leader,
    )


def hold(center: Center, mode: Mode, caller: Caller, *, until: datetime | None = None, note: str = "") -> Standing:
    """Pause it (slots wait) or disable it (slots are skipped). Nothing fires until it is resumed, or ``until``."""
    now = utc_now()
    if mode is Mode.RUNNING:
        raise Refused("to let the scheduler run again, resume it")
    if until is not None and until <= now:
        raise ValidationFailed("the hold", [Problem("past", "until", f"{until.isoformat()} is past")])
    return _write(center, Hold(mode, now, until, caller.actor, note), caller, None)


def resume(center: Center, caller: Caller, policy: MisfirePolicy | None = None) -> int:
    """Let it run again; how many slots are owed now. ``policy``: what becomes of those, instead of their own."""
    if center.need_schedule().standing().at(utc_now()) is None:
        return 0
    count = triggers.owed(center)
    _write(center, None, caller, policy)
    return count


def _write(center: Center, new: Hold | None, caller: Caller, policy: MisfirePolicy | None) -> Standing:
    now = utc_now()
    schedule = center.need_schedule()
    before = schedule.standing().at(now)
    mode = (new.mode if new else Mode.RUNNING).value
    entry = caller.entry(
        f"scheduler_{mode if new else 'resumed'}",
        object="scheduler",
        before={"state": (before.mode if before else Mode.RUNNING).value},
        after={"state": mode, "until": iso(new.until) if new else None, "policy": policy},
        message=f"the scheduler was {mode if new else 'resumed'}" + (f": {new.note}" if new and new.note else ""),
    )
    told = OutboxEvent(name="scheduler_state", payload={"state": mode, "by": caller.actor}, created_at=now)
    return schedule.hold(new, now, policy=policy, audit=(entry,), events=(told,))
