"""What holds for every trigger: slots go forward, match the wall clock, and keep the DST rule in every zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from taskcenter.models import RetryPolicy, Trigger
from taskcenter.scheduling.occurrences import check_trigger, describe, next_slot, slots
from taskcenter.scheduling.retry import decide_retry, delay_after

ZONES = (
    *("UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Kolkata"),
    *("Africa/Casablanca", "Pacific/Apia", "Europe/Dublin", "Asia/Gaza", "America/St_Johns", "Antarctica/Troll"),
)
zones = st.sampled_from(ZONES)
instants = st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))
minutes = st.one_of(st.integers(0, 59).map(str), st.sampled_from(["*", "*/15", "0-10/5", "1,31"]))
hours = st.one_of(st.integers(0, 23).map(str), st.sampled_from(["*", "*/6", "0-4", "1,2,3", "23"]))
days = st.sampled_from([("*", "*"), ("1", "*"), ("*", "1-5"), ("*", "0"), ("15", "3"), ("L", "*"), ("*", "*/2")])


@st.composite
def crons(draw: st.DrawFn) -> Trigger:
    day, weekday = draw(days)
    text = f"{draw(minutes)} {draw(hours)} {day} * {weekday}"
    return Trigger(type="cron", cron_expression=text, timezone=draw(zones))


def expand(field: str, top: int) -> set[int]:
    found: set[int] = set()
    for item in field.split(","):
        span, _, step = item.partition("/")
        low, _, high = ("0-" + str(top) if span == "*" else span).partition("-")
        found |= set(range(int(low), int(high or low) + 1, int(step or 1)))
    return found


def is_real(wall: datetime, zone: ZoneInfo) -> bool:
    return wall.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None, fold=0) == wall


@given(crons(), instants)
@settings(deadline=None)
def test_slots_go_forward_and_are_the_same_however_asked(trigger: Trigger, start: datetime) -> None:
    assert check_trigger(trigger, start) == []
    assert describe(trigger).endswith(f", {trigger.timezone}")
    found = slots(trigger, start, start + timedelta(days=2000), 6)
    assert found == sorted(set(found))
    assert all(slot > start and slot.tzinfo is UTC for slot in found)
    for earlier, later in pairwise(found):
        assert next_slot(trigger, earlier) == later
        assert next_slot(trigger, later - timedelta(microseconds=1)) == later
        assert next_slot(trigger, earlier + (later - earlier) / 2) == later


@given(crons(), instants)
@settings(deadline=None)
def test_every_slot_matches_its_fields_unless_it_stands_for_a_time_in_a_gap(trigger: Trigger, start: datetime) -> None:
    zone = ZoneInfo(trigger.timezone)
    minute, hour, *_ = (trigger.cron_expression or "").split()
    for slot in slots(trigger, start, start + timedelta(days=400), 20):
        wall = slot.astimezone(zone).replace(tzinfo=None, fold=0)
        if wall.minute in expand(minute, 59) and wall.hour in expand(hour, 23):
            continue
        assert minute[0] != "*", "wildcards never fire at another wall time"
        assert hour[0] != "*", "wildcards never fire at another wall time"
        before = (slot - timedelta(microseconds=1)).astimezone(zone).replace(tzinfo=None, fold=0)
        gap = wall - before
        assert gap > timedelta(minutes=1), (slot, "is not right behind a gap")
        skipped = [before + timedelta(minutes=m) for m in range(int(gap.total_seconds() // 60) + 1)]
        assert any(s.minute in expand(minute, 59) and s.hour in expand(hour, 23) for s in skipped)


@given(zones, st.integers(2000, 2039), st.integers(0, 23), st.integers(0, 59))
@settings(deadline=None, max_examples=60)
def test_a_fixed_daily_time_fires_exactly_once_for_each_day(zone_name: str, year: int, hour: int, minute: int) -> None:
    zone = ZoneInfo(zone_name)
    trigger = Trigger(type="cron", cron_expression=f"{minute} {hour} * * *", timezone=zone_name)
    # the time of every calendar day has one instant, its first pass or what follows its gap, and those are all
    start = datetime(year, 1, 1, tzinfo=zone).astimezone(UTC) - timedelta(microseconds=1)
    end = datetime(year + 1, 1, 1, tzinfo=zone).astimezone(UTC) - timedelta(microseconds=1)
    found = slots(trigger, start, end, 1000)
    real = set()
    shifted = 0
    for number in range((datetime(year + 1, 1, 1) - datetime(year, 1, 1)).days):
        wall = datetime(year, 1, 1, hour, minute) + timedelta(days=number)
        if is_real(wall, zone):
            real.add(wall.replace(tzinfo=zone).astimezone(UTC))
        else:
            shifted += 1
    assert real <= set(found)
    assert len(real) <= len(found) <= len(real) + shifted


@given(zones, instants, st.sampled_from([1, 5, 15, 30]))
@settings(deadline=None)
def test_a_wildcard_minute_never_falls_silent(zone_name: str, start: datetime, step: int) -> None:
    trigger = Trigger(type="cron", cron_expression=f"*/{step} * * * *", timezone=zone_name)
    found = slots(trigger, start, start + timedelta(hours=12), 60)
    assert all(b - a == timedelta(minutes=step) for a, b in pairwise(found))


@given(st.floats(1, 1e6), instants, instants)
def test_an_interval_keeps_its_phase(seconds: float, anchor: datetime, after: datetime) -> None:
    trigger = Trigger(type="interval", interval_seconds=seconds, anchor=anchor)
    slot = next_slot(trigger, after)
    every = timedelta(seconds=seconds)
    assert slot is not None
    assert slot > after
    assert (slot - anchor) % every == timedelta(0)
    assert slot == anchor or slot - every <= after


@given(st.text(max_size=40), zones)
def test_no_text_makes_a_check_fail_otherwise_than_with_a_sentence(text: str, zone: str) -> None:
    trigger = Trigger(type="cron", cron_expression=text, timezone=zone)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for problem in check_trigger(trigger, now, "t"):
        assert problem.path.startswith("t.")
        assert problem.message
    describe(trigger)
    next_slot(trigger, now)


policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(0, 100),
    backoff_ms=st.integers(0, 86_400_000),
    strategy=st.sampled_from(["linear", "exponential", "fixed"]),
    max_backoff_ms=st.none() | st.integers(0, 10**12),
)


@given(policies, st.integers(1, 200), instants)
def test_a_retry_is_due_after_now_and_there_are_never_too_many(
    policy: RetryPolicy, attempt: int, now: datetime
) -> None:
    decision = decide_retry(policy, attempt, now)
    assert decision.again is (attempt <= policy.max_attempts)
    assert decision.reason
    assert delay_after(policy, attempt) <= delay_after(policy, attempt + 1)
    if decision.again:
        assert decision.due == now + timedelta(milliseconds=decision.delay_ms)
    else:
        assert (decision.delay_ms, decision.due) == (0, None)
