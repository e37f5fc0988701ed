"""Tasks: make, change, list, delete, import and export. Checked whole before anything is stored. (spec 1.1, 1.5)"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from composites.model import CompositeSpec
from composites.validate import Known, check
from taskcenter import events
from taskcenter.clear_secrets import find_clear_secrets
from taskcenter.clock import utc_now
from taskcenter.errors import NotFound, Problem, Refused, ServerAway, TaskCenterError, ValidationFailed
from taskcenter.models import MisfirePolicy, Task, Trigger, slugify
from taskcenter.ports import Changes, RunFilter, TaskFilter
from taskcenter.redaction import redact, redact_text
from taskcenter.scheduling.calendars import Calendars
from taskcenter.scheduling.check import check_after, check_trigger
from taskcenter.scheduling.state import TriggerState
from taskcenter.scheduling.timetable import BY_EVENT, next_run
from taskcenter.status import TaskStatus
from taskcenter.task_types import registry

from .center import Caller, Center
from .deploy import deploy

__all__ = [
    "ImportItem",
    "all_tasks",
    "check_save",
    "check_task",
    "delete",
    "details",
    "export",
    "get",
    "import_tasks",
    "known",
    "list_tasks",
    "parse",
    "save",
]


def known(center: Center, also: Collection[str] = ()) -> Known:
    """What a composite's check may ask about saved tasks; ``also`` are slugs that are about to be saved."""

    def find_composite(ref: str) -> CompositeSpec | None:
        task = center.store.find_task(ref)
        graph = center.store.find_graph(task.id) if task else None
        return CompositeSpec.from_dict({**graph, "name": task.slug}) if task and graph else None

    return Known(
        find_type=registry.find,
        type_names=registry.keys,
        find_task=lambda ref: ref in also or center.store.find_task(ref) is not None,
        find_composite=find_composite,
        max_steps=center.settings.max_steps,
    )


def parse(data: Any, *, base: Task | None = None) -> tuple[Task, dict[str, Any] | None]:
    """A task and its graph from JSON; ``base`` is merged into (absent keeps, null clears).

    ``graph`` (or ``steps`` and ``edges``) is taken for composites. Raises ValidationFailed with every problem.
    """
    if not isinstance(data, Mapping):
        raise ValidationFailed(
            "the task", [Problem("not_object", "", f"must be a JSON object, not {type(data).__name__}")]
        )
    values = dict(data)
    graph = values.pop("graph", None)
    if "steps" in values:
        graph = {key: values.pop(key) for key in ("steps", "edges") if key in values}
    if "schedule" in values:
        values.setdefault("triggers", [_schedule(values.pop("schedule"))])
    if base is not None:
        current = base.model_dump(mode="python")
        named = {_snake(key): value for key, value in values.items()}
        values = {**current, **{k: _cleared(k) if v is None else v for k, v in named.items()}}
    try:
        task = Task.model_validate(values)
    except ValidationError as error:
        problems = [
            Problem(item["type"], ".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, "))
            for item in error.errors(include_url=False)
        ]
        raise ValidationFailed(f"the task {values.get('name') or values.get('slug') or ''!r}", problems) from None
    return task, dict(graph) if isinstance(graph, Mapping) else graph


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


def _cleared(name: str) -> Any:
    """What null means for a field: its default."""
    spec = Task.model_fields.get(name)
    return spec.get_default(call_default_factory=True) if spec is not None else None


def _schedule(value: Any) -> dict[str, Any]:
    """``"0 1 * * *"`` or ``{cron: …, timezone: …}`` as a trigger."""
    if isinstance(value, str):
        return {"type": "cron", "cronExpression": value}
    if isinstance(value, Mapping) and "cron" in value:
        zone = {"timezone": value["timezone"]} if "timezone" in value else {}
        return {"type": "cron", "cronExpression": value["cron"], **zone}
    return dict(value) if isinstance(value, Mapping) else {"type": str(value)}


