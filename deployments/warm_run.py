"""What a forked process does: it becomes the process of one flow run. (spec 5.2)

The same steps as Prefect's own ``python -m prefect.engine`` (source: ``prefect.engine`` and
``prefect.flow_engine.load_flow`` of 3.8), with everything imported already. A flow of this distribution is taken as
it is; any other is loaded as Prefect loads it, after our own packages were taken out of the way of names that a
user's project may have too.
"""

from __future__ import annotations

import atexit
import logging
import os
import shlex
import sys
import threading
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun

__all__ = ["OURS", "is_ours", "needs_fresh_interpreter", "run"]

OURS: Final = ("flows.composite.", "flows.run_task.")
"""Entrypoints that the fork has loaded already."""
_ROOMS: Final = (
    "blocks",
    "composites",
    "deployments",
    "flows",
    "retention",
    "taskcenter",
    "taskcenter_adapter",
    "taskcenter_console",
)
_READ_AT_START: Final = ("PREFECT_", "PYTHON", "LD_", "DYLD_", "OTEL_")


def is_ours(deployment: dict[str, Any]) -> bool:
    """Whether the deployment names a flow of this distribution and nothing that would fetch other code."""
    entrypoint = str(deployment.get("entrypoint") or "")
    return entrypoint.startswith(OURS) and not deployment.get("pull_steps")


def needs_fresh_interpreter(wanted: dict[str, str], have: dict[str, str]) -> bool:
    """Whether ``wanted`` differs from ``have`` in a variable that the interpreter or Prefect reads at its start."""
    names = {name for name in {*wanted, *have} if name.startswith(_READ_AT_START) and not name.startswith("PREFECT__")}
    return any(wanted.get(name) != have.get(name) for name in names)


def run(request: dict[str, Any], *, cold: bool) -> int:
    """Execute the run; gives the exit code. The caller leaves by ``os._exit``."""
    wanted: dict[str, str] = request["env"]
    cold = cold or needs_fresh_interpreter(wanted, dict(os.environ))
    os.environ.clear()
    os.environ.update(wanted)
    time.tzset()
    os.chdir(request["cwd"])
    if not request["stream_output"]:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    command = shlex.split(request["command"] or "")
    if not command and cold and "hooks" not in request:
        command = [sys.executable, "-m", "prefect.engine"]
    if command:
        os.execvpe(command[0], command, wanted)
    code = 1
    try:
        _hooks(request) if "hooks" in request else _flow(request)
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:  # as an interpreter does at its top level
        traceback.print_exc()
    finally:
        _finish()
    return code


def _flow(request: dict[str, Any]) -> None:
    from prefect._internal.control_listener import configure_from_env
    from prefect._internal.metrics import RunMetrics
    from prefect.client.schemas.objects import FlowRun
    from prefect.engine import _drive_run_flow_result, handle_engine_signals
    from prefect.flow_engine import run_flow
    from prefect.logging.loggers import flow_run_logger

    from deployments.warm_prefect import ask_less, known_objects
    from taskcenter_adapter.store import close_kept

    configure_from_env()
    known_objects(request["known"])
    flow_run = FlowRun.model_validate(request["flow_run"])
    if is_ours(request["deployment"]):
        ask_less(flow_run)
    else:  # a flow that is not ours has no use for our database
        close_kept()
    with handle_engine_signals(flow_run.id):
        logger = flow_run_logger(flow_run=flow_run)
        try:
            flow = _load(flow_run, request)
        except Exception:
            logger.error("Unexpected exception encountered when trying to load flow", exc_info=True)
            raise
        with RunMetrics(flow_run, flow):
            result = run_flow(flow, flow_run=flow_run, error_logger=cast(logging.Logger, logger))
            _drive_run_flow_result(flow, result)


def _load(flow_run: FlowRun, request: dict[str, Any]) -> Flow[..., Any]:
    if is_ours(request["deployment"]):
        module, _, name = request["deployment"]["entrypoint"].rpartition(".")
        ours: Flow[..., Any] = getattr(import_module(module), name)
        return ours
    from prefect.flow_engine import load_flow

    sys.path.insert(0, str(Path.cwd()))  # as for `python -m`
    for name in [name for name in sys.modules if name.partition(".")[0] in _ROOMS and name != __name__]:
        del sys.modules[name]
    return load_flow(flow_run)


def _hooks(request: dict[str, Any]) -> None:
    """Run the cancellation or crash hooks of a flow whose own process is gone."""
    import asyncio

    from prefect.client.schemas.objects import FlowRun, State
    from prefect.runner._hook_runner import HookRunner

    flow_run = FlowRun.model_validate(request["flow_run"])
    state: State[Any] = State.model_validate(request["hooks"])

    async def resolve(run: FlowRun) -> Flow[..., Any]:
        return await asyncio.to_thread(_load, run, request)

    hooks = HookRunner(resolve_flow=resolve)
    asyncio.run(hooks.run_cancellation_hooks(flow_run, state))
    asyncio.run(hooks.run_crashed_hooks(flow_run, state))


def _finish() -> None:
    """What the interpreter does at its end, without taking every module apart: threads, exit handlers, buffers."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # joins threads that are not daemons
        atexit._run_exitfuncs()  # Prefect's logs and events are sent here
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
