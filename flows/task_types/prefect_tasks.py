"""Every task type as a Prefect task, for hand-written Prefect flows. (spec 1.2)

``from flows.task_types.prefect_tasks import sql_script`` works for each registered key::

    @flow
    def report():
        sql_script(sql="select count(*) from orders", connection="shop", expect="value > 0")
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from prefect.tasks import Task

from taskcenter.context import RunContext
from taskcenter.errors import NotFound, ValidationFailed
from taskcenter.jsonable import to_jsonable
from taskcenter.ports import SchemaSnapshots
from taskcenter.settings import Settings
from taskcenter.task_types import TaskType, registry
from taskcenter_adapter.resolve_secret import resolve_secret
from taskcenter_adapter.runtime import database_url
from taskcenter_adapter.store import open_store

from ..running.masking import MASKING, connection, masked_errors

__all__ = ["as_prefect_task", "run_context"]


@cache
def as_prefect_task(key: str) -> Task[..., Any]:
    """The Prefect task of the task type ``key``: takes the payload's fields as keywords, gives its JSON result.

    The same object each time. It has no retries of its own and keeps no result. NotFound for an unknown key.
    """
    kind = registry.get(key)
    run = _async_run(kind) if kind.is_async else _run(kind)
    run.__name__ = run.__qualname__ = key
    run.__doc__ = kind.function.__doc__
    decorate = task(name=key, retries=0, persist_result=False, cache_policy=NO_CACHE, log_prints=False)
    return decorate(run)


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    try:
        return as_prefect_task(name)
    except NotFound as error:
        raise AttributeError(str(error)) from None


def _run(kind: TaskType) -> Any:
    def run(**payload: Any) -> Any:
        _check(kind, payload)
        with _said_redacted(), run_context(kind.key) as ctx:
            return to_jsonable(kind.call(payload, ctx))

    return run


def _async_run(kind: TaskType) -> Any:
    async def run(**payload: Any) -> Any:
        _check(kind, payload)
        with _said_redacted(), run_context(kind.key) as ctx:
            return to_jsonable(await kind.call(payload, ctx))

    return run


def _check(kind: TaskType, payload: dict[str, Any]) -> None:
    problems = kind.check(payload)
    if problems:
        raise ValidationFailed(f"the payload of {kind.key}", problems)


@contextmanager
def _said_redacted() -> Iterator[None]:
    """Neither Prefect's log nor the state that it makes of an exception holds a secret."""
    for name in ("prefect.task_runs", "prefect.flow_runs"):
        logging.getLogger(name).addFilter(MASKING)  # once: a logger takes the same filter only once
    with masked_errors():
        yield


@contextmanager
def run_context(key: str) -> Iterator[RunContext]:
    """A RunContext for the Prefect run that surrounds the caller; a plain one outside of any.

    Connections come from the environment, the samples and Prefect blocks, secrets from Task Center's store and
    Prefect's Secret blocks.
    """
    step, flow = TaskRunContext.get(), FlowRunContext.get()
    flow_run_id = step.task_run.flow_run_id if step else flow.flow_run.id if flow and flow.flow_run else None
    settings = Settings.from_env()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="taskcenter-"))

        def snapshots() -> SchemaSnapshots:
            store = open_store(database_url(settings))
            stack.callback(store.close)
            return store.snapshots

        def secret(name: str) -> str:
            store = open_store(database_url(settings))
            stack.callback(store.close)
            return resolve_secret(name, settings, store)[0]

        yield RunContext(
            run_id=str(flow_run_id or ""),
            task=key,
            step_key=str(step.task_run.id) if step else None,
            attempt=max(1, step.task_run.run_count) if step else 1,
            logger=_logger(),
            data_dir=settings.home,
            temp_dir=Path(folder),
            resolve_connection=partial(connection, home=settings.home),
            resolve_secret=secret,
            resolve_snapshots=snapshots,
        )


def _logger() -> logging.Logger:
    try:
        # An adapter, which has all that is used of a Logger, and puts the run's ids to each line.
        return cast(logging.Logger, get_run_logger())
    except MissingContextError:
        return logging.getLogger("taskcenter.run")
