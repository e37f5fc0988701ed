"""The only door to networkx: cycles, waves, ancestors. (spec 3.2, 3.3)"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import networkx

from .model import CompositeSpec

__all__ = ["Ancestors", "descendants", "find_cycle", "wave_numbers", "waves"]

Pairs = Iterable[tuple[str, str]]


def _digraph(keys: Sequence[str], edges: Pairs) -> networkx.DiGraph[str]:
    graph: networkx.DiGraph[str] = networkx.DiGraph()
    graph.add_nodes_from(keys)
    graph.add_edges_from(edges)
    return graph


def find_cycle(keys: Sequence[str], edges: Pairs) -> list[str] | None:
    """One cycle as ``[a, b, a]``, or None. Starts at the step that stands first in ``keys``."""
    graph = _digraph(keys, edges)
    if networkx.is_directed_acyclic_graph(graph):
        return None
    path = [source for source, _ in networkx.find_cycle(graph)]
    order = {key: i for i, key in enumerate(keys)}
    first = path.index(min(path, key=lambda key: order[key]))
    path = path[first:] + path[:first]
    return [*path, path[0]]


def waves(keys: Sequence[str], edges: Pairs) -> list[list[str]]:
    """Topological generations: the steps of one wave need nothing of each other. The graph must be acyclic."""
    return [list(generation) for generation in networkx.topological_generations(_digraph(keys, edges))]


def wave_numbers(spec: CompositeSpec) -> dict[str, int]:
    """Step key → its wave, from 0."""
    keys = [step.step_key for step in spec.steps]
    if spec.sequential and not spec.edges:
        ordered = sorted(spec.steps, key=lambda s: (s.position, s.step_key))
        return {step.step_key: i for i, step in enumerate(ordered)}
    edges = [(e.from_step_key, e.to_step_key) for e in spec.edges]
    return {key: i for i, generation in enumerate(waves(keys, edges)) for key in generation}


def descendants(keys: Sequence[str], edges: Pairs, starts: Iterable[str]) -> set[str]:
    """Everything that comes after one of ``starts``, in one pass over the graph."""
    graph = _digraph(keys, edges)
    found: set[str] = set()
    for start in starts:
        fresh = [start]
        while fresh:
            after = [key for key in graph.successors(fresh.pop()) if key not in found]
            found.update(after)
            fresh.extend(after)
    return found


class Ancestors:
    """Whether one step comes before another, for whole graphs at once.

    One bit set per step: 10,000 steps are 12 MB and the whole table is built in one pass over the edges.
    """

    def __init__(self, generations: Sequence[Sequence[str]], parents: Mapping[str, Sequence[str]]) -> None:
        self._bit: dict[str, int] = {}
        self._before: dict[str, int] = {}
        for generation in generations:
            for key in generation:
                before = 0
                for parent in parents.get(key, ()):
                    before |= self._before[parent] | (1 << self._bit[parent])
                self._bit[key] = len(self._bit)
                self._before[key] = before

    def contains(self, key: str, ancestor: str) -> bool:
        return ancestor in self._bit and bool(self._before[key] >> self._bit[ancestor] & 1)
