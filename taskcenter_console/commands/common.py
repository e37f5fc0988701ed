"""What the commands share: the settings, the center, the caller, the common options and reading of values."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from taskcenter.errors import NotFound, Problem, Refused, SetupError, ValidationFailed
from taskcenter.settings import Settings

if TYPE_CHECKING:
    from taskcenter.task_types import TaskType
    from taskcenter_console.services.center import Caller, Center

__all__ = [
    "Out",
    "assignments",
    "caller",
    "center_if_running",
    "confirm",
    "note_refusal",
    "open_center",
    "output",
    "payload_of",
    "read_document",
    "read_json",
    "read_object",
    "read_text",
    "refuse_remote",
    "service_address",
    "settings",
    "short",
    "stdout_kept",
    "whole_file",
    "write_whole",
]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Out:
    """How a command was asked to answer."""

    json: bool = False
    quiet: bool = False


def output(function: F) -> Callable[..., Any]:
    """Adds ``--json`` and ``-q`` to a command, which gets them as ``out``."""

    @functools.wraps(function)
    def call(*args: Any, as_json: bool, quiet: bool, **values: Any) -> Any:
        return function(*args, out=Out(as_json, quiet), **values)

    call = click.option("-q", "--quiet", is_flag=True, help="Print only names or ids.")(call)
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else, to stdout.")(call)


def settings(**changes: Any) -> Settings:
    """This process's settings; ``changes`` that are not None come from options and win."""
    import dataclasses

    given = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(Settings.from_env(), **given)


def refuse_remote(chosen: Settings) -> None:
    """Answering a question about another machine's center with this one's data would be wrong."""
    if chosen.api_url:
        raise Refused(
            f"TASKCENTER_API_URL names the service at {chosen.api_url}, and this command line cannot speak to a "
            "remote service yet. Use its REST API, or unset TASKCENTER_API_URL for the center on this machine."
        )


def open_center() -> Center:
    """The center of this machine. Every command that needs one takes it from here; tests put theirs in its place."""
    from taskcenter_console.services.center import Center

    chosen = settings()
    refuse_remote(chosen)
    return Center(_of_running(chosen))


def _of_running(chosen: Settings) -> Settings:
    """With the project of the running center, unless one is named: its task types and composites are meant."""
    import dataclasses

    from taskcenter_adapter.state import read_state

    state = None if os.environ.get("TASKCENTER_PROJECT") else read_state(chosen.home)
    return dataclasses.replace(chosen, project=Path(state["project"])) if state and state.get("project") else chosen


def service_address(center: Center) -> str:
    """Where the service of this center answers, or would."""
    from taskcenter_adapter.state import read_state

    state = read_state(center.settings.home)
    return str((state or {}).get("serviceUrl") or f"http://127.0.0.1:{center.settings.port}")


def center_if_running() -> Center | None:
    """The center when one runs here or a database is named; found out without importing anything heavy."""
    chosen = settings()
    refuse_remote(chosen)
    if chosen.database_url is None:
        if not (chosen.home / "run" / "state.json").is_file():
            return None
        from taskcenter_adapter.state import read_state

        if read_state(chosen.home) is None:
            return None
    return open_center()


def caller() -> Caller:
    """Who is at the keyboard, for the audit."""
    import socket

    from taskcenter_console.services.center import Caller

    from .asking import user_name

    return Caller(user_name(), "cli", socket.gethostname())


def note_refusal(error: Refused) -> None:
    """Write it to the audit of the center here; without one nobody has anything to keep."""
    from taskcenter.errors import TaskCenterError

    words = [word for word in sys.argv[1:4] if not word.startswith("-")]
    with contextlib.suppress(TaskCenterError, OSError):
        center = center_if_running()
        if center is not None:
            from taskcenter_console.services.auditing import record_refusal

            with center:
                record_refusal(center, caller(), f"taskcenter {' '.join(words)}".strip(), error)


@contextlib.contextmanager
def stdout_kept() -> Iterator[None]:
    """What a user's own file prints while it is imported goes to stderr: stdout holds our data only."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def read_json(text: str, where: str) -> Any:
    """JSON from an option or a file; a mistake is a ValidationFailed that says where it stands."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValidationFailed(where, [Problem("not_json", "", f"is not JSON: {error}")]) from None


def read_object(text: str, where: str) -> dict[str, Any]:
    data = read_json(text, where)
    if not isinstance(data, dict):
        kind = {list: "a list", str: "a text", bool: "true or false"}.get(type(data), "a plain value")
        raise ValidationFailed(where, [Problem("not_object", "", f"must be a JSON object, not {kind}")])
    return data


def read_text(name: str) -> str:
    """A text file, or stdin for ``-``."""
    where = "stdin" if name == "-" else name
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no file {name}", path=name) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = Problem("not_text", "", f"is not UTF-8 text: {error.reason} at byte {error.start}")
        raise ValidationFailed(where, [problem]) from None


