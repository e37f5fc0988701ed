"""How texts of runs are compared in searches: alike in Python, SQLite and PostgreSQL."""

from __future__ import annotations

__all__ = ["folded", "matches"]

_LETTERS = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def folded(text: str) -> str:
    """A to Z in lower case and everything else as it is: what both databases make of it alike."""
    return text.translate(_LETTERS)


def matches(slug: str, name: str, wanted: str) -> bool:
    """Whether a run with this slug and name is meant."""
    return folded(wanted) in folded(f"{slug} {name}")
