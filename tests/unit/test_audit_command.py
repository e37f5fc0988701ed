"""``taskcenter audit``: what may be asked for, and an export that is whole or not there. (spec 6.4)"""

from __future__ import annotations

import json
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import pytest
from click.testing import CliRunner, Result

from taskcenter.audit_export import verify_export
from taskcenter.errors import ServerAway
from taskcenter.models import AuditEntry
from taskcenter_console.cli import cli
from taskcenter_console.commands import common
from taskcenter_console.commands.audit import list_entries
from taskcenter_console.services import auditing, tasks
from taskcenter_console.services.center import Caller, Center
from tests.fakes import FakeGateway, fake_center

ME = Caller("ada", "cli")


@pytest.fixture
def center(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Center]:
    with fake_center(tmp_path, FakeGateway(), scheduled=True) as made:
        monkeypatch.setattr(common, "open_center", lambda: made)
        monkeypatch.setattr(Center, "close", lambda _: None)
        tasks.save(made, {"name": "nap", "taskType": "wait", "payload": {"seconds": 1}}, ME)
        yield made


def call(*words: str) -> Result:
    return CliRunner().invoke(cli, ["audit", *words], prog_name="taskcenter")


def test_a_filter_that_no_entry_can_meet_is_an_error(center: Center) -> None:
    assert call("list", "--channel", "foo").exit_code == 2
    assert call("list", "--result", "success").exit_code == 2
    assert "task_created" in call("list", "--channel", "cli", "--result", "ok").stdout
    options = {option.name: option.type for option in list_entries.params}
    for name in ("channel", "result"):
        choice = options[name]
        assert isinstance(choice, click.Choice)
        assert tuple(choice.choices) == get_args(AuditEntry.model_fields[name].annotation)


def test_an_export_is_for_its_owner_only_also_over_an_old_file(center: Center, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    file.write_text("an old one")
    file.chmod(0o644)
    assert call("export", "-o", str(file)).exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with file.open("rb") as lines:
        assert verify_export(lines).ok


def test_an_export_that_breaks_off_leaves_the_old_file(
    center: Center, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Iterator[bytes]:
        yield b"{}\n"
        raise ServerAway("the database went away")

    folder = tmp_path / "out"
    folder.mkdir()
    file = folder / "audit.jsonl"
    file.write_text("an old one")
    monkeypatch.setattr(auditing, "export", broken)
    assert call("export", "-o", str(file)).exit_code == 5
    assert (file.read_text(), list(folder.iterdir())) == ("an old one", [file])
    assert call("export", "-o", str(file / "below")).exit_code == 2
    assert call("export", "-o", "/dev/null").exit_code == 5
    assert not Path("/dev/null").is_file()


def test_verify_finds_a_change_in_the_live_database_the_file_and_an_export(center: Center, tmp_path: Path) -> None:
    export, file = tmp_path / "audit.jsonl", tmp_path / "store.db"
    tasks.save(center, {"description": "longer"}, ME, update="nap")
    head = call("verify").stdout.rsplit(maxsplit=1)[-1]
    assert call("export", "-o", str(export)).exit_code == 0
    for source in ([], [str(file)], [str(export)], ["--expect", head]):
        assert (call("verify", *source).exit_code, source) == (0, source)
    export.write_bytes(export.read_bytes().replace(b'"ada"', b'"eve"', 1))
    with sqlite3.connect(file) as raw:  # as somebody with the rights of the file's owner
        raw.execute("DROP TRIGGER IF EXISTS task_audit_logs_no_update")
        assert raw.execute("UPDATE task_audit_logs SET actor = 'eve' WHERE position = 2").rowcount == 1
    raw.close()
    for source in ([], [str(file)], [str(export)]):
        found = call("verify", *source)
        assert (found.exit_code, found.stdout.startswith("✗ ")) == (1, True), source
        assert json.loads(call("verify", "--json", *source).stdout)["findings"]
    assert call("verify", "--expect", f"{head.partition(':')[0]}:{'0' * 64}").exit_code == 1
