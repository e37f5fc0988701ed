"""``taskcenter run``, ``plan`` and ``runs`` on a center in memory; the "worker" is a callback."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from taskcenter.clock import utc_now
from taskcenter.errors import ServerAway
from taskcenter.models import LogLine, Run, StepRun
from taskcenter.ports import Changes
from taskcenter.status import RunStatus, StepStatus
from taskcenter_console.cli import cli
from taskcenter_console.commands import common, watching
from taskcenter_console.services import runs as run_service
from taskcenter_console.services.center import Caller, Center
from taskcenter_console.services.tasks import save
from tests.fakes import FakeGateway, fake_center

GRAPH: dict[str, Any] = {
    "steps": [
        {"stepKey": "a", "taskType": "wait", "payload": {"seconds": 0}},
        {"stepKey": "b", "taskType": "wait", "payload": {"seconds": 0}},
    ],
    "edges": [{"fromStepKey": "a", "toStepKey": "b"}],
}


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
def center(home: Path, tmp_path: Path, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> Center:
    made = fake_center(tmp_path, gateway)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(common, "open_center", lambda: made)
    monkeypatch.setattr(common, "center_if_running", lambda: made)
    caller = Caller("test", "cli")
    save(made, {"name": "nap", "taskType": "wait", "payload": {"seconds": 1}}, caller)
    save(made, {"name": "duo", "taskType": "composite", "graph": GRAPH}, caller)
    save(made, {"name": "drop", "taskType": "wait", "payload": {"seconds": 1}, "danger": "It drops all."}, caller)
    return made


@pytest.fixture
def worker(center: Center, monkeypatch: pytest.MonkeyPatch) -> Callable[[RunStatus], None]:
    """Ends every run as told while the command waits for it."""
    state = {"status": RunStatus.SUCCESS}
    real = run_service.get

    def get(at: Center, run_id: str) -> Run:
        run = real(at, run_id)
        if run.status is RunStatus.QUEUED:
            at.store.record(
                Changes(runs=(run.model_copy(update={"status": RunStatus.RUNNING, "started_at": utc_now()}),))
            )
        elif run.status is RunStatus.RUNNING:
            at.store.record(finished(run, state["status"]))
        return real(at, run_id)

    monkeypatch.setattr(run_service, "get", get)
    monkeypatch.setattr(watching, "_EVERY", 0.0)
    return lambda status: state.update(status=status)


def finished(run: Run, status: RunStatus) -> Changes:
    failed = status is RunStatus.FAILED
    now = utc_now()
    ended = run.model_copy(
        update={
            "status": status,
            "finished_at": now,
            "duration_ms": 1500,
            "message": "2 of 2 steps" if not failed else "step a failed",
            "error": "step a failed: \x1b[31mno table\x1b[0m" if failed else None,
        }
    )
    first = StepRun(run_id=run.id, step_key="a", task_type="wait", attempts=2, duration_ms=5, status=StepStatus.SUCCESS)
    second = StepRun(run_id=run.id, step_key="b", task_type="wait", position=1, status=StepStatus.SUCCESS)
    if failed:
        first = first.model_copy(update={"status": StepStatus.FAILED, "error": "no table"})
        second = second.model_copy(update={"status": StepStatus.SKIPPED, "reason": "a failed"})
    line = LogLine(run_id=run.id, sequence=0, time=now, message="hello from\tthe step", step_key="a", level="error")
    steps = (first, second) if run.task_type == "composite" else ()
    return Changes(runs=(ended,), steps=steps, logs=(line,))


def invoke(*args: str, **options: Any) -> Result:
    return CliRunner().invoke(cli, list(args), prog_name="taskcenter", **options)


def data_of(*args: str) -> Any:
    return json.loads(invoke(*args, "--json").stdout)


def test_run_waits_and_shows_how_it_went(worker: Callable[[RunStatus], None]) -> None:
    result = invoke("run", "duo")
    assert result.exit_code == 0, result.stderr
    assert "running" in result.stdout
    assert "● a  success  5 ms  after 2 tries" in result.stdout
    assert "● success: duo calm-otter" in result.stdout
    assert "2 success" in result.stdout
    assert "\x1b" not in result.stdout


def test_a_failed_run_is_exit_code_1_and_says_why(worker: Callable[[RunStatus], None]) -> None:
    worker(RunStatus.FAILED)
    result = invoke("run", "duo")
    assert result.exit_code == 1
    assert "✗ a  failed" in result.stdout
    assert "○ b  skipped: a failed" in result.stdout
    assert "step a failed: no table" in result.stdout
    worker(RunStatus.CANCELLED)
    assert invoke("run", "nap").exit_code == 1


def test_json_is_the_run_with_its_steps(worker: Callable[[RunStatus], None]) -> None:
    worker(RunStatus.FAILED)
    result = invoke("run", "duo", "--json")
    assert result.exit_code == 1
    data = json.loads(result.stdout)
    assert (data["status"], [step["stepKey"] for step in data["steps"]]) == ("failed", ["a", "b"])
    assert data["prefectUrl"].endswith(data["id"])


def test_detach_returns_at_once(center: Center, gateway: FakeGateway) -> None:
    for flag in ("--detach", "--no-wait"):
        result = invoke("run", "nap", flag)
        assert result.exit_code == 0
        assert "runs logs -f" in result.stdout
    run_id = invoke("run", "nap", "--detach", "-q").stdout.strip()
    assert run_id in gateway.runs
    assert data_of("run", "nap", "--detach")["status"] == "queued"


def test_run_at_a_time_does_not_wait(center: Center, gateway: FakeGateway) -> None:
    data = data_of("run", "nap", "--at", "2999-01-01T06:00+01:00")
    assert data["slot"].startswith("2999-01-01T05:00")
    assert gateway.runs[data["id"]]["at"] is not None
    bad = invoke("run", "nap", "--at", "soon")
    assert bad.exit_code == 2
    assert "write it as" in bad.stderr


def test_payload_and_choices_reach_the_run(center: Center, gateway: FakeGateway) -> None:
    args = ("--set", "x=1", "--skip", "b", "--step-set", "a.seconds=2", "--from", "a", "--dry-run")
    run_id = invoke("run", "duo", *args, "--detach", "-q").stdout.strip()
    parameters = gateway.runs[run_id]["parameters"]
    assert parameters["payload"] == {"x": 1}
    assert parameters["dry_run"] is True
    assert parameters["options"] == {"skip": ["b"], "from": ["a"], "set": {"a": {"seconds": 2}}}


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("nope",), 3, "there is no task 'nope'; there are:"),
        (("nap", "--set", "seconds=-1"), 2, "payload.seconds"),
        (("nap", "--set", "colour=red", "--set", "seconds=x"), 2, "2 problems"),
        (("nap", "--skip", "a"), 4, "has no steps"),
        (("duo", "--skip", "nope"), 2, "there is no step 'nope'"),
        (("duo", "--plan", "0000000000000000"), 4, "is not the plan of now"),
        (("duo", "--resume", "abcd1234"), 3, "abcd1234"),
        (("duo", "--payload", "nonsense"), 2, "is not JSON"),
        (("drop",), 4, "confirm with --yes"),
    ],
)
def test_a_refused_run_leaves_nothing(
    center: Center, gateway: FakeGateway, args: tuple[str, ...], code: int, says: str
) -> None:
    result = invoke("run", *args)
    assert result.exit_code == code, result.output
    assert says in result.stderr
    assert gateway.runs == {}
    assert data_of("runs", "list")["items"] == []


def test_a_dangerous_task_is_confirmed(center: Center, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    assert invoke("run", "drop", "--yes", "--detach").exit_code == 0
    monkeypatch.setattr(common, "can_ask", lambda out: True)
    assert invoke("run", "drop", "--detach", input="n\n").exit_code == 4
    assert invoke("run", "drop", "--detach", input="y\n").exit_code == 0
    assert len(gateway.runs) == 2


def test_prefect_away(center: Center, gateway: FakeGateway) -> None:
    gateway.away = True
    result = invoke("run", "nap")
    assert result.exit_code == 5
    assert "does not answer" in result.stderr
    assert data_of("runs", "list")["items"] == []


def test_the_database_going_away_while_watching(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> Any:
        raise ServerAway("The database server does not answer")

    monkeypatch.setattr(run_service, "steps", gone)
    result = invoke("run", "nap")
    assert result.exit_code == 5
    assert "not watching any more" in result.stderr


def test_ctrl_c_ends_the_watching_and_not_the_run(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_service, "steps", interrupt)
    result = invoke("run", "nap")
    assert result.exit_code == 130
    assert "the run goes on" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_run_that_nobody_takes_says_so(
    center: Center, worker: Callable[[RunStatus], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_PATIENCE", -1.0)
    monkeypatch.setattr(run_service, "workers_online", lambda _: 0)
    left = [3]
    real = run_service.get

    def get(at: Center, run_id: str) -> Run:
        left[0] -= 1
        return at.store.get_run(run_id) if left[0] > 0 else real(at, run_id)

    monkeypatch.setattr(run_service, "get", get)
    result = invoke("run", "nap")
    assert result.stdout.count("no worker is online") == 1
    assert result.exit_code == 0


def test_live_lines_on_a_terminal(
    center: Center, worker: Callable[[RunStatus], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from taskcenter_console.commands import running

    monkeypatch.setattr(running, "is_terminal", lambda: True)
    result = invoke("run", "duo")
    assert result.exit_code == 0, result.stderr
    assert "a  success" in result.stdout
    assert "● success: duo" in result.stdout


# plan ----------------------------------------------------------------------------------------------


def test_plan_of_a_saved_composite_and_of_any_task(center: Center, gateway: FakeGateway) -> None:
    assert "2 steps in 2 waves" in invoke("plan", "duo").stdout
    assert data_of("plan", "composite/duo")["totalSteps"] == 2
    one = data_of("plan", "wait/nap", "--set", "seconds=4")
    assert (one["totalSteps"], one["steps"][0]["resolvedPayload"]) == (1, {"seconds": 4})
    assert "waits 4 s" in one["steps"][0]["note"]["summary"]
    assert invoke("plan", "nap", "--set", "seconds=x").exit_code == 2
    assert invoke("plan", "nap", "--skip", "a").exit_code == 4
    assert invoke("plan", "nope").exit_code == 3
    assert gateway.runs == {}


def test_a_plan_that_still_holds_runs_and_another_is_refused(center: Center) -> None:
    known = invoke("plan", "duo", "-q").stdout.strip()
    assert invoke("run", "duo", "--plan", known, "--detach").exit_code == 0
    changed = {**GRAPH, "maxParallel": 1, "steps": [*GRAPH["steps"], {**GRAPH["steps"][0], "stepKey": "c"}]}
    Path("g.json").write_text(json.dumps({"tasks": [{"name": "duo", "taskType": "composite", "graph": changed}]}))
    assert invoke("task", "import", "g.json", "--apply").exit_code == 0
    refused = invoke("run", "duo", "--plan", known, "--detach")
    assert refused.exit_code == 4
    assert "step c was added" in refused.stderr


# runs ----------------------------------------------------------------------------------------------


def runs_of(center: Center, count: int) -> list[Run]:
    start = utc_now() - timedelta(hours=1)
    made = [
        Run(id=f"{i:08d}-0000-4000-8000-000000000000", task_slug="duo", task_type="composite",
            task_id=center.store.get_task("duo").id, created_at=start + timedelta(minutes=i), status=RunStatus.RUNNING)
        for i in range(count)
    ]  # fmt: skip
    center.store.record(Changes(runs=made))
    return made


def test_an_empty_list_says_why(center: Center) -> None:
    assert "no runs yet" in invoke("runs", "list").output
    runs_of(center, 1)
    assert "no run is like that" in invoke("runs", "list", "--search", "nowhere").output


def test_list_pages_newest_first(center: Center) -> None:
    runs_of(center, 5)
    page = data_of("runs", "list", "--limit", "2")
    assert [run["id"][:8] for run in page["items"]] == ["00000004", "00000003"]
    following = data_of("runs", "list", "--limit", "2", "--cursor", page["nextCursor"])
    assert [run["id"][:8] for run in following["items"]] == ["00000002", "00000001"]
    assert "--cursor" in invoke("runs", "list", "--limit", "2").stderr
    assert data_of("runs", "list", "--task", "nap")["items"] == []
    assert data_of("runs", "list", "--status", "failed")["items"] == []
    assert invoke("runs", "list", "--status", "odd").exit_code == 2
    assert invoke("runs", "list", "--task", "nope").exit_code == 3
    assert "▶ running" in invoke("runs", "list").stdout


def test_show_by_the_first_characters(center: Center) -> None:
    run = runs_of(center, 1)[0]
    center.store.record(finished(run, RunStatus.FAILED))
    text = invoke("runs", "show", "0000").stdout
    assert "✗ failed" in text
    assert "no table" in text
    assert "a failed" in text
    assert "\x1b" not in text
    assert invoke("runs", "show", "0000", "-q").stdout.strip() == run.id
    assert data_of("runs", "show", "0000")["steps"][0]["stepKey"] == "a"
    assert invoke("runs", "show", "9999").exit_code == 3


def test_logs(center: Center) -> None:
    run = runs_of(center, 1)[0]
    center.store.record(finished(run, RunStatus.FAILED))
    lines = [LogLine(run_id=run.id, sequence=i, time=utc_now(), message=f"line {i}") for i in range(1, 4500)]
    for at in range(0, len(lines), 1000):
        center.store.record(Changes(logs=lines[at : at + 1000]))
    plain = invoke("runs", "logs", "0000")
    assert plain.exit_code == 0
    assert len(plain.stdout.splitlines()) == 4500
    assert "[a] ✗ hello from    the step" in plain.stdout
    assert invoke("runs", "logs", "-f", "0000").exit_code == 1
    assert invoke("runs", "logs", "0000", "--step", "a", "-q").stdout == "hello from    the step\n"
    last = [
        json.loads(line) for line in invoke("runs", "logs", "0000", "--after", "4497", "--json").stdout.splitlines()
    ]
    assert [line["sequence"] for line in last] == [4498, 4499]
    assert invoke("runs", "logs", "nope").exit_code == 3


def test_cancel_says_what_became_of_each(center: Center, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    from taskcenter_console.commands import runs as commands

    monkeypatch.setattr(commands, "_CANCEL_SECONDS", 0.0)
    waiting, working = runs_of(center, 2)
    for run in (waiting, working):
        gateway.runs[run.id] = {"id": run.id}
    gateway.runs[working.id]["state_type"] = "RUNNING"
    center.store.record(Changes(runs=(working.model_copy(update={"status": RunStatus.RUNNING}),)))
    done = invoke("runs", "cancel", waiting.id[:8], "--reason", "not today")
    assert done.exit_code == 0, done.output
    assert "not today" in done.stdout
    assert center.store.get_run(waiting.id).status is RunStatus.CANCELLED
    assert invoke("runs", "cancel", waiting.id).exit_code == 0
    assert invoke("runs", "cancel", working.id, "--no-wait", "-q").stdout.strip() == working.id
    assert invoke("runs", "cancel", working.id, waiting.id, "--json").exit_code == 1  # it is not gone yet
    assert [item["phase"] for item in data_of("runs", "cancel", working.id, "--no-wait")["items"]] == ["cancelling"]
    assert invoke("runs", "cancel", "ffffffff").exit_code == 3
