"""Runs a checked composite: asks the walker what may start, hands each step to ``work``, tells ``observe``.

The same loop serves the Prefect flow and a run in a plain Python session; they differ in ``work`` (how one step
is executed) and ``observe`` (where its changes are written). Nothing here knows Prefect, a database or a clock
of its own.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from taskcenter.context import Cancelled
from taskcenter.errors import MappingError, StepFailed, TaskCenterError
from taskcenter.jsonable import to_jsonable
from taskcenter.reasons import Reason, ReasonCode
from taskcenter.status import StepStatus

from . import templates
from .graph import wave_numbers
from .model import CompositeSpec, StepSpec
from .walk import Decisions, Ending, Outcome, Overrides, Walker, compile_graph, output_of

__all__ = ["CompositeResult", "StepCall", "StepChange", "execute"]


@dataclass
class StepCall:
    """One execution of one step (or of one item of a mapped step), as ``work`` gets it."""

    key: str
    """``copy``, or ``copy[3]`` for the fourth item of a map."""
    step: StepSpec
    payload: dict[str, Any]
    """With templates rendered and secrets resolved: only for the work itself, never stored or shown."""
    wave: int = 0
    attempts: int = 0
    """Counted by ``work``: how often it tried."""
    task_run_id: str | None = None
    cancel: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class StepChange:
    """One transition of one step, for whoever keeps the record."""

    key: str
    step: StepSpec
    wave: int
    status: StepStatus
    at: datetime
    started_at: datetime | None = None
    execution: Any = None
    error: str | None = None
    error_type: str | None = None
    reason: Reason | None = None
    reused: bool = False
    attempts: int = 0
    task_run_id: str | None = None

    @property
    def duration_ms(self) -> int | None:
        if self.started_at is None or self.status is StepStatus.RUNNING:
            return None
        return max(0, round((self.at - self.started_at).total_seconds() * 1000))


@dataclass(frozen=True)
class CompositeResult:
    """How it ended; ``outputs`` is what later steps could read of each step."""

    ending: Ending
    outputs: Mapping[str, Mapping[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Counts and outcomes per step; the results themselves stand in the step rows."""
        status = {key: output["status"] for key, output in self.outputs.items()}
        return {
            "executor": "composite",
            "totalSteps": len(status),
            "succeeded": sum(s == "success" for s in status.values()),
            "failed": sum(s == "failed" for s in status.values()),
            "skipped": sum(s == "skipped" for s in status.values()),
            "handled": list(self.ending.handled),
            "message": self.ending.message,
            "steps": status,
        }


Work = Callable[[StepCall], Awaitable[Any]]
Observe = Callable[[StepChange], None]
_Ended = tuple[Outcome, datetime | None, StepCall | None]
"""What a step's task gives back: its outcome, when it began to run, and its call where there was one."""


def _failure(error: BaseException) -> Outcome:
    """Whatever was raised, as the step's failure."""
    if isinstance(error, StepFailed):
        return Outcome(StepStatus.FAILED, error.output, error.message, error.error_type)
    if isinstance(error, TaskCenterError):
        return Outcome(StepStatus.FAILED, error=str(error), error_type=error.code)
    if isinstance(error, Cancelled):
        return Outcome(StepStatus.FAILED, error=str(error), error_type="cancelled")
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return Outcome(StepStatus.FAILED, error=text, error_type=type(error).__name__)


async def execute(
    spec: CompositeSpec,
    work: Work,
    observe: Observe,
    *,
    now: Callable[[], datetime],
    scope: Mapping[str, Any],
    overrides: Overrides = Overrides(),
    secret: Callable[[str, str], str] | None = None,
    should_stop: Callable[[], bool] | None = None,
    may_start: Callable[[], Awaitable[None]] | None = None,
) -> CompositeResult:
    """Run every step that the walker lets start, at most ``max_parallel`` at once.

    ``scope`` holds ``inputs``, ``run``, ``task`` and ``env`` for templates. ``work`` returns the step's result or
    raises; ``observe`` is called for each transition, in order, and must not block. Each step waits for ``may_start``
    first. When this coroutine is
    cancelled, the running steps are cancelled too and every open step is observed as skipped before it leaves.
    """
    run = _Run(spec, work, observe, now, scope, overrides, secret, may_start)
    return await run.go(should_stop)


