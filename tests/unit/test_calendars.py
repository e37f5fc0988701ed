"""Named calendars, what they do to slots, and their import (spec 4.7)."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from taskcenter.scheduling.apply import apply
from taskcenter.scheduling.calendars import Calendar, Calendars, DayRange, Rule, Span, TimeRange, check_calendar
from taskcenter.scheduling.decide import decide
from taskcenter.scheduling.ics import calendar_from_ics
from taskcenter.scheduling.ledger import Verdict
from taskcenter.scheduling.state import State
from taskcenter.scheduling.timetable import next_run
from tests.fleet import at, fleet, told, trigger

WEEKEND = Rule(weekdays=("sat", "sun"), note="weekend")
WORKDAYS = Calendar(name="workdays", timezone="Europe/Berlin", exclude=(WEEKEND,))


def has(when: str, *rules: Rule, timezone: str = "UTC", **more: Any) -> bool:
    calendar = Calendar(name="c", timezone=timezone, include=rules, **more)
    return Calendars([calendar]).has("c", at(when))


# --- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "inside", "outside"),
    [
        (Rule(dates=frozenset({date(2026, 5, 4)})), "2026-05-04 23:59", "2026-05-05 00:00"),
        (Rule(weekdays=("mon", "tue")), "2026-05-05 12:00", "2026-05-06 12:00"),
        (
            Rule(ranges=(DayRange(first=date(2026, 5, 4), last=date(2026, 5, 6)),)),
            "2026-05-06 23:59",
            "2026-05-07 00:00",
        ),
        (Rule(times=(TimeRange(first=time(9), last=time(17)),)), "2026-05-04 09:00", "2026-05-04 17:00"),
        (Rule(times=(TimeRange(first=time(22), last=time(6)),)), "2026-05-04 05:59", "2026-05-04 06:00"),
        (
            Rule(spans=(Span(first=at("10:00"), last=at("11:00")),)),
            "2026-05-04 10:00",
            "2026-05-04 11:00",
        ),
        (Rule(rrule="FREQ=MONTHLY;BYDAY=-1FR"), "2026-05-29 12:00", "2026-05-22 12:00"),
        (Rule(rrule="FREQ=YEARLY;BYMONTH=12;BYMONTHDAY=25"), "2030-12-25 08:00", "2030-12-26 00:00"),
    ],
)
def test_each_kind_of_rule(rule: Rule, inside: str, outside: str) -> None:
    assert has(inside, rule)
    assert not has(outside, rule)


def test_days_are_those_of_the_calendars_zone() -> None:
    monday = Rule(weekdays=("mon",))
    assert has("2026-05-03 22:30", monday, timezone="Europe/Berlin")
    assert not has("2026-05-03 22:30", monday)


def test_within_a_rule_all_kinds_must_match() -> None:
    friday_evening = Rule(weekdays=("fri",), times=(TimeRange(first=time(18), last=time(6)),))
    assert has("2026-05-08 18:00", friday_evening)
    assert has("2026-05-09 05:00", friday_evening), "the night belongs to the Friday on which it began"
    assert not has("2026-05-08 05:00", friday_evening)


def test_a_recurrence_with_times_lasts_as_long_as_it_says() -> None:
    patch_night = Rule(
        rrule="FREQ=MONTHLY;BYDAY=2TU",
        starts=datetime(2026, 1, 13, 22),
        lasts=6 * 3600,
        but_not=frozenset({date(2026, 6, 9)}),
    )
    assert has("2026-05-12 22:00", patch_night)
    assert has("2026-05-13 03:59", patch_night)
    assert not has("2026-05-13 04:00", patch_night)
    assert not has("2026-06-09 23:00", patch_night)


def test_exclude_wins_and_other_calendars_can_be_used() -> None:
    holidays = Calendar(name="holidays", include=(Rule(dates=frozenset({date(2026, 5, 1)}), note="Labour Day"),))
    working = Calendar(name="working", exclude=(WEEKEND, Rule(calendar="holidays", note="a holiday")))
    known = Calendars([holidays, working])
    assert known.why_not("working", at("2026-05-01 12:00")) == "a holiday"
    assert known.why_not("working", at("2026-05-02 12:00")) == "weekend"
    assert known.has("working", at("2026-05-04 12:00"))


def test_an_unknown_calendar_has_no_time() -> None:
    assert Calendars().why_not("gone", at("12:00")) == "no calendar 'gone' is known"


# --- checks -----------------------------------------------------------------------------------------------------------


def problems(*rules: Rule, others: Calendars | None = None, **about: Any) -> list[tuple[str, str]]:
    calendar = Calendar(**{"name": "c", "exclude": rules, **about})
    return [(problem.path, problem.code) for problem in check_calendar(calendar, others or Calendars())]


def test_all_problems_of_a_calendar_are_told_at_once() -> None:
    assert problems(
        Rule(note="nothing"),
        Rule(rrule="FREQ=SECONDLY"),
        Rule(rrule="FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"),
        Rule(rrule="FREQ=DAILY;INTERVAL=0"),
        Rule(rrule="FREQ=WEEKLY;BYDAY=XX"),
        Rule(calendar="unknown"),
        Rule(weekdays=("mon",), lasts=60),
        Rule(ranges=(DayRange(first=date(2026, 5, 4), last=date(2026, 5, 3)),)),
        timezone="Mars/Olympus",
    ) == [
        ("calendar.timezone", "unknown_timezone"),
        ("calendar.exclude[0]", "empty"),
        ("calendar.exclude[1].rrule", "rrule"),
        ("calendar.exclude[2].rrule", "rrule"),
        ("calendar.exclude[3].rrule", "rrule"),
        ("calendar.exclude[4].rrule", "rrule"),
        ("calendar.exclude[5].calendar", "unknown_calendar"),
        ("calendar.exclude[6]", "wrong_field"),
        ("calendar.exclude[7].ranges[0]", "backwards"),
    ]


def test_a_calendar_made_of_itself_is_refused_with_the_way() -> None:
    others = Calendars([Calendar(name="b", include=(Rule(calendar="c"),))])
    found = check_calendar(Calendar(name="c", include=(Rule(calendar="b"),)), others)
    assert [problem.message for problem in found] == ["the calendar is made of itself: c → b → c"]


def test_a_field_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValidationError):
        Calendar.model_validate({"name": "c", "include": [{"weekday": ["mon"]}]})


# --- slots ------------------------------------------------------------------------------------------------------------


def daily(rule: str, cursor: str, **about: Any) -> State:
    """Every day at 02:30 in Berlin, on working days. 2 May 2026 is a Saturday."""
    own = trigger(
        **{
            "cron_expression": "30 2 * * *",
            "timezone": "Europe/Berlin",
            "calendar": "workdays",
            "calendar_rule": rule,
            **about,
        }
    )
    return fleet(own, cursor=at(cursor), calendars=Calendars([WORKDAYS]))


def decide_all(state: State, *times: str) -> dict[str, Verdict]:
    found: dict[str, Verdict] = {}
    for text in times:
        decisions = decide(state, at(text))
        found |= {f"{row.slot:%d %H:%M}": row.verdict for row in decisions.occurrences}
        state = apply(state, decisions)
    return found


def test_an_excluded_slot_is_skipped_and_says_so() -> None:
    state = daily("skip", "2026-05-01 12:00")
    decisions = decide(state, at("2026-05-02 00:30"))
    assert told(decisions) == {"00:30": Verdict.SKIPPED}
    assert str(decisions.occurrences[0].reason) == "the calendar workdays excludes it: weekend"
    assert decisions.moves[0].next_run_at == at("2026-05-04 00:30")
    assert decisions.moves[0].next_slot == at("2026-05-03 00:30")


def test_the_next_working_day_takes_an_excluded_slot() -> None:
    monthly = daily("next_working_day", "2026-05-01 12:00", cron_expression="30 2 2,3 * *")
    assert next_run(monthly.triggers[0], at("2026-05-01 12:00"), monthly.calendars) == at("2026-05-04 00:30")
    found = decide_all(monthly, "2026-05-02 00:30", "2026-05-03 00:30", "2026-05-04 00:30", "2026-05-05 00:30")
    assert found == {"02 00:30": Verdict.SKIPPED, "03 00:30": Verdict.SKIPPED, "04 00:30": Verdict.FIRED}


def test_a_moved_slot_tells_whence_and_whither() -> None:
    state = daily("next_working_day", "2026-05-01 12:00", cron_expression="30 2 3 * *")
    first = decide(state, at("2026-05-03 00:30"))
    assert first.occurrences[0].data["movedTo"] == at("2026-05-04 00:30").isoformat()
    second = decide(apply(state, first), at("2026-05-04 00:30"))
    assert second.occurrences[0].data["movedFrom"] == at("2026-05-03 00:30").isoformat()


def test_the_previous_working_day_takes_it_before_its_time() -> None:
    state = daily("previous_working_day", "2026-04-29 12:00", cron_expression="30 2 3 * *")
    found = decide_all(state, "2026-04-30 00:30", "2026-05-01 00:30", "2026-05-03 00:30", "2026-05-04 00:30")
    assert found == {"01 00:30": Verdict.FIRED, "03 00:30": Verdict.SKIPPED}


def test_a_moved_slot_that_meets_one_of_the_timetable_makes_no_second_run() -> None:
    state = daily("next_working_day", "2026-05-01 12:00")
    found = decide_all(state, "2026-05-02 00:30", "2026-05-03 00:30", "2026-05-04 00:30")
    assert list(found.values()) == [Verdict.SKIPPED, Verdict.SKIPPED, Verdict.FIRED]


def test_a_move_across_a_clock_change_keeps_the_wall_time() -> None:
    state = daily("next_working_day", "2026-03-27 12:00", cron_expression="30 3 28 * *")  # the clocks go ahead on 29
    assert next_run(state.triggers[0], at("2026-03-27 12:00"), state.calendars) == at("2026-03-30 01:30")


def test_single_times_move_too() -> None:
    own = trigger(
        type="planned",
        plan=(at("2026-05-02 08:00"),),
        calendar="workdays",
        calendar_rule="next_working_day",
        timezone="UTC",
    )
    state = fleet(own, since=at("2026-05-01 00:00"), calendars=Calendars([WORKDAYS]))
    found = decide_all(state, "2026-05-02 08:00", "2026-05-04 08:00", "2026-05-05 08:00")
    assert found == {"02 08:00": Verdict.SKIPPED, "04 08:00": Verdict.FIRED}


def test_a_blackout_window_is_a_calendar() -> None:
    blackout = Calendar(name="quiet", exclude=(Rule(times=(TimeRange(first=time(8), last=time(10)),)),))
    own = trigger(cron_expression="0 * * * *", calendar="quiet")
    state = fleet(own, cursor=at("07:30"), calendars=Calendars([blackout]))
    found = decide_all(state, "08:00", "09:00", "10:00")
    assert list(found.values()) == [Verdict.SKIPPED, Verdict.SKIPPED, Verdict.FIRED]


def test_nothing_lies_outside_the_window_of_a_trigger() -> None:
    own = trigger(cron_expression="0 * * * *", start_at=at("10:00"), end_at=at("11:30"), overlap="allow")
    assert decide_all(fleet(own, cursor=at("07:30")), "09:00", "10:00", "11:00", "12:00") == {
        "04 10:00": Verdict.FIRED,
        "04 11:00": Verdict.FIRED,
    }


def test_no_slot_moves_out_of_the_window() -> None:
    """3 May is a Sunday; the Friday before it lies before startAt, so that nothing stands in for it."""
    about = {"cron_expression": "30 2 3 * *", "start_at": at("2026-05-02 00:00")}
    state = daily("previous_working_day", "2026-04-29 12:00", **about)
    decisions = decide(state, at("2026-05-03 00:30"))
    assert told(decisions) == {"00:30": Verdict.SKIPPED}
    assert "movedTo" not in decisions.occurrences[0].data


# --- import -----------------------------------------------------------------------------------------------------------

ICS = """BEGIN:VCALENDAR
BEGIN:VEVENT
SUMMARY:Labour Day\\, everywhere
DTSTART;VALUE=DATE:20260501
DTEND;VALUE=DATE:20260502
BEGIN:VALARM
DTSTART:19990101T000000
END:VALARM
END:VEVENT
BEGIN:VEVENT
SUMMARY:Maint
 enance
