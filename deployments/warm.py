"""The warm process: it imports everything once and then forks one process per run. (spec 5.2)

Started by the worker with one end of a socket pair. Lines of JSON go both ways: it takes requests to start a run
and tells when one started and how it ended. One fork is made ahead and waits (``warm_spare``). The warm process has
no threads, so that a fork is a whole process; when something it preloaded started one, it says so and every run gets a
fresh interpreter instead. It lives as long as the worker does: at the end of the socket it ends the runs, then itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, Final, NoReturn

from deployments.warm_spare import AFTER_FAILURE, QUIET, Spare, wait_for_run

__all__ = ["PRELOAD", "main"]

PRELOAD: Final = (
    "flows.composite",
    "flows.run_task",
    "flows.running.composite_run",
    "flows.running.task_run",
    "taskcenter_adapter.store_memory",
    "taskcenter_adapter.store_sql",
    "prefect.engine",
    "prefect.flow_engine",
    "prefect.task_engine",
    "prefect.events.clients",
    "prefect.events.worker",
    "prefect.logging.handlers",
    "prefect._internal.metrics",
    "prefect._internal.observers",
    "sqlalchemy.dialects.postgresql.psycopg",
    "psycopg",
    "anyio._backends._asyncio",
    "encodings.ascii",
    "encodings.idna",
    "flows.task_types.process",
    "deployments.warm_prefect",
    "deployments.warm_run",
    "deployments.warm_spare",
    "deployments.worker_tree",
)
_PDEATHSIG: Final = 1
Message = dict[str, Any]


def preload() -> list[str]:
    """Import what runs need; gives what could not be imported. A user's own files are left to the run itself."""
    broken = []
    for name in PRELOAD:
        try:
            importlib.import_module(name)
        except ImportError as error:
            broken.append(f"{name}: {error}")
    for point in entry_points(group="taskcenter.task_types"):
        try:
            point.load()
        except Exception as error:  # a broken plug-in is the failure of the runs that use it
            broken.append(f"{point.value}: {error}")
    from deployments.warm_prefect import rehearse, share_tls_context, watch_for_suspension_later

    share_tls_context()
    watch_for_suspension_later()
    rehearse()
    return broken


def versions() -> dict[str, str]:
    """The version of the flows in each of our doors, as Prefect takes it from the file."""
    from prefect.utilities.hashing import file_hash

    files = {name: sys.modules[name].__file__ for name in ("flows.composite", "flows.run_task") if name in sys.modules}
    return {name: file_hash(file) for name, file in files.items() if file}


