"""Compares the run records with Prefect, with or without repairing them. (spec 6.2)"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from taskcenter.clock import utc_now
from taskcenter.ports import Changes
from taskcenter_adapter import reconcile as adapter

from .center import Caller, Center

__all__ = ["reconcile"]


def reconcile(center: Center, caller: Caller, *, repair: bool) -> dict[str, Any]:
    """One pass. ``repair``: over what is open or changed lately, and differences are repaired; otherwise all of
    history is compared and nothing is written. A pass that finds everything in agreement writes nothing either, not
    even into the audit. ``open`` counts what is neither repaired nor explained."""
    look = adapter.reconcile if repair else adapter.check
    report = look(center.store, center.gateway, utc_now())
    if report.repaired:
        entry = caller.entry(
            "reconciled",
            object="runs",
            message=f"{report.runs} runs were compared with Prefect",
            metadata={"repaired": len(report.repaired), "open": len(report.open)},
        )
        center.store.record(Changes(audit=(entry,)))
    return {
        "runs": report.runs,
        "steps": report.steps,
        "open": len(report.open),
        "differences": [
            {"runId": one.pop("run_id"), **one, "text": str(difference)}
            for difference in report.differences
            for one in [asdict(difference)]
        ],
    }