def read_document(name: str) -> Any:
    """A JSON file (``-``: stdin), or YAML when its name ends so."""
    text, where = read_text(name), "stdin" if name == "-" else name
    if not name.endswith((".yaml", ".yml")):
        return read_json(text, where)
    import yaml

    try:
        # YAML knows times and numbers as keys; what a task holds is JSON
        return json.loads(json.dumps(yaml.safe_load(text), default=str))
    except yaml.YAMLError as error:
        raise ValidationFailed(where, [Problem("not_yaml", "", f"is not YAML: {error}")]) from None
    except (ValueError, RecursionError) as error:  # an alias that contains itself
        raise ValidationFailed(where, [Problem("not_json", "", f"cannot be read as JSON: {error}")]) from None


def assignments(pairs: Sequence[str], option: str, base: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """``key=value`` pairs laid over ``base``. A value is JSON when it reads as such, else text; dots go deeper."""
    result = json.loads(json.dumps(base)) if base else {}
    problems = []
    for pair in pairs:
        name, equals, text = pair.partition("=")
        *above, last = name.split(".")
        if not equals or not all([*above, last]):
            problems.append(Problem("not_pair", pair, "must be KEY=VALUE"))
            continue
        place = result
        for part in above:
            deeper = place.setdefault(part, {})
            if not isinstance(deeper, dict):
                deeper = place[part] = {}
            place = deeper
        place[last] = _value(text)
    if problems:
        raise ValidationFailed(option, problems)
    return dict(result)


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text


def payload_of(
    text: str | None, file: str | None, pairs: Sequence[str], base: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """The payload from ``--payload``, ``--payload-file`` and ``--set``; None when none was given."""
    if text is not None and file is not None:
        raise click.UsageError("--payload and --payload-file exclude each other.")
    if text is None and file is None and not pairs:
        return None
    given = read_object(text, "--payload") if text is not None else None
    if file is not None:
        given = read_document(file)
        if not isinstance(given, dict):
            raise ValidationFailed(file, [Problem("not_object", "", "must hold one object: the payload")])
    return assignments(pairs, "--set", given if given is not None else base)


def short(value: Any, most: int = 100) -> str:
    """A value on one line, without secrets; empty for an empty one."""
    from taskcenter.redaction import redact

    if value in (None, "", {}, [], ()):
        return ""
    text = json.dumps(redact(value), ensure_ascii=False, default=str)
    return text if len(text) <= most else text[: most - 1] + "…"


def can_ask(out: Out) -> bool:
    """Whether a person is there to answer a question."""
    try:
        return not (out.json or out.quiet) and sys.stdin.isatty() and sys.stdout.isatty()
    except ValueError:
        return False


def confirm(yes: bool, out: Out, question: str, warning: str) -> None:
    """Go on only when a person agrees, by ``--yes`` or now; Refused, with the warning, where nobody can be asked."""
    if yes:
        return
    if not can_ask(out):
        raise Refused(f"{warning}: confirm with --yes")
    click.confirm(question, abort=True, err=True)


def ask_missing(kind: TaskType | None, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Ask for each required field of the type that ``payload`` lacks. An answer is JSON when it reads as such."""
    missing = (
        [p.path.removeprefix("payload.") for p in kind.check(payload) if p.code == "payload_missing"] if kind else []
    )
    fields = kind.schema().get("properties", {}) if kind and missing else {}
    asked: dict[str, Any] = {}
    for name in missing:
        about = fields.get(name, {})
        said = "; ".join(str(about[key]) for key in ("type", "description") if about.get(key))
        answer = click.prompt(f"{name} ({said})" if said else name, err=True)
        place = asked
        *above, last = name.split(".")
        for part in above:
            place = place.setdefault(part, {})
        place[last] = answer if about.get("type") == "string" else _value(answer)
    return asked


def write_whole(file: str, data: Any) -> None:
    """A JSON file that appears whole or not at all."""
    with whole_file(file) as sink:
        sink.write((json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode())


@contextlib.contextmanager
def whole_file(file: str, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file that appears whole or not at all: it is written beside its place and put there at the end."""
    target = Path(file)
    half = target.with_name(f".{target.name}.{os.getpid()}")
    device = target.exists() and not target.is_file()  # nothing takes the place of /dev/null
    try:
        half.unlink(missing_ok=True)
        flags = os.O_WRONLY if device else os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(target if device else half, flags, mode), "wb") as sink:
            yield sink
        if not device:
            half.replace(target)
    except OSError as error:
        raise SetupError(f"{file} cannot be written ({error.strerror or error}): choose another place") from None
    finally:
        with contextlib.suppress(OSError):
            half.unlink()
