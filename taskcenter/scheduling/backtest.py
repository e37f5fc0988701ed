"""How well the core would have told the past: recorded facts replayed, verdicts compared, durations too. (spec 4.9)

The replay knows what nobody can predict, as facts: when the service was away or paused, what was asked for, and how
long each run really took. What it must get right by itself are the verdicts. The error of predicted durations says how
good ``simulate`` would have been without knowing them: the typical duration of what was known before the period,
against what it then was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from statistics import fmean, median

from ..slot_reasons import SlotReasonCode
from .decisions import run_key
from .ledger import Occurrence, Verdict
from .simulate import Interval, simulate
from .simulation import Durations
from .state import Firing, State
from .timetable import BY_EVENT, FINITE, due_slots

__all__ = ["Backtest", "Difference", "DurationError", "Facts", "backtest"]

_BY_PEOPLE = frozenset({Verdict.SUPERSEDED, Verdict.CANCELLED, Verdict.BACKFILLED})
"""Verdicts that a person's deed made: they are not compared."""
_GIVEN = frozenset({SlotReasonCode.CAPACITY})
"""Reasons that hang on how many places there were, which is not recorded: not compared either."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is recorded of a period. ``state`` holds the definitions as they were, and the runs that were open then."""

    state: State
    recorded: Sequence[Occurrence]
    durations: Mapping[tuple[str, datetime], float] = field(default_factory=dict)
    """Seconds that the run of (trigger, slot) took, all its attempts together."""
    history: Durations = field(default_factory=Durations)
    """What was known of durations before the period."""
    firings: Sequence[Firing] = ()
    outages: Sequence[Interval] = ()
    pauses: Sequence[Interval] = ()
    took: Mapping[str, float] = field(default_factory=dict)
    """Seconds that the runs took that were open when the period began, by id."""
    starts: Mapping[tuple[str, datetime], datetime] = field(default_factory=dict)
    """When the run of (trigger, slot) started."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A slot whose verdict was another one. None: no such slot on that side."""

    trigger_id: str
    slot: datetime
    recorded: Verdict | None
    replayed: Verdict | None

    def __str__(self) -> str:
        recorded, replayed = (v.value if v else "nothing" for v in (self.recorded, self.replayed))
        return f"{self.trigger_id} at {self.slot.isoformat()}: {recorded} was recorded, {replayed} replayed"


@dataclass(frozen=True, slots=True)
class DurationError:
    """Predicted against real durations, over ``count`` runs."""

    count: int
    mean_seconds: float
    """The mean distance."""
    median_percent: float
    """The distance in percent of the real duration, in the median."""


@dataclass(frozen=True, slots=True)
class Backtest:
    """How well the replay agrees with the record."""

    compared: int
    agreed: int
    differences: tuple[Difference, ...]
    durations: DurationError | None

    @property
    def agreement(self) -> float:
        """Percent of the slots compared; 100 when there were none."""
        return 100.0 if not self.compared else 100.0 * self.agreed / self.compared


def backtest(facts: Facts, start: datetime, end: datetime) -> Backtest:
    """Replay what was recorded for the slots with ``start <= slot <= end``."""
    exact = {run_key(*key): seconds for key, seconds in facts.durations.items()}
    starts = {run_key(*key): at for key, at in facts.starts.items()}
    replayed = simulate(
        facts.state,
        start,
        end,
        replace(facts.history, exact={**facts.took, **exact}, starts=starts),
        outages=facts.outages,
        pauses=facts.pauses,
        firings=[firing for firing in facts.firings if start <= firing.at <= end],
    )
    before = _verdicts(facts.recorded, facts.state, start, end)
    after = _verdicts(replayed.rows, facts.state, start, end)
    given = {row.key for row in facts.recorded if row.verdict in _BY_PEOPLE or row.reason.code in _GIVEN}
    keys = sorted(key for key in {*before, *after} if before.get(key) not in _BY_PEOPLE and key not in given)
    wrong = tuple(
        Difference(*key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)
    )
    return Backtest(len(keys), len(keys) - len(wrong), wrong, _duration_error(facts))


def _verdicts(
    rows: Iterable[Occurrence], state: State, start: datetime, end: datetime
) -> dict[tuple[str, datetime], Verdict]:
    """The verdict of every single slot; a later row of a slot amends the one before."""
    triggers = {ts.id: ts for ts in state.triggers}
    found: dict[tuple[str, datetime], Verdict] = {}
    for row in sorted(rows, key=lambda row: row.decided_at):
        slots = [row.slot]
        ts = triggers.get(row.trigger_id)
        if row.count > 1 and ts is not None and ts.trigger.type in BY_EVENT:
            continue  # when those requests came is not kept
        if ts is not None and ts.trigger.type not in BY_EVENT | FINITE and row.last < ts.since:
            continue  # from before this definition
        if row.count > 1 and ts is not None and ts.trigger.type not in BY_EVENT:
            from_there = replace(ts, cursor=row.slot - timedelta(microseconds=1), next_known=False, verdicts={})
            slots = due_slots(from_there, row.last, state.calendars, row.count)[0]
        found |= {(row.trigger_id, slot): row.verdict for slot in slots if start <= slot <= end}
    return found


def _duration_error(facts: Facts) -> DurationError | None:
    tasks = {ts.id: ts.task_id for ts in facts.state.triggers}
    known = [
        (facts.history.typical(tasks[trigger_id]), seconds)
        for (trigger_id, _), seconds in facts.durations.items()
        if trigger_id in tasks and facts.history.history.get(tasks[trigger_id])
    ]
    if not known:
        return None
    distances = [abs(predicted - real) for predicted, real in known]
    percents = [100.0 * abs(predicted - real) / real for predicted, real in known if real > 0]
    return DurationError(len(known), fmean(distances), median(percents) if percents else 0.0)
