"""A composite as inert data: steps, edges and settings, equal to its JSON form both ways. (spec 3.1)

``CompositeSpec.from_dict`` takes what a file, a form or the database holds, reports every malformed field at
once, and leaves the rules between steps to :mod:`composites.validate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any, Final

from pydantic.alias_generators import to_camel

from taskcenter.errors import Problem, ValidationFailed

__all__ = ["CompositeSpec", "EdgeSpec", "StepSpec"]


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One node. Exactly one of ``task_type`` and ``referenced_task_id`` says what it does."""

    step_key: str
    position: int = 0
    task_type: str | None = None
    referenced_task_id: str | None = None
    payload: Any = field(default_factory=dict)
    name: str | None = None
    on_error: str | None = None
    """stop, continue or skip; None: the composite's ``continue_on_error`` decides."""
    enabled: bool = True
    join: str = "all"
    retries: int = 0
    retry_backoff_ms: int = 0
    timeout_seconds: float | None = None
    map_over: Any = None
    """A template or a list: the step runs once per item."""
    map_parallel: int | None = None
    map_max_items: int = 1_000
    tolerance: int = 0
    """How many items of a map may fail before the step does."""
    priority: str = "normal"
    group: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return _dump(self, keep=("step_key", "position", "payload", "enabled"))


@dataclass(frozen=True, slots=True)
class EdgeSpec:
    """``condition`` says which outcome of the source satisfies the edge."""

    from_step_key: str
    to_step_key: str
    condition: str = "success"

    def to_dict(self) -> dict[str, Any]:
        return _dump(self, keep=("from_step_key", "to_step_key"))


@dataclass(frozen=True, slots=True)
class CompositeSpec:
    """A whole graph with its settings."""

    name: str
    description: str | None = None
    tags: tuple[str, ...] = ()
    steps: tuple[StepSpec, ...] = ()
    edges: tuple[EdgeSpec, ...] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """Defaults of ``{{inputs.x}}``; a run's payload overrides them by key."""
    continue_on_error: bool = False
    fail_on_any_error: bool = True
    max_parallel: int = 8
    sequential: bool = False
    halt_mode: str = "wait"

    def to_dict(self) -> dict[str, Any]:
        data = _dump(self, keep=("name",), skip=("steps", "edges", "tags"))
        if self.tags:
            data["tags"] = list(self.tags)
        data["steps"] = [step.to_dict() for step in self.steps]
        data["edges"] = [edge.to_dict() for edge in self.edges]
        return data

    def settings(self) -> dict[str, Any]:
        """Everything but steps and edges."""
        return {k: v for k, v in self.to_dict().items() if k not in ("steps", "edges")}

    def with_steps(self, steps: Sequence[StepSpec]) -> CompositeSpec:
        return replace(self, steps=tuple(steps))

    @classmethod
    def from_dict(cls, data: Any, *, name: str = "") -> CompositeSpec:
        """Read the JSON form; raises ValidationFailed with every malformed field and its path."""
        spec, problems = cls.read(data, name=name)
        if problems:
            raise ValidationFailed(f"the composite {spec.name!r}", problems)
        return spec

    @classmethod
    def read(cls, data: Any, *, name: str = "") -> tuple[CompositeSpec, list[Problem]]:
        """As ``from_dict``, but gives what could be read beside the problems."""
        problems: list[Problem] = []
        if not isinstance(data, Mapping):
            kind = type(data).__name__
            return cls(name=name), [Problem("not_object", "", f"a composite must be a JSON object, not {kind}")]
        values = _load(cls, data, "", problems, skip=("steps", "edges", "tags"))
        values.setdefault("name", name)
        lists: dict[str, list[Any]] = {}
        for key in ("steps", "edges", "tags"):
            given = data.get(key, [])
            if not isinstance(given, Sequence) or isinstance(given, str):
                problems.append(Problem("wrong_kind", key, f"must be a list, not {type(given).__name__}"))
                given = []
            lists[key] = list(given)
        steps = [_item(StepSpec, item, f"steps[{i}]", problems, position=i) for i, item in enumerate(lists["steps"])]
        edges = [_item(EdgeSpec, item, f"edges[{i}]", problems) for i, item in enumerate(lists["edges"])]
        spec = cls(
            **values,
            tags=tuple(str(tag).strip().lower() for tag in lists["tags"] if str(tag).strip()),
            steps=tuple(s for s in steps if s is not None),
            edges=tuple(e for e in edges if e is not None),
        )
        return spec, problems