def check_task(
    center: Center,
    task: Task,
    graph: Mapping[str, Any] | None,
    *,
    before: Task | None = None,
    also: Collection[str] = (),
) -> list[Problem]:
    """Every problem of a task with its triggers, payload and graph.

    ``before``: the task that it would replace; ``also``: slugs that are saved along with it.
    """
    problems: list[Problem] = []
    if task.task_type == "composite":
        problems += _check_graph(center, task, graph, also)
    else:
        kind = registry.find(task.task_type)
        if kind is None:
            names = ", ".join(registry.keys())
            text = f"there is no task type {task.task_type!r}; known: {names}"
            broken = registry.broken.get(task.task_type)
            problems.append(Problem("unknown_type", "taskType", f"{text}. It is broken: {broken}" if broken else text))
        else:
            problems += kind.check(task.payload)
        if graph is not None:
            problems.append(Problem("graph", "graph", "only a composite has steps"))
    problems += find_clear_secrets(task.payload, "payload")
    problems += find_clear_secrets(task.environment, "environment")
    problems += _check_triggers(center, task, before)
    if task.status is _status(before) is TaskStatus.DISABLED and _added(task, before):
        problems.append(Problem("disabled", "triggers", "a disabled task takes no trigger; enable it first"))
    return problems


def _status(task: Task | None) -> TaskStatus | None:
    return task.status if task is not None else None


def _added(task: Task, before: Task | None) -> bool:
    """Whether there is a trigger that was not there before. Those of a task that is being disabled stay."""
    have = {trigger.id for trigger in before.triggers} if before is not None else set()
    return any(trigger.id not in have for trigger in task.triggers)


def _check_triggers(center: Center, task: Task, before: Task | None) -> list[Problem]:
    """Fields, times, calendars, and that no tasks wait for each other in a circle."""
    now = utc_now()
    calendars = center.calendars()
    problems: list[Problem] = []
    for index, trigger in enumerate(task.triggers):
        path = f"triggers[{index}]"
        problems += find_clear_secrets(trigger.payload or {}, f"{path}.payload")
        old = next((t for t in before.triggers if t.id == trigger.id), None) if before is not None else None
        if old is not None and _same_times(old, trigger):
            continue  # what has become past since it was written is no mistake of this change
        ids = {t: t for t in trigger.task_ids if center.store.find_task(t) is not None}
        problems += check_trigger(trigger, now, path, calendars, ids)
    if any(trigger.type == "after" for trigger in task.triggers):
        others = [other for other in all_tasks(center) if other.id != task.id]
        names = {other.id: other.slug for other in [*others, task]}
        triggers = [trigger for other in [*others, task] for trigger in other.triggers]
        problems += check_after(triggers, names)
    return problems


def _same_times(old: Trigger, new: Trigger) -> bool:
    kept = {name: getattr(new, name) for name in ("enabled", "paused_until", "paused_reason", "payload", "priority")}
    shown = {name: getattr(new, name) for name in ("next_run_at", "last_run_at", "revision")}
    return old.model_copy(update={**kept, **shown}) == new


def _check_graph(center: Center, task: Task, graph: Mapping[str, Any] | None, also: Collection[str]) -> list[Problem]:
    if graph is None:
        return [Problem("no_steps", "graph", "a composite needs a graph with steps and edges")]
    if not isinstance(graph, Mapping):
        return [Problem("not_object", "graph", f"must be a JSON object, not {type(graph).__name__}")]
    spec, problems = CompositeSpec.read({**graph, "name": task.slug}, name=task.slug)
    clear = find_clear_secrets(dict(spec.inputs), "inputs")
    for step in spec.steps:
        clear += find_clear_secrets(step.payload, f"steps ({step.step_key}).payload")
    return [*problems, *check(spec, known(center, also)).errors, *clear]


def check_save(
    center: Center, data: Any, *, update: str | None = None
) -> tuple[Task, dict[str, Any] | None, Task | None]:
    """What ``save`` would store: the task, its graph and the task before. Raises ValidationFailed; writes nothing."""
    before = center.store.get_task(update) if update else None
    task, graph = parse(data, base=before)
    if before is not None:
        task = task.model_copy(update={"id": before.id, "created_at": before.created_at})
        graph = graph if graph is not None else center.store.find_graph(before.id)
    task = task.model_copy(
        update={"triggers": tuple(_complete(center, trigger, task, before) for trigger in task.triggers)}
    )
    problems = [p for p in check_task(center, task, graph, before=before) if p.severity == "error"]
    if problems:
        raise ValidationFailed(f"the task {task.name!r}", problems)
    return task, graph, before