class _Run:
    def __init__(
        self,
        spec: CompositeSpec,
        work: Work,
        observe: Observe,
        now: Callable[[], datetime],
        scope: Mapping[str, Any],
        overrides: Overrides,
        secret: Callable[[str, str], str] | None,
        may_start: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.may_start = may_start
        self.spec, self.work, self.observe, self.now, self.secret = spec, work, observe, now, secret
        graph = compile_graph(spec)
        self.walker = Walker(graph, overrides)
        self.steps = {step.step_key: step for step in spec.steps}
        self.waves = wave_numbers(spec)
        self.outputs: dict[str, Mapping[str, Any]] = {}
        self.scope = {**scope, "steps": self.outputs}
        self.running: dict[str, asyncio.Task[_Ended]] = {}
        self.calls: dict[str, StepCall] = {}
        self.cancelling = False
        self.done: asyncio.Queue[tuple[str, Outcome, datetime | None, StepCall | None]] = asyncio.Queue()

    async def go(self, should_stop: Callable[[], bool] | None) -> CompositeResult:
        try:
            self._apply(self.walker.start())
            while not self.walker.finished:
                ended = [await self.done.get()]
                while not self.done.empty():
                    ended.append(self.done.get_nowait())
                for key, outcome, started, call in ended:
                    self._take(key, outcome, started, call)
                    self._apply(self.walker.report({key: outcome}))
                if should_stop is not None and not self.cancelling and should_stop():
                    if self.walker.halted is None:
                        self._apply(self.walker.halt(Reason(ReasonCode.CANCELLED)))
                    self._cancel_running()
        except asyncio.CancelledError as error:
            if self.walker.halted is None:
                code = ReasonCode.TIMED_OUT if error.args == ("timed_out",) else ReasonCode.CANCELLED
                self._apply(self.walker.halt(Reason(code)))
            await self._stop_running()
            # from the tasks and not from the queue: their callbacks may not have been called yet
            for key, task in list(self.running.items()):
                _, outcome, started, call = self._end_of(key, task)
                self._take(key, outcome, started, call)
                self.walker.report({key: outcome})
            raise
        except BaseException:  # observe failed: nobody keeps the record any more, so nothing may go on unseen
            await self._stop_running()
            raise
        return CompositeResult(self.walker.final(), self.outputs)

    def _cancel_running(self) -> None:
        self.cancelling = True
        for call in self.calls.values():
            call.cancel.set()
        for task in self.running.values():
            task.cancel()

    async def _stop_running(self) -> None:
        self._cancel_running()
        await asyncio.gather(*self.running.values(), return_exceptions=True)

    def _apply(self, decisions: Decisions) -> None:
        at = self.now()
        for key, reason in decisions.skip:
            self.outputs[key] = output_of(Outcome(StepStatus.SKIPPED), None, reason)
            self._say(key, StepStatus.SKIPPED, at, reason=reason)
        for key, outcome in decisions.fail:
            self.outputs[key] = output_of(outcome, 0)
            self._say(key, StepStatus.FAILED, at, error=outcome.error, error_type=outcome.error_type)
        for key in decisions.reuse:
            outcome = self.walker.outcomes[key]
            self.outputs[key] = output_of(outcome, 0)
            self._say(key, StepStatus.SUCCESS, at, execution=outcome.result, reused=True)
        for key in decisions.ready:
            task = asyncio.create_task(self._run_step(key), name=f"step {key}")
            task.add_done_callback(partial(self._ended, key))
            self.running[key] = task
        if decisions.halt is not None and self.spec.halt_mode == "cancel":
            self._cancel_running()

    def _ended(self, key: str, task: asyncio.Task[_Ended]) -> None:
        self.done.put_nowait(self._end_of(key, task))

    def _end_of(self, key: str, task: asyncio.Task[_Ended]) -> tuple[str, Outcome, datetime | None, StepCall | None]:
        """How a task ended that is done, also one that was cancelled before it began."""
        if task.cancelled():
            return key, Outcome(StepStatus.SKIPPED), None, None
        if (error := task.exception()) is not None:
            return key, _failure(error), None, None
        return (key, *task.result())

    def _take(self, key: str, outcome: Outcome, started: datetime | None, call: StepCall | None) -> None:
        self.running.pop(key, None)
        at = self.now()
        duration = max(0, round((at - started).total_seconds() * 1000)) if started else 0
        reason = self.walker.halted if outcome.status is StepStatus.SKIPPED else None
        self.outputs[key] = output_of(outcome, duration, reason)
        self._say(
            key,
            outcome.status,
            at,
            started_at=started,
            execution=outcome.result,
            error=outcome.error,
            error_type=outcome.error_type,
            reason=reason,
            attempts=call.attempts if call else 0,
            task_run_id=call.task_run_id if call else None,
        )

    def _say(self, key: str, status: StepStatus, at: datetime, *, step: StepSpec | None = None, **more: Any) -> None:
        spec = step or self.steps[key]
        self.observe(StepChange(key, spec, self.waves.get(spec.step_key, 0), status, at, **more))

    async def _run_step(self, key: str) -> _Ended:
        step = self.steps[key]
        started: datetime | None = None
        call: StepCall | None = None
        try:
            if self.may_start is not None:
                await self.may_start()
            if step.map_over is None:
                call = StepCall(key, step, self._payload(step, {}), self.waves[key])
                self.calls[key] = call
                started = self.now()
                self._say(key, StepStatus.RUNNING, started, started_at=started, attempts=1)
                outcome = await self._attempt(call)
            else:
                items = self._items(step)
                started = self.now()
                self._say(key, StepStatus.RUNNING, started, started_at=started, attempts=1)
                outcome = await self._run_map(step, items)
        except asyncio.CancelledError:
            outcome = self._cancelled()
        except Exception as error:  # a template that cannot be resolved, a secret that is not there
            outcome = _failure(error)
        finally:
            self.calls.pop(key, None)
        return outcome, started, call

    def _cancelled(self) -> Outcome:
        """Cancelled from outside: skipped, with the halt as its reason. By its own work: a failure like any other."""
        task = asyncio.current_task()
        if self.cancelling or (task is not None and task.cancelling()):
            return Outcome(StepStatus.SKIPPED)
        return Outcome(StepStatus.FAILED, error="its work was cancelled from within", error_type="cancelled")

    def _payload(self, step: StepSpec, more: Mapping[str, Any]) -> dict[str, Any]:
        """The step's own copy: whatever its work does to it, the definition and other results stay as they are."""
        if not templates.has_template(step.payload):
            return copy.deepcopy(dict(step.payload))
        scope = {**self.scope, **more} if more else self.scope
        rendered: dict[str, Any] = templates.render(step.payload, scope, self._secret_for(step.step_key))
        return rendered

    def _secret_for(self, step_key: str) -> Callable[[str], str] | None:
        secret = self.secret
        return None if secret is None else lambda name: secret(name, step_key)

    async def _attempt(self, call: StepCall) -> Outcome:
        """Execute once (``work`` does the retries) and turn whatever happens into an outcome."""
        try:
            result = await self.work(call)
            return Outcome(StepStatus.SUCCESS, to_jsonable(result))
        except (Exception, SystemExit) as error:  # whatever the step's own code raises is the step's failure, not ours
            return _failure(error)

    def _items(self, step: StepSpec) -> list[Any]:
        items = templates.render(step.map_over, self.scope, None)
        if not isinstance(items, list):
            raise MappingError(f"mapOver gave a {type(items).__name__}, not a list")
        if len(items) > step.map_max_items:
            raise MappingError(f"mapOver gave {len(items)} items; at most {step.map_max_items} are allowed")
        return items

    async def _run_map(self, step: StepSpec, items: list[Any]) -> Outcome:
        gate = asyncio.Semaphore(step.map_parallel or self.spec.max_parallel)
        results = await asyncio.gather(*(self._run_item(step, i, item, gate) for i, item in enumerate(items)))
        failed = [i for i, outcome in enumerate(results) if outcome.status is StepStatus.FAILED]
        values = [outcome.result for outcome in results]
        if len(failed) > step.tolerance:
            first = results[failed[0]]
            text = f"{len(failed)} of {len(items)} items failed, first {step.step_key}[{failed[0]}]: {first.error}"
            return Outcome(StepStatus.FAILED, values, text, first.error_type)
        return Outcome(StepStatus.SUCCESS, values)

    async def _run_item(self, step: StepSpec, index: int, item: Any, gate: asyncio.Semaphore) -> Outcome:
        key = f"{step.step_key}[{index}]"
        row = replace(step, step_key=step.step_key, name=f"{step.name or step.step_key}[{index}]")
        started: datetime | None = None
        call: StepCall | None = None
        async with gate:
            try:
                if self.may_start is not None:
                    await self.may_start()
                call = StepCall(
                    key, step, self._payload(step, {"item": item, "index": index}), self.waves[step.step_key]
                )
                self.calls[key] = call
                started = self.now()
                self._say(key, StepStatus.RUNNING, started, step=row, started_at=started, attempts=1)
                outcome = await self._attempt(call)
            except asyncio.CancelledError:
                if self.cancelling:
                    reason = self.walker.halted
                    self._say(key, StepStatus.SKIPPED, self.now(), step=row, started_at=started, reason=reason)
                    raise
                outcome = self._cancelled()
            except Exception as error:  # as above
                outcome = _failure(error)
            finally:
                self.calls.pop(key, None)
        self._say(
            key,
            outcome.status,
            self.now(),
            step=row,
            started_at=started,
            execution=outcome.result,
            error=outcome.error,
            error_type=outcome.error_type,
            attempts=call.attempts if call else 0,
            task_run_id=call.task_run_id if call else None,
        )
        return outcome
