"""Retention as people ask for it: the policy, the preview, a purge by hand, the hourly one. (spec 6.5)"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from retention import history
from retention.policy import Hold, Policy, parse
from taskcenter.errors import ServerAway
from taskcenter_adapter.gateway import Gateway

from . import holding
from .center import Caller, Center

__all__ = ["hourly", "policy", "preview", "purge", "set_policy"]


def policy(center: Center) -> Policy:
    return history.read(center.store)


def set_policy(
    center: Center,
    changes: Mapping[str, Any],
    caller: Caller,
    *,
    hold: Sequence[str] = (),
    release: Sequence[str] = (),
    note: str = "",
) -> Policy:
    """Merge changes into the policy; null puts a field back. Out of range is an error and nothing is stored.

    ``hold`` puts legal holds on, ``release`` takes some off: the name of a task, or ``run:ID``; NotFound for one that
    is not there.
    """
    given = dict(changes)
    if given.get("holds"):
        before = policy(center)
        found = parse(given, before).holds
        given["holds"] = [one if one in before.holds else holding.put_on(center, one, caller) for one in found]
    new = [holding.put_on(center, holding.named(name, note), caller) for name in hold]

    def merged(standing: Sequence[Hold]) -> list[Hold]:
        for name in release:
            standing = holding.taken_off(center, standing, name)
        again = {(one.task, one.run) for one in new}
        return [*(one for one in standing if (one.task, one.run) not in again), *new]

    return history.save(center.store, given, caller.entry, merged)


def preview(center: Center, days: int | None = None) -> dict[str, Any]:
    """What a purge now would delete, about how many bytes that is, and the oldest that would stay."""
    made, found = history.preview(center.store, days=days)
    return {
        **found.counts,
        "retentionDays": made.days,
        "cutoffAt": made.cutoff(made.days),
        "bytes": found.bytes,
        "oldestLogKept": found.oldest_log,
        "oldestRunKept": found.oldest_run,
        "oldestAuditKept": found.oldest_audit,
    }


def purge(center: Center, caller: Caller, days: int | None = None) -> dict[str, Any]:
    """Carry the policy out now; ``days`` hold for this call only."""
    return history.purge_history(center.store, caller.entry, gateway=_gateway(center), days=days)


def hourly(center: Center, scheduler: str, stop: Callable[[], bool]) -> dict[str, Any]:
    """As the service does it while its scheduler leads."""
    entry = Caller("scheduler", "system").entry
    return history.purge_history(
        center.store, entry, gateway=_gateway(center), by_hand=False, scheduler=scheduler, stop=stop
    )


def _gateway(center: Center) -> Gateway | None:
    try:
        return center.gateway
    except ServerAway:
        return None