DTSTART;TZID=America/New_York:20260506T200000
DURATION:PT2H30M
END:VEVENT
BEGIN:VEVENT
SUMMARY:Patch night
DTSTART:20260105T220000Z
DTEND:20260106T020000Z
RRULE:FREQ=WEEKLY;BYDAY=MO;UNTIL=20261231T000000Z
EXDATE:20260511T220000Z
END:VEVENT
BEGIN:VEVENT
STATUS:CANCELLED
DTSTART;VALUE=DATE:20260507
END:VEVENT
BEGIN:VEVENT
SUMMARY:no start
END:VEVENT
BEGIN:VEVENT
DTSTART:someday
END:VEVENT
BEGIN:VEVENT
DTSTART:20260105T220000Z
DTEND:20260106T020000Z
RRULE:FREQ=SECONDLY
END:VEVENT
END:VCALENDAR
"""


def test_an_ics_text_becomes_a_calendar_and_what_cannot_is_told() -> None:
    calendar, found = calendar_from_ics("public", ICS)
    known = Calendars([calendar])
    assert known.why_not("public", at("2026-05-01 12:00")) == "Labour Day, everywhere"
    assert known.has("public", at("2026-05-02 00:00"))
    assert known.why_not("public", at("2026-05-07 02:29")) == "Maintenance"
    assert known.has("public", at("2026-05-07 02:30"))
    assert known.why_not("public", at("2026-05-05 01:59")) == "Patch night"
    assert known.has("public", at("2026-05-11 23:00"))
    assert known.has("public", at("2027-01-04 23:00"))
    assert [(problem.path, problem.severity) for problem in found] == [
        ("events[4]", "warning"),
        ("events[5]", "warning"),
        ("events[6]", "warning"),
    ]


@pytest.mark.parametrize("text", ["", "BEGIN:VEVENT", "\x00\x01", "BEGIN:VCALENDAR\nEND:VCALENDAR", ";;;:::"])
def test_a_text_without_events_says_so(text: str) -> None:
    calendar, found = calendar_from_ics("empty", text)
    assert (calendar.exclude, [problem.code for problem in found]) == ((), ["empty"])


def test_events_may_be_what_a_calendar_has() -> None:
    calendar, _ = calendar_from_ics("only", ICS, use="include")
    assert Calendars([calendar]).has("only", at("2026-05-01 12:00"))
    assert not Calendars([calendar]).has("only", at("2026-05-02 12:00"))


def test_a_long_calendar_is_asked_quickly() -> None:
    days = frozenset(date(2020, 1, 1) + timedelta(days=n) for n in range(0, 5_000, 2))
    known = Calendars([Calendar(name="c", include=(Rule(dates=days), Rule(rrule="FREQ=DAILY;INTERVAL=2")))])
    assert sum(known.has("c", at("2026-05-04 00:00") + timedelta(hours=n)) for n in range(2_000)) > 0
