"""Runs a composite in this process with plain functions: no Prefect, no server, no record. (spec 3.1)"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from taskcenter.clock import utc_now
from taskcenter.context import RunContext
from taskcenter.errors import Refused, TimedOut
from taskcenter.models import new_id
from taskcenter.task_types import registry

from .engine import CompositeResult, StepCall, StepChange, execute
from .model import CompositeSpec
from .walk import Overrides

__all__ = ["run_here", "try_step"]


async def try_step(call: StepCall, once: Callable[[StepCall], Any]) -> Any:
    """``once`` with the step's retries, back-off (milliseconds × attempt) and time-out (seconds per attempt)."""
    while True:
        call.attempts += 1
        try:
            async with asyncio.timeout(call.step.timeout_seconds) as limit:
                return await once(call)
        except TimeoutError as failed:  # the step's limit, or a time-out of its own work
            error: Exception = failed
            if limit.expired():
                call.cancel.set()
                error = TimedOut(f"stopped after {call.step.timeout_seconds:g} s")
        except Exception as failed:  # whatever the step's own code raised decides whether there is another try
            error = failed
        if call.attempts > call.step.retries:
            raise error
        call.cancel = asyncio.Event()  # a new one: the attempt that was stopped may still be on its way out
        await asyncio.sleep(call.step.retry_backoff_ms * call.attempts / 1000)


async def _once(call: StepCall) -> Any:
    if not call.step.task_type or call.step.task_type == "composite":
        raise Refused(f"{call.key!r} runs a saved task; that needs a server: taskcenter run")
    kind = registry.get(call.step.task_type)
    context = RunContext(
        step_key=call.key, attempt=call.attempts, env=dict(os.environ), is_cancelled=call.cancel.is_set
    )
    if kind.is_async:
        return await kind.call(call.payload, context)
    result = await asyncio.to_thread(kind.call, call.payload, context)
    return await result if inspect.isawaitable(result) else result


def run_here(
    spec: CompositeSpec,
    *,
    inputs: Mapping[str, Any] | None = None,
    overrides: Overrides = Overrides(),
    work: Callable[[StepCall], Any] | None = None,
    observe: Callable[[StepChange], None] = lambda change: None,
) -> CompositeResult:
    """Run a checked composite to its end. ``work`` replaces what a step does (tests use no-ops)."""
    once = work or _once
    scope = {
        "inputs": {**spec.inputs, **(inputs or {})},
        "run": {"id": new_id(), "slot": None},
        "task": {"slug": spec.name},
        "env": dict(os.environ),
    }

    async def go() -> CompositeResult:
        return await execute(
            spec,
            lambda call: try_step(call, once),
            observe,
            now=utc_now,
            scope=scope,
            overrides=overrides,
            secret=lambda name, _: RunContext().secret(name),  # refuses by name: nothing here could know it
        )

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(go())
    # inside a notebook a loop is running already: a thread has room for another
    with ThreadPoolExecutor(max_workers=1) as aside:
        return aside.submit(asyncio.run, go()).result()
