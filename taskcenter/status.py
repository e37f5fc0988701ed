"""The states of tasks, runs and steps, each with the sentence that says what it means.

A reader of this file knows every state there is, who moves it next, and which ones are final.
Values are what stands on the wire and in the database. (spec 1.1, 3.11, 5.1)
"""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "RUN_TRANSITIONS",
    "STEP_TRANSITIONS",
    "TERMINAL_RUN",
    "TERMINAL_STEP",
    "Origin",
    "Priority",
    "RunPhase",
    "RunStatus",
    "StepStatus",
    "TaskStatus",
    "sentence",
]


class TaskStatus(StrEnum):
    """Whether a task's triggers fire. A person may run a task by hand in any status."""

    ACTIVE = "active"
    PAUSED = "paused"
    DISABLED = "disabled"


class RunStatus(StrEnum):
    """Where one attempt at executing a task stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RunPhase(StrEnum):
    """A finer word beside the run status; never decides anything by itself."""

    SCHEDULED = "scheduled"
    LATE = "late"
    AWAITING_RETRY = "awaiting_retry"
    AWAITING_SLOT = "awaiting_slot"
    AWAITING_APPROVAL = "awaiting_approval"
    STARTING = "starting"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    TIMED_OUT = "timed_out"
    LOST = "lost"
    CRASHED = "crashed"


class StepStatus(StrEnum):
    """Where one step of one composite run stands."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"


class Origin(StrEnum):
    """Why a run exists."""

    MANUAL = "manual"
    MANUAL_RETRY = "manual_retry"
    RESUME = "resume"
    SCHEDULER = "scheduler"
    SCHEDULER_RETRY = "scheduler_retry"
    BACKFILL = "backfill"
    AD_HOC = "ad_hoc"
    AFTER = "after"
    STARTUP = "startup"
    PREFECT = "prefect"


class Priority(StrEnum):
    """Which of two waiting runs or steps goes first."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 goes first."""
        return _RANKS[self]


_RANKS = {priority: rank for rank, priority in enumerate(Priority)}

_SENTENCES: dict[StrEnum, str] = {
    TaskStatus.ACTIVE: "Its triggers fire.",
    TaskStatus.PAUSED: "No trigger fires until a person resumes it; missed slots follow the misfire policy.",
    TaskStatus.DISABLED: "No trigger fires and no new trigger is accepted until a person enables it.",
    RunStatus.QUEUED: "It waits for its time or for a worker; the worker moves it next.",
    RunStatus.RUNNING: "A worker executes it; the run's own process moves it next, the reconciler if that dies.",
    RunStatus.SUCCESS: "It did all it should. Final; retention takes it after its days.",
    RunStatus.FAILED: "It ended with an error, was lost or ran out of time. Final; a retry is a new run.",
    RunStatus.CANCELLED: "A person stopped it. Final; no retry follows.",
    StepStatus.PENDING: "Its join is not decided yet; the walker moves it next.",
    StepStatus.RUNNING: "Its work is under way; the run's process moves it next.",
    StepStatus.SUCCESS: "Its work returned a result. Final.",
    StepStatus.FAILED: "Its work, its mapping or its condition failed, or it was lost. Final.",
    StepStatus.SKIPPED: "It never ran, and its reason names the step or rule that decided so. Final.",
    RunPhase.SCHEDULED: "Its time has not come yet.",
    RunPhase.LATE: "Its time is past and no worker has taken it.",
    RunPhase.AWAITING_RETRY: "The attempt before it failed; it waits for its delay.",
    RunPhase.AWAITING_SLOT: "A limit is full; it waits for a place.",
    RunPhase.AWAITING_APPROVAL: "A person must approve before it goes on.",
    RunPhase.STARTING: "A worker has taken it and its process is starting.",
    RunPhase.PAUSED: "A person holds it; it continues where it was.",
    RunPhase.CANCELLING: "A person asked it to stop; it is not gone yet.",
    RunPhase.TIMED_OUT: "It was stopped because it ran longer than it may.",
    RunPhase.LOST: "Nobody reports on it any more; it was closed by the reconciler.",
    RunPhase.CRASHED: "Its process ended without a word.",
}

RUN_TRANSITIONS: dict[RunStatus, frozenset[RunStatus]] = {
    RunStatus.QUEUED: frozenset({RunStatus.RUNNING, RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELLED}),
    RunStatus.RUNNING: frozenset({RunStatus.QUEUED, RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELLED}),
    RunStatus.SUCCESS: frozenset(),
    RunStatus.FAILED: frozenset(),
    RunStatus.CANCELLED: frozenset(),
}
"""From → to. RUNNING → QUEUED happens when Prefect puts a run back (a flow-level retry of its own)."""

STEP_TRANSITIONS: dict[StepStatus, frozenset[StepStatus]] = {
    StepStatus.PENDING: frozenset({StepStatus.RUNNING, StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.SUCCESS}),
    StepStatus.RUNNING: frozenset({StepStatus.SUCCESS, StepStatus.FAILED, StepStatus.SKIPPED}),
    StepStatus.SUCCESS: frozenset(),
    StepStatus.FAILED: frozenset(),
    StepStatus.SKIPPED: frozenset(),
}
"""From → to. PENDING → SUCCESS is a result reused from an earlier run; PENDING → FAILED a mapping error;
RUNNING → SKIPPED a step that a halt with ``haltMode: cancel`` stopped."""

TERMINAL_RUN = frozenset(s for s, after in RUN_TRANSITIONS.items() if not after)
TERMINAL_STEP = frozenset(s for s, after in STEP_TRANSITIONS.items() if not after)


def sentence(state: StrEnum) -> str:
    """What a state means and who moves it next, in one sentence."""
    return _SENTENCES[state]
