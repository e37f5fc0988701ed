"""Places in a text that are to be masked, and how much looking for them may cost."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .patterns import MASK

__all__ = ["Budget", "Span", "TooMuch", "apply", "every", "whole"]

Span = tuple[int, int, str]
"""From, to, and what is put there."""

_PLACES = 3_000
_PLACES_PER_SIGN = 1 / 512


class TooMuch(Exception):
    """More places than we are willing to look at one by one."""


class Budget:
    """How many places of one text may be looked at. A text with more is masked whole, which bounds the time."""

    def __init__(self, length: int) -> None:
        self.left = _PLACES + length * _PLACES_PER_SIGN
        self.may_be_json = True
        self.done = 0  # how far an object behind a secret's name reaches, over as many lines as it has

    def spend(self, cost: float = 1.0) -> None:
        """Take one look; a place that a glance decides costs less. Raises TooMuch."""
        self.left -= cost
        if self.left < 0:
            raise TooMuch


def every(pattern: re.Pattern[str], text: str, start: int, end: int, budget: Budget) -> Iterator[re.Match[str]]:
    """The matches of ``pattern`` between ``start`` and ``end``, as long as the budget lasts."""
    for match in pattern.finditer(text, start, end):
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
