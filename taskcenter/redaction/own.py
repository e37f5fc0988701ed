"""Expressions of the user's own, applied wherever the built-in rules are. (spec 6.6)

They stand in a file, one to a line, and run in the engine of linear time (the syntax of PCRE without look-around and
back references). All that an expression matches is masked, the longest way it can. It sees a text as plain ASCII: any
other letter is one sign that ``.`` and ``\\S`` match.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import Problem, ValidationFailed
from ..settings import patterns_file
from .patterns import MASK
from .scanner import FROM_START, MULTILINE, Hit, Scanner, Unscannable, make_scanner
from .spans import whole

__all__ = ["OwnPatterns", "own_patterns", "read_expressions", "read_own_patterns"]

LONGEST = 1_000
"""Characters of one expression."""
MOST = 200
"""Expressions in one file."""
_MOST_HITS = 100_000
_ROUNDS = 4
_MASKS = re.compile(re.escape(MASK))


class OwnPatterns:
    """A set of expressions, ready to be looked for. Raises ValidationFailed that lists each that cannot be."""

    def __init__(self, expressions: Sequence[str], what: str = "the redaction patterns") -> None:
        self.expressions = tuple(expressions)
        problems = [
            Problem("redaction_pattern", f"patterns[{index}]", f"{expression[:60]!r} {wrong}")
            for index, expression in enumerate(self.expressions)
            if (wrong := _what_is_wrong(expression))
        ]
        if len(self.expressions) > MOST:
            problems.append(Problem("redaction_pattern", "patterns", f"are more than {MOST}"))
        if problems:
            raise ValidationFailed(what, problems)
        self._scanner = _scanner(self.expressions)
        self._slow = [re.compile(each, re.MULTILINE) for each in self.expressions] if self._scanner is None else []

    def finds(self, data: bytes) -> bool:
        """Whether one matches somewhere in a text."""
        if self._scanner is not None:
            return self._scanner.finds(data)
        return any(each.search(data.decode("ascii", "replace")) for each in self._slow)

    def mask(self, text: str) -> str:
        """``text`` with all matches masked, until nothing more is found. What is masked already is not looked into."""
        current = text
        for _ in range(_ROUNDS):
            hits = self._hits(current.encode("ascii", "replace"))
            if hits is None:
                return whole(text)
            spans = list(_outside(_merged(hits), [match.span() for match in _MASKS.finditer(current)]))
            if not spans:
                return current
            parts: list[str] = []
            at = 0
            for start, end in spans:
                parts += (current[at:start], MASK)
                at = end
            current = "".join((*parts, current[at:]))
        return whole(text)  # never settles: fail closed

    def mask_numbers(self, value: Any) -> Any:
        """A JSON-like value in which a number that an expression matches became a masked text."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return MASK if self.finds(str(value).encode()) else value
        if isinstance(value, Mapping):
            return {key: self.mask_numbers(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            items = [self.mask_numbers(item) for item in value]
            return items if isinstance(value, list) else tuple(items)
        return value

    def _hits(self, data: bytes) -> list[Hit] | None:
        if self._scanner is not None:
            return self._scanner.scan(data)
        text = data.decode("ascii")
        return [(0, *match.span()) for each in self._slow for match in each.finditer(text)]


def _scanner(expressions: Sequence[str]) -> Scanner | None:
    return make_scanner(expressions, [FROM_START | MULTILINE] * len(expressions), _MOST_HITS)


def _what_is_wrong(expression: str) -> str:
    if not expression.strip() or expression.startswith("#") or len(expression.splitlines()) > 1:
        return "is empty, begins with # or has more than one line: write \\# and \\n"
    if not expression.isascii():
        return "holds a sign that is not ASCII; write . for it"
    if len(expression) > LONGEST:
        return f"is longer than {LONGEST} characters"
    try:
        if _scanner([expression]) is None and re.compile(expression).search(""):
            return "matches the empty text"
    except (Unscannable, re.error) as error:
        return f"cannot be looked for in linear time: {error}"
    return ""


def _merged(hits: Iterable[Hit]) -> Iterator[tuple[int, int]]:
    """The hits as spans that do not overlap: the longest of each place."""
    begin = stop = -1
    for start, end in sorted((start, end) for _, start, end in hits):
        if start < stop:
            stop = max(stop, end)
            continue
        if stop >= 0:
            yield begin, stop
        begin, stop = start, end
    if stop >= 0:
        yield begin, stop


def _outside(spans: Iterable[tuple[int, int]], masks: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The spans without those within a mask; one that cuts a mask takes all of it."""
    at = done = 0
    for start, end in spans:
        if start < done:
            start, end = done, max(done, end)
        while at < len(masks) and masks[at][1] <= start:
            at += 1
        after = at
        while after < len(masks) and masks[after][0] < end:
            after += 1
        inside = masks[at:after]
        if start == end or (inside and inside[0][0] <= start and end <= inside[0][1]):
            continue
        if inside:
            start, end = min(start, inside[0][0]), max(end, inside[-1][1])
        yield start, end
        done = end


_current: OwnPatterns | None = None
_is_read = False


def read_expressions(file: Path) -> tuple[str, ...]:
    """One in each line; empty lines and those that begin with ``#`` are left out. Raises ValidationFailed."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise ValidationFailed(str(file), [Problem("redaction_pattern", "", f"cannot be read: {error}")]) from None
    return tuple(line for line in lines if line.strip() and not line.startswith("#"))


def read_own_patterns(file: Path) -> None:
    """Apply the expressions of ``file`` in this process from now on.

    Raises ValidationFailed when one of them cannot be: whoever starts with such a file should not go on. What can be
    is applied all the same, to the very message that says so.
    """
    global _current, _is_read
    _is_read = True
    expressions = read_expressions(file)
    try:
        _current = OwnPatterns(expressions, str(file)) if expressions else None
    except ValidationFailed:
        good = [expression for expression in expressions[:MOST] if not _what_is_wrong(expression)]
        _current = OwnPatterns(good) if good else None
        raise


def own_patterns() -> OwnPatterns | None:
    """Those of this process; where nobody has read them, they are read from where the settings say."""
    if not _is_read:
        with suppress(ValidationFailed):
            read_own_patterns(patterns_file())
    return _current
