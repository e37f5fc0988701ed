"""The command line as a whole: errors become sentences and exit codes, every command is documented."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from taskcenter import errors
from taskcenter_console.cli import cli
from taskcenter_console.commands import common, reference, upkeep
from taskcenter_console.commands.common import assignments
from taskcenter_console.terminal import clean, mark, span

ROOT = Path(__file__).parents[2]
EVERY = list(reference.commands())
LEAVES = [(name, command) for name, command in EVERY if not isinstance(command, click.Group)]


def invoke(*args: str, **options: Any) -> Result:
    return CliRunner().invoke(cli, list(args), prog_name="taskcenter", **options)


# documentation -------------------------------------------------------------------------------------


def test_the_page_of_the_commands_is_the_generated_one() -> None:
    text = reference.FILE.read_text(encoding="utf-8")
    assert text == reference.page() + "\n", "write it anew with: python -m taskcenter_console.commands.reference"


@pytest.mark.parametrize(("name", "command"), EVERY, ids=[name for name, _ in EVERY])
def test_every_command_and_option_says_what_it_does(name: str, command: click.Command) -> None:
    page = reference.page()
    assert inspect.cleandoc(command.help or ""), f"{name} has no help"
    assert f"## {name}\n" in page
    section = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
    for option in (p for p in command.params if isinstance(p, click.Option)):
        assert option.help, f"{name} {option.opts} has no help"
        for flag in (*option.opts, *option.secondary_opts):
            assert f"`{flag}`" in section


def test_every_exit_code_is_documented() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.TaskCenterError)]
    for code in {kind.exit_code for kind in kinds} | {0, 70, 130}:
        assert f"| {code} |" in reference.page()


@pytest.mark.parametrize(("name", "command"), LEAVES, ids=[name for name, _ in LEAVES])
def test_a_command_that_prints_data_has_json(name: str, command: click.Command) -> None:
    has_json = any("--json" in p.opts for p in command.params)
    assert has_json or name in ("up", "demo", "serve")


@pytest.mark.parametrize("name", [name for name, _ in EVERY])
def test_help_works_everywhere(name: str) -> None:
    result = invoke(*name.split(), "--help")
    assert result.exit_code == 0, result.output
    assert "Usage: taskcenter" in result.stdout


# errors --------------------------------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Callable[..., Result]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(common, "open_center", fail)
    return invoke


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotFound("there is no task 'x'"), 3),
        (errors.Refused("it is not allowed"), 4),
        (errors.Conflict("somebody was faster"), 4),
        (errors.ServerAway("the server is away"), 5),
        (errors.SetupError("the port is taken"), 2),
        (errors.ValidationFailed("the task", [errors.Problem("bad", "payload.sql", "is missing")]), 2),
        (errors.TaskCenterError("something"), 1),
        (KeyboardInterrupt(), 130),
        (RecursionError(), 2),
        (PermissionError(13, "Permission denied", "/nowhere/file"), 2),
        (ZeroDivisionError("division by zero"), 70),
        (BrokenPipeError(), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
@pytest.mark.parametrize("extra", [(), ("--json",)])
def test_each_error_has_its_exit_code_and_no_trace(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, extra: tuple[str, ...]
) -> None:
    result = failing(monkeypatch, error)("task", "list", *extra)
    assert result.exit_code == code
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    if extra and code not in (130,) and not isinstance(error, BrokenPipeError):
        said = json.loads(result.stderr)["error"]
        assert set(said) == {"code", "message", "problems"}
    if isinstance(error, errors.ValidationFailed):
        assert "payload.sql" in result.stderr


def test_a_defect_names_the_way_to_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    run = failing(monkeypatch, ZeroDivisionError("division by zero"))
    assert "TASKCENTER_DEBUG=1" in run("task", "list").stderr
    monkeypatch.setenv("TASKCENTER_DEBUG", "1")
    assert "Traceback" in run("task", "list").stderr


def test_an_error_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    run = failing(monkeypatch, errors.ServerAway("postgresql://joe:hunter2hunter2@db/x does not answer"))
    for extra in ((), ("--json",)):
        result = run("task", "list", *extra)
        assert "hunter2" not in result.stderr
        assert "does not answer" in result.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("tsk",), "Did you mean 'task'"),
        (("task", "list", "--frob"), "No such option"),
        (("runs", "list", "--limit", "0"), "0 is not in the range"),
        (("run", "x", "--mode", "from"), "belong to --resume"),
        (("run", "x", "--resume", "abcd", "--mode", "alone"), "needs --step"),
        (("run", "x", "--payload", "{}", "--payload-file", "f"), "exclude each other"),
        (("composite", "render", "x", "--format", "png"), "is not one of"),
        (("up", "--project", "/no/such/folder"), "no such folder"),
        (("task", "edit", "x", "--no-triggers", "--cron", "* * * * *"), "--no-triggers excludes"),
        (("task", "create", "--timezone", "UTC"), "belongs to --cron"),
        (("task", "create", "-", "--payload-file", "-"), "stdin can be read once"),
    ],
)
def test_wrong_usage_is_a_sentence_and_exit_code_2(
    args: tuple[str, ...], says: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKCENTER_DATABASE_URL", f"sqlite:///{home}/none.db")
    result = invoke(*args)
    assert result.exit_code == 2
    assert says in result.stderr
    as_json = invoke(*args, "--json")
    if "--json" not in as_json.stderr or as_json.stderr.startswith("{"):
        assert json.loads(as_json.stderr)["error"]["code"] == "usage"


@pytest.mark.parametrize(
    "args",
    [("task", "list"), ("task", "show", "x"), ("run", "x"), ("runs", "list"), ("runs", "logs", "abcd"), ("publish",),
     ("reconcile", "--check"), ("db", "current")],
    ids=" ".join,
)  # fmt: skip
def test_without_a_center_a_command_says_how_to_start_one(args: tuple[str, ...], home: Path) -> None:
    result = invoke(*args)
    assert result.exit_code == 5
    assert "taskcenter up" in result.stderr
    assert str(home) in result.stderr
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    "args", [("task", "list"), ("plan", "nightly-sales"), ("db", "url"), ("run", "x")], ids=" ".join
)
def test_a_remote_service_is_refused_and_not_mistaken_for_this_machine(
    args: tuple[str, ...], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKCENTER_API_URL", "http://elsewhere:8787")
    result = invoke(*args)
    assert result.exit_code == 4
    assert "TASKCENTER_API_URL" in result.stderr
    assert "REST" in result.stderr


@pytest.mark.parametrize(
    ("url", "code", "says"),
    [
        ("sqlite:////no/such/folder/x.db", 2, "cannot be opened"),
        ("nonsense", 2, "cannot be read"),
        ("mysql://u:hunter2hunter2@h/x", 2, "is not a database Task Center can live in"),
        ("postgresql://u:hunter2hunter2@127.0.0.1:1/x", 5, "does not answer"),
    ],
)
def test_a_database_that_does_not_open(
    url: str, code: int, says: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKCENTER_DATABASE_URL", url)
    for args in (("task", "list"), ("db", "check")):
        result = invoke(*args)
        assert result.exit_code == code
        assert says in result.stderr
        assert "hunter2" not in result.output


def test_db_from_nothing_to_this_version(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKCENTER_DATABASE_URL", f"sqlite:///{home}/x.db")
    assert "taskcenter db upgrade" in invoke("task", "list").stderr
    assert invoke("db", "check").exit_code == 1
    assert invoke("db", "upgrade").exit_code == 0
    found = json.loads(invoke("db", "check", "--json").stdout)
    assert found["current"] is True
    assert invoke("db", "current", "-q").stdout.strip() == found["revision"]
    assert invoke("task", "list").exit_code == 0


def test_db_url_hides_its_password(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKCENTER_DATABASE_URL", "postgresql://joe:hunter2@db:5432/x")
    assert invoke("db", "url").stdout == "postgresql+psycopg://joe:***@db:5432/x\n"
    assert "hunter2" in json.loads(invoke("db", "url", "--show-password", "--json").stdout)["url"]


def test_settings_of_the_wrong_kind_are_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKCENTER_PORT", "http")
    result = invoke("task", "list")
    assert result.exit_code == 2
    assert "TASKCENTER_PORT='http'" in result.stderr


# starting ------------------------------------------------------------------------------------------


def test_up_gets_its_settings_from_the_options(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import taskcenter_console.up as module

    seen: list[Any] = []

    def up(settings: Any, workers: int = 4) -> int:
        seen.append((settings, workers))
        return 0

    monkeypatch.setattr(module, "up", up)
    args = ["--port", "0", "--prefect-port", "4300", "--database", "sqlite", "--project", str(tmp_path)]
    assert invoke("up", *args, "--workers", "2").exit_code == 0
    settings, workers = seen[0]
    assert (settings.port, settings.prefect_port, settings.database) == (0, 4300, "sqlite")
    assert (settings.project, settings.home, workers) == (tmp_path, home, 2)


def test_doctor_fails_when_something_is_missing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import taskcenter_console.doctor as module

    found = [("python", True, "3.12"), ("port 8787", False, "is taken: stop the other program")]
    monkeypatch.setattr(module, "doctor", lambda settings: found)
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "✗ failed" in result.stdout
    items = json.loads(invoke("doctor", "--json").stdout)["items"]
    assert items[1] == {"name": "port 8787", "ok": False, "message": "is taken: stop the other program"}
    assert invoke("doctor", "-q").stdout == "port 8787\n"


# small things --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pairs", "result"),
    [
        (["a=1", "b=x", "c=007", "d=true", "e=null"], {"a": 1, "b": "x", "c": "007", "d": True, "e": None}),
        (["a.b=1", "a.c=2"], {"a": {"b": 1, "c": 2}}),
        (['a="5"', "b=", "c=a=b", "d=[1]"], {"a": "5", "b": "", "c": "a=b", "d": [1]}),
        (["a=1", "a=2"], {"a": 2}),
        (["a=NaN"], {"a": "NaN"}),
        (["a=1", "a.b=2"], {"a": {"b": 2}}),
    ],
)
def test_assignments(pairs: list[str], result: dict[str, Any]) -> None:
    assert assignments(pairs, "--set") == result


def test_assignments_leave_what_they_are_laid_over() -> None:
    base = {"a": {"b": 1}, "c": 2}
    assert assignments(["a.d=3"], "--set", base) == {"a": {"b": 1, "d": 3}, "c": 2}
    assert base == {"a": {"b": 1}, "c": 2}


@pytest.mark.parametrize("pair", ["a", "=1", "a.=1", ".a=1", "a..b=1"])
def test_what_is_no_assignment_is_named(pair: str) -> None:
    with pytest.raises(errors.ValidationFailed, match="KEY=VALUE"):
        assignments([pair], "--set")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("a\nb", "a ⏎ b"),
        ("a\tb", "a    b"),
        ("\x07\x00", "\\x07\\x00"),
        ("Zürich 日本 \u202e", "Zürich 日本 \\x202e"),
    ],
)
def test_text_cannot_command_the_terminal(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_states_are_glyph_and_word() -> None:
    assert (mark("success"), mark("failed"), mark(None)) == ("● success", "✗ failed", "-")


@pytest.mark.parametrize(
    ("ms", "text"),
    [(None, "-"), (0, "0 ms"), (999, "999 ms"), (2500, "2.5 s"), (59_960, "1 min 00 s"), (3_900_000, "1 h 05 min")],
)
def test_durations(ms: float | None, text: str) -> None:
    assert span(ms) == text


def test_the_root_knows_every_group() -> None:
    assert upkeep.db.commands.keys() == {"check", "current", "upgrade", "url"}
