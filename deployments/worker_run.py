"""One run from its fork to its end: what it is started with, how it ended, and how it is ended. (spec 5.3, 5.4)

Cancelling follows Prefect's runner (``prefect.runner._cancellation_manager`` of 3.8): first the engine is told over
the control channel that TERM will mean "cancelled", then TERM comes. Unlike there, it comes to every process of the
run, KILL follows after ten seconds, and Cancelled is only said when nothing of the run is alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import anyio
from prefect._internal.infrastructure_exit_codes import get_infrastructure_exit_info
from prefect.runner._control_channel import ControlChannel, ControlSignalStatus
from prefect.states import Cancelled, Cancelling, Crashed

from .warm_pool import LOST, Started, WarmPool, WarmProcessAway
from .warm_run import is_ours
from .worker_record import RunRecords
from .worker_tree import GRACE, MARK, continue_processes, end_processes, mark_of, processes_of, stop_processes

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.logging.loggers import PrefectLogAdapter
    from prefect.workers.process import ProcessJobConfiguration

__all__ = ["LiveRun"]

_STOPPED = "The worker was stopped, and its runs with it."
_STOP_GRACE = 8.0
"""At a stop of the worker: whoever stops it does not wait much longer."""
_SAY_SECONDS = 3.0
_STAND_STILL = ("flows.run_task.python",)
"""Flows whose work is in their own process, without a connection to anything of ours while they work."""
_HOOKS_SECONDS = 60.0


class LiveRun:
    """A run that this worker has taken. ``crashed`` proposes the state Crashed with a sentence."""

    def __init__(
        self,
        flow_run: FlowRun,
        warm: WarmPool,
        channel: ControlChannel,
        client: PrefectClient,
        crashed: Callable[[FlowRun, str], Awaitable[None]],
        logger: PrefectLogAdapter,
        records: RunRecords,
    ) -> None:
        self.flow_run = flow_run
        self.started: Started | None = None
        self.cancelled = False
        self.lost = False
        self.held = False
        self.ended_well = False
        self.limited = False
        self._warm, self._channel, self._client = warm, channel, client
        self._propose_crashed, self._logger, self._records = crashed, logger, records
        self._request: dict[str, Any] = {}

    @property
    def phase(self) -> str:
        """For the eye."""
        if self.lost or self.cancelled:
            return "ending"
        if self.held:
            return "paused"
        return "running" if self.started is not None else "starting"

    # starting ----------------------------------------------------------------------------------------

    async def start(
        self, configuration: ProcessJobConfiguration, cwd: str, worker: str, known: dict[str, Any]
    ) -> Started | None:
        """Fork it; None when it was cancelled before."""
        if self.cancelled:
            return None
        self._request = self._make_request(configuration, cwd, worker, known)
        self.started = await self._warm.launch(self._request)
        if self.cancelled:  # while it was being forked
            await self._end_tree()
        return self.started

    def _make_request(
        self, configuration: ProcessJobConfiguration, cwd: str, worker: str, known: dict[str, Any]
    ) -> dict[str, Any]:
        run_id = str(self.flow_run.id)
        port, token = self._channel.register(self.flow_run.id)
        deployment = configuration._related_objects.get("deployment")
        environment = {
            **{name: value for name, value in configuration.env.items() if value is not None},
            "PREFECT__FLOW_RUN_ID": run_id,
            "PREFECT__CONTROL_PORT": str(port),
            "PREFECT__CONTROL_TOKEN": token,
            # state and hooks of a cancelled run are the worker's, after its processes are gone
            "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",
            MARK: mark_of(worker, run_id),
        }
        return {
            "id": run_id,
            "env": environment,
            "cwd": cwd,
            "stream_output": configuration.stream_output,
            "command": configuration.command if configuration._command_configured else None,
            "flow_run": self.flow_run.model_dump(mode="json"),
            "deployment": deployment.model_dump(mode="json", include={"entrypoint", "pull_steps"})
            if deployment
            else {},
            "known": known,
        }

    # ending ------------------------------------------------------------------------------------------

    async def ended(self) -> int:
        """Wait for the end; a crash is said, a cancellation says itself, a stop of the worker ends the run."""
        assert self.started is not None
        try:
            status = await asyncio.shield(self.started.ended)
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await self._end_tree(_STOP_GRACE)
            with anyio.move_on_after(_SAY_SECONDS, shield=True):  # Prefect's client goes on asking a dead server
                if not self.cancelled and not self.lost and not self._concluded():
                    await self._crashed(_STOPPED)
                    await self._settle()
            raise
        if self.lost:
            await self._end_tree(0)
        elif self.cancelled:
            await self._say_cancelled()
        elif status != 0 and not self._concluded():
            left = await self._end_tree(0 if status in (LOST, -signal.SIGKILL) else 2.0)
            await self._crashed(_how(self.started.pid, status).rstrip(".") + f"{left}.")
            await self._settle()
        return status

    def _concluded(self) -> bool:
        """Whether the engine told the worker that it has reported the run's final state."""
        return self._channel.get_conclusion(self.flow_run.id) is not None

    async def _end_tree(self, grace: float = GRACE) -> str:
        """End every process of the run; a half sentence about what is left, normally empty."""
        run_id = str(self.flow_run.id)
        left = await asyncio.to_thread(end_processes, lambda: processes_of(run_id, self._pid()), grace, first=self._pid)
        return f"; {len(left)} of its processes could not be ended: {left}" if left else ""

    async def _settle(self) -> None:
        """Our row says at once what Prefect was told."""
        await asyncio.to_thread(self._records.settle, str(self.flow_run.id))

    def _pid(self) -> int | None:
        """Of its process, while that lives: afterwards the number may be somebody else's."""
        return self.started.pid if self.started is not None and not self.started.ended.done() else None

    async def _crashed(self, message: str) -> None:
        with contextlib.suppress(Exception):  # a server that does not answer: the proposal below says so
            state = (await self._client.read_flow_run(self.flow_run.id)).state
            if state is not None and state.is_final():
                return  # its end was told by the run itself (a limit), or by somebody else
        await self._propose_crashed(self.flow_run, message)
        await self._run_hooks(Crashed(message=message))

    async def _run_hooks(self, state: State[Any]) -> None:
        """The flow's own hooks, in a process of their own; our flows have none."""
        if not self._request or is_ours(self._request["deployment"]):
            return
        environment = {k: v for k, v in self._request["env"].items() if not k.startswith("PREFECT__CONTROL_")}
        hooks = {"id": f"{self.flow_run.id} hooks", "hooks": state.model_dump(mode="json"), "env": environment}
        with tempfile.TemporaryDirectory(prefix="taskcenter-hooks-") as folder:
            request = {**self._request, **hooks, "cwd": folder, "command": None}
            with contextlib.suppress(WarmProcessAway, TimeoutError):
                started = await self._warm.launch(request)
                await asyncio.wait_for(started.ended, _HOOKS_SECONDS)

    # holding -----------------------------------------------------------------------------------------

    async def hold(self) -> None:
        """A person holds it: no new step, checkpoints wait, and its processes stand still until ``release``."""
        if self.held or self.cancelled or self.lost:
            return
        self.held = True
        run_id = str(self.flow_run.id)
        await asyncio.to_thread(self._records.hold, run_id)
        stopped: set[int] = set()
        while self.held and self.started is not None and not self.started.ended.done():
            stopped |= await asyncio.to_thread(stop_processes, run_id, self._pid(), self._stands_still(), stopped)
            await asyncio.sleep(0.3)

    def _stands_still(self) -> bool:
        """Whether the run's own process may be stopped too: only where it has nothing open on a server."""
        entrypoint = str((self._request.get("deployment") or {}).get("entrypoint") or "")
        return entrypoint in _STAND_STILL

    async def release(self) -> None:
        """It goes on where it was."""
        self.held = False
        run_id = str(self.flow_run.id)
        await asyncio.to_thread(self._records.release, run_id)
        await asyncio.to_thread(continue_processes, run_id, self._pid())

    # cancelling --------------------------------------------------------------------------------------

    async def cancel(self) -> None:
        """Somebody wants it cancelled; asked again, nothing more happens."""
        if self.cancelled:
            return
        said = await self._channel.signal(self.flow_run.id, "cancel")
        if self.cancelled or said is ControlSignalStatus.ALREADY_CONCLUDED:
            return
        self.cancelled = True
        if self.held:
            await self.release()  # what stands still hears no signal
        await asyncio.to_thread(self._records.cancelling, str(self.flow_run.id))
        if self.started is None:
            await self._say_cancelled()
        elif left := await self._end_tree():
            self._logger.error("The run is being cancelled%s.", left)

    async def give_up(self) -> None:
        """The run was closed by somebody else: its processes end, and nothing is said of it."""
        self.lost = True
        await self._end_tree(0)

    async def _say_cancelled(self) -> None:
        """All of it is gone: the hooks, then the state, unless the run had ended by itself before."""
        left = await self._end_tree()
        flow_run = await self._client.read_flow_run(self.flow_run.id)
        state = flow_run.state
        if state is None or not state.is_final() or state.is_crashed():
            await self._run_hooks(Cancelling(message="The run was cancelled."))
            asked = state.message if state is not None and state.is_cancelling() else None
            message = f"{asked or 'cancelled in Prefect'}; its processes are gone{left}"
            await self._client.set_flow_run_state(flow_run.id, Cancelled(message=message), force=True)
        await self._settle()


def _how(pid: int, status: int) -> str:
    """How a process ended, as a sentence."""
    if status == LOST:
        return f"The warm process that started the run was killed, and the run's process {pid} with it."
    info = get_infrastructure_exit_info(status)
    if status < 0:
        name = signal.Signals(-status).name
        return f"The run's process {pid} was ended by {name}. {info.explanation}"
    return f"The run's process {pid} ended with exit code {status}. {info.explanation}"
