"""The policy as it is stored, and a whole purge: our tables, Prefect's runs, what killed runs left on the disk.

Every purge that deleted something, or that a person asked for, is an audit entry ``history_purged`` and an event
``task_history_purged`` with the counters. (spec 6.5)
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from taskcenter import events
from taskcenter.clock import utc_now
from taskcenter.errors import TaskCenterError
from taskcenter.models import AuditEntry, Task
from taskcenter.ports import Changes, Store, TaskFilter
from taskcenter.purge_plan import DAYS_SETTING, POLICY_SETTING, PURGED_SETTING, Plan
from taskcenter_adapter import purge_preview
from taskcenter_adapter.gateway import Gateway
from taskcenter_adapter.mapping import MANAGED
from taskcenter_adapter.purge_conditions import Conditions
from taskcenter_adapter.purge_preview import Preview
from taskcenter_adapter.store import need_sql
from taskcenter_adapter.store_sql import SqlStore

from . import purge as work
from .policy import Hold, Policy, parse, plan

__all__ = ["TAGS", "Entry", "database_of", "plan_now", "preview", "purge_history", "read", "save", "with_days"]

Entry = Callable[..., AuditEntry]
"""Makes an audit entry for whoever asks."""

TAGS = (MANAGED, "housekeeping")
"""The tags of our deployments in Prefect; a test holds them against ``deployments``."""

_LOG = logging.getLogger("taskcenter.retention")
_SETTINGS = (DAYS_SETTING, POLICY_SETTING)
_MOST_IN_PREFECT = 2_000
"""Runs that one purge deletes in Prefect, each by a call of its own; the next purge goes on."""
_DEPLOYMENTS = 200
"""Deployments whose runs are asked for at once."""
_LEFT_BEHIND = "taskcenter-run-*"


def read(store: Store) -> Policy:
    """The policy in force. A stored one that cannot be read is an error, never the default: that could delete more."""
    return _policy_of({name: store.get_setting(name) for name in _SETTINGS})


def _policy_of(stored: Mapping[str, Any]) -> Policy:
    days, rest = stored.get(DAYS_SETTING), stored.get(POLICY_SETTING)
    return parse({**(rest or {}), **({"days": days} if days is not None else {})})


def save(
    store: Store,
    changes: Mapping[str, Any],
    entry: Entry,
    holds: Callable[[Sequence[Hold]], Sequence[Hold]] = lambda standing: standing,
) -> Policy:
    """Merge changes into the policy; audited as ``retention_policy_updated``. What changes nothing is not written.

    ``holds`` makes the legal holds out of those that stand then: of two people at once neither loses one.
    """
    after = Policy()

    def change(stored: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[AuditEntry]]:
        nonlocal after
        before = _policy_of(stored)
        after = parse(changes, before)
        after = parse({"holds": holds(after.holds)}, after)
        if after == before:
            return {}, ()
        rest = after.model_dump(mode="json", by_alias=True, exclude={"days"}, exclude_defaults=True)
        return {DAYS_SETTING: after.days, POLICY_SETTING: rest}, (_told(before, after, entry),)

    store.change_settings(_SETTINGS, change)
    return after


def _told(before: Policy, after: Policy, entry: Entry) -> AuditEntry:
    old, new = before.to_json(), after.to_json()
    changed = [name for name in new if old[name] != new[name]]
    return entry(
        "retention_policy_updated",
        object="retention",
        before={name: old[name] for name in changed},
        after={name: new[name] for name in changed},
        message=f"history is kept for {after.days} days" if "days" in changed else "the retention policy was changed",
        metadata={"retentionDays": after.days, "previousRetentionDays": before.days},
    )


def with_days(policy: Policy, days: int | None) -> Policy:
    """The policy with other days for one call; out of range is an error."""
    return policy if days is None else parse({"days": days}, policy)


def plan_now(store: Store, policy: Policy, now: datetime) -> Plan:
    """The policy over the tasks there are; they are read only when a rule or a hold names some."""
    tasks: list[Task] = []
    if policy.rules or policy.holds:
        offset = 0
        while page := store.list_tasks(TaskFilter(limit=500, offset=offset)):
            tasks += page
            offset += len(page)
    return plan(policy, tasks, now)


def database_of(store: Store) -> SqlStore:
    return need_sql(store, "ends with its process and has nothing to purge")


def preview(store: Store, *, days: int | None = None, now: datetime | None = None) -> tuple[Plan, Preview]:
    """What a purge at this moment would delete; nothing is written."""
    database = database_of(store)
    found = plan_now(store, with_days(read(store), days), now or utc_now())
    with database.reading() as connection:
        return found, purge_preview.preview(connection, Conditions(found))


def purge_history(
    store: Store,
    entry: Entry,
    *,
    gateway: Gateway | None = None,
    days: int | None = None,
    now: datetime | None = None,
    by_hand: bool = True,
    scheduler: str = "",
    stop: Callable[[], bool] = lambda: False,
    pace: work.Pace | None = None,
) -> dict[str, Any]:
    """Carry the policy out; the counters. ``days`` holds for this call only."""
    moment = now or utc_now()
    database = database_of(store)

    def planned() -> Plan:
        made = plan_now(store, with_days(read(store), days), moment)
        # Said before the first row goes: from here on the reconciler must not bring rows back.
        known = store.get_setting(PURGED_SETTING)
        if not known or datetime.fromisoformat(known) < made.latest:
            store.set_setting(PURGED_SETTING, made.latest.isoformat())
        return made

    report = work.Report(planned())
    beside = {"deletedPrefectRuns": 0, "deletedFiles": 0}

    def told() -> dict[str, Any]:
        found = {**report.to_dict(), **beside}
        if by_hand or any(value for name, value in found.items() if name.startswith("deleted")):
            _record(store, entry, found, scheduler, moment)
        return found

    try:
        work.purge(database, report, planned, stop=stop, pace=pace)
        if report.finished:
            if gateway is not None and report.plan.prefect:
                _purge_prefect(database, gateway, report, stop, beside)
            beside["deletedFiles"] = _purge_files(report.plan.cutoff(report.plan.days))
    except BaseException:  # what is gone is told all the same, also when somebody presses Ctrl-C
        report.finished = False
        with suppress(Exception):  # the first error is the one to hear of
            told()
        raise
    return told()


def _record(store: Store, entry: Entry, found: Mapping[str, Any], scheduler: str, triggered: datetime) -> None:
    told = entry(
        "history_purged",
        object="history",
        message=f"{found['deletedRuns']} runs, {found['deletedRunLogs']} log lines and {found['deletedAuditLogs']} "
        f"audit entries were purged" + ("" if found["finished"] else "; it was broken off"),
        metadata={name: value for name, value in found.items() if name != "notes"},
    )
    event = events.history_purged(scheduler, found, triggered, utc_now())
    store.record(Changes(audit=(told,), events=(event,)))


def _purge_prefect(
    store: SqlStore, gateway: Gateway, report: work.Report, stop: Callable[[], bool], counts: dict[str, int]
) -> None:
    """Runs of our deployments that Prefect keeps and whose rows are gone here, counted as they go."""
    try:
        deployments = [str(one["id"]) for tag in TAGS for one in gateway.list_deployments(tag)]
        for at in range(0, len(deployments), _DEPLOYMENTS):
            some, kept = deployments[at : at + _DEPLOYMENTS], 0
            while page := [str(run["id"]) for run in gateway.ended_runs(report.plan.latest, some, kept)]:
                known = store.schedule.requests.known_runs(page)
                kept += len(known)
                for run_id in page:
                    if run_id in known:
                        continue
                    if stop() or counts["deletedPrefectRuns"] >= _MOST_IN_PREFECT:
                        return
                    gateway.delete_run(run_id)
                    counts["deletedPrefectRuns"] += 1
    except TaskCenterError as error:
        report.notes.append(f"Prefect's own runs stay for now: {error.message.splitlines()[0]}")
        _LOG.warning("%s", report.notes[-1])


def _purge_files(cutoff: datetime) -> int:
    """Folders that killed runs left in the temporary folder."""
    gone = 0
    for folder in Path(tempfile.gettempdir()).glob(_LEFT_BEHIND):
        try:
            old = folder.is_dir() and not folder.is_symlink() and folder.stat().st_mtime < cutoff.timestamp()
            if old and folder.stat().st_uid == _own_user():
                shutil.rmtree(folder)
                gone += 1
        except OSError:  # of a process that has just ended, or not ours
            continue
    return gone


def _own_user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0
