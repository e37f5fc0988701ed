"""What a purge is told: which rows are old enough, and which stay whatever their age. (spec 6.5)

Made from a policy by ``retention.policy``, carried out by ``taskcenter_adapter.history_purge``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from .status import RunStatus

__all__ = ["DAYS_SETTING", "POLICY_SETTING", "PURGED_SETTING", "Group", "Plan"]

DAYS_SETTING = "task_run_log_retention_days"
"""The seed's setting: the days that hold where no rule says otherwise."""
POLICY_SETTING = "retention_policy"
"""All the rest of the policy, as one document."""

PURGED_SETTING = "history_purged_before"
"""What ended before it may be gone: the reconciler does not bring it back from Prefect."""


@dataclass(frozen=True)
class Group:
    """Tasks that are kept alike. ``task_ids`` None: every task that stands in no other group."""

    task_ids: frozenset[str] | None
    days: int
    by_status: Mapping[RunStatus, int]
    keep_last: int = 0

    @property
    def plain(self) -> bool:
        """Whether age alone decides, and the same for every run."""
        return not self.keep_last and all(days == self.days for days in self.by_status.values())


@dataclass(frozen=True)
class Plan:
    """A policy at one moment, over the tasks there are."""

    now: datetime
    days: int
    groups: Sequence[Group]
    """The last one is for every other task."""
    held_tasks: frozenset[str] = frozenset()
    held_runs: frozenset[str] = frozenset()
    audit_days: int = 30
    ledger_days: int = 30
    event_days: int = 30
    prefect: bool = True

    def cutoff(self, days: int) -> datetime:
        """What is strictly before it is older than that many days."""
        return self.now - timedelta(days=days)

    @property
    def plain(self) -> bool:
        """Whether the seed's rules alone decide about runs and logs."""
        return len(self.groups) == 1 and self.groups[0].plain and not self.held_tasks and not self.held_runs

    @property
    def latest(self) -> datetime:
        """No run and no line from here on goes, whatever its task and status."""
        return self.cutoff(min(min(group.days, *group.by_status.values()) for group in self.groups))
