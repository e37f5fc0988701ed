"""What one look at the state decides. All of it is applied in one transaction, or nothing. (spec 4.2, 4.4)

``apply`` rules for a store: a trigger's part (its rows, runs and move) is written only when its cursor still is what
``TriggerMove.expects`` says, and the key (trigger, slot) of the ledger forbids a second verdict. Run requests are
written along with the verdicts, as queued rows under their key; the runs themselves are made from those rows
afterwards, once per key. So a crash before the transaction leaves nothing, and one after it loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..quick import unguarded
from ..slot_reasons import SlotReason
from ..status import Origin, Priority
from .ledger import Occurrence
from .state import Firing

__all__ = ["Cancel", "Decisions", "RunRequest", "TriggerMove", "retry_key", "run_key"]


def run_key(trigger_id: str, slot: datetime) -> str:
    """What makes the run of a slot unique, whoever asks for it and however often."""
    return f"{trigger_id} {slot.isoformat()}"


def retry_key(root_run_id: str, attempt: int) -> str:
    return f"{root_run_id} attempt {attempt}"


@unguarded
@dataclass(frozen=True, slots=True)
class RunRequest:
    """A run to make. ``ahead``: for a slot to come, without a verdict yet."""

    key: str
    task_id: str
    created_at: datetime
    trigger_id: str | None = None
    slot: datetime | None = None
    ready_at: datetime | None = None
    """Not to be started before."""
    origin: Origin = Origin.SCHEDULER
    priority: Priority = Priority.NORMAL
    attempt: int = 1
    total_attempts: int = 1
    root_run_id: str = ""
    payload: Mapping[str, Any] | None = None
    serial: str = ""
    """``trigger`` or ``task``: the scope in which it waits its turn."""
    caught_up: bool = False
    ahead: bool = False
    upstream_run_id: str | None = None
    run_id: str | None = None
    """The run made ahead for this slot: it becomes this, instead of a new one."""
    options: Mapping[str, Any] | None = None
    batch_id: str | None = None
    """The batch that its run is an item of, and which one, from 1."""
    batch_item: int | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """A run to cancel, and why."""

    run_id: str
    reason: SlotReason


@unguarded
@dataclass(frozen=True, slots=True)
class TriggerMove:
    """Where a trigger stands after the decision. ``expects``: the cursor that it was decided from.

    ``changes`` are fields of the definition that a policy moved (``anchor``, ``run_at``, ``enabled``).
    """

    trigger_id: str
    expects: datetime | None
    cursor: datetime | None
    next_slot: datetime | None
    next_run_at: datetime | None
    last_run_at: datetime | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)


@unguarded
@dataclass(frozen=True, slots=True)
class Decisions:
    """Verdicts to write, runs to make, cancel and withdraw, triggers to move, events to tell."""

    occurrences: tuple[Occurrence, ...] = ()
    runs: tuple[RunRequest, ...] = ()
    cancel: tuple[Cancel, ...] = ()
    withdraw: tuple[str, ...] = ()
    """Runs made ahead that are taken back; they never were anybody's verdict."""
    moves: tuple[TriggerMove, ...] = ()
    events: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """Name and payload, as the seeds write them."""
    consumed: tuple[str, ...] = ()
    """Firings that have their verdict."""
    followed: tuple[str, ...] = ()
    """Ended runs of which it is decided now what follows."""
    firings: tuple[Firing, ...] = ()
    """Requests to put into the inbox: runs that ended and that an ``after`` trigger waits for."""
    unfinished: bool = False
    """More is due than one look works off: look again at once."""
