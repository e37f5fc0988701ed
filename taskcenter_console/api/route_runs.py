"""Runs: start, list, look at, read the log. (spec 1.4, 5.1, 6.3)"""

from __future__ import annotations

import re
import time
from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from taskcenter.models import Run
from taskcenter.status import TERMINAL_RUN
from taskcenter_console.services import cancelling, pausing, repeating, runs

from .depends import CALLER, CallerOf, CenterOf
from .problems import documented
from .wire_runs import (
    AgainRequest,
    Comparison,
    LogPage,
    LogQuery,
    RunPage,
    RunQuery,
    RunRequest,
    RunView,
    StepList,
    WhyRequest,
)

__all__ = ["MAX_WAIT", "router"]

MAX_WAIT = 60
_EVERY = 0.2
_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)

router = APIRouter(prefix="/api", tags=["runs"])


@router.post(
    "/tasks/{name}/run",
    status_code=202,
    responses={200: {"model": Run, "description": "It finished while waiting."}, **documented(404, 409, 422, 503)},
)
async def run_task(
    center: CenterOf,
    caller: CallerOf,
    name: str,
    request: Request,
    response: Response,
    body: RunRequest | None = None,
    prefer: Annotated[str | None, Header(description="`wait=N`: wait up to N (at most 60) seconds.")] = None,
) -> Run:
    """Ask for a run. Answers at once, or with `Prefer: wait=N` when it finished or the time is over."""
    asked = body or RunRequest()
    until, run = time.monotonic(), await run_in_threadpool(
        runs.start,
        center,
        name,
        caller,
        payload=asked.payload,
        options=asked.options,
        dry_run=asked.dry_run,
        at=asked.at,
        confirm=asked.confirm,
    )  # fmt: skip
    response.headers["Location"] = f"/api/runs/{run.id}"
    wait = wait_of(prefer)
    if wait is not None:
        response.headers["Preference-Applied"] = f"wait={wait}"
        until = time.monotonic() + wait
    # Looked at in short calls, so that a hundred waiting clients hold no thread.
    while run.status not in TERMINAL_RUN and time.monotonic() < until and not await request.is_disconnected():
        await anyio.sleep(min(_EVERY, max(until - time.monotonic(), 0.0)))
        run = await run_in_threadpool(runs.get, center, run.id)
    if wait is not None and run.status in TERMINAL_RUN:
        response.status_code = 200
    return run


def wait_of(prefer: str | None) -> int | None:
    """The seconds of ``Prefer: wait=N``, at most 60; a preference that cannot be read is ignored (RFC 7240)."""
    found = _WAIT.search(prefer or "")
    return min(int(found[1]), MAX_WAIT) if found else None


@router.get("/runs", responses=documented(404, 422))
def list_runs(center: CenterOf, query: Annotated[RunQuery, Query()]) -> RunPage:
    """Newest first; the page's `nextCursor` leads to the next one."""
    page = runs.list_runs(center, search=query.q, **query.model_dump(exclude={"q"}))
    return RunPage(items=list(page.items), next_cursor=page.next_cursor)


@router.get("/runs/{run_id}", responses=documented(404, 409))
def get_run(center: CenterOf, run_id: str) -> RunView:
    """A run with its steps; the beginning of its id (4 characters or more) is enough."""
    return RunView.model_validate(runs.details(center, run_id))


@router.post(
    "/runs/{run_id}/cancel",
    status_code=202,
    responses={200: {"model": Run, "description": "It is over."}, **documented(404, 409, 422, 503)},
)
def cancel_run(center: CenterOf, run_id: str, response: Response, body: WhyRequest | None = None) -> Run:
    """Cancel a run. One that waits is cancelled at once; one at work says `cancelled` when all of it is gone."""
    run = cancelling.cancel(center, run_id, CALLER, reason=(body or WhyRequest()).reason)
    if run.status in TERMINAL_RUN:
        response.status_code = 200
    return run


@router.post("/runs/{run_id}/pause", responses=documented(404, 409, 422, 503))
def pause_run(center: CenterOf, run_id: str, body: WhyRequest | None = None) -> Run:
    """Hold a run at work: its processes stand still, no new step starts, no time-out counts."""
    return pausing.pause(center, run_id, CALLER, reason=(body or WhyRequest()).reason)


@router.post("/runs/{run_id}/continue", responses=documented(404, 409, 422, 503))
def continue_run(center: CenterOf, run_id: str, body: WhyRequest | None = None) -> Run:
    """Let a held run go on where it was."""
    return pausing.proceed(center, run_id, CALLER, reason=(body or WhyRequest()).reason)


@router.post("/runs/{run_id}/retry", status_code=202, responses=documented(404, 409, 422, 503))
def retry_run(center: CenterOf, run_id: str, body: AgainRequest | None = None) -> Run:
    """Run the same again, with the same payload and choices: a new run that names the old one."""
    return repeating.retry(center, run_id, CALLER, confirm=(body or AgainRequest()).confirm)


@router.post("/runs/{run_id}/resume", status_code=202, responses=documented(404, 409, 422, 503))
def resume_run(center: CenterOf, run_id: str, body: AgainRequest | None = None) -> Run:
    """Run a composite on from where it failed."""
    asked = body or AgainRequest()
    return repeating.resume(center, run_id, CALLER, step=asked.step, confirm=asked.confirm)


@router.get("/runs/{run_id}/compare/{other_id}", responses=documented(404, 409))
def compare_runs(center: CenterOf, run_id: str, other_id: str) -> Comparison:
    """What is different between two runs."""
    return Comparison.model_validate(repeating.compare(center, run_id, other_id))


@router.get("/runs/{run_id}/steps", responses=documented(404, 409))
def list_steps(center: CenterOf, run_id: str) -> StepList:
    """The steps of a composite's run, in their order."""
    return StepList.model_validate({"items": runs.details(center, run_id)["steps"]})


@router.get("/runs/{run_id}/logs", responses=documented(404, 409, 422))
def list_logs(center: CenterOf, run_id: str, query: Annotated[LogQuery, Query()]) -> LogPage:
    """The lines of a run's log, in order."""
    return LogPage(items=runs.logs(center, run_id, after=query.after, limit=query.limit))
