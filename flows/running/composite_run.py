"""The body of the flow ``composite``: definition → check → plan, or walk with real steps. (spec 3)"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from composites.engine import execute
from composites.graph import wave_numbers
from composites.model import CompositeSpec
from composites.plan import Plan, make_plan, plan_hash
from composites.render import render_plan, to_mermaid
from composites.validate import check
from composites.walk import Overrides
from taskcenter.clock import utc_now
from taskcenter.errors import Refused, TaskCenterError, ValidationFailed
from taskcenter.models import Task
from taskcenter.redaction import redact, redact_text
from taskcenter.status import RunPhase, RunStatus
from taskcenter.task_types import registry
from taskcenter_adapter.mapping import SKIPPED

from .definitions import definition_of, known_to, overrides_of
from .limit import keep_limit
from .reporter import TaskRunReporter
from .session import NotNow, Session, open_session
from .steps import StepRunner

__all__ = ["run_composite", "run_spec"]

_OURS_ALONE = frozenset(
    {
        *("TASKCENTER_SECRET_KEY", "TASKCENTER_DATABASE_URL"),
        *("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_API_DATABASE_CONNECTION_URL"),
    }
)
"""Variables of the worker that no payload may ask for: whoever has them has every task's secrets."""


async def run_composite(
    task: str,
    payload: dict[str, Any] | None,
    dry_run: bool,
    options: dict[str, Any] | None,
    spec: CompositeSpec | None = None,
) -> State[Any]:
    """Run (or plan) the composite ``task``; the final Prefect state says how it ended."""
    try:
        with open_session(task, "composite", dry_run=dry_run, options=options) as session:
            try:
                return await _run(session, task, payload, spec)
            except TimeoutError:
                limit = session.task.termination.max_runtime if session.task else None
                text = f"stopped after {limit:g} s (maxRuntime)" if limit else "timed out"
                session.log(text, "error")
                session.finish(RunStatus.FAILED, message=text, error=text, phase=RunPhase.TIMED_OUT)
                return Failed(message=text, name="TimedOut")
            except TaskCenterError as error:
                session.log(error.message, "error")
                session.finish(RunStatus.FAILED, message=error.message.splitlines()[0], error=error.message)
                return Failed(message=redact_text(error.message))
    except NotNow as closed:
        return Cancelled(name=SKIPPED, message=f"not started: {closed}")
    except TaskCenterError as error:  # no record can be kept: the state at least says why
        return Failed(message=redact_text(error.message))


async def _run(session: Session, slug: str, payload: dict[str, Any] | None, spec: CompositeSpec | None) -> State[Any]:
    inputs: dict[str, Any] = {}
    if spec is None:
        spec, inputs = definition_of(session.store, slug, session.settings)
    errors = check(spec, known_to(session.store, session.settings)).errors
    if errors:
        raise ValidationFailed(f"the composite {spec.name!r}", errors)
    spec, overrides, said = overrides_of(spec, session.options, session.store)
    inputs = {**inputs, **(payload or {})}
    revision = session.task.revision if session.task else None
    _same_plan(session, spec, inputs, overrides, revision)
    for line in said:
        session.log(line)
    if session.dry_run:
        return await _plan(session, spec, inputs, overrides, revision)
    return await run_spec(session, spec, inputs, overrides)


def _same_plan(
    session: Session, spec: CompositeSpec, inputs: Mapping[str, Any], overrides: Overrides, revision: int | None
) -> None:
    wanted = session.options.plan_hash
    if wanted is None:
        return
    now = plan_hash(spec, inputs={**spec.inputs, **inputs}, revision=revision, overrides=overrides)
    if now != wanted:
        raise Refused(f"the plan {wanted} is not the plan of now ({now}): something changed since; plan again")
    session.recorder.set_run(plan_hash=now)


async def _plan(
    session: Session, spec: CompositeSpec, inputs: dict[str, Any], overrides: Overrides, revision: int | None
) -> State[Any]:
    plan = make_plan(
        spec,
        find_type=registry.find,
        inputs=inputs,
        overrides=overrides,
        task_id=session.run.task_id,
        revision=revision,
        has_connection=lambda name: _exists(session, name),
    )
    for line in render_plan(plan, "tree", spec).splitlines():
        session.log(line)
    await _artifact(plan, spec)
    message = f"plan of {len(plan.steps)} steps, nothing was executed (hash {plan.hash})"
    session.recorder.set_run(plan_hash=plan.hash)
    session.finish(RunStatus.SUCCESS, message=message, result=plan.to_dict())
    return Completed(message=message, data=redact(plan.to_dict()))


def _exists(session: Session, name: str) -> bool:
    try:
        session.connection(name)
    except TaskCenterError:
        return False
    return True


async def _artifact(plan: Plan, spec: CompositeSpec) -> None:
    """The plan as a Markdown artifact, so that Prefect's own page of the run shows it."""
    from prefect.artifacts import acreate_markdown_artifact

    text = redact_text(render_plan(plan, "tree", spec))
    graph = to_mermaid(spec) if len(spec.steps) <= 200 else ""
    body = f"```\n{text}\n```\n" + (f"\n```mermaid\n{graph}\n```\n" if graph else "")
    await acreate_markdown_artifact(body[:200_000], key=None, description=f"Plan {plan.hash}")


def environment_of(task: Task | None) -> dict[str, str]:
    """What ``{{env.…}}`` knows: this process's variables without our own credentials, and the task's."""
    kept = {name: value for name, value in os.environ.items() if name not in _OURS_ALONE}
    return {**kept, **(task.environment if task else {})}


async def run_spec(
    session: Session, spec: CompositeSpec, inputs: Mapping[str, Any], overrides: Overrides = Overrides()
) -> State[Any]:
    """Walk a checked composite with real steps, record it, and close the run."""
    run = session.run
    scope = {
        "inputs": {**spec.inputs, **inputs},
        "run": {"id": run.id, "slot": run.slot.isoformat() if run.slot else None, "attempt": run.attempt},
        "task": {"slug": run.task_slug},
        "env": environment_of(session.task),
    }
    session.recorder.expect(spec, wave_numbers(spec))
    async with TaskRunReporter(session.flow_run) as reporter:
        work = StepRunner(session, spec, reporter, session.flow_run)
        try:
            walk = execute(
                spec,
                work,
                session.recorder.step,
                now=utc_now,
                scope=scope,
                overrides=overrides,
                secret=session.secret,
                may_start=session.hold.may_start,
            )
            result = await keep_limit(session, walk)
        finally:
            work.close()
    message = redact_text(result.ending.message)
    if not result.ending.failed:
        session.finish(RunStatus.SUCCESS, message=message, result=result.to_dict())
        return Completed(message=message, data=redact(result.to_dict()))
    if asked := session.cancel_asked():
        session.finish(RunStatus.CANCELLED, message=asked, result=result.to_dict())
        return Cancelled(message=redact_text(asked))
    session.finish(RunStatus.FAILED, message=message, result=result.to_dict(), error=message)
    return Failed(message=message)
