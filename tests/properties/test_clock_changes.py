"""Every zone, every change of its clock from 2000 to 2040: fixed times fire exactly once, wildcards are never silent.

By default the unusual zones and some by chance; all of them in CI, or with ``TASKCENTER_TEST_EVERY_ZONE=1``. Zones
whose clocks change alike (Europe/Rome, Europe/San_Marino) are walked once. The expected slots are found here by other
means: by asking the zone minute by minute and day by day.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

import pytest

from taskcenter.models import Trigger
from taskcenter.scheduling.occurrences import slots

UNUSUAL = (
    "Europe/Berlin",
    "America/New_York",
    "Europe/Dublin",  # its summer is called the standard time
    "Australia/Lord_Howe",  # half an hour
    "Antarctica/Troll",  # two hours
    "Africa/Casablanca",  # put back for Ramadan
    "Africa/El_Aaiun",
    "Asia/Gaza",  # changes days apart
    "Pacific/Apia",  # a day that never was
    "Pacific/Fakaofo",
    "America/Sao_Paulo",  # the gap is at midnight
    "America/Havana",
    "Asia/Beirut",
    "America/St_Johns",  # at one minute past midnight
    "America/Caracas",
    "Asia/Pyongyang",
    "Asia/Kathmandu",
    "America/Scoresbysund",
    "Antarctica/Casey",
    "America/Argentina/San_Luis",
)
FIRST, LAST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2041, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Change(NamedTuple):
    at: datetime
    before: timedelta
    after: timedelta


WALKED: set[tuple[Change, ...]] = set()


def chosen_zones() -> list[str]:
    every = sorted(available_timezones() - {"localtime"})
    if os.environ.get("TASKCENTER_TEST_EVERY_ZONE") or os.environ.get("CI"):
        return every
    known = [name for name in UNUSUAL if name in every]
    return known + random.sample(sorted(set(every) - set(known)), 25)


def offset(zone: ZoneInfo, instant: datetime) -> timedelta:
    found = instant.astimezone(zone).utcoffset()
    assert found is not None
    return found


def changes(zone: ZoneInfo) -> Iterator[Change]:
    low, here = FIRST, offset(zone, FIRST)
    while low < LAST:
        high = low + timedelta(hours=60)  # no zone changes its clock twice within a week
        there = offset(zone, high)
        if there != here:
            early, late = low, high
            while late - early > MINUTE:
                middle = early + (late - early) // MINUTE // 2 * MINUTE
                early, late = (early, middle) if offset(zone, middle) == there else (middle, late)
            yield Change(late, here, there)
        low, here = high, there


def expected_fixed(zone: ZoneInfo, change: Change, hour: int, minute: int) -> set[datetime]:
    """One instant for each date around the change: the first pass, or the change where the time is left out."""
    middle: date = (change.at + change.before).date()
    found = set()
    for days in range(-2, 4):
        wall = datetime(middle.year, middle.month, middle.day, hour, minute) + timedelta(days=days)
        instant = wall.replace(tzinfo=zone).astimezone(UTC)
        left_out = instant.astimezone(zone).replace(tzinfo=None, fold=0) != wall
        found.add(change.at if left_out else instant)
    return found


def cron(expression: str, zone: ZoneInfo) -> Trigger:
    return Trigger(type="cron", cron_expression=expression, timezone=zone.key)


@pytest.mark.parametrize("name", chosen_zones())
def test_at_every_change_fixed_times_fire_once_and_wildcards_are_not_silent(name: str) -> None:
    zone = ZoneInfo(name)
    found_changes = tuple(changes(zone))
    if found_changes in WALKED:
        return
    for change in found_changes:
        assert (change.after - change.before) % MINUTE == timedelta(0)
        wall = (change.at + min(change.before, change.after)).replace(tzinfo=None)
        size = abs(change.after - change.before)
        start, end = change.at - timedelta(days=1, minutes=30), change.at + timedelta(days=1, minutes=30)
        for into in (timedelta(0), size // 2, size - MINUTE, size, -MINUTE):
            time = wall + into
            found = slots(cron(f"{time.minute} {time.hour} * * *", zone), start, end, 100)
            wanted = expected_fixed(zone, change, time.hour, time.minute)
            assert found == sorted(slot for slot in wanted if start < slot <= end), (change, time)
            once = cron(f"{time.minute} {time.hour} {time.day} {time.month} *", zone)
            wanted = {slot for slot in wanted if slot in found and _stands_for(slot, time, zone, change)}
            assert set(slots(once, start, end, 100)) == wanted, (change, time)
            assert len(wanted) == 1, (change, time)
        start, end = change.at - timedelta(hours=3), change.at + timedelta(hours=3)
        minutes = [start + n * MINUTE for n in range(1, 361)]
        walls = [minute.astimezone(zone) for minute in minutes]
        assert slots(cron("* * * * *", zone), start, end, 1000) == minutes, change
        for expression, minute_step, hour_step in (
            ("*/15 * * * *", 15, 1),
            ("0 */2 * * *", 60, 2),
            ("*/20 */3 * * *", 20, 3),
        ):
            matching = [
                minute
                for minute, shown in zip(minutes, walls, strict=True)
                if shown.minute % minute_step == 0 and shown.hour % hour_step == 0
            ]
            assert slots(cron(expression, zone), start, end, 1000) == matching, (change, expression)
    WALKED.add(found_changes)


def _stands_for(slot: datetime, time: datetime, zone: ZoneInfo, change: Change) -> bool:
    real = time.replace(tzinfo=zone).astimezone(UTC)
    exists = real.astimezone(zone).replace(tzinfo=None, fold=0) == time
    return slot == (real if exists else change.at)
