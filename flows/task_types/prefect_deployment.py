"""``prefect_deployment``: run any other Prefect deployment, and wait for it. (spec 2.9)"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from taskcenter.clear_secrets import keep_out_of_parameters
from taskcenter.context import Cancelled, PlanNote, RunContext
from taskcenter.errors import NotFound, ServerAway, StepFailed, TimedOut
from taskcenter.task_types import task_type

from .payload import Flag, Payload, Seconds, Text

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

__all__ = ["PrefectDeploymentPayload", "prefect_deployment"]

_FIRST_POLL, _LONGEST_POLL = 0.25, 5.0
_AWAY_SECONDS = 60.0
"""How long the server may be silent while its run is waited for."""


class PrefectDeploymentPayload(Payload):
    """Which deployment, with what, and whether its end is waited for."""

    deployment: Annotated[Text, Field(pattern=r"^[^/]+/[^/]+$")] = Field(description="flow/name")
    parameters: dict[str, Any] = Field({})
    wait: Flag = True
    timeout_seconds: Seconds = Field(0, description="0: no limit. When it is reached the flow run is cancelled.")


def plan(payload: PrefectDeploymentPayload, ctx: RunContext) -> PlanNote:
    """Names the deployment; Prefect is not asked."""
    then = "and waits for its end" if payload.wait else "and goes on"
    return PlanNote(f"runs {payload.deployment} {then}", details={"parameters": sorted(payload.parameters)})


@task_type("prefect_deployment", title="Prefect deployment", category="control", icon="rocket_launch", plan=plan)
def prefect_deployment(payload: PrefectDeploymentPayload, ctx: RunContext) -> dict[str, Any]:
    """Start a run of a Prefect deployment and, unless told otherwise, wait for its end.

    Gives ``{executor, flowRunId, flowRunName, state, message?, durationMs}``. Raises NotFound, ServerAway, StepFailed
    (``deployment``, when it did not end as Completed), TimedOut and Cancelled, which both cancel the flow run.
    """
    import httpx
    from prefect.client.orchestration import get_client

    started = time.monotonic()
    try:
        with get_client(sync_client=True) as client:
            run = _create(client, payload, ctx)
            ctx.output(f"flow run {run.name} ({run.id}) of {payload.deployment}")
            if payload.wait:
                run = _follow(client, run.id, payload, ctx)
    except httpx.TransportError as error:
        raise ServerAway(f"the Prefect server does not answer ({type(error).__name__})") from error
    state = run.state
    output: dict[str, Any] = {
        "executor": "prefect_deployment",
        "flowRunId": str(run.id),
        "flowRunName": run.name,
        "state": state.name if state else None,
        "durationMs": round((time.monotonic() - started) * 1000, 1),
    }
    if state is not None and state.message:
        output["message"] = state.message
    if payload.wait and (state is None or not state.is_completed()):
        name = state.name if state else "unknown"
        raise StepFailed(
            f"{payload.deployment} ended as {name}" + (f": {state.message}" if state and state.message else ""),
            error_type="deployment",
            output=output,
        )
    return output


def _create(client: SyncPrefectClient, payload: PrefectDeploymentPayload, ctx: RunContext) -> FlowRun:
    from prefect.exceptions import ObjectNotFound

    keep_out_of_parameters(payload.parameters, f"a run of {payload.deployment}")
    try:
        deployment = client.read_deployment_by_name(payload.deployment)
    except ObjectNotFound:
        raise NotFound(f"there is no Prefect deployment {payload.deployment!r}", key=payload.deployment) from None
    # The same attempt of the same step asked twice (after a crash) must not run the deployment twice.
    parts = (ctx.run_id, ctx.step_key or "", str(ctx.attempt))
    key = "taskcenter " + " ".join(parts) if ctx.run_id else None
    return client.create_flow_run_from_deployment(deployment.id, parameters=payload.parameters, idempotency_key=key)


def _follow(client: SyncPrefectClient, run_id: UUID, payload: PrefectDeploymentPayload, ctx: RunContext) -> FlowRun:
    """Poll until the run is final; a short absence of the server is waited out."""
    import httpx

    started = heard = time.monotonic()
    pause = _FIRST_POLL
    while True:
        try:
            run = client.read_flow_run(run_id)
            heard = time.monotonic()
            if run.state is not None and run.state.is_final():
                return run
        except httpx.TransportError:
            if time.monotonic() - heard > _AWAY_SECONDS:
                raise
        until = time.monotonic() + pause
        while (left := until - time.monotonic()) > 0:
            _check(client, run_id, started, payload, ctx)
            time.sleep(min(0.2, left))
        pause = min(_LONGEST_POLL, pause * 1.5)


def _check(
    client: SyncPrefectClient, run_id: UUID, started: float, payload: PrefectDeploymentPayload, ctx: RunContext
) -> None:
    if ctx.is_cancelled is not None and ctx.is_cancelled():
        _cancel(client, run_id)
        raise Cancelled(f"the flow run {run_id} of {payload.deployment} was cancelled with this run")
    if payload.timeout_seconds and time.monotonic() - started > payload.timeout_seconds:
        _cancel(client, run_id)
        raise TimedOut(
            f"{payload.deployment} ran longer than {payload.timeout_seconds:g} s; its flow run {run_id} was cancelled",
            output={"executor": "prefect_deployment", "flowRunId": str(run_id)},
        )


def _cancel(client: SyncPrefectClient, run_id: UUID) -> None:
    """Ask Prefect to cancel. A run that has not started yet becomes Cancelled, a running one Cancelling."""
    from prefect.states import Cancelled as CancelledState
    from prefect.states import Cancelling

    state = client.read_flow_run(run_id).state
    running = state is not None and (state.is_running() or state.is_pending())
    client.set_flow_run_state(run_id, Cancelling() if running else CancelledState())