def save(
    center: Center,
    data: Any,
    caller: Caller,
    *,
    update: str | None = None,
    expected_revision: int | None = None,
    publish: bool = True,
    resume_policy: MisfirePolicy | None = None,
    event_type: str | None = None,
    message: str | None = None,
) -> Task:
    """Create a task, or merge into the task ``update``. Stored and published, or refused as a whole.

    ``resume_policy``: what becomes of slots kept by a pause that this ends, instead of the triggers' own policies.
    ``event_type`` and ``message``: what the audit says of it, and the message the revision; default that it was saved.
    """
    store = center.store
    task, graph, before = check_save(center, data, update=update)
    verb = "updated" if before else "created"
    entry = caller.entry(
        event_type or f"task_{verb}",
        task_id=task.id,
        object=f"task {task.slug}",
        before=redact(before.to_json()) if before else None,
        after=redact(task.to_json()),
        message=redact_text(message) if message else f"{task.deployment_name} was {verb}",
    )
    saved = store.save_task(
        task,
        graph=graph,
        expected_revision=expected_revision if before else 0,
        audit=(entry,),
        events=(events.task_changed(verb, task, utc_now()),),
        resume_policy=resume_policy,
    )
    if publish:
        _deploy(center, saved, before)
    return saved


def _complete(center: Center, trigger: Trigger, task: Task, before: Task | None) -> Trigger:
    """Fill what only the moment of writing knows: an interval's anchor, the tasks meant by slug, the first slot."""
    now = utc_now()
    update: dict[str, Any] = {"task_id": task.id}
    old = next((t for t in before.triggers if t.id == trigger.id), None) if before is not None else None
    if trigger.type == "interval" and trigger.anchor is None and trigger.counts_from == "schedule":
        update["anchor"] = now.replace(microsecond=0)
    if trigger.task_ids:
        found = {ref: center.store.find_task(ref) for ref in trigger.task_ids}
        update["task_ids"] = tuple(known.id if known else ref for ref, known in found.items())
    if old is not None and not _same_times(old, trigger):
        update["revision"] = old.revision + 1
    trigger = trigger.model_copy(update=update)
    return trigger.model_copy(update={"next_run_at": _next(center, trigger, now)})


def _next(center: Center, trigger: Trigger, now: datetime) -> datetime | None:
    """The next slot that a person is told, or None."""
    if trigger.type in BY_EVENT or trigger.counts_from == "completion" or check_trigger(trigger, now):
        return None
    calendars = center.calendars() if trigger.calendar else Calendars()
    return next_run(TriggerState(trigger, now, cursor=now), now, calendars)


def _deploy(center: Center, task: Task, before: Task | None) -> None:
    """Make the deployment; without a Prefect server it is made at the next start."""
    try:
        if before is not None and before.deployment_name != task.deployment_name:
            old = center.gateway.find_deployment(before.deployment_name)
            if old is not None:
                center.gateway.delete_deployment(str(old["id"]))
        deploy(center, [task])
    except ServerAway:
        return


def get(center: Center, name: str) -> Task:
    """By id or slug, also as ``<task type>/<slug>``."""
    task = center.store.find_task(name)
    if task is None and "/" in name:
        kind, _, slug = name.partition("/")
        task = center.store.find_task(slug)
        if task is not None and task.task_type != kind:
            task = None
    if task is None:
        names = ", ".join(t.slug for t in center.store.list_tasks(TaskFilter(limit=20)))
        raise NotFound(f"there is no task {name!r}" + (f"; there are: {names}" if names else ""), name=name)
    return task


def list_tasks(center: Center, where: TaskFilter = TaskFilter()) -> list[dict[str, Any]]:
    """Each task as JSON with its last run and its next slot."""
    now = utc_now()
    return [_row(center, task, now) for task in center.store.list_tasks(where)]


def details(center: Center, name: str) -> dict[str, Any]:
    """One task as a list shows it, with its graph when it is a composite."""
    task = get(center, name)
    return {**_row(center, task, utc_now()), "graph": center.store.find_graph(task.id)}


