"""``taskcenter composite``, ``plan`` of files, and ``init``: no server anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from taskcenter.task_types import registry
from taskcenter_console.cli import cli

CATALOG = Path(__file__).parents[2] / "composites" / "catalog"
NIGHTLY = str(CATALOG / "nightly_sales.py")
TWO = """
print("a user's own file may print")
from composites import Composite
one, two = Composite("one"), Composite("two")
one.step("a", "wait", seconds=0)
two.step("a", "wait", seconds=0) >> two.step("b", "wait", seconds=1)
"""


@pytest.fixture(autouse=True)
def _project(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TASKCENTER_PROJECT", str(tmp_path / "project"))


def invoke(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args), prog_name="taskcenter")


def data_of(*args: str) -> Any:
    return json.loads(invoke(*args, "--json").stdout)


def write(name: str, text: str | bytes | dict[str, Any]) -> str:
    file = Path(name)
    content = json.dumps(text) if isinstance(text, dict) else text
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def test_the_catalogue_is_sound_and_listed() -> None:
    assert invoke("composite", "check", *map(str, CATALOG.glob("*.py"))).exit_code == 0
    names = [item["name"] for item in data_of("composite", "list")["items"]]
    assert "nightly-sales" in names
    assert invoke("composite", "list", "-q").stdout.split() == names
    assert "catalogue" in invoke("composite", "list").stdout


def test_plan_of_a_file_and_of_a_name_is_the_same() -> None:
    by_file, by_name = data_of("plan", NIGHTLY), data_of("composite", "plan", "nightly-sales")
    assert by_file == by_name
    assert list(by_file)[:4] == ["executor", "taskId", "name", "dryRun"]
    assert invoke("plan", NIGHTLY, "-q").stdout.strip() == by_file["planHash"]
    text = invoke("plan", NIGHTLY).stdout
    assert "4 steps in 4 waves" in text
    assert "only if: depends on" in text


@pytest.mark.parametrize(("form", "start"), [("mermaid", "flowchart"), ("dot", "digraph"), ("json", "{")])
def test_formats(form: str, start: str) -> None:
    assert invoke("plan", NIGHTLY, "--format", form).stdout.startswith(start)
    assert invoke("composite", "render", NIGHTLY, "--format", form).stdout.startswith(start)
    assert data_of("composite", "render", NIGHTLY)["format"] == "tree"


def test_show_names_what_each_step_waits_for() -> None:
    text = invoke("composite", "show", NIGHTLY).stdout
    assert "check_totals      sql_script  copy_daily_sales" in text
    assert data_of("composite", "show", NIGHTLY)["composite"]["name"] == "nightly-sales"


def test_choices_change_the_plan_and_its_hash() -> None:
    plain = data_of("plan", NIGHTLY)
    skipped = data_of("plan", NIGHTLY, "--skip", "copy_daily_sales")
    assert plain["planHash"] != skipped["planHash"]
    status = {step["stepKey"]: step["predicted"] for step in skipped["steps"]}
    assert status["copy_daily_sales"] == "skipped"
    changed = data_of("plan", NIGHTLY, "--set", "since=2026-02-03", "--step-set", "snapshot_counts.fetch=7")
    payload = changed["steps"][0]["resolvedPayload"]
    assert payload["parameters"]["since"] == "2026-02-03"
    assert payload["fetch"] == 7
    assert invoke("plan", NIGHTLY, "--plan", plain["planHash"]).exit_code == 0
    refused = invoke("plan", NIGHTLY, "--plan", plain["planHash"], "--skip", "alarm")
    assert refused.exit_code == 4
    assert "is not the plan of now" in refused.stderr


def test_an_unknown_step_is_named() -> None:
    result = invoke("plan", NIGHTLY, "--skip", "nope")
    assert result.exit_code == 2
    assert "there is no step 'nope'" in result.stderr


def test_a_file_with_two_composites() -> None:
    file = write("two.py", TWO)
    assert [item["name"] for item in data_of("composite", "check", file)["items"]] == ["one", "two"]
    result = invoke("plan", file)
    assert result.exit_code == 2
    assert "choose one with --name: one, two" in result.stderr
    assert data_of("plan", file, "--name", "two")["totalSteps"] == 2
    assert invoke("plan", file, "--name", "three").exit_code == 3


def test_what_a_file_prints_is_not_among_our_data() -> None:
    result = invoke("plan", write("two.py", TWO), "--name", "one", "--json")
    json.loads(result.stdout)
    assert "may print" in result.stderr


GOOD_STEP = {"stepKey": "a", "taskType": "wait", "payload": {"seconds": 0}}


@pytest.mark.parametrize(
    ("name", "text", "code", "says"),
    [
        ("gone.py", None, 3, "there is no file"),
        ("syntax.py", "def broken(:\n", 2, "line 1"),
        ("raises.py", "x = 1\nraise ValueError('no luck')\n", 2, "line 2: ValueError: no luck"),
        ("exits.py", "import sys\nsys.exit(3)\n", 2, "SystemExit"),
        ("empty.py", "", 2, "defines no Composite"),
        ("binary.py", b"\xff\xfe\x00", 2, "problem"),
        ("binary.json", b"\xff\xfe\x00", 2, "not UTF-8"),
        ("broken.json", "{", 2, "is not JSON"),
        ("list.json", "[1]", 2, "must be a JSON object"),
        ("none.json", "[]", 2, "no Composite"),
        ("field.json", {"name": "x", "stepz": []}, 2, "did you mean 'steps'"),
        ("deep.json", "[" * 100_000, 2, "nested too deeply"),
        ("type.json", {"name": "x", "steps": [{"stepKey": "a", "taskType": "nope"}]}, 2, "no task type 'nope'"),
        (
            "three.json",
            {"name": "x", "steps": [{"stepKey": "a", "taskType": "sql_script", "payload": {"fetch": "many", "c": 1}}]},
            2,
            "payload.connection: is required and missing",
        ),
        (
            "cycle.json",
            {
                "name": "x",
                "steps": [GOOD_STEP, {**GOOD_STEP, "stepKey": "b"}],
                "edges": [{"fromStepKey": "a", "toStepKey": "b"}, {"fromStepKey": "b", "toStepKey": "a"}],
            },
            2,
            "a → b → a",
        ),
    ],
)  # fmt: skip
def test_a_broken_file_is_a_sentence_with_its_place(name: str, text: Any, code: int, says: str) -> None:
    if text is not None:
        write(name, text)
    for args in (("plan", name), ("composite", "check", name)):
        result = invoke(*args)
        assert result.exit_code == code, result.output
        assert says in result.output
        assert "Traceback" not in result.output
    checked = data_of("composite", "check", name)["items"]
    assert [item["ok"] for item in checked] == [False]
    assert checked[0]["problems"]


def test_a_cycle_cannot_be_drawn_and_says_so() -> None:
    edges = [{"fromStepKey": "a", "toStepKey": "a"}]
    file = write("x.json", {"name": "x", "steps": [GOOD_STEP], "edges": edges})
    for command in ("show", "render"):
        result = invoke("composite", command, file)
        assert result.exit_code == 2
        assert "a" in result.stderr


def test_all_of_several_are_checked() -> None:
    broken = write("broken.json", "{")
    result = invoke("composite", "check", NIGHTLY, broken, "nightly-sales", "nope")
    assert result.exit_code == 3
    assert result.stdout.count("● nightly-sales: ok") == 2
    assert "✗ broken.json" in result.stdout
    assert "✗ nope" in result.stdout


def test_a_broken_file_of_the_project_does_not_hide_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "project" / "composites"
    folder.mkdir(parents=True)
    (folder / "bad.py").write_text("import nothing_of_that_name")
    (folder / "good.py").write_text(TWO)
    found = data_of("composite", "list")
    assert {"one", "two", "nightly-sales"} <= {item["name"] for item in found["items"]}
    assert found["broken"][0]["file"].endswith("bad.py")
    assert data_of("plan", "two")["name"] == "two"


def test_unicode_names_and_text() -> None:
    file = write("ü.json", {"name": "größe-日本", "steps": [GOOD_STEP]})
    assert "größe-日本" in invoke("composite", "render", file).stdout


def test_resuming_needs_a_center() -> None:
    result = invoke("plan", NIGHTLY, "--resume", "abcd")
    assert result.exit_code == 3
    assert "no Task Center is running" in result.stderr


# init ----------------------------------------------------------------------------------------------


def test_init_makes_a_project_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = invoke("init", "shop")
    assert result.exit_code == 0
    assert "taskcenter up" in result.stdout
    monkeypatch.setenv("TASKCENTER_PROJECT", str(tmp_path / "shop"))
    monkeypatch.setattr(registry, "folder", tmp_path / "shop" / "task_types")
    monkeypatch.setattr(registry, "_folder_read", False)
    assert invoke("composite", "check", "shop/composites/example.py").exit_code == 0
    plan = data_of("plan", "hello", "--set", "who=you")
    assert plan["steps"][0]["resolvedPayload"]["who"] == "you"
    assert "greet" in invoke("task", "types", "-q").stdout
    registry.types.pop("greet")
    assert len((tmp_path / "shop" / "README.md").read_text().splitlines()) < 12


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    result = invoke("init")
    assert result.exit_code == 4
    assert "README.md already" in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "home") == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "mine"


def test_init_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = invoke("init", "file/below")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
