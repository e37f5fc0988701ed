"""Child processes that never outlive us: started in their own session, told to stop in order, killed as a tree."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from taskcenter.errors import ServerAway, SetupError

__all__ = ["Child", "free_port", "port_is_free", "private_folder", "require_port", "start", "wait_until"]

_PR_SET_PDEATHSIG = 1


def die_with_parent(signum: int) -> Callable[[], None] | None:
    """For ``preexec_fn``: the kernel sends ``signum`` when the thread that started the child ends (Linux).

    So even a kill -9 of the parent leaves no orphan. Children must be started from the main thread.
    """
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signum)

    return ask


@dataclass
class Child:
    """A started process and how it is asked to stop."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    stop_signal: int = signal.SIGTERM

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def tail(self, lines: int = 12) -> str:
        """The end of its log, for an error message."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def stop(self, grace: float = 15.0) -> None:
        """Ask, wait ``grace`` seconds, then kill it and everything it started."""
        family = _family(self.process.pid)
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(self.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace)
        for one in [*family, *_family(self.process.pid)]:
            with contextlib.suppress(psutil.Error):
                one.kill()
        if self.alive:
            self.process.kill()
            self.process.wait(5)


def _family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def start(
    name: str,
    argv: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stop_signal: int = signal.SIGTERM,
    death_signal: int | None = None,
    **options: Any,
) -> Child:
    """Start one child in a session of its own (a Ctrl-C at the terminal reaches only us, we stop it in order)."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as out:
        process = subprocess.Popen(
            [str(part) for part in argv],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            start_new_session=True,
            preexec_fn=die_with_parent(death_signal or stop_signal),
            **options,
        )
    return Child(name, process, log, stop_signal)


def wait_until(what: str, ready: Callable[[], bool], child: Child | None, timeout: float, hint: str = "") -> None:
    """Poll ``ready`` until it holds; raises ServerAway with the child's last words when it does not in time."""
    end = time.monotonic() + timeout
    while not ready():
        died = child is not None and not child.alive
        if died or time.monotonic() > end:
            said = child.tail() if child else ""
            how = f"stopped with exit code {child.process.returncode}" if child and died else "did not answer in time"
            log = f" Its log is {child.log}; it ends with:\n{said}" if child and said else ""
            raise ServerAway(f"{what} {how}. {hint}{log}".replace("  ", " "))
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def require_port(port: int, what: str, option: str) -> int:
    """``port``, or a free one for 0; raises SetupError when somebody else has it."""
    if port == 0:
        return free_port()
    if not port_is_free(port):
        raise SetupError(
            f"port {port} on 127.0.0.1, wanted for {what}, is taken by another program. "
            f"Stop that program, or choose another port with {option}."
        )
    return port


def private_folder(path: Path, mode: int = 0o700) -> Path:
    """Make ``path`` for this user alone; raises SetupError with what to do when it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if path.stat().st_uid == os.geteuid() and (path.stat().st_mode & 0o777) != mode:
            path.chmod(mode)
        probe = path / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise SetupError(
            f"the data directory {path} cannot be written ({error.strerror or error}). "
            "Give it to this user, or name another one with TASKCENTER_HOME."
        ) from None
    return path
