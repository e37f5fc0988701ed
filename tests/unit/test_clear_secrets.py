"""A secret written out in a definition is refused with its place; references and templates are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from taskcenter.clear_secrets import find_clear_secrets
from taskcenter.errors import ValidationFailed
from taskcenter_console.services import tasks
from taskcenter_console.services.center import Caller
from tests.fakes import fake_center


@pytest.mark.parametrize(
    "value",
    [
        {"password": "hunter2"},
        {"headers": {"Authorization": "Bearer abcdef"}},
        {"list": [{"api_key": "k-1"}]},
        {"env": {"DB_PASSWORD": "x1"}},
    ],
)
def test_found(value: dict[str, Any]) -> None:
    [problem] = find_clear_secrets(value, "payload")
    assert problem.code == "secret_in_clear"
    assert problem.path.startswith("payload.")
    assert "hunter2" not in str(problem)


@pytest.mark.parametrize(
    "value",
    [
        {"password": '{{secret("db")}}'},
        {"auth": {"secret": "api-token"}},
        {"auth": {"secret": "api-token", "scheme": "basic", "user": "me"}},
        {"password": ""},
        {"password": None, "token": True, "secret": "***"},
        {"max_tokens": "100", "secret_name": "x", "command": ["echo", "password=x"]},
    ],
)
def test_left_alone(value: dict[str, Any]) -> None:
    assert find_clear_secrets(value, "payload") == []


def test_no_door_stores_one(tmp_path: Path) -> None:
    center, me = fake_center(tmp_path), Caller("tester", "cli")
    shell = {"name": "one", "taskType": "shell", "payload": {"command": ["true"]}}
    graph = {"steps": [{"stepKey": "a", "taskType": "shell", "payload": {"environment": {"API_TOKEN": "t-1"}}}]}
    interval = {"type": "interval", "intervalSeconds": 60, "payload": {"environment": {"PGPASSWORD": "p"}}}
    for data in (
        {**shell, "environment": {"PGPASSWORD": "p"}},
        {**shell, "payload": {"command": ["true"], "environment": {"PGPASSWORD": "p"}}},
        {**shell, "triggers": [interval]},
        {"name": "two", "taskType": "composite", "graph": {**graph, "edges": []}},
        {"name": "three", "taskType": "composite", "graph": {**graph, "edges": [], "inputs": {"password": "p"}}},
    ):
        with pytest.raises(ValidationFailed) as refused:
            tasks.save(center, data, me)
        assert "secret_in_clear" in {problem.code for problem in refused.value.problems}
    assert tasks.all_tasks(center) == []
