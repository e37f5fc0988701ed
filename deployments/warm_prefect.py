"""What a warm start spares Prefect's engine, each without a change of what the run can see. (spec 5.2)

On an idle machine these were 0.35 of 0.5 s: six TLS contexts that are never used over http, four reads of objects
that the worker has just read, and a wait for the websocket that watches for a suspension. (Sources:
``prefect.client.orchestration.PrefectClient.__init__``, ``prefect.events.related``,
``prefect.flow_engine.BaseFlowRunEngine.setup_flow_run_suspension_request`` of 3.8.)
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun
    from pydantic import BaseModel

    from taskcenter.ports import Store

__all__ = [
    "ask_less",
    "known_objects",
    "rehearse",
    "rehearse_here",
    "share_tls_context",
    "watch_for_suspension_later",
]

_LATER: Final = 1.0
"""Seconds after which the watch for a suspension begins; before, the engine reads the run's state itself."""


_PATIENCE: Final = 3.0
_NOBODY: Final = UUID(int=0)
_kept: list[type[BaseModel]] = []
"""Models that Prefect makes anew each time when nobody holds them."""


def share_tls_context() -> None:
    """One TLS context for all Prefect clients of a process (17 ms each), made before the first fork."""
    orchestration: Any = import_module("prefect.client.orchestration")
    shared = SimpleNamespace(**vars(ssl))
    shared.create_default_context = functools.cache(ssl.create_default_context)
    orchestration.ssl = shared


def rehearse() -> None:
    """Do once what every run does first, as far as that needs neither a thread nor a server."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas import OrchestrationResult
    from prefect.logging import get_logger
    from pydantic import BaseModel

    from flows.running.steps import flow_task_of
    from taskcenter.task_types import registry
    from taskcenter_adapter.store import rest

    for sync in (False, True):
        get_client(sync_client=sync)
    for model in _below(BaseModel):
        if not model.__pydantic_complete__ and not model.__pydantic_generic_metadata__["parameters"]:
            with contextlib.suppress(Exception):  # one that names what is not there is the business of who uses it
                model.model_rebuild()
    _read_tables(rest, write=True)
    for key in registry.types:
        flow_task_of(key)
    _kept.append(OrchestrationResult[Any])
    get_logger("warm").info("everything is imported")


def _read_tables(leave: Callable[[str, Store], None], *, write: bool) -> None:
    """One look into our tables; ``leave`` says what becomes of the connection.

    ``write``: a row too, which is taken back and leaves PostgreSQL something to clean up: once, not for each run.
    """
    from taskcenter.settings import Settings
    from taskcenter_adapter.runtime import database_url
    from taskcenter_adapter.store import open_store
    from taskcenter_adapter.store_sql import SqlStore

    with contextlib.suppress(Exception):  # no center here, or its database is away: runs say so themselves
        url = database_url(Settings.from_env())
        store = open_store(url)
        try:
            if isinstance(store, SqlStore):
                store.rehearse(write=write)
        finally:
            leave(url, store)


def rehearse_here() -> None:
    """What only the process of the run itself can do ahead: connect to our database, have a client and a loop.

    And touch what these touch: a fork gets its memory page by page, of which a run needs some thousand.
    """
    import asyncio

    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import FlowRun
    from prefect.states import Running

    from taskcenter_adapter.store import keep

    async def ask() -> None:
        async with get_client() as client:
            await client.api_healthcheck()

    _read_tables(keep, write=False)
    with contextlib.suppress(Exception):  # the server is away: the run says so itself
        FlowRun.model_validate(FlowRun(flow_id=_NOBODY, state=Running()).model_dump(mode="json"))
        if os.environ.get("PREFECT_API_URL"):  # else the client would bring a server of its own
            asyncio.run(asyncio.wait_for(ask(), _PATIENCE))


def _below(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for each in kind.__subclasses__():
        yield each
        yield from _below(each)


def known_objects(objects: Mapping[str, Mapping[str, Any]]) -> None:
    """Give the events of this process the flow, deployment, queue and pool that they name, so that none is read."""
    from prefect.events.related import RESOURCE_CACHE

    for kind, fields in objects.items():
        # A namespace: the models of 3.8 take a millisecond for each field that is not given.
        known: Any = SimpleNamespace(**{**fields, "id": UUID(str(fields["id"]))})
        key = fields["name"] if kind == "work-pool" else fields["id"]
        RESOURCE_CACHE[f"{kind}.{key}"] = ({"kind": kind, "object": known}, datetime.now(UTC))  # type: ignore[assignment]


def ask_less(flow_run: FlowRun) -> None:
    """In the process of a run of our own flows: three questions less to the server before their first line.

    Where results are stored: ours are not. The version of the flow, which the worker tells with the pid, and its
    retries: it has none. And the run as it stands when it is Running: as it was found, one attempt more.
    (``AsyncFlowRunEngine.initialize_run``, ``setup_run_context``)
    """
    results: Any = import_module("prefect.results")
    client: Any = import_module("prefect.client.orchestration").PrefectClient
    update, read = client.update_flow_run, client.read_flow_run

    async def no_block() -> None: ...

    async def first_update(self: Any, flow_run_id: UUID, **fields: Any) -> Any:
        client.update_flow_run = update
        if flow_run_id != flow_run.id or fields.keys() != {"flow_version", "empirical_policy"}:
            return await update(self, flow_run_id, **fields)

    async def first_read(self: Any, flow_run_id: UUID) -> FlowRun:
        client.read_flow_run = read
        state = flow_run.state
        if flow_run_id != flow_run.id or state is None or not state.is_running():
            found: FlowRun = await read(self, flow_run_id)
            return found
        started = {"start_time": flow_run.start_time or state.timestamp, "run_count": flow_run.run_count + 1}
        return flow_run.model_copy(update=started)

    results._read_server_default_result_storage_block_id = lambda: None
    results._aread_server_default_result_storage_block_id = no_block
    client.update_flow_run, client.read_flow_run = first_update, first_read


def watch_for_suspension_later() -> None:
    """Begin the watch when the run has lasted a second, and do not make the run wait for its websocket."""
    flow_engine: Any = import_module("prefect.flow_engine")
    watch = flow_engine.observe_flow_run_suspension

    @contextmanager
    def later(flow_run_id: UUID, request: Any, *args: Any) -> Iterator[None]:
        over = threading.Event()

        def work() -> None:
            if not over.wait(_LATER):
                begun: AbstractContextManager[None] = watch(flow_run_id, request, *args)
                with begun:
                    over.wait()

        threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True).start()
        try:
            yield
        finally:
            over.set()

    flow_engine.observe_flow_run_suspension = later
