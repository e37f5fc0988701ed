"""``taskcenter demo``: everything started, a plan shown, a run watched, its result, and where to go from there."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

from taskcenter.settings import Settings
from taskcenter.status import RunStatus
from taskcenter_adapter.processes import free_port, port_is_free

from . import terminal
from .commands.common import Out
from .commands.planning import show as show_plan
from .commands.runs import say_run
from .commands.watching import watch
from .services import composites as composite_service
from .services import runs as run_service
from .services.center import Caller, Center
from .up import running

__all__ = ["demo"]

_STORY = "nightly-sales"


def _free(settings: Settings) -> Settings:
    """A demonstration does not fail over a taken port: it takes another one and says so."""
    return replace(settings, port=_other(settings.port), prefect_port=_other(settings.prefect_port))


def _other(wanted: int) -> int:
    if not wanted or port_is_free(wanted):
        return wanted
    port = free_port()
    terminal.say(f"port {wanted} is taken by another program, so {port} is used")
    return port


def _program(name: str) -> str:
    """How to call a program of this environment: by its name where the shell finds it, else by its path."""
    here = Path(sys.executable).parent / name
    found = shutil.which(name)
    if found and Path(found).resolve() == here.resolve():
        return name
    return os.path.relpath(here) if here.is_relative_to(Path.cwd()) else str(here)


def demo(settings: Settings, once: bool = False, workers: int = 4) -> int:
    """Show the road from a composite to a finished, explained run; then serve, or stop with ``once``.

    Returns the exit code: 0 when the run succeeded.
    """
    begin = time.monotonic()
    code = 1
    try:
        with running(_free(settings), workers, terminal.say) as stack:
            code = _story(stack.settings, begin)
            terminal.heading("Where to look")
            for name, address in stack.addresses():
                terminal.say(f"  {name:12s} {address}")
            terminal.heading("Three next commands (in a second shell, from this folder)")
            home = "" if settings.home == Settings.from_env({}).home else f"TASKCENTER_HOME={settings.home} "
            prefect = "" if stack.settings.prefect_port == 4200 else f"PREFECT_API_URL={stack.prefect_api_url} "
            terminal.say(f"  {home}{_program('taskcenter')} run fails-midway")
            terminal.say(f"  {home}{_program('taskcenter')} plan open-orders")
            terminal.say(f"  {prefect}{_program('prefect')} deployment run 'composite/{_STORY}' --watch")
            if not once:
                terminal.say("\nserving; Ctrl-C stops everything")
                stack.watch()
    except KeyboardInterrupt:
        terminal.say("stopped")
        return 0
    return code


def _story(settings: Settings, begin: float) -> int:
    caller = Caller("demo", "cli")
    with Center(settings) as center:
        terminal.heading(f"The plan of {_STORY} (nothing is executed)")
        plan, spec = composite_service.plan(center, _STORY)
        show_plan(plan, spec, "tree", Out())
        terminal.heading("The run")
        run = run_service.start(center, _STORY, caller)
        finished = watch(center, run.id, live=terminal.is_terminal())
        terminal.heading("Its result")
        say_run(run_service.details(center, finished.id))
        terminal.say(f"\nfrom start to first finished run: {time.monotonic() - begin:.1f} s")
        return 0 if finished.status is RunStatus.SUCCESS else 1
