"""The retention policy through its doors: holds by name, fields put back, and what a hold keeps. (spec 6.5)"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from taskcenter.clock import utc_now
from taskcenter.errors import Refused
from taskcenter.models import Run
from taskcenter.ports import AuditFilter, Changes
from taskcenter.status import RunStatus
from taskcenter_console.cli import cli
from taskcenter_console.commands import common
from taskcenter_console.services import queue, retaining, tasks
from taskcenter_console.services.center import Caller, Center
from tests.fakes import FakeGateway, api_client, fake_center

ADA = Caller("ada", "cli")
RUN = "abcdef01-0000-4000-8000-000000000000"


@pytest.fixture
def center(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Center]:
    """Two tasks; the first has a run that is over."""
    with fake_center(tmp_path, FakeGateway(), scheduled=True) as made:
        monkeypatch.setattr(common, "open_center", lambda: made)
        monkeypatch.setattr(common, "center_if_running", lambda: None)
        monkeypatch.setattr(Center, "close", lambda _: None)
        for name in ("Orders", "Mail"):
            tasks.save(made, {"name": name, "taskType": "wait", "payload": {"seconds": 1}}, ADA)
        run = Run(id=RUN, task_id=tasks.get(made, "orders").id, task_slug="orders", task_type="wait",
                  created_at=utc_now(), finished_at=utc_now(), status=RunStatus.SUCCESS)  # fmt: skip
        made.store.record(Changes(runs=(run,)))
        yield made


def call(*words: str) -> Result:
    return CliRunner().invoke(cli, ["retention", *words], prog_name="taskcenter")


def holds(center: Center) -> set[str | None]:
    return {hold.task or hold.run for hold in retaining.policy(center).holds}


def changes(center: Center) -> int:
    return len(center.store.page_audit(AuditFilter(event_type="retention_policy_updated")))


def test_a_hold_is_stored_by_id_and_shown_by_name(center: Center) -> None:
    assert call("set", "--hold", "orders", "--hold", f"run:{RUN[:8]}", "--note", "a lawsuit").exit_code == 0
    assert holds(center) == {tasks.get(center, "orders").id, RUN}
    [first, _] = retaining.policy(center).holds
    assert (first.by, first.note, first.since is not None) == (common.caller().actor, "a lawsuit", True)
    text = call("show").stdout
    assert "‖ legal hold on task orders: a lawsuit\n" in text
    assert f"‖ legal hold on run {RUN[:8]} of orders: a lawsuit\n" in text
    assert call("set", "--release", "wait/orders", "--release", f"run:{RUN[:6]}").exit_code == 0
    assert holds(center) == set()


@pytest.mark.parametrize("words", [("--hold", "ordres"), ("--hold", "run:ffff"), ("--release", "mail"),
                                   ("--release", "run:abcdef"), ("--release", "ordres")])  # fmt: skip
def test_a_hold_that_names_nothing_is_an_error(center: Center, words: tuple[str, str]) -> None:
    retaining.set_policy(center, {}, ADA, hold=["orders"])
    assert call("set", "60", *words).exit_code == 3
    assert (retaining.policy(center).days, len(holds(center)), changes(center)) == (30, 1, 1)


def test_holds_over_rest_are_named_as_freely(center: Center) -> None:
    client = api_client(center)
    sent = {"holds": [{"task": "orders", "note": "x"}, {"run": RUN[:8]}]}
    made = client.patch("/api/retention", json=sent).json()
    assert [hold["task"] or hold["run"] for hold in made["holds"]] == [tasks.get(center, "orders").id, RUN]
    assert client.patch("/api/retention", json={"holds": made["holds"]}).json() == made
    assert changes(center) == 1  # the second changed nothing
    assert client.patch("/api/retention", json={"holds": [{"task": "nobody"}]}).status_code == 404


def test_a_hold_outlives_what_it_names_and_can_be_taken_off(center: Center) -> None:
    center.store.set_setting("retention_policy", {"holds": [{"task": "gone"}]})
    assert "legal hold on task gone" in call("show").stdout
    retaining.set_policy(center, {"days": 60}, ADA, release=["gone"])
    assert holds(center) == set()


def test_what_is_under_a_hold_is_not_deleted(center: Center) -> None:
    for name in ("orders", f"run:{RUN}"):
        retaining.set_policy(center, {}, ADA, hold=[name], note="a lawsuit")
        with pytest.raises(Refused, match=rf"legal hold on .*a lawsuit.*--release {name}"):
            tasks.delete(center, "orders", ADA)
        retaining.set_policy(center, {}, ADA, release=[name])
    center.store.set_setting("retention_policy", {"holds": [{"task": "orders"}]})  # as older versions stored it
    with pytest.raises(Refused):
        tasks.delete(center, "orders", ADA)
    tasks.delete(center, "mail", ADA)
    retaining.set_policy(center, {}, ADA, release=["orders"])
    tasks.delete(center, "orders", ADA)


def test_a_field_to_put_back_must_be_known(center: Center) -> None:
    assert call("set", "60", "--failed-days", "90", "--keep-last", "3").exit_code == 0
    assert call("set", "--unset", "failed-days", "--unset", "keepLast").exit_code == 0
    found = retaining.policy(center)
    assert (found.days, found.failed_days, found.keep_last) == (60, None, 0)
    wrong = call("set", "--unset", "faild-days")
    assert (wrong.exit_code, "faild_days" in wrong.stderr) == (2, True)
    assert changes(center) == 2
    assert call("set", "60", "--unset", "failed-days").exit_code == 0
    assert changes(center) == 2  # nothing was changed


def test_of_two_at_once_neither_loses_a_hold_or_a_limit(center: Center) -> None:
    gate = threading.Barrier(2)

    def work(name: str) -> None:
        gate.wait()
        for number in range(1, 6):
            retaining.set_policy(center, {}, ADA, hold=[name])
            queue.set_limit(center, "tag", f"{name}-{number}", number, ADA)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("orders", "mail")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert holds(center) == {tasks.get(center, name).id for name in ("orders", "mail")}
    assert len(queue.limits(center).tags) == 10
