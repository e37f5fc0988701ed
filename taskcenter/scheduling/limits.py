"""The limits that people set, as they stand in the settings, and which connections a payload names. (spec 5.2)"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from ..errors import Problem, ValidationFailed
from .state import Limits

__all__ = ["LIMITS_KEY", "SCOPES", "connections_in", "limits_json", "limits_of", "with_limit"]

LIMITS_KEY: Final = "run_limits"
"""The setting."""
SCOPES: Final = ("pool", "task", "tag", "connection")
_MOST: Final = 10_000


def limits_of(stored: Mapping[str, Any] | None, *, pool: int = 0) -> Limits:
    """The setting as limits. ``pool``: where no limit of the whole pool is set."""
    known = stored or {}
    return Limits(
        pool=int(known.get("pool") or pool),
        tasks=dict(known.get("task") or {}),
        tags=dict(known.get("tag") or {}),
        connections=dict(known.get("connection") or {}),
    )


def limits_json(limits: Limits) -> dict[str, Any]:
    """``pool`` is 0 where only the places of the workers count."""
    return {
        "pool": limits.pool,
        "task": dict(limits.tasks),
        "tag": dict(limits.tags),
        "connection": dict(limits.connections),
    }


def with_limit(limits: Limits, scope: str, name: str, at_once: int) -> Limits:
    """``limits`` with one of them changed; 0 takes it away. ``name`` is empty for the pool."""
    problems = []
    if scope not in SCOPES:
        problems.append(Problem("scope", "scope", f"{scope!r} is not one of {', '.join(SCOPES)}"))
    elif (scope == "pool") is bool(name):
        said = "the pool has no name" if name else f"say which {scope}"
        problems.append(Problem("name", "name", said))
    if not 0 <= at_once <= _MOST:
        problems.append(Problem("at_once", "atOnce", f"{at_once} is not from 0 (no limit) to {_MOST}"))
    if problems:
        raise ValidationFailed("the limit", problems)
    if scope == "pool":
        return replace(limits, pool=at_once)
    known = limits_json(limits)
    known[scope] = {key: value for key, value in sorted({**known[scope], name: at_once}.items()) if value}
    return limits_of(known)


def connections_in(payload: Any) -> tuple[str, ...]:
    """The names under ``connection``, ``…Connection`` and ``…ConnectionId`` in a payload, at any depth, each once."""
    return tuple(dict.fromkeys(_connections(payload)))


def _connections(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            plain = str(key).replace("_", "").lower()
            if isinstance(inner, str) and inner and plain.endswith(("connection", "connectionid")):
                yield inner
            else:
                yield from _connections(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _connections(inner)
