"""What is said of a trigger before it is saved (spec 4.1)."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from taskcenter.models import Trigger
from taskcenter.scheduling.calendars import Calendar, Calendars, Rule
from taskcenter.scheduling.check import check_after, check_trigger
from tests.fleet import at, trigger

NOW = at("12:00:30")
KNOWN = Calendars([Calendar(name="never", exclude=(Rule(rrule="FREQ=DAILY"),)), Calendar(name="all")])


def problems(**about: Any) -> list[tuple[str, str]]:
    own = trigger(**{"cron_expression": "0 * * * *" if about.get("type", "cron") == "cron" else None, **about})
    return [(problem.path, problem.code) for problem in check_trigger(own, NOW, "", KNOWN, {"t", "a", "b"})]


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"calendar": "all", "calendar_rule": "next_working_day", "jitter_seconds": 5},
        {"type": "interval", "interval_seconds": 60, "counts_from": "completion"},
        {"type": "one_shot", "run_at": at("11:00")},
        {"type": "planned", "plan": (at("11:00"), at("13:00"))},
        {"type": "ad_hoc", "token_hash": "c0ffee"},
        {"type": "after", "task_ids": ("a", "b"), "condition": "done"},
        {"type": "startup"},
    ],
)
def test_each_type_has_a_form_that_is_right(about: dict[str, Any]) -> None:
    assert problems(**about) == []


@pytest.mark.parametrize(
    ("about", "found"),
    [
        ({"type": "planned"}, [("plan", "missing")]),
        ({"type": "planned", "plan": (at("13:00"), at("13:00"))}, [("plan[1]", "twice")]),
        ({"type": "planned", "plan": (at("13:00"),), "end_at": at("12:30")}, [("plan[0]", "window")]),
        ({"type": "one_shot", "run_at": at("13:00"), "end_at": at("12:30")}, [("runAt", "window")]),
        ({"type": "after"}, [("taskIds", "missing")]),
        (
            {"type": "after", "task_ids": ("a", "a", " ", "zzz")},
            [("taskIds[1]", "twice"), ("taskIds[2]", "blank"), ("taskIds[3]", "unknown_task")],
        ),
        ({"plan": (at("13:00"),)}, [("plan", "wrong_field")]),
        ({"token_hash": "x"}, [("tokenHash", "wrong_field")]),
        ({"task_ids": ("a",)}, [("taskIds", "wrong_field")]),
        ({"condition": "failed"}, [("condition", "wrong_field")]),
        ({"counts_from": "completion"}, [("from", "wrong_field")]),
        ({"start_at": at("14:00"), "end_at": at("13:00")}, [("endAt", "window")]),
        ({"end_at": at("12:00")}, [("endAt", "window")]),
        ({"end_at": at("12:59")}, [("endAt", "never")]),
        ({"calendar": "never"}, [("calendar", "never")]),
        ({"calendar": "unknown"}, [("calendar", "unknown_calendar")]),
        ({"calendar_rule": "next_working_day"}, [("calendar", "missing")]),
        ({"type": "startup", "jitter_seconds": 3}, [("jitterSeconds", "wrong_field")]),
        ({"type": "interval", "interval_seconds": 60, "jitter_seconds": 60}, [("jitterSeconds", "jitter")]),
        ({"cron_expression": "0 0 30 2 *"}, [("cronExpression", "never")]),
        ({"timezone": "Mars/Olympus", "plan": (NOW,)}, [("timezone", "unknown_timezone"), ("plan", "wrong_field")]),
    ],
)
def test_each_bad_field_is_named(about: dict[str, Any], found: list[tuple[str, str]]) -> None:
    assert problems(**about) == found


def refusals(**fields: Any) -> list[str]:
    """What a person is told of a trigger as it was sent: by the model when it refuses, else by the check."""
    kinds: dict[str, dict[str, Any]] = {
        "cron": {"cronExpression": "0 * * * *"},
        "interval": {"intervalSeconds": 60},
        "one_shot": {"runAt": "2026-05-04T13:00:00Z"},
        "planned": {"plan": ["2026-05-04T13:00:00Z"]},
        "after": {"taskIds": ["a"]},
    }
    sent = {"taskId": "t", **kinds.get(fields["type"], {}), **fields}
    try:
        own = Trigger.model_validate(sent)
    except ValidationError as error:
        return [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
    return [str(problem) for problem in check_trigger(own, NOW, "", KNOWN, {"t", "a", "b"})]


TYPES = ("cron", "interval", "one_shot", "planned", "ad_hoc", "after", "startup")
ANY_TYPE = [
    ({"timezone": "Mars/Olympus"}, "timezone: 'Mars/Olympus' is not a known time zone"),
    ({"timezone": ""}, "timezone: '' is not a known time zone"),
    ({"misfirePolicy": "later"}, "misfirePolicy: Input should be 'fire_now', 'skip', 'reschedule' or 'fire_all'"),
    ({"misfireByCause": {"sunshine": "skip"}}, "misfireByCause.sunshine.[key]: Input should be 'service_down'"),
    ({"misfireByCause": {"overlap": "later"}}, "misfireByCause.overlap: Input should be 'fire_now'"),
    ({"misfireGraceSeconds": -1}, "misfireGraceSeconds: Input should be greater than or equal to 0"),
    ({"misfireGraceSeconds": 1.5}, "misfireGraceSeconds: Input should be a valid integer"),
    ({"catchUp": {"max": 0}}, "catchUp.max: Input should be greater than or equal to 1"),
    ({"catchUp": {"window": 0}}, "catchUp.window: Input should be greater than 0"),
    ({"overlap": "queue"}, "overlap: Input should be 'skip', 'buffer_one', 'buffer_all', 'cancel_other' or 'allow'"),
    ({"overlapScope": "world"}, "overlapScope: Input should be 'trigger' or 'task'"),
    ({"retryPolicy": {"maxAttempts": -1}}, "retryPolicy.maxAttempts: Input should be greater than or equal to 0"),
    ({"retryPolicy": {"backoffMs": -1}}, "retryPolicy.backoffMs: Input should be greater than or equal to 0"),
    ({"retryPolicy": {"strategy": "dice"}}, "retryPolicy.strategy: Input should be 'linear', 'exponential' or 'fixed'"),
    ({"calendar": "unknown"}, "calendar: no calendar 'unknown' is known"),
    ({"calendarRule": "next_full_moon"}, "calendarRule: Input should be 'skip', 'next_working_day'"),
    ({"calendarRule": "next_working_day"}, "calendar: is missing; the rule next_working_day needs one"),
    ({"jitterSeconds": -1}, "jitterSeconds: Input should be greater than or equal to 0"),
    ({"startAt": "soon"}, "startAt: Input should be a valid datetime"),
    ({"startAt": "2026-05-06T00:00Z", "endAt": "2026-05-05T00:00Z"}, "endAt: must lie after startAt"),
    ({"endAt": "2026-05-01T00:00Z"}, "endAt: is past: the trigger would never fire"),
    ({"payload": [1]}, "payload: Input should be a valid dictionary"),
    ({"priority": "urgent"}, "priority: Input should be 'high', 'normal' or 'low'"),
    ({"enabled": "perhaps"}, "enabled: Input should be a valid boolean"),
    ({"pausedUntil": "later"}, "pausedUntil: Input should be a valid datetime"),
    ({"colour": "red"}, "colour: Extra inputs are not permitted"),
]
OF_ONE_TYPE = [
    ({"type": "sometimes"}, "type: Input should be 'cron', 'interval', 'one_shot'"),
    ({"type": "cron", "cronExpression": None}, "cronExpression: is missing; a trigger of type cron needs it"),
    ({"type": "cron", "cronExpression": "61 * * * *"}, "cronExpression: the minute 61 is outside 0 to 59"),
    ({"type": "cron", "cronExpression": "0 0 30 2 *"}, "cronExpression: '0 0 30 2 *' never comes"),
    ({"type": "cron", "cronExpression": "٥ * * * *"}, "cronExpression: "),
    ({"type": "cron", "cronSeconds": "middle"}, "cronSeconds: Input should be 'first' or 'last'"),
    ({"type": "interval", "intervalSeconds": None}, "intervalSeconds: is missing"),
    ({"type": "interval", "intervalSeconds": 0}, "intervalSeconds: must be at least 1 second"),
    ({"type": "interval", "intervalSeconds": -5}, "intervalSeconds: must be at least 1 second"),
    ({"type": "interval", "intervalSeconds": "often"}, "intervalSeconds: Input should be a valid number"),
    ({"type": "interval", "intervalSeconds": float("nan")}, "intervalSeconds: must be at least 1 second"),
    ({"type": "interval", "anchor": "noon"}, "anchor: Input should be a valid datetime"),
    ({"type": "interval", "from": "the moon"}, "from: Input should be 'schedule' or 'completion'"),
    ({"type": "interval", "jitterSeconds": 60}, "jitterSeconds: must be less than the interval of 60 seconds"),
    ({"type": "one_shot", "runAt": None}, "runAt: is missing; a trigger of type one_shot needs it"),
    ({"type": "one_shot", "runAt": "tomorrow"}, "runAt: Input should be a valid datetime"),
    ({"type": "one_shot", "startAt": "2026-05-04T14:00Z"}, "runAt: lies outside startAt and endAt"),
    ({"type": "planned", "plan": []}, "plan: is missing; a trigger of type planned needs its times"),
    ({"type": "planned", "plan": ["noon"]}, "plan.0: Input should be a valid datetime"),
    ({"type": "planned", "plan": ["2026-05-04T13:00Z"] * 2}, "plan[1]: 2026-05-04T13:00:00+00:00 stands in the plan"),
    ({"type": "after", "taskIds": []}, "taskIds: is missing; a trigger of type after needs the tasks"),
    ({"type": "after", "taskIds": ["zzz"]}, "taskIds[0]: there is no task 'zzz'"),
    ({"type": "after", "condition": "maybe"}, "condition: Input should be 'success', 'failed' or 'done'"),
    ({"type": "startup", "jitterSeconds": 5}, "jitterSeconds: does not belong to a trigger of type startup"),
]
FOREIGN = {
    "cronExpression": ("0 * * * *", {"cron"}),
    "cronSeconds": ("first", {"cron"}),
    "intervalSeconds": (60, {"interval"}),
    "anchor": ("2026-05-04T12:00Z", {"interval"}),
    "from": ("completion", {"interval"}),
    "runAt": ("2026-05-04T13:00Z", {"one_shot"}),
    "plan": (["2026-05-04T13:00Z"], {"planned"}),
    "tokenHash": ("c0ffee", {"ad_hoc"}),
    "taskIds": (["a"], {"after"}),
    "condition": ("failed", {"after"}),
}
"""Field → a good value, and the types that have it."""


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("field", "said"), ANY_TYPE)
def test_a_bad_field_of_any_type_is_told_in_a_sentence(kind: str, field: dict[str, Any], said: str) -> None:
    (told, *more) = refusals(type=kind, **field)
    assert told.startswith(said)
    assert more == []


@pytest.mark.parametrize(("sent", "said"), OF_ONE_TYPE)
def test_a_bad_field_of_one_type_is_told_in_a_sentence(sent: dict[str, Any], said: str) -> None:
    (told, *more) = refusals(**sent)
    assert told.startswith(said)
    assert more == []


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("field", FOREIGN)
def test_a_field_of_another_type_is_refused(kind: str, field: str) -> None:
    value, types = FOREIGN[field]
    said = [] if kind in types else [f"{field}: does not belong to a trigger of type {kind}"]
    found = refusals(type=kind, **{field: value})
    assert [told for told in found if "belong" in told] == said


def test_places_stand_below_the_path() -> None:
    own = trigger(type="after")
    assert [str(problem) for problem in check_trigger(own, NOW, "triggers[2]")] == [
        "triggers[2].taskIds: is missing; a trigger of type after needs the tasks that it waits for"
    ]


def after(task: str, *upstream: str) -> Trigger:
    return trigger(id=f"x-{task}", task_id=task, type="after", task_ids=upstream)


def test_tasks_that_wait_for_each_other_are_refused_with_the_way() -> None:
    names = {"1": "load", "2": "check", "3": "report"}
    found = check_after([after("1", "3"), after("2", "1"), after("3", "2", "9")], names)
    assert [problem.message for problem in found] == ["tasks wait for each other's runs: load → check → report → load"]
    assert [problem.message for problem in check_after([after("a", "a")])] == [
        "tasks wait for each other's runs: a → a"
    ]


def test_a_long_way_without_a_cycle_is_fine() -> None:
    chain = [after(str(n), str(n + 1), str(n + 2)) for n in range(5_000)]
    assert check_after(chain) == []
    assert len(check_after([*chain, after("5001", "4000")])) > 0
