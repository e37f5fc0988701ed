"""The door ``composite/<slug>``: the flow that every composite's deployment runs.

A door and not a room: Prefect loads this file a second time when a deployment names it by its path, so nothing
but the flow stands here.
"""

from __future__ import annotations

from typing import Any

from prefect import flow


@flow(name="composite", validate_parameters=False, log_prints=False, persist_result=False)
async def composite(
    task: str,
    payload: dict[str, Any] | None = None,
    dry_run: bool = False,
    options: dict[str, Any] | None = None,
    trigger_id: str | None = None,
) -> Any:
    """Run a composite.

    Args:
        task: Slug or id of the task.
        payload: Fields of the payload (inputs, for a composite) that this run overrides.
        dry_run: Give the plan and execute nothing.
        options: Per-run choices: skip, hold, fail, only, from, downstream_of, set, resume, plan_hash.
        trigger_id: The trigger that fired, when one did.
    """
    from flows.running.composite_run import run_composite

    return await run_composite(task, payload, dry_run, options)
