"""Values that stand behind a secret's name in text, in whatever notation. (spec 6.6, rule 2)

``password: x``, ``PWD=x``, ``"token": "x"``, ``--password x``, ``<secret>x</secret>``, query
strings, headers, environment dumps and JSON inside quoted JSON all come down to a name, what closes it, one of four
kinds of separator, and a value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from .judge import counts, describes, has_owner, is_harmless, is_strong
from .patterns import ASSIGNMENT, KEY_NAME, MASK, SCHEME, UNCERTAIN
from .spans import Budget, Look, Span

__all__ = ["find_named"]

_OPENING = re.compile(
    r"[@(\[ ]{0,3}+(?:[bBuUrRfFL$@]{1,2}(?=[\"']))?(\\{0,8}+(?:\"\"\"|'''|[\"'`])|&quot;|&#34;|%22|\\u0022)"
)
_MAY_OPEN = frozenset("@([ bBuUrRfFL$\\\"'`&%")
_MAY_BE_SCHEME = frozenset("bBtTnNdDaAfFsS\u017f")  # the last one is a capital S to an engine that ignores case
_CLOSING = {
    '"': re.compile(r'[^"\\\n]*+(?:\\.[^"\\\n]*+)*+'),
    "'": re.compile(r"[^'\\\n]*+(?:\\.[^'\\\n]*+)*+"),
    "`": re.compile(r"[^`\\\n]*+(?:\\.[^`\\\n]*+)*+"),
}
_BARE = re.compile(
    r"(?:[^\s\"'`,;&<\\]++|[,;&](?!\s|[\w .\-]{1,30}[:=]|$)|\\(?![\"'`nrtu\\]))++",
)
_OPENER = {")": "(", "]": "[", "}": "{"}
_LINE = re.compile(r"[^\n]{0,4096}+")
_HEADER = re.compile(r"[^\n\r\"'`\\]++")
_LIKELY = {
    4: re.compile(r"[@(\[ ]{0,3}+[bur]?[\\\"'`]{0,10}+(?:&quot;)?[^\s\"'`\\]{6}"),
    5: re.compile(r"[\\\"'`]{0,10}+[^\s\"'`\\]{6}"),
    6: re.compile(r"[^\s<]{6}"),
    7: re.compile(r"[@(\[\\]{0,8}+(?:[\"'`]|&quot;|[^\s]{8})"),
}
"""A first glance at what follows an uncertain name, or a name and a blank: could it be a value at all?"""
_NUMBER = re.compile(r"[-+]?[\d.,_]+")
_MORE = 32
"""Signs by which a separator is longer than what the sieve takes for one: ``password: str = "x"``."""
_GLANCE = 0.2
"""What a place costs that is decided by its name alone: ``token_count=7``."""


_decode: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().raw_decode


def find_named(text: str, lower: str, look: Look, budget: Budget, spans: list[Span]) -> None:
    """Mask the values whose name begins in ``look``. ``lower`` is the text in lower case."""
    at, limit = max(look.start, budget.done), min(look.last + _MORE, look.stop)
    while match := ASSIGNMENT.search(lower, at, limit):
        begin, at = match.span()
        if begin >= look.last:
            return
        budget.spend(_GLANCE)
        stem, rest, closed = match.group(1, 2, 3)
        kind = match.lastindex or 4
        if kind == 7 and not rest and not _LIKELY[7].match(lower, at) and not _is_option(lower, begin):
            continue  # a word in a sentence
        if describes(rest) or counts(lower, begin):
            continue
        sure = stem not in UNCERTAIN
        if not sure:
            inner = KEY_NAME.search(rest) if rest else None  # auth_token, key_secret: the surer name counts
            if inner and inner[1] not in UNCERTAIN:
                stem, sure = inner[1], True
            elif has_owner(lower, match):
                sure = True
            elif (stem != "key" and begin and lower[begin - 1].isalpha()) or (kind == 6 and rest[-1:] == "-"):
                continue  # bypass, compass; item.key->value
        if not sure and not _LIKELY[kind].match(lower, at) and not _is_option(lower, begin):
            continue
        budget.spend()
        if kind == 4 and sure and closed and budget.may_be_json and text[at : at + 1] in ("{", "["):
            try:
                closing = _decode(text, at)[1]
            except ValueError:
                budget.may_be_json = False  # asking again at every brace would not be linear
            else:
                if closing - at > 2:
                    spans.append((at, closing, f'"{MASK}"'))
                    budget.done = at = closing
                continue
        found = _value(text, at, header=kind == 4 and stem in ("authorization", "cookie"))
        if found is None:
            continue
        first, last, quote_mark = found
        if kind == 7 and quote_mark and not text.startswith(quote_mark, last):
            continue  # an apostrophe in prose
        name = _Name(stem, sure, bool(closed), kind)
        if last - first <= 200 and not _hides(text[first:last], quote_mark, name, lower, begin):
            continue
        if kind == 4 and not quote_mark and first == at:
            first -= len(match[4]) - len(match[4].rstrip())  # `password: x` becomes `password:[REDACTED]`
        spans.append((first, last, MASK))
        at = last


class _Name(NamedTuple):
    stem: str
    sure: bool
    closed: bool  # quotes or brackets stand behind it
    kind: int  # of separator, see ASSIGNMENT


def _value(text: str, at: int, *, header: bool) -> tuple[int, int, str] | None:
    """Where the value that begins at ``at`` starts and ends, and its opening quote if it has one."""
    first = text[at : at + 1]
    opening = _OPENING.match(text, at) if first in _MAY_OPEN else None
    if opening:
        mark, start = opening[1], opening.end()
        if mark in _CLOSING:
            closing = _CLOSING[mark].match(text, start)
            end = closing.end() if closing else start
        else:
            end = _find_closing(text, mark, start)
        return (start, end, mark) if end > start else None
    scheme = SCHEME.match(text, at) if first in _MAY_BE_SCHEME else None
    start = scheme.end() if scheme else at
    bare = (_HEADER if header else _BARE).match(text, start)
    if not bare:
        return None
    end = bare.end()
    if header:
        end = start + len(bare[0].rstrip())
    elif end - start <= 200:
        while end > start and (close := text[end - 1]) in ")]}":
            if text.count(_OPENER[close], start, end) >= text.count(close, start, end):
                break
            end -= 1  # the bracket closes something that opened before the value
    return (start, end, "") if end > start else None


def _find_closing(text: str, mark: str, start: int) -> int:
    """The next ``mark`` with exactly as many backslashes, else the end of the line."""
    near = _LINE.match(text, start)  # a bounded look first: many values without an end must not cost a line each
    line = near.end() if near else start
    at = text.find(mark, start, line)
    while at >= 0 and mark[0] == "\\" and at > start and text[at - 1] == "\\":
        at = text.find(mark, at + 1, line)
    if at >= 0:
        return at
    end = text.find("\n", line)
    return end if end >= 0 else len(text)


def _hides(value: str, quote_mark: str, name: _Name, lower: str, start: int) -> bool:
    """Whether ``value`` (at most 200 characters) is to be masked behind ``name``."""
    if is_harmless(value):
        return False
    stem, sure, closed, kind = name
    if kind == 4:
        if not sure:
            return is_strong(value, {"key": 16, "api": 16, "login": 20}.get(stem, 6))
        # an unquoted number behind a quoted name is a JSON number: it stays one
        return bool(quote_mark) or not (_NUMBER.fullmatch(value) and (closed or len(value) < 4))
    if kind == 6 and sure:
        return True
    if kind == 7:
        if closed and not quote_mark:
            return False
        if _is_option(lower, start) and not value.startswith("-"):
            return sure or is_strong(value, 6)
        if quote_mark and stem[0] == "p" and stem[-1] == "d":
            return True  # SQL: PASSWORD 'x'
    return is_strong(value, 6 if quote_mark and sure else 8)


def _is_option(lower: str, start: int) -> bool:
    """Whether the name that reaches back from ``start`` is a command line option such as ``--db-password``."""
    if "-" not in lower[max(0, start - 40) : start + 1]:
        return False
    first = start
    while first > 0 and start - first < 40 and lower[first - 1] not in " \t\n\"'(,[":
        first -= 1
    return lower.startswith("-", first)
