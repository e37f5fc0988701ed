"""Two ordered streams of lines, compared block by block. (spec 2.4)

A line is a row: its key fields first. Equal lines cancel out as sets, whole blocks at a time; only what is left over is
looked at one by one. Memory holds a block of each side and the lines that have found no partner yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from taskcenter.errors import StepFailed

from .canonical import Canon, Form
from .lines import NULL, Chunk, unescape
from .side import Guard

__all__ = ["Difference", "Kind", "key_reader", "merged"]

Kind = Literal["missing", "extra", "changed"]
Difference = tuple[Kind, bytes]
"""What a row is, and its key: the first fields of its line."""

_PENDING_BYTES = 24 * 1024 * 1024
"""How much may wait for a partner before it is looked at."""
_PENDING_LINES = 1000
"""So few lines are not even weighed."""

Key = Callable[[bytes], Any]


@dataclass(slots=True)
class _Stream:
    """One side: where it has got to, and its lines without a partner."""

    chunks: Iterator[Chunk]
    key: Key
    role: str
    rows: int = 0
    last: Any = None
    ended: bool = False
    waiting: set[bytes] = field(default_factory=set)

    def advance(self) -> set[bytes]:
        """The next block's lines; empty at the end."""
        found = next(self.chunks, None)
        if found is None:
            self.ended = True
            return set()
        lines = bytes(found[0]).split(b"\n")
        lines.pop()
        if not lines:
            return set()
        first, last = self.key(lines[0]), self.key(lines[-1])
        if (self.last is not None and first < self.last) or last < first:
            raise StepFailed(
                f"the {self.role} does not give its keys in order, so it cannot be merged: its key column holds values "
                "of several kinds",
                error_type="order",
            )
        self.last = last
        self.rows += len(lines)
        return set(lines)


def merged(
    left: Iterator[Chunk],
    right: Iterator[Chunk],
    key: Key,
    width: int,
    guard: Guard,
    counts: Callable[[int, int], None],
) -> Iterator[Difference]:
    """The rows in which the streams differ. ``width`` is the number of key fields; ``counts(left, right)`` is told of
    the rows read so far."""
    a = _Stream(left, key, "source")
    b = _Stream(right, key, "target")
    while not (a.ended and b.ended):
        guard.check()
        here, there = _behind(a, b)
        lines = here.advance()
        common = lines & there.waiting
        if common:
            there.waiting -= common
            lines -= common
        here.waiting |= lines
        counts(a.rows, b.rows)
        if len(a.waiting) + len(b.waiting) > _PENDING_LINES and _size(a.waiting) + _size(b.waiting) > _PENDING_BYTES:
            yield from _settled(a, b, width)
    yield from _settled(a, b, width)


def _size(lines: set[bytes]) -> int:
    """About how many bytes they take."""
    if not lines:
        return 0
    sample = next(iter(lines))
    return len(lines) * (len(sample) + 90)


def _behind(a: _Stream, b: _Stream) -> tuple[_Stream, _Stream]:
    """The stream to read from next, and the other one: whoever has not got as far."""
    if a.ended:
        return b, a
    if b.ended or a.last is None:
        return a, b
    return (b, a) if b.last is None or b.last < a.last else (a, b)


def _settled(a: _Stream, b: _Stream, width: int) -> Iterator[Difference]:
    """What can find no partner any more: all keys that both streams have passed."""
    frontier = None
    if not (a.ended and b.ended):
        lasts = [s.last for s in (a, b) if not s.ended]
        if None in lasts:
            return
        frontier = min(lasts)
    left, right = (_take(s, frontier, width) for s in (a, b))
    both = {**left, **right}
    for key in sorted(both, key=both.__getitem__):
        yield ("changed" if key in left and key in right else "missing" if key in left else "extra"), key


def _take(stream: _Stream, frontier: Any, width: int) -> dict[bytes, Any]:
    """The waiting lines up to ``frontier``, out of the set: key fields and the key to sort by."""
    taken: dict[bytes, Any] = {}
    kept: set[bytes] = set()
    for line in stream.waiting:
        key = stream.key(line)
        if frontier is None or not frontier < key:
            taken[b"\t".join(line.split(b"\t", width)[:width])] = key
        else:
            kept.add(line)
    stream.waiting = kept
    return taken


def key_reader(columns: Sequence[Canon]) -> Key:
    """What makes a comparable key of a line: in the order in which both servers were asked to give the rows."""
    readers = [_READERS.get(c.form, _text) for c in columns]
    if len(readers) == 1 and columns[0].form is Form.INTEGER:
        return _one_integer
    width = len(readers)

    def key(line: bytes) -> Any:
        parts = line.split(b"\t", width)[:width]
        try:
            return tuple([(0, 0) if p == b"\\N" else (1, read(p)) for read, p in zip(readers, parts, strict=True)])
        except (ValueError, ArithmeticError):
            raise _no_number(b", ".join(parts)) from None

    return key


def _one_integer(line: bytes) -> Any:
    part = line.split(b"\t", 1)[0]
    if part == b"\\N":
        return _BELOW
    try:
        return int(part)
    except ValueError:
        raise _no_number(part) from None


def _no_number(part: bytes) -> StepFailed:
    return StepFailed(f"the key {part.decode(errors='replace')!r} is not a number", error_type="order")


_BELOW = -(10**40)
"""Where NULL stands: before all integers of all engines."""


def _text(part: bytes) -> Any:
    if b"\\" not in part:
        return part
    text = unescape(part.decode("utf-8", "surrogateescape"))
    return (text if text is not None else NULL).encode("utf-8", "surrogateescape")


def _clock(part: bytes) -> Any:
    """Infinities stand at the ends."""
    return {b"infinity": b"~", b"-infinity": b"!"}.get(part, part)


_READERS: dict[Form, Callable[[bytes], Any]] = {
    Form.INTEGER: int,
    Form.DECIMAL: lambda part: Decimal(part.decode()),
    Form.FLOAT: float,
    Form.DATE: _clock,
    Form.TIMESTAMP: _clock,
}
