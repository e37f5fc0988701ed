"""Runs one step through Prefect's own task engine, with its states reported in batches.

The step is a Prefect task in every respect that user code can see (task run context, retries, time-out, hooks,
run names); left out are result persistence, caching and assets, which steps do not use, and the websocket event
per state change (see :mod:`flows.running.reporter`). (Source: ``prefect.task_engine.AsyncTaskRunEngine`` of 3.8.)
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from prefect.client.schemas.objects import FlowRun, State, StateDetails, StateType, TaskRun
from prefect.task_engine import AsyncTaskRunEngine
from prefect.tasks import Task
from prefect.telemetry.run_telemetry import RunTelemetry

from taskcenter.redaction import redact_text

from .reporter import StepReport

__all__ = ["run_task_in_flow"]

_DETAILS: Final = StateDetails()
_NO_ID: Final = uuid.UUID(int=0)


def _state(kind: StateType) -> State[Any]:
    """A state of a task run, without the validation and the trace context that Prefect's constructors add.

    Nobody outside of the engine sees it; what Prefect is told is in the report.
    """
    return State.model_construct(
        id=_NO_ID,
        type=kind,
        name=kind.value.capitalize(),
        timestamp=datetime.now(UTC),
        message=None,
        data=None,
        state_details=_DETAILS,
    )


class _NoTelemetry(RunTelemetry):
    """No trace span per step."""

    async def async_start_span(self, *args: Any, **kwargs: Any) -> None:
        return None


class _Engine(AsyncTaskRunEngine[Any, Any]):
    report: StepReport

    async def begin_run(self) -> None:
        state = await self.set_state(_state(StateType.RUNNING))
        if self.task.on_running_hooks:
            await self.call_hooks(state)

    async def set_state(self, state: State[Any], force: bool = False) -> State[Any]:
        run = self.task_run
        assert run is not None  # given at construction
        message = redact_text(state.message) if state.message else ""
        run.state, run.state_type, run.state_name = state, state.type, state.name
        if state.is_running():
            run.run_count += 1
        when = state.state_details.scheduled_time
        name = state.name or state.type.value.capitalize()
        self.report.set(state.type.value, name, message, when.isoformat() if when else None)
        return state

    async def handle_crash(self, exc: BaseException) -> None:
        """A step that we cancelled (a halt, a cancelled run) ends cancelled, as our own row says."""
        if not isinstance(exc, asyncio.CancelledError):
            await super().handle_crash(exc)
            return
        await self.set_state(_state(StateType.CANCELLED))
        self._raised = exc

    async def succeed(self, result: Any) -> None:
        await self.set_state(_state(StateType.COMPLETED))
        self._return_value = result

    def log_finished_message(self) -> None:
        """Said once by our own record, as the step's transition."""


async def run_task_in_flow(
    task: Task[Any, Any], call: Callable[[], Awaitable[Any]], report: StepReport, flow_run: FlowRun
) -> Any:
    """Execute ``call`` as the task run ``report`` of a Prefect task; returns its value or raises its error.

    ``call`` carries its own arguments: Prefect would walk through whatever it is given in search of futures.
    """
    first = _state(StateType.PENDING)
    run = TaskRun.model_construct(
        id=report.id,
        name=report.key,
        flow_run_id=flow_run.id,
        task_key=report.kind,
        dynamic_key=report.key,
        state=first,
        state_type=first.type,
        state_name=first.name,
        tags=[],
        task_inputs={},
        run_count=0,
        flow_run_run_count=flow_run.run_count,
        labels={},
        start_time=None,
        end_time=None,
        total_run_time=timedelta(0),
        estimated_run_time=timedelta(0),
    )
    engine = _Engine(task=task, parameters={}, task_run=run)
    engine.report = report
    engine._telemetry = _NoTelemetry()
    async with engine.start():
        while engine.is_running():
            await engine.wait_until_ready()
            async with engine.run_context():
                await engine.succeed(await call())
    return await engine.result()
