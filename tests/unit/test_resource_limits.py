"""A run may use so much: real processes meet their limits, and the end says which one. (spec 5.7)"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

from flows.running.resources import Usage, watch_resources
from flows.task_types.python import PythonPayload, python
from flows.task_types.shell import ShellPayload, shell
from taskcenter.context import RunContext
from taskcenter.errors import StepFailed
from taskcenter.models import ResourceLimits, Task
from taskcenter.resource_limits import exceeded, hit_by_child, in_words, printed_too_much

ON_LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is held on Linux only")
HOARD = "kept = [b'x' * 2**20 for _ in range(400)]"
MANY = "kept = [open('/dev/null') for _ in range(200)]"


def ctx_with(folder: Path, **limits: Any) -> RunContext:
    return RunContext(temp_dir=folder, data_dir=folder, limits=ResourceLimits(**limits))


def failing(kind: str, folder: Path, text: str, **limits: Any) -> StepFailed:
    ctx = ctx_with(folder, **limits)
    payloads = {"shell": ShellPayload(command=(sys.executable, "-c", text)), "python": PythonPayload(code=text)}
    types: dict[str, Any] = {"shell": shell, "python": python}
    with pytest.raises(StepFailed) as caught:
        types[kind](payloads[kind], ctx)
    assert caught.value.error_type == "limit", caught.value.message
    return caught.value


@pytest.mark.parametrize("kind", ["shell", "python"])
def test_cpu_time(kind: str, tmp_path: Path) -> None:
    began = time.monotonic()
    error = failing(kind, tmp_path, "while True: pass", cpu_seconds=1)
    assert "it used more than 1 CPU seconds (cpuSeconds)" in error.message
    assert time.monotonic() - began < 30


@ON_LINUX
@pytest.mark.parametrize("kind", ["shell", "python"])
def test_memory(kind: str, tmp_path: Path) -> None:
    error = failing(kind, tmp_path, HOARD, memory_mb=128)
    assert "it needed more than 128 MB of memory (memoryMb)" in error.message


@pytest.mark.parametrize("kind", ["shell", "python"])
def test_open_files(kind: str, tmp_path: Path) -> None:
    error = failing(kind, tmp_path, MANY, open_files=64)
    assert "it had 64 files open, the most it may (openFiles)" in error.message


@pytest.mark.parametrize("kind", ["shell", "python"])
def test_output(kind: str, tmp_path: Path) -> None:
    text = "import sys\nwhile True: sys.stdout.write('x' * 80 + chr(10))"
    error = failing(kind, tmp_path, text, log_bytes=100_000)
    assert "it printed more than 100,000 bytes (logBytes)" in error.message


def test_all_processes_of_a_run_print_together(tmp_path: Path) -> None:
    ctx = ctx_with(tmp_path, log_bytes=1000)
    total = 0

    def printed(size: int) -> int:
        nonlocal total
        total += size
        return total

    ctx.printed = printed
    shell(ShellPayload(shell="printf %0700d 1"), ctx)
    with pytest.raises(StepFailed, match="logBytes"):
        shell(ShellPayload(shell="printf %0700d 1"), ctx)


@ON_LINUX
def test_the_limits_stand_before_the_program_begins(tmp_path: Path) -> None:
    ctx = ctx_with(tmp_path, cpu_seconds=7.2, memory_mb=100, open_files=50)
    found = shell(ShellPayload(shell="ulimit -S -t; ulimit -H -t; ulimit -d; ulimit -n"), ctx)
    assert found["stdoutTail"].split() == ["8", "10", str(100 * 1024), "50"]
    assert shell(ShellPayload(command=("printf", "%s", "a b  c")), ctx)["stdoutTail"] == "a b  c"


@pytest.mark.parametrize(("program", "kind"), [("no-such-program", "command_not_found"), ("/etc/passwd", "permission")])
def test_what_cannot_start_is_still_said_as_such(tmp_path: Path, program: str, kind: str) -> None:
    with pytest.raises(StepFailed) as caught:
        shell(ShellPayload(command=(program,)), ctx_with(tmp_path, cpu_seconds=5))
    assert caught.value.error_type == kind


def test_a_failure_of_another_kind_names_no_limit(tmp_path: Path) -> None:
    with pytest.raises(StepFailed) as caught:
        shell(ShellPayload(shell="exit 3"), ctx_with(tmp_path, cpu_seconds=5, memory_mb=100, open_files=50))
    assert caught.value.error_type == "exit_code"


# the watcher -----------------------------------------------------------------------------------------


def test_the_watcher_counts_what_others_use_and_says_so_once() -> None:
    burns = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        said: list[str] = []
        with watch_resources(ResourceLimits(cpu_seconds=0.3), lambda: [psutil.Process(burns.pid)], said.append):
            end = time.monotonic() + 30
            while not said and time.monotonic() < end:
                time.sleep(0.05)
        assert said == ["it used more than 0.3 CPU seconds (cpuSeconds)"]
    finally:
        burns.kill()
        burns.wait()


def test_what_was_used_before_is_not_the_works(tmp_path: Path) -> None:
    usage = Usage(list)
    cpu, memory = usage.now()
    assert cpu < 1
    assert memory < 50 << 20
    kept = bytearray(b"x") * (60 << 20)
    assert usage.now()[1] > 50 << 20
    del kept


def test_looking_is_not_the_works() -> None:
    def others() -> list[psutil.Process]:
        end = time.thread_time() + 0.2
        while time.thread_time() < end:
            pass
        return []

    usage = Usage(others)
    for _ in range(3):
        usage.now()
    assert usage.now()[0] < 0.3


def test_without_limits_nothing_is_watched() -> None:
    with watch_resources(ResourceLimits(open_files=20), lambda: 1 / 0, lambda _: None):  # type: ignore[arg-type, return-value]
        time.sleep(0.3)


# words and decisions ---------------------------------------------------------------------------------


def test_each_limit_by_itself() -> None:
    assert exceeded(ResourceLimits(cpu_seconds=2), cpu_seconds=2, memory=1 << 40) is None
    assert exceeded(ResourceLimits(memory_mb=16), cpu_seconds=1e9, memory=16 << 20) is None
    assert "memoryMb" in str(exceeded(ResourceLimits(memory_mb=16), cpu_seconds=0, memory=(16 << 20) + 1))
    assert printed_too_much(ResourceLimits(log_bytes=5), 5) is None
    assert printed_too_much(ResourceLimits(), 1 << 60) is None


@pytest.mark.parametrize(
    ("limits", "code", "said", "word"),
    [
        ({"cpu_seconds": 1}, 152, "", "cpuSeconds"),
        ({"cpu_seconds": 1}, 137, "", None),
        ({}, 152, "", None),
        ({"memory_mb": 16}, 1, "terminate called after throwing an instance of 'std::bad_alloc'", "memoryMb"),
        ({"memory_mb": 16}, 0, "MemoryError", None),
        ({"open_files": 16}, 1, "OSError: [Errno 24] Too many open files: 'x'", "openFiles"),
        ({"memory_mb": 16}, 1, "Too many open files", None),
    ],
)
def test_how_a_child_ended(limits: dict[str, Any], code: int, said: str, word: str | None) -> None:
    found = hit_by_child(ResourceLimits(**limits), code, said)
    assert (found is None) if word is None else (found is not None and word in found)


def test_they_stand_in_a_task_and_in_words() -> None:
    given = {"cpuSeconds": 2, "memoryMb": 200, "openFiles": 64, "logBytes": 1_000_000}
    task = Task.model_validate({"name": "x", "taskType": "shell", "termination": {"limits": given}})
    assert task.to_json()["termination"]["limits"] == {**given, "cpuSeconds": 2.0}
    words = "2 CPU seconds, 200 MB of memory, 64 open files, 1,000,000 bytes of output"
    assert in_words(task.termination.limits) == words
    assert in_words(ResourceLimits()) == ""
    for bad in ({"cpuSeconds": 0}, {"memoryMb": 1}, {"openFiles": 3}, {"logBytes": 0}, {"disk": 5}):
        with pytest.raises(ValidationError):
            ResourceLimits.model_validate(bad)
