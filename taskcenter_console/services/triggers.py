"""Triggers of tasks: add, change, pause, resume, fire. Each is a save of its task, checked whole. (spec 4.1)"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from taskcenter.clear_secrets import find_clear_secrets
from taskcenter.clock import utc_now
from taskcenter.errors import NotFound, Problem, Refused, TaskCenterError, ValidationFailed
from taskcenter.models import MisfirePolicy, Task, Trigger, new_id
from taskcenter.scheduling.state import Firing
from taskcenter.scheduling.timetable import due_slots
from taskcenter.status import TaskStatus

from . import tasks as task_service
from .center import Caller, Center

__all__ = [
    "TooFast",
    "add",
    "change",
    "find",
    "fire",
    "fire_by_token",
    "new_token",
    "owed",
    "pause",
    "remove",
    "resume",
    "revoke_token",
    "switch",
]

_TOKEN_BYTES = 24
"""192 bits; the promise is 128."""


class TooFast(TaskCenterError):
    """The same token was used too often in a short time."""

    exit_code = 4
    status = 429
    code = "too_fast"


def find(center: Center, name: str, task: str | None = None) -> tuple[Task, Trigger]:
    """A trigger by its id or the first characters of it; or the only trigger of a task by the task's name."""
    owner = center.store.find_task(task if task is not None else name)
    tasks = [owner] if owner is not None else task_service.all_tasks(center)
    own = owner is not None and task is None
    found = [
        (t, r) for t in tasks for r in t.triggers if own or r.id == name or (len(name) >= 4 and r.id.startswith(name))
    ]
    if len(found) == 1:
        return found[0]
    if not found and own:
        raise NotFound(f"the task {name} has no trigger: taskcenter trigger add {name} --cron '0 2 * * *'", name=name)
    if not found:
        raise NotFound(f"there is no trigger {name!r}: taskcenter trigger list shows them all", name=name)
    which = ", ".join(f"{r.id[:8]} ({r.type})" for _, r in found[:10])
    raise Refused(f"{name!r} names {len(found)} triggers: {which}. Name one by its id")


def add(center: Center, task: str, data: Mapping[str, Any], caller: Caller) -> tuple[Task, Trigger, str | None]:
    """The trigger as saved; for an ad_hoc one its token too, which is never shown again."""
    found = task_service.get(center, task)
    token = None
    values = {"id": new_id(), **data}
    if values.get("tokenHash") or values.get("token_hash"):
        problem = Problem("wrong_field", "tokenHash", "is made by Task Center; leave it out")
        raise ValidationFailed("the trigger", [problem])
    if values.get("type") == "ad_hoc":
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        values["tokenHash"] = _hash(token)
    try:
        saved = _save(center, found, [*map(_dump, found.triggers), values], caller)
    except ValidationFailed as error:
        raise _about_one(error, len(found.triggers)) from None
    return saved, next(t for t in saved.triggers if t.id == values["id"]), token


def change(
    center: Center, name: str, data: Mapping[str, Any], caller: Caller, *, policy: MisfirePolicy | None = None
) -> tuple[Task, Trigger]:
    """Merge fields into a trigger (null clears). ``policy``: for slots kept by a pause that this ends."""
    task, trigger = find(center, name)
    fixed = [key for key in ("id", "taskId", "task_id", "revision", "tokenHash", "token_hash") if key in data]
    if fixed:
        raise ValidationFailed("the trigger", [Problem("fixed", key, "cannot be changed") for key in fixed])
    wire = {field.alias or key: key for key, field in Trigger.model_fields.items()}
    given = {wire.get(key, key): value for key, value in data.items()}
    merged = {key: value for key, value in {**_dump(trigger), **given}.items() if value is not None}
    index = [t.id for t in task.triggers].index(trigger.id)
    triggers = [merged if t.id == trigger.id else _dump(t) for t in task.triggers]
    try:
        saved = _save(center, task, triggers, caller, policy=policy)
    except ValidationFailed as error:
        raise _about_one(error, index) from None
    return saved, next(t for t in saved.triggers if t.id == trigger.id)


def remove(center: Center, name: str, caller: Caller) -> tuple[Task, Trigger]:
    """Slots still owed and runs made ahead are superseded; its ledger stays."""
    task, trigger = find(center, name)
    saved = _save(center, task, [_dump(t) for t in task.triggers if t.id != trigger.id], caller)
    return saved, trigger


def switch(center: Center, name: str, enabled: bool, caller: Caller) -> tuple[Task, Trigger]:
    return change(center, name, {"enabled": enabled}, caller)


def pause(center: Center, name: str, caller: Caller, *, until: datetime | None, reason: str) -> tuple[Task, Trigger]:
    """Its slots wait for their verdict until it is resumed."""
    if until is not None and until <= utc_now():
        raise ValidationFailed("the pause", [Problem("past", "until", f"{until.isoformat()} is past")])
    return change(center, name, {"paused_until": until, "paused_reason": reason or f"by {caller.actor}"}, caller)


def resume(center: Center, name: str, caller: Caller, policy: MisfirePolicy | None = None) -> tuple[Task, Trigger, int]:
    """The trigger, and how many slots it owed."""
    _, trigger = find(center, name)
    count = owed(center, [trigger.id])
    task, saved = change(center, trigger.id, {"paused_until": None, "paused_reason": None}, caller, policy=policy)
    return task, saved, count


