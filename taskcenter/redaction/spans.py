"""Places in a text that are to be masked, and how much looking for them may cost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from .patterns import MASK

__all__ = ["Budget", "Look", "Span", "TooMuch", "apply", "every", "whole"]

Span = tuple[int, int, str]
"""From, to, and what is put there."""


class Look(NamedTuple):
    """A part of a text that is worth a look."""

    start: int
    last: int
    """Where the last expression ended that says so: what begins here or later is not meant."""
    stop: int
    """The end of the line: so far may go what begins before ``last``."""


_REACH = 1024
"""No pattern needs more signs than this to know that it begins to match."""
_PLACES = 3_000
_PLACES_PER_SIGN = 1 / 512
_PLACES_IN_A_LINE = 2_000
"""One line with so many is made to cost time, or is data that only a program reads."""


class TooMuch(Exception):
    """More places than we are willing to look at one by one."""


class Budget:
    """How many places of one text may be looked at. A text with more is masked whole, which bounds the time."""

    def __init__(self, text: str) -> None:
        self.left = _PLACES + len(text) * _PLACES_PER_SIGN if "\n" in text else float(_PLACES_IN_A_LINE)
        self.may_be_json = True
        self.done = 0  # how far an object behind a secret's name reaches, over as many lines as it has

    def spend(self, cost: float = 1.0) -> None:
        """Take one look; a place that a glance decides costs less. Raises TooMuch."""
        self.left -= cost
        if self.left < 0:
            raise TooMuch


def every(pattern: re.Pattern[str], text: str, look: Look, budget: Budget) -> Iterator[re.Match[str]]:
    """The matches of ``pattern`` that begin in ``look``, as long as the budget lasts."""
    at, last, stop = look
    limit = min(last + _REACH, stop)  # not to the end of a line that may be a megabyte
    while (match := pattern.search(text, at, limit)) and match.start() < last:
        at = match.end()
        if at == limit < stop:  # it goes on, or would not be one
            begin = match.start()
            match = pattern.match(text, begin, stop)
            if match is None:
                at = begin + 1
                continue
            at = match.end()
        budget.spend()
        yield match


def apply(text: str, spans: list[Span]) -> str:
    """Replace the spans; where two overlap, the earlier one wins and takes the other's rest with it."""
    spans.sort()
    parts: list[str] = []
    at = 0
    for start, end, mask in spans:
        if start >= at:
            parts += (text[at:start], mask)
            at = end
        elif end > at:
            at = end
    return "".join((*parts, text[at:]))


def whole(text: str) -> str:
    """The mask for a whole text; quoted where the text may be JSON, so that it still is."""
    return f'"{MASK}"' if text.lstrip()[:1] in ('"', "[", "{") and text != MASK else MASK
