"""``taskcenter task``, ``publish`` and ``reconcile`` on a center in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from taskcenter.models import Task
from taskcenter_console.cli import cli
from taskcenter_console.commands import common
from taskcenter_console.services.center import Center
from tests.fakes import FakeGateway, fake_center


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
def center(home: Path, tmp_path: Path, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> Center:
    made = fake_center(tmp_path, gateway)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(common, "open_center", lambda: made)
    monkeypatch.setattr(common, "center_if_running", lambda: made)
    return made


def invoke(*args: str, **options: Any) -> Result:
    return CliRunner().invoke(cli, list(args), prog_name="taskcenter", **options)


def data_of(*args: str, **options: Any) -> Any:
    result = invoke(*args, "--json", **options)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def pause(name: str = "A pause", *more: str) -> Any:
    return data_of("task", "create", "--name", name, "--type", "wait", "--set", "seconds=1", *more)


def test_create_from_options(center: Center, gateway: FakeGateway) -> None:
    made = pause("Ünser Bericht 日本", "--slug", "report", "--tag", "A", "--tag", "b", "--owner", "Zoë",
                 "--cron", "0 6 * * 1-5", "--timezone", "Europe/Berlin", "--every", "60")  # fmt: skip
    assert (made["slug"], made["name"], made["tags"], made["owner"]) == (
        "report",
        "Ünser Bericht 日本",
        ["a", "b"],
        "Zoë",
    )
    assert [t["type"] for t in made["triggers"]] == ["cron", "interval"]
    assert made["triggers"][0]["timezone"] == "Europe/Berlin"
    assert made["nextRunAt"]
    assert "wait/report" in gateway.deployments
    assert center.store.list_audit(task_id=made["id"])[0].channel == "cli"
    assert invoke("task", "create", "--name", "x", "--type", "wait", "--set", "seconds=1", "-q").stdout == "x\n"


def test_create_once_at_a_time_of_a_zone(center: Center) -> None:
    made = pause("once", "--at", "2999-01-31T06:30", "--timezone", "Europe/Berlin")
    assert made["triggers"][0]["runAt"].startswith("2999-01-31T05:30")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.json", '{"name": "Nap", "taskType": "wait", "payload": {"seconds": 5}}'),
        ("t.json", '[{"name": "Nap", "task_type": "wait", "payload": {"seconds": 5}}]'),
        ("t.yaml", "name: Nap\ntaskType: wait\npayload:\n  seconds: 5\n"),
        ("-", '\ufeff{"name": "Nap", "taskType": "wait", "payload": {"seconds": 5}}'),
    ],
)
def test_create_from_a_file_and_options_win(center: Center, name: str, text: str) -> None:
    if name != "-":
        Path(name).write_text(text)
    made = data_of("task", "create", name, "--set", "seconds=7", "--name", "Other", input=text)
    assert (made["name"], made["payload"]) == ("Other", {"seconds": 7})


def test_create_from_a_composite_in_python_and_in_json(center: Center) -> None:
    Path("c.py").write_text(
        "from composites import Composite\nc = Composite('py-one')\nc.step('a', 'wait', seconds=0)\n"
    )
    Path("c.json").write_text(
        '{"steps": [{"stepKey": "a", "taskType": "wait", "payload": {"seconds": 0}}], "maxParallel": 2}'
    )
    assert data_of("task", "create", "c.py")["taskType"] == "composite"
    made = data_of("task", "create", "c.json", "--name", "js-one")
    assert (made["slug"], made["graph"]["maxParallel"]) == ("js-one", 2)
    assert "py-one" in invoke("composite", "list").stdout
    assert "saved, revision 1" in invoke("composite", "list").stdout
    assert data_of("composite", "plan", "js-one")["revision"] == 1
    assert invoke("composite", "check", "js-one").exit_code == 0


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("--name", "x", "--type", "nope"), 2, "there is no task type 'nope'; known:"),
        (("--name", "x"), 2, "taskType"),
        (("--type", "wait"), 2, "name"),
        (("--name", "日本", "--type", "wait"), 2, "give a slug of your own"),
        (("--name", "x", "--type", "wait", "--payload", "{"), 2, "--payload has 1 problem"),
        (("--name", "x", "--type", "wait", "--payload", "[1]"), 2, "must be a JSON object, not a list"),
        (("--name", "x", "--type", "wait", "--payload-file", "none.json"), 3, "there is no file none.json"),
        (("--name", "x", "--type", "wait", "--set", "seconds"), 2, "seconds: must be KEY=VALUE"),
        (("none.json",), 3, "there is no file none.json"),
        (("--name", "x", "--type", "wait", "--set", "seconds=1", "--cron", "61 * * * *"), 2, "triggers[0]"),
        (("--name", "x", "--type", "wait", "--set", "seconds=1", "--at", "tomorrow"), 2, "runAt"),
        (("--name", "x", "--type", "wait", "--set", "seconds=1", "--every", "-5"), 2, "triggers[0]"),
        (("--name", "x", "--type", "wait", "--set", "seconds=1", "--cron", "* * * * *", "--timezone", "Mars/X"), 2,
         "timezone"),
        (("--name", "x", "--type", "wait", "--set", "seconds=1", "--priority", "urgent"), 2, "priority"),
    ],
)  # fmt: skip
def test_bad_input_is_a_sentence_and_nothing_is_stored(
    center: Center, gateway: FakeGateway, args: tuple[str, ...], code: int, says: str
) -> None:
    result = invoke("task", "create", *args)
    assert result.exit_code == code, result.output
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert data_of("task", "list") == {"items": []}
    assert gateway.deployments == {}
    assert center.store.list_audit() == [] or not list(center.store.list_audit())


def test_a_payload_with_three_errors_shows_three_lines(center: Center) -> None:
    sets = ["--set", "fetch=many", "--set", "colour=red"]
    result = invoke("task", "create", "--name", "x", "--type", "sql_script", "--set", "sql=select 1", *sets, "--json")
    problems = json.loads(result.stderr)["error"]["problems"]
    assert {p["path"] for p in problems} == {"payload.connection", "payload.fetch", "payload.colour"}


def test_the_same_name_twice_is_a_conflict(center: Center) -> None:
    pause()
    result = invoke("task", "create", "--name", "A pause", "--type", "wait", "--set", "seconds=1")
    assert result.exit_code == 4
    assert "a-pause" in result.stderr


def test_required_fields_are_asked_for_on_a_terminal_only(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ("task", "create", "--name", "x", "--type", "http")
    assert invoke(*args).exit_code == 2
    monkeypatch.setattr(common, "can_ask", lambda out: True)
    result = invoke(*args, input="https://example.org/\n")
    assert result.exit_code == 0, result.stderr
    assert "url" in result.stderr
    assert data_of("task", "show", "x")["payload"] == {"url": "https://example.org/"}


def test_edit_changes_only_what_is_given(center: Center) -> None:
    pause("A pause", "--tag", "x", "--every", "60")
    made = data_of("task", "edit", "a-pause", "--set", "seconds=9", "--description", "longer")
    assert (made["payload"], made["description"], made["tags"], made["revision"]) == (
        {"seconds": 9},
        "longer",
        ["x"],
        2,
    )
    assert [t["type"] for t in made["triggers"]] == ["interval"]
    assert data_of("task", "edit", "a-pause", "--no-triggers")["triggers"] == []
    assert data_of("task", "edit", "wait/a-pause", "--name", "New name")["slug"] == "a-pause"
    assert invoke("task", "edit", "a-pause").exit_code == 2
    assert invoke("task", "edit", "nope", "--name", "x").exit_code == 3
    bad = invoke("task", "edit", "a-pause", "--set", "seconds=-1")
    assert bad.exit_code == 2
    assert data_of("task", "show", "a-pause")["payload"] == {"seconds": 9}


def test_enable_pause_disable(center: Center) -> None:
    pause("A pause", "--every", "60")
    for command, status in [("pause", "paused"), ("disable", "disabled"), ("enable", "active")]:
        assert data_of("task", command, "a-pause")["status"] == status
    assert len(data_of("task", "show", "a-pause")["triggers"]) == 1
    invoke("task", "disable", "a-pause")
    refused = invoke("task", "edit", "a-pause", "--cron", "* * * * *")
    assert refused.exit_code == 2
    assert "a disabled task takes no trigger" in refused.stderr


def test_list_filters_and_columns(center: Center) -> None:
    pause("alpha", "--tag", "red")
    pause("beta", "--owner", "joe", "--every", "60")
    assert invoke("task", "list", "-q").stdout == "alpha\nbeta\n"
    assert invoke("task", "list", "--tag", "red", "-q").stdout == "alpha\n"
    assert invoke("task", "list", "--owner", "joe", "-q").stdout == "beta\n"
    assert invoke("task", "list", "--search", "ALPH", "-q").stdout == "alpha\n"
    assert invoke("task", "list", "--limit", "1", "-q").stdout == "alpha\n"
    assert "● active" in invoke("task", "list").stdout
    assert "\t" not in invoke("task", "list").stdout
    assert "\x1b" not in invoke("task", "list").stdout
    assert invoke("task", "list", "--status", "odd").exit_code == 2
    assert "no tasks" in invoke("task", "list", "--status", "paused").stderr


def test_a_secret_in_clear_is_refused(center: Center) -> None:
    made = ("task", "create", "--name", "call", "--type", "http", "--set", "url=https://example.org")
    refused = invoke(*made, "--set", "headers.Authorization=Bearer abcdefghijklmnop")
    assert refused.exit_code == 2
    assert "payload.headers.Authorization" in refused.stderr
    assert "abcdefghijklmnop" not in refused.output
    assert center.store.find_task("call") is None


def test_show_hides_secrets(center: Center) -> None:
    """Even of a task that another program wrote into the database."""
    headers = {"url": "https://example.org", "headers": {"Authorization": "Bearer abcdefghijklmnop"}}
    center.store.save_task(Task(name="call", task_type="http", payload=headers))
    text = invoke("task", "show", "call").stdout
    assert "https://example.org" in text
    assert "abcdefghijklmnop" not in text


def test_delete_asks_or_wants_yes(center: Center, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    pause()
    refused = invoke("task", "delete", "a-pause")
    assert refused.exit_code == 4
    assert "--yes" in refused.stderr
    with monkeypatch.context() as patch:
        patch.setattr(common, "can_ask", lambda out: True)
        assert invoke("task", "delete", "a-pause", input="n\n").exit_code == 130
    assert data_of("task", "delete", "a-pause", "--yes")["deleted"] == "a-pause"
    assert gateway.deployments == {}
    assert invoke("task", "delete", "a-pause", "--yes").exit_code == 3


def test_delete_without_prefect_deletes_nothing(center: Center, gateway: FakeGateway) -> None:
    pause()
    gateway.away = True
    assert invoke("task", "delete", "a-pause", "--yes").exit_code == 5
    assert invoke("task", "list", "-q").stdout == "a-pause\n"


def test_export_and_import_are_a_round_trip(center: Center, tmp_path: Path) -> None:
    pause("alpha", "--every", "60")
    pause("beta")
    invoke("task", "disable", "alpha")
    assert data_of("task", "export", "-o", "all.json") == {"file": "all.json", "tasks": 2}
    assert json.loads(invoke("task", "export", "beta").stdout)["tasks"][0]["slug"] == "beta"
    same = data_of("task", "import", "all.json")
    assert [item["kind"] for item in same["items"]] == ["same", "same"]
    invoke("task", "delete", "alpha", "--yes")
    preview = invoke("task", "import", "all.json")
    assert preview.exit_code == 0
    assert "+ create" in preview.stdout
    assert "--apply" in preview.stdout
    assert invoke("task", "list", "-q").stdout == "beta\n"
    assert data_of("task", "import", "all.json", "--apply")["applied"] is True
    assert data_of("task", "show", "alpha")["status"] == "disabled"
    assert not list(tmp_path.glob(".all*"))


def test_an_import_with_one_bad_task_stores_none(center: Center) -> None:
    Path("x.json").write_text(json.dumps({"tasks": [
        {"name": "good", "taskType": "wait", "payload": {"seconds": 1}}, {"name": "bad", "taskType": "nope"}, 5,
    ]}))  # fmt: skip
    result = invoke("task", "import", "x.json", "--apply")
    assert result.exit_code == 2
    assert "2 of 3 are refused; nothing was stored" in result.stdout
    assert data_of("task", "list") == {"items": []}
    for text in ('{"tasks": 5}', '{"schemaVersion": 9, "tasks": []}', "5", "{"):
        Path("x.json").write_text(text)
        assert invoke("task", "import", "x.json").exit_code == 2


def test_export_to_a_place_that_cannot_be_written(center: Center) -> None:
    result = invoke("task", "export", "-o", "/no/such/folder/x.json")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


def test_types(center: Center) -> None:
    rows = data_of("task", "types")["items"]
    assert {"sql_script", "shell", "http"} <= {row["key"] for row in rows}
    text = invoke("task", "types", "sql_script").stdout
    assert "connection" in text
    assert "required" in text
    assert "connection" in data_of("task", "types", "sql_script")["schema"]["properties"]
    assert invoke("task", "types", "nope").exit_code == 3


def test_publish_says_the_difference_first(center: Center, gateway: FakeGateway) -> None:
    (center.settings.project / "composites").mkdir(parents=True)
    file = center.settings.project / "composites" / "one.py"
    file.write_text("from composites import Composite\nc = Composite('mine')\nc.step('a', 'wait', seconds=0)\n")
    check = invoke("publish", "--check")
    assert check.exit_code == 1
    assert "save   composite mine" in check.stdout
    assert center.store.list_tasks() == [] or not list(center.store.list_tasks())
    assert gateway.deployments == {}
    assert invoke("publish").exit_code == 0
    assert "composite/mine" in gateway.deployments
    again = data_of("publish", "--check")
    assert (again["differs"], again["adopted"]) == (False, [])
    gateway.deployments["composite/mine"]["description"] = "changed by hand"
    assert "description: changed by hand" in invoke("publish", "--check").stdout
    file.write_text("nonsense(")
    assert invoke("publish", "--check").exit_code == 2
    gateway.away = True
    assert invoke("publish").exit_code == 5


def test_reconcile_reports_open_differences(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    from taskcenter_adapter import reconcile as adapter

    report = adapter.Report(runs=2, steps=3)
    monkeypatch.setattr(adapter, "check", lambda *_: report)
    assert invoke("reconcile", "--check").exit_code == 0
    report.differences.append(adapter.Difference("abcdefgh-1", "status", "running", "completed"))
    report.differences.append(adapter.Difference("abcdefgh-2", "run", "success", "absent", exception="deleted there"))
    result = invoke("reconcile", "--check")
    assert result.exit_code == 1
    assert "✗ run abcdefgh: status: ours running, Prefect completed" in result.stdout
    assert "1 open differences" in result.stdout
    data = json.loads(invoke("reconcile", "--check", "--json").stdout)
    assert (data["open"], data["differences"][1]["exception"]) == (1, "deleted there")
