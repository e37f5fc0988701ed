"""What a task type may return, and what is said about the rest."""

from __future__ import annotations

import json
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict

from taskcenter.errors import ValidationFailed
from taskcenter.jsonable import size_of, to_jsonable


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@dataclass
class Row:
    id: int
    paid: Decimal


class Report(BaseModel):
    model_config = ConfigDict(extra="allow")
    day: date
    rows: list[Row]


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        (Level.HIGH, 3),
        (Colour.RED, "red"),
        (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2026-01-02T03:04:05.000006+00:00"),
        (datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=2))), "2026-01-02T00:00:00+02:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4), "03:04:00"),
        (timedelta(minutes=1.5), 90.0),
        (Decimal("3.00"), 3),
        (Decimal("-7"), -7),
        (Decimal("0.10"), "0.10"),
        (Decimal("1E+999999"), "1E+999999"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (b"\x00\xff", "AP8="),
        (bytearray(b"x"), "eA=="),
        (PurePosixPath("/tmp/x"), "/tmp/x"),
        ((1, 2), [1, 2]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        (Point(1, 2), {"x": 1, "y": 2}),
        (OrderedDict(a=1), {"a": 1}),
        (
            {1: "a", date(2026, 1, 1): "b", Colour.RED: "c", None: "d"},
            {"1": "a", "2026-01-01": "b", "red": "c", "None": "d"},
        ),
        (Row(1, Decimal("2.50")), {"id": 1, "paid": "2.50"}),
    ],
)
def test_each_known_kind_has_its_json_form(value: Any, expected: Any) -> None:
    result = to_jsonable(value)
    assert result == expected
    assert type(result) is type(expected)
    json.dumps(result, allow_nan=False)


def test_models_are_converted_by_the_same_rules_as_everything_else() -> None:
    report = Report.model_validate({"day": "2026-01-02", "rows": [Row(1, Decimal("0.1"))], "note": b"x"})
    assert to_jsonable(report) == {"day": "2026-01-02", "rows": [{"id": 1, "paid": "0.1"}], "note": "eA=="}


CYCLE: dict[str, Any] = {"rows": [{}]}
CYCLE["rows"][0]["self"] = CYCLE


@pytest.mark.parametrize(
    ("value", "path", "said"),
    [
        ({"rows": [0, 0, 0, {"x": float("nan")}]}, "result.rows[3].x", "is nan"),
        ([float("-inf")], "result[0]", "is -inf"),
        ({"d": Decimal("NaN")}, "result.d", "is NaN"),
        ({"a b": object()}, 'result["a b"]', "builtins.object"),
        (CYCLE, "result.rows[0].self", "contains itself"),
        ({1: "a", "1": "b"}, 'result["1"]', "stands twice"),
        ({"f": print}, "result.f", "builtin_function_or_method"),
        ({"t": Row}, "result.t", "builtins.type"),
        ({"n": 10**5000}, "result.n", "4000 digits"),
        ({"g": iter([1])}, "result.g", "list_iterator"),
    ],
)
def test_what_has_no_json_form_is_refused_with_its_path(value: Any, path: str, said: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        to_jsonable(value)
    (problem,) = caught.value.problems
    assert problem.path == path
    assert said in problem.message


def test_the_same_object_twice_is_no_cycle() -> None:
    row = [1]
    assert to_jsonable({"a": row, "b": row}) == {"a": [1], "b": [1]}


def test_depth_is_limited_and_the_limit_is_exact() -> None:
    nested: Any = 1
    for _ in range(64):
        nested = [nested]
    assert to_jsonable(nested) == nested
    with pytest.raises(ValidationFailed, match="nested too deeply"):
        to_jsonable([nested])
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValidationFailed, match="nested too deeply"):
        to_jsonable(deep)


def test_the_path_begins_with_the_given_word() -> None:
    with pytest.raises(ValidationFailed, match=r"payload\.x: is nan"):
        to_jsonable({"x": float("nan")}, root="payload")


def test_size_is_counted_in_bytes_of_compact_utf8() -> None:
    assert size_of({"ä": [1, 2]}) == len('{"ä":[1,2]}'.encode())
    assert size_of("\ud800") == 5
