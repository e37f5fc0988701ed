"""The road a newcomer walks, in real processes: start, plan, run, watch, explain, stop."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import httpx

from taskcenter_adapter.postgres import remove_cluster
from tests.acceptance.conftest import ROOT, Started, clean_env, left_running, start_center, stop_center

CRON = "every-minute"


def test_a_minute_trigger_is_made(up: Started) -> None:
    """Made first, judged last: it fires unattended while the other tests run."""
    done = up.taskcenter("task", "create", "--name", CRON, "--type", "shell", "--set", 'command=["echo", "tick"]',
                         "--cron", "* * * * *")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "next run" in done.stdout


def test_prefect_deployment_run_from_a_second_shell(up: Started) -> None:
    done = up.shell("prefect", "deployment", "run", "composite/nightly-sales", "--watch")
    assert done.returncode == 0, done.stdout + done.stderr
    run = up.json("runs", "list", "--task", "nightly-sales", "--limit", "1")["items"][0]
    assert (run["status"], run["origin"]) == ("success", "prefect")
    shown = up.json("runs", "show", run["id"])
    assert {s["stepKey"]: s["status"] for s in shown["steps"]} == {
        "snapshot_counts": "success",
        "copy_daily_sales": "success",
        "check_totals": "success",
        "alarm": "skipped",
    }
    logs = up.taskcenter("runs", "logs", run["id"])
    assert "step copy_daily_sales succeeded" in logs.stdout
    audit = up.api(f"/api/audit?run={run['id']}")
    assert {"run_started", "run_finished"} <= {entry["eventType"] for entry in audit["items"]}


def test_a_dry_run_from_prefect_writes_no_step(up: Started) -> None:
    done = up.shell("prefect", "deployment", "run", "composite/nightly-sales", "-p", "dry_run=true", "--watch")
    assert done.returncode == 0, done.stdout + done.stderr
    run = up.json("runs", "list", "--task", "nightly-sales", "--limit", "1")["items"][0]
    assert run["dryRun"] is True
    assert up.json("runs", "show", run["id"])["steps"] == []


def test_prefect_deploy_all_and_both_spellings(up: Started) -> None:
    done = up.shell("prefect", "--no-prompt", "deploy", "--all", timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    api = up.state["prefectApiUrl"]
    known = httpx.get(f"{api}/deployments/name/composite/nightly-sales").json()
    assert known["entrypoint"] == "flows.composite.composite"
    body = {key: known[key] for key in ("flow_id", "parameters", "parameter_openapi_schema", "work_pool_name")}
    by_path = {**body, "name": "by-path", "entrypoint": "flows/composite.py:composite", "path": str(ROOT)}
    assert httpx.post(f"{api}/deployments/", json=by_path).status_code == 201
    for name in ("nightly-sales", "by-path"):
        done = up.shell("prefect", "deployment", "run", f"composite/{name}", "--watch")
        assert done.returncode == 0, done.stdout + done.stderr
    assert up.taskcenter("publish", "--check").returncode == 0


def test_a_run_that_fails_says_why_and_can_be_resumed(up: Started) -> None:
    failed = up.taskcenter("run", "fails-midway")
    assert failed.returncode == 1
    assert "no_such_table" in failed.stdout
    run = up.json("runs", "list", "--task", "fails-midway", "--limit", "1")["items"][0]
    shown = {s["stepKey"]: s for s in up.json("runs", "show", run["id"])["steps"]}
    assert shown["publish"]["status"] == "skipped"
    assert "load ended failed" in shown["publish"]["reason"]
    assert shown["clean_up"]["status"] == "success"
    again = up.taskcenter("run", "fails-midway", "--resume", run["id"], "--set", "table=orders")
    assert again.returncode == 0, again.stdout + again.stderr
    resumed = up.json("runs", "list", "--task", "fails-midway", "--limit", "1")["items"][0]
    steps = {s["stepKey"]: s for s in up.json("runs", "show", resumed["id"])["steps"]}
    assert steps["extract"]["reused"] is True
    assert (resumed["origin"], resumed["resumedFrom"]) == ("resume", run["id"])


def test_a_plan_that_changed_is_refused_with_the_difference(up: Started) -> None:
    graph = {"name": "changing", "taskType": "composite", "graph": {
        "steps": [{"stepKey": "a", "taskType": "shell", "payload": {"command": ["true"]}}], "edges": []}}  # fmt: skip
    file = up.home.parent / "changing.json"
    file.write_text(json.dumps(graph))
    assert up.taskcenter("task", "create", str(file)).returncode == 0
    plan = up.json("plan", "changing")
    graph["graph"]["steps"][0]["payload"]["command"] = ["echo", "new"]  # type: ignore[index]
    file.write_text(json.dumps({"schemaVersion": 1, "tasks": [graph]}))
    changed = up.taskcenter("task", "import", str(file), "--apply")
    assert changed.returncode == 0, changed.stderr
    refused = up.taskcenter("run", "changing", "--plan", plan["planHash"])
    assert refused.returncode == 4
    assert "step a changed in payload" in refused.stderr
    assert up.json("runs", "list", "--task", "changing")["items"] == []


def test_the_service_refuses_a_foreign_host(up: Started) -> None:
    url = up.state["serviceUrl"]
    assert httpx.get(f"{url}/api/health").json()["status"] == "ok"
    assert httpx.get(f"{url}/api/health", headers={"Host": "evil.example"}).status_code in (400, 421)


def test_bad_input_ends_with_a_sentence_and_stores_nothing(up: Started) -> None:
    before = len(up.json("task", "list")["items"])
    cases = [
        (("task", "create", "--name", "x", "--type", "no_such"), 2, "no task type"),
        (("task", "create", "--name", "x", "--type", "shell", "--set", "nope=1"), 2, "nope"),
        (
            ("task", "create", "--name", "x", "--type", "shell", "--set", 'command=["a"]', "--cron", "0 0 30 2 *"),
            2,
            "never",
        ),
        (("task", "show", "nobody"), 3, "no task"),
        (("run", "nobody"), 3, "no task"),
        (("run", "nightly-sales", "--skip", "nobody"), 2, "nobody"),
        (("runs", "show", "ffffffff"), 3, "no run"),
        (("composite", "plan", "/no/such/file.py"), 3, "no file"),
    ]
    for argv, code, words in cases:
        done = up.taskcenter(*argv)
        assert done.returncode == code, (argv, done.stdout, done.stderr)
        assert words in done.stderr, (argv, done.stderr)
        assert "Traceback" not in done.stdout + done.stderr
    assert len(up.json("task", "list")["items"]) == before


def test_a_missing_connection_and_a_wrong_password_are_sentences(up: Started) -> None:
    name = "no-connection"
    up.taskcenter("task", "create", "--name", name, "--type", "sql_script", "--set", "connection=nowhere",
                  "--set", "sql=select 1")  # fmt: skip
    done = up.taskcenter("run", name)
    assert done.returncode == 1
    assert "there is no connection 'nowhere'" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_second_center_on_the_same_home_is_refused(up: Started) -> None:
    done = up.taskcenter("up", "--port", "0", "--prefect-port", "0", timeout=30)
    assert done.returncode == 4
    assert "running for" in done.stderr
    assert "already" in done.stderr


def test_a_taken_port_is_named(up: Started, tmp_path: Path) -> None:
    port = up.state["serviceUrl"].rsplit(":", 1)[1]
    done = up.taskcenter("up", "--port", port, "--prefect-port", "0", timeout=30, TASKCENTER_HOME=str(tmp_path / "h"))
    assert done.returncode == 2
    assert f"port {port}" in done.stderr
    assert "--port" in done.stderr


def test_the_demo_ends_by_itself_and_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    begin = time.monotonic()
    done = subprocess.run(
        ["taskcenter", "demo", "--once"], env=clean_env(TASKCENTER_HOME=str(home)), cwd=ROOT,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("The plan of nightly-sales", "The run", "Its result", "Prefect UI", "prefect deployment run"):
        assert words in done.stdout
    took = float(done.stdout.split("first finished run: ")[1].split(" s")[0])
    assert took < 30, f"{took} s of {time.monotonic() - begin:.0f} s"
    assert left_running(home) == []
    remove_cluster(home)


def test_stopping_ends_what_runs_and_the_next_start_knows(tmp_path: Path) -> None:
    """Stopped by a signal, and killed: in both cases no run is left running for ever."""
    home = tmp_path / "stopped"
    started = start_center(home)
    data = {
        "name": "long",
        "taskType": "composite",
        "graph": {
            "steps": [{"stepKey": "nap", "taskType": "shell", "payload": {"command": ["sleep", "90"]}}],
            "edges": [],
        },
    }
    (tmp_path / "long.json").write_text(json.dumps(data))
    assert started.taskcenter("task", "create", str(tmp_path / "long.json")).returncode == 0
    first = running_step(started)
    refused = started.taskcenter("task", "delete", "long", "--yes")
    assert (refused.returncode, "not over" in refused.stderr) == (4, True)
    started.process.send_signal(signal.SIGTERM)
    assert started.process.wait(60) == 0
    started = start_center(home)
    assert_closed(started, first)
    second = running_step(started)
    started.process.kill()
    started.process.wait(10)
    time.sleep(3)
    started = start_center(home)
    assert_closed(started, second)
    assert started.taskcenter("reconcile", "--check").returncode == 0
    assert stop_center(started) == 0
    assert left_running(home) == []


def running_step(started: Started) -> str:
    """Start the long composite and wait until its step runs; the id of the run."""
    done = started.taskcenter("run", "long", "--detach", "-q")
    run_id = done.stdout.strip()
    end = time.monotonic() + 30
    while [s["status"] for s in started.json("runs", "show", run_id)["steps"]] != ["running"]:
        assert time.monotonic() < end
        time.sleep(0.3)
    return run_id


def assert_closed(started: Started, run_id: str) -> None:
    end = time.monotonic() + 40
    while True:
        run = started.json("runs", "show", run_id)
        if run["status"] != "running":
            break
        assert time.monotonic() < end, run
        time.sleep(0.5)
    assert run["status"] in ("failed", "cancelled")
    assert [s["status"] for s in run["steps"]] in (["failed"], ["skipped"])


def test_sqlite_works_and_says_what_it_costs(tmp_path: Path) -> None:
    started = start_center(tmp_path / "lite", "--database", "sqlite")
    try:
        assert "SQLite" in started.output.read_text()
        assert started.taskcenter("run", "maintenance").returncode == 0
        assert started.taskcenter("reconcile", "--check").returncode == 0
    finally:
        assert stop_center(started) == 0
    assert left_running(tmp_path / "lite") == []


def test_zz_the_minute_trigger_fired_on_time_three_times(up: Started) -> None:
    """Within 2 s of its slot, three slots in a row, with nobody at the keyboard."""
    end = time.monotonic() + 240
    while True:
        runs = [r for r in up.json("runs", "list", "--task", CRON)["items"] if r["status"] == "success"]
        if len(runs) >= 3:
            break
        assert time.monotonic() < end, runs
        time.sleep(2)
    runs.sort(key=lambda r: r["slot"])
    slots = [datetime.fromisoformat(r["slot"]) for r in runs[-3:]]
    for run, slot in zip(runs[-3:], slots, strict=True):
        late = (datetime.fromisoformat(run["startedAt"]) - slot).total_seconds()
        assert 0 <= late <= 2, (run["slot"], late)
        assert run["origin"] == "scheduler"
        assert run["triggerId"]
    assert [(b - a).total_seconds() for a, b in pairwise(slots)] == [60, 60]


def test_zzz_everything_agrees_and_stops_without_a_trace(up: Started) -> None:
    assert up.taskcenter("reconcile", "--check").returncode == 0
    assert stop_center(up) == 0
    assert "stopped" in up.output.read_text()
    assert left_running(up.home) == []
    gone = up.taskcenter("task", "list")
    assert gone.returncode == 5
    assert "taskcenter up" in gone.stderr
