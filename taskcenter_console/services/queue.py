"""What waits, in the order in which workers take it, who may go first, and how many at once. (spec 5.2)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from deployments.spec import POOL
from taskcenter.clock import utc_now
from taskcenter.errors import Refused
from taskcenter.models import AuditEntry, Run
from taskcenter.ports import Changes
from taskcenter.scheduling.admission import Admission, Wait, admit
from taskcenter.scheduling.limits import LIMITS_KEY, limits_json, limits_of, with_limit
from taskcenter.scheduling.state import Limits, State
from taskcenter.status import Priority
from taskcenter_adapter.mapping import priority_of
from taskcenter_adapter.run_gate import Asked, RunGate, asked_of
from taskcenter_adapter.store_sql import SqlStore

from . import tasks
from .center import Caller, Center

__all__ = ["Waiting", "bump", "limits", "listing", "set_limit"]

_AHEAD = timedelta(hours=1)


@dataclass(frozen=True)
class Waiting:
    """One run that waits. ``place`` is 1 for the next one; None while its time has not come.

    ``waits_for``: what keeps it, in words; None for a run that a worker may take now.
    """

    run_id: str
    name: str
    task: str
    priority: Priority
    since: datetime
    place: int | None
    waits_for: str | None

    def to_json(self) -> dict[str, Any]:
        return {
            "runId": self.run_id,
            "name": self.name,
            "task": self.task,
            "priority": self.priority.value,
            "since": self.since.isoformat(),
            "place": self.place,
            "waitsFor": self.waits_for,
        }


def listing(center: Center, *, now: datetime | None = None) -> list[Waiting]:
    """Every run that waits for a worker, the next one first, then those of the next hour."""
    at = now or utc_now()
    found = {asked.run.id: (asked, row) for asked, row in _asked(center, at)}
    due = [asked for asked, _ in found.values() if asked.run.due_at <= at]
    gate = _decide(center, due, at)
    later = sorted((a.run for a, _ in found.values() if a.run.due_at > at), key=lambda run: (run.due_at, run.id))
    places: list[tuple[int | None, str]] = [*enumerate(gate.order, start=1)]
    places += [(None, run.id) for run in later]
    return [_waiting(*found[run_id], place, gate.waits.get(run_id)) for place, run_id in places]


def _asked(center: Center, at: datetime) -> list[tuple[Asked, Mapping[str, Any]]]:
    found: list[tuple[Asked, Mapping[str, Any]]] = []
    for queue, row in center.gateway.waiting_runs(POOL, at + _AHEAD):
        slot = row.get("next_scheduled_start_time") or row.get("expected_start_time")
        created, parameters = _time(row.get("created")) or at, row.get("parameters") or {}
        found.append((asked_of(str(row["id"]), row.get("tags") or (), parameters, created, _time(slot), queue), row))
    return found


def _decide(center: Center, due: Sequence[Asked], at: datetime) -> Admission:
    """As the workers would now; they may have places of which nothing is known here."""
    if isinstance(center.store, SqlStore):
        return RunGate(center.store).look(due, at)
    return admit(State((), {}, runs=[asked.run for asked in due], limits=Limits(pool=0)), at)


def _waiting(asked: Asked, row: Mapping[str, Any], place: int | None, wait: Wait | None) -> Waiting:
    task = str((row.get("parameters") or {}).get("task") or "")
    said = str(wait) if wait is not None else None
    return Waiting(asked.run.id, str(row.get("name") or ""), task, asked.run.priority, asked.run.due_at, place, said)


def _time(value: Any) -> datetime | None:
    return datetime.fromisoformat(value.replace("Z", "+00:00")) if isinstance(value, str) else value


def limits(center: Center) -> Limits:
    """What people have set; the pool's is 0 where the places of the workers are its only limit."""
    return limits_of(center.store.get_setting(LIMITS_KEY))


def set_limit(center: Center, scope: str, name: str, at_once: int, caller: Caller) -> Limits:
    """At most so many runs at once of the pool, a task, or with a tag or a connection; 0 takes the limit away."""
    key = name.strip().lower() if scope == "tag" else name.strip()
    if scope == "task" and key:
        key = tasks.get(center, key).id
    after = Limits()

    def change(stored: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[AuditEntry]]:
        nonlocal after
        before = limits_of(stored.get(LIMITS_KEY))
        after = with_limit(before, scope, key, at_once)
        if after == before:
            return {}, ()
        entry = caller.entry(
            "run_limit_changed",
            object=f"limit {scope} {name}".rstrip(),
            before=limits_json(before),
            after=limits_json(after),
            message=f"at most {at_once} at once" if at_once else "no limit",
        )
        return {LIMITS_KEY: limits_json(after)}, (entry,)

    center.store.change_settings((LIMITS_KEY,), change)
    return after


def bump(center: Center, run_id: str, to: Priority, caller: Caller) -> Run:
    """Give a run that waits another priority; at the next free place it counts."""
    run = center.store.get_run(run_id)
    known = center.gateway.find_run(run.id)
    if known is None or known.get("state_type", "SCHEDULED") != "SCHEDULED":
        raise Refused(f"run {run.id[:8]} does not wait any more: only a waiting run has a place in the queue")
    tags = [tag for tag in known.get("tags") or () if not tag.startswith("priority:")]
    center.gateway.set_run_tags(run.id, [*tags, f"priority:{to.value}"])
    entry = caller.entry(
        "run_priority_changed",
        task_id=run.task_id,
        run_id=run.id,
        object=f"run {run.id}",
        before={"priority": priority_of(known.get("tags") or (), known.get("work_queue_name")).value},
        after={"priority": to.value},
    )
    center.store.record(Changes(audit=(entry,)))
    return run
