"""What differs between two definitions of a task: field by field, steps and edges by key, not text. (spec 1.1)"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .redaction import redact

__all__ = ["Difference", "differences"]

_UNTOLD = frozenset({"id", "revision", "createdAt", "updatedAt", "taskId", "nextRunAt", "lastRunAt"})
"""What changes with every save, or with time, and is no part of what a person defined."""
_MISSING: Any = object()


@dataclass(frozen=True)
class Difference:
    """One field that differs. ``path`` names it: ``payload.sql``, ``steps[load].retries``, ``edges[a → b]``."""

    path: str
    kind: Literal["added", "removed", "changed"]
    before: Any = None
    after: Any = None

    def to_dict(self) -> dict[str, Any]:
        return {"path": self.path, "kind": self.kind, "before": self.before, "after": self.after}


def differences(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    before_graph: Mapping[str, Any] | None = None,
    after_graph: Mapping[str, Any] | None = None,
) -> list[Difference]:
    """Every field that differs, in a stable order; values are redacted. Order of steps, edges and tags is no change."""
    found = [
        *_compare("", redact(dict(before)), redact(dict(after))),
        # Redacted before steps become keys: one called refresh_token would be hidden whole by its name.
        *_compare("", _by_key(redact(dict(before_graph or {}))), _by_key(redact(dict(after_graph or {})))),
    ]
    return sorted(found, key=lambda difference: difference.path)


def _by_key(graph: Mapping[str, Any]) -> dict[str, Any]:
    """A graph whose lists are mappings: steps by their key, edges by what they join."""
    graph = dict(graph)
    steps, edges = graph.pop("steps", ()), graph.pop("edges", ())
    named = {f"steps[{step.get('stepKey')}]": step for step in steps}
    joined: dict[str, Any] = {}
    for edge in edges:
        name = f"edges[{edge.get('fromStepKey')} → {edge.get('toStepKey')}]"
        while name in joined:
            name += "'"  # two edges between the same steps, with other conditions
        joined[name] = edge
    return {**graph, **named, **joined}


def _compare(path: str, before: Any, after: Any) -> Iterator[Difference]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after} - _UNTOLD):
            below = f"{path}.{key}" if path else str(key)
            yield from _compare(below, before.get(key, _MISSING), after.get(key, _MISSING))
    elif path == "triggers" and isinstance(before, Sequence) and isinstance(after, Sequence):
        old, new = ({trigger.get("id"): trigger for trigger in side} for side in (before, after))
        for key in sorted({*old, *new}, key=str):
            yield from _compare(f"triggers[{str(key)[:8]}]", old.get(key, _MISSING), new.get(key, _MISSING))
    elif path == "tags" and isinstance(before, Sequence) and isinstance(after, Sequence):
        for tag in sorted({*before, *after}):
            yield from _compare(f"tags[{tag}]", tag if tag in before else _MISSING, tag if tag in after else _MISSING)
    elif before is _MISSING:
        yield Difference(path, "added", after=after)
    elif after is _MISSING:
        yield Difference(path, "removed", before=before)
    elif before != after or type(before) is not type(after):
        yield Difference(path, "changed", before, after)
