"""The queue of a simulation: asks ``admit`` about as few runs as give the same answer. (spec 4.9, 5.2)

Most runs wait for a place in the pool and for nothing else. Of those with the same priority the one whose slot is
older always goes first, so that with ``n`` free places only the first ``n`` of each priority can be among those that
start. All others (limited tasks, serial runs, delays, runs made late) are always asked about.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from ..status import Priority
from .admission import admit
from .followups import may_drop
from .state import Limits, OpenRun, Standing, State, TriggerState

__all__ = ["Queue"]


class Queue:
    """Queued and running runs of a simulation."""

    def __init__(self, state: State, triggers: Iterable[TriggerState]) -> None:
        self.state = state
        self.waiting: dict[str, OpenRun] = {}
        self.running: dict[str, OpenRun] = {}
        self.special: dict[str, OpenRun] = {}
        self.plain: dict[Priority, list[tuple[datetime, datetime, str]]] = {priority: [] for priority in Priority}
        self.own: dict[str, list[TriggerState]] = defaultdict(list)
        for ts in triggers:
            self.own[ts.task_id].append(ts)
        self.plain_tasks = {task_id for task_id in self.own if self._is_plain_task(task_id)}
        self.changed = True

    def _is_plain_task(self, task_id: str) -> bool:
        """Whether its runs can wait for nothing but the pool."""
        task, limits = self.state.tasks.get(task_id), self.state.limits
        if task is None or task.standing.hold is not None:
            return False
        if task.uses or any(limits.tags.get(tag) for tag in task.tags):
            return False
        if any(limits.connections.get(name) for name in task.connections):
            return False
        own = [limit for limit in (task.max_concurrent, limits.tasks.get(task_id, 0)) if limit]
        once = all(ts.trigger.overlap == "skip" for ts in self.own[task_id])
        return not own or (once and min(own) >= len(self.own[task_id]))

    @staticmethod
    def may_be_dropped(ts: TriggerState) -> bool:
        return may_drop(ts.trigger)

    def add(self, run: OpenRun) -> None:
        self.changed = True
        self.waiting[run.id] = run
        first = run.slot or run.created_at
        if run.serial or run.due_at != first or run.task_id not in self.plain_tasks:
            self.special[run.id] = run
        else:
            heapq.heappush(self.plain[run.priority], (first, run.created_at, run.id))

    def start(self, run: OpenRun) -> None:
        self.waiting.pop(run.id, None)
        self.special.pop(run.id, None)
        self.running[run.id] = run

    def remove(self, run: OpenRun) -> None:
        self.changed = True
        for kept in (self.waiting, self.special, self.running):
            kept.pop(run.id, None)

    def admit(self, now: datetime, standing: Standing) -> tuple[str, ...]:
        """The runs that start now."""
        pool = self.state.limits.pool
        free = pool - len(self.running) if pool else len(self.waiting)
        if not self.waiting or free <= 0 or not (self.changed or self.special):
            return ()
        asked = [*self.special.values()]
        for heap in self.plain.values():
            if heap:
                asked += self._first(heap, free)
        self.changed = standing.at(now) is not None
        state, limits = self.state, self.state.limits
        if self.special:
            asked = [*self.running.values(), *asked]
        elif pool:  # these wait for the pool alone: of what runs only the number counts
            limits = Limits(free, limits.tasks, limits.tags, limits.connections, limits.ageing_seconds)
        return admit(State((), state.tasks, standing=standing, runs=asked, limits=limits), now).start

    def _first(self, heap: list[tuple[datetime, datetime, str]], count: int) -> list[OpenRun]:
        """The first ``count`` that still wait; they stay in the heap, what is gone does not."""
        found: list[tuple[datetime, datetime, str]] = []
        while heap and len(found) < count:
            item = heapq.heappop(heap)
            if item[2] in self.waiting:
                found.append(item)
        for item in found:
            heapq.heappush(heap, item)
        return [self.waiting[run_id] for _, _, run_id in found]
