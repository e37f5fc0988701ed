"""Why a slot got its verdict: a code and data, put into words in one place. (spec 4.4)

The sibling of ``reasons.py``, which speaks of the steps of a composite; this one speaks of the slots of a trigger.
``data`` holds JSON values only (times as ISO text), so that a reason is stored as it is and rendered anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from .quick import unguarded

__all__ = ["ON_TIME", "SlotReason", "SlotReasonCode", "iso"]


class SlotReasonCode(StrEnum):
    ON_TIME = "on_time"
    MISFIRE_POLICY = "misfire_policy"
    SERVICE_DOWN = "service_down"
    CLOCK_JUMP = "clock_jump"
    SCHEDULER_PAUSED = "scheduler_paused"
    SCHEDULER_DISABLED = "scheduler_disabled"
    TASK_PAUSED = "task_paused"
    TASK_DISABLED = "task_disabled"
    TRIGGER_PAUSED = "trigger_paused"
    TRIGGER_DISABLED = "trigger_disabled"
    MAX_FAILURES = "max_failures"
    CALENDAR_EXCLUDED = "calendar_excluded"
    OUTSIDE_WINDOW = "outside_window"
    OVERLAP = "overlap"
    CAPACITY = "capacity"
    TRIGGER_EDITED = "trigger_edited"
    TRIGGER_DELETED = "trigger_deleted"
    PERSON = "person"
    BACKFILL = "backfill"


_WORDS: dict[SlotReasonCode, str] = {
    SlotReasonCode.ON_TIME: "it was due, and nothing held it",
    SlotReasonCode.MISFIRE_POLICY: "it was {lateSeconds} s late ({cause})",
    SlotReasonCode.SERVICE_DOWN: "the scheduler was not there when it was due ({lateSeconds} s late)",
    SlotReasonCode.CLOCK_JUMP: "the clock jumped over it",
    SlotReasonCode.SCHEDULER_PAUSED: "the scheduler was paused when it was due",
    SlotReasonCode.SCHEDULER_DISABLED: "the scheduler is disabled",
    SlotReasonCode.TASK_PAUSED: "the task was paused when it was due",
    SlotReasonCode.TASK_DISABLED: "the task is disabled",
    SlotReasonCode.TRIGGER_PAUSED: "the trigger was paused when it was due",
    SlotReasonCode.TRIGGER_DISABLED: "the trigger is disabled",
    SlotReasonCode.MAX_FAILURES: "the task was paused after too many failures in a row",
    SlotReasonCode.CALENDAR_EXCLUDED: "the calendar {calendar} excludes it",
    SlotReasonCode.OUTSIDE_WINDOW: "it lies outside the trigger's startAt and endAt",
    SlotReasonCode.OVERLAP: "a run of the same {scope} was active ({run}), and the overlap policy is {overlap}",
    SlotReasonCode.CAPACITY: "it waited {lateSeconds} s for a place",
    SlotReasonCode.TRIGGER_EDITED: "revision {revision} of the trigger no longer has it",
    SlotReasonCode.TRIGGER_DELETED: "the trigger was deleted",
    SlotReasonCode.PERSON: "{by} cancelled it",
    SlotReasonCode.BACKFILL: "{by} asked for it afterwards",
}

_TAILS: tuple[tuple[str, str], ...] = (
    ("policy", "; the misfire policy is {policy}"),
    ("limit", "; {limit}"),
    ("movedTo", "; it moved to {movedTo}"),
    ("movedFrom", "; it stands in for {movedFrom}"),
    ("note", ": {note}"),
)
"""What is said beyond the sentence of the code, when the data have it, in this order."""


class _Blank(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"


@unguarded
@dataclass(frozen=True, slots=True)
class SlotReason:
    """A code with the data that make its sentence."""

    code: SlotReasonCode
    data: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        known = _Blank(self.data)
        tails = (words for key, words in _TAILS if self.data.get(key) not in (None, ""))
        return "".join([_WORDS[self.code], *tails]).format_map(known)

    def to_json(self) -> dict[str, Any]:
        return {"code": self.code.value, "data": dict(self.data), "sentence": str(self)}


ON_TIME = SlotReason(SlotReasonCode.ON_TIME)
"""The reason of most slots, made once."""


def iso(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()
