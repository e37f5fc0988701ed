"""Child processes: what they are given, what they give, and that nothing of them stays."""

from __future__ import annotations

import logging
import os
import time
import uuid
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from flows.task_types.process import LINE_BYTES, TAIL_BYTES, child_environment
from taskcenter.clock import utc_now
from taskcenter.context import Cancelled, RunContext
from taskcenter.errors import Refused, StepFailed, TimedOut
from taskcenter.models import Run, Task
from taskcenter.redaction import MASK, register_secret
from taskcenter.settings import Settings
from taskcenter.task_types import registry


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunContext:
    (tmp_path / "project").mkdir()
    monkeypatch.setenv("TASKCENTER_PROJECT", str(tmp_path / "project"))
    monkeypatch.setenv("TASKCENTER_HOME", str(tmp_path / "home"))
    return RunContext(run_id="r1", temp_dir=tmp_path, data_dir=tmp_path, on_output=lambda line, stream: None)


def call(ctx: RunContext, kind: str = "shell", **payload: Any) -> Any:
    problems = registry.get(kind).check(payload)
    assert not problems, problems
    return registry.get(kind).call(payload, ctx)


def alive(mark: str) -> list[list[str]]:
    """Command lines that still run with ``mark`` in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.cmdline())
        except psutil.Error:
            continue
    return found


def test_output_fields_and_streams(ctx: RunContext) -> None:
    lines: list[tuple[str, str]] = []
    ctx.on_output = lambda line, stream: lines.append((line, stream))
    output = call(ctx, shell="echo one; echo two >&2; printf '{\"rows\": 3}'")
    assert output.pop("durationMs") > 0
    assert output == {
        "executor": "shell",
        "exitCode": 0,
        "stdoutTail": 'one\n{"rows": 3}',
        "stderrTail": "two\n",
        "data": {"rows": 3},
    }
    assert sorted(lines) == [("one", "stdout"), ("two", "stderr"), ('{"rows": 3}', "stdout")]


def test_lines_come_while_it_runs(ctx: RunContext) -> None:
    seen: list[float] = []
    ctx.on_output = lambda line, stream: seen.append(time.monotonic())
    call(ctx, shell="echo a; sleep 0.5; echo b")
    assert seen[1] - seen[0] > 0.4


@pytest.mark.parametrize("last", ["{", "[1]", '{"a": NaN}', "text", '{"a": 1} x', '{"a":' * 5_000])
def test_what_is_no_object_is_no_data(ctx: RunContext, last: str) -> None:
    assert "data" not in call(ctx, command=["printf", "%s\n", last])


def test_values_are_never_pasted_into_text(ctx: RunContext) -> None:
    evil = "$(touch x); `id` 'quote' \"double\"\nline"
    ctx.env = {"TASK_LEVEL": "1", "BOTH": "task"}
    ctx.resolve_secret = lambda name: f"<{name}>"
    output = call(
        ctx,
        shell='printf %s "$EVIL|$TASK_LEVEL|$BOTH|$KEY"',
        environment={"EVIL": evil, "BOTH": "step", "KEY": {"secret": "k"}},
    )
    assert output["stdoutTail"] == f"{evil}|1|step|<k>"


def test_the_environment_is_clean_and_files_are_private(ctx: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    output = call(ctx, shell="env; umask")
    assert "hunter2" not in output["stdoutTail"]
    assert "TASKCENTER_HOME" not in output["stdoutTail"]
    assert output["stdoutTail"].endswith("0077\n")
    assert {"TASKCENTER_RUN_ID=r1", "TASKCENTER_ROOT_RUN_ID=r1"} <= set(output["stdoutTail"].splitlines())
    output = call(replace(ctx, run_id="r2", root_run_id="r1"), shell="echo $TASKCENTER_RUN_ID $TASKCENTER_ROOT_RUN_ID")
    assert output["stdoutTail"] == "r2 r1\n"


def test_nothing_of_the_worker_reaches_a_child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the run's own session hands to a task type, and what ``{{env.…}}`` of a composite knows."""
    from flows.running.composite_run import environment_of
    from flows.running.session import Session

    names = ("TASKCENTER_SECRET_KEY", "TASKCENTER_DATABASE_URL", "PREFECT_API_KEY")
    for name in names:
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("PLAIN", "seen")
    task = Task(name="x", task_type="shell", environment={"OWN": "1"})
    recorder = SimpleNamespace(run=Run(id="r", task_slug="x", task_type="shell", created_at=utc_now()))
    session = cast(
        Any, SimpleNamespace(task=task, recorder=recorder, run=recorder.run, dry_run=False, logger=logging.getLogger(),
                             settings=Settings(home=tmp_path), temp_dir=tmp_path, connection=str, secret=str,
                             hold=SimpleNamespace(seconds=lambda: 0.0), printed=lambda size: size),
    )  # fmt: skip
    ctx = Session.context(session)
    assert ctx.env == {"OWN": "1"}
    assert "hunter2" not in child_environment(ctx, {}).values()
    assert environment_of(task)["PLAIN"] == "seen"
    assert environment_of(task)["OWN"] == "1"
    assert not set(names) & environment_of(task).keys()


