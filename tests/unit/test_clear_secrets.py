"""A secret written out in a definition is refused with its place; references and templates are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from composites import Composite
from taskcenter.clear_secrets import find_clear_secrets, keep_out_of_parameters
from taskcenter.errors import Refused, ValidationFailed
from taskcenter.redaction import register_secret
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


@pytest.mark.parametrize(("kind", "field"), [("composite", "payload"), ("prefect_deployment", "parameters")])
def test_a_secret_is_not_handed_to_another_flow_run(kind: str, field: str) -> None:
    graph = Composite("parent")
    graph.step(
        "a", kind, payload={kind.split("_")[-1]: "a/b", field: {"x": ['{{secret("db")}}'], "y": {"secret": "db"}}}
    )
    [problem] = graph.check()
    assert (problem.code, problem.path) == ("secret_in_parameters", f"steps[0] (a).payload.{field}.x[0]")


def test_what_was_resolved_is_kept_out_of_parameters() -> None:
    register_secret("planted-in-parameters")
    register_secret("pl4nt")
    keep_out_of_parameters({"a": ["harmless", 7, None, {"secret": "db"}], "b": "has pl4nt in it"}, "x")
    for value in ({"a": [{"b": "<planted-in-parameters>"}]}, {"planted-in-parameters": 1}, ["pl4nt"]):
        with pytest.raises(Refused, match="of the composite 'x', which Prefect keeps in clear"):
            keep_out_of_parameters(value, "the composite 'x'")
