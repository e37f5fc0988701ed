"""Runs for slots of the past: the dates first, then the runs. (spec 4.9)

A slot without a run of its own (skipped, expired, coalesced, or from before the trigger was there) becomes
``backfilled``. One that had its run gets another only when that is asked for (``only_missing=False``), as a run beside
the ledger, whose key has one verdict per slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from taskcenter.clock import utc_now
from taskcenter.errors import Problem, Refused, ValidationFailed
from taskcenter.models import Task, Trigger, new_id
from taskcenter.scheduling.decisions import RunRequest, run_key
from taskcenter.scheduling.ledger import Occurrence, Verdict, may_amend
from taskcenter.scheduling.occurrences import slots
from taskcenter.slot_reasons import SlotReason, SlotReasonCode, iso
from taskcenter.status import Origin

from . import triggers
from .center import Caller, Center

__all__ = ["MOST", "BackfillSlot", "ask", "preview"]

MOST = 1_000
"""Slots of one backfill."""
_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True)
class BackfillSlot:
    """One slot of the period. ``verdict``: what the ledger says now (None: nothing); ``run``: whether it gets one."""

    slot: datetime
    verdict: str | None
    run: bool
    why: str

    def to_dict(self) -> dict[str, Any]:
        return {"slot": iso(self.slot), "verdict": self.verdict, "run": self.run, "why": self.why}


def preview(
    center: Center, name: str, start: datetime, end: datetime, *, newest: bool = False, only_missing: bool = True
) -> tuple[Task, Trigger, list[BackfillSlot]]:
    """What a backfill from ``start`` to ``end`` (both included) would do; writes nothing."""
    task, trigger = triggers.find(center, name)
    now = utc_now()
    problems = []
    if end < start:
        problems.append(Problem("backwards", "to", "lies before --from"))
    if start > now:
        problems.append(Problem("future", "from", "is not past: a backfill is for slots that have been"))
    if problems:
        raise ValidationFailed("the backfill", problems)
    if trigger.type not in ("cron", "interval", "one_shot", "planned") or trigger.counts_from == "completion":
        raise Refused(f"a trigger of type {trigger.type} has no timetable that could be gone through again")
    found = slots(trigger, start - _INSTANT, min(end, now), MOST + 1)
    if len(found) > MOST:
        raise Refused(f"more than {MOST} slots lie in this period: take a shorter one")
    rows = center.need_schedule().ledger(trigger_id=trigger.id, since=start, until=min(end, now), limit=10 * MOST)
    made = [_slot(slot, _row_of(rows, slot), only_missing) for slot in found]
    return task, trigger, made[::-1] if newest else made


def _row_of(rows: Sequence[Occurrence], slot: datetime) -> Occurrence | None:
    return next((row for row in rows if row.covers(slot)), None)


def _slot(slot: datetime, row: Occurrence | None, only_missing: bool) -> BackfillSlot:
    if row is None:
        return BackfillSlot(slot, None, True, "no run, no verdict")
    if may_amend(row.verdict, Verdict.BACKFILLED) and row.verdict is not Verdict.COALESCED:
        return BackfillSlot(slot, row.verdict.value, True, "it had no run")
    if only_missing:
        return BackfillSlot(slot, row.verdict.value, False, "it has its run")
    return BackfillSlot(slot, row.verdict.value, True, "once more")


def _open_ranges(center: Center, trigger: Trigger, start: datetime, end: datetime) -> None:
    """Slots that are stored as one range get rows of their own, so that one of them can change.

    Of a range from before an edit the slots are not known any more: it stays, and its slots are run beside it.
    """
    schedule = center.need_schedule()
    for row in schedule.ledger(trigger_id=trigger.id, since=start, until=end, limit=10 * MOST):
        if row.count > 1:
            own = slots(trigger, row.slot - _INSTANT, row.last, row.count + 1)
            if len(own) == row.count and own[0] == row.slot and own[-1] == row.last:
                schedule.open_range(row, own)


def ask(
    center: Center, name: str, start: datetime, end: datetime, caller: Caller, *,
    newest: bool = False, only_missing: bool = True, max_active: int = 1,
) -> list[BackfillSlot]:  # fmt: skip
    """Ask for the runs of the preview, one after another (``max_active`` 1) or all at once (0)."""
    task, trigger, found = preview(center, name, start, end, newest=newest, only_missing=only_missing)
    if max_active not in (0, 1):
        problem = Problem("max_active", "maxActive", "must be 1 (one after another) or 0 (no limit of its own)")
        raise ValidationFailed("the backfill", [problem])
    schedule = center.need_schedule()
    _open_ranges(center, trigger, start, end)
    rows = schedule.ledger(trigger_id=trigger.id, since=start, until=end, limit=10 * MOST)
    now = utc_now()
    reason = SlotReason(SlotReasonCode.BACKFILL, {"by": caller.actor})
    wanted = [item for item in found if item.run]
    for index, item in enumerate(wanted):
        request = RunRequest(
            key=f"{run_key(trigger.id, item.slot)} backfill {new_id()[:8]}",
            task_id=task.id,
            created_at=now + timedelta(microseconds=index),
            trigger_id=trigger.id,
            slot=item.slot,
            ready_at=now + timedelta(microseconds=index),
            origin=Origin.BACKFILL,
            priority=trigger.priority or task.priority,
            total_attempts=1 + trigger.retry_policy.max_attempts,
            payload=trigger.payload,
            serial="trigger" if max_active == 1 else "",
            caught_up=True,
        )
        row = _row_of(rows, item.slot)
        occurrence = None
        if row is None or (row.count == 1 and may_amend(row.verdict, Verdict.BACKFILLED)):
            amends = None if row is None else row.verdict
            occurrence = Occurrence(
                trigger.id, item.slot, Verdict.BACKFILLED, reason, now, task.id, request.key, amends=amends
            )
        entries = []
        if index == 0:
            entries.append(
                caller.entry(
                    "backfill_requested",
                    task_id=task.id,
                    object=f"trigger {trigger.id}",
                    message=f"{len(wanted)} runs of {task.slug} from {iso(start)} to {iso(end)}",
                )
            )
        schedule.ask(request, occurrence, entries)
    return found
