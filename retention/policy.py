"""What is kept how long: rules in, a plan out. Pure; the plan is what preview counts and purge deletes. (spec 6.5)

The rules of the seed are the default: log lines older than the days go, then runs that ended before and have no line
left, then audit entries. Older means strictly before the cutoff. A run that has not ended stays, however old.

Beyond: days per final status, the last N runs of a task whatever their age, all of it per task or per tag, days of
their own for audit, ledger and events, and legal holds, under which nothing of a task or a run goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from taskcenter.errors import Problem, ValidationFailed
from taskcenter.models import Model, Task, Utc
from taskcenter.purge_plan import Group, Plan
from taskcenter.status import TERMINAL_RUN, RunStatus

__all__ = ["Hold", "Policy", "Rule", "parse", "plan"]

Days = Annotated[int, Field(ge=1, le=3650, strict=True)]
Count = Annotated[int, Field(ge=0, le=10_000, strict=True)]


class _Ages(Model):
    success_days: Days | None = None
    failed_days: Days | None = None
    cancelled_days: Days | None = None

    def of(self, status: RunStatus) -> int | None:
        found: int | None = getattr(self, f"{status.value}_days")
        return found


class Rule(_Ages):
    """Other days for one task, or for all tasks with a tag. A task's own rule goes before those of its tags."""

    task: str | None = Field(None, max_length=200, description="Slug or id.")
    tag: str | None = Field(None, max_length=200)
    days: Days | None = None
    keep_last: Count | None = None

    @model_validator(mode="after")
    def _one_subject(self) -> Rule:
        if (self.task is None) == (self.tag is None):
            raise ValueError("names a task or a tag, and not both")
        return self


class Hold(Model):
    """Nothing of this task or run is deleted until the hold is taken off."""

    task: str | None = Field(None, max_length=200, description="Slug or id.")
    run: str | None = Field(None, max_length=200, description="Its id; when the hold is put on, the beginning will do.")
    note: str = Field("", max_length=500)
    by: str = ""
    since: Utc | None = None

    @model_validator(mode="after")
    def _one_subject(self) -> Hold:
        if (self.task is None) == (self.run is None):
            raise ValueError("names a task or a run, and not both")
        return self


class Policy(_Ages):
    """How long history is kept, in days; what is not given falls back to ``days``."""

    days: Days = 30
    audit_days: Days | None = None
    ledger_days: Days | None = None
    event_days: Days | None = None
    keep_last: Count = 0
    rules: tuple[Rule, ...] = Field((), max_length=1_000)
    holds: tuple[Hold, ...] = Field((), max_length=10_000)
    prefect: bool = Field(True, description="Purge the runs along that Prefect keeps.")


def parse(data: Mapping[str, Any], base: Policy = Policy()) -> Policy:
    """``data`` over ``base``; null puts a field back to its default. Every problem at once, nothing half taken."""
    wire = {field.alias or name: name for name, field in Policy.model_fields.items()}
    given = {wire.get(key, key): value for key, value in data.items()}
    merged = {**base.model_dump(mode="python"), **given}
    # A null under a name that is not known stays in: it is a mistake and not a field to put back.
    meant = {name: value for name, value in merged.items() if value is not None or name not in Policy.model_fields}
    try:
        return Policy.model_validate(meant)
    except ValidationError as error:
        raise ValidationFailed("the retention policy", [_problem(item) for item in error.errors()]) from None


def _problem(item: Any) -> Problem:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"]).removeprefix(".")
    text = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] in ("greater_than_equal", "less_than_equal") and "days" in path.lower():
        text = f"must be from 1 to 3650, not {item['input']!r}"
    elif item["type"] == "extra_forbidden":
        text = "is not known here"
    return Problem(str(item["type"]), path, text)


def plan(policy: Policy, tasks: Iterable[Task], now: datetime) -> Plan:
    """What the policy means for these tasks at this moment."""
    tasks = list(tasks)
    ids = {name: task.id for task in tasks for name in (task.slug, task.id)}
    own = {ids.get(rule.task, rule.task): rule for rule in policy.rules if rule.task is not None}
    of_tag: dict[str, list[Rule]] = {}
    for rule in policy.rules:
        if rule.tag is not None:
            of_tag.setdefault(rule.tag.strip().lower(), []).append(rule)
    everyone = _group(policy, None, ())
    same: dict[tuple[Any, ...], set[str]] = {}
    for task in tasks:
        tagged = [rule for tag in task.tags for rule in of_tag.get(tag, ())]
        group = _group(policy, own.get(task.id), tagged)
        if (key := _key(group)) != _key(everyone):
            same.setdefault(key, set()).add(task.id)
    groups = [Group(frozenset(members), days, dict(by_status), last)
              for (days, by_status, last), members in sorted(same.items(), key=lambda item: min(item[1]))]  # fmt: skip
    held = frozenset(ids.get(hold.task, hold.task) for hold in policy.holds if hold.task is not None)
    runs = frozenset(hold.run for hold in policy.holds if hold.run is not None)
    return Plan(
        now=now,
        days=policy.days,
        groups=(*groups, everyone),
        held_tasks=held,
        held_runs=runs,
        audit_days=policy.audit_days or policy.days,
        ledger_days=policy.ledger_days or policy.days,
        event_days=policy.event_days or policy.days,
        prefect=policy.prefect,
    )


def _key(group: Group) -> tuple[Any, ...]:
    return group.days, tuple(sorted(group.by_status.items())), group.keep_last


def _group(policy: Policy, own: Rule | None, tagged: Sequence[Rule]) -> Group:
    """The most particular word counts: the task's rule, then the longest of its tags', then the policy."""

    def days(status: RunStatus | None) -> int:
        for rule in (own,) if own is not None else ():
            if (found := _days(rule, status)) is not None:
                return found
        longest = [found for rule in tagged if (found := _days(rule, status)) is not None]
        if longest:
            return max(longest)
        return (policy.of(status) if status is not None else None) or policy.days

    last = own.keep_last if own is not None else None
    if last is None:
        last = max((rule.keep_last for rule in tagged if rule.keep_last is not None), default=policy.keep_last)
    return Group(None, days(None), {status: days(status) for status in sorted(TERMINAL_RUN)}, last)


def _days(rule: Rule, status: RunStatus | None) -> int | None:
    return (rule.of(status) if status is not None else None) or rule.days
