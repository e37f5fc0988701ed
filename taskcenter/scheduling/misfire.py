"""What becomes of slots that are late: the table of policies, by cause. (spec 4.5)

A slot is late when ``now − slot`` in whole seconds is more than the grace: with 60, from 61 seconds. When the oldest
slot that is owed is late, the policy speaks for all that are owed at that moment, those still in grace too; when it
is not, each of them fires.

========== ============================== ===============================================================
policy     runs                           after it
========== ============================== ===============================================================
fire_now   one; the last slot carries it  the timetable goes on (the others are ``coalesced`` into it)
skip       none                           interval: first slot to come, in phase; cron: next; one_shot: off
reschedule none                           interval: counts from now; cron: next; one_shot: due 1 s later
fire_all   one per slot, oldest first     as fire_now; beyond ``catchUp.max`` or older than
                                          ``catchUp.window`` slots are ``expired``
========== ============================== ===============================================================

A firing of an ad_hoc, after or startup trigger is a request of its own, with its own payload: ``fire_now`` fires each
of them as ``fire_all`` does, and ``reschedule``, which has no next slot to take, is ``skip``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from ..models import CatchUp, MisfireCause, MisfirePolicy, Trigger
from ..quick import unguarded
from ..slot_reasons import SlotReason, SlotReasonCode, iso
from .state import Hold, Mode, Standing, State, TriggerState
from .timetable import BY_EVENT

__all__ = [
    "CAPACITY",
    "CLOCK_JUMP",
    "OVERLAP",
    "SERVICE_DOWN",
    "Cause",
    "Misfire",
    "Next",
    "cause_of",
    "decide_misfire",
    "held_by",
    "is_disabled",
    "is_late",
    "lateness",
    "misfire_event",
    "misfire_reason",
    "policy_for",
]

_SECOND = timedelta(seconds=1)


class Next(StrEnum):
    """How the trigger goes on."""

    GOES_ON = "goes_on"
    FROM_NOW = "from_now"
    """An interval counts from now; a one_shot is due in a second."""


@unguarded
@dataclass(frozen=True, slots=True)
class Cause:
    """Why slots were not fired when they were due: the cause that a policy is asked by, and the word for the ledger."""

    name: MisfireCause
    code: SlotReasonCode
    hold: Hold | None = None

    @property
    def data(self) -> dict[str, Any]:
        """What the reason says of the hold."""
        return {} if self.hold is None or not self.hold.note else {"note": self.hold.note}


SERVICE_DOWN = Cause("service_down", SlotReasonCode.SERVICE_DOWN)
CLOCK_JUMP = Cause("service_down", SlotReasonCode.CLOCK_JUMP)
OVERLAP = Cause("overlap", SlotReasonCode.OVERLAP)
CAPACITY = Cause("capacity", SlotReasonCode.CAPACITY)


@dataclass(frozen=True, slots=True)
class Misfire:
    """The slots by what becomes of them. ``fire`` is oldest first; the last of them carries ``coalesce``."""

    policy: MisfirePolicy
    fire: tuple[datetime, ...] = ()
    coalesce: tuple[datetime, ...] = ()
    skip: tuple[datetime, ...] = ()
    expire: tuple[datetime, ...] = ()
    next: Next = Next.GOES_ON


def lateness(due: datetime, now: datetime) -> int:
    """Whole seconds; 0 before the time."""
    return max(0, (now - due) // _SECOND)


def is_late(due: datetime, now: datetime, grace: int) -> bool:
    return lateness(due, now) > grace


def policy_for(trigger: Trigger, cause: Cause) -> MisfirePolicy:
    """What a person chose when ending the hold, else the policy of the cause, else the trigger's."""
    if cause.hold is not None and cause.hold.policy is not None:
        return cause.hold.policy
    return trigger.misfire_by_cause.get(cause.name, trigger.misfire_policy)