def test_exit_codes(ctx: RunContext) -> None:
    with pytest.raises(StepFailed, match="ended with exit code 3: went wrong") as caught:
        call(ctx, shell="echo went wrong >&2; exit 3")
    assert caught.value.error_type == "exit_code"
    assert caught.value.output["exitCode"] == 3
    assert call(ctx, shell="exit 3", successExitCodes=[0, 3])["exitCode"] == 3
    with pytest.raises(StepFailed, match="was ended by SIGKILL") as caught:
        call(ctx, shell="kill -9 $$", successExitCodes=[137])
    assert (caught.value.output["exitCode"], caught.value.output["signal"]) == (137, "SIGKILL")


def test_stdin_is_fed_and_may_be_ignored(ctx: RunContext) -> None:
    text = "é" * 200_000
    assert call(ctx, shell="wc -c", stdin=text)["stdoutTail"].strip() == "400000"
    assert call(ctx, command=["true"], stdin=text)["exitCode"] == 0
    assert call(ctx, command=["cat"])["stdoutTail"] == ""


def test_what_cannot_start(ctx: RunContext, tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="command no-such-program was not found") as caught:
        call(ctx, command=["no-such-program"])
    assert caught.value.error_type == "command_not_found"
    plain = tmp_path / "plain"
    plain.write_text("x")
    with pytest.raises(StepFailed, match="may not be executed") as caught:
        call(ctx, command=[str(plain)])
    assert caught.value.error_type == "permission"
    plain.chmod(0o700)
    with pytest.raises(StepFailed, match="not a program"):
        call(ctx, command=[str(plain)])


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({}, "exactly one of"),
        ({"command": ["a"], "shell": "b"}, "exactly one of"),
        ({"command": []}, "at least 1"),
        ({"command": "ls -l"}, "payload.command"),
        ({"command": [" "]}, "must not be blank"),
        ({"command": ["a"], "args": ["b"]}, "args belong to scriptPath"),
        ({"shell": "a", "environment": {"A B": "x"}}, "payload.environment"),
        ({"shell": "a", "environment": {"A": 1}}, "payload.environment"),
        ({"shell": "a", "successExitCodes": [256]}, "payload.successExitCodes"),
        ({"shell": "a", "captureOutput": "no"}, "payload.captureOutput"),
    ],
)
def test_bad_payloads(payload: dict[str, Any], says: str) -> None:
    assert any(says in str(problem) for problem in registry.get("shell").check(payload))


