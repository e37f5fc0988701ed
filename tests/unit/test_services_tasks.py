"""Importing and exporting lists of tasks: previewed whole, applied in an order that references allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taskcenter_console.services import tasks
from taskcenter_console.services.center import Caller
from tests.fakes import fake_center

ME = Caller("tester", "cli")


def shell(name: str) -> dict[str, Any]:
    return {"name": name, "taskType": "shell", "payload": {"command": ["true"]}}


def outer(name: str, inner: str) -> dict[str, Any]:
    return {
        "name": name,
        "taskType": "composite",
        "graph": {"steps": [{"stepKey": "a", "referencedTaskId": inner}], "edges": []},
    }


def test_what_is_exported_can_be_imported_elsewhere(tmp_path: Path) -> None:
    here, there = fake_center(tmp_path / "a"), fake_center(tmp_path / "b")
    inner = tasks.save(here, {**shell("inner"), "triggers": [{"type": "interval", "intervalSeconds": 60}]}, ME)
    tasks.save(here, outer("a-outer", inner.id), ME)
    document = tasks.export(here, ME)
    assert document["tasks"][0]["graph"]["steps"][0]["referencedTaskId"] == "inner"
    items = tasks.import_tasks(there, document, ME, apply=True)
    assert {item.name: item.kind for item in items} == {"a-outer": "create", "inner": "create"}
    assert {task.slug for task in tasks.all_tasks(there)} == {"a-outer", "inner"}
    again = tasks.import_tasks(there, tasks.export(there, ME), ME, apply=False)
    assert {item.kind for item in again} == {"same"}


def test_the_same_list_beside_the_original_makes_triggers_of_its_own(tmp_path: Path) -> None:
    center = fake_center(tmp_path)
    first = tasks.save(center, {**shell("one"), "triggers": [{"type": "interval", "intervalSeconds": 60}]}, ME)
    document = tasks.export(center, ME)
    document["tasks"][0] |= {"name": "two", "slug": "two"}
    [item] = tasks.import_tasks(center, document, ME, apply=True)
    assert item.kind == "create"
    assert tasks.get(center, "two").triggers[0].id != first.triggers[0].id


def test_one_refused_row_stops_the_whole_import(tmp_path: Path) -> None:
    center = fake_center(tmp_path)
    rows = {"schemaVersion": 1, "tasks": [shell("good"), {"name": "bad", "taskType": "nope"}, outer("c", "missing")]}
    items = tasks.import_tasks(center, rows, ME, apply=True)
    assert [item.kind for item in items] == ["create", "refused", "refused"]
    assert tasks.all_tasks(center) == []


def test_a_task_is_found_by_its_deployment_name(tmp_path: Path) -> None:
    center = fake_center(tmp_path)
    tasks.save(center, shell("one"), ME)
    assert tasks.get(center, "shell/one").slug == "one"
