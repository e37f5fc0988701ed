"""Rows follow Prefect, whatever is lost on the way: the reconciler, the spool and what they do to late reports."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from taskcenter.errors import ServerAway
from taskcenter.events import run_finished, run_started
from taskcenter.models import LogLine, OutboxEvent, Run, StepRun
from taskcenter.ports import AuditFilter, Changes
from taskcenter.status import Origin, RunPhase, RunStatus, StepStatus
from taskcenter_adapter import recorder as recorder_module
from taskcenter_adapter.reconcile import reconcile, reconcile_runs
from taskcenter_adapter.recorder import Recorder
from taskcenter_adapter.spool import replay_spool, spool
from taskcenter_adapter.store_memory import MemoryStore
from tests.fakes import FakeGateway

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class World:
    def __init__(self) -> None:
        self.store, self.gateway = MemoryStore(), FakeGateway()
        body = {"flow_id": "flow:wait", "name": "job", "tags": ["taskcenter"]}
        self.deployment = self.gateway.put_deployment(body)

    def in_prefect(self, kind: str = "RUNNING", *, tags: tuple[str, ...] = (), age: timedelta = MINUTE) -> str:
        run_id, at = str(uuid.uuid4()), (NOON - age).isoformat()
        self.gateway.runs[run_id] = {
            "id": run_id, "name": "calm-otter", "deployment_id": self.deployment["id"], "parameters": {},
            "tags": list(tags), "created": at, "expected_start_time": at, "start_time": at,
        }  # fmt: skip
        self.put(run_id, kind)
        return run_id

    def put(self, run_id: str, kind: str) -> None:
        row = self.gateway.runs[run_id]
        row |= {"state_type": kind, "state_name": kind.capitalize(), "state_id": str(uuid.uuid4())}
        if kind in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            row["end_time"] = NOON.isoformat()

    def row(self, status: RunStatus = RunStatus.RUNNING, **values: Any) -> Run:
        fields: dict[str, Any] = {"id": str(uuid.uuid4()), "task_slug": "job", "task_type": "wait", **values}
        run = Run(status=status, created_at=NOON - MINUTE, **fields)
        self.store.record(Changes(runs=(run,)))
        return run

    def events(self) -> list[tuple[str, str]]:
        return [(event.name, event.payload["runId"]) for event in self.store.list_events()]

    def audit(self) -> list[str]:
        return [entry.event_type for entry in self.store.page_audit(AuditFilter())]


@pytest.fixture
def world() -> World:
    return World()


# the reconciler --------------------------------------------------------------------------------------


def test_what_was_started_and_ended_in_prefect_has_its_row_and_its_events(world: World) -> None:
    run_id = world.in_prefect("FAILED")
    assert [d.what for d in reconcile(world.store, world.gateway, NOON).repaired] == ["row"]
    run = world.store.get_run(run_id)
    assert (run.status, run.origin, run.duration_ms) == (RunStatus.FAILED, Origin.PREFECT, 60_000)
    assert world.events() == [("task_run_started", run_id), ("task_run_finished", run_id)]


def test_two_who_repair_the_same_at_once_leave_one_trace(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both read the row before either writes."""
    found, lost = world.in_prefect("COMPLETED"), world.row()
    run_id = world.in_prefect("CANCELLED")
    world.row(id=run_id)
    before = MemoryStore()
    before.record(Changes(runs=(world.store.get_run(run_id), lost)))
    reconcile(world.store, world.gateway, NOON)
    events, audit = world.events(), world.audit()
    assert sorted(run for name, run in events if name == "task_run_finished") == sorted([found, run_id, lost.id])
    with monkeypatch.context() as patch:
        for name in ("find_run", "find_runs", "list_runs", "with_open_steps"):
            patch.setattr(world.store, name, getattr(before, name))
        again = reconcile(world.store, world.gateway, NOON)
    assert len(again.repaired) == 3  # it believed so
    assert (world.events(), world.audit()) == (events, audit)


def test_a_pass_that_finds_nothing_writes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("RUNNING", "COMPLETED", "CRASHED", "PENDING"):
        world.in_prefect(kind)
    reconcile(world.store, world.gateway, NOON)

    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("it writes")

    for name in ("record", "set_setting", "set_settings", "change_settings"):
        monkeypatch.setattr(world.store, name, refuse)
    assert reconcile(world.store, world.gateway, NOON + timedelta(seconds=10)).differences == []


