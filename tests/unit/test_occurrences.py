"""When triggers fire: checks, slots, the DST rule, and the sentence."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import pytest

from taskcenter.models import Trigger
from taskcenter.scheduling import occurrences
from taskcenter.scheduling.occurrences import check_trigger, describe, next_slot, slots

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DATA = Path(os.environ.get("TASKCENTER_OUTSIDE_CASES") or Path(__file__).parents[2] / ".." / "shared" / "data")


def cron(expression: str, timezone: str = "UTC") -> Trigger:
    return Trigger(type="cron", cron_expression=expression, timezone=timezone)


def walls(trigger: Trigger, start: datetime, count: int) -> list[str]:
    zone = ZoneInfo(trigger.timezone)
    found = slots(trigger, start, start + timedelta(days=4000), count)
    return [slot.astimezone(zone).isoformat(timespec="minutes") for slot in found]


def berlin(year: int, month: int, day: int, hour: int = 0) -> datetime:
    return datetime(year, month, day, hour, tzinfo=ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("0 0 30 2 *", "never comes"),
        ("0 0 * * * *", "6 fields"),
        ("0 0 * *", "4 fields instead of five"),
        ("60 * * * *", "outside 0 to 59"),
        ("0 24 * * *", "outside 0 to 23"),
        ("0 0 0 * *", "outside 1 to 31"),
        ("0 0 * 13 *", "outside 1 to 12"),
        ("0 0 * * 8", "outside 0 to 7"),
        ("0 0 * foo *", "'foo' is not a month"),
        ("H * * * *", "is not a minute"),
        ("R * * * *", "is not a minute"),
        ("*/0 * * * *", "step"),
        ("*/90 * * * *", "step"),
        ("0 22-2 * * *", "runs backwards"),
        ("0 0 * * 1–5", "plain ASCII"),
        ("٠ 0 * * *", "plain ASCII"),
        ("@reboot", "not a known macro"),
        ("@every 5m", "not a known macro"),
        ("TZ=UTC 0 0 * * *", "timezone field"),
        ("0 0 15W,1 * *", "can be used"),
        ("0 0 1,LW * *", "can be used"),
        ("0 0 * * 1,fri#2", "can be used"),
        ("0 0 0 1 1 * 2030", "no years"),
        ("CRON_TZ=UTC 0 0 * * *", "timezone field"),
        ("0 0 29 2 5#6", "is not a weekday"),
        ("0 0 LW * 1", "cannot be combined"),
        ("99999999999999999999 * * * *", "is not a minute"),
    ],
)
def test_a_cron_that_cannot_be_used_is_named_with_its_place_and_a_sentence(expression: str, said: str) -> None:
    (problem,) = check_trigger(cron(expression), NOW, "triggers[0]")
    assert problem.path == "triggers[0].cronExpression"
    assert said in problem.message
    assert next_slot(cron(expression), NOW) is None


@pytest.mark.parametrize(
    "expression",
    [
        *(
            "* * * * *",
            "0/15 * * * *",
            "@Daily",
            "0 0 L * *",
            "0 0 LW * *",
            "0 0 15W * *",
            "0 0 * * fri#2",
            "0 0 * * 5L",
        ),
        *("0 0 ? * MON-FRI", "0 0 29 2 *", "1,2,5-9/2 */3 1-7 jan,mar 7", "0 0 * * fri-sun", " 0  0 * * * "),
    ],
)
def test_every_notation_of_the_manual_is_taken(expression: str) -> None:
    assert check_trigger(cron(expression), NOW) == []
    assert next_slot(cron(expression), NOW) is not None


def test_what_croniter_reads_differently_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occurrences, "croniter_reading", lambda cron: ((), frozenset(), frozenset()))
    (problem,) = check_trigger(cron("0 0 * * *"), NOW)
    assert "croniter reads it differently" in problem.message


def test_all_mistakes_are_listed_at_once() -> None:
    trigger = Trigger(type="interval", timezone="Mars/Base", cron_expression="* * * * *", run_at=NOW)
    paths = [problem.path for problem in check_trigger(trigger, NOW)]
    assert paths == ["cronExpression", "runAt", "timezone", "intervalSeconds"]


@pytest.mark.parametrize("zone", ["Mars/Base", "America", "../etc/passwd", "", "Europe/Berlin\0", "Ëurope"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    (problem,) = check_trigger(cron("* * * * *", zone), NOW)
    assert (problem.code, problem.path) == ("unknown_timezone", "timezone")
    assert next_slot(cron("* * * * *", zone), NOW) is None


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.5, float("nan"), float("inf"), 1e300])
def test_an_interval_below_a_second_or_without_end_is_refused(seconds: float) -> None:
    (problem,) = check_trigger(Trigger(type="interval", interval_seconds=seconds), NOW)
    assert problem.path == "intervalSeconds"


@pytest.mark.parametrize("kind", ["cron", "interval", "one_shot"])
def test_the_own_field_of_a_type_is_needed(kind: Any) -> None:
    (problem,) = check_trigger(Trigger(type=kind), NOW)
    assert problem.code == "missing"
    assert next_slot(Trigger(type=kind), NOW) is None


def test_a_fixed_time_in_the_spring_gap_fires_once_at_the_first_minute_after_it() -> None:
    found = walls(cron("30 2 * * *", "Europe/Berlin"), berlin(2026, 3, 28, 12), 2)
    assert found == ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]
    # two times inside the gap and one right behind it are still one slot
    assert walls(cron("0,30 2,3 * * *", "Europe/Berlin"), berlin(2026, 3, 29), 2) == [
        "2026-03-29T03:00+02:00",
        "2026-03-29T03:30+02:00",
    ]


def test_a_fixed_time_in_the_autumn_overlap_fires_in_the_first_pass_only() -> None:
    found = walls(cron("30 2 * * *", "Europe/Berlin"), berlin(2026, 10, 25), 2)
    assert found == ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]


def test_wildcards_follow_elapsed_time_through_gap_and_overlap() -> None:
    every_half_hour = cron("*/30 * * * *", "Europe/Berlin")
    for day in (berlin(2026, 3, 29), berlin(2026, 10, 25)):
        found = slots(every_half_hour, day, day.astimezone(UTC) + timedelta(hours=6), 100)
        assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(minutes=30)}


def test_a_gap_of_a_whole_day_is_a_gap_like_any_other() -> None:
    # Samoa had no 30 December 2011
    found = walls(cron("0 2 * * *", "Pacific/Apia"), datetime(2011, 12, 29, 13, tzinfo=UTC), 2)
    assert found == ["2011-12-31T00:00+14:00", "2011-12-31T02:00+14:00"]


def test_day_and_weekday_are_either_or_unless_one_begins_with_a_star() -> None:
    assert walls(cron("0 0 1 * mon"), NOW, 2) == ["2026-01-05T00:00+00:00", "2026-01-12T00:00+00:00"]
    assert walls(cron("1 1 1-7 * */7"), datetime(2020, 1, 1, tzinfo=UTC), 2)[0] == "2020-01-05T01:01+00:00"


def test_last_working_day() -> None:
    found = walls(cron("0 9 LW * *"), NOW, 5)
    assert [day[:10] for day in found] == ["2026-01-30", "2026-02-27", "2026-03-31", "2026-04-30", "2026-05-29"]


@pytest.mark.parametrize(
    ("expression", "days"),
    [
        ("0 0 15W * *", ["01-15", "02-16", "03-16", "04-15", "05-15", "06-15", "07-15", "08-14"]),
        ("0 0 1W * *", ["01-01", "02-02", "03-02", "04-01", "05-01", "06-01", "07-01", "08-03"]),
        ("0 0 31W * *", ["01-30", "02-27", "03-31", "04-30", "05-29", "06-30", "07-31", "08-31"]),
        ("0 0 1,L * *", ["01-01", "01-31", "02-01", "02-28"]),
        ("0 0 * * fri#5", ["01-30", "05-29", "07-31", "10-30"]),
        ("0 0 * * 0L", ["01-25", "02-22", "03-29"]),
        ("0 0 10 * 1#1", ["01-05", "01-10", "02-02", "02-10"]),
        ("0 0 5-5 * *", ["01-05", "02-05"]),
        ("0 0 * * 7", ["01-04", "01-11"]),
        ("0 0 * 2 1/3", ["02-02", "02-05", "02-09"]),
    ],
)
def test_days_that_only_the_calendar_knows(expression: str, days: list[str]) -> None:
    found = walls(cron(expression), datetime(2025, 12, 31, 23, tzinfo=UTC), len(days))
    assert [day[5:10] for day in found] == days


def with_seconds(expression: str, position: Literal["first", "last"], timezone: str = "UTC") -> Trigger:
    return Trigger(type="cron", cron_expression=expression, timezone=timezone, cron_seconds=position)


def test_seconds_stand_where_the_caller_says() -> None:
    first, last = with_seconds("15,45 30 2 * * *", "first"), with_seconds("30 2 * * * 15,45", "last")
    expected = [NOW + timedelta(hours=2, minutes=30, seconds=s) for s in (15, 45)]
    for trigger in (first, last):
        assert check_trigger(trigger, NOW) == []
        assert slots(trigger, NOW, NOW + timedelta(days=1), 9) == expected
        assert next_slot(trigger, expected[0]) == expected[1]
    many = slots(with_seconds("* * * * * *", "first"), NOW, NOW + timedelta(days=1), 10**6)
    assert len(many) == 86_400
    (problem,) = check_trigger(with_seconds("0 0 * * *", "last"), NOW)
    assert "5 fields instead of six: minute hour day month weekday second" in problem.message
    assert next_slot(with_seconds("@daily", "first"), NOW) == NOW + timedelta(days=1)
    misplaced = Trigger(type="interval", interval_seconds=5, cron_seconds="first")
    assert [problem.path for problem in check_trigger(misplaced, NOW)] == ["cronSeconds"]


def test_with_seconds_even_a_fixed_time_follows_the_clock() -> None:
    # Debian's cron knows no seconds, and its rule is for five fields: left out in the gap, twice in the overlap.
    trigger = with_seconds("0 30 2 * * *", "first", "Europe/Berlin")
    assert walls(trigger, berlin(2026, 3, 28, 12), 1) == ["2026-03-30T02:30+02:00"]
    assert walls(trigger, berlin(2026, 10, 25), 2) == ["2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00"]


def test_the_ends_of_the_calendar_are_no_error() -> None:
    for year in (1, 2, 9998, 9999):
        for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):
            for expression in ("* * * * *", "0 0 1 1 *", "0 0 30 2 *"):
                for day in (datetime(year, 1, 1, tzinfo=UTC), datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC)):
                    slot = next_slot(cron(expression, zone), day)
                    assert slot is None or slot > day
                    slots(cron(expression, zone), day, datetime.max.replace(tzinfo=UTC), 3)


def test_an_interval_keeps_its_phase_and_never_drifts() -> None:
    trigger = Trigger(type="interval", interval_seconds=0.1 + 1.2, anchor=NOW)
    assert next_slot(trigger, NOW - timedelta(days=1)) == NOW
    assert next_slot(trigger, NOW) == NOW + timedelta(seconds=1.3)
    assert next_slot(trigger, NOW + timedelta(seconds=1.3 * 10**6)) == NOW + timedelta(seconds=1.3 * (10**6 + 1))


def test_a_one_shot_comes_once() -> None:
    trigger = Trigger(type="one_shot", run_at=NOW)
    assert next_slot(trigger, NOW - timedelta(seconds=1)) == NOW
    assert next_slot(trigger, NOW) is None
    assert check_trigger(trigger, NOW + timedelta(days=1)) == []  # a past time is due now, not a mistake


def test_planned_times_come_once_each_and_events_have_no_slots() -> None:
    plan = tuple(NOW + timedelta(hours=hour) for hour in (5, 1, 3))
    assert slots(Trigger(type="planned", plan=plan), NOW, NOW + timedelta(hours=4), 9) == [plan[1], plan[2]]
    for kind in ("ad_hoc", "after", "startup"):
        trigger = Trigger(type=kind)
        assert check_trigger(trigger, NOW) == []
        assert next_slot(trigger, NOW) is None


def test_slots_are_limited_and_end_inclusive() -> None:
    assert len(slots(cron("* * * * *"), NOW, NOW + timedelta(days=9), 7)) == 7
    assert slots(cron("0 * * * *"), NOW, NOW + timedelta(hours=2), 99) == [NOW + timedelta(hours=h) for h in (1, 2)]
    assert slots(cron("0 * * * *"), NOW, NOW, 99) == []
    assert next_slot(cron("0 0 1 1 *"), datetime(9999, 12, 31, tzinfo=UTC)) is None


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("30 2 * * 1-5", "at 02:30 every weekday, Europe/Berlin"),
        ("@daily", "at 00:00 every day, Europe/Berlin"),
        ("*/5 * * * *", "every 5 minutes, Europe/Berlin"),
        ("* * * * *", "every minute, Europe/Berlin"),
        ("* 2 * * *", "every minute of hour 2, Europe/Berlin"),
        ("5 */2 * * *", "at minute 5 of every 2nd hour, Europe/Berlin"),
        ("0 6,18 * * 0,6", "at 06:00 and 18:00 every Saturday and Sunday, Europe/Berlin"),
        ("0 0 L * *", "at 00:00 on the last day of the month, Europe/Berlin"),
        ("0 0 * * 5#2", "at 00:00 every 2nd Friday of the month, Europe/Berlin"),
        ("0 0 1 jan,jul *", "at 00:00 on day 1 of the month in January and July, Europe/Berlin"),
        ("0 0 1 * mon", "at 00:00 on day 1 of the month and also every Monday, Europe/Berlin"),
    ],
)
def test_a_trigger_says_in_words_when_it_fires(expression: str, sentence: str) -> None:
    assert describe(cron(expression, "Europe/Berlin")) == sentence


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("15 30 2 * * 1-5", "at 02:30:15 every weekday, UTC"),
        ("*/10 * * * * *", "every 10 seconds, UTC"),
        ("5 * * * * *", "at second 5 of every minute, UTC"),
        ("0,30 */5 * * * *", "at seconds 0 and 30 of every 5 minutes, UTC"),
        ("* 30 2 * * *", "every second of 02:30 every day, UTC"),
        ("0 30 2 1-7 * */7", "at 02:30 on days 1 to 7 of the month and only when it is every Sunday, UTC"),
    ],
)
def test_seconds_are_said_in_words(expression: str, sentence: str) -> None:
    assert describe(with_seconds(expression, "first")) == sentence


def test_the_other_types_say_it_too() -> None:
    assert describe(Trigger(type="interval", interval_seconds=900)) == "every 15 minutes"
    assert describe(Trigger(type="interval", interval_seconds=3600, anchor=NOW)) == (
        "every hour, counted from 2026-01-01 00:00:00 UTC"
    )
    assert describe(Trigger(type="one_shot", run_at=NOW)) == "once at 2026-01-01 00:00:00 UTC"
    after_each = Trigger.model_validate({"type": "interval", "intervalSeconds": 60, "from": "completion"})
    assert describe(after_each) == "1 minute after the end of the run before"
    assert describe(Trigger(type="planned", plan=(NOW,))).startswith("at 1 planned time")
    assert describe(Trigger(type="after", task_ids=("a",))) == "each time the other task succeeds"
    assert describe(Trigger(type="startup")) == "once when the service starts"
    assert describe(cron("61 * * * *")).startswith("never: the cron expression")


# --- cases of other projects ------------------------------------------------------------------------------------------


def outside(name: str) -> list[dict[str, Any]]:
    path = DATA / name
    if not path.exists():
        reason = f"outside cases are not here: {path} (set TASKCENTER_OUTSIDE_CASES)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    cases: list[dict[str, Any]] = json.loads(path.read_text())["cases"]
    return cases


LEFT_OUT = {
    # robfig: a star with a step is no star, so day or weekday; Vixie, and so we: then both must match
    ("* * */10 * Sun", "Sun Jul 15 00:00 2012"),
    ("0 0 0 */5 Apr,Aug,Oct Mon", "Mon Jul 9 23:35 2012"),
}


def seconds_first(expression: str, timezone: str) -> Trigger:
    """Five fields as they are; six have their seconds first, as both projects write them."""
    position: Literal["first"] | None = "first" if len(expression.split()) == 6 else None
    return Trigger(type="cron", cron_expression=expression, timezone=timezone, cron_seconds=position)


def test_slots_are_those_of_debian_cron() -> None:
    for case in outside("cron_debian_half.json"):
        trigger = seconds_first(case["expr"], case["tz"] or "UTC")
        zone = ZoneInfo(trigger.timezone)
        start = datetime(*case["start"]).replace(tzinfo=zone)
        assert check_trigger(trigger, start) == [], case["test"]
        found = slots(trigger, start, start + timedelta(days=4000), len(case["expect"]))
        got = [slot.astimezone(zone) for slot in found]
        if case["tz"] is None:
            assert [g.replace(tzinfo=None) for g in got] == list(map(datetime.fromisoformat, case["expect"])), case
        else:
            assert [g.isoformat() for g in got] == case["expect"], case


def test_slots_are_those_of_robfig_cron() -> None:
    left_out = set()
    for case in outside("cron_robfig_half.json"):
        if (case["spec"], case["time"]) in LEFT_OUT:
            left_out.add((case["spec"], case["time"]))
            continue
        trigger, at = _robfig(case)
        assert check_trigger(trigger, at) == [] or case["expect"] == "", case
        if isinstance(case["expect"], bool):
            assert (next_slot(trigger, at - timedelta(seconds=1)) == at) is case["expect"], case
        elif not case["expect"]:
            assert next_slot(trigger, at) is None, case
        else:
            assert next_slot(trigger, at) == _robfig_time(case["expect"], trigger.timezone), case
    assert left_out <= LEFT_OUT


def _robfig(case: dict[str, Any]) -> tuple[Trigger, datetime]:
    zone, spec, time = "UTC", case["spec"], case["time"]
    if "TZ=" in spec:
        named, spec = spec.split(" ", 1)
        zone = named.split("=")[1]
    if time.startswith("TZ="):
        named, time = time.split(" ", 1)
        zone = named.split("=")[1]
    at = _robfig_time(time, zone)
    if time.endswith("+0530"):
        zone = "Asia/Kolkata"  # robfig evaluates in the zone of the given time
    return seconds_first(spec, zone), at


def _robfig_time(text: str, zone: str) -> datetime:
    if text[:4].isdigit():
        return datetime.fromisoformat(text).astimezone(UTC)
    parts = text.split(" ", 1)[1]  # the named weekday is not always right in the cases
    for form in ("%b %d %H:%M:%S %Y", "%b %d %H:%M %Y"):
        try:
            return datetime.strptime(parts, form).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
        except ValueError:
            continue
    raise AssertionError(text)
