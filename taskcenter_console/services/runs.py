"""Runs: start, watch, list. (spec 1.4, 5.1, 6.3)"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from deployments.spec import POOL
from taskcenter.clear_secrets import find_clear_secrets
from taskcenter.clock import utc_now
from taskcenter.errors import NotFound, Problem, Refused, ServerAway, ValidationFailed
from taskcenter.models import LogLine, Run, StepRun, Task, new_id
from taskcenter.options import RunOptions
from taskcenter.ports import Changes, Page, RunFilter
from taskcenter.status import TERMINAL_RUN, Origin, RunPhase, RunStatus
from taskcenter_adapter.doorbell import ring
from taskcenter_adapter.gateway import NewRun
from taskcenter_adapter.mapping import tags_for

from . import composites as composite_service
from . import progress
from . import tasks as task_service
from .center import Caller, Center
from .deploy import deploy
from .options import parse_options

__all__ = [
    "all_logs",
    "check",
    "confirmed",
    "deployment_of",
    "details",
    "follow",
    "get",
    "list_runs",
    "logs",
    "parse_options",
    "start",
    "steps",
    "wait",
    "workers_online",
]


def start(
    center: Center,
    name: str,
    caller: Caller,
    *,
    payload: Mapping[str, Any] | None = None,
    options: RunOptions = RunOptions(),
    dry_run: bool = False,
    at: datetime | None = None,
    confirm: bool = False,
    again: str | None = None,
    attempt: int = 1,
) -> Run:
    """Ask Prefect for a run of a task and write its row; returns at once.

    ``again``: the run that this one repeats, as the ``attempt``-th.

    Refused, with nothing created, when the payload does not fit, a step does not exist, the plan changed or a
    danger text was not confirmed.
    """
    task = task_service.get(center, name)
    confirmed(task, confirm or dry_run)
    check(center, task, payload, options)
    origin = Origin.RESUME if options.resume else Origin.MANUAL_RETRY if again else Origin.MANUAL
    earlier = options.resume or again
    chosen = options.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    parameters: dict[str, Any] = {"task": task.slug, "dry_run": dry_run}
    if payload:
        parameters["payload"] = dict(payload)
    if chosen:
        parameters["options"] = chosen
    tags = tags_for(origin, attempt=attempt, resumed_from=earlier or "")
    # The gateway repeats a call whose answer is lost: by the key Prefect knows that it is the same run.
    wanted = NewRun(parameters, tags, at=at, idempotency_key=f"manual {new_id()}")
    made = _ask_prefect(center, task, wanted)
    run = Run(
        id=made["id"],
        task_id=task.id,
        task_slug=task.slug,
        task_type=task.task_type,
        task_revision=task.revision,
        origin=origin,
        status=RunStatus.QUEUED,
        phase=RunPhase.SCHEDULED,
        attempt=attempt,
        root_run_id=made["id"],
        resumed_from=earlier,
        dry_run=dry_run,
        name=made["name"],
        slot=at,
        created_at=utc_now(),
        prefect_state=made["state_name"],
    )
    entry = caller.entry(
        "manual_retry_requested" if origin is not Origin.MANUAL else "manual_run_requested",
        task_id=task.id,
        run_id=run.id,
        object=f"run {run.id}",
        message=f"a run of {task.deployment_name} was asked for",
        metadata={"dryRun": dry_run, "steps": options.overridden_steps(), "resume": options.resume, "again": again},
    )
    center.store.record(Changes(runs=(run,), audit=(entry,)))
    if at is None:
        ring(center.settings.home, run.id)  # now that the row is there, which may be told what it waits for
    return run


def confirmed(task: Task, said: bool) -> None:
    """Raises Refused when the task asks for a confirmation that nobody gave."""
    if task.danger and not said:
        how = "confirm with --yes, over REST with confirm: true"
        raise Refused(f"{task.slug} asks for a confirmation: {task.danger} ({how})")


def _ask_prefect(center: Center, task: Task, run: NewRun) -> dict[str, Any]:
    """A flow run of the task's deployment, whose id is remembered: asking for it would keep each run waiting."""
    known = center.deployment_ids.get(task.deployment_name)
    if known is not None:
        with contextlib.suppress(NotFound):  # it was deleted in Prefect, and maybe made again
            return center.gateway.create_run(known, run)
    return center.gateway.create_run(deployment_of(center, task), run)


