"""What a trigger editor shows: the sentence, the next slots, and what is wrong or doubtful. (spec 4.1)"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from ..errors import Problem
from ..models import Trigger
from .calendars import Calendars
from .check import check_trigger
from .cron import cron_of
from .lint import lint
from .occurrences import describe, slots
from .state import TriggerState
from .timetable import is_plain, next_run
from .walk_zones import find_zone, mark_of

__all__ = ["Preview", "PreviewSlot", "preview"]

_AHEAD = timedelta(days=50 * 366)


@dataclass(frozen=True, slots=True)
class PreviewSlot:
    """One slot. ``wall`` is the same instant on the clock of the trigger's zone.

    ``mark`` is ``gap`` where the slot stands for a time that the clock leaves out, ``overlap`` where its wall time
    comes twice.
    """

    at: datetime
    wall: datetime
    mark: Literal["gap", "overlap"] | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """``problems`` are refusals (severity ``error``) or warnings; with a refusal there are no slots."""

    sentence: str
    slots: tuple[PreviewSlot, ...] = ()
    problems: tuple[Problem, ...] = ()


def preview(trigger: Trigger, now: datetime, count: int = 10, calendars: Calendars | None = None) -> Preview:
    """The same slots that the scheduler will fire, at most ``count``: within its window, and as its calendar has them.

    An interval without an anchor is counted from ``now``, as if it were saved now.
    """
    now = now.astimezone(UTC)
    refusals = check_trigger(trigger, now, calendars=calendars)
    if refusals:
        return Preview(describe(trigger), problems=tuple(refusals))
    saved = trigger
    if trigger.type == "interval" and trigger.anchor is None:
        saved = trigger.model_copy(update={"anchor": now})
    found = tuple(_shown(saved, slot) for slot in _slots(saved, now, count, calendars or Calendars()))
    return Preview(describe(trigger), found, tuple(lint(trigger, now)))


def _slots(trigger: Trigger, now: datetime, count: int, calendars: Calendars) -> list[datetime]:
    if is_plain(trigger) or trigger.counts_from == "completion":
        return slots(trigger, now, min(now, datetime.max.replace(tzinfo=UTC) - _AHEAD) + _AHEAD, count)
    ts = TriggerState(trigger, now)
    found: list[datetime] = []
    at = next_run(ts, now, calendars)
    while at is not None and len(found) < count:
        found.append(at)
        at = next_run(ts, at, calendars)
    return found


def _shown(trigger: Trigger, slot: datetime) -> PreviewSlot:
    zone = find_zone(trigger.timezone)
    assert zone is not None  # checked
    mark = mark_of(cron_of(trigger), zone, slot) if trigger.type == "cron" else None
    return PreviewSlot(slot, slot.astimezone(zone), mark)
