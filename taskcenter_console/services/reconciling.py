"""Compares the run records with Prefect, with or without repairing them. (spec 6.2)"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from taskcenter.clock import utc_now
from taskcenter_adapter import reconcile as adapter

from .center import Center

__all__ = ["reconcile"]


def reconcile(center: Center, *, repair: bool) -> dict[str, Any]:
    """One pass. ``repair``: over what is open or changed lately, and differences are repaired; otherwise all of
    history is compared and nothing is written. ``open`` counts what is neither repaired nor explained."""
    look = adapter.reconcile if repair else adapter.check
    report = look(center.store, center.gateway, utc_now())
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
