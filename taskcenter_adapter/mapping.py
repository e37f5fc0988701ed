"""Prefect's states in Task Center's words: one pure table, tested row by row. (spec 5.1)"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from taskcenter.status import Origin, Priority, RunPhase, RunStatus, StepStatus

__all__ = ["RUN_STATES", "SKIPPED", "STEP_STATES", "facts_from_tags", "map_run", "map_step", "priority_of", "tags_for"]

SKIPPED: Final = "Skipped"
"""The name of the cancelled state of a flow run that asked the gate and was told no."""

RUN_STATES: Final[dict[tuple[str, str | None], tuple[RunStatus, RunPhase | None]]] = {
    # (state type, state name or None for any name) → (status, phase)
    ("SCHEDULED", "Late"): (RunStatus.QUEUED, RunPhase.LATE),
    ("SCHEDULED", "AwaitingRetry"): (RunStatus.QUEUED, RunPhase.AWAITING_RETRY),
    ("SCHEDULED", "AwaitingConcurrencySlot"): (RunStatus.QUEUED, RunPhase.AWAITING_SLOT),
    ("SCHEDULED", None): (RunStatus.QUEUED, RunPhase.SCHEDULED),
    ("PENDING", None): (RunStatus.QUEUED, RunPhase.STARTING),
    ("RUNNING", None): (RunStatus.RUNNING, None),
    ("PAUSED", None): (RunStatus.RUNNING, RunPhase.PAUSED),
    ("CANCELLING", None): (RunStatus.RUNNING, RunPhase.CANCELLING),
    ("COMPLETED", None): (RunStatus.SUCCESS, None),
    ("FAILED", "TimedOut"): (RunStatus.FAILED, RunPhase.TIMED_OUT),
    ("FAILED", None): (RunStatus.FAILED, None),
    ("CRASHED", None): (RunStatus.FAILED, RunPhase.CRASHED),
    ("CANCELLED", None): (RunStatus.CANCELLED, None),
}
"""A flow run that Prefect retries by itself is AwaitingRetry, then Running under the name Retrying."""

STEP_STATES: Final[dict[str, StepStatus]] = {
    "SCHEDULED": StepStatus.PENDING,
    "PENDING": StepStatus.PENDING,
    "RUNNING": StepStatus.RUNNING,
    "PAUSED": StepStatus.RUNNING,
    "CANCELLING": StepStatus.RUNNING,
    "COMPLETED": StepStatus.SUCCESS,
    "FAILED": StepStatus.FAILED,
    "CRASHED": StepStatus.FAILED,
    "CANCELLED": StepStatus.SKIPPED,
}
"""A cancelled task run is a step that a halt or a cancelled run ended: it has no result and is skipped."""


def map_run(state_type: str, state_name: str | None) -> tuple[RunStatus, RunPhase | None]:
    """The status and phase of a flow run. An unknown type is an error: a new Prefect needs a new row here."""
    named = RUN_STATES.get((state_type, state_name))
    if named is not None:
        return named
    return RUN_STATES[(state_type, None)]


def map_step(state_type: str) -> StepStatus:
    return STEP_STATES[state_type]


MANAGED = "taskcenter"
"""The tag of all flow runs and deployments that are ours."""


def tags_for(
    origin: Origin, *, attempt: int = 1, root: str = "", total: int = 1, resumed_from: str = "",
    batch: str | None = None, item: int | None = None,
) -> list[str]:  # fmt: skip
    """What a flow run carries about itself, so that its row can be rebuilt from Prefect alone."""
    tags = [MANAGED, f"origin:{origin.value}"]
    if attempt > 1 or total > 1:
        tags += [f"attempt:{attempt}", f"attempts:{total}"]
    if root:
        tags.append(f"root:{root}")
    if resumed_from:
        tags.append(f"resumed:{resumed_from}")
    if batch:
        tags += [f"batch:{batch}", f"item:{item}"]
    return tags


def priority_of(tags: Iterable[str], queue: str | None) -> Priority:
    """A run's own priority where it has one (a bump, its trigger's), else that of its queue: its task's."""
    known = facts_from_tags(tags).get("priority", queue)
    return Priority(known) if known in set(Priority) else Priority.NORMAL


def facts_from_tags(tags: Iterable[str]) -> dict[str, str]:
    """``origin:manual`` → ``{"origin": "manual"}``; other tags are left out."""
    known = ("origin", "attempt", "attempts", "root", "resumed", "priority", "batch", "item")
    pairs = (tag.partition(":") for tag in tags)
    return {name: value for name, colon, value in pairs if colon and name in known}