def test_shell_text_can_be_switched_off(ctx: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKCENTER_ALLOW_SHELL_TEXT", "0")
    with pytest.raises(Refused, match="TASKCENTER_ALLOW_SHELL_TEXT"):
        call(ctx, shell="echo hi")
    assert call(ctx, command=["echo", "hi"])["stdoutTail"] == "hi\n"
    note = registry.get("shell").preview({"shell": "echo hi"}, ctx)
    assert note is not None
    assert note.danger


def test_scripts_of_the_project(ctx: RunContext, tmp_path: Path) -> None:
    (tmp_path / "project" / "a.py").write_text("import sys, json; print(json.dumps({'args': sys.argv[1:]}))")
    (tmp_path / "project" / "b.sh").write_text("echo sh $1")
    assert call(ctx, "script", scriptPath="a.py", args=["x y"])["data"] == {"args": ["x y"]}
    assert call(ctx, "script", script={"path": "b.sh", "type": "file"}, args=["1"])["stdoutTail"] == "sh 1\n"
    assert call(ctx, scriptPath="b.sh", args=["2"])["stdoutTail"] == "sh 2\n"
    with pytest.raises(StepFailed, match="does not exist"):
        call(ctx, scriptPath="none.sh")
    (tmp_path / "project" / "link").symlink_to("/bin/echo")
    for outside in ("../x.sh", "/bin/echo", "link"):
        with pytest.raises(Refused, match="outside the project"):
            call(ctx, scriptPath=outside)
    with pytest.raises(Refused, match="cwd '/etc' lies outside"):
        call(ctx, command=["pwd"], cwd="/etc")
    assert call(ctx, command=["pwd"], cwd=".")["stdoutTail"].strip() == str(tmp_path / "project")
    with pytest.raises(StepFailed, match=r"the folder .* was not found"):
        call(ctx, command=["pwd"], cwd="none")


def test_a_time_out_ends_the_whole_tree(ctx: RunContext) -> None:
    """Children that ignore TERM, that left the session, and that lost their parent by a double fork."""
    mark = uuid.uuid4().hex
    text = (
        "trap '' TERM; sleep 600 & setsid sleep 601 & (setsid sh -c 'trap \"\" TERM; sleep 602 & sleep 603' &); "
        "echo started; sleep 604; sleep 605"
    )
    ctx.on_output = lambda line, stream: time.sleep(0.3)  # they are all there before the time is up
    started = time.monotonic()
    with pytest.raises(TimedOut, match="ran longer than 1 s") as caught:
        call(ctx, shell=text, environment={"MARK": mark}, timeoutSeconds=1)
    assert time.monotonic() - started < 10
    assert caught.value.error_type == "timeout"
    assert caught.value.output["stdoutTail"] == "started\n"
    assert alive(mark) == []


def test_cancel_ends_it_at_once_when_it_listens(ctx: RunContext) -> None:
    mark = uuid.uuid4().hex
    started = time.monotonic()
    ctx.is_cancelled = lambda: time.monotonic() - started > 0.3
    with pytest.raises(Cancelled):
        call(ctx, shell="sleep 600 & sleep 601", environment={"MARK": mark})
    assert time.monotonic() - started < 2
    assert alive(mark) == []


def test_an_error_of_the_listener_ends_the_child(ctx: RunContext) -> None:
    mark = uuid.uuid4().hex

    def broken(line: str, stream: str) -> None:
        raise RuntimeError("the log is full")

    ctx.on_output = broken
    with pytest.raises(RuntimeError, match="log is full"):
        call(ctx, shell="echo x; sleep 600", environment={"MARK": mark})
    assert alive(mark) == []


def test_a_background_process_is_not_waited_for(ctx: RunContext) -> None:
    mark = uuid.uuid4().hex
    started = time.monotonic()
    output = call(ctx, shell="sleep 600 & echo $!", environment={"MARK": mark})
    try:
        assert time.monotonic() - started < 4
        assert alive(mark) == [["sleep", "600"]]
    finally:
        os.kill(int(output["stdoutTail"]), 9)


def test_much_output_stays_small_in_memory(ctx: RunContext) -> None:
    count = longest = 0

    def seen(line: str, stream: str) -> None:
        nonlocal count, longest
        count, longest = count + 1, max(longest, len(line))

    ctx.on_output = seen
    before = psutil.Process().memory_info().rss
    output = call(ctx, shell="yes 0123456789012345678901234567890123456789 | head -c 50000000")
    assert count >= 50_000_000 // 41
    assert TAIL_BYTES - 41 <= len(output["stdoutTail"]) <= TAIL_BYTES  # it begins with a whole line
    output = call(ctx, shell="head -c 50000000 /dev/zero | tr '\\0' x; echo; echo '{\"a\": 1}'")
    assert longest < LINE_BYTES + 100
    assert output["data"] == {"a": 1}
    assert psutil.Process().memory_info().rss - before < 20 * 1024 * 1024


@pytest.mark.parametrize("end", ["", "\\n"])
@pytest.mark.parametrize("before", [100, 100_000, 3_000_000])
def test_the_tail_of_one_long_line_cuts_no_secret_in_half(before: int, end: str, ctx: RunContext) -> None:
    secret = "correct horse battery staple"
    register_secret(secret)
    behind = TAIL_BYTES - len(secret) // 2
    long = f"yes | tr -d '\\n' | head -c {before}; printf '{secret}'; yes n | tr -d '\\n' | head -c {behind}"
    tail = call(ctx, shell=f"{long}; printf '{end}'")["stdoutTail"]
    assert tail.rstrip("\n").endswith("]" + "n" * behind)
    assert not any(word in tail for word in secret.split())
    assert call(ctx, shell=f"{long}; echo; echo done")["stdoutTail"] == "done\n"


def test_a_long_line_of_secrets_shows_none_of_them(ctx: RunContext) -> None:
    """Masked it is much shorter; where it was begun to be kept, in the middle of one, is not shown."""
    secret = "correct horse battery staple, and more of it"
    register_secret(secret)
    tail = call(ctx, shell=f"yes '{secret}' | tr -d '\\n' | head -c 3000000")["stdoutTail"]
    assert len(tail) < TAIL_BYTES
    assert set(tail.split(MASK)[1:-1]) == {""}
    assert not any(word in tail[:1000] for word in secret.split())


def test_capture_can_be_off(ctx: RunContext) -> None:
    output = call(ctx, shell="echo '{\"a\": 1}'", captureOutput=False)
    assert (output["stdoutTail"], output["data"]) == ("", {"a": 1})


def test_colours_and_broken_bytes_pass(ctx: RunContext) -> None:
    lines: list[str] = []
    ctx.on_output = lambda line, stream: lines.append(line)
    call(ctx, shell=r"printf '\033[31mred\033[0m\r\n\377\n'")
    assert lines == ["\x1b[31mred\x1b[0m", "\ufffd"]
