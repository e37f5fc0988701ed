"""``shell`` and ``script``: a program, a shell text, or a script file of the project. (spec 2.6, 8.4)"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from taskcenter.context import PlanNote, RunContext
from taskcenter.errors import Refused, StepFailed
from taskcenter.resource_limits import hit_by_child
from taskcenter.settings import Settings
from taskcenter.task_types import task_type

from .payload import Flag, Payload, Seconds, SecretRef, Text, Whole, also

__all__ = ["ScriptPayload", "ShellPayload", "script", "shell"]

Environment = dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str | SecretRef]


class _ProcessPayload(Payload):
    """What both types share."""

    cwd: Text | None = Field(None, description="Working folder, inside the project. Default: the run's own folder.")
    stdin: str | None = None
    environment: Environment = Field({}, validation_alias=also("environment", "env"))
    timeout_seconds: Seconds = Field(0, description="0: no limit. The whole process tree is ended.")
    success_exit_codes: tuple[Annotated[Whole, Field(ge=0, le=255)], ...] = Field((0,), min_length=1)
    capture_output: Flag = Field(True, description="Keep the last 64 KiB in the result; the log has all of it anyway.")


class ShellPayload(_ProcessPayload):
    """Exactly one of ``command`` (a program and its arguments), ``shell`` (text for /bin/sh), ``scriptPath``."""

    command: tuple[str, ...] | None = Field(None, min_length=1, description='Such as ["rsync", "-a", "from/", "to/"].')
    shell: Text | None = Field(None, description="Text for /bin/sh. Values come by environment, never pasted in.")
    script_path: Text | None = None
    args: tuple[str, ...] = Field((), validation_alias=also("args", "arguments"), description="For scriptPath.")

    @model_validator(mode="after")
    def _one_of(self) -> ShellPayload:
        given = [n for n in ("command", "shell", "script_path") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of command, shell and scriptPath")
        if self.command is not None and not self.command[0].strip():
            raise ValueError("the first word of command is the program and must not be blank")
        if self.args and self.script_path is None:
            raise ValueError("args belong to scriptPath; put the arguments of a command into command itself")
        return self


class ScriptPayload(_ProcessPayload):
    """A script file of the project: ``scriptPath``, or ``script: {path, type: file}``."""

    script_path: Text = Field(validation_alias=also("script_path", "path"))
    args: tuple[str, ...] = Field((), validation_alias=also("args", "arguments"))

    @model_validator(mode="before")
    @classmethod
    def _script_object(cls, data: Any) -> Any:
        inner = data.get("script") if isinstance(data, dict) else None
        if inner is None:
            return data
        if not isinstance(inner, dict) or set(inner) - {"path", "type"} or inner.get("type", "file") != "file":
            raise ValueError("script must be an object like {path: tasks/cleanup.py, type: file}")
        return {**{key: value for key, value in data.items() if key != "script"}, "scriptPath": inner.get("path")}


def plan(payload: ShellPayload | ScriptPayload, ctx: RunContext) -> PlanNote:
    """Names the program; nothing is started."""
    command = payload.command if isinstance(payload, ShellPayload) else None
    text = payload.shell if isinstance(payload, ShellPayload) else None
    what = f"runs {command[0]}" if command else "runs a shell text" if text else f"runs {payload.script_path}"
    secrets = sorted(value.secret for value in payload.environment.values() if isinstance(value, SecretRef))
    details: dict[str, Any] = {"timeoutSeconds": payload.timeout_seconds, "secrets": secrets}
    if command:
        details["command"] = list(command)
    if text:
        details["shell"] = text
    danger = () if text is None or Settings.from_env().allow_shell_text else (_SHELL_OFF,)
    return PlanNote(what, details=details, danger=danger)


_SHELL_OFF = (
    "shell text is switched off here (TASKCENTER_ALLOW_SHELL_TEXT=0); give the program and its arguments as command"
)


@task_type("shell", title="Command", category="system", icon="terminal", tags=["shell"], plan=plan)
def shell(payload: ShellPayload, ctx: RunContext) -> dict[str, Any]:
    """Run a command, a shell text or a script of the project in its own process group.

    Gives ``{executor, exitCode, signal?, durationMs, stdoutTail, stderrTail, data?}``; ``data`` is the last line of
    stdout when that is a JSON object. Raises StepFailed (``exit_code`` with the same output, ``command_not_found``,
    ``permission``), TimedOut, Cancelled, and Refused for shell text that is off or a path outside.
    """
    if payload.shell is not None:
        if not Settings.from_env().allow_shell_text:
            raise Refused(_SHELL_OFF)
        return _run(["/bin/sh", "-c", payload.shell], payload, ctx)
    if payload.command is not None:
        return _run(payload.command, payload, ctx)
    return _run([*_interpreted(payload.script_path or "", ctx), *payload.args], payload, ctx)


@task_type("script", title="Script", category="system", icon="description", tags=["shell"], plan=plan)
def script(payload: ScriptPayload, ctx: RunContext) -> dict[str, Any]:
    """Run a script file of the project.

    Output and errors are those of ``shell``.
    """
    return _run([*_interpreted(payload.script_path, ctx), *payload.args], payload, ctx)


def _run(argv: Iterable[str], payload: ShellPayload | ScriptPayload, ctx: RunContext) -> dict[str, Any]:
    from .process import child_environment, run_process

    more = {k: ctx.secret(v.secret) if isinstance(v, SecretRef) else v for k, v in payload.environment.items()}
    finished = run_process(
        list(argv),
        ctx=ctx,
        environment=child_environment(ctx, more),
        cwd=_inside(payload.cwd, ctx, "cwd") if payload.cwd else ctx.temp_dir.absolute(),
        stdin=(payload.stdin or "").encode(),
        timeout=payload.timeout_seconds,
    )
    output: dict[str, Any] = {"executor": "shell", "exitCode": finished.exit_code, "durationMs": finished.duration_ms}
    if finished.signal:
        output["signal"] = finished.signal
    output["stdoutTail"] = finished.stdout_tail if payload.capture_output else ""
    output["stderrTail"] = finished.stderr_tail if payload.capture_output else ""
    data = _json_object(finished.last_line)
    if data is not None:
        output["data"] = data
    if finished.exit_code not in payload.success_exit_codes or finished.signal:
        how = f"was ended by {finished.signal}" if finished.signal else f"ended with exit code {finished.exit_code}"
        last = finished.stderr_tail.strip().rpartition("\n")[2][:300]
        if limit := hit_by_child(ctx.limits, finished.exit_code, finished.stderr_tail):
            raise StepFailed(f"{next(iter(argv))} {how}: {limit}", error_type="limit", output=output)
        raise StepFailed(
            f"{next(iter(argv))} {how}" + (f": {last}" if last else ""), error_type="exit_code", output=output
        )
    return output


def _json_object(line: str | None) -> dict[str, Any] | None:
    if line is None or not line.lstrip().startswith("{"):
        return None
    try:
        data = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _interpreted(path: str, ctx: RunContext) -> list[str]:
    """The script with its interpreter: Python for .py, sh for .sh, otherwise its own #! line."""
    file = _inside(path, ctx, "scriptPath")
    if not file.is_file():
        raise StepFailed(f"the script {file} does not exist", error_type="command_not_found")
    interpreters = {".py": [sys.executable, "-u"], ".sh": ["/bin/sh"]}
    executable = os.access(file, os.X_OK) and file.suffix != ".py"
    return [str(file)] if executable else [*interpreters.get(file.suffix, []), str(file)]


def _inside(path: str, ctx: RunContext, what: str) -> Path:
    """The absolute path, links followed; Refused unless it lies in a folder that jobs may use."""
    settings = Settings.from_env()
    roots = [settings.project, settings.home]
    if what == "cwd":
        roots += [ctx.temp_dir, ctx.data_dir, Path(tempfile.gettempdir())]
    resolved = (settings.project / Path(path).expanduser()).resolve()
    if not any(resolved.is_relative_to(root.resolve()) for root in roots):
        raise Refused(f"{what} {path!r} lies outside the project {settings.project} and the data directory")
    return resolved
