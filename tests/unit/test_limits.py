"""Limits as people set them (spec 5.2)."""

from __future__ import annotations

import pytest

from taskcenter.errors import ValidationFailed
from taskcenter.scheduling.limits import connections_in, limits_json, limits_of, with_limit
from taskcenter.scheduling.state import Limits


def test_a_limit_is_set_changed_and_taken_away() -> None:
    limits = with_limit(limits_of(None), "tag", "etl", 2)
    limits = with_limit(with_limit(limits, "connection", "lake", 1), "pool", "", 6)
    assert limits_json(limits) == {"pool": 6, "task": {}, "tag": {"etl": 2}, "connection": {"lake": 1}}
    assert limits_of(limits_json(limits)) == limits
    assert limits_json(with_limit(limits, "tag", "etl", 0))["tag"] == {}
    assert limits_of({}, pool=4) == Limits(pool=4)


@pytest.mark.parametrize(
    ("scope", "name", "at_once", "path"),
    [("tags", "x", 1, "scope"), ("tag", "", 1, "name"), ("pool", "x", 1, "name"), ("tag", "x", -1, "atOnce")],
)
def test_what_is_no_limit_is_refused(scope: str, name: str, at_once: int, path: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        with_limit(Limits(), scope, name, at_once)
    assert [problem.path for problem in refused.value.problems] == [path]


def test_connections_of_a_payload() -> None:
    payload = {
        "connection": "erp",
        "source": {"connection": "erp", "table": "connection"},
        "targets": [{"connectionId": "lake"}, {"target_connection_id": "mart"}],
        "connections": 3,
        "text": "a connection",
    }
    assert connections_in(payload) == ("erp", "lake", "mart")
