"""What the state is after a decision was applied: the rules for a store, as a pure function. (spec 4.4)

``simulate`` and the tests drive the core with it; a store does the same with rows, in one transaction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from ..status import RunStatus
from .decisions import Decisions, RunRequest, TriggerMove
from .ledger import Occurrence
from .state import OpenRun, PlannedRun, State, TriggerState, standing_of
from .timetable import FINITE

__all__ = ["apply", "move_trigger", "opened"]


def opened(request: RunRequest) -> OpenRun:
    """The queued run of a request."""
    return OpenRun(
        id=request.run_id or request.key,
        task_id=request.task_id,
        created_at=request.created_at,
        trigger_id=request.trigger_id,
        slot=request.slot,
        status=RunStatus.QUEUED,
        origin=request.origin,
        priority=request.priority,
        ready_at=request.ready_at,
        serial=request.serial,
        caught_up=request.caught_up,
        attempt=request.attempt,
        root_run_id=request.root_run_id,
    )


def move_trigger(ts: TriggerState, move: TriggerMove, rows: Sequence[Occurrence] = ()) -> TriggerState:
    """``ts`` after the move. Unchanged when its cursor is no longer the one that the move was decided from."""
    if ts.cursor != move.expects:
        return ts
    trigger, standing, verdicts = ts.trigger, ts.standing, ts.verdicts
    if move.changes:
        trigger = trigger.model_copy(update=dict(move.changes))
        if "enabled" in move.changes:
            standing = standing_of(trigger, move.cursor or ts.since, standing.past)
    if trigger.type in FINITE:
        verdicts = {**verdicts, **{row.slot: row.verdict for row in rows}}
    elif verdicts and move.cursor is not None:
        verdicts = {slot: verdict for slot, verdict in verdicts.items() if slot > move.cursor}
    planned = ts.planned
    if planned and move.cursor is not None:
        planned = tuple(run for run in planned if run.slot > move.cursor)
    return TriggerState(
        trigger, ts.since, move.cursor, move.next_slot, True, standing, verdicts, planned, ts.last_finished
    )


def apply(state: State, decisions: Decisions) -> State:
    """The state with all of ``decisions`` applied. Cancelled runs count as gone."""
    rows: dict[str, list[Occurrence]] = defaultdict(list)
    for row in decisions.occurrences:
        rows[row.trigger_id].append(row)
    ahead: dict[str, list[PlannedRun]] = defaultdict(list)
    for request in decisions.runs:
        if request.ahead and request.trigger_id is not None and request.slot is not None:
            ahead[request.trigger_id].append(PlannedRun(request.slot, request.run_id or request.key))
    moves = {move.trigger_id: move for move in decisions.moves}
    gone = set(decisions.withdraw)
    triggers: list[TriggerState] = []
    taken: list[OpenRun] = []
    fired = {row.run_id for row in decisions.occurrences if row.run_id is not None}
    requested = {request.run_id for request in decisions.runs if request.run_id is not None}
    for ts in state.triggers:
        taken += [_taken(ts, run) for run in ts.planned if run.run_id in fired and run.run_id not in requested]
        new = move_trigger(ts, moves[ts.id], rows[ts.id]) if ts.id in moves else ts
        if new.planned or ts.id in ahead:
            kept = [run for run in new.planned if run.run_id not in gone]
            new = replace(new, planned=tuple(sorted([*kept, *ahead[ts.id]], key=lambda run: run.slot)))
        triggers.append(new)
    cancelled = {cancel.run_id for cancel in decisions.cancel}
    made = [opened(request) for request in decisions.runs if not request.ahead]
    consumed, followed = set(decisions.consumed), set(decisions.followed)
    return replace(
        state,
        triggers=tuple(triggers),
        runs=tuple(run for run in (*state.runs, *taken, *made) if run.id not in cancelled),
        firings=(*(firing for firing in state.firings if firing.id not in consumed), *decisions.firings),
        ended=tuple(ended for ended in state.ended if ended.id not in followed),
    )


def _taken(ts: TriggerState, run: PlannedRun) -> OpenRun:
    """A run made ahead, once its slot has fired."""
    status = RunStatus.RUNNING if run.started else RunStatus.QUEUED
    return OpenRun(run.run_id, ts.task_id, run.slot, ts.id, run.slot, status)