def deployment_of(center: Center, task: Task) -> str:
    """The id of the task's deployment in Prefect, which is made when it is not there."""
    name = task.deployment_name
    deployment = center.gateway.find_deployment(name)
    if deployment is None:
        deploy(center, [task])
        deployment = center.gateway.find_deployment(name)
        if deployment is None:
            raise ServerAway(f"Prefect did not keep the deployment {name}")
    center.deployment_ids[name] = str(deployment["id"])
    return center.deployment_ids[name]


def check(center: Center, task: Task, payload: Mapping[str, Any] | None, options: RunOptions) -> None:
    """Raises ValidationFailed or Refused when a run of the task could not begin so."""
    clear = [*find_clear_secrets(payload or {}, "payload"), *find_clear_secrets(options.set, "options.set")]
    if clear:  # Prefect keeps a run's parameters in the clear
        raise ValidationFailed(f"the run of {task.slug!r}", clear)
    if task.task_type == "composite":
        composite_service.plan(center, task.slug, inputs=payload, options=options)
        return
    if options.overridden_steps() or options.plan_hash or options.resume:
        raise Refused(f"{task.slug} has no steps: step options, plans and resuming are for composites")
    changed = task.model_copy(update={"payload": {**task.payload, **(payload or {})}, "triggers": ()})
    problems = task_service.check_task(center, changed, None)
    if problems:
        raise ValidationFailed(f"the payload for {task.slug!r}", problems)


def get(center: Center, run_id: str) -> Run:
    return center.store.get_run(run_id)


def list_runs(center: Center, *, task: str | None = None, status: str | None = None, search: str | None = None,
              batch: str | None = None, since: datetime | None = None, until: datetime | None = None, limit: int = 50,
              cursor: str | None = None) -> Page:  # fmt: skip
    """Newest first; the page's cursor gives the next one. ``search``: part of the task's or the run's name."""
    if status is not None and status not in set(RunStatus):
        known = ", ".join(RunStatus)
        raise ValidationFailed("the filter", [Problem("status", "status", f"{status!r} is not known; known: {known}")])
    task_id = task_service.get(center, task).id if task else None
    where = RunFilter(task_id=task_id, status=RunStatus(status) if status else None, search=search, batch_id=batch,
                      since=since, until=until, limit=limit, cursor=cursor)  # fmt: skip
    return center.store.list_runs(where)


def details(center: Center, run_id: str) -> dict[str, Any]:
    """The run with its steps, and the address of the same run in Prefect's UI."""
    run = get(center, run_id)
    prefect = center.prefect_url()
    steps = list(center.store.list_steps(run.id))
    return {
        **run.to_json(),
        "steps": [step.to_json() for step in steps],
        "progress": progress.of_run(center, run, steps),
        "prefectUrl": f"{prefect}/runs/flow-run/{run.id}" if prefect else None,
    }


def steps(center: Center, run_id: str) -> list[StepRun]:
    """The steps of a run, in their order."""
    return list(center.store.list_steps(run_id))


def workers_online(center: Center) -> int | None:
    """How many workers could take a run now; None when the Prefect server cannot be asked."""
    try:
        return center.gateway.workers_online(POOL)
    except ServerAway:
        return None


def logs(center: Center, run_id: str, *, after: int = -1, limit: int = 1000) -> list[LogLine]:
    return list(center.store.list_logs(get(center, run_id).id, after=after, limit=limit))


def all_logs(center: Center, run_id: str) -> Iterator[LogLine]:
    """Every line there is so far, page by page."""
    run_id, after = get(center, run_id).id, -1
    while lines := center.store.list_logs(run_id, after=after, limit=2000):
        yield from lines
        after = lines[-1].sequence


def follow(center: Center, run_id: str, *, every: float = 0.2, timeout: float | None = None) -> Iterator[LogLine]:
    """The lines so far and then each new one, until the run is over (or ``timeout`` seconds have passed)."""
    run_id = get(center, run_id).id
    after, begin = -1, time.monotonic()
    while True:
        run = get(center, run_id)
        lines = center.store.list_logs(run_id, after=after, limit=2000)
        yield from lines
        after = lines[-1].sequence if lines else after
        if len(lines) == 2000:
            continue
        if run.status in TERMINAL_RUN:
            return
        if timeout is not None and time.monotonic() - begin > timeout:
            return
        time.sleep(every)


def wait(center: Center, run_id: str, *, timeout: float | None = None, every: float = 0.1) -> Run:
    """The run when it is over, or as it stands after ``timeout`` seconds."""
    begin = time.monotonic()
    while True:
        run = get(center, run_id)
        if run.status in TERMINAL_RUN or (timeout is not None and time.monotonic() - begin > timeout):
            return run
        time.sleep(every)