def threads() -> int:
    """Threads of this process, those of C libraries included."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        import threading

        return threading.active_count()


class Zygote:
    """Forks on request and reports ends, in one thread."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._unread = b""
        self._runs: dict[int, str] = {}
        self._stop = False
        self._cold = False
        self._libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
        self._wakeup = socket.socketpair()
        self._spare: Spare | None = None
        self._asked_at = 0.0

    def serve(self) -> None:
        """Until the worker is gone or asks for the end."""
        woken, wake = self._wakeup
        woken.setblocking(False)
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_term)
        self._ready()
        while not self._stop:
            making = [self._spare.line] if self._spare is not None and not self._spare.ready else []
            ready, _, _ = select.select([self._control, woken, *making], [], [], self._until_spare())
            if not ready:
                self._make_spare()
            if making and making[0] in ready and self._spare is not None and not self._spare.hear():
                self._drop_spare()
                self._asked_at += AFTER_FAILURE  # what broke it may break the next one too
            if woken in ready:
                with contextlib.suppress(BlockingIOError):
                    woken.recv(4096)
                self._reap()
            if self._control in ready:
                for message in self._read():
                    self._start(message)
        self._drop_spare()
        self._end_runs()

    def _on_term(self, *_: object) -> None:
        self._stop = True

    def _ready(self) -> None:
        """Preload, then say so."""
        begin = time.perf_counter()
        broken = preload()
        count = threads()
        self._cold = count > 1 or sys.platform == "darwin"  # macOS frameworks do not survive a fork
        gc.collect()
        gc.disable()
        gc.freeze()
        took = round(time.perf_counter() - begin, 2)
        facts = {"seconds": took, "threads": count, "cold": self._cold, "broken": broken, "versions": versions()}
        self._tell({"ready": facts})

    def _tell(self, message: Message) -> None:
        with contextlib.suppress(OSError):  # the worker is gone: the end of the socket follows
            self._control.sendall(json.dumps(message).encode() + b"\n")

    def _read(self) -> list[Message]:
        try:
            data = self._control.recv(1 << 20)
        except ConnectionError:
            data = b""
        if not data:
            self._stop = True
            return []
        *lines, self._unread = (self._unread + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def _start(self, request: Message) -> None:
        self._asked_at = time.monotonic()
        spare, parent = self._spare, os.getpid()
        if spare is not None and spare.ready:
            self._spare = None
            if spare.give(request):
                self._started(request, spare.pid)
                return
        try:
            pid = os.fork()
        except OSError as error:
            self._tell({"refused": request["id"], "why": f"no process could be forked: {error.strerror}"})
            return
        if pid == 0:
            self._become(lambda: request, parent)
        self._started(request, pid)

    def _started(self, request: Message, pid: int) -> None:
        self._runs[pid] = request["id"]
        self._tell({"started": request["id"], "pid": pid})

    def _until_spare(self) -> float | None:
        """Seconds until a spare is wanted; None while there is one, or none can be."""
        if self._spare is not None or self._cold:
            return None
        return max(0.0, self._asked_at + QUIET - time.monotonic())

    def _make_spare(self) -> None:
        ours, its = socket.socketpair()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            its.close()
            self._asked_at = time.monotonic()  # again, but later
            return
        if pid == 0:
            ours.close()
            self._become(lambda: wait_for_run(its), parent)
        its.close()
        self._spare = Spare(pid, ours)

    def _drop_spare(self) -> None:
        if self._spare is not None:
            self._spare.line.close()  # which ends it
            self._spare, self._asked_at = None, time.monotonic()

    def _become(self, get: Callable[[], Message | None], parent: int) -> NoReturn:
        """In the fork: from here on this is the process of one run, which ``get`` gives."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.setsid()
            if self._libc is not None:
                self._libc.prctl(_PDEATHSIG, signal.SIGTERM)
                if os.getppid() != parent:
                    os._exit(1)
            for each in (self._control, *self._wakeup, *([self._spare.line] if self._spare is not None else [])):
                each.close()
            gc.enable()
            from deployments.warm_run import run

            request = get()
            code = run(request, cold=self._cold) if request is not None else 0
        except BaseException:  # whatever it is, this fork must not go on as a second zygote
            traceback.print_exc()
        finally:
            os._exit(code)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._spare is not None and pid == self._spare.pid:
                self._drop_spare()
            run_id = self._runs.pop(pid, None)
            if run_id is not None:
                self._tell({"ended": run_id, "pid": pid, "status": os.waitstatus_to_exitcode(status)})

    def _end_runs(self) -> None:
        """The worker is gone: no run may outlive it."""
        from deployments.worker_tree import end_processes, processes_of

        runs = dict(self._runs)  # what a run started is ended even when its own process is gone already

        def find() -> list[Any]:
            return [
                process
                for pid, run_id in runs.items()
                for process in processes_of(run_id, pid if pid in self._runs else None)
            ]

        def pause(seconds: float) -> None:
            time.sleep(seconds)
            self._reap()

        if runs:
            end_processes(find, pause=pause)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to handle
    Zygote(socket.socket(fileno=int(sys.argv[1]))).serve()


if __name__ == "__main__":
    # under its own name, so that the forks do not load this module a second time
    from deployments.warm import main as serve

    serve()
