"""What becomes of a slot that comes while a run of the same trigger or task is active. (spec 4.6)

Active is a run that is queued or running; one made ahead for a slot to come is not. Slots that come together are not
each other's overlap: none of them is lost because the scheduler looked late. Nor is a run that makes up for a late
slot: else working off a backlog would make new gaps. In both cases the runs go one after another (``serial``: the
admission gate lets one start when no other of its scope runs), unless the policy is *allow*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ..models import OverlapPolicy, Trigger
from ..quick import unguarded
from ..status import RunStatus
from .state import OpenRun

__all__ = ["Overlap", "active_runs", "decide_overlap"]


@unguarded
@dataclass(frozen=True, slots=True)
class Overlap:
    """The slots by what becomes of them. ``into``: the run (None: that of the first of ``fire``) for ``coalesce``."""

    fire: tuple[datetime, ...] = ()
    skip: tuple[datetime, ...] = ()
    coalesce: tuple[datetime, ...] = ()
    into: str | None = None
    cancel: tuple[str, ...] = ()
    serial: bool = False


def active_runs(trigger: Trigger, runs_of_task: Sequence[OpenRun]) -> list[OpenRun]:
    """The open runs that a slot of ``trigger`` meets, among those of its task."""
    if trigger.overlap_scope == "task":
        return list(runs_of_task)
    return [run for run in runs_of_task if run.trigger_id == trigger.id]


def decide_overlap(policy: OverlapPolicy, slots: Sequence[datetime], active: Sequence[OpenRun]) -> Overlap:
    """What becomes of ``slots``, which are to fire now, oldest first."""
    owed = tuple(slots)
    if policy == "allow":
        return Overlap(fire=owed)
    makes_up = any(run.caught_up for run in active)
    active = [run for run in active if not run.caught_up]
    if not active:
        return Overlap(fire=owed, serial=makes_up or len(owed) > 1)
    if policy == "skip":
        return Overlap(skip=owed)
    if policy == "buffer_one":
        waiting = next((run for run in active if run.serial and run.status is RunStatus.QUEUED), None)
        if waiting is not None:
            return Overlap(coalesce=owed, into=waiting.id)
        return Overlap(fire=owed[:1], coalesce=owed[1:], serial=True)
    cancel = tuple(run.id for run in active) if policy == "cancel_other" else ()
    return Overlap(fire=owed, cancel=cancel, serial=True)
