"""Registered values: what this process knows to be secret is masked in every form it is written in. (spec 6.6)"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from ..errors import Problem, ValidationFailed
from .forms import written_forms
from .patterns import MASK
from .scanner import PLAIN, Scanner, make_scanner

__all__ = ["LEAST_LENGTH", "LEAST_LENGTH_IN_TEXT", "Registered"]

LEAST_LENGTH = 4
"""A shorter value is refused as a secret: masking it would blank out innocent text."""
LEAST_LENGTH_IN_TEXT = 8
"""A shorter value is masked only where it is a whole string in data; in running text it would hit innocent words."""

_ANCHOR = 64
"""Bytes of a form that the scanner looks for; the rest of a longer one is compared afterwards."""
_LATE = 32
"""Values that came after the scanner was made wait in a small one of their own until they are so many."""
_WORTH_FORMS = 400
_WORTH_TEXT = 256 * 1024
"""From so many forms, or so much text, on it pays to load the scanner."""
_ROUNDS = 4


class _Search:
    """One set of forms, ready to be looked for."""

    def __init__(self, forms: Iterable[str]) -> None:
        every = sorted((form.encode("utf-8", "surrogatepass") for form in forms), key=lambda form: (-len(form), form))
        self._forms = every
        self._groups: dict[bytes, list[bytes]] = defaultdict(list)
        for form in every:
            self._groups[form[:_ANCHOR]].append(form)
        self._anchors = list(self._groups)
        self.scanner: Scanner | None = None
        self._slow: re.Pattern[bytes] | None = None
        self._no_engine = False
        self._seen = 0

    def find(self, data: bytes) -> list[tuple[int, int]] | None:
        """From and to of every form in ``data``, as they overlap; None when there are too many to tell."""
        scanner = self.scanner or self._load(len(data))
        if scanner is None:
            assert self._slow is not None
            return [match.span() for match in self._slow.finditer(data)]
        hits = scanner.scan(data)
        return list(self._confirmed(data, hits)) if hits else (None if hits is None else [])

    def _confirmed(self, data: bytes, hits: list[tuple[int, int, int]]) -> Iterator[tuple[int, int]]:
        for number, _, end in hits:
            anchor = self._anchors[number]
            start = end - len(anchor)
            for form in self._groups[anchor]:
                if data.startswith(form, start):
                    yield start, start + len(form)
                    break

    def _load(self, length: int) -> Scanner | None:
        self._seen += length
        if not self._no_engine and (len(self._forms) >= _WORTH_FORMS or self._seen >= _WORTH_TEXT):
            expressions = ["".join(f"\\x{byte:02x}" for byte in anchor) for anchor in self._anchors]
            self.scanner = make_scanner(expressions, [PLAIN] * len(expressions))
            if self.scanner is not None:
                return self.scanner
            self._no_engine = True
        if self._slow is None:
            # the longest first, so that a value that contains another one is masked whole
            self._slow = re.compile(b"|".join(map(re.escape, self._forms)))
        return None


def _finds_nothing(_data: bytes) -> bool:
    return False


class Registered:
    """A set of secrets. Any thread may add to it and mask with it."""

    def __init__(self) -> None:
        self._short: set[str] = set()
        self._values: set[str] = set()
        self._forms: set[str] = set()
        self._new: set[str] = set()
        self._late: set[str] = set()
        self._late_values = 0
        self._searches: tuple[_Search, ...] = ()
        self.finds: Callable[[bytes], bool] | None = _finds_nothing
        """Whether a value is in a text; None while that is not to be had quickly."""
        self._lock = threading.Lock()

    def add(self, value: str) -> None:
        """Mask ``value`` from now on. Raises ValidationFailed when it is shorter than 4 characters."""
        if len(value) < LEAST_LENGTH:
            sentence = f"is shorter than {LEAST_LENGTH} characters: masking it would blank out innocent text"
            raise ValidationFailed("the secret", [Problem("secret_too_short", "value", sentence)])
        if value in self._values or value in self._short:
            return
        if len(value) < LEAST_LENGTH_IN_TEXT:
            self._short.add(value)
            return
        forms = written_forms(value)
        with self._lock:
            self._new |= forms
            self.finds = None
            self._late_values += 1
            self._values.add(value)  # last: whoever adds it again masks it from then on

    def is_short(self, text: str) -> bool:
        """Whether a whole string is one of the short values."""
        return text in self._short

    def mask(self, text: str) -> str:
        """``text`` with registered values masked, and nothing else."""
        searches = self._ready() if self.finds is None else self._searches
        if not searches:
            return text
        current = text
        for _ in range(_ROUNDS):
            data = current.encode("utf-8", "surrogatepass")
            spans: list[tuple[int, int]] = []
            for search in searches:
                found = search.find(data)
                if found is None:
                    return MASK
                spans += found
            if not spans:
                return current
            current = _replaced(data, spans).decode("utf-8", "surrogatepass")
        return MASK  # a mask that completes another value, again and again

    def _ready(self) -> tuple[_Search, ...]:
        """Make what was added lately searchable. One by one they join a small set, so that each costs little."""
        with self._lock:
            if self._new:
                self._late |= self._new
                settled = self._searches[:1] if self._forms else ()
                if self._late_values >= _LATE or not settled:
                    self._forms |= self._late
                    self._late, self._late_values = set(), 0
                    self._searches = (_Search(self._forms),) if self._forms else ()
                else:
                    self._searches = (*settled, _Search(self._late))
                self._new = set()
            if not self._searches:
                self.finds = _finds_nothing
            elif len(self._searches) == 1 and (scanner := self._searches[0].scanner) is not None:
                self.finds = scanner.finds
            return self._searches


_MASK = MASK.encode()


def _replaced(data: bytes, spans: list[tuple[int, int]]) -> bytes:
    """Each group of overlapping spans becomes one mask."""
    spans.sort()
    parts: list[bytes] = []
    at, (start, end) = 0, spans[0]
    for next_start, next_end in spans[1:]:
        if next_start < end:
            end = max(end, next_end)
            continue
        parts += (data[at:start], _MASK)
        at, start, end = end, next_start, next_end
    return b"".join((*parts, data[at:start], _MASK, data[end:]))
