"""Run one child process: its own session, a clean environment, lines as they come, and an end that is an end.

POSIX only. Memory stays bounded whatever the child prints: the last 64 KiB of each stream and a little, and one line.
"""

from __future__ import annotations

import errno
import os
import selectors
import signal
import subprocess
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from taskcenter.context import Cancelled, RunContext
from taskcenter.errors import StepFailed, TimedOut
from taskcenter.redaction import redact_text
from taskcenter.resource_limits import printed_too_much

from .process_limits import limited
from .process_tree import COOKIE, end_tree

__all__ = ["Finished", "child_environment", "run_process"]

TAIL_BYTES = 64 * 1024
_MARGIN_BYTES = 16 * 1024
"""Kept before the tail, never shown: a secret at the edge is seen whole there, and masked."""
LINE_BYTES = 16 * 1024
"""A longer line is cut in the log."""
LAST_LINE_BYTES = 1024 * 1024
"""The last line is kept up to here, since it may be a JSON object."""
GRACE_SECONDS = 5.0
_KEPT = ("PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "USER")
_POLL_SECONDS = 0.1
_DRAIN_SECONDS = 1.0
"""How long to listen on after the child's end, to a pipe that something in the background still holds."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a child ended. ``exit_code`` is 128 + n after signal n, as shells have it."""

    exit_code: int
    signal: str | None
    duration_ms: float
    stdout_tail: str
    stderr_tail: str
    last_line: str | None


def child_environment(ctx: RunContext, more: Mapping[str, str]) -> dict[str, str]:
    """A short allow-list of this process's variables, then the run's, then ``more``.

    Nothing else is inherited: credentials of the worker stay with the worker.
    """
    kept = {k: v for k, v in os.environ.items() if k in _KEPT or k.startswith("LC_")}
    run = {"TASKCENTER_RUN_ID": ctx.run_id, "TASKCENTER_TASK": ctx.task, "TASKCENTER_ATTEMPT": str(ctx.attempt)}
    run["TASKCENTER_ROOT_RUN_ID"] = ctx.root_run_id or ctx.run_id
    return {"PATH": os.defpath, **kept, **run, **ctx.env, **more}


def run_process(
    argv: Sequence[str],
    *,
    ctx: RunContext,
    environment: Mapping[str, str],
    cwd: Path | None = None,
    stdin: bytes = b"",
    timeout: float = 0,
    grace: float = GRACE_SECONDS,
) -> Finished:
    """Run ``argv`` to its end; every line goes to ``ctx.output`` as it comes.

    ``timeout`` is in seconds, 0 for none. On time-out and cancel the whole tree is ended: TERM, ``grace`` seconds,
    KILL, checked. Raises StepFailed (``command_not_found``, ``permission``), TimedOut, Cancelled; any exit code is a
    normal end here.
    """
    cookie = uuid.uuid4().hex
    started = time.monotonic()
    process = _start(limited(argv, ctx.limits, environment, cwd), {**environment, COOKIE: cookie}, cwd)
    lines = {name: _Lines(name, ctx.output, _meter(ctx)) for name in ("stdout", "stderr")}
    try:
        _pump(process, lines, stdin, ctx, started - ctx.held_seconds() + timeout if timeout else None)
    except _Stop as stop:
        left = end_tree(process, cookie, grace)
        note = f"; {len(left)} of its processes could not be ended: {left}" if left else ""
        if stop.cancelled:
            raise Cancelled(f"{argv[0]} was ended because the run was cancelled{note}") from None
        tails = {"stdoutTail": lines["stdout"].tail, "stderrTail": lines["stderr"].tail}
        if stop.limit:
            said = f"{argv[0]} was ended with its child processes: {stop.limit}{note}"
            raise StepFailed(said, error_type="limit", output=tails) from None
        raise TimedOut(
            f"{argv[0]} ran longer than {timeout:g} s and was ended with its child processes{note}", output=tails
        ) from None
    except BaseException:
        end_tree(process, cookie, 0)
        raise
    finally:
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                _close(pipe)
    code = process.wait()
    return Finished(
        exit_code=code if code >= 0 else 128 - code,
        signal=signal.Signals(-code).name if code < 0 else None,
        duration_ms=round((time.monotonic() - started) * 1000, 1),
        stdout_tail=lines["stdout"].tail,
        stderr_tail=lines["stderr"].tail,
        last_line=lines["stdout"].last,
    )


class _Stop(Exception):
    def __init__(self, cancelled: bool = False, limit: str = "") -> None:
        self.cancelled, self.limit = cancelled, limit


def _meter(ctx: RunContext) -> Callable[[int], None]:
    """Counts what is printed; raises _Stop when it is more than the run may."""
    own = 0

    def count(size: int) -> None:
        nonlocal own
        own += size
        text = printed_too_much(ctx.limits, ctx.printed(size) if ctx.printed is not None else own)
        if text is not None:
            raise _Stop(limit=text)

    return count


def _start(argv: Sequence[str], environment: Mapping[str, str], cwd: Path | None) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            list(argv),
            env=dict(environment),
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            umask=0o077,
        )
    except FileNotFoundError as error:
        what = "folder" if cwd is not None and not cwd.is_dir() else "command"
        raise StepFailed(f"the {what} {error.filename} was not found", error_type="command_not_found") from None
    except PermissionError as error:
        raise StepFailed(f"{error.filename} may not be executed", error_type="permission") from None
    except OSError as error:
        if error.errno == errno.ENOEXEC:
            raise StepFailed(f"{argv[0]} is not a program (no #! line?)", error_type="permission") from None
        raise StepFailed(f"{argv[0]} could not be started: {error.strerror}", error_type="command") from None
    except ValueError as error:  # a NUL in an argument
        raise StepFailed(f"{argv[0]!r} could not be started: {error}", error_type="command") from None


