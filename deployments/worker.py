"""Prefect worker type ``taskcenter``: warm processes, woken by events, runs ended as trees. (spec 5.2 to 5.4)

``prefect worker start --pool taskcenter --type taskcenter`` on any machine where this distribution is installed.
It takes the same job variables as Prefect's process worker (``env``, ``working_dir``, ``command``,
``stream_output``), so that it also serves a pool of the type ``process``. (Source: ``prefect.workers.base`` and
``prefect.workers.process`` of 3.8. Prefect's worker reads deployment and flow three times and reports two states
and two more facts before it starts a process; here a run is claimed (Pending) while its deployment is read, then
started, and the rest is told afterwards. So no run of ours is ever in the state Submitting.)
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import tempfile
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import anyio
import anyio.abc
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.runner._control_channel import ControlChannel
from prefect.states import Pending
from prefect.workers.base import BaseWorker, BaseWorkerResult
from prefect.workers.process import ProcessJobConfiguration, ProcessVariables

from taskcenter.clock import utc_now
from taskcenter.recycling import Recycling, decide_recycling, leak_marks
from taskcenter.settings import Settings
from taskcenter_adapter.run_gate import Asked, asked_of

from .warm_pool import WarmPool, WarmProcessAway
from .worker_leases import WorkerLeases
from .worker_processes import ProcessBook
from .worker_reading import FlowsOnce, version_of
from .worker_record import RunRecords
from .worker_run import LiveRun
from .worker_tree import end_processes, left_behind, own_identity
from .worker_wake import Waker, let_next_in, states_of

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import Flow, FlowRun, WorkPool, WorkQueue
    from prefect.client.schemas.responses import WorkerFlowRunResponse

__all__ = ["TaskCenterJobConfiguration", "TaskCenterWorker", "TaskCenterWorkerResult"]


_TURN_SECONDS = 20.0
_FRESH = 0.5
"""Seconds for which what a poll found waiting is good."""
_SPOOL_SECONDS = 10.0


class TaskCenterJobConfiguration(ProcessJobConfiguration):
    """The process worker's, with this process's settings read once: they do not change, and it takes 18 ms."""

    @classmethod
    @functools.cache
    def _base_environment(cls) -> dict[str, str]:
        return super()._base_environment()


class TaskCenterWorkerResult(BaseWorkerResult):
    """How the process of a run ended."""


class TaskCenterWorker(BaseWorker[TaskCenterJobConfiguration, ProcessVariables, TaskCenterWorkerResult]):
    """Starts runs in warm processes."""

    type = "taskcenter"
    job_configuration = TaskCenterJobConfiguration
    job_configuration_variables = ProcessVariables
    _description = "Runs flows in processes that are forked warm: they start in a fraction of a second."
    _display_name = "Task Center"

    # life --------------------------------------------------------------------------------------------

    async def setup(self) -> None:
        left = await asyncio.to_thread(left_behind)
        if left:
            self._logger.warning("ending %d processes that a killed worker left behind", len(left))
            await asyncio.to_thread(end_processes, left_behind)
        self._live: dict[UUID, LiveRun] = {}
        self._queues: dict[UUID | None, WorkQueue] = {}
        self._backlog: list[WorkerFlowRunResponse] = []
        self._looked = 0.0
        self._identity = own_identity()
        self._records = RunRecords(Settings.from_env(), self._logger)
        self._leases = WorkerLeases(Settings.from_env(), self._logger)
        self._warm = WarmPool({**os.environ, **self.job_configuration._base_environment()})
        self._book = ProcessBook()
        self._turn: Recycling | None = None
        self._polling = asyncio.Lock()
        self._waker = Waker(self._wake, self._changed, self._has, self._logger, Settings.from_env().home)
        self._flows: dict[UUID, Flow] = {}
        begin = asyncio.create_task(self._warm.start())
        # on the stack below the runs, which need it to their end
        self._channel = await self._exit_stack.enter_async_context(ControlChannel())
        await super().setup()
        with contextlib.suppress(WarmProcessAway):  # said when a run needs it; until then tried again
            await begin
        self._logger.info("warm process %s: %s", self._warm.pid, self._warm.facts)
        self._services = await self._exit_stack.enter_async_context(anyio.create_task_group())
        for service in (
            self._keep_warm,
            self._recycle,
            self._waker.at_slots,
            self._waker.at_bell,
            self._waker.at_events,
            self._look_at_states,
            self._replay_spool,
        ):
            self._services.start_soon(service)
        self._services.start_soon(self._leases.keep, self._facts, self._lost)

    async def teardown(self, *exc_info: Any) -> None:
        self._services.cancel_scope.cancel()
        try:
            await super().teardown(*exc_info)
        finally:
            with anyio.CancelScope(shield=True):
                await self._warm.close()
                await asyncio.to_thread(self._records.close)
                await asyncio.to_thread(self._leases.close)

    def _record_work_pool_snapshot(self, work_pool: WorkPool) -> None:
        """A pool made for process workers has the same job variables, and cannot be given another type."""
        same = work_pool.type == "process"
        super()._record_work_pool_snapshot(work_pool.model_copy(update={"type": self.type}) if same else work_pool)

    async def _replay_spool(self) -> None:
        """What runs of this home could not write; on a machine without a service nobody else would."""
        while True:
            await asyncio.sleep(_SPOOL_SECONDS)
            await asyncio.to_thread(self._records.replay)

    async def _keep_warm(self) -> None:
        """Start the warm process again when it dies."""
        while True:
            await self._warm.wait_lost()
            self._logger.error("the warm process ended; another one is started")
            try:
                await self._warm.start()
            except WarmProcessAway as error:
                self._logger.error("%s", error)
                await asyncio.sleep(2)

    async def _recycle(self) -> None:
        """Once an hour, in a minute of its own: look for garbage, and make an idle warm process anew."""
        last = utc_now()
        while True:
            await asyncio.sleep(_TURN_SECONDS)
            now, index = utc_now(), await self._leases.place()
            self._turn = self._decide(index, now, last)
            last = now
            if self._turn.collect:
                gc.collect()
            if self._turn.renew:
                self._logger.info("the warm process is made anew: %s", self._turn.reason)
                try:
                    await self._warm.renew()
                except WarmProcessAway as error:
                    self._logger.error("%s; the old one stays", error)

    def _decide(self, index: int, now: datetime, last: datetime) -> Recycling:
        born = self._warm.born or now
        marks = leak_marks(now - born, self._book.measure(self._warm.pid).get("grownMb"))
        return decide_recycling(index, now, last, born, idle=self._warm.idle, marks=marks)

    # finding work ------------------------------------------------------------------------------------

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        async with self._polling:
            return await super().get_and_submit_flow_runs()

    async def _submit_scheduled_flow_runs(self, flow_run_response: list[WorkerFlowRunResponse]) -> list[FlowRun]:
        """Submit what is due; what is not yet is a time to wake at. Until then it stays Scheduled in Prefect."""
        now = datetime.now(UTC)
        due = []
        for entry in flow_run_response:
            slot = entry.flow_run.next_scheduled_start_time or entry.flow_run.expected_start_time
            if slot is None or slot <= now:
                due.append(entry)
            else:
                self._waker.wake_at(slot)
        taken = await self._submit_admitted(due)
        self._looked = time.monotonic()
        return taken

    async def _submit_admitted(self, due: list[WorkerFlowRunResponse]) -> list[FlowRun]:
        """Submit those that the gate lets start, in its order; the others wait. (``scheduling.admission``)"""
        waiting = {str(e.flow_run.id): e for e in due if e.flow_run.id not in self._submitting_flow_run_ids}
        self._backlog = list(waiting.values())
        places = int(self._limiter.available_tokens) if self._limiter else None
        found = await self._leases.admit(await self._asked(self._backlog), places) if waiting else None
        if found is None:
            return []
        taken = await super()._submit_scheduled_flow_runs([waiting[run_id] for run_id in found.start])
        for run_id in {UUID(run_id) for run_id in found.start} - self._submitting_flow_run_ids:
            await self._leases.give_up(run_id)
        self._backlog = [waiting[run_id] for run_id in found.order if run_id in found.waits]
        return taken

    async def _asked(self, entries: list[WorkerFlowRunResponse]) -> list[Asked]:
        """The runs as the gate sees them."""
        for queue_id in {entry.work_queue_id for entry in entries} - self._queues.keys():
            with contextlib.suppress(ObjectNotFound):
                self._queues[queue_id] = await self.client.read_work_queue(queue_id)
        asked = []
        for entry in entries:
            run, queue = entry.flow_run, self._queues.get(entry.work_queue_id)
            slot = run.next_scheduled_start_time or run.expected_start_time
            created, name = run.created or datetime.now(UTC), queue.name if queue else None
            asked.append(asked_of(str(run.id), run.tags, run.parameters, created, slot, name))
        return asked

    def _has(self, run_id: UUID) -> bool:
        return run_id in self._live or run_id in self._submitting_flow_run_ids

    async def _place_free(self) -> None:
        """A run has ended: the next one that was found waiting, without asking again when that was just now."""
        if not self._backlog or time.monotonic() - self._looked > _FRESH or self._polling.locked():
            self._waker.wake()
            return
        async with self._polling:
            await self._submit_admitted(self._backlog)

    async def _wake(self) -> None:
        try:
            await self.get_and_submit_flow_runs()
        except Exception as error:  # the polling loop meets the same error, and has the patience for it
            self._logger.debug("a wake-up poll failed: %s", error)

    def _changed(self, run_id: UUID, state: StateType) -> None:
        """What Prefect says of a live run: somebody wants it cancelled, held or to go on."""
        live = self._live.get(run_id)
        if live is None or live.cancelled or self._runs_task_group is None:
            return
        if state in (StateType.CANCELLING, StateType.CANCELLED):
            self._runs_task_group.start_soon(live.cancel)
        elif state is StateType.PAUSED and not live.held:
            self._runs_task_group.start_soon(live.hold)
        elif state is StateType.RUNNING and live.held:
            self._runs_task_group.start_soon(live.release)

    def _lost(self, run_id: UUID) -> None:
        """Somebody else closed the run meanwhile: it is not ours to go on with, nor to report on."""
        live = self._live.get(run_id)
        if live is not None and self._runs_task_group is not None:
            self._logger.error("run %s was taken from this worker and is ended", run_id)
            self._runs_task_group.start_soon(live.give_up)

    def _facts(self) -> dict[str, Any]:
        """What this worker says of itself."""
        return {
            "name": self.name,
            "pool": self._work_pool_name,
            "pid": os.getpid(),
            "limit": self._limit,
            "heardAt": utc_now().isoformat(),
            "process": self._book.measure(os.getpid()),
            "warm": {
                **self._warm.facts,
                **self._book.measure(self._warm.pid),
                "renewed": self._warm.renewed,
                "nextTurn": self._turn.next_at.isoformat() if self._turn is not None else None,
            },
            "runs": {
                str(run_id): {**self._book.measure(live.started.pid if live.started else None), "phase": live.phase}
                for run_id, live in list(self._live.items())
            },
        }

    async def _look_at_states(self) -> None:
        """Events may be lost: while runs are alive, their states are read too, more often while one is held."""
        cancelled: set[UUID] = set()
        while True:
            await asyncio.sleep(0.4 if any(live.held for live in self._live.values()) else 2)
            ids = [run_id for run_id, live in self._live.items() if not live.cancelled]
            states = await states_of(self.client, ids) if ids else {}
            for run_id, state in states.items():
                # a run that says so itself is about to end; twice seen, somebody set it in Prefect
                if state is not StateType.CANCELLED or run_id in cancelled:
                    self._changed(run_id, state)
            cancelled = {run_id for run_id, state in states.items() if state is StateType.CANCELLED}

    # one run -----------------------------------------------------------------------------------------

    def _live_run(self, flow_run: FlowRun) -> LiveRun:
        if flow_run.id not in self._live:
            logger = self.get_flow_run_logger(flow_run)
            self._live[flow_run.id] = LiveRun(
                flow_run, self._warm, self._channel, self.client, self._propose_crashed_state, logger, self._records
            )
        return self._live[flow_run.id]

    async def _submit_run(self, flow_run: FlowRun) -> None:
        live = self._live_run(flow_run)
        try:
            configuration = await self._claim(flow_run)
            if configuration is None:
                live.ended_well = True  # it was not ours
            else:
                deployment = configuration._related_objects.get("deployment")
                live.limited = bool(getattr(deployment, "global_concurrency_limit", None))
                live.ended_well = (await self.run(flow_run, configuration)).status_code == 0
        except Exception as error:
            self.get_flow_run_logger(flow_run).exception("Failed to start flow run '%s'.", flow_run.name)
            await self._propose_crashed_state(flow_run, f"The run could not be started: {error}")
        finally:
            self._submitting_flow_run_ids.discard(flow_run.id)
            self._live.pop(flow_run.id, None)
            self._records.done(str(flow_run.id))
            with anyio.CancelScope(shield=True):
                await (self._leases.give_up if live.ended_well else self._leases.leave)(flow_run.id)
            self._release_limit_slot(flow_run.id)
            if live.limited and flow_run.deployment_id is not None:
                with contextlib.suppress(Exception):  # the server is away: it lets it ask again by itself
                    await let_next_in(self.client, flow_run.deployment_id)
            await self._place_free()

    async def _claim(self, flow_run: FlowRun) -> TaskCenterJobConfiguration | None:
        """Pending, so that no other worker takes it, and what it shall run with; None when it is not ours."""
        reading = asyncio.create_task(
            self.job_configuration.resolve_for_flow_run(
                flow_run,
                client=cast("PrefectClient", FlowsOnce(self.client, self._flows)),
                work_pool=self.work_pool.model_copy(deep=True),
                worker_name=self.name,
                worker_id=self.backend_id,
            )
        )
        if not await self._propose_pending_state(flow_run):
            reading.cancel()
            return None
        flow_run.state = Pending()
        try:
            return await reading
        except ObjectNotFound:
            await self._mark_flow_run_as_cancelled(flow_run, {"message": "The deployment no longer exists."})
            return None

    async def run(
        self,
        flow_run: FlowRun,
        configuration: TaskCenterJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> TaskCenterWorkerResult:
        """Fork a process for the run and stay with it to its end."""
        live = self._live_run(flow_run)
        folder = tempfile.TemporaryDirectory(prefix="taskcenter-run-")
        try:
            cwd = str(configuration.working_dir or folder.name)
            started = await live.start(configuration, cwd, self._identity, self._known(flow_run, configuration))
            if started is None:
                return TaskCenterWorkerResult(identifier="none", status_code=0)
            if task_status is not None:
                task_status.started(started.pid)
            self._services.start_soon(self._tell, live, configuration)
            return TaskCenterWorkerResult(identifier=str(started.pid), status_code=await live.ended())
        finally:
            self._channel.unregister(flow_run.id)
            with anyio.CancelScope(shield=True), contextlib.suppress(OSError):
                await asyncio.to_thread(folder.cleanup)

    def _known(self, flow_run: FlowRun, configuration: TaskCenterJobConfiguration) -> dict[str, Any]:
        """What the run's events will name, by id and name."""
        queue = self._queues.get(flow_run.work_queue_id)
        objects = {**configuration._related_objects, "work-pool": self._work_pool, "work-queue": queue}
        return {
            kind: {"id": str(objects[kind].id), "name": objects[kind].name, "tags": getattr(objects[kind], "tags", [])}
            for kind in ("flow", "deployment", "work-pool", "work-queue")
            if objects.get(kind) is not None
        }

    async def _tell(self, live: LiveRun, configuration: TaskCenterJobConfiguration) -> None:
        """What Prefect's own workers report before a run starts; here it does not make the run wait."""
        assert live.started is not None
        await self._leases.started(live.flow_run.id, live.started.pid)
        await asyncio.wait([live.started.ended], timeout=1.0)
        flow_run = live.flow_run
        with contextlib.suppress(Exception):  # labels and pids are for the eye
            self._emit_flow_run_submitted_event(configuration)
            await self._give_worker_labels_to_flow_run(flow_run.id)
            version = version_of(configuration._related_objects.get("deployment"), self._warm.versions)
            pid = str(live.started.pid)
            await self.client.update_flow_run(flow_run.id, flow_version=version, infrastructure_pid=pid)
            if flow_run.work_queue_id is not None and flow_run.work_queue_id not in self._queues:
                self._queues[flow_run.work_queue_id] = await self.client.read_work_queue(flow_run.work_queue_id)
