"""What is recorded of a past period, as a backtest needs it: from the ledger and the runs. (spec 4.9)

What a person or the world did stands in the records only by its traces. Found from them are: outages (slots that were
decided late, since nobody was there), requests (the slots of triggers that fire by one), and what a trigger was before
its own firing changed it (a one_shot that is off now, an interval that was counted anew). Pauses stand in the holds of
the state. Not found are runs that people started, and definitions as they were before an edit: slots from before the
edit are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from ..models import Run
from ..slot_reasons import SlotReasonCode
from ..status import Origin, RunStatus
from .backtest import Facts
from .decisions import run_key
from .ledger import Occurrence
from .simulate import Interval
from .simulation import Durations
from .state import Firing, Limits, OpenRun, Standing, State, TriggerState
from .timetable import BY_EVENT

__all__ = ["facts_of", "history_of", "outages_of"]

_SOON = timedelta(seconds=10)
"""A slot that was decided within it was decided at once."""
_OWN = frozenset({Origin.SCHEDULER, Origin.SCHEDULER_RETRY, Origin.AD_HOC, Origin.AFTER, Origin.STARTUP})


def history_of(runs: Iterable[Run], before: datetime | None = None) -> Durations:
    """How long runs took, by task: those that succeeded, and ended before ``before``."""
    history: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        if run.task_id is None or run.status is not RunStatus.SUCCESS or not (run.started_at and run.finished_at):
            continue
        if before is None or run.finished_at < before:
            history[run.task_id].append((run.finished_at - run.started_at).total_seconds())
    return Durations(history)


def facts_of(state: State, rows: Sequence[Occurrence], runs: Sequence[Run], start: datetime) -> Facts:
    """``state``: as it stands now; ``rows`` and ``runs``: those of the period that began at ``start``."""
    by_trigger: dict[str, list[Occurrence]] = defaultdict(list)
    for row in rows:
        by_trigger[row.trigger_id].append(row)
    triggers = [_as_it_was(ts, by_trigger.get(ts.id, ())) for ts in state.triggers]
    by_event = {ts.id for ts in triggers if ts.trigger.type in BY_EVENT}
    asked = [
        Firing(f"{row.trigger_id} {row.slot.isoformat()}", row.trigger_id, row.slot)
        for row in rows
        if row.trigger_id in by_event and row.count == 1 and row.slot >= start
    ]
    starts, durations = _times(runs, {row.key: row for row in rows})
    going = [
        run for run in runs
        if run.started_at and run.finished_at and run.task_id and run.started_at < start < run.finished_at
    ]  # fmt: skip
    return Facts(
        state=replace(
            state, triggers=triggers, runs=[_open(run) for run in going], firings=(), ended=(), limits=Limits(pool=0)
        ),
        recorded=rows,
        durations=durations,
        starts=starts,
        took={_name(run): _seconds(run.started_at, run.finished_at) for run in going},
        history=history_of(runs, before=start),
        firings=asked,
        outages=outages_of(rows),
    )


def outages_of(rows: Iterable[Occurrence]) -> list[Interval]:
    """When nobody decided: from the first slot that was missed to the look that found it."""
    away = sorted(
        (row.slot, row.decided_at)
        for row in rows
        if row.data.get("cause") == "service_down" and row.decided_at > row.slot
    )
    found: list[Interval] = []
    for since, until in away:
        if found and since <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], until))
        else:
            found.append((since, until))
    return found


def _as_it_was(ts: TriggerState, rows: Sequence[Occurrence]) -> TriggerState:
    trigger = ts.trigger
    if trigger.type == "after":  # its requests are among the facts
        return replace(ts, trigger=trigger.model_copy(update={"task_ids": ()}))
    if trigger.counts_from == "completion" and rows:
        # Of the end that it counts from now nothing was known then: its first slot says from where it counted.
        first = trigger.model_copy(update={"anchor": min(row.slot for row in rows)})
        return replace(ts, trigger=first, last_finished=None)
    own = [row for row in rows if row.reason.code is not SlotReasonCode.TRIGGER_DISABLED]
    if trigger.type == "one_shot" and own:
        was = {"enabled": True, "run_at": min(row.slot for row in own)}
        return replace(ts, trigger=trigger.model_copy(update=was), standing=Standing(None, ts.standing.past))
    if trigger.type == "interval" and any(row.data.get("policy") == "reschedule" for row in own):
        return replace(ts, trigger=trigger.model_copy(update={"anchor": min(row.slot for row in own)}))
    return ts


def _times(
    runs: Iterable[Run], rows: Mapping[tuple[str, datetime], Occurrence]
) -> tuple[dict[tuple[str, datetime], datetime], dict[tuple[str, datetime], float]]:
    """By trigger and slot: when its run started, and the seconds from then to the end of the last attempt."""
    attempts: dict[tuple[str, datetime], list[Run]] = defaultdict(list)
    for run in runs:
        if run.trigger_id and run.slot and run.started_at and run.finished_at and run.origin in _OWN:
            row = rows.get((run.trigger_id, run.slot))
            if row is not None and row.run_id and row.run_id not in (run.id, run.root_run_id):
                continue  # it was made ahead and had to make way: the ledger names the slot's run
            attempts[run.trigger_id, run.slot].append(run)
    starts: dict[tuple[str, datetime], datetime] = {}
    seconds: dict[tuple[str, datetime], float] = {}
    for key, tries in attempts.items():
        row = rows.get(key)
        late = row is not None and row.decided_at - row.slot > _SOON
        began = min(run.started_at for run in tries if run.started_at)
        starts[key] = max(row.decided_at if row is not None and late else key[1], began)
        seconds[key] = _seconds(starts[key], max(run.finished_at for run in tries if run.finished_at))
    for key, row in rows.items():
        if row.reason.code is SlotReasonCode.CAPACITY:  # it waited, and was dropped
            seconds[key] = _seconds(row.slot, row.decided_at)
    return starts, seconds


def _seconds(start: datetime | None, end: datetime | None) -> float:
    return 0.0 if start is None or end is None else max(0.0, (end - start).total_seconds())


def _name(run: Run) -> str:
    return run_key(run.trigger_id, run.slot) if run.trigger_id and run.slot else run.id


def _open(run: Run) -> OpenRun:
    return OpenRun(
        id=_name(run),
        task_id=run.task_id or "",
        created_at=run.created_at,
        trigger_id=run.trigger_id,
        slot=run.slot,
        status=RunStatus.RUNNING,
        origin=run.origin,
        started_at=run.started_at,
    )
