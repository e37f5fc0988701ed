"""The whole fleet on a virtual clock, through the production core. Nothing is written, no time passes. (spec 4.9)

The clock goes from one thing that happens to the next: a slot, the end of a run, the end of a pause. At each of them
``decide`` is asked about the triggers that are concerned and ``admit`` about the queue, as the service would; runs
last as long as their history says (the median, or with a seed a draw from it) and succeed. The same input and seed
give the same output, to the last row; the draw of a run depends on nothing but the seed and the run, so that two
simulations with other limits or pauses differ by these alone.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from ..status import RunStatus
from .apply import move_trigger, opened
from .decide import decide
from .decisions import Decisions
from .ledger import Occurrence, Verdict
from .queue import Queue
from .simulation import Durations, SimulatedRun, Simulation, occupancy_of
from .state import EndedRun, Firing, Hold, Limits, Mode, OpenRun, Standing, State, TriggerState
from .timetable import BY_EVENT, FINITE, advance, start_of

__all__ = ["Interval", "simulate"]

Interval = tuple[datetime, datetime]
"""From and until; the end is not part of it."""


def simulate(
    state: State,
    start: datetime,
    end: datetime,
    durations: Durations | None = None,
    *,
    seed: int | None = None,
    outages: Sequence[Interval] = (),
    pauses: Sequence[Interval] = (),
    limits: Limits | None = None,
    firings: Iterable[Firing] = (),
) -> Simulation:
    """What happens to the fleet in ``state`` from ``start`` to ``end``.

    ``outages``: the service is away; runs go on, nothing is decided or started. ``pauses``: the scheduler is paused.
    ``limits``: instead of the state's. ``firings``: requests to come. What was due before ``start`` is taken as
    decided; runs that are open at the start go on, and end as if they had started when they did.
    """
    fleet = _Fleet(state, start, end, durations or Durations(), seed, outages, pauses, limits)
    for firing in firings:
        fleet.ask(firing)
    return fleet.run()


class _Record:
    """A run while the clock goes on."""

    __slots__ = ("cancelled", "ended", "run", "started")

    def __init__(self, run: OpenRun) -> None:
        self.run = run
        self.started: datetime | None = None
        self.ended: datetime | None = None
        self.cancelled = False

    def told(self) -> SimulatedRun:
        run = self.run
        return SimulatedRun(
            run.id, run.task_id, run.trigger_id, run.slot, run.due_at, self.started, self.ended, self.cancelled
        )


class _Fleet:
    """The state while the clock goes on."""

    def __init__(
        self,
        state: State,
        start: datetime,
        end: datetime,
        durations: Durations,
        seed: int | None,
        outages: Sequence[Interval],
        pauses: Sequence[Interval],
        limits: Limits | None,
    ) -> None:
        self.start, self.end = start, end
        self.durations, self.seed = durations, seed
        self.outages = sorted(outages)
        self.pauses = sorted(pauses)
        self.state = replace(
            state, triggers=(), runs=(), firings=(), ended=(), horizon=None, limits=limits or state.limits,
            worker_seen=None,
        )  # fmt: skip
        self.triggers = {ts.id: _at_start(ts, start) for ts in state.triggers}
        self.after: dict[str, list[str]] = defaultdict(list)
        self.open: dict[str, dict[str, OpenRun]] = defaultdict(dict)
        self.queue = Queue(self.state, state.triggers)
        self.heap: list[tuple[datetime, int, str, str]] = []
        self.number = 0
        self.firings: dict[str, Firing] = {}
        self.ended: list[EndedRun] = []
        self.rows: list[Occurrence] = []
        self.runs: dict[str, _Record] = {}
        self.misfires = 0
        self.replays = self._has_past(state)
        self._begin(state)

    def _has_past(self, state: State) -> bool:
        """Whether something was held in the period: then each look takes the holds as they were at its time."""
        every = [state.standing, *(ts.standing for ts in state.triggers), *(t.standing for t in state.tasks.values())]
        return any(hold.until is not None and hold.until > self.start for own in every for hold in own.past) or any(
            own.hold is not None and own.hold.since > self.start for own in every
        )

    def _then(self, standing: Standing, now: datetime) -> Standing:
        return standing.then(now) if self.replays else standing

    def _begin(self, state: State) -> None:
        for ts in state.triggers:
            for task_id in ts.trigger.task_ids:
                self.after[task_id].append(ts.id)
            if ts.trigger.type not in BY_EVENT:
                self._at(self.start, "slot", ts.id)
        for run in state.runs:
            self._open(run)
            if run.status is RunStatus.RUNNING:
                self._start(run, run.started_at or self.start)
        for firing in state.firings:
            self.ask(firing)
        holds = [hold.until for hold in state.standing.all() if hold.until is not None]
        for until in (*(until for _, until in (*self.outages, *self.pauses)), *holds):
            if until > self.start:
                self._at(until, "wake", "")

    def ask(self, firing: Firing) -> None:
        self.firings[firing.id] = firing
        self._at(max(firing.at, self.start), "firing", firing.id)

    def _at(self, time: datetime, kind: str, name: str) -> None:
        self.number += 1
        heapq.heappush(self.heap, (time, self.number, kind, name))

    # --- the clock ------------------------------------------------------------------------------------------------

    def run(self) -> Simulation:
        waiting: set[str] = set()
        asked: set[str] = set()
        while self.heap and self.heap[0][0] <= self.end:
            now = self.heap[0][0]
            while self.heap and self.heap[0][0] == now:
                _, _, kind, name = heapq.heappop(self.heap)
                if kind == "end":
                    self._finish(name, now)
                elif kind == "slot":
                    waiting.add(name)
                elif kind == "firing":
                    asked.add(name)
            if self.outages and any(since <= now < until for since, until in self.outages):
                continue
            standing = self._standing(now)
            while waiting or asked or self.ended:
                held = self._decide(now, standing, waiting, asked)
                waiting, asked = set(), {firing_id for firing_id in asked if firing_id in self.firings}
                if held:
                    waiting |= held
                    break
                if not self.ended and not (asked and standing.at(now) is None):
                    break
            self._admit(now, standing)
            if standing.at(now) is None:
                waiting.clear()
        return self._result()

    def _standing(self, now: datetime) -> Standing:
        own = self._then(self.state.standing, now)
        if not self.pauses:
            return own
        holds = [Hold(Mode.PAUSED, since, until, by="simulation") for since, until in self.pauses if since <= now]
        if not holds:
            return own
        return own if own.at(now) is not None else Standing(holds[-1], (*own.all(), *holds[:-1]))

    def _decide(self, now: datetime, standing: Standing, waiting: set[str], asked: set[str]) -> set[str]:
        """One look at what is concerned. Gives the triggers that must wait for the end of a hold."""
        ended, self.ended = tuple(self.ended), []
        ids = set(waiting)
        ids.update(firing.trigger_id for firing_id in asked if (firing := self.firings.get(firing_id)) is not None)
        for run in ended:
            ids.update(self.after.get(run.task_id, ()))
        parts = [self.triggers[trigger_id] for trigger_id in sorted(ids) if trigger_id in self.triggers]
        tasks = {ts.task_id for ts in parts}
        part = self._part(parts, standing, tasks, now, ended)
        if asked:
            known = [self.firings[firing_id] for firing_id in sorted(asked) if firing_id in self.firings]
            part = replace(part, firings=known)
        while True:
            decisions = decide(part, now)
            self._apply(decisions, now)
            if not decisions.unfinished:
                break
            part = self._part([self.triggers[ts.id] for ts in parts], standing, tasks, now)
        for firing in decisions.firings:
            self.ask(firing)
        for ts in parts:
            if ts.trigger.counts_from == "completion":
                self._look_ahead(self.triggers[ts.id], now)
        return self._held(parts, standing, waiting, now)

    def _part(
        self,
        triggers: Sequence[TriggerState],
        standing: Standing,
        tasks: set[str],
        now: datetime,
        ended: Sequence[EndedRun] = (),
    ) -> State:
        """The state of these triggers, with what is open of their tasks."""
        state, known = self.state, self.state.tasks
        runs = [run for task_id in sorted(tasks) for run in self.open[task_id].values()]
        if self.replays:
            triggers = [replace(ts, standing=ts.standing.then(now)) for ts in triggers]
            known = {name: replace(t, standing=t.standing.then(now)) for name, t in known.items() if name in tasks}
        return State(
            triggers, known, state.scheduler_id, standing, runs, (), ended, state.calendars, state.limits,
            clock_jump=state.clock_jump,
        )  # fmt: skip

    def _look_ahead(self, ts: TriggerState, now: datetime) -> None:
        """The next slot of an interval that counts from the end of its run: known only while none is open."""
        active = any(run.trigger_id == ts.id for run in self.open[ts.task_id].values())
        slot = advance(ts, start_of(ts), self.state.calendars, active)
        if slot is not None and slot > now:
            self._at(slot, "slot", ts.id)

    def _held(self, parts: Sequence[TriggerState], standing: Standing, waiting: set[str], now: datetime) -> set[str]:
        """Those that a hold kept: of the scheduler they wait for its end; of a task or trigger they come back then."""
        held: set[str] = set()
        for ts in parts:
            if ts.id not in waiting or self.triggers[ts.id] is not ts:
                continue
            if standing.at(now) is not None:
                held.add(ts.id)
                continue
            for own in (ts.standing, self.state.tasks[ts.task_id].standing if ts.task_id in self.state.tasks else None):
                hold = self._then(own, now).at(now) if own is not None else None
                if hold is not None and hold.until is not None:
                    self._at(hold.until, "slot", ts.id)
                    break
        return held

    def _apply(self, decisions: Decisions, now: datetime) -> None:
        rows: dict[str, list[Occurrence]] = defaultdict(list)
        for row in decisions.occurrences:
            rows[row.trigger_id].append(row)
        self.rows += decisions.occurrences
        for firing_id in decisions.consumed:
            del self.firings[firing_id]
        for request in decisions.runs:
            self._open(opened(request), now)
        for cancel in decisions.cancel:
            self._cancel(cancel.run_id, now)
        for move in decisions.moves:
            ts = move_trigger(self.triggers[move.trigger_id], move, rows[move.trigger_id])
            self.triggers[ts.id] = ts
            if ts.next_slot is not None:
                self._at(max(ts.next_slot, now), "slot", ts.id)
        self.misfires += sum(name == "task-misfire-handled" for name, _ in decisions.events)

    # --- runs -----------------------------------------------------------------------------------------------------

    def _open(self, run: OpenRun, now: datetime | None = None) -> None:
        started = self.durations.starts.get(run.id)
        if run.status is RunStatus.QUEUED and started is not None:
            run = replace(run, ready_at=max(started, run.ready_at or started))
        self.open[run.task_id][run.id] = run
        self.runs[run.id] = _Record(run)
        if run.status is RunStatus.QUEUED:
            self.queue.add(run)
            ts = self.triggers.get(run.trigger_id or "")
            if run.ready_at is not None:
                self._at(run.ready_at, "ready", run.id)
            if ts is not None and ts.trigger.type not in BY_EVENT and self.queue.may_be_dropped(ts):
                self._at(run.due_at + timedelta(seconds=ts.trigger.misfire_grace_seconds + 1), "slot", ts.id)

    def _admit(self, now: datetime, standing: Standing) -> None:
        for run_id in self.queue.admit(now, standing):
            run = self._find(run_id)
            if run is not None:
                self._start(run, now)

    def _find(self, run_id: str) -> OpenRun | None:
        known = self.runs.get(run_id)
        return None if known is None else self.open[known.run.task_id].get(run_id)

    def _start(self, run: OpenRun, at: datetime) -> None:
        running = run.running(at)
        self.open[run.task_id][run.id] = running
        self.queue.start(running)
        self.runs[run.id].started = at
        seconds = max(0.0, self.durations.of(run, self.seed))
        self._at(max(at + timedelta(seconds=seconds), self.start), "end", run.id)

    def _cancel(self, run_id: str, now: datetime) -> None:
        run = self._find(run_id)
        if run is not None:
            self._close(run, now, RunStatus.CANCELLED)

    def _finish(self, run_id: str, now: datetime) -> None:
        run = self._find(run_id)
        if run is not None:
            self._close(run, now, RunStatus.SUCCESS)

    def _close(self, run: OpenRun, now: datetime, status: RunStatus) -> None:
        del self.open[run.task_id][run.id]
        self.queue.remove(run)
        record = self.runs[run.id]
        record.ended = now if run.status is RunStatus.RUNNING else None
        record.cancelled = status is RunStatus.CANCELLED
        if run.task_id in self.after:
            self.ended.append(EndedRun(run.id, run.task_id, status, now, run.trigger_id, run.slot, run.origin))
        ts = self.triggers.get(run.trigger_id or "")
        if ts is not None and ts.trigger.counts_from == "completion":
            self.triggers[ts.id] = replace(ts, last_finished=now)
            self._at(now, "slot", ts.id)

    # --- what came of it ------------------------------------------------------------------------------------------

    def _result(self) -> Simulation:
        runs = tuple(sorted((record.told() for record in self.runs.values()), key=lambda run: (run.due, run.id)))
        rows = tuple(sorted(self.rows, key=lambda row: (row.slot, row.trigger_id, row.decided_at)))
        return Simulation(self.start, self.end, rows, runs, occupancy_of(runs, self.start, self.end), self.misfires)


def _at_start(ts: TriggerState, start: datetime) -> TriggerState:
    """The trigger as if all before ``start`` were decided and nothing after it, but what a person cancelled ahead.

    One that came into force later counts from then.
    """
    kept = {slot: verdict for slot, verdict in ts.verdicts.items() if slot < start or verdict is Verdict.CANCELLED}
    if ts.trigger.type in FINITE:
        times = (*ts.trigger.plan, ts.trigger.run_at)
        kept = {**dict.fromkeys([at for at in times if at is not None and at < start], Verdict.FIRED), **kept}
    cursor = ts.since if ts.since > start else start - timedelta(microseconds=1)
    by_event = ts.trigger.type in BY_EVENT
    return replace(ts, cursor=None if by_event else cursor, next_known=False, verdicts=kept, planned=())
