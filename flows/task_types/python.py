"""``python``: a function of an installed or project module, or a piece of code. (spec 2.7)"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from taskcenter.context import Cancelled, PlanNote, RunContext
from taskcenter.errors import StepFailed, TaskCenterError
from taskcenter.jsonable import to_jsonable
from taskcenter.redaction import redact_text
from taskcenter.resource_limits import hit_by_child
from taskcenter.settings import Settings
from taskcenter.task_types import task_type

from .payload import Flag, Payload, Seconds, Text

__all__ = ["PythonPayload", "python"]

Dotted = Annotated[Text, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]


class PythonPayload(Payload):
    """Exactly one of ``callable`` and ``code``; code finds ``kwargs`` as variables and leaves ``result``."""

    callable: Dotted | None = Field(None, description="module:function")
    code: Text | None = Field(None, json_schema_extra={"format": "python"})
    kwargs: dict[str, Any] = Field({}, description='Arguments; {"secret": "name"} stands for a secret\'s value.')
    isolate: Flag | None = Field(None, description="Own process. Default: for code, and whenever there is a time-out.")
    timeout_seconds: Seconds = Field(0, description="0: no limit.")

    @model_validator(mode="after")
    def _fits(self) -> PythonPayload:
        if (self.callable is None) == (self.code is None):
            raise ValueError("give exactly one of callable and code")
        if self.timeout_seconds and self.isolate is False:
            raise ValueError("a time-out needs a process of its own: leave out isolate or set it to true")
        return self

    @property
    def isolated(self) -> bool:
        """Whether it runs in its own process."""
        return self.isolate if self.isolate is not None else bool(self.code or self.timeout_seconds)


def plan(payload: PythonPayload, ctx: RunContext) -> PlanNote:
    """Names the function; nothing is imported."""
    what = payload.callable or f"{len((payload.code or '').splitlines())} lines of code"
    where = "in its own process" if payload.isolated else "in the worker's process"
    details = {"arguments": sorted(payload.kwargs), "isolated": payload.isolated}
    return PlanNote(f"calls {what} {where}", details=details)


@task_type("python", title="Python", category="system", icon="code", tags=["python"], plan=plan)
def python(payload: PythonPayload, ctx: RunContext) -> dict[str, Any]:
    """Call a Python function of the project, or run Python code.

    A parameter named ``ctx`` is given the RunContext. Gives ``{executor, result, isolated, durationMs}``. The project
    folder is on the module path. Raises StepFailed (``exception``, with the traceback in its output; ``exit_code`` when
    an own process dies), TimedOut, Cancelled. An own process has a clean environment and neither connections nor
    secrets but those in ``kwargs``.
    """
    started = time.monotonic()
    kwargs = {key: _secret(value, ctx) for key, value in payload.kwargs.items()}
    call = _in_own_process if payload.isolated else _in_this_process
    result = call(payload, kwargs, ctx)
    took = round((time.monotonic() - started) * 1000, 1)
    return {"executor": "python", "result": result, "isolated": payload.isolated, "durationMs": took}


def _secret(value: Any, ctx: RunContext) -> Any:
    if isinstance(value, dict) and set(value) == {"secret"} and isinstance(value["secret"], str):
        return ctx.secret(value["secret"])
    return value


def _in_this_process(payload: PythonPayload, kwargs: dict[str, Any], ctx: RunContext) -> Any:
    project = str(Settings.from_env().project)
    if project not in sys.path:
        sys.path.append(project)  # last: a file of the project must not hide an installed module
    try:
        from .python_child import run_code

        if payload.code is not None:
            return to_jsonable(run_code(payload.code, kwargs))
        function = find(payload.callable or "")
        if "ctx" in inspect.signature(function).parameters:
            kwargs = {**kwargs, "ctx": ctx}
        return to_jsonable(_awaited(function(**kwargs)))
    except (TaskCenterError, Cancelled):
        raise
    except Exception as error:  # whatever the user's code raises is the step's failure, with its own words
        raise _failed(type(error).__name__, str(error), traceback.format_exc()) from error


def find(dotted: str) -> Callable[..., Any]:
    """The function that ``module:function`` names. Raises ImportError or AttributeError."""
    module, _, name = dotted.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{dotted} is not callable")
    function: Callable[..., Any] = found
    return function


def _awaited(value: Any) -> Any:
    if not inspect.iscoroutine(value):
        return value
    work: Coroutine[Any, Any, Any] = value
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def _in_own_process(payload: PythonPayload, kwargs: dict[str, Any], ctx: RunContext) -> Any:
    from .process import child_environment, run_process

    request = {
        "path": [*(p for p in sys.path if p), str(Settings.from_env().project)],
        "callable": payload.callable,
        "code": payload.code,
        "kwargs": kwargs,
        "context": {"run_id": ctx.run_id, "task": ctx.task, "step_key": ctx.step_key, "attempt": ctx.attempt},
    }
    with tempfile.TemporaryDirectory(prefix="taskcenter-python-") as folder:
        answer = Path(folder) / "answer.json"
        finished = run_process(
            # -P: the child's own folder must not come first on the module path, it holds an http.py
            [sys.executable, "-P", "-u", str(Path(__file__).with_name("python_child.py")), str(answer)],
            ctx=ctx,
            environment=child_environment(ctx, {}),
            cwd=ctx.temp_dir.absolute(),
            stdin=json.dumps(request).encode(),
            timeout=payload.timeout_seconds,
        )
        said = json.loads(answer.read_text("utf-8")) if answer.is_file() else {}
    if "error" in said:
        limit = hit_by_child(ctx.limits, 1, f"{said['error']}: {said['message']}")
        if limit:
            raise _failed(said["error"], limit, said["traceback"], error_type="limit")
        raise _failed(said["error"], said["message"], said["traceback"])
    if "result" not in said:
        how = finished.signal or f"exit code {finished.exit_code}"
        tails = {"stdoutTail": finished.stdout_tail, "stderrTail": finished.stderr_tail}
        limit = hit_by_child(ctx.limits, finished.exit_code, finished.stderr_tail)
        raise StepFailed(
            f"the process ended without a result ({how})" + (f": {limit}" if limit else ""),
            error_type="limit" if limit else "exit_code",
            output={"executor": "python", "exitCode": finished.exit_code, **tails},
        )
    return said["result"]


def _failed(kind: str, message: str, trace: str, error_type: str = "exception") -> StepFailed:
    return StepFailed(
        f"{kind}: {message}" if message else kind,
        error_type=error_type,
        output={"executor": "python", "exception": kind, "traceback": redact_text(trace)[-16_384:]},
        exception=kind,
    )
