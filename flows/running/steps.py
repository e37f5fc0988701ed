"""Executes one step of a composite as one Prefect task run. (spec 3.11)"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from prefect import task as prefect_task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun
from prefect.tasks import Task as PrefectTask

from composites.engine import StepCall
from composites.model import CompositeSpec
from taskcenter.clear_secrets import keep_out_of_parameters
from taskcenter.context import RunContext
from taskcenter.errors import NotFound, TimedOut, ValidationFailed
from taskcenter.task_types import TaskType, registry

from .engine import run_task_in_flow
from .reporter import TaskRunReporter
from .session import Session

__all__ = ["StepRunner", "call_type", "flow_task_of", "threads_at_work"]


_at_work = 0
_counting = threading.Lock()


def threads_at_work() -> int:
    """How many task types work in threads of this process, those that were given up included."""
    return _at_work


def _counted(kind: TaskType, payload: dict[str, Any], ctx: RunContext) -> Any:
    global _at_work
    with _counting:
        _at_work += 1
    try:
        return kind.call(payload, ctx)
    finally:
        with _counting:
            _at_work -= 1


async def call_type(kind: TaskType, payload: dict[str, Any], ctx: RunContext, pool: ThreadPoolExecutor | None) -> Any:
    """Check the payload, then run the plain function: in ``pool`` when it is not a coroutine."""
    problems = kind.check(payload)
    if problems:
        raise ValidationFailed(f"the payload of {kind.key}", problems)
    if kind.is_async:
        return await kind.call(payload, ctx)
    here = contextvars.copy_context()  # Prefect's own: its settings, the run it belongs to
    result = await asyncio.get_running_loop().run_in_executor(pool, here.run, _counted, kind, payload, ctx)
    return await result if inspect.isawaitable(result) else result


@functools.cache
def flow_task_of(key: str) -> PrefectTask[Any, Any]:
    """The task type as an asynchronous Prefect task, for flows of ours that run many at once.

    What it executes is handed to the engine beside it (:func:`flows.running.engine.run_task_in_flow`); the one for
    hand-written flows is in ``flows.task_types.prefect_tasks``.
    """

    async def step() -> None: ...

    step.__name__ = step.__qualname__ = key
    return prefect_task(name=key, persist_result=False, cache_policy=NO_CACHE, log_prints=False)(step)


class StepRunner:
    """The ``work`` of :func:`composites.engine.execute` inside a flow."""

    def __init__(self, session: Session, spec: CompositeSpec, reporter: TaskRunReporter, flow_run: FlowRun) -> None:
        self._session, self._reporter, self._flow_run = session, reporter, flow_run
        self._pool = ThreadPoolExecutor(max_workers=min(64, max(4, spec.max_parallel)), thread_name_prefix="step")
        self._ids: dict[str, str] = {}
        self._parents: dict[str, list[str]] = {step.step_key: [] for step in spec.steps}
        for edge in spec.edges:
            self._parents[edge.to_step_key].append(edge.from_step_key)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, call: StepCall) -> Any:
        step = call.step
        if step.referenced_task_id:
            return await self._saved_task(call, step.referenced_task_id)
        if step.task_type == "composite":
            return await self._composite(call, str(call.payload.get("composite")), call.payload.get("payload"))
        return await self._run(call, registry.get(step.task_type or ""))

    async def _saved_task(self, call: StepCall, name: str) -> Any:
        task = self._session.store.find_task(name)
        if task is None:
            raise NotFound(f"the step {call.key!r} runs the task {name!r}, which does not exist")
        if task.task_type == "composite":
            return await self._composite(call, task.slug, {**task.payload, **call.payload})
        call.payload = {**task.payload, **call.payload}
        return await self._run(call, registry.get(task.task_type))

    async def _composite(self, call: StepCall, slug: str, payload: Any) -> Any:
        """A composite inside a composite is a flow run of its own, below this one."""
        from prefect import tags

        from flows.composite import composite

        call.attempts += 1
        keep_out_of_parameters(payload, f"the composite {slug!r}")
        with tags("taskcenter", f"origin:{self._session.run.origin.value}"):
            return await composite.with_options(flow_run_name=f"{self._session.run.name}-{call.key}")(
                task=slug, payload=payload or None
            )

    async def _run(self, call: StepCall, kind: TaskType) -> Any:
        step = call.step
        stop = threading.Event()
        ctx = self._session.context(call.key, lambda: stop.is_set() or call.cancel.is_set())
        job = flow_task_of(kind.key)
        if step.retries:
            delays = [step.retry_backoff_ms * n / 1000 for n in range(1, step.retries + 1)]
            job = job.with_options(
                retries=step.retries,
                retry_delay_seconds=delays if step.retry_backoff_ms else 0,
            )
        upstream = [self._ids[key] for key in self._parents.get(step.step_key, ()) if key in self._ids]
        report = self._reporter.report(call.key, kind.key, upstream, step.retries)
        call.task_run_id = str(report.id)
        self._ids[call.key] = call.task_run_id

        async def once() -> Any:
            call.attempts += 1
            ctx.attempt = call.attempts
            return await self._session.hold.within(step.timeout_seconds, call_type(kind, call.payload, ctx, self._pool))

        try:
            return await run_task_in_flow(job, once, report, self._flow_run)
        except TimeoutError:
            stop.set()  # a thread cannot be ended from outside: its own checkpoints, or its type's, do
            raise TimedOut(f"stopped after {step.timeout_seconds:g} s") from None
        except asyncio.CancelledError:
            stop.set()
            raise