_KINDS: Final[dict[str, tuple[tuple[type, ...], str]]] = {
    "step_key": ((str,), "a text"),
    "from_step_key": ((str,), "a text"),
    "to_step_key": ((str,), "a text"),
    "name": ((str,), "a text"),
    "description": ((str,), "a text"),
    "condition": ((str,), "a text"),
    "join": ((str,), "a text"),
    "on_error": ((str,), "a text"),
    "priority": ((str,), "a text"),
    "group": ((str,), "a text"),
    "halt_mode": ((str,), "a text"),
    "task_type": ((str,), "a text"),
    "referenced_task_id": ((str,), "a text"),
    "position": ((int,), "a whole number"),
    "retries": ((int,), "a whole number"),
    "retry_backoff_ms": ((int,), "a whole number of milliseconds"),
    "max_parallel": ((int,), "a whole number"),
    "map_parallel": ((int,), "a whole number"),
    "map_max_items": ((int,), "a whole number"),
    "tolerance": ((int,), "a whole number"),
    "timeout_seconds": ((int, float), "a number of seconds"),
    "enabled": ((bool,), "true or false"),
    "continue_on_error": ((bool,), "true or false"),
    "fail_on_any_error": ((bool,), "true or false"),
    "sequential": ((bool,), "true or false"),
    "inputs": ((Mapping,), "a JSON object"),
}
_NULLABLE: Final = {
    "name", "description", "on_error", "group", "task_type", "referenced_task_id", "timeout_seconds", "map_parallel",
}  # fmt: skip

_DEFAULTED: Final = {"condition", "join", "priority", "halt_mode", "inputs"}
"""Null means the default: databases and forms write it for what nobody filled in."""


def _names(kind: type) -> dict[str, str]:
    """Accepted key → field name, both spellings."""
    names: dict[str, str] = {}
    for item in fields(kind):
        names[item.name] = item.name
        names[to_camel(item.name)] = item.name
    return names


_NO_DEFAULT: Final = object()
_FIELD_NAMES: Final[dict[type, dict[str, str]]] = {}


_SHAPES: Final[dict[type, tuple[tuple[str, str, Any], ...]]] = {}


def _shape(kind: type) -> tuple[tuple[str, str, Any], ...]:
    """Field name, its JSON spelling and its default, looked up once: a composite may have 10,000 steps."""

    def default(item: Field[Any]) -> Any:
        if callable(item.default_factory):
            return item.default_factory()
        return _NO_DEFAULT if item.default is MISSING else item.default

    if kind not in _SHAPES:
        _SHAPES[kind] = tuple((item.name, to_camel(item.name), default(item)) for item in fields(kind))
    return _SHAPES[kind]


def _dump(item: Any, keep: tuple[str, ...], skip: tuple[str, ...] = ()) -> dict[str, Any]:
    """Only what differs from its default, so that the JSON form stays as short as what a person wrote."""
    data: dict[str, Any] = {}
    for name, camel, default in _shape(type(item)):
        if name in skip:
            continue
        value = getattr(item, name)
        if name in keep or value != default:
            data[camel] = dict(value) if isinstance(value, Mapping) else value
    return data


def _load(
    kind: type, data: Mapping[str, Any], path: str, problems: list[Problem], skip: tuple[str, ...] = ()
) -> dict[str, Any]:
    known = _FIELD_NAMES.get(kind) or _FIELD_NAMES.setdefault(kind, _names(kind))
    values: dict[str, Any] = {}
    for key, value in data.items():
        where = f"{path}.{key}" if path else str(key)
        name = known.get(key)
        if name is None:
            problems.append(Problem("unknown_field", where, "is not a field here; " + _nearest(str(key), known)))
        elif name in skip or (value is None and (name in _DEFAULTED or (name == "name" and kind is CompositeSpec))):
            continue
        elif value is None and name in _NULLABLE:
            values[name] = None
        elif (wanted := _KINDS.get(name)) is not None and not _is(value, wanted[0]):
            problems.append(Problem("wrong_kind", where, f"must be {wanted[1]}, not {type(value).__name__}"))
        else:
            values[name] = value
    return values


def _nearest(key: str, known: Mapping[str, str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(key, [k for k in known if "_" not in k], n=1)
    return (
        f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted({to_camel(v) for v in known.values()}))}"
    )


def _is(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _item(kind: type, data: Any, path: str, problems: list[Problem], **defaults: Any) -> Any:
    if not isinstance(data, Mapping):
        problems.append(Problem("not_object", path, f"must be a JSON object, not {type(data).__name__}"))
        return None
    values = {**defaults, **_load(kind, data, path, problems)}
    for name in ("step_key",) if kind is StepSpec else ("from_step_key", "to_step_key"):
        values[name] = values.get(name, "").strip()
    if kind is EdgeSpec and not values.get("condition", "x").strip():
        values["condition"] = "success"
    return kind(**values)
