"""Composites: check, plan, show and render those in files, in the catalogue and in the database. (spec 3)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from composites.load import Broken, Found, catalog, find, load_file
from composites.model import CompositeSpec
from composites.plan import Expectation, Plan, make_plan, plan_hash
from composites.resume import apply_set
from composites.validate import Known, check
from composites.walk import Overrides
from taskcenter.errors import Problem, Refused, TaskCenterError, ValidationFailed
from taskcenter.settings import Settings
from taskcenter.task_types import registry

if TYPE_CHECKING:  # a plan from a file imports no HTTP client and no database library
    from taskcenter.options import RunOptions

    from .center import Caller, Center

__all__ = ["Named", "adopt_catalog", "check_named", "locate", "plan", "plan_offline", "task_data"]


@dataclass(frozen=True)
class Named:
    """A composite found by name or file; ``task_id`` and ``revision`` when it is saved."""

    spec: CompositeSpec
    source: str
    task_id: str | None = None
    revision: int | None = None
    inputs: Mapping[str, Any] | None = None


def _is_file(name: str) -> bool:
    return name.endswith((".py", ".json"))


def locate(name: str, settings: Settings, center: Center | None = None) -> list[Named]:
    """Composites of a file (one or more), else the saved one, else the one of the catalogue.

    Without ``center`` nothing but files is asked, so that no server is needed.
    """
    if _is_file(name):
        return [Named(spec, name) for spec in load_file(Path(name).absolute())]
    slug = name.removeprefix("composite/")
    if center is not None:
        task = center.store.find_task(slug)
        if task is not None:
            graph = center.store.find_graph(task.id)
            if graph is None:
                raise Refused(f"the task {slug!r} is of the type {task.task_type}: it has no graph")
            spec = CompositeSpec.from_dict({**graph, "name": task.slug})
            return [Named(spec, "saved", task.id, task.revision, task.payload)]
    found = find(slug, settings.project / "composites")
    return [Named(found.spec, str(found.file))]


def offline_known(settings: Settings) -> Known:
    """For a check without a server: task types are known, saved tasks are not asked about."""
    registry.folder = registry.folder or settings.project / "task_types"

    def find_composite(ref: str) -> CompositeSpec | None:
        try:
            return find(ref, settings.project / "composites").spec
        except TaskCenterError:
            return None

    return Known(
        find_type=registry.find, type_names=registry.keys, find_composite=find_composite, max_steps=settings.max_steps
    )


def check_named(named: Named, known: Known) -> list[Problem]:
    return list(check(named.spec, known).problems)


def _has_connection(name: str) -> bool | None:
    """Whether a connection exists as far as this process can tell without a server."""
    from blocks.connections import find_local

    try:
        return True if find_local(name) is not None else None
    except TaskCenterError:
        return False


def plan_offline(
    named: Named, settings: Settings, *, inputs: Mapping[str, Any] | None = None, options: RunOptions | None = None
) -> tuple[Plan, CompositeSpec]:
    """The plan of a composite in a file; no server is asked. Raises ValidationFailed with all problems."""
    return _plan(named, offline_known(settings), inputs, options, {}, Overrides())


def plan(
    center: Center, name: str, *, inputs: Mapping[str, Any] | None = None, options: RunOptions | None = None
) -> tuple[Plan, CompositeSpec]:
    """The plan of a saved (or catalogue) composite, with what history says about durations.

    Refused when ``options.plan_hash`` is not the hash of now; the difference is in the message.
    """
    from flows.running.definitions import overrides_of
    from taskcenter.options import RunOptions

    from .tasks import known

    options = options or RunOptions()

    named = locate(name, center.settings, center)[0]
    history = expectations(center, named.task_id) if named.task_id else {}
    reused = Overrides()
    if options.resume:
        _, reused, _ = overrides_of(named.spec, options, center.store)
    made = _plan(named, known(center), inputs, options, history, reused)
    if options.plan_hash and made[0].hash != options.plan_hash:
        raise Refused(
            f"the plan {options.plan_hash} is not the plan of now ({made[0].hash}): "
            + _what_changed(center, named, inputs, options)
        )
    return made


def _plan(
    named: Named,
    known: Known,
    inputs: Mapping[str, Any] | None,
    options: RunOptions | None,
    history: Mapping[str, Expectation],
    reused: Overrides,
) -> tuple[Plan, CompositeSpec]:
    errors = check(named.spec, known).errors
    if errors:
        raise ValidationFailed(f"the composite {named.spec.name!r}", errors)
    spec = apply_set(named.spec, options.set) if options else named.spec
    chosen = reused if options and options.resume else _selected(spec, options)
    made = make_plan(
        spec,
        find_type=registry.find,
        inputs={**(named.inputs or {}), **(inputs or {})},
        overrides=chosen,
        history=history,
        has_connection=_has_connection,
        task_id=named.task_id,
        revision=named.revision,
    )
    return made, spec


def _selected(spec: CompositeSpec, options: RunOptions | None) -> Overrides:
    from flows.running.definitions import selected

    return selected(spec, options) if options is not None else Overrides()


def _what_changed(center: Center, named: Named, inputs: Mapping[str, Any] | None, options: RunOptions) -> str:
    """Find the revision that the hash was made of and name what differs from it."""
    if named.task_id is None:
        return "its definition, the inputs or the options changed; plan again"
    for row in center.store.list_revisions(named.task_id):
        graph = row.get("graph")
        if not graph or row["revision"] == named.revision:
            continue
        spec = CompositeSpec.from_dict({**graph, "name": named.spec.name})
        payload = (row.get("definition") or {}).get("payload") or {}
        merged = {**spec.inputs, **payload, **(inputs or {})}
        old = plan_hash(spec, inputs=merged, revision=row["revision"], overrides=_selected(spec, options))
        if old == options.plan_hash:
            what = differences(spec, named.spec)
            return f"it was made of revision {row['revision']}, now it is {named.revision}. {what}"
    return "the inputs, the options or the program changed; plan again"


def differences(old: CompositeSpec, new: CompositeSpec) -> str:
    """What changed between two definitions, in words."""
    before = {step.step_key: step for step in old.steps}
    after = {step.step_key: step for step in new.steps}
    said = [f"step {key} was added" for key in after if key not in before]
    said += [f"step {key} was removed" for key in before if key not in after]
    for key in after:
        if key in before and before[key] != after[key]:
            a, b = before[key].to_dict(), after[key].to_dict()
            fields = sorted(name for name in {*a, *b} if a.get(name) != b.get(name))
            said.append(f"step {key} changed in {', '.join(fields)}")
    edges = {(e.from_step_key, e.to_step_key, e.condition) for e in old.edges}
    now = {(e.from_step_key, e.to_step_key, e.condition) for e in new.edges}
    said += [f"edge {a} → {b} was added" for a, b, _ in sorted(now - edges)]
    said += [f"edge {a} → {b} was removed" for a, b, _ in sorted(edges - now)]
    if not said:
        said = ["its settings or inputs changed"]
    return "; ".join(said[:10])


def expectations(center: Center, task_id: str, runs: int = 20) -> dict[str, Expectation]:
    """How long each step took in the last successful runs: median and 95th percentile, in seconds."""
    import statistics

    from taskcenter.ports import RunFilter
    from taskcenter.status import RunStatus

    took: dict[str, list[float]] = {}
    where = RunFilter(task_id=task_id, status=RunStatus.SUCCESS, limit=runs)
    for run in center.store.list_runs(where).items:
        if run.dry_run:
            continue
        for step in center.store.list_steps(run.id):
            if step.status == "success" and step.duration_ms is not None and not step.reused:
                took.setdefault(step.step_key, []).append(step.duration_ms / 1000)
    return {
        key: Expectation(
            p50=statistics.median(values),
            p95=statistics.quantiles(values, n=20)[-1] if len(values) > 1 else values[0],
            n=len(values),
        )
        for key, values in took.items()
    }


def adopt_catalog(center: Center, caller: Caller, *, write: bool = True) -> tuple[list[str], list[Broken]]:
    """Save every composite of the catalogue and the project's folder that is new or changed in its file.

    Without ``write`` they are checked and named only.

    A composite that a person changed at run time is left as that person left it. Broken files are reported by
    name and do not hide the others.
    """
    from .tasks import check_save, save

    found, broken = catalog(center.settings.project / "composites")
    changed: list[str] = []
    for item in found:
        task = center.store.find_task(item.spec.name)
        graph = item.spec.to_dict()
        digest = plan_hash(item.spec, inputs={}, revision=None, overrides=Overrides())
        known = center.store.get_setting(f"catalog:{item.spec.name}")
        if task is not None and (known == digest or task.task_type != "composite"):
            continue
        data, update = _task_data(item, graph), task.slug if task else None
        try:
            if write:
                save(center, data, caller, update=update, publish=False)
                center.store.set_setting(f"catalog:{item.spec.name}", digest)
            else:
                check_save(center, data, update=update)
        except ValidationFailed as error:
            broken.append(Broken(item.file, error.message))
            continue
        changed.append(item.spec.name)
    return changed, broken


def _task_data(item: Found, graph: Mapping[str, Any]) -> dict[str, Any]:
    return {**task_data(item.spec), "graph": dict(graph)}


def task_data(spec: CompositeSpec) -> dict[str, Any]:
    """A composite as the task that ``tasks.save`` takes."""
    return {
        "slug": spec.name,
        "name": spec.name,
        "description": spec.description,
        "taskType": "composite",
        "tags": list(spec.tags),
        "graph": spec.to_dict(),
    }