def owed(center: Center, trigger_ids: list[str] | None = None) -> int:
    """Slots that are past and have no verdict, since something is paused; counted up to 10,000 per trigger."""
    schedule = center.schedule
    if schedule is None:
        return 0
    now = utc_now()
    state = schedule.load(trigger_ids)
    timed = (ts for ts in state.triggers if ts.trigger.type not in ("ad_hoc", "after", "startup"))
    return sum(len(due_slots(ts, now, state.calendars, 10_000)[0]) for ts in timed)


def _dump(trigger: Trigger) -> dict[str, Any]:
    return trigger.model_dump(mode="python")


def _save(
    center: Center, task: Task, triggers: list[dict[str, Any]], caller: Caller, policy: MisfirePolicy | None = None
) -> Task:
    return task_service.save(
        center,
        {"triggers": triggers},
        caller,
        update=task.id,
        expected_revision=task.revision,
        resume_policy=policy,
    )


def _about_one(error: ValidationFailed, index: int) -> ValidationFailed:
    """The problems of the one trigger that a person is about, without its place in the task."""
    heads = (f"triggers[{index}].", f"triggers.{index}.")
    problems = []
    for problem in error.problems:
        path = problem.path
        for head in heads:
            path = path.removeprefix(head)
        problems.append(Problem(problem.code, path, problem.message, problem.severity))
    return ValidationFailed("the trigger", problems)


# tokens and firing -----------------------------------------------------------------------------------


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def new_token(center: Center, name: str, caller: Caller) -> tuple[Trigger, str]:
    """A new token for an ad_hoc trigger; the one before no longer works."""
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    return _set_token(center, name, _hash(token), caller), token


def revoke_token(center: Center, name: str, caller: Caller) -> Trigger:
    """No token fires it any more, until a new one is made."""
    return _set_token(center, name, None, caller)


def _set_token(center: Center, name: str, token_hash: str | None, caller: Caller) -> Trigger:
    task, trigger = find(center, name)
    if trigger.type != "ad_hoc":
        raise Refused(f"the trigger {trigger.id[:8]} is of type {trigger.type}: only ad_hoc triggers have a token")
    triggers = [{**_dump(t), "token_hash": token_hash} if t.id == trigger.id else _dump(t) for t in task.triggers]
    saved = _save(center, task, triggers, caller)
    return next(t for t in saved.triggers if t.id == trigger.id)


@dataclass
class _Pace:
    """How often each token may be used: ``most`` times in ``seconds``."""

    most: int = 10
    seconds: float = 10.0
    _used: dict[str, deque[float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def allow(self, key: str) -> bool:
        now = time.monotonic()
        with self._lock:
            used = self._used.setdefault(key, deque())
            while used and used[0] <= now - self.seconds:
                used.popleft()
            if len(used) >= self.most:
                return False
            used.append(now)
            return True


_PACE = _Pace()


def fire_by_token(center: Center, token: str, payload: Any, caller: Caller) -> Firing:
    """Through the hook's address. A token that is wrong and one that was revoked are answered alike."""
    schedule = center.need_schedule()
    trigger = schedule.find_token(_hash(token))
    if trigger is None:
        raise NotFound("there is no hook with this token")
    if not _PACE.allow(trigger.id):
        raise TooFast(f"this hook takes {_PACE.most} calls in {_PACE.seconds:g} s: try again later")
    return _fire(center, center.store.get_task(trigger.task_id), trigger, payload, caller)


def fire(center: Center, name: str, payload: Any, caller: Caller) -> Firing:
    """One firing of an ad_hoc trigger, asked for by a person: by the trigger's id, or by its task's name."""
    owner = center.store.find_task(name)
    own = [t for t in owner.triggers if t.type == "ad_hoc"] if owner is not None else []
    task, trigger = (owner, own[0]) if owner is not None and len(own) == 1 else find(center, name)
    if trigger.type != "ad_hoc":
        how = f"taskcenter run {task.slug} starts the task now"
        raise Refused(f"the trigger {trigger.id[:8]} is of type {trigger.type} and fires by itself; {how}")
    return _fire(center, task, trigger, payload, caller)


def _fire(center: Center, task: Task, trigger: Trigger, payload: Any, caller: Caller) -> Firing:
    if payload is not None and not isinstance(payload, Mapping):
        raise ValidationFailed("the payload", [Problem("not_object", "", "must be a JSON object")])
    if not trigger.enabled:
        raise Refused(f"the trigger {trigger.id[:8]} of {task.slug} is switched off")
    if task.status is TaskStatus.DISABLED:
        raise Refused(f"the task {task.slug} is disabled")
    clear = find_clear_secrets(payload or {}, "payload")
    if clear:  # Prefect keeps a run's parameters in the clear
        raise ValidationFailed(f"the payload for {task.slug!r}", clear)
    if task.task_type != "composite" and payload:
        changed = task.model_copy(update={"payload": {**task.payload, **payload}, "triggers": ()})
        problems = task_service.check_task(center, changed, None)
        if problems:
            raise ValidationFailed(f"the payload for {task.slug!r}", problems)
    firing = Firing(new_id(), trigger.id, utc_now(), dict(payload) if payload else None)
    entry = caller.entry(
        "trigger_fired",
        task_id=task.id,
        object=f"trigger {trigger.id}",
        message=f"{task.deployment_name} was asked to run by its ad_hoc trigger",
    )
    center.need_schedule().fire(firing, task.id, audit=(entry,))
    return firing
