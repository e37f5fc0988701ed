"""Composites and saved tasks through a real Prefect server: rows equal states, dry runs write no step."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from composites import Composite
from flows.composite import composite
from flows.run_task import shell
from taskcenter.clock import utc_now
from taskcenter.ports import RunFilter
from taskcenter.status import TERMINAL_STEP
from taskcenter_adapter.reconcile import check, reconcile
from taskcenter_console.services import tasks as task_service
from tests.integration.conftest import LiveCenter


def name_of(word: str) -> str:
    return f"{word}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def saved(live: LiveCenter) -> Callable[[Composite], str]:
    def save(graph: Composite) -> str:
        data = {"name": graph.name, "taskType": "composite", "graph": graph.to_dict()}
        return task_service.save(live.center, data, live.caller).slug

    return save


def run_flow(slug: str, **parameters: Any) -> Any:
    return asyncio.run(composite(task=slug, return_state=True, **parameters))


def last_run(live: LiveCenter, slug: str) -> Any:
    task = live.store.get_task(slug)
    return live.store.list_runs(RunFilter(task_id=task.id)).items[0]


def middle_fails(name: str) -> Composite:
    graph = Composite(name)
    first = graph.step("first", "shell", command=["echo", "one"])
    breaks = graph.step("breaks", "shell", command=["sh", "-c", "echo oh no; exit 3"])
    after = graph.step("after", "shell", command=["echo", "never"])
    first >> breaks >> after
    return graph


def test_a_composite_leaves_rows_logs_audit_and_events(live: LiveCenter, saved: Callable[[Composite], str]) -> None:
    graph = Composite(name_of("ok"))
    a = graph.step("a", "shell", command=["echo", "hello"])
    b = graph.step("b", "shell", command=["echo", "{{steps.a.stdoutTail}}"])
    a >> b
    slug = saved(graph)
    state = run_flow(slug)
    assert state.is_completed()
    run = last_run(live, slug)
    assert (run.status, run.origin, run.task_type) == ("success", "prefect", "composite")
    assert {s.step_key: s.status.value for s in live.store.list_steps(run.id)} == {"a": "success", "b": "success"}
    lines = [line.message for line in live.store.list_logs(run.id)]
    assert "hello" in lines
    assert any(line.startswith("step b succeeded") for line in lines)
    kinds = {entry.event_type for entry in live.store.list_audit(run_id=run.id)}
    assert {"run_started", "run_finished"} <= kinds
    told = [e.name for e in live.store.list_events(limit=2000) if e.payload.get("runId") == run.id]
    assert told == ["task_run_started", "task_run_finished"]


def test_a_failure_in_the_middle_is_never_hidden(live: LiveCenter, saved: Callable[[Composite], str]) -> None:
    slug = saved(middle_fails(name_of("middle")))
    state = run_flow(slug)
    assert state.is_failed()
    run = last_run(live, slug)
    steps = {s.step_key: s for s in live.store.list_steps(run.id)}
    assert [steps[k].status.value for k in ("first", "breaks", "after")] == ["success", "failed", "skipped"]
    assert "halted_by breaks" in str(steps["after"].reason)
    assert run.status == "failed"
    assert "first 'breaks'" in str(run.message)


def test_a_dry_run_gives_the_plan_and_writes_no_step(live: LiveCenter, saved: Callable[[Composite], str]) -> None:
    slug = saved(middle_fails(name_of("dry")))
    state = run_flow(slug, dry_run=True)
    assert state.is_completed()
    run = last_run(live, slug)
    assert run.dry_run
    assert live.store.list_steps(run.id) == []
    assert run.result["dryRun"] is True
    assert [step["stepKey"] for step in run.result["steps"]] == ["first", "breaks", "after"]
    assert run.plan_hash == run.result["planHash"]


def test_prefect_shows_every_step_by_its_key(live: LiveCenter, saved: Callable[[Composite], str]) -> None:
    slug = saved(middle_fails(name_of("shown")))
    run_flow(slug)
    run = last_run(live, slug)
    shown = {row["name"]: row["state_type"] for row in wait_for_task_runs(live, run.id, 2)}
    assert shown == {"first": "COMPLETED", "breaks": "FAILED"}
    assert check(live.store, live.gateway, utc_now()).open == []


def wait_for_task_runs(live: LiveCenter, run_id: str, count: int) -> list[dict[str, Any]]:
    end = time.monotonic() + 20
    while True:
        rows = live.gateway.task_runs(run_id)
        if len(rows) >= count and all(r["state_type"] in ("COMPLETED", "FAILED") for r in rows):
            return rows
        assert time.monotonic() < end, rows
        time.sleep(0.1)


def test_retries_and_their_count_are_in_the_row(live: LiveCenter, saved: Callable[[Composite], str]) -> None:
    graph = Composite(name_of("again"))
    graph.step("tries", "shell", command=["false"], retries=2, retry_backoff_ms=10)
    slug = saved(graph)
    assert run_flow(slug).is_failed()
    run = last_run(live, slug)
    [row] = live.store.list_steps(run.id)
    assert (row.status.value, row.attempts) == ("failed", 3)
    [shown] = wait_for_task_runs(live, run.id, 1)
    assert (shown["run_count"], shown["state_type"]) == (3, "FAILED")


def test_a_resumed_run_reuses_what_succeeded(live: LiveCenter, saved: Callable[[Composite], str]) -> None:
    graph = Composite(name_of("resume"), inputs={"code": "3"})
    first = graph.step("first", "shell", command=["echo", "one"])
    last = graph.step("last", "shell", command=["sh", "-c", "exit $0", "{{inputs.code}}"])
    first >> last
    slug = saved(graph)
    assert run_flow(slug).is_failed()
    failed = last_run(live, slug)
    assert run_flow(slug, payload={"code": "0"}, options={"resume": failed.id}).is_completed()
    again = last_run(live, slug)
    assert {s.step_key: s.reused for s in live.store.list_steps(again.id)} == {"first": True, "last": False}


def test_a_composite_in_a_composite_is_a_flow_run_below(live: LiveCenter, saved: Callable[[Composite], str]) -> None:
    inner = Composite(name_of("inner"))
    inner.step("deep", "shell", command=["echo", "deep"])
    inner_slug = saved(inner)
    outer = Composite(name_of("outer"))
    outer.step("nested", "composite", composite=inner_slug)
    slug = saved(outer)
    state = run_flow(slug)
    assert state.is_completed(), state.message
    assert last_run(live, inner_slug).status == "success"
    assert last_run(live, slug).status == "success"


def test_a_nested_composite_hands_up_its_counts_or_its_failure(
    live: LiveCenter, saved: Callable[[Composite], str]
) -> None:
    good = Composite(name_of("good"))
    good.step("deep", "shell", command=["echo", "deep"])
    bad = Composite(name_of("bad"))
    bad.step("deep", "shell", command=["false"])
    outer = Composite(name_of("both"), continue_on_error=True)
    a = outer.step("good", task=saved(good))
    b = outer.step("bad", task=saved(bad))
    count = outer.step("count", "shell", command=["echo", "{{steps.good.succeeded}} worked"], join="all_done")
    [a, b] >> count
    slug = saved(outer)
    assert run_flow(slug).is_failed()
    run = last_run(live, slug)
    steps = {s.step_key: s for s in live.store.list_steps(run.id)}
    assert (steps["good"].status.value, steps["bad"].status.value) == ("success", "failed")
    assert "first 'deep'" in str(steps["bad"].error)
    assert "1 worked" in [line.message for line in live.store.list_logs(run.id)]


def test_a_step_can_run_a_saved_task(live: LiveCenter, saved: Callable[[Composite], str]) -> None:
    name = name_of("saved")
    data = {"name": name, "taskType": "shell", "payload": {"command": ["echo", "kept"]}}
    task_service.save(live.center, data, live.caller)
    graph = Composite(name_of("uses"))
    graph.step("it", task=name, payload={"successExitCodes": [0]})
    slug = saved(graph)
    assert run_flow(slug).is_completed()
    assert "kept" in [line.message for line in live.store.list_logs(last_run(live, slug).id)]


def test_a_saved_task_runs_as_its_own_flow(live: LiveCenter) -> None:
    name = name_of("hello")
    task_service.save(
        live.center, {"name": name, "taskType": "shell", "payload": {"command": ["echo", "hi"]}}, live.caller
    )
    state = asyncio.run(shell(task=name, return_state=True))
    assert state.is_completed(), state.message
    run = last_run(live, name)
    assert run.result["exitCode"] == 0
    assert "hi" in [line.message for line in live.store.list_logs(run.id)]


def test_the_flow_of_a_composite_in_a_file_is_named_like_it(live: LiveCenter) -> None:
    graph = Composite(name_of("inert"))
    graph.step("one", "shell", command=["echo", "1"])
    flow = graph.to_flow()
    assert flow.name == graph.name
    assert asyncio.run(flow(return_state=True)).is_completed()


def test_a_secret_in_output_and_error_is_nowhere_in_clear(live: LiveCenter, saved: Callable[[Composite], str]) -> None:
    graph = Composite(name_of("redact"))
    graph.step("leaks", "shell", command=["sh", "-c", "echo password=hunter2hunter2 >&2; exit 1"])
    slug = saved(graph)
    state = run_flow(slug)
    run = last_run(live, slug)
    text = str([run, live.store.list_steps(run.id), live.store.list_logs(run.id), state.message])
    assert "REDACTED" in text
    assert "hunter2" not in text.replace(str(graph.to_dict()), "")


def test_unknown_tasks_and_bad_graphs_end_with_a_sentence(live: LiveCenter) -> None:
    state = run_flow("no-such-composite")
    assert state.is_failed()
    assert "no-such-composite" in str(state.message)
    assert "Traceback" not in str(state.message)


def test_a_hash_of_another_plan_is_refused(live: LiveCenter, saved: Callable[[Composite], str]) -> None:
    slug = saved(middle_fails(name_of("hash")))
    state = run_flow(slug, options={"plan_hash": "0" * 16})
    assert state.is_failed()
    assert "plan again" in str(state.message)
    assert live.store.list_steps(last_run(live, slug).id) == []


def test_the_environment_of_a_task_reaches_the_work_and_not_prefect(live: LiveCenter) -> None:
    name = name_of("environment")
    data = {
        "name": name,
        "taskType": "shell",
        "environment": {"GREETING": "bonjour"},
        "payload": {"command": ["sh", "-c", "echo $GREETING"]},
    }
    task = task_service.save(live.center, data, live.caller)
    assert asyncio.run(shell(task=name, return_state=True)).is_completed()
    run = last_run(live, name)
    assert "bonjour" in [line.message for line in live.store.list_logs(run.id)]
    deployed = live.gateway.find_deployment(task.deployment_name)
    assert "bonjour" not in str(deployed)


def test_a_resolved_secret_is_masked_wherever_it_would_be_kept(
    live: LiveCenter, saved: Callable[[Composite], str]
) -> None:
    from prefect.blocks.system import Secret

    value = f"Planted-{uuid.uuid4().hex}"
    Secret(value=value).save("planted", overwrite=True, _sync=True)  # type: ignore[call-arg]
    graph = Composite(name_of("masked"), continue_on_error=True)
    graph.step("prints", "shell", command=["sh", "-c", "echo $V"], environment={"V": '{{secret("planted")}}'})
    graph.step("gives", "python", code="result = {'kept': s}", kwargs={"s": {"secret": "planted"}})
    graph.step(
        "raises", "python", code="raise ExceptionGroup('g ' + s, [ValueError(s)])", kwargs={"s": {"secret": "planted"}}
    )
    slug = saved(graph)
    state = run_flow(slug)
    run = last_run(live, slug)
    ours = [run, live.store.list_steps(run.id), live.store.list_logs(run.id), live.store.list_audit(run_id=run.id)]
    ours.append([e for e in live.store.list_events(limit=2000) if e.payload.get("runId") == run.id])
    logs = httpx.post(f"{live.api_url}/logs/filter", json={"logs": {"flow_run_id": {"any_": [run.id]}}}).text
    theirs = [state.message, live.gateway.task_runs(run.id), live.gateway.find_run(run.id), logs]
    assert value not in str(ours)
    assert value not in str(theirs)
    assert "[REDACTED]" in str(ours)


def test_a_secret_is_not_put_into_a_command_line() -> None:
    graph = Composite("argv")
    graph.step("a", "shell", command=["echo", '{{secret("x")}}'])
    assert [problem.code for problem in graph.check()] == ["secret_in_argv"]


def test_a_halt_that_cancels_agrees_with_prefect(live: LiveCenter, saved: Callable[[Composite], str]) -> None:
    graph = Composite(name_of("halt"), halt_mode="cancel")
    graph.step("bad", "shell", command=["sh", "-c", "sleep 0.5; exit 1"])
    graph.step("longer", "shell", command=["sleep", "20"])
    slug = saved(graph)
    assert run_flow(slug).is_failed()
    run = last_run(live, slug)
    steps = {s.step_key: s for s in live.store.list_steps(run.id)}
    assert (steps["longer"].status.value, steps["longer"].attempts) == ("skipped", 1)
    end = time.monotonic() + 20
    while True:
        shown = {row["name"]: row["state_type"] for row in live.gateway.task_runs(run.id)}
        if shown == {"bad": "FAILED", "longer": "CANCELLED"}:
            break
        assert time.monotonic() < end, shown
        time.sleep(0.1)


def test_every_step_of_a_run_ends(live: LiveCenter) -> None:
    for run in live.store.list_runs(RunFilter(limit=200)).items:
        for step in live.store.list_steps(run.id):
            assert step.status in TERMINAL_STEP, (run.task_slug, step.step_key)


def test_the_reconciler_agrees_and_repeats_nothing(live: LiveCenter) -> None:
    reconcile(live.store, live.gateway, utc_now())
    again = reconcile(live.store, live.gateway, utc_now())
    assert [d for d in again.differences if d.repaired] == []
    assert again.open == []
    everything = check(live.store, live.gateway, utc_now())
    assert everything.open == []
    assert everything.runs >= 10
    assert everything.steps >= 10
