"""The worker of the type ``taskcenter`` on a real server: start, crash, kill, cancel, limits, foreign flows."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows import run_task
from taskcenter_console.services import runs as run_service
from taskcenter_console.services import tasks as task_service
from tests.integration.workers import STUBBORN, TERMINAL, Bench, lives, wait

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="warm processes are forked on Linux only")


def test_a_saved_task_runs_in_a_fork_of_the_warm_process(bench: Bench) -> None:
    live = bench.live
    command = ["sh", "-c", 'echo "parent $PPID"']
    task = task_service.save(live.center, {"name": f"warm-{uuid.uuid4().hex[:6]}", "taskType": "shell",
                                           "payload": {"command": command}}, live.caller)  # fmt: skip
    run = run_service.start(live.center, task.slug, live.caller)
    assert bench.until(run.id, *TERMINAL)["type"] == "COMPLETED", bench.tail()
    done = run_service.wait(live.center, run.id, timeout=10)
    assert done.status.value == "success"
    assert any("parent " in line.message for line in run_service.logs(live.center, run.id))
    known = wait(lambda: (r := bench.api("GET", f"/flow_runs/{run.id}"))["infrastructure_pid"] and r, 10)
    assert known["labels"]["prefect.worker.type"] == "taskcenter"
    assert known["flow_version"] == run_task.shell.version
    assert (known["run_count"], known["start_time"] is not None) == (1, True)
    wait(lambda: not lives(int(known["infrastructure_pid"])), 10)


def test_a_foreign_flow_gets_its_parameters_environment_and_output(bench: Bench) -> None:
    code = """
        @flow(log_prints=True)
        def main(word: str, count: int = 1):
            print("said", word)
            write("seen.json", {"word": word, "count": count, "env": dict(os.environ), "cwd": os.getcwd()})
    """
    variables = {"env": {"COLOUR": "blue", "SHAPE": "round"}}
    deployment = bench.deploy(code, job_variables=variables, parameters={"count": 7})
    run = bench.start(deployment, parameters={"word": "hello"}, job_variables={"env": {"SHAPE": "square"}})
    assert bench.until(run, *TERMINAL)["type"] == "COMPLETED", bench.tail()
    seen = bench.file("seen.json")
    assert (seen["word"], seen["count"]) == ("hello", 7)
    assert (seen["env"]["COLOUR"], seen["env"]["SHAPE"]) == ("blue", "square")
    assert seen["env"]["TASKCENTER_HOME"] == str(bench.live.home)
    assert seen["cwd"] != str(bench.folder)
    wait(lambda: not Path(seen["cwd"]).exists(), 10)
    where = {"logs": {"flow_run_id": {"any_": [run]}}}
    wait(lambda: any("said hello" in row["message"] for row in bench.api("POST", "/logs/filter", where)), 10)


def test_a_variable_that_is_read_at_the_start_gets_a_fresh_interpreter(bench: Bench) -> None:
    code = """
        @flow
        def main():
            write("flags.json", [sys.flags.dev_mode, "deployments.warm" in sys.modules])
    """
    deployment = bench.deploy(code, job_variables={"env": {"PYTHONDEVMODE": "1"}})
    assert bench.until(bench.start(deployment), *TERMINAL)["type"] == "COMPLETED", bench.tail()
    assert bench.file("flags.json") == [True, False]


def test_a_foreign_project_may_have_a_package_named_like_ours(bench: Bench) -> None:
    package = bench.folder / "flows"
    package.mkdir()
    (package / "__init__.py").write_text("HERE = 'the project'\n")
    code = """
        import flows

        @flow
        def main():
            write("flows.json", flows.HERE)
    """
    assert bench.until(bench.start(bench.deploy(code)), *TERMINAL)["type"] == "COMPLETED", bench.tail()
    assert bench.file("flows.json") == "the project"


def test_an_exit_of_the_process_is_a_crash_with_a_sentence_and_hooks(bench: Bench) -> None:
    code = """
        def told(flow, flow_run, state):
            write("hook.json", [state.name, state.message])

        @flow(on_crashed=[told])
        def main():
            os._exit(7)
    """
    state = bench.until(bench.start(bench.deploy(code)), *TERMINAL)
    assert state["type"] == "CRASHED"
    assert "ended with exit code 7" in state["message"]
    assert bench.file("hook.json") == ["Crashed", state["message"]]


def test_a_flow_that_fails_is_failed_and_not_crashed(bench: Bench) -> None:
    code = """
        @flow
        def main():
            raise ValueError("no such luck")
    """
    state = bench.until(bench.start(bench.deploy(code)), *TERMINAL)
    assert (state["type"], "no such luck" in state["message"]) == ("FAILED", True)


@pytest.mark.alone
def test_a_killed_run_is_seen_within_a_second_and_leaves_nothing(bench: Bench) -> None:
    run = bench.start(bench.deploy(STUBBORN))
    pid, grandchild = bench.file("stubborn.json")
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    state = bench.until(run, *TERMINAL)
    assert time.monotonic() - killed < 2  # a second, and the tests' own polling on a busy machine
    assert (state["type"], "SIGKILL" in state["message"]) == ("CRASHED", True)
    assert not lives(grandchild)
    assert bench.processes(run) == []
    (bench.folder / "stubborn.json").unlink()


def test_cancelling_runs_the_hooks_and_is_quick_when_the_flow_obeys(bench: Bench) -> None:
    code = """
        def told(flow, flow_run, state):
            write("cancelled.json", state.name)

        @flow(on_cancellation=[told])
        async def main():
            write("asleep.json", os.getpid())
            await asyncio.sleep(300)
    """
    run = bench.start(bench.deploy(code))
    pid = bench.file("asleep.json")
    asked = time.monotonic()
    bench.api("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    state = bench.until(run, *TERMINAL)
    assert time.monotonic() - asked < 8
    assert (state["type"], "are gone" in state["message"]) == ("CANCELLED", True)
    assert bench.file("cancelled.json") == "Cancelling"
    assert not lives(pid)
    seen = [row["type"] for row in bench.api("GET", f"/flow_run_states/?flow_run_id={run}")]
    assert "CRASHED" not in seen


def test_cancelling_ends_the_whole_tree_before_it_says_cancelled(bench: Bench) -> None:
    """The grandchild ignores TERM, has a session of its own and lost its parent."""
    run = bench.start(bench.deploy(STUBBORN))
    _, grandchild = bench.file("stubborn.json")
    bench.api("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    time.sleep(2)
    state = bench.state(run)
    assert (state["type"], lives(grandchild)) == ("CANCELLING", True), state
    assert bench.until(run, *TERMINAL, timeout=30)["type"] == "CANCELLED"
    assert not lives(grandchild)
    assert bench.processes(run) == []
    (bench.folder / "stubborn.json").unlink()


def test_a_scheduled_run_starts_at_its_second_and_never_before(bench: Bench) -> None:
    code = """
        @flow
        def main():
            write("first.json", time.time())
    """
    slot = datetime.now(UTC) + timedelta(seconds=4)
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": slot.isoformat()}}
    run = bench.start(bench.deploy(code), state=state)
    time.sleep(2)
    assert bench.state(run)["type"] == "SCHEDULED"
    assert bench.processes(run) == []
    late = bench.file("first.json") - slot.timestamp()
    assert 0 <= late < 2


def test_ten_runs_at_once(bench: Bench) -> None:
    deployment = bench.deploy("""
        @flow
        async def main(n: int):
            write(f"ten-{n}.json", os.getpid())
            await asyncio.sleep(1)
    """)
    ids = [bench.start(deployment, parameters={"n": n}) for n in range(10)]
    assert [bench.until(run, *TERMINAL, timeout=90)["type"] for run in ids] == ["COMPLETED"] * 10
    assert len({bench.file(f"ten-{n}.json") for n in range(10)}) == 10


def test_no_more_runs_than_the_limit_and_all_in_the_end(own: Callable[..., Bench]) -> None:
    bench = own("taskcenter", 2)
    deployment = bench.deploy("""
        @flow
        async def main():
            begin = time.time()
            await asyncio.sleep(1)
            write(f"span-{os.getpid()}.json", [begin, time.time()])
    """)
    ids = [bench.start(deployment) for _ in range(5)]
    assert [bench.until(run, *TERMINAL, timeout=90)["type"] for run in ids] == ["COMPLETED"] * 5
    spans = [json.loads(file.read_text()) for file in bench.folder.glob("span-*.json")]
    assert len(spans) == 5
    for at, _ in spans:
        assert sum(a <= at < b for a, b in spans) <= 2


def test_a_killed_warm_process_crashes_its_runs_and_comes_back(own: Callable[..., Bench]) -> None:
    """On a pool of the type process, which this worker serves too."""
    bench = own("process")
    run = bench.start(bench.deploy(STUBBORN))
    pid, grandchild = bench.file("stubborn.json", 60)
    first = bench.zygote()
    first.kill()
    state = bench.until(run, *TERMINAL, timeout=60)
    assert state["type"] == "CRASHED"
    wait(lambda: not lives(pid) and not lives(grandchild), 60, bench.tail)
    done = bench.start(
        bench.deploy("""
        @flow
        def main():
            pass
    """)
    )
    assert bench.until(done, *TERMINAL, timeout=90)["type"] == "COMPLETED", bench.tail()
    assert bench.zygote().pid != first.pid
    assert "mismatch" not in bench.tail()


def test_a_killed_worker_leaves_no_process_and_the_next_one_works(own: Callable[..., Bench]) -> None:
    bench = own("taskcenter")
    run = bench.start(bench.deploy(STUBBORN))
    pid, grandchild = bench.file("stubborn.json")
    zygote = bench.zygote()
    bench.worker.process.kill()
    gone = (pid, grandchild, zygote.pid)
    wait(lambda: not any(lives(each) for each in gone), 30, bench.tail)
    assert bench.until(run, *TERMINAL)["type"] == "CRASHED"


def test_stopping_the_worker_ends_its_runs_in_order(own: Callable[..., Bench]) -> None:
    bench = own("taskcenter")
    run = bench.start(
        bench.deploy("""
        @flow
        async def main():
            write("asleep.json", os.getpid())
            await asyncio.sleep(300)
    """)
    )
    pid = bench.file("asleep.json")
    bench.worker.process.send_signal(signal.SIGTERM)
    assert bench.worker.process.wait(60) == 0, bench.tail()
    assert not lives(pid)
    assert bench.until(run, *TERMINAL)["type"] == "CRASHED"
