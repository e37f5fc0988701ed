"""How much a look at a large fleet costs, and a week of it on a virtual clock. (issue B, shows 5 and 7)

    python -m benchmarks.scheduling [--triggers 10000] [--tasks 1000] [--days 7] [--rounds 5]

A tick decides about every trigger of a fleet as one meets it (four of five crons, intervals, one-shots, and what
fires by a request), with runs made ahead, at four moments: when nothing is due, in the minute in which most are, when
all of them are due at once, and after an outage of an hour. Its bar is 1 s of CPU and 300 MB for the whole process.
The simulation's bar is 20 s, and the same seed must give the same output to the last row, also with an outage and a
pause. Ends with 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any

from benchmarks.slots import crons
from taskcenter.models import Trigger
from taskcenter.scheduling.apply import apply
from taskcenter.scheduling.decide import decide
from taskcenter.scheduling.simulate import simulate
from taskcenter.scheduling.simulation import Durations, Simulation
from taskcenter.scheduling.state import Horizon, Limits, State, TaskState, TriggerState

START = datetime(2026, 6, 15, tzinfo=UTC)
ZONES = ("UTC", "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata")
TICK_SECONDS, TICK_MEGABYTES, SIMULATION_SECONDS = 1.0, 300, 20.0


def fleet(triggers: int, tasks: int, kind: str = "dense") -> tuple[State, Durations]:
    """``triggers`` of ``tasks``. The crons of a *dense* fleet fire up to every minute, most of a *nightly* one once a
    day, most of an *hourly* one once an hour."""
    chance = random.Random(7)
    often = {"nightly": (0.8, 0.97), "hourly": (0.1, 0.9)}
    texts = crons(triggers) if kind == "dense" else [_cron(chance, *often[kind]) for _ in range(triggers)]
    made = [_trigger(chance, number, f"t{number % tasks}", texts[number]) for number in range(triggers)]
    states = [TriggerState(trigger, START - timedelta(days=30), START) for trigger in made]
    known = {f"t{n}": TaskState(f"t{n}", f"task-{n}", max_concurrent=n % 3 and 1) for n in range(tasks)}
    history = {name: [20 + chance.random() * 200 for _ in range(20)] for name in known}
    return State(states, known, limits=Limits(pool=40)), Durations(history)


def _trigger(chance: random.Random, number: int, task: str, cron: str) -> Trigger:
    about: dict[str, Any] = {"id": f"x{number}", "task_id": task, "timezone": chance.choice(ZONES)}
    match number % 20:
        case 0 | 1:
            anchor = START - timedelta(seconds=chance.randrange(86_400))
            return Trigger(type="interval", interval_seconds=chance.choice((600, 3600, 86_400)), anchor=anchor, **about)
        case 2:
            run_at = START + timedelta(seconds=chance.randrange(7 * 86_400))
            return Trigger(type="one_shot", run_at=run_at, **about)
        case 3:
            return Trigger(type="ad_hoc", token_hash=f"{number:064x}", **about)
    return Trigger(type="cron", cron_expression=cron, **about)


def _cron(chance: random.Random, daily: float, hourly: float) -> str:
    minute, kind = chance.randrange(60), chance.random()
    if kind < daily:
        return f"{minute} {chance.randrange(24)} * * *"
    return f"{minute} * * * *" if kind < hourly else f"{minute % 15}-59/15 * * * *"


def cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.process_time()
    result = work()
    return time.process_time() - begin, result


def megabytes() -> float:
    """The most that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def settled(state: State, at: datetime) -> State:
    """All that is due at ``at`` is decided, and every run is made ahead."""
    while True:
        decisions = decide(state, at)
        state = apply(state, decisions)
        if not decisions.unfinished:
            return replace(state, runs=())


def ticks(count: int, rounds: int) -> list[str]:
    """The bars that are missed."""
    state = replace(fleet(count, count)[0], horizon=Horizon())
    first, decisions = cpu(lambda: decide(state, START))
    print(f"tick over {count} triggers, the best of {rounds} rounds")
    print(f"  first look       {first:6.3f} s CPU, {len(decisions.runs)} runs made ahead")
    state, every_minute = settled(state, START), settled(minutely(count), START)
    hour = settled(state, START + timedelta(minutes=59, seconds=55))
    moments = {
        "nothing due": (state, START + timedelta(seconds=1)),
        "a full hour": (hour, START + timedelta(hours=1)),
        "all at once": (every_minute, START + timedelta(minutes=1)),
        "an hour away": (state, START + timedelta(hours=1, seconds=90)),
    }
    worst = first
    for name, (given, at) in moments.items():
        rounds_of = [cpu(partial(decide, given, at)) for _ in range(rounds)]
        took, last = min(rounds_of, key=lambda one: one[0])
        worst = max(worst, took)
        rows = sum(row.count for row in last.occurrences)
        print(f"  {name:16s} {took:6.3f} s CPU, {rows} verdicts, {len(last.runs)} runs")
    held = megabytes()
    print(f"  memory: {held:.0f} MB in all")
    missed = [f"a tick took {worst:.2f} s of CPU"] if worst > TICK_SECONDS else []
    return [*missed, *([f"{held:.0f} MB were held"] if held > TICK_MEGABYTES else [])]


def minutely(count: int) -> State:
    """The worst there is: every trigger fires every minute. Made ahead by the three runs, not by the hour."""
    made = [Trigger(id=f"x{n}", task_id=f"t{n}", type="cron", cron_expression="* * * * *") for n in range(count)]
    states = [TriggerState(trigger, START, START) for trigger in made]
    horizon = Horizon(min_time=timedelta(0))
    return State(states, {f"t{n}": TaskState(f"t{n}") for n in range(count)}, horizon=horizon)


def digest(found: Simulation) -> str:
    return sha256(repr((found.rows, found.runs, found.occupancy)).encode()).hexdigest()[:12]


def simulations(tasks: int, days: int) -> list[str]:
    """The bars that are missed."""
    end = START + timedelta(days=days)
    down = [(START + timedelta(days=1, hours=2), START + timedelta(days=1, hours=5))]
    paused = [(START + timedelta(days=2), START + timedelta(days=2, hours=8))]
    options: dict[str, dict[str, Any]] = {
        "as it is": {},
        "an outage": {"outages": down},
        "a pause": {"pauses": paused},
        "both, 20 places": {"outages": down, "pauses": paused, "limits": Limits(pool=20)},
    }
    missed: list[str] = []
    for kind, chosen in (("nightly", options), ("hourly", {"as it is": {}})):
        state, durations = fleet(tasks, tasks, kind)
        print(f"simulation of {tasks} tasks over {days} days, most of them {kind}")
        for name, more in chosen.items():
            took, found = cpu(partial(simulate, state, START, end, durations, seed=7, **more))
            one, slots, runs = digest(found), sum(found.verdicts.values()), len(found.runs)
            print(f"  {name:16s} {took:6.2f} s CPU, {slots} slots, {runs} runs, output {one}")
            del found
            again = digest(simulate(state, START, end, durations, seed=7, **more))
            if took > SIMULATION_SECONDS:
                missed.append(f"a simulation ({kind}, {name}) took {took:.1f} s of CPU")
            if again != one:
                missed.append(f"the same seed gave another output ({kind}, {name})")
    return missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--triggers", type=int, default=10_000)
    parser.add_argument("--tasks", type=int, default=1_000)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    missed = [*ticks(given.triggers, given.rounds), *simulations(given.tasks, given.days)]
    for text in missed:
        print(f"missed: {text}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
