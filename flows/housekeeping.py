"""The door ``housekeeping/purge-history``: the purge as a Prefect deployment, for those who schedule it there.

Nothing but the flow stands here (see :mod:`flows.composite`).
"""

from __future__ import annotations

from typing import Any

from prefect import flow


@flow(name="housekeeping", validate_parameters=False, log_prints=False, persist_result=False)
async def housekeeping(days: int | None = None) -> Any:
    """Delete the history that the retention policy does not keep.

    Args:
        days: Other days than the policy's, for this run only (1 to 3650).
    """
    from flows.running.housekeeping import purge_by_policy

    return await purge_by_policy(days)
