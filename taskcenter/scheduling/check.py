"""Everything that can be wrong with a trigger of any type, collected before it is saved. (spec 4.1)

The times of cron, interval and one_shot triggers are checked by ``occurrences``; the fields that belong to one type
only, windows, calendars and the cycles of ``after`` triggers are checked here. What pydantic refuses (an unknown
policy, a negative grace) never comes this far.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from ..errors import Problem
from ..models import Trigger
from . import occurrences
from .calendars import Calendars
from .state import TriggerState
from .timetable import BY_EVENT, in_window, next_run

__all__ = ["check_after", "check_trigger"]

_OWN: Final[Mapping[str, tuple[str, str]]] = {
    "plan": ("planned", "plan"),
    "token_hash": ("ad_hoc", "tokenHash"),
    "task_ids": ("after", "taskIds"),
    "condition": ("after", "condition"),
    "counts_from": ("interval", "from"),
}
MOST_PLANNED: Final = 1_000
_INSTANT = timedelta(microseconds=1)


def check_trigger(
    trigger: Trigger,
    now: datetime,
    path: str = "",
    calendars: Calendars | None = None,
    task_ids: Collection[str] | None = None,
) -> list[Problem]:
    """Every problem of ``trigger``, each with its place below ``path`` and a sentence.

    ``calendars`` and ``task_ids``: those that are known; None: not asked.
    """
    check = _Check(trigger, now, path)
    check.problems += occurrences.check_trigger(trigger, now, path)
    check.fields()
    check.window()
    if trigger.type == "planned":
        check.plan()
    elif trigger.type == "after":
        check.upstream(task_ids)
    check.jitter()
    if calendars is not None:
        check.calendar(calendars)
    if not any(problem.severity == "error" for problem in check.problems):
        check.comes(calendars or Calendars())
    return check.problems


class _Check:
    """Collects the problems of one trigger."""

    def __init__(self, trigger: Trigger, now: datetime, path: str) -> None:
        self.trigger = trigger
        self.now = now
        self.path = path
        self.problems: list[Problem] = []

    def say(self, code: str, field: str, sentence: str, severity: str = "error") -> None:
        self.problems.append(Problem(code, f"{self.path}.{field}" if self.path else field, sentence, severity))

    def fields(self) -> None:
        for field, (kind, wire) in _OWN.items():
            default = Trigger.model_fields[field].get_default(call_default_factory=True)
            if self.trigger.type != kind and getattr(self.trigger, field) != default:
                self.say("wrong_field", wire, f"does not belong to a trigger of type {self.trigger.type}")

    def window(self) -> None:
        start, end = self.trigger.start_at, self.trigger.end_at
        if start is not None and end is not None and end <= start:
            self.say("window", "endAt", "must lie after startAt")
        elif end is not None and end <= self.now:
            self.say("window", "endAt", "is past: the trigger would never fire")

    def plan(self) -> None:
        plan, open_window = self.trigger.plan, all(problem.code != "window" for problem in self.problems)
        if not plan:
            self.say("missing", "plan", "is missing; a trigger of type planned needs its times")
        elif len(plan) > MOST_PLANNED:
            self.say("too_many", "plan", f"holds {len(plan)} times; at most {MOST_PLANNED} are taken")
        for index, at in enumerate(plan):
            if at in plan[:index]:
                self.say("twice", f"plan[{index}]", f"{at.isoformat()} stands in the plan twice")
            elif open_window and not in_window(self.trigger, at):
                self.say("window", f"plan[{index}]", f"{at.isoformat()} lies outside startAt and endAt")

    def upstream(self, task_ids: Collection[str] | None) -> None:
        if not self.trigger.task_ids:
            self.say("missing", "taskIds", "is missing; a trigger of type after needs the tasks that it waits for")
        for index, task_id in enumerate(self.trigger.task_ids):
            if not task_id.strip():
                self.say("blank", f"taskIds[{index}]", "is blank")
            elif task_id in self.trigger.task_ids[:index]:
                self.say("twice", f"taskIds[{index}]", f"{task_id!r} stands there twice")
            elif task_ids is not None and task_id not in task_ids:
                self.say("unknown_task", f"taskIds[{index}]", f"there is no task {task_id!r}")

    def jitter(self) -> None:
        seconds, every = self.trigger.jitter_seconds, self.trigger.interval_seconds
        if seconds and self.trigger.type in BY_EVENT:
            self.say("wrong_field", "jitterSeconds", f"does not belong to a trigger of type {self.trigger.type}")
        elif seconds and every is not None and seconds >= every:
            self.say("jitter", "jitterSeconds", f"must be less than the interval of {every:g} seconds")

    def calendar(self, calendars: Calendars) -> None:
        name = self.trigger.calendar
        if name is None and self.trigger.calendar_rule != "skip":
            self.say("missing", "calendar", f"is missing; the rule {self.trigger.calendar_rule} needs one")
        elif name is not None and name not in calendars:
            self.say("unknown_calendar", "calendar", f"no calendar {name!r} is known")

    def comes(self, calendars: Calendars) -> None:
        """At least one slot must be there, now or to come."""
        trigger = self.trigger
        if trigger.type in BY_EVENT or trigger.counts_from == "completion":
            return
        if trigger.type == "one_shot" and trigger.run_at is not None and not in_window(trigger, trigger.run_at):
            self.say("window", "runAt", "lies outside startAt and endAt")
        elif trigger.type in ("cron", "interval"):
            asked = trigger.calendar is not None and trigger.calendar in calendars
            known = trigger if asked else trigger.model_copy(update={"calendar": None})
            if next_run(TriggerState(known, self.now), self.now, calendars) is None:
                self.say("never", "calendar" if asked else "endAt", "leaves no slot to come")


def check_after(triggers: Iterable[Trigger], names: Mapping[str, str] | None = None) -> list[Problem]:
    """The cycles of ``after`` triggers across tasks: one problem each, with the path drawn ``a → b → a``.

    ``names``: what a task is called by its id.
    """
    upstream: dict[str, list[str]] = {}
    for trigger in triggers:
        if trigger.type == "after":
            upstream.setdefault(trigger.task_id, []).extend(trigger.task_ids)
    problems: list[Problem] = []
    done: set[str] = set()
    for start in upstream:
        problems += [_cycle(way, names or {}) for way in _cycles_from(start, upstream, done)]
    return problems


def _cycles_from(start: str, upstream: Mapping[str, list[str]], done: set[str]) -> list[list[str]]:
    """A depth-first walk with its own stack: each task is left once, each cycle is met at the edge that closes it."""
    found: list[list[str]] = []
    way: list[str] = []
    stack: list[tuple[str, bool]] = [(start, False)]
    on_way: set[str] = set()
    while stack:
        task, leaving = stack.pop()
        if leaving:
            way.pop()
            on_way.discard(task)
            done.add(task)
        elif task in on_way:
            found.append([*way[way.index(task) :], task])
        elif task not in done:
            way.append(task)
            on_way.add(task)
            stack.append((task, True))
            stack.extend((other, False) for other in reversed(dict.fromkeys(upstream.get(task, ()))))
    return found


def _cycle(way: list[str], names: Mapping[str, str]) -> Problem:
    drawn = " → ".join(names.get(task, task) for task in reversed(way))
    return Problem("cycle", "taskIds", f"tasks wait for each other's runs: {drawn}")
