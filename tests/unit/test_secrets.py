"""The store of secrets: values go in through every door and come out through none. (spec 8.3)"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet

from taskcenter.clock import utc_now
from taskcenter.errors import NotFound, Refused, SetupError, ValidationFailed
from taskcenter.redaction import redact_text
from taskcenter.settings import Settings
from taskcenter_adapter.keys import FILE, load_keys
from taskcenter_adapter.resolve_secret import resolve_secret
from taskcenter_console.cli import cli
from taskcenter_console.commands import common
from taskcenter_console.services import secrets
from taskcenter_console.services.center import Caller, Center
from tests.fakes import api_client, fake_center

CALLER = Caller("ada", "cli")
VALUE = "Correct-horse-42"


@pytest.fixture
def center(tmp_path: Path) -> Iterator[Center]:
    with fake_center(tmp_path, scheduled=True) as made:
        yield made


def value_of(center: Center, name: str) -> str:
    return resolve_secret(name, center.settings, center.store)[0]


def test_a_value_goes_in_and_comes_out_only_for_a_step(center: Center, tmp_path: Path) -> None:
    shown = secrets.put(center, "db", VALUE, CALLER)
    assert (shown["name"], shown["version"], shown["value"], shown["setBy"]) == ("db", 1, "***", "ada")
    value, found = resolve_secret("db", center.settings, center.store)
    assert (value, found) == (VALUE, {"name": "db", "store": "taskcenter", "version": 1})
    assert VALUE not in redact_text(f"it is {VALUE}")
    assert VALUE not in str(secrets.list_secrets(center))
    audit = center.store.list_audit()
    assert [entry.event_type for entry in audit] == ["secret_set"]
    assert VALUE not in str(audit)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or VALUE.encode() not in path.read_bytes(), path
    key = center.settings.home / FILE
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_value_has_versions_and_three_stars_keep_it(center: Center) -> None:
    for number in range(5):
        secrets.put(center, "db", f"{VALUE}-{number}", CALLER)
    assert secrets.put(center, "db", "***", CALLER)["version"] == 5
    assert value_of(center, "db") == f"{VALUE}-4"
    assert secrets.list_secrets(center)[0]["keptVersions"] == 3
    with pytest.raises(NotFound, match="whose value could be kept"):
        secrets.put(center, "other", "***", CALLER)


@pytest.mark.parametrize(
    ("name", "value"), [("db", "abc"), ("db", "1234567"), ("DB", VALUE), ("", VALUE), ("a b", VALUE), ("x-", VALUE)]
)
def test_what_is_refused(center: Center, name: str, value: str) -> None:
    with pytest.raises(ValidationFailed):
        secrets.put(center, name, value, CALLER)
    assert secrets.list_secrets(center) == []


def test_a_wrong_key_says_so_and_is_not_replaced_in_silence(center: Center) -> None:
    secrets.put(center, "db", VALUE, CALLER)
    file = center.settings.home / FILE
    right = file.read_text()
    file.write_text(Fernet.generate_key().decode())
    with pytest.raises(SetupError, match=r"was encrypted with the key .*: put the right key there"):
        value_of(center, "db")
    with pytest.raises(SetupError, match="put the right key there"):
        secrets.rotate_key(center, CALLER)
    file.write_text("not a key\n")
    with pytest.raises(SetupError, match="no key"):
        value_of(center, "db")
    file.unlink()
    with pytest.raises(SetupError, match="no key for secrets"):
        secrets.put(center, "other", VALUE, CALLER)
    assert not file.exists()
    file.write_text(right)
    file.chmod(0o644)
    with pytest.raises(SetupError, match="may be read by others"):
        value_of(center, "db")
    file.chmod(0o600)
    assert value_of(center, "db") == VALUE


def test_a_row_that_was_moved_or_changed_does_not_open(center: Center) -> None:
    secrets.put(center, "db", VALUE, CALLER)
    keys = load_keys(center.settings)
    row = center.store.secrets.latest("db")  # type: ignore[attr-defined]
    with pytest.raises(SetupError, match="another name"):
        keys.decrypt("other", row.ciphertext, row.key_id)
    with pytest.raises(SetupError, match="damaged or was changed"):
        keys.decrypt("db", row.ciphertext[:-8] + "AAAAAAA=", row.key_id)


def test_the_key_is_rotated_and_the_old_one_goes_with_the_next_rotation(center: Center) -> None:
    for name in ("a", "b"):
        secrets.put(center, name, f"{VALUE}-{name}", CALLER)
    file = center.settings.home / FILE
    before = file.read_text().split()
    assert secrets.rotate_key(center, CALLER)["values"] == 2
    after = file.read_text().split()
    assert len(after) == 2
    assert after[1:] == before
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [value_of(center, name) for name in ("a", "b")] == [f"{VALUE}-a", f"{VALUE}-b"]
    assert center.store.list_audit()[0].event_type == "secret_key_rotated"
    secrets.rotate_key(center, CALLER)
    again = file.read_text().split()
    assert again[1:] == after[:1]
    assert again[0] not in [*before, *after]
    assert value_of(center, "a") == f"{VALUE}-a"


def test_a_secret_that_is_set_while_the_key_is_rotated_is_not_lost(center: Center) -> None:
    secrets.put(center, "a", VALUE, CALLER)
    old = load_keys(center.settings)  # as a put has read it that commits after the rotation
    for _ in range(2):
        secrets.rotate_key(center, CALLER)
        rows = center.store.secrets  # type: ignore[attr-defined]
        now, entry = utc_now(), CALLER.entry("secret_set")
        rows.put("late", old.encrypt("late", VALUE), old.current, now, "ada", lambda _, told=entry: told)
        assert value_of(center, "late") == VALUE
        old = load_keys(center.settings)


def test_the_key_may_stand_in_the_environment(tmp_path: Path) -> None:
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    center = fake_center(tmp_path, scheduled=True)
    for text in (old, f"{new},{old}"):
        center.settings = Settings.from_env({"TASKCENTER_HOME": str(tmp_path), "TASKCENTER_SECRET_KEY": text})
        assert old not in repr(center.settings)
        secrets.put(center, "db", VALUE, CALLER)
    secrets.rotate_key(center, CALLER)
    center.settings = Settings.from_env({"TASKCENTER_HOME": str(tmp_path), "TASKCENTER_SECRET_KEY": new})
    assert value_of(center, "db") == VALUE
    assert not (tmp_path / FILE).exists()


def test_the_keys_themselves_are_masked(center: Center) -> None:
    secrets.put(center, "db", VALUE, CALLER)
    key = (center.settings.home / FILE).read_text().strip()
    assert key not in redact_text(f"it is {key}")


def test_a_variable_without_a_key_says_so(tmp_path: Path) -> None:
    settings = Settings.from_env({"TASKCENTER_HOME": str(tmp_path), "TASKCENTER_SECRET_KEY": " ,"})
    with pytest.raises(SetupError, match="TASKCENTER_SECRET_KEY holds no key"):
        load_keys(settings)


def test_what_a_crash_left_beside_the_key_keeps_nobody_from_rotating(center: Center) -> None:
    secrets.put(center, "db", VALUE, CALLER)
    left = center.settings.home / f"{FILE}.{os.getpid()}.new"
    left.write_text("half of a ke")
    secrets.rotate_key(center, CALLER)
    assert value_of(center, "db") == VALUE
    assert [path for path in center.settings.home.glob(f"{FILE}.*.new") if path != left] == []


@pytest.mark.parametrize("name", ["prod-db-01", "db-password-2", "api_key_7", "github-token"])
def test_the_audit_says_which_secret_it_was(center: Center, name: str) -> None:
    secrets.put(center, name, VALUE, CALLER)
    secrets.delete(center, name, CALLER)
    gone, made = center.store.list_audit()
    assert (made.object, made.message) == (f"{name}, a secret", f"{name}: the secret was set (version 1)")
    assert (gone.object, gone.message) == (f"{name}, a secret", f"{name}: the secret was deleted")


@pytest.mark.parametrize(
    ("kept", "value"), [("1e3", "1e3"), ('{"a": 1.50}', '{"a": 1.50}'), ({"user": "ada"}, '{"user": "ada"}')]
)
def test_the_value_of_a_prefect_block_is_taken_as_it_is(
    center: Center, monkeypatch: pytest.MonkeyPatch, kept: Any, value: str
) -> None:
    from prefect.blocks.system import Secret

    monkeypatch.setattr(Secret, "load", lambda name, _sync: Secret(value=kept))
    monkeypatch.setattr("taskcenter_adapter.resolve_secret.register_secret", lambda _: None)
    assert resolve_secret("elsewhere", center.settings, center.store) == (
        value,
        {"name": "elsewhere", "store": "prefect"},
    )


def test_over_rest_nothing_comes_back(center: Center) -> None:
    client = api_client(center)
    made = client.put("/api/secrets/db", json={"value": VALUE})
    assert (made.status_code, made.json()["version"], made.json()["value"]) == (200, 1, "***")
    kept = client.put("/api/secrets/db", json={"value": "***"})
    assert kept.json()["version"] == 1
    answers = [made, kept, client.get("/api/secrets"), client.put("/api/secrets/db", json={"value": VALUE, "x": VALUE})]
    answers += [
        client.put("/api/secrets/db", json={"value": [VALUE]}),
        client.put("/api/secrets/DB", json={"value": VALUE}),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 422, 422, 422]
    assert VALUE not in str([answer.text for answer in answers])
    assert client.post("/api/secrets/rotate-key").json()["values"] == 1
    assert client.delete("/api/secrets/db").status_code == 204
    assert client.delete("/api/secrets/db").status_code == 404
    kinds = [entry.event_type for entry in center.store.list_audit()]
    assert kinds == ["secret_deleted", "secret_key_rotated", "secret_set"]


def test_on_the_command_line_a_value_comes_from_stdin(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "open_center", lambda: center)

    def call(*argv: str, **more: str) -> Result:
        return CliRunner().invoke(cli, ["secret", *argv], prog_name="taskcenter", **more)

    assert call("set", "db", input=f"{VALUE}\n").exit_code == 0
    assert value_of(center, "db") == VALUE
    assert call("set", "db", VALUE).exit_code == 2  # never as an argument
    shown = call("list", "--json")
    assert json.loads(shown.stdout)["items"][0]["name"] == "db"
    assert VALUE not in shown.stdout
    assert call("rotate").exit_code == 0
    assert call("delete", "db").exit_code == 4
    assert call("delete", "db", "--yes").exit_code == 0
    assert call("set", "db", input="abc\n").exit_code == 2
    for words in (["secret", "set", "db"], ["redact", "test"]):
        done = CliRunner().invoke(cli, words, prog_name="taskcenter", input=b"caf\xe9 and more\n")
        assert (done.exit_code, "is not UTF-8 text" in done.stderr) == (2, True)


def test_redact_test_shows_what_is_masked() -> None:
    done = CliRunner().invoke(cli, ["redact", "test"], prog_name="taskcenter", input="password: x\nhello\n")
    assert (done.exit_code, done.stdout) == (1, "password:[REDACTED]\nhello\n")
    assert CliRunner().invoke(cli, ["redact", "test", "hello"], prog_name="taskcenter").exit_code == 0


def test_a_store_without_a_database_keeps_none(tmp_path: Path) -> None:
    with fake_center(tmp_path) as center, pytest.raises(Refused, match="use a database"):
        secrets.list_secrets(center)
