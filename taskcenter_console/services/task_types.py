"""The kinds of work there are, and why a broken one is not among them. (spec 1.2)"""

from __future__ import annotations

from typing import Any

from taskcenter.task_types import TaskType, registry

from .center import Center

__all__ = ["describe", "get", "list_types"]


def list_types(center: Center) -> tuple[list[TaskType], dict[str, str]]:
    """Every task type by key, and the sentence of each that could not be loaded."""
    del center  # asking for it made sure that the project's folder is known to the registry
    found = [kind for kind in map(registry.find, registry.keys()) if kind is not None]
    return found, dict(registry.broken)


def get(center: Center, key: str) -> TaskType:
    del center
    return registry.get(key)


def describe(kind: TaskType) -> dict[str, Any]:
    """A task type as JSON, without its schema."""
    return {
        "key": kind.key,
        "title": kind.title,
        "category": kind.category,
        "icon": kind.icon,
        "tags": list(kind.tags),
        "danger": kind.danger,
        "expensive": kind.expensive,
        "maxConcurrent": kind.max_concurrent,
        "hasPreview": kind.plan is not None,
    }
