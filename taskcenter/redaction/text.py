"""Rules 2 and 3 over a text: find the few lines worth a look, look, mask, and again until nothing changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from .names import find_named
from .patterns import ANSI, KEY_WORDS, VENDOR_NAMES
from .shapes import (
    find_comparisons,
    find_curl_users,
    find_identified,
    find_key_lines,
    find_loose_shapes,
    find_private_keys,
    find_shapes,
    find_url_logins,
    find_vendors,
)
from .sieve import Rule, find_lines
from .spans import Budget, Span, apply, whole

__all__ = ["MOST_ROUNDS", "mask_text"]

MOST_ROUNDS = 4
_LONG_WORD = 16
_VENDORS = tuple(VENDOR_NAMES.split("|"))
_JSON = ('"', "[", "{")
_RULES: dict[Rule, Callable[[str, int, int, Budget, list[Span]], None]] = {
    Rule.LOGIN: find_url_logins,
    Rule.COMPARISON: find_comparisons,
    Rule.IDENTIFIED: find_identified,
    Rule.CURL: find_curl_users,
    Rule.VENDOR: find_vendors,
    Rule.SHAPE: find_shapes,
    Rule.LOOSE: find_loose_shapes,
    Rule.KEY_LINE: find_key_lines,
}


def mask_text(text: str) -> str:
    """``text`` with what looks like a secret replaced by the mask. The same again changes nothing more."""
    seen = _seen(text)
    found = find_lines(seen)
    if found is not None and not found:
        return text
    if found is None:
        return _still_json(text, _settled(text, None))
    if "\n" not in text:
        once = _spans(seen, found, "curl" in seen.lower())
        return _still_json(text, _settled(apply(text, once), None)) if once else text
    speaks_of_curl = "curl" in seen.lower()
    spans = _spans(seen, found, speaks_of_curl)
    if Rule.PRIVATE_KEY in found or any("\n" in seen[start:end] for start, end, _ in spans):
        return _still_json(text, _settled(text, None))
    return _still_json(text, _line_by_line(text, spans, speaks_of_curl))


def _line_by_line(text: str, spans: list[Span], speaks_of_curl: bool) -> str:
    """Mask within lines. Only the changed ones are looked at again: what a rule finds in a line depends on it alone."""
    parts: list[str] = []
    at = 0
    for first, _, _ in sorted(spans):
        if first < at:
            continue
        start = text.rfind("\n", 0, first) + 1
        end = text.find("\n", first)
        end = end if end >= 0 else len(text)
        line = text[start:end]
        parts += (text[at:start], _still_json(line, _settled(line, speaks_of_curl)))
        at = end
    return "".join((*parts, text[at:]))


def _settled(text: str, speaks_of_curl: bool | None) -> str:
    current = text
    for _ in range(MOST_ROUNDS):
        after = _one_round(current, speaks_of_curl)
        if after == current:
            return current
        current = after
    return whole(text)  # never settles: fail closed


def _seen(text: str) -> str:
    """The text as the rules look at it, with every sign where it was: without colours, and two letters made plain."""
    seen = ANSI.sub(lambda m: " " * len(m[0]), text) if "\x1b[" in text else text
    if seen.isascii():
        return seen
    return seen.replace("\u0130", "i").replace("\u212a", "k")  # their lower case is a plain letter, and a longer one


def _one_round(text: str, speaks_of_curl: bool | None = None) -> str:
    seen = _seen(text)
    found = find_lines(seen)
    if found is None:
        spans = _everywhere(seen, speaks_of_curl)
    elif found:
        spans = _spans(seen, found, "curl" in seen.lower() if speaks_of_curl is None else speaks_of_curl)
    else:
        return text
    return apply(text, spans) if spans else text


def _spans(seen: str, found: Mapping[Rule, Sequence[tuple[int, int]]], speaks_of_curl: bool) -> list[Span]:
    budget = Budget(len(seen))
    spans: list[Span] = []
    for rule, lines in found.items():
        if rule is Rule.PRIVATE_KEY:
            find_private_keys(seen, budget, spans)
        elif rule is Rule.NAMED:
            lower = seen.lower()
            for start, end in lines:
                find_named(seen, lower, start, end, budget, spans)
        elif rule is not Rule.CURL or speaks_of_curl:
            look = _RULES[rule]
            for start, end in lines:
                look(seen, start, end, budget, spans)
    return spans


def _everywhere(seen: str, speaks_of_curl: bool | None) -> list[Span]:
    """The same without the sieve: every rule that a word of its own speaks for looks at the whole text."""
    lower, end, budget = seen.lower(), len(seen), Budget(len(seen))
    spans: list[Span] = []
    if any(word in lower for word in KEY_WORDS):
        find_named(seen, lower, 0, end, budget, spans)
    if "PRIVATE KEY" in seen or "PuTTY-" in seen:
        find_private_keys(seen, budget, spans)
    rules = []
    if "://" in seen and "@" in seen:
        rules.append(find_url_logins)
    if "==" in seen or "!=" in seen:
        rules.append(find_comparisons)
    if "identified" in lower:
        rules.append(find_identified)
    if speaks_of_curl or "curl" in lower:
        rules.append(find_curl_users)
    if any(vendor in lower for vendor in _VENDORS):
        rules.append(find_vendors)
    longest = max(map(len, seen.split()), default=0)
    if longest >= _LONG_WORD:
        rules += (find_shapes, find_loose_shapes, find_key_lines)
    for look in rules:
        look(seen, 0, end, budget, spans)
    return spans


def _still_json(before: str, after: str) -> str:
    """``after``, or, when masking broke a JSON text, the same text masked value by value."""
    if after == before or before.lstrip()[:1] not in _JSON:
        return after
    try:
        parsed = json.loads(before)
    except ValueError:
        return after
    try:
        json.loads(after)
    except ValueError:
        from .data import mask_value

        clean = json.dumps(mask_value(parsed, mask_text), ensure_ascii=False)
        # It is only given out when it needs no further masking, so that masking twice is masking once.
        return clean if _one_round(clean) == clean else whole(before)
    return after
