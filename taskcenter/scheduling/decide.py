"""The scheduling core: every slot up to now gets exactly one verdict. ``decide(state, now)`` is all of it. (spec 4)

Pure: no clock, no I/O, no chance. Whatever looks ahead or back (``why``, ``simulate``, ``backtest``) asks this
function. The road of a slot: already settled → window → calendar → disabled → misfire → overlap → fired. While the
scheduler, the task or the trigger is *paused* its slots wait for their verdict until it is resumed.

The same look also decides what follows runs that ended (another attempt, triggers that wait for them), drops queued
runs whose policy says that they are too late, and makes runs ahead when the state has a horizon.

Bounds. One trigger works off at most ``SLOTS_PER_TRIGGER`` slots in one look, and all of them about
``SLOTS_PER_TICK``, and about ``AHEAD_PER_LOOK`` runs are made ahead, the soonest triggers first; ``unfinished`` says
that more is due. Of a trigger that owes more than the first bound (a clock
far ahead, years of outage) the oldest are expired, whatever its policy: nobody makes up for them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import datetime
from typing import Final

from ..slot_reasons import iso
from .batch import Batch, Look
from .decisions import Decisions, TriggerMove
from .followups import drop_late, follow_up
from .misfire import Cause, held_by, is_disabled, lateness
from .state import Firing, Mode, State, TriggerState
from .timetable import BY_EVENT, due_slots, next_run, request_slots

__all__ = ["SLOTS_PER_TICK", "SLOTS_PER_TRIGGER", "decide"]

SLOTS_PER_TRIGGER: Final = 10_000
SLOTS_PER_TICK: Final = 100_000


def decide(state: State, now: datetime) -> Decisions:
    """What becomes of everything that is due at ``now``. Apply all of it in one transaction, or nothing."""
    return _Decider(state, now).decide()


class _Decider(Look):
    """One look: collects the decisions trigger by trigger."""

    def __init__(self, state: State, now: datetime) -> None:
        super().__init__(state, now)
        self.firings: dict[str, list[Firing]] = defaultdict(list)
        for firing in state.firings:
            self.firings[firing.trigger_id].append(firing)
        self.consumed: list[str] = []
        self.claimed = 0
        self.lag = 0
        self.worked = 0

    def decide(self) -> Decisions:
        followed = follow_up(self.state, self.now)
        self.runs += followed.runs
        due = [(at, ts.id, ts) for ts in self.state.triggers if (at := self._first_due(ts)) is not None]
        for _, _, ts in sorted(due, key=lambda item: item[:2]):
            if self.worked >= SLOTS_PER_TICK:
                self.unfinished = True
                break
            self._decide_trigger(ts)
        if not self.unfinished:  # a drop may move its trigger to now: only once all that was due has its verdict
            self._drop_late()
        self._tell_tick()
        return Decisions(
            occurrences=tuple(self.occurrences),
            runs=tuple(self.runs),
            cancel=tuple(self.cancel.values()),
            withdraw=tuple(self.withdraw),
            moves=tuple(self.moves),
            events=tuple(self.events),
            consumed=tuple(self.consumed),
            followed=followed.ended,
            firings=followed.firings,
            unfinished=self.unfinished,
        )

    def _drop_late(self) -> None:
        moved = {move.trigger_id: index for index, move in enumerate(self.moves)}
        for drop in drop_late(self.state, self.now, self.cancel):
            self.occurrences.append(drop.occurrence)
            self.cancel[drop.cancel.run_id] = drop.cancel
            self.events.append(drop.event)
            move = drop.move
            if move is None:
                continue
            if move.trigger_id not in moved:
                moved[move.trigger_id] = len(self.moves)
                self.moves.append(move)
                continue
            before = self.moves[moved[move.trigger_id]]
            cursors = [at for at in (before.cursor, move.cursor) if at is not None]
            self.moves[moved[move.trigger_id]] = replace(
                move,
                cursor=max(cursors, default=None),
                last_run_at=before.last_run_at,
                changes={**before.changes, **move.changes},
            )

    def _tell_tick(self) -> None:
        hold = self.state.standing.at(self.now)
        payload = {
            "schedulerId": self.state.scheduler_id,
            "state": (hold.mode if hold else Mode.RUNNING).value,
            "claimedTriggers": self.claimed,
            "tickedAt": iso(self.now),
            "lagSeconds": self.lag,
        }
        self.events.append(("scheduler_tick", payload))

    # --- one trigger --------------------------------------------------------------------------------------------

    def _first_due(self, ts: TriggerState) -> datetime | None:
        """The time by which the triggers are sorted; None when there is nothing to look at."""
        if ts.trigger.type in BY_EVENT:
            waiting = self.firings.get(ts.id)
            return min(firing.at for firing in waiting) if waiting else None
        if ts.next_known and ts.trigger.counts_from == "schedule":
            if ts.next_slot is not None and ts.next_slot <= self.now:
                return ts.next_slot
            return ts.next_slot or self.now if self.state.horizon is not None else None
        return ts.cursor or ts.since

    def _decide_trigger(self, ts: TriggerState) -> None:
        task = self.state.tasks.get(ts.task_id)
        if task is None:
            return
        standings = (self.state.standing, task.standing, ts.standing)
        held = held_by(standings, self.now)
        if held is not None and not is_disabled(held):
            self.take_back(ts)
            return
        payloads: dict[datetime, Firing] = {}
        if ts.trigger.type in BY_EVENT:
            payloads = request_slots(ts, self.firings.get(ts.id, ())[:SLOTS_PER_TRIGGER])
            due, upcoming = list(payloads), None
        else:
            active = ts.trigger.counts_from == "completion" and any(
                run.trigger_id == ts.id for run in self.runs_of.get(ts.task_id, ())
            )
            due, upcoming = due_slots(ts, self.now, self.state.calendars, SLOTS_PER_TRIGGER + 1, active)
        if not due:
            self._nothing_due(ts, upcoming, held)
            return
        too_many = len(due) > SLOTS_PER_TRIGGER
        if too_many:
            upcoming = due.pop()
            self.unfinished = True
        self.claimed += 1
        self.worked += len(due)
        self.lag = max(self.lag, lateness(due[0], self.now))
        batch = Batch(self, ts, task, payloads)
        batch.judge(due, held, too_many)
        batch.close(due, upcoming, held)
        self.consumed += [firing.id for firing in payloads.values()]

    def _nothing_due(self, ts: TriggerState, upcoming: datetime | None, held: Cause | None) -> None:
        if held is not None:
            self.take_back(ts)
        else:
            self.make_ahead(ts, upcoming)
        if not ts.next_known and ts.trigger.counts_from != "completion" and ts.trigger.type not in BY_EVENT:
            shown = next_run(ts, ts.cursor or ts.since, self.state.calendars) if ts.trigger.calendar else upcoming
            self.moves.append(TriggerMove(ts.id, ts.cursor, ts.cursor, upcoming, shown))