def _row(center: Center, task: Task, now: datetime) -> dict[str, Any]:
    last = _last_run(center, task.id)
    active = task.status is TaskStatus.ACTIVE
    slots = [_next(center, t, now) for t in task.triggers if t.enabled] if active else []
    due = min((slot for slot in slots if slot is not None), default=None)
    return {
        **task.to_json(),
        "lastRunStatus": last.status.value if last else None,
        "lastRunAt": last.created_at.isoformat() if last else None,
        "nextRunAt": due.isoformat() if due else None,
    }


def all_tasks(center: Center) -> list[Task]:
    """Every task there is."""
    tasks: list[Task] = []
    while True:
        page = center.store.list_tasks(TaskFilter(limit=500, offset=len(tasks)))
        tasks.extend(page)
        if len(page) < 500:
            return tasks


def _last_run(center: Center, task_id: str) -> Any:
    items = center.store.list_runs(RunFilter(task_id=task_id, limit=1)).items
    return items[0] if items else None


def delete(center: Center, name: str, caller: Caller) -> Task:
    """Remove the task with its runs and its deployment; audit entries stay.

    Refused while a run of it is open, and under a legal hold.
    """
    from . import holding

    task = get(center, name)
    holding.refuse_if_held(center, task)
    still = center.store.list_runs(RunFilter(task_id=task.id, open_only=True, limit=5)).items
    if still:
        which = ", ".join(f"{run.id[:8]} ({run.status})" for run in still)
        raise Refused(f"{task.slug} has runs that are not over: {which}. Wait for them or cancel them, then delete it")
    entry = caller.entry(
        "task_deleted",
        task_id=task.id,
        object=f"task {task.slug}",
        before=redact(task.to_json()),
        message=f"{task.deployment_name} was deleted",
    )
    found = center.gateway.find_deployment(task.deployment_name)
    center.store.delete_task(task.id, audit=(entry,), events=(events.task_changed("deleted", task, utc_now()),))
    if found is not None:
        center.gateway.delete_deployment(str(found["id"]))
    return task


# import and export ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImportItem:
    """One task of an import: create, update, same or refused, with its problems."""

    name: str
    kind: str
    problems: Sequence[Problem] = field(default_factory=tuple)
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "kind": self.kind, "problems": [p.to_dict() for p in self.problems]}


def export(center: Center, caller: Caller, names: Sequence[str] = ()) -> dict[str, Any]:
    """A task list that ``import_tasks`` takes; all tasks when no name is given."""
    tasks = [get(center, name) for name in names] if names else all_tasks(center)
    rows = []
    for task in tasks:
        data = task.to_json()
        for name in ("id", "revision", "createdAt", "updatedAt"):
            data.pop(name)
        for trigger in data["triggers"]:
            for name in ("taskId", "nextRunAt", "lastRunAt"):
                trigger.pop(name)
        graph = center.store.find_graph(task.id)
        rows.append({**data, "graph": _by_slug(center, graph)} if graph is not None else data)
    entry = caller.entry(
        "tasks_exported",
        object="tasks",
        message=f"{len(tasks)} tasks were exported",
        metadata={"tasks": [task.slug for task in tasks[:100]]},
    )
    center.store.record(Changes(audit=(entry,)))
    return {"schemaVersion": 1, "importMode": "create_task_requests", "tasks": rows}


def _by_slug(center: Center, graph: Mapping[str, Any]) -> dict[str, Any]:
    """The graph with the tasks it refers to named by slug: ids mean nothing in another center."""
    steps = []
    for step in graph.get("steps", ()):
        task = center.store.find_task(step["referencedTaskId"]) if step.get("referencedTaskId") else None
        steps.append({**step, "referencedTaskId": task.slug} if task else step)
    return {**graph, "steps": steps}


def import_tasks(center: Center, document: Any, caller: Caller, *, apply: bool) -> list[ImportItem]:
    """Preview an import, and carry it out when ``apply`` and nothing is refused."""
    rows = document.get("tasks") if isinstance(document, Mapping) else document
    if not isinstance(rows, list):
        text = "must hold a list under 'tasks' (schemaVersion 1)"
        raise ValidationFailed("the import", [Problem("not_list", "tasks", text)])
    if isinstance(document, Mapping) and document.get("schemaVersion", 1) != 1:
        text = f"{document['schemaVersion']!r} is not known; known: 1"
        raise ValidationFailed("the import", [Problem("version", "schemaVersion", text)])
    wanted = {_slug_of(row) for row in rows if isinstance(row, Mapping)}
    items = _without_doubles([_preview(center, row, index, wanted) for index, row in enumerate(rows)])
    if apply and all(item.kind != "refused" for item in items):
        for item in _in_order(items):
            save(center, item.data, caller, update=str(item.data["slug"]) if item.kind == "update" else None)
    return items