def decide_misfire(
    slots: Sequence[datetime], now: datetime, policy: MisfirePolicy, catch_up: CatchUp, kind: str
) -> Misfire:
    """What becomes of ``slots`` (at least one, oldest first), of which the oldest is late."""
    owed = tuple(slots)
    if policy == "skip" or (policy == "reschedule" and kind in BY_EVENT):
        return Misfire(policy, skip=owed)
    if policy == "reschedule":
        return Misfire(policy, skip=owed, next=Next.FROM_NOW if kind in ("interval", "one_shot") else Next.GOES_ON)
    if policy == "fire_now" and kind not in BY_EVENT:
        return Misfire(policy, fire=owed[-1:], coalesce=owed[:-1])
    oldest = None if catch_up.window is None else now - timedelta(seconds=catch_up.window)
    too_old = tuple(slot for slot in owed if oldest is not None and slot < oldest)
    fresh = owed[len(too_old) :]
    return Misfire(policy, fire=fresh[: catch_up.max], expire=too_old + fresh[catch_up.max :])


# --- causes ---------------------------------------------------------------------------------------------------------

_PAUSES: tuple[tuple[MisfireCause, SlotReasonCode, SlotReasonCode], ...] = (
    ("scheduler_paused", SlotReasonCode.SCHEDULER_PAUSED, SlotReasonCode.SCHEDULER_DISABLED),
    ("task_paused", SlotReasonCode.TASK_PAUSED, SlotReasonCode.TASK_DISABLED),
    ("trigger_paused", SlotReasonCode.TRIGGER_PAUSED, SlotReasonCode.TRIGGER_DISABLED),
)


def held_by(standings: Sequence[Standing], now: datetime) -> Cause | None:
    """The hold that is in force: of the scheduler, the task, the trigger, in this order; None when all run.

    A ``disabled`` comes before a ``paused``: where nothing will ever be owed, nothing waits.
    """
    found: Cause | None = None
    for level, standing in enumerate(standings):
        hold = standing.at(now)
        if hold is None:
            continue
        cause = _cause(level, hold)
        if hold.mode is Mode.DISABLED:
            return cause
        found = found or cause
    return found


def cause_of(slot: datetime, state: State, standings: Sequence[Standing], grace: int) -> Cause:
    """Why ``slot`` was not fired in its time: the hold that it met, a clock that jumped, else a service away."""
    margin = timedelta(seconds=grace)
    found: Cause | None = None
    for level, standing in enumerate(standings):
        for hold in standing.all():
            if hold.mode is Mode.DISABLED and hold.covers(slot):
                return _cause(level, hold)
            if found is None and hold.mode is Mode.PAUSED and hold.covers(slot, margin):
                found = _cause(level, hold)
    if found is not None:
        return found
    jump = state.clock_jump
    return CLOCK_JUMP if jump is not None and jump[0] < slot <= jump[1] else SERVICE_DOWN


def _cause(level: int, hold: Hold) -> Cause:
    name, paused, disabled = _PAUSES[level]
    code = SlotReasonCode.MAX_FAILURES if hold.max_failures else paused if hold.mode is Mode.PAUSED else disabled
    return Cause(name, code, hold)


def is_disabled(cause: Cause) -> bool:
    """Whether slots are skipped as they come, whatever the policy."""
    return cause.hold is not None and cause.hold.mode is Mode.DISABLED


# --- how it is told -------------------------------------------------------------------------------------------------


def misfire_reason(code: SlotReasonCode, late: int, policy: str, cause: Cause, limit: str = "") -> SlotReason:
    data: dict[str, Any] = {"lateSeconds": late, "policy": policy, "cause": cause.name, **cause.data}
    return SlotReason(code, {**data, "limit": limit} if limit else data)


def misfire_event(
    scheduler_id: str,
    ts: TriggerState,
    told: tuple[datetime, MisfirePolicy, Cause],
    now: datetime,
    next_run_at: datetime | None,
    enabled: bool,
) -> tuple[str, Mapping[str, Any]]:
    """The event ``task-misfire-handled``. ``told``: the oldest slot, its policy and its cause."""
    slot, policy, cause = told
    payload = {
        "triggerId": ts.id,
        "taskId": ts.task_id,
        "schedulerId": scheduler_id,
        "scheduledAt": iso(slot),
        "handledAt": iso(now),
        "latenessSeconds": lateness(slot, now),
        "policy": policy,
        "nextRunAt": iso(next_run_at),
        "enabled": enabled,
        "cause": cause.name,
    }
    return "task-misfire-handled", payload
