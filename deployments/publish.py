"""Makes Prefect's deployments those of the saved tasks: first the difference, then the change. (spec 0.4)"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from taskcenter.models import Task
from taskcenter_adapter.gateway import Gateway

from .spec import MANAGED_TAG, POOL, deployment_of

__all__ = ["Change", "apply", "diff", "publish", "same_schedule"]

_COMPARED = (
    "description",
    "entrypoint",
    "parameters",
    "tags",
    "work_pool_name",
    "work_queue_name",
    "paused",
    "job_variables",
)
_WRITTEN = (*_COMPARED, "parameter_openapi_schema", "enforce_parameter_schema", "concurrency_limit")


@dataclass(frozen=True)
class Change:
    """One deployment and what would happen to it: create, update, delete or same."""

    name: str
    kind: str
    fields: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Field → (now, wanted), for an update."""
    deployment_id: str | None = None
    wanted: Mapping[str, Any] | None = None
    current: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        if self.kind != "update":
            return f"{self.kind:6s} {self.name}"
        lines = [f"update {self.name}"]
        lines += [f"         {name}: {_short(old)} → {_short(new)}" for name, (old, new) in self.fields.items()]
        return "\n".join(lines)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "…"


def diff(tasks: Iterable[Task], deployed: Iterable[Mapping[str, Any]], *, delete: bool = True) -> list[Change]:
    """What would change. ``deployed`` are Prefect's deployments that carry our tag, with ``flow_name`` set.

    ``delete``: deployments without a task go away (only for a full list of tasks).
    """
    have = {f"{d['flow_name']}/{d['name']}": d for d in deployed}
    changes: list[Change] = []
    for task in tasks:
        wanted = deployment_of(task)
        name = task.deployment_name
        current = have.pop(name, None)
        if current is None:
            changes.append(Change(name, "create", wanted=wanted))
            continue
        fields = _fields(current, wanted)
        kind = "update" if fields else "same"
        changes.append(Change(name, kind, fields, str(current["id"]), wanted, current))
    if delete:
        changes += [Change(name, "delete", deployment_id=str(d["id"]), current=d) for name, d in have.items()]
    return changes


def _fields(current: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    changed: dict[str, tuple[Any, Any]] = {}
    for name in _COMPARED:
        old, new = current.get(name), wanted[name]
        if name == "tags":
            old, new = sorted(old or []), sorted(new)
        if (old or None) != (new or None):
            changed[name] = (old, new)
    limit = (current.get("global_concurrency_limit") or {}).get("limit")
    if limit != wanted["concurrency_limit"]:
        changed["concurrency_limit"] = (limit, wanted["concurrency_limit"])
    old_schedules = {s.get("slug"): s for s in current.get("schedules") or []}
    new_schedules = {s["slug"]: s for s in wanted["schedules"]}
    if old_schedules.keys() != new_schedules.keys() or any(
        not same_schedule(old_schedules[slug], new_schedules[slug]) for slug in new_schedules
    ):
        changed["schedules"] = (
            [_schedule_text(s) for s in old_schedules.values()],
            [_schedule_text(s) for s in new_schedules.values()],
        )
    return changed


def same_schedule(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    before, after = old["schedule"], new["schedule"]
    same = all(_same_value(name, before.get(name), value) for name, value in after.items())
    return bool(same and old["active"] == new["active"] and (old.get("parameters") or {}) == new["parameters"])


def _same_value(name: str, old: Any, new: Any) -> bool:
    if name == "interval":
        return float(old or 0) == float(new or 0)
    if name == "anchor_date":
        return str(old)[:19] == str(new)[:19]
    if name == "rrule":
        return str(old).split() == str(new).split()
    return bool(old == new)


def _schedule_text(schedule: Mapping[str, Any]) -> str:
    inner = schedule["schedule"]
    what = inner.get("cron") or inner.get("rrule") or f"every {inner.get('interval')} s"
    return f"{what}{'' if schedule.get('active', True) else ' (off)'}".replace("\n", " ")


def apply(gateway: Gateway, changes: Sequence[Change]) -> None:
    """Carry out what ``diff`` found. Schedules that stay keep their ids, and so their idempotency keys."""
    gateway.ensure_pool(POOL)
    gateway.ensure_queues(POOL)
    for change in changes:
        if change.kind == "create" and change.wanted is not None:
            body = {name: change.wanted[name] for name in _WRITTEN}
            body |= {"name": change.wanted["name"], "flow_id": gateway.flow_id(change.wanted["flow"])}
            gateway.put_deployment({**body, "schedules": change.wanted["schedules"]})
        elif change.kind == "update" and change.wanted is not None and change.current is not None:
            if set(change.fields) - {"schedules"}:
                body = {name: change.wanted[name] for name in _WRITTEN}
                gateway.update_deployment(str(change.deployment_id), body)
            if "schedules" in change.fields:
                gateway.put_schedules(
                    str(change.deployment_id), change.current.get("schedules") or [], change.wanted["schedules"]
                )
        elif change.kind == "delete" and change.deployment_id is not None:
            gateway.delete_deployment(change.deployment_id)


def publish(
    gateway: Gateway, tasks: Sequence[Task], *, everything: bool = False, say: Callable[[str], None] | None = None
) -> list[Change]:
    """Difference, then change. ``everything``: ``tasks`` are all there are, so that other deployments go away."""
    if everything:
        deployed = gateway.deployments_with_flow(MANAGED_TAG)
    else:
        found = (gateway.find_deployment(task.deployment_name) for task in tasks)
        deployed = [{**d, "flow_name": t.task_type} for d, t in zip(found, tasks, strict=True) if d is not None]
    changes = diff(tasks, deployed, delete=everything)
    if say is not None:
        for change in changes:
            if change.kind != "same":
                say(str(change))
    apply(gateway, changes)
    return changes
