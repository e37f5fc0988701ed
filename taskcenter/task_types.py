"""The registry of task types: a plain function, a payload model, registered once by its key. (spec 1.2)

Sources, in order: what was registered by decorator in this process, entry points of the group
``taskcenter.task_types`` (the built-in types are this distribution's own entry points, named by key, so that
asking for one imports only its module), and the folder named in the settings. One broken module is reported
by name and does not stop the rest.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from .context import PlanNote, RunContext
from .errors import NotFound, Problem, SetupError
from .settings import Settings

__all__ = ["Registry", "TaskType", "registry", "task_type"]

GROUP = "taskcenter.task_types"
_KEY = re.compile(r"^[a-z][a-z0-9_]{0,62}$")


@dataclass(frozen=True)
class TaskType:
    """A kind of work. ``function(payload, ctx)`` returns JSON-able data; ``plan`` previews it without effects."""

    key: str
    function: Callable[..., Any]
    model: type[BaseModel]
    takes_model: bool
    title: str = ""
    category: str = ""
    icon: str = ""
    tags: tuple[str, ...] = ()
    danger: str | None = None
    expensive: bool = False
    max_concurrent: int = 0
    plan: Callable[..., PlanNote] | None = None
    estimate: Callable[..., float | None] | None = None
    takes_context: bool = True

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function)

    def check(self, payload: Any, path: str = "payload") -> list[Problem]:
        """Every problem of ``payload``, one per field; empty when it is valid."""
        if not isinstance(payload, Mapping):
            kind = type(payload).__name__
            return [Problem("payload_not_object", path, f"the payload must be a JSON object, not {kind}")]
        try:
            self.model.model_validate(dict(payload))
        except ValidationError as error:
            return [_problem(item, path) for item in error.errors(include_url=False)]
        return []

    def call(self, payload: Mapping[str, Any], ctx: RunContext) -> Any:
        """Run the plain function on a checked payload (a coroutine when the type is async)."""
        model = self.model.model_validate(dict(payload))
        args: dict[str, Any] = {"ctx": ctx} if self.takes_context else {}
        if self.takes_model:
            return self.function(model, **args)
        return self.function(**{name: getattr(model, name) for name in type(model).model_fields}, **args)

    def preview(self, payload: Mapping[str, Any], ctx: RunContext) -> PlanNote | None:
        """What it would do; None when the type declares no preview."""
        if self.plan is None:
            return None
        return self.plan(self.model.model_validate(dict(payload)), ctx)

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the payload."""
        return self.model.model_json_schema(by_alias=True)


def _problem(item: Mapping[str, Any], path: str) -> Problem:
    where = ".".join([path, *(str(part) for part in item["loc"])])
    message = str(item["msg"]).removeprefix("Value error, ")
    kind = str(item["type"])
    if kind == "missing":
        message = "is required and missing"
    elif kind == "extra_forbidden":
        message = "is not a field of this task type"
    return Problem(f"payload_{kind}", where, message)


@dataclass
class Registry:
    """All known task types by key; one that an entry point names is imported when first asked for."""

    types: dict[str, TaskType] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None
    of_project: bool = False
    """Read ``task_types/`` of the project that the settings name, when no folder is given."""
    _folder_read: bool = False

    def add(self, kind: TaskType) -> None:
        known = self.types.get(kind.key)
        if known is not None and _origin(known.function) != _origin(kind.function):
            raise SetupError(
                f"the task type {kind.key!r} is registered twice: by {_origin(known.function)} "
                f"and by {_origin(kind.function)}; rename one of them"
            )
        self.types[kind.key] = kind

    def find(self, key: str) -> TaskType | None:
        if key not in self.types:
            for point in entry_points(group=GROUP, name=key):
                self._load(point.name, point.load)
        if key not in self.types:
            self._read_folder()
        return self.types.get(key)

    def get(self, key: str) -> TaskType:
        kind = self.find(key)
        if kind is None:
            broken = f"; it could not be loaded: {self.broken[key]}" if key in self.broken else ""
            raise NotFound(f"unknown task type {key!r}{broken}; known: {', '.join(self.keys())}", key=key)
        return kind

    def keys(self) -> list[str]:
        self._read_folder()
        return sorted({*self.types, *(point.name for point in entry_points(group=GROUP))} - set(self.broken))

    def _read_folder(self) -> None:
        if self._folder_read:
            return
        self._folder_read = True
        folder = self.folder
        if folder is None and self.of_project:
            folder = Settings.from_env().project / "task_types"
        for file in _files(folder):
            self._load(file.name, functools.partial(_import_file, file))

    def _load(self, name: str, load: Callable[[], Any]) -> None:
        try:
            load()
        except Exception as error:
            self.broken[name] = f"{type(error).__name__}: {error}"


registry = Registry(of_project=True)


def _files(folder: Path | None) -> Iterable[Path]:
    return sorted(f for f in folder.glob("*.py") if not f.name.startswith("_")) if folder and folder.is_dir() else ()


def _import_file(file: Path) -> None:
    name = f"taskcenter_user_types_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise SetupError(f"{file} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def _origin(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', '?')}"


def _model_of(key: str, function: Callable[..., Any]) -> tuple[type[BaseModel], bool, bool]:
    """The payload model: the one the first parameter names, or one made from the parameters themselves."""
    hints = get_type_hints(function)
    parameters = dict(inspect.signature(function).parameters)
    takes_context = parameters.pop("ctx", None) is not None
    first = next(iter(parameters), None)
    if len(parameters) == 1 and first is not None:
        model = hints.get(first)
        if isinstance(model, type) and issubclass(model, BaseModel):
            return model, True, takes_context
    fields: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if name not in hints:
            raise SetupError(f"task type {key!r}: parameter {name!r} has no annotation, so it has no form and no check")
        fields[name] = (hints[name], ... if parameter.default is inspect.Parameter.empty else parameter.default)
    made: type[BaseModel] = create_model(f"{key}_payload", __config__=ConfigDict(extra="forbid"), **fields)
    return made, False, takes_context


def task_type(
    key: str,
    *,
    title: str = "",
    category: str = "",
    icon: str = "",
    tags: Iterable[str] = (),
    danger: str | None = None,
    expensive: bool = False,
    max_concurrent: int = 0,
    plan: Callable[..., PlanNote] | None = None,
    estimate: Callable[..., float | None] | None = None,
    into: Registry | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a plain function as a task type; the function itself is returned unchanged.

    Its one parameter beside ``ctx`` may be a pydantic model, or its own annotated parameters are the payload.
    Raises SetupError at import for a duplicate key, a bad key, a missing annotation or a default that
    JSON cannot hold.
    """
    if not _KEY.match(key):
        raise SetupError(f"task type key {key!r} must match [a-z][a-z0-9_]* and have at most 63 characters")

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        model, takes_model, takes_context = _model_of(key, function)
        try:
            model.model_json_schema()
        except Exception as error:
            raise SetupError(f"task type {key!r}: its payload cannot be described as JSON: {error}") from error
        (registry if into is None else into).add(
            TaskType(
                key=key,
                function=function,
                model=model,
                takes_model=takes_model,
                title=title or key.replace("_", " ").capitalize(),
                category=category,
                icon=icon,
                tags=tuple(tags),
                danger=danger,
                expensive=expensive,
                max_concurrent=max_concurrent,
                plan=plan,
                estimate=estimate,
                takes_context=takes_context,
            )
        )
        return function

    return register