def test_the_checkpoint_moves_when_it_is_old(world: World) -> None:
    reconcile(world.store, world.gateway, NOON)
    first = world.store.get_setting("reconcile_checkpoint")
    reconcile(world.store, world.gateway, NOON + MINUTE)
    assert world.store.get_setting("reconcile_checkpoint") == first
    reconcile(world.store, world.gateway, NOON + 5 * MINUTE)
    assert world.store.get_setting("reconcile_checkpoint") == (NOON + 5 * MINUTE).isoformat()


def test_a_narrow_pass_looks_at_what_is_new_and_leaves_the_checkpoint(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconcile(world.store, world.gateway, NOON)
    asked: list[datetime] = []
    monkeypatch.setattr(world.gateway, "runs_since", lambda since, ids: asked.append(since) or iter(()))
    lost = world.row()
    report = reconcile(world.store, world.gateway, NOON + 5 * MINUTE, since=NOON + 4 * MINUTE)
    assert asked == [NOON + 4 * MINUTE]
    assert [d.run_id for d in report.repaired] == [lost.id]  # what is open here is looked at whatever its age
    assert world.store.get_setting("reconcile_checkpoint") == NOON.isoformat()


def test_who_asks_for_a_run_writes_its_row(world: World) -> None:
    """An event may come before the service has written down who asked; later the row is missing indeed."""
    run_id = world.in_prefect("SCHEDULED", tags=("origin:manual",), age=timedelta(seconds=1))
    reconcile(world.store, world.gateway, NOON)
    assert world.store.find_run(run_id) is None
    reconcile(world.store, world.gateway, NOON + MINUTE)
    assert world.store.get_run(run_id).origin is Origin.MANUAL


def test_of_a_run_under_way_only_the_end_is_taken_over(world: World) -> None:
    deployments = {world.deployment["id"]: world.gateway.deployments_with_flow("taskcenter")[0]}
    run_id = world.in_prefect("RUNNING")
    world.row(RunStatus.QUEUED, id=run_id, phase=RunPhase.SCHEDULED)
    reconcile_runs(world.store, world.gateway, [run_id], deployments, NOON, under_way={run_id})
    assert world.store.get_run(run_id).status is RunStatus.QUEUED
    world.put(run_id, "CANCELLED")
    reconcile_runs(world.store, world.gateway, [run_id, "deleted"], deployments, NOON, under_way={run_id})
    assert world.store.get_run(run_id).status is RunStatus.CANCELLED
    reconcile_runs(world.store, world.gateway, [world.in_prefect("RUNNING")], deployments, NOON)
    assert len(world.store.list_runs().items) == 2


def test_what_was_left_open_in_prefect_is_ended_there_and_what_was_begun_again_is_not(world: World) -> None:
    """Prefect's button Retry begins a run anew under its id: nobody may end it because it has ended before."""
    left, again = world.in_prefect("RUNNING"), world.in_prefect("RUNNING")
    for run_id, seconds in ((left, -40), (again, -20)):
        world.row(RunStatus.FAILED, id=run_id, finished_at=NOON - timedelta(seconds=30))
        world.gateway.runs[run_id]["state"] = {"timestamp": (NOON + timedelta(seconds=seconds)).isoformat()}
    report = reconcile(world.store, world.gateway, NOON)
    assert [(d.run_id, d.repaired, d.exception is None) for d in report.differences] == [
        (left, True, True), (again, False, False),
    ]  # fmt: skip
    assert [world.gateway.runs[run_id]["state_type"] for run_id in (left, again)] == ["FAILED", "RUNNING"]


def test_a_late_report_goes_before_what_was_believed(world: World) -> None:
    """The run's process could not write the end of its steps in time; it told Prefect that all was well."""
    run_id = world.in_prefect("COMPLETED")
    world.row(id=run_id)
    step = StepRun(run_id=run_id, step_key="a", task_type="wait", status=StepStatus.RUNNING)
    world.store.record(Changes(steps=(step, step.model_copy(update={"step_key": "b", "status": StepStatus.PENDING}))))
    reconcile(world.store, world.gateway, NOON)
    assert [s.status for s in world.store.list_steps(run_id)] == [StepStatus.FAILED, StepStatus.SKIPPED]
    done = step.model_copy(update={"status": StepStatus.SUCCESS, "finished_at": NOON})
    world.store.record(Changes(steps=(done, done.model_copy(update={"step_key": "b"}))))
    late = world.store.list_steps(run_id)
    assert [(s.status, s.error, s.error_type, s.reason) for s in late] == [(StepStatus.SUCCESS, None, None, None)] * 2
    reconcile(world.store, world.gateway, NOON + MINUTE)
    assert world.store.list_steps(run_id) == late


def test_a_run_tells_its_beginning_and_its_end_once(world: World) -> None:
    run = world.row(started_at=NOON)
    for at in (NOON, NOON + MINUTE):
        world.store.record(Changes(events=(run_started(run, at), run_finished(run, at))))
    assert world.events() == [("task_run_started", run.id), ("task_run_finished", run.id)]


# the spool -------------------------------------------------------------------------------------------


def lines(run: Run, *numbers: int) -> tuple[LogLine, ...]:
    return tuple(LogLine(run_id=run.id, sequence=n, time=NOON, level="info", message=f"line {n}") for n in numbers)


def test_what_was_spooled_is_written_once_and_in_order(world: World, tmp_path: Path) -> None:
    run = world.row()
    spool(tmp_path, run.id, Changes(logs=lines(run, 2, 3)))
    spool(tmp_path, run.id, Changes(logs=lines(run, 0, 1, 2), events=(run_finished(run, NOON),)))
    spool(tmp_path, "another", Changes(runs=(run.model_copy(update={"id": "another"}),)))
    assert replay_spool(world.store, tmp_path, run.id) == 2
    assert [line.sequence for line in world.store.list_logs(run.id)] == [0, 1, 2, 3]
    assert replay_spool(world.store, tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_one_bad_file_does_not_keep_the_others(world: World, tmp_path: Path) -> None:
    run = world.row()
    (tmp_path / "0-half.json").write_text('{"runs": [')
    (tmp_path / "1-other.json").write_text(json.dumps({"runs": 5}))
    gone = Run(id="gone", task_id="deleted", task_slug="x", task_type="wait", created_at=NOON)
    spool(tmp_path, run.id, Changes(runs=(gone,), logs=lines(run, 0)))
    assert replay_spool(world.store, tmp_path) == 1
    assert [line.message for line in world.store.list_logs(run.id)] == ["line 0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-half.damaged", "1-other.damaged"]


def test_a_file_stays_while_the_database_is_away(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = world.row()
    spool(tmp_path, run.id, Changes(logs=lines(run, 0)))
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "record", away)
        with pytest.raises(ServerAway):
            replay_spool(world.store, tmp_path)
    assert replay_spool(world.store, tmp_path) == 1


def away(*args: object) -> None:
    raise ServerAway("it does not answer")


# the recorder ----------------------------------------------------------------------------------------


@pytest.fixture
def recording(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Recorder]:
    monkeypatch.setattr(recorder_module, "_PATIENCE", 0.3)
    monkeypatch.setattr(recorder_module, "_STUCK", 0.1)
    return lambda: Recorder(world.store, world.row(), spool=tmp_path, now=lambda: NOON)


def test_a_database_that_hangs_does_not_take_the_record_with_it(
    world: World, recording: Callable[[], Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, back, write = recording(), threading.Event(), world.store.record

    def hang(changes: Changes) -> None:
        back.wait(20)
        write(changes)

    monkeypatch.setattr(world.store, "record", hang)
    recorder.log("info", "before")
    recorder.set_run(event=OutboxEvent(name="a", payload={"runId": "b"}, created_at=NOON))
    recorder.close()
    assert len(list(tmp_path.glob("*.json"))) == 1
    back.set()
    recorder._thread.join(10)
    assert replay_spool(world.store, tmp_path) == 1
    assert [line.message for line in world.store.list_logs(recorder.run.id)] == ["before"]
    assert len(world.events()) == 1


def test_nothing_is_dropped_when_the_database_goes_amid_a_refused_report(
    world: World, recording: Callable[[], Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, write, calls = recording(), world.store.record, []

    def record(changes: Changes) -> None:
        calls.append(changes)
        if len(calls) in (2, 3, 4):  # the report is refused as a whole, and then, row by row, nobody answers
            raise ServerAway("it does not answer")
        write(changes)

    monkeypatch.setattr(world.store, "record", record)
    gone = recorder.run.model_copy(update={"id": "gone", "task_id": "deleted"})
    with recorder._wake:
        recorder._runs["gone"] = gone
    recorder.log("info", "one")
    recorder.log("info", "two")
    assert recorder.flush(10)
    recorder.close()
    assert [line.message for line in world.store.list_logs(recorder.run.id)] == ["one", "two"]


def test_a_defect_leaves_the_report_in_the_spool(
    world: World, recording: Callable[[], Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = recording()
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "record", lambda changes: 1 / 0)
        recorder.log("info", "one")
        assert recorder.flush(10)
    recorder.log("info", "two")
    recorder.close()
    assert replay_spool(world.store, tmp_path) == 1
    assert [line.message for line in world.store.list_logs(recorder.run.id)] == ["one", "two"]
