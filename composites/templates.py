"""``{{ … }}`` in the strings of a step: read once, rendered once, never rendered again. (spec 3.6)

A placeholder is ``steps.<key>.<path>``, ``inputs.x``, ``run.id``, ``task.slug``, ``env.X``, ``item`` (inside a
map) or ``secret("name")``, each with an optional ``| default(<JSON>)``. Keys may be quoted, indices are
integers. A string that is exactly one placeholder keeps the JSON type of its value; in a mixed string null is
empty, text stands raw and everything else as JSON.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from taskcenter.errors import MappingError

from .expressions import UNKNOWN

__all__ = ["ENVELOPE", "Placeholder", "Template", "has_template", "parse", "placeholders", "render", "texts"]

ENVELOPE = ("status", "execution", "durationMs", "error", "errorType", "reason")
"""Keys of a step's output; any other first key of a path is looked up inside ``execution``."""

_OPEN = re.compile(r"\{\{")
_NAME = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_-]*)")
_SEGMENT = re.compile(
    r"\s*(?:\.\s*([A-Za-z0-9_$-]+)|\[\s*(-?\d+)\s*\]|\[\s*(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')\s*\])"
)
_SECRET = re.compile(r"\s*secret\(\s*(\"[^\"]+\"|'[^']+')\s*\)")
_DEFAULT = re.compile(r"\s*\|\s*default\(")
ROOTS = ("steps", "inputs", "run", "task", "env", "item", "index")


@dataclass(frozen=True, slots=True)
class Placeholder:
    """``root`` and ``path`` say what is meant; ``raw`` is the text between the braces."""

    root: str
    path: tuple[str | int, ...]
    raw: str
    has_default: bool = False
    default: Any = None

    @property
    def step(self) -> str | None:
        """The step it reads, if it reads one."""
        return str(self.path[0]) if self.root == "steps" and self.path else None

    @property
    def secret(self) -> str | None:
        return str(self.path[0]) if self.root == "secret" else None


@dataclass(frozen=True, slots=True)
class Template:
    """Literal text and placeholders in the order they stand."""

    parts: tuple[str | Placeholder, ...]

    @property
    def single(self) -> Placeholder | None:
        return self.parts[0] if len(self.parts) == 1 and isinstance(self.parts[0], Placeholder) else None


def has_template(value: Any) -> bool:
    """Whether any string in ``value`` holds a placeholder."""
    if isinstance(value, str):
        return "{{" in value
    if isinstance(value, (dict, Mapping)):
        for key, item in value.items():
            if has_template(item) or has_template(key):
                return True
    elif isinstance(value, (list, tuple)):
        for item in value:
            if has_template(item):
                return True
    return False


@lru_cache(maxsize=4096)
def parse(text: str) -> Template:
    """Split ``text``; raises MappingError with the column of what cannot be read."""
    parts: list[str | Placeholder] = []
    at = 0
    while (found := _OPEN.search(text, at)) is not None:
        if found.start() > at:
            parts.append(text[at : found.start()])
        placeholder, at = _placeholder(text, found.end())
        parts.append(placeholder)
    if at < len(text) or not parts:
        parts.append(text[at:])
    return Template(tuple(parts))


def _wrong(text: str, at: int, what: str) -> MappingError:
    shown = text if len(text) <= 120 else f"{text[:100]}…"
    return MappingError(f"the template {shown!r} cannot be read at column {at + 1}: {what}")


def _placeholder(text: str, start: int) -> tuple[Placeholder, int]:
    if (secret := _SECRET.match(text, start)) is not None:
        root, path, at = "secret", (secret.group(1)[1:-1],), secret.end()
        return _close(text, start, at, root, path, False, None)
    name = _NAME.match(text, start)
    if name is None:
        raise _wrong(text, start, "a name such as steps, inputs, run, task or env is expected")
    root = name.group(1)
    if root not in ROOTS:
        raise _wrong(text, start, f'{root!r} is not known; known: {", ".join(ROOTS)}, secret("name")')
    segments: list[str | int] = []
    at = name.end()
    while (segment := _SEGMENT.match(text, at)) is not None:
        plain, index, quoted = segment.groups()
        segments.append(plain if plain is not None else int(index) if index is not None else _unquote(quoted))
        at = segment.end()
    if root == "steps" and (not segments or not isinstance(segments[0], str)):
        raise _wrong(text, at, "a step key is expected after 'steps.'")
    if root in ("inputs", "env") and not segments:
        raise _wrong(text, at, f"a name is expected after {root!r}")
    has_default, default = False, None
    if (mark := _DEFAULT.match(text, at)) is not None:
        default, at = _literal(text, mark.end())
        has_default = True
    return _close(text, start, at, root, tuple(segments), has_default, default)


