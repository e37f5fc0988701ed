"""Rules 2 and 3 over a text: find the few lines worth a look, look, mask, and again until nothing changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat

from .names import find_named
from .own import OwnPatterns
from .patterns import ANSI, KEY_WORDS, VENDOR_NAMES
from .shapes import (
    find_comparisons,
    find_curl_users,
    find_identified,
    find_key_lines,
    find_long_base64,
    find_loose_shapes,
    find_private_keys,
    find_shapes,
    find_templates,
    find_url_logins,
    find_vendors,
)
from .sieve import Rule, find_looks
from .spans import Budget, Look, Span, apply, whole

__all__ = ["MOST_ROUNDS", "mask_own", "mask_text"]

MOST_ROUNDS = 4
_LONG_WORD = 16
_VENDORS = tuple(VENDOR_NAMES.split("|"))
_JSON = ('"', "[", "{")
_RULES: dict[Rule, Callable[[str, Look, Budget, list[Span]], None]] = {
    Rule.LOGIN: find_url_logins,
    Rule.COMPARISON: find_comparisons,
    Rule.IDENTIFIED: find_identified,
    Rule.CURL: find_curl_users,
    Rule.VENDOR: find_vendors,
    Rule.SHAPE: find_shapes,
    Rule.LOOSE: find_loose_shapes,
    Rule.TEMPLATE: find_templates,
    Rule.KEY_LINE: find_key_lines,
    Rule.LONG_BASE64: find_long_base64,
}


def mask_text(text: str) -> str:
    """``text`` with what looks like a secret replaced by the mask. The same again changes nothing more."""
    seen = _seen(text)
    found = find_looks(seen)
    if found is None:
        return _still_json(text, _settled(text, None))
    spans = _spans(seen, found, None) if found else ()
    if not spans:
        return text
    if "\n" not in text:
        return _still_json(text, _settled(apply(text, spans), None))
    if Rule.PRIVATE_KEY in found or any("\n" in seen[start:end] for start, end, _ in spans):
        return _still_json(text, _settled(text, None))
    return _still_json(text, _line_by_line(text, spans, "curl" in seen.lower()))


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
    found = find_looks(seen)
    if found is None:
        spans = _everywhere(seen, speaks_of_curl)
    elif found:
        spans = _spans(seen, found, speaks_of_curl)
    else:
        return text
    return apply(text, spans) if spans else text


def _spans(seen: str, found: Mapping[Rule, Sequence[Look]], speaks_of_curl: bool | None) -> list[Span]:
    budget = Budget(seen)
    spans: list[Span] = []
    for rule, looks in found.items():
        if rule is Rule.PRIVATE_KEY:
            find_private_keys(seen, budget, spans)
        elif rule is Rule.NAMED:
            lower = seen.lower()
            for look in looks:
                find_named(seen, lower, look, budget, spans)
        elif rule is not Rule.CURL or (speaks_of_curl if speaks_of_curl is not None else "curl" in seen.lower()):
            find = _RULES[rule]
            for look in looks:
                find(seen, look, budget, spans)
    return spans


def _everywhere(seen: str, speaks_of_curl: bool | None) -> list[Span]:
    """The same without the sieve: every rule that a word of its own speaks for looks at the whole text."""
    lower, look, budget = seen.lower(), Look(0, len(seen), len(seen)), Budget(seen)
    spans: list[Span] = []
    if any(word in lower for word in KEY_WORDS):
        find_named(seen, lower, look, budget, spans)
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
        rules += (find_shapes, find_loose_shapes, find_key_lines, find_long_base64)
    if "%" in seen:
        rules.append(find_templates)
    for find in rules:
        find(seen, look, budget, spans)
    return spans


def _still_json(before: str, after: str) -> str:
    """``after``, or, when masking broke a JSON text, the same text masked value by value."""
    if not _broke_json(before, after):
        return after
    from .data import mask_value

    clean = json.dumps(mask_value(json.loads(before), mask_text), ensure_ascii=False)
    # It is only given out when it needs no further masking, so that masking twice is masking once.
    return clean if _one_round(clean) == clean else whole(before)


def mask_own(text: str, own: OwnPatterns) -> str:
    """``text`` with what the user's own expressions match masked; JSON, and each line of a log of it, stays JSON."""
    after = own.mask(text)
    if after == text:
        return text
    lines, masked = text.split("\n"), after.split("\n")
    if len(lines) == len(masked) > 1 and not _broke_json(text, after):
        return "\n".join(map(_own_json, lines, masked, repeat(own)))
    return _own_json(text, after, own)


def _own_json(before: str, after: str, own: OwnPatterns) -> str:
    if not _broke_json(before, after):
        return after
    from .data import mask_value

    clean = json.dumps(mask_value(own.mask_numbers(json.loads(before)), own.mask), ensure_ascii=False)
    return clean if own.mask(clean) == clean else whole(before)


def _broke_json(before: str, after: str) -> bool:
    if after == before or before.lstrip()[:1] not in _JSON:
        return False
    try:
        json.loads(before)
    except ValueError:
        return False
    try:
        json.loads(after)
    except ValueError:
        return True
    return False
