"""How fast slots are computed, beside the public cron libraries. (issue B, shows 1)

    python -m benchmarks.slots [--crons 10000] [--rounds 3] [--zone UTC] [--day 2026-03-29]

All slots of many different crons over one day, and reading one cron up to its first slot. Every library gets the
same crons in the same run and must find as many slots; each cron is read anew in every round.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from taskcenter.models import Trigger
from taskcenter.scheduling import cron, walk
from taskcenter.scheduling.occurrences import next_slot, slots

AllSlots = Callable[[Sequence[str], datetime, datetime], int]
FirstSlot = Callable[[str, datetime], object]


def crons(count: int) -> list[str]:
    """A fleet as one meets it: nightly jobs, office hours, every few minutes; no two alike."""
    chance = random.Random(2026)

    def one() -> str:
        minute, hour = chance.randrange(60), chance.randrange(23)
        until, step = chance.randint(hour + 1, 23), chance.choice((2, 3, 5, 10, 15, 20, 30))
        weekday = chance.choice(("*", "*", "mon-fri", "sat,sun", "mon"))
        day = chance.choice(("*", "*", "1", "1-15", "15"))
        return chance.choice(
            (
                *(f"{minute} {hour} * * {weekday}", f"{minute} {hour} {day} * *", f"{minute} * * * {weekday}"),
                *(f"*/{step} {hour}-{until} * * {weekday}", f"{minute % 10}-59/{step} * * * {weekday}"),
                *(f"{minute},{(minute + 30) % 60} {hour}-{until} {day} * *", f"* {hour}-{until} {day} * *"),
            )
        )

    found: dict[str, None] = {}
    while len(found) < count:
        found[one()] = None
    return list(found)


def forget() -> None:
    for cache in (cron.parse, cron._field, walk.bits, walk.ticks):
        cache.cache_clear()


def ours() -> tuple[AllSlots, FirstSlot]:
    triggers: dict[tuple[str, str], Trigger] = {}  # they come from the database; making them is not measured

    def trigger(text: str, start: datetime) -> Trigger:
        zone = start.tzinfo.key if isinstance(start.tzinfo, ZoneInfo) else "UTC"
        if (text, zone) not in triggers:
            triggers[text, zone] = Trigger(type="cron", cron_expression=text, timezone=zone)
        return triggers[text, zone]

    def every(texts: Sequence[str], start: datetime, end: datetime) -> int:
        return sum(len(slots(trigger(text, start), start, end, 100_000)) for text in texts)

    return every, lambda text, start: next_slot(trigger(text, start), start)


def cronsim() -> tuple[AllSlots, FirstSlot]:
    from cronsim import CronSim  # type: ignore[import-not-found,unused-ignore]

    def every(texts: Sequence[str], start: datetime, end: datetime) -> int:
        count = 0
        for text in texts:
            for slot in CronSim(text, start):
                if slot > end:
                    break
                count += 1
        return count

    return every, lambda text, start: next(CronSim(text, start))


def croniter() -> tuple[AllSlots, FirstSlot]:
    from croniter import croniter  # type: ignore[import-untyped,unused-ignore]

    def every(texts: Sequence[str], start: datetime, end: datetime) -> int:
        count = 0
        for text in texts:
            ticks = croniter(text, start, datetime)
            while ticks.get_next() <= end:
                count += 1
        return count

    return every, lambda text, start: croniter(text, start, datetime).get_next()


def apscheduler() -> tuple[AllSlots, FirstSlot]:
    from apscheduler.triggers.cron import CronTrigger  # type: ignore[import-not-found,unused-ignore]

    def every(texts: Sequence[str], start: datetime, end: datetime) -> int:
        count = 0
        for text in texts:
            trigger = CronTrigger.from_crontab(text, timezone=start.tzinfo)
            last, now = None, start + timedelta(microseconds=1)
            while (slot := trigger.get_next_fire_time(last, now)) is not None and slot <= end:
                count += 1
                last = now = slot
        return count

    return every, lambda text, start: CronTrigger.from_crontab(text, timezone=start.tzinfo).get_next_fire_time(
        None, start + timedelta(microseconds=1)
    )


def took(work: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crons", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--zone", default="UTC")
    parser.add_argument("--day", default="2026-06-15", help="the day whose slots are computed")
    given = parser.parse_args()
    texts = crons(given.crons)
    zone = UTC if given.zone == "UTC" else ZoneInfo(given.zone)
    start = datetime.fromisoformat(given.day).replace(tzinfo=zone)
    end = (start.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=zone)

    libraries: dict[str, tuple[AllSlots, FirstSlot]] = {}
    for make in (ours, cronsim, apscheduler, croniter):
        name = "taskcenter" if make is ours else make.__name__
        try:
            libraries[name] = make()
        except ImportError:
            print(f"{name}: not installed, left out")
    days: dict[str, list[float]] = {name: [] for name in libraries}
    firsts: dict[str, list[float]] = {name: [] for name in libraries}
    counts: dict[str, int] = {}
    libraries["taskcenter"][0](texts, start, end)  # makes the triggers
    for _ in range(given.rounds):
        for name, (every, first) in libraries.items():
            forget()
            seconds, counts[name] = took(partial(every, texts, start, end))
            days[name].append(seconds)
            for text in texts[:: max(1, len(texts) // 2000)]:
                forget()  # ours remembers fields and crons; here each one is the first it ever sees
                firsts[name].append(took(partial(first, text, start))[0])

    own_day, own_first = statistics.median(days["taskcenter"]), statistics.median(firsts["taskcenter"])
    print(f"{len(texts)} different crons, {given.day} in {given.zone}, medians of {given.rounds} rounds")
    head = f"{'library':12s} {'slots':>9s} {'all slots':>10s} {'ratio':>8s}"
    print(f"{head} {'cron to first slot':>20s} {'ratio':>8s}")
    for name in libraries:
        day, first_slot = statistics.median(days[name]), statistics.median(firsts[name])
        row = f"{name:12s} {counts[name]:9d} {day:8.3f} s {day / own_day:7.1f}x"
        print(f"{row} {first_slot * 1e6:17.1f} µs {first_slot / own_first:7.1f}x")


if __name__ == "__main__":
    main()
