"""What a composite run is made of: its definition, what its check may ask, and the choices of one run."""

from __future__ import annotations

from typing import Any

from composites.load import find
from composites.model import CompositeSpec
from composites.resume import apply_set, decide_resume, select
from composites.validate import Known
from composites.walk import Overrides
from taskcenter.errors import Refused, TaskCenterError
from taskcenter.options import RunOptions
from taskcenter.ports import Store
from taskcenter.settings import Settings
from taskcenter.task_types import registry

__all__ = ["definition_of", "known_to", "overrides_of", "selected"]


def definition_of(store: Store, slug: str, settings: Settings) -> tuple[CompositeSpec, dict[str, Any]]:
    """The graph and the task's own inputs: as saved, else from the catalogue and the project's files."""
    task = store.find_task(slug)
    if task is not None:
        graph = store.find_graph(task.id)
        if graph is None:
            raise Refused(f"the task {slug!r} is not a composite: it has no graph")
        return CompositeSpec.from_dict({**graph, "name": task.slug}), dict(task.payload)
    return find(slug, settings.project / "composites").spec, {}


def known_to(store: Store, settings: Settings) -> Known:
    """What a check may ask about the world outside of one graph."""

    def find_composite(ref: str) -> CompositeSpec | None:
        try:
            return definition_of(store, ref, settings)[0]
        except TaskCenterError:
            return None

    return Known(
        find_type=registry.find,
        type_names=registry.keys,
        find_task=lambda ref: store.find_task(ref) is not None,
        find_composite=find_composite,
        max_steps=settings.max_steps,
    )


def selected(spec: CompositeSpec, options: RunOptions) -> Overrides:
    """What the options leave out, hold or make fail; raises ValidationFailed for a step that does not exist."""
    return select(
        spec,
        only=options.only,
        start_from=options.start_from,
        downstream_of=options.downstream_of,
        skip=options.skip,
        hold=options.hold,
        fail=options.fail,
    )


def overrides_of(spec: CompositeSpec, options: RunOptions, store: Store) -> tuple[CompositeSpec, Overrides, list[str]]:
    """The graph and the overrides of one run, and the sentences that explain what is reused."""
    spec = apply_set(spec, options.set)
    chosen = selected(spec, options)
    if options.resume is None:
        return spec, chosen, []
    run = store.get_run(options.resume)
    if run.task_slug != spec.name:
        raise Refused(f"the run {run.id} is one of {run.task_slug!r}, not of {spec.name!r}: it cannot be resumed here")
    rows = {row.step_key: row for row in store.list_steps(run.id) if "[" not in row.step_key}
    outputs = {key: {"status": row.status.value, "execution": row.execution} for key, row in rows.items()}
    earlier = _earlier(store, run.task_id, run.task_revision, spec)
    resume = decide_resume(spec, outputs, mode=options.resume_mode, step=options.resume_step, earlier=earlier)
    said = [f"{d.key}: {'reused' if d.reuse else 'runs'}, because {d.reason}" for d in resume.decisions]
    mixed = Overrides(
        skip=chosen.skip,
        hold=chosen.hold,
        fail=chosen.fail,
        selected=resume.overrides.selected if resume.overrides.selected is not None else chosen.selected,
        reused=resume.overrides.reused,
    )
    return spec, mixed, said


def _earlier(store: Store, task_id: str | None, revision: int | None, spec: CompositeSpec) -> CompositeSpec | None:
    """The definition that the earlier run had."""
    if task_id is None or revision is None:
        return None
    for row in store.list_revisions(task_id):
        if row["revision"] == revision and row.get("graph"):
            return CompositeSpec.from_dict({**row["graph"], "name": spec.name})
    return None