def _pump(
    process: subprocess.Popen[bytes],
    lines: Mapping[str, _Lines],
    stdin: bytes,
    ctx: RunContext,
    deadline: float | None,
) -> None:
    """Move bytes until the child has ended and its pipes are empty. Raises _Stop on time-out and cancel."""
    rest = memoryview(stdin)
    ended_at: float | None = None
    with selectors.DefaultSelector() as selector:
        for name in lines:
            pipe: IO[bytes] = getattr(process, name)
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ, lines[name])
        assert process.stdin is not None
        if rest:
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin, selectors.EVENT_WRITE)
        else:
            process.stdin.close()
        while selector.get_map() or process.poll() is None:
            ready = selector.select(_POLL_SECONDS)
            for key, _ in ready:
                if key.data is None:
                    rest = _write(selector, key.fileobj, rest)
                elif not _read(key.fileobj, key.data):
                    selector.unregister(key.fileobj)
            now = time.monotonic()
            if ctx.is_cancelled is not None and ctx.is_cancelled():
                raise _Stop(cancelled=True)
            if deadline is not None and now - ctx.held_seconds() > deadline:
                raise _Stop(cancelled=False)
            if process.poll() is not None:
                ended_at = now if ready or ended_at is None else ended_at
                if now - ended_at > _DRAIN_SECONDS:
                    ctx.output("a background process keeps the output open; it is not waited for", "stderr")
                    break
            elif not selector.get_map():
                time.sleep(_POLL_SECONDS / 10)  # it has closed its output and works on
    for each in lines.values():
        each.end()


def _read(pipe: Any, lines: _Lines) -> bool:
    """Read what is there; False at the end of the stream."""
    try:
        data = os.read(pipe.fileno(), 65_536)
    except BlockingIOError:
        return True
    lines.feed(data)
    return bool(data)


def _write(selector: selectors.BaseSelector, pipe: Any, rest: memoryview) -> memoryview:
    """Write what fits; close at the end, or when the child does not want to read."""
    try:
        rest = rest[os.write(pipe.fileno(), rest[:65_536]) :]
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        rest = memoryview(b"")
    if not rest:
        selector.unregister(pipe)
        _close(pipe)
    return rest


def _close(pipe: IO[bytes]) -> None:
    with suppress(OSError):  # the child is gone, and with it whoever could care
        pipe.close()


class _Lines:
    """Bytes into lines for the log, a tail for the result, and the last line for its JSON."""

    def __init__(
        self, stream: str, emit: Callable[[str, str], None], count: Callable[[int], None] = lambda _: None
    ) -> None:
        self.stream = stream
        self.emit = emit
        self.count = count
        self.partial = bytearray()
        self.lost = 0
        self.kept: deque[bytes] = deque()
        self.kept_bytes = 0
        self.forgot = False
        self.last: str | None = None

    def feed(self, data: bytes) -> None:
        if data:
            self.kept.append(data)
            self.kept_bytes += len(data)
            while self.kept_bytes - len(self.kept[0]) >= TAIL_BYTES + _MARGIN_BYTES:
                self.kept_bytes -= len(self.kept.popleft())
                self.forgot = True
        *whole, rest = data.split(b"\n")
        for piece in whole:
            self._add(piece)
            self._line()
        self._add(rest)
        self.count(len(data))

    def end(self) -> None:
        if self.partial or self.lost:
            self._line()

    @property
    def tail(self) -> str:
        """The last 64 KiB as text, beginning with a whole line: half a secret would not be known for one.

        Of a last line that is longer, the end, masked before it was cut.
        """
        data = b"".join(self.kept)
        if len(data) <= TAIL_BYTES:
            return data.decode("utf-8", "replace")
        whole = data[-TAIL_BYTES:].partition(b"\n")[2]
        if whole.strip():
            return whole.decode("utf-8", "replace")
        clean = redact_text(data.decode("utf-8", "replace")).encode()
        begin = max(len(clean) - TAIL_BYTES, _MARGIN_BYTES if self.forgot else 0)
        return f"…{clean[begin:].decode('utf-8', 'ignore')}"

    def _add(self, piece: bytes) -> None:
        room = LAST_LINE_BYTES - len(self.partial)
        self.partial += piece[:room]
        self.lost += max(0, len(piece) - room)

    def _line(self) -> None:
        text = bytes(self.partial).removesuffix(b"\r")
        size = len(text) + self.lost
        if text.strip():
            self.last = None if self.lost else text.decode("utf-8", "replace")
        shown = text.decode("utf-8", "replace")
        if size > LINE_BYTES:  # masked before it is cut: half a secret would not be known for one
            shown = f"{redact_text(shown)[:LINE_BYTES]}… [line of {size} bytes cut]"
        self.emit(shown, self.stream)
        self.partial.clear()
        self.lost = 0
