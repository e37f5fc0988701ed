"""Real graphs that other people drew: scientific workflows and continuous-integration jobs. (spec 9.2)

Every one of them becomes a composite, has no problem, and is planned in the waves that networkx finds; some are run.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from typing import Any

import networkx
import pytest

from composites import Composite
from composites.engine import StepCall
from composites.local import run_here
from composites.model import CompositeSpec
from composites.plan import make_plan
from composites.render import to_dot, to_mermaid, to_tree
from composites.validate import check
from composites.walk import compile_graph
from taskcenter.status import StepStatus
from tests.graphs import GOOD, Recorder, walk_all
from tests.outside import outside_rows


def legal(names: Sequence[str]) -> list[str]:
    """Step keys of the allowed letters, each once: what somebody who imports such a file would do."""
    used: set[str] = set()
    keys = []
    for name in names:
        plain = key = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:190] or "step"
        count = 1
        while key in used:
            count += 1
            key = f"{plain}_{count}"
        used.add(key)
        keys.append(key)
    return keys


def build(name: str, steps: Sequence[str], edges: Sequence[Sequence[Any]]) -> CompositeSpec:
    """Edges join indices, or names where the file has names."""
    keys = legal(steps)
    at = {step: i for i, step in enumerate(steps)}
    made = Composite(name, max_parallel=16)
    for key, step in zip(keys, steps, strict=True):
        made.step(key, "noop", name=step)
    pairs = [(a, b) if isinstance(a, int) else (at[a], at[b]) for a, b in edges]
    for a, b in dict.fromkeys(pairs):
        made.edge(keys[a], keys[b])
    return made.spec


def workflows() -> Iterator[CompositeSpec]:
    for row in outside_rows("wfinstances_half.jsonl.gz"):
        yield build(row["name"], row["steps"], row["edges"])


def jobs() -> Iterator[CompositeSpec]:
    for row in outside_rows("github_actions_needs_half.jsonl.gz"):
        if row["steps"]:
            yield build(f"{row['repo']} {row['file']}", row["steps"], row["edges"])


SOURCES = {"workflows": workflows, "jobs": jobs}


def digraph(spec: CompositeSpec) -> networkx.DiGraph[str]:
    graph: networkx.DiGraph[str] = networkx.DiGraph()
    graph.add_nodes_from(step.step_key for step in spec.steps)
    graph.add_edges_from((edge.from_step_key, edge.to_step_key) for edge in spec.edges)
    return graph


@pytest.mark.parametrize("source", SOURCES)
def test_every_graph_is_checked_and_planned_in_its_waves(source: str) -> None:
    count = 0
    for spec in SOURCES[source]():
        count += 1
        checked = check(spec)
        assert checked.problems == (), (spec.name, checked.problems[:3])
        plan = make_plan(spec)
        waves: dict[str, int] = {step.key: step.wave for step in plan.steps}
        generations = list(networkx.topological_generations(digraph(spec)))
        assert waves == {key: i for i, generation in enumerate(generations) for key in generation}, spec.name
        assert plan.waves == len(generations)
        assert len(plan.order) == len(spec.steps)
        place = {key: i for i, key in enumerate(plan.order)}
        assert all(place[e.from_step_key] < place[e.to_step_key] for e in spec.edges), spec.name
        assert len(plan.critical_path) == networkx.dag_longest_path_length(digraph(spec), default_weight=1) + 1
        assert all(step.certain for step in plan.steps)
    assert count > 20


@pytest.mark.parametrize("source", SOURCES)
def test_every_graph_is_equal_to_its_json_form_and_can_be_drawn(source: str) -> None:
    for spec in SOURCES[source]():
        assert CompositeSpec.from_dict(spec.to_dict()) == spec
        assert to_tree(spec).count("\n") == len(spec.steps)
        assert to_mermaid(spec).count("-->") == len(spec.edges)
        assert to_dot(spec).count(" -> ") == len(spec.edges)


def test_the_walker_takes_every_graph_in_an_order_its_edges_allow() -> None:
    for source in SOURCES.values():
        for spec in source():
            # the newest of the running steps ends first: as far from the plan's own order as it gets
            walked = walk_all(compile_graph(spec), {}, lambda running: running[-1])
            assert set(walked.statuses.values()) == {StepStatus.SUCCESS}
            assert walked.most_running <= spec.max_parallel
            for edge in spec.edges:
                assert edge.from_step_key in walked.known_at_start[edge.to_step_key]
            assert all(outcome == GOOD for outcome in walked.walker.outcomes.values())


def test_ten_real_graphs_run() -> None:
    """With steps that do nothing: each ends once, and none starts before all that stand before it have ended."""
    by_family: dict[str, CompositeSpec] = {}
    for row in outside_rows("wfinstances_half.jsonl.gz"):
        known = by_family.get(row["family"])
        if known is None or len(known.steps) < len(row["steps"]) <= 900:
            by_family[row["family"]] = build(row["name"], row["steps"], row["edges"])
    chosen = sorted(by_family.values(), key=lambda spec: (len(spec.steps), spec.name))[-10:]
    assert len(chosen) == 10
    assert any(len(spec.steps) >= 500 for spec in chosen)
    for spec in chosen:
        recorder = Recorder()
        running: set[str] = set()
        most = 0

        async def nothing(call: StepCall, running: set[str] = running) -> dict[str, str]:
            nonlocal most
            running.add(call.key)
            most = max(most, len(running))
            await asyncio.sleep(0)
            running.discard(call.key)
            return {"key": call.key}

        result = run_here(spec, work=nothing, observe=recorder)
        assert not result.ending.failed, spec.name
        assert most <= spec.max_parallel
        begun = {c.key: i for i, c in enumerate(recorder.changes) if c.status is StepStatus.RUNNING}
        ended = {c.key: i for i, c in enumerate(recorder.changes) if c.status is StepStatus.SUCCESS}
        assert len(recorder.changes) == 2 * len(spec.steps), "running once and one end, nothing else"
        assert len(begun) == len(ended) == len(spec.steps)
        for edge in spec.edges:
            assert ended[edge.from_step_key] < begun[edge.to_step_key]
