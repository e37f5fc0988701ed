"""What a trigger editor shows: the sentence, the next slots, and what is wrong or doubtful. (spec 4.1)"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from ..errors import Problem
from ..models import Trigger
from .cron import cron_of
from .lint import lint
from .occurrences import check_trigger, describe, slots
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


def preview(trigger: Trigger, now: datetime, count: int = 10) -> Preview:
    """The same slots that the scheduler will fire, at most ``count``."""
    refusals = check_trigger(trigger, now)
    if refusals:
        return Preview(describe(trigger), problems=tuple(refusals))
    end = min(now.astimezone(UTC), datetime.max.replace(tzinfo=UTC) - _AHEAD) + _AHEAD
    found = tuple(_shown(trigger, slot) for slot in slots(trigger, now, end, count))
    return Preview(describe(trigger), found, tuple(lint(trigger, now)))


def _shown(trigger: Trigger, slot: datetime) -> PreviewSlot:
    zone = find_zone(trigger.timezone)
    assert zone is not None  # checked
    mark = mark_of(cron_of(trigger), zone, slot) if trigger.type == "cron" else None
    return PreviewSlot(slot, slot.astimezone(zone), mark)