def _slug_of(row: Mapping[str, Any]) -> str:
    return str(row.get("slug") or slugify(str(row.get("name") or "")))


def _references(row: Mapping[str, Any]) -> set[str]:
    """The tasks that a composite's steps run, by slug or id."""
    graph = row.get("graph") or row
    steps = graph.get("steps") if isinstance(graph, Mapping) else None
    found = [step for step in steps or () if isinstance(step, Mapping)]
    named = {str(step.get("referencedTaskId") or step.get("referenced_task_id") or "") for step in found}
    inner = {
        str((step.get("payload") or {}).get("composite") or "") for step in found if step.get("taskType") == "composite"
    }
    return (named | inner) - {""}


def _in_order(items: Sequence[ImportItem]) -> list[ImportItem]:
    """What is to be saved, a task that others refer to before those others."""
    left = [item for item in items if item.kind in ("create", "update")]
    ordered: list[ImportItem] = []
    while left:
        names = {str(item.data["slug"]) for item in left}
        free = [item for item in left if not _references(item.data) & (names - {str(item.data["slug"])})]
        ordered += free or left  # composites that contain each other are refused when they are saved
        left = [item for item in left if item not in free] if free else []
    return ordered


def _without_doubles(items: Sequence[ImportItem]) -> list[ImportItem]:
    """Refuses the second of two rows for one task: applied, it would fail after the first was saved."""
    seen: set[str] = set()
    checked = []
    for item in items:
        slug = str(item.data.get("slug", ""))
        if slug and slug in seen:
            item = ImportItem(item.name, "refused", (Problem("twice", "slug", f"{slug!r} stands in the import twice"),))
        seen.add(slug)
        checked.append(item)
    return checked


def _preview(center: Center, row: Any, index: int, wanted: Collection[str] = ()) -> ImportItem:
    """``wanted`` are the slugs of the whole import: a step may refer to any of them."""
    name = (
        str(row.get("name") or row.get("slug") or f"tasks[{index}]") if isinstance(row, Mapping) else f"tasks[{index}]"
    )
    try:
        task, graph = parse(row)
        before = center.store.find_task(task.slug)
        problems = [p for p in check_task(center, task, graph, before=before, also=wanted) if p.severity == "error"]
    except ValidationFailed as error:
        return ImportItem(name, "refused", error.problems)
    except TaskCenterError as error:
        return ImportItem(name, "refused", (Problem(error.code, "", error.message),))
    if problems:
        return ImportItem(name, "refused", problems)
    data = {**row, "slug": task.slug}
    data.pop("id", None)  # a list may come from another center, whose ids mean nothing here
    if before is None:
        taken = {trigger.id for other in all_tasks(center) for trigger in other.triggers}
        triggers = [{k: v for k, v in t.items() if k != "id" or v not in taken} for t in row.get("triggers") or ()]
        return ImportItem(name, "create", data={**data, "triggers": triggers} if triggers else data)
    merged, _ = parse(row, base=before)
    unchanged = {"id", "revision", "created_at", "updated_at", "triggers"}
    same = merged.model_dump(exclude=unchanged) == before.model_dump(exclude=unchanged)
    same = same and _same_triggers(merged.triggers, before.triggers)
    same = same and (graph is None or graph == _bare(center.store.find_graph(before.id)))
    return ImportItem(name, "same" if same else "update", data=data)


def _bare(graph: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return dict(graph) if graph is not None else None


def _same_triggers(new: Sequence[Trigger], old: Sequence[Trigger]) -> bool:
    volatile = {"id", "task_id", "next_run_at", "last_run_at", "anchor"}
    return [t.model_dump(exclude=volatile) for t in new] == [t.model_dump(exclude=volatile) for t in old]
