"""The place of a run that no worker of ours started: its flow's own first act asks for it. (spec 5.2)

Under a worker of the type ``taskcenter`` the gate was asked before the process was made. Under any other the process
is there already; when its run may not start yet, the run is put back in Prefect for a moment and the process ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import Abort

from taskcenter.clock import utc_now
from taskcenter.errors import TaskCenterError
from taskcenter.ports import Store
from taskcenter.settings import Settings
from taskcenter_adapter.gateway import Gateway
from taskcenter_adapter.leases import holder_of, this_machine
from taskcenter_adapter.orphans import MARK
from taskcenter_adapter.run_gate import RunGate, asked_of
from taskcenter_adapter.run_leases import LEASE, PLACE, RunLeases
from taskcenter_adapter.runtime import prefect_api_url
from taskcenter_adapter.store_sql import SqlStore

__all__ = ["place_for"]

_LOG = logging.getLogger("taskcenter.place")
_AGAIN: Final = timedelta(seconds=3)
"""When a run that was put back asks again."""
_RENEW: Final = LEASE.total_seconds() / 3


@contextlib.contextmanager
def place_for(flow_run: FlowRun, store: Store, settings: Settings) -> Iterator[None]:
    """While this lasts, the run has its place. Ends the process (Prefect's ``Abort``) when it has to wait for one."""
    if os.environ.get(MARK) or flow_run.parent_task_run_id is not None or not isinstance(store, SqlStore):
        yield
        return
    leases, holder, run_id = RunLeases(store), holder_of(), str(flow_run.id)
    created = flow_run.created or utc_now()
    asked = asked_of(
        run_id,
        flow_run.tags,
        flow_run.parameters or {},
        created,
        flow_run.expected_start_time,
        flow_run.work_queue_name,
    )
    found = RunGate(store).admit([asked], holder, utc_now(), {**this_machine(), "pid": os.getpid()}, kind=PLACE)
    if run_id in found.waits:
        _put_back(run_id, f"it waits: {found.waits[run_id]}", settings)
    done = threading.Event()
    keeping = threading.Thread(target=_keep, args=(leases, run_id, holder, done), name="place", daemon=True)
    keeping.start()
    try:
        yield
    finally:
        done.set()
        keeping.join(2)  # or it might renew what is given back here
        with contextlib.suppress(TaskCenterError):  # the database is away: the place runs out by itself
            leases.give_up(run_id, holder, PLACE)


def _put_back(run_id: str, text: str, settings: Settings) -> None:
    with Gateway(prefect_api_url(settings)) as gateway:
        at = (utc_now() + _AGAIN).isoformat()
        gateway.set_run_state(run_id, "SCHEDULED", "AwaitingConcurrencySlot", text, {"scheduled_time": at})
    raise Abort(text)


def _keep(leases: RunLeases, run_id: str, holder: str, done: threading.Event) -> None:
    while not done.wait(_RENEW):
        try:
            leases.renew(holder, [run_id], utc_now(), PLACE)
        except TaskCenterError as error:
            _LOG.debug("the place of %s was not renewed: %s", run_id, error.message)
