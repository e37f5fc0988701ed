"""The body of the flow ``housekeeping``: one purge, in a thread so that the flow can be cancelled. (spec 6.5)"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from retention.history import purge_history
from taskcenter.clock import utc_now
from taskcenter.models import AuditEntry
from taskcenter_adapter.runtime import Runtime

__all__ = ["purge_by_policy"]


def _entry(event_type: str, **values: Any) -> AuditEntry:
    return AuditEntry(event_type=event_type, actor="prefect", channel="prefect", created_at=utc_now(), **values)


async def purge_by_policy(days: int | None) -> dict[str, Any]:
    """The counters of the purge. Cancelled, it ends with the step it is at; the next one goes on."""
    stopped = threading.Event()

    def work() -> dict[str, Any]:
        with Runtime.open() as runtime:
            return purge_history(
                runtime.store, _entry, gateway=runtime.gateway, days=days, scheduler="prefect", stop=stopped.is_set
            )

    try:
        return await asyncio.to_thread(work)
    finally:
        stopped.set()