def _close(
    text: str, start: int, at: int, root: str, path: tuple[str | int, ...], has_default: bool, default: Any
) -> tuple[Placeholder, int]:
    while at < len(text) and text[at].isspace():
        at += 1
    if not text.startswith("}}", at):
        raise _wrong(text, at, "'}}' is expected")
    return Placeholder(root, path, text[start:at].strip(), has_default, default), at + 2


def _unquote(quoted: str) -> str:
    return re.sub(r"\\(.)", r"\1", quoted[1:-1])


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_JSON = json.JSONDecoder(parse_constant=_no_constant)


def _literal(text: str, at: int) -> tuple[Any, int]:
    """The JSON value (or a quoted word) inside ``default( … )``."""
    while at < len(text) and text[at].isspace():
        at += 1
    if at < len(text) and text[at] == "'":
        end = text.find("'", at + 1)
        if end < 0:
            raise _wrong(text, at, "the quote is not closed")
        value: Any = text[at + 1 : end]
        at = end + 1
    else:
        try:
            value, at = _JSON.raw_decode(text, at)
        except (ValueError, RecursionError):
            raise _wrong(text, at, "default(…) takes a JSON value") from None
    while at < len(text) and text[at].isspace():
        at += 1
    if not text.startswith(")", at):
        raise _wrong(text, at, "')' is expected")
    return value, at + 1


def placeholders(value: Any, path: str = "") -> Iterator[tuple[str, Placeholder]]:
    """Every placeholder in ``value`` with the path of the string it stands in; raises as ``parse`` does."""
    for where, text in texts(value, path):
        for part in parse(text).parts:
            if isinstance(part, Placeholder):
                yield where, part


def texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every string in ``value`` that holds a template, with its path."""
    if isinstance(value, str):
        if "{{" in value:
            yield path, value
    elif isinstance(value, (dict, Mapping)):
        for key, item in value.items():
            yield from texts(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from texts(item, f"{path}[{index}]")


def render(value: Any, scope: Mapping[str, Any], secret: Callable[[str], str] | None = None) -> Any:
    """A copy of ``value`` with every placeholder replaced from ``scope`` (root → data).

    ``secret`` resolves ``secret("name")``; without it the placeholder shows as ``‹secret name›``, which is what
    plans, rows and logs get. Raises MappingError that names the path and what was there instead.
    """
    if isinstance(value, str):
        if "{{" not in value:
            return value
        template = parse(value)
        if (single := template.single) is not None:
            return _value(single, scope, secret)
        parts = (p if isinstance(p, str) else _text(_value(p, scope, secret)) for p in template.parts)
        return "".join(parts)
    if isinstance(value, Mapping):
        return {key: render(item, scope, secret) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [render(item, scope, secret) for item in value]
    return value


def _value(placeholder: Placeholder, scope: Mapping[str, Any], secret: Callable[[str], str] | None) -> Any:
    if placeholder.root == "secret":
        name = str(placeholder.path[0])
        return f"‹secret {name}›" if secret is None else secret(name)
    try:
        return _look_up(placeholder, scope)
    except MappingError:
        if placeholder.has_default:
            return copy.deepcopy(placeholder.default)
        raise


def _look_up(placeholder: Placeholder, scope: Mapping[str, Any]) -> Any:
    value: Any = scope.get(placeholder.root)
    seen = placeholder.root
    path = list(placeholder.path)
    if placeholder.root == "steps" and len(path) > 1 and path[1] not in ENVELOPE:
        path.insert(1, "execution")
    for segment in path:
        if value is UNKNOWN:
            break
        if isinstance(value, Mapping) and segment in value:
            value = value[segment]
        elif isinstance(value, Sequence) and not isinstance(value, str) and _inside(segment, len(value)):
            value = value[int(segment)]
        else:
            raise MappingError(
                f"{{{{{placeholder.raw}}}}} cannot be resolved: {seen} has no {segment!r}; it is {_shape(value)}"
            )
        seen = f"{seen}[{segment}]" if isinstance(segment, int) else f"{seen}.{segment}"
    if value is UNKNOWN:
        return f"‹from {'.'.join(map(str, (placeholder.root, *placeholder.path)))}›"
    return copy.deepcopy(value) if isinstance(value, (Mapping, list)) else value  # the reader may change its copy


def _inside(segment: str | int, length: int) -> bool:
    try:
        return -length <= int(segment) < length
    except ValueError:
        return False


_KINDS = {type(None): "null", str: "a text", bool: "a truth value", int: "a number", float: "a number"}


def _shape(value: Any) -> str:
    """What stands there, in a few words and without its contents."""
    if isinstance(value, Mapping):
        names = ", ".join(map(str, list(value)[:12]))
        return f"an object with the keys {names}" if names else "an empty object"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
