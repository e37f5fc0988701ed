"""The policy: what is said wins over what is not, the particular over the general. (spec 6.5)"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deployments import housekeeping
from deployments.spec import MANAGED_TAG
from flows.housekeeping import housekeeping as flow
from retention.history import TAGS
from retention.policy import Policy, parse, plan
from taskcenter.errors import ValidationFailed
from taskcenter.models import Task
from taskcenter.status import RunStatus
from tests.fakes import FakeGateway

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TASKS = [
    Task(id="1", slug="orders", name="orders", task_type="shell", tags=["nightly"]),
    Task(id="2", slug="billing", name="billing", task_type="shell", tags=["nightly", "money"]),
    Task(id="3", slug="mail", name="mail", task_type="shell"),
]


def days(data: dict[str, Any], task: str, status: RunStatus) -> int:
    made = plan(parse(data), TASKS, NOW)
    group = next(group for group in made.groups if group.task_ids is None or task in group.task_ids)
    return group.by_status[status]


def test_the_default_is_the_seed() -> None:
    made = plan(Policy(), (), NOW)
    assert made.plain
    assert made.latest == NOW - timedelta(days=30)
    assert (made.audit_days, made.ledger_days, made.event_days, made.prefect) == (30, 30, 30, True)


@pytest.mark.parametrize("field", ["days", "successDays", "failedDays", "cancelledDays", "auditDays", "ledgerDays"])
def test_days_lie_between_1_and_3650(field: str) -> None:
    for good in (1, 3650):
        assert parse({field: good}).to_json()[field] == good
    for bad in (0, 3651, -5):
        with pytest.raises(ValidationFailed, match=f"{field}|{field[:3]}.*1 to 3650"):
            parse({field: bad})
    for bad in ("30", 1.5, True, [1]):
        with pytest.raises(ValidationFailed):
            parse({field: bad})


def test_all_problems_at_once() -> None:
    with pytest.raises(ValidationFailed) as refused:
        parse({"days": 0, "unknown": 1, "rules": [{"task": "a", "tag": "b", "days": 4}], "holds": [{}]})
    assert [problem.path for problem in refused.value.problems] == ["days", "rules[0]", "holds[0]", "unknown"]


def test_null_puts_a_field_back() -> None:
    policy = parse({"days": 90, "failedDays": 365})
    assert parse({"failedDays": None, "days": None}, policy) == Policy()


def test_the_more_particular_rule_wins() -> None:
    failed, success = RunStatus.FAILED, RunStatus.SUCCESS
    data = {
        "days": 30,
        "failedDays": 90,
        "rules": [
            {"tag": "nightly", "days": 10},
            {"tag": "money", "days": 400, "failedDays": 800},
            {"task": "orders", "failedDays": 5},
        ],
    }
    assert (days(data, "3", success), days(data, "3", failed)) == (30, 90)
    assert (days(data, "2", success), days(data, "2", failed)) == (400, 800)  # of its tags the longest
    assert (days(data, "1", success), days(data, "1", failed)) == (10, 5)  # its own, then its tag's


def test_tasks_kept_alike_stand_in_one_group() -> None:
    made = plan(parse({"rules": [{"tag": "nightly", "keepLast": 3}]}), TASKS, NOW)
    assert [group.task_ids for group in made.groups] == [frozenset({"1", "2"}), None]
    assert not made.plain


def test_a_hold_names_a_task_by_slug_or_id() -> None:
    made = plan(parse({"holds": [{"task": "orders"}, {"task": "2"}, {"run": "r"}]}), TASKS, NOW)
    assert (made.held_tasks, made.held_runs) == ({"1", "2"}, {"r"})


def test_the_deployment_is_that_of_the_flow() -> None:
    assert flow.name == "housekeeping"
    assert housekeeping.PURGE_HISTORY["entrypoint"] == f"{flow.fn.__module__}.{flow.fn.__name__}"
    assert list(housekeeping.PURGE_HISTORY["parameter_openapi_schema"]["properties"]) == list(
        flow.parameters.properties
    )
    assert (MANAGED_TAG, *housekeeping.PURGE_HISTORY["tags"]) == TAGS


def test_the_deployment_is_brought_up_to_date_and_keeps_what_a_person_gave_it() -> None:
    gateway = FakeGateway()
    housekeeping.put(gateway)
    [made] = gateway.deployments.values()
    mine = {"schedules": [{"slug": "mine"}], "parameters": {"days": 30}, "work_queue_name": "normal"}
    gateway.update_deployment(made["id"], {**mine, "entrypoint": "of.an.older.version", "description": ""})
    housekeeping.put(gateway)
    [now] = gateway.deployments.values()
    assert now == {**housekeeping.PURGE_HISTORY, **mine, "id": made["id"], "flow_id": "flow:housekeeping"}
