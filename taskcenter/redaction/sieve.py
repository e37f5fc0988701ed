"""Which lines of a text are worth a look, and by which rule: one pass that most of a log never gets beyond.

Each expression here lets through all that its rule can find, and little else; the rule itself decides. They are
written wider than the rules where that is simpler: repeats without bounds, no look-around.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

from .patterns import BEGINNINGS, BODIES, LONG, VENDOR_NAMES
from .scanner import CASELESS, MULTILINE, PLAIN, Scanner, make_scanner
from .spans import Look

__all__ = ["Rule", "find_looks", "is_clean", "warm"]


class Rule(IntEnum):
    """What a line is to be looked at for, in the order in which the rules take their turns."""

    PRIVATE_KEY = 0
    NAMED = 1
    LOGIN = 2
    COMPARISON = 3
    IDENTIFIED = 4
    CURL = 5
    VENDOR = 6
    SHAPE = 7
    LOOSE = 8
    TEMPLATE = 9
    KEY_LINE = 10
    LONG_BASE64 = 11


_SURE = (
    r"(?:p(?:[as]*wo?r?s?d|ass[-_ .]?(?:phrase|code)|rivate[-_ .]?key)|secret|signing[-_ .]?key|token|credential|cookie"
    r"|connection[-_ .]?string|authorization|(?:api|access|account|master|encryption)[-_ .]?key|oauth2?[-_ .]?bearer"
    r"|bundle_[a-z0-9_]+__(?:com|org|net|io|dev)|(?:db|user|admin|root|my|ftp|smtp|mail|sql|login|any|[_.\-])pass)"
)
_CLOSED = r"(?:[\"'`\[\])\\]|&quot;|%22)*"
_REST = rf"[a-z0-9_.\-]*{_CLOSED}"
_WEAK = rf"(?:pass|pw|auth|salt|login)(?:[0-9_.\-][a-z0-9_.\-]*)?{_CLOSED}"
_KEY = rf"(?:key|api)(?:[0-9_.\-][a-z0-9_.\-]*|[a-z0-9_.\-]*){_CLOSED}"
_FOR = r"(?: (?:for|of) [^\s]+)?"
_ASSIGNS = r"[ \t]*(?:%3d|:|=|!=|\?=|value *=)"
_OPENS = r"[:=> \t@(\[bur$\\\"'`]*(?:&quot;)?"
_LISTS = r"[ \t]*[,(][ \t]*[\"'`\\]"
_IS = r"[ \t]+(?:(?:is|was|as) )?"
# a number of fewer than four digits stays
_VALUE = r"(?:[^\s:=>\d]|\d[^\s]{3}|\d[\d.,_]*[^\s\d.,_])"
# a value that has a digit or a sign in it; what may close or separate counts when something follows it
_STRONG = r"[^\s]*(?:[^A-Za-z\s\-_./:,;&)\]}\"'`]|[,;&)\]}][^\s]|[\"'`][^\s\"'`,;:)\]}])"

_EXPRESSIONS: tuple[tuple[Rule, int, str], ...] = (
    (Rule.PRIVATE_KEY, PLAIN, r"PRIVATE KEY|PuTTY-User-Key|SSH2 ENCRYPTED"),
    (Rule.NAMED, CASELESS, rf"{_SURE}{_REST}{_FOR}(?:{_ASSIGNS}[:=> \t]*{_VALUE}|{_LISTS}|>[^\s])"),
    (Rule.NAMED, CASELESS, rf"{_SURE}{_REST}{_FOR}{_IS}(?:[@(\[\\ ]*(?:[\"'`]|&quot;)|{_STRONG})"),
    (Rule.NAMED, CASELESS, rf"{_WEAK}{_FOR}{_ASSIGNS}{_OPENS}[^\s]{{6}}"),
    (Rule.NAMED, CASELESS, rf"{_KEY}{_FOR}{_ASSIGNS}{_OPENS}[^\s.]{{16}}"),
    (Rule.NAMED, CASELESS, rf"(?:{_WEAK}|{_KEY}){_FOR}(?:{_LISTS}|>|{_IS}){_OPENS}{_STRONG}"),
    (Rule.NAMED, CASELESS, rf"-[^\s\"'(,\[]*(?:{_SURE}{_REST}|{_WEAK}|{_KEY}){_IS}[^\s]"),
    (Rule.LOGIN, PLAIN, r"://[^\s/\"'`<>\\]*@"),
    (
        Rule.COMPARISON,
        CASELESS,
        r"[\"'`] *[!=]=+ *[a-z_.]*(?:passw|pwd|secret|token|api_?key|private_?key|access_?key|credential)",
    ),
    (Rule.IDENTIFIED, CASELESS, r"identified [^\n]*(?:by|as) "),
    (Rule.CURL, PLAIN, r"(?:[ \t]-u ?|--user[ =]|--proxy-user[ =]|USERPWD, ?)\\?[\"']?[^\s:\"'\\]+:"),
    (Rule.LOOSE, PLAIN, r"[78]Q~[A-Za-z0-9_.\-~]{31}|\.atlasv1\.[A-Za-z0-9_=\-]{50}|-s4t2(?:ud|af)-[a-f0-9]{64}"),
    # longer repeats before the letters, or in the last one, would slow the engine down
    (Rule.LOOSE, PLAIN, r"[A-Za-z0-9_\-]{8}-us\d"),
    (Rule.LOOSE, PLAIN, r"[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}"),
    (Rule.LOOSE, PLAIN, r"[a-f0-9]{4}NRAL"),
    (Rule.LOOSE, PLAIN, r"A[KS]IA[A-Z0-9]{16}"),
    (Rule.LOOSE, PLAIN, r"\d{6}:AA[A-Za-z0-9_\-]{30}|\d{13}\|[A-Za-z0-9_\-]{20}"),
    (Rule.LOOSE, PLAIN, r"_session=[A-Za-z0-9%._\-]{16}|/token/[A-Za-z0-9+=_\-]{30}"),
)
_ESCAPE = r"(?:\\[nrt]|%(?:20|22|3[ADad]))"
_KEY_LINE = r"[A-Z][A-Za-z0-9+/]{29}[A-Za-z0-9+/]*={0,2}[ \t\r\\nr\"',+*]{0,8}/?$"
_KEY_LINE_LEAST = 59


def _start_of(body: str) -> str:
    """The shortest text that the regular expression of a token can match: what it takes to be worth a look."""
    body = re.sub(r"\(\?[=!][^()]*\)", "", body)
    body = re.sub(r"([}*])\+", r"\1", body).removesuffix("=*")
    return re.sub(r"\{([1-9]\d*),\d*\}$", r"{\1}", body)


_AFTER_VENDOR = r"[ \t\w.\-]*[ \t\"'`]*(?:[=:>,]|\|\|:|\?=)[>= \t\"'`\\]*[A-Za-z0-9_=\-]{14}"

_PARTS = (
    {Rule.NAMED},
    {Rule.PRIVATE_KEY, Rule.LOGIN, Rule.COMPARISON, Rule.IDENTIFIED, Rule.CURL},
    {Rule.VENDOR, Rule.TEMPLATE},
    {Rule.SHAPE},
    {Rule.LOOSE},
)

_WORTH = 1024 * 1024
"""Characters after which a process has enough to mask to pay for the scanner: 0.3 s to load and compile."""

_LONG = 64 * 1024
"""A single text so long is worth it at once: what is made to cost time costs most without the scanner."""


_MOST_HITS = 3_000
"""Of a group with more it is quicker to look everywhere."""
_BEFORE = 1024
"""No place begins further before the word in which its expression ends."""
_NEAR = 2048


@dataclass(frozen=True, slots=True)
class _Group:
    """Expressions that are looked for in one go."""

    scanner: Scanner
    rules: tuple[Rule, ...]
    """Of each expression."""


@dataclass(frozen=True, slots=True)
class _Sieve:
    """All expressions, ready to be looked for."""

    main: _Group
    key_lines: _Group
    """The one expression that slows the others down; most single lines are known not to need it."""
    long_base64: _Group
    """The fastest one if it is alone."""

    def is_clean(self, text: str, data: bytes) -> bool:
        """Whether no rule has anything to look at. ``data`` is the text, which is plain ASCII without colours."""
        if self.main.scanner.finds(data):
            return False
        if len(text) < LONG and " " in text[-59:-9] and "\n" not in text:
            return True  # the usual case of `_others`, made quick
        return not any(group.scanner.finds(data) for group in self._others(text))

    def _others(self, text: str) -> tuple[_Group, ...]:
        """Those beside ``main`` that can find something in a text, which its length and form tell."""
        if len(text) < LONG:
            # 59 signs of base64 within 9 signs of the end leave no room for a blank there
            if len(text) < _KEY_LINE_LEAST or (" " in text[-59:-9] and "\n" not in text):
                return ()
            return (self.key_lines,)
        return (self.key_lines, self.long_base64)

    def looks(self, text: str) -> dict[Rule, list[Look]]:
        """Where each rule should look."""
        # one byte per sign, so that positions stay what they are; what is not ASCII becomes a question mark
        data = text.encode("ascii", "replace")
        found: dict[Rule, list[Look]] = {}
        groups = (self.main, *self._others(text))
        hits = self.main.scanner.scan(data)
        if hits is None:  # too many: what is rare is still looked for, and only the others look everywhere
            groups = (*_parts(), *groups[1:])
        for group in groups:
            if group is not self.main:
                hits = group.scanner.scan(data)
            if hits is None:
                found |= {rule: [Look(0, len(text), len(text))] for rule in group.rules}
                continue
            ends: dict[Rule, list[int]] = {}
            for number, _, end in hits:
                ends.setdefault(group.rules[number], []).append(end)
            found |= {rule: _looks(text, ends[rule]) for rule in ends}
        return {rule: found[rule] for rule in sorted(found)}


def _looks(text: str, ends: Sequence[int]) -> list[Look]:
    """A look at each line in which an expression ended; in a long line only at what is near."""
    looks: list[Look] = []
    start = last = 0
    stop = -1
    for end in ends:
        if end > stop:
            if stop >= 0:
                looks.append(Look(start, last, stop))
            start, stop = text.rfind("\n", 0, end - 1) + 1, text.find("\n", end - 1)
            stop = stop if stop >= 0 else len(text)
            if end - start > _NEAR:
                start = max(start, text.rfind(" ", start, end - 1) - _BEFORE)
        elif end - last > _NEAR:
            begin = text.rfind(" ", last, end - 1) - _BEFORE
            if begin > last:
                looks.append(Look(start, last, stop))
                start = begin
        last = end
    if stop >= 0:
        looks.append(Look(start, last, stop))
    return looks


_sieve: _Sieve | None = None
_looked_at = 0
"""Characters that were looked at without it."""


def _expressions() -> list[tuple[Rule, int, str]]:
    # one expression for each token and vendor: what begins with plain letters is what the engine is fastest at
    tokens = ((Rule.SHAPE, PLAIN, before + _start_of(body)) for body in BODIES for before in (r"\b", _ESCAPE))
    templates = ((Rule.TEMPLATE, PLAIN, rf"\b{first}%[sdqrvx]") for first in BEGINNINGS)
    vendors = ((Rule.VENDOR, CASELESS, vendor + _AFTER_VENDOR) for vendor in VENDOR_NAMES.split("|"))
    return [*_EXPRESSIONS, *tokens, *templates, *vendors]


def _group(parts: Iterable[tuple[Rule, int, str]]) -> _Group | None:
    rules, flags, expressions = zip(*parts, strict=True)
    scanner = make_scanner(expressions, flags, _MOST_HITS)
    return _Group(scanner, rules) if scanner is not None else None


def _make() -> _Sieve | None:
    lines = [(Rule.KEY_LINE, MULTILINE, _KEY_LINE)]
    long = [(Rule.LONG_BASE64, PLAIN, rf"[A-Za-z0-9+/]{{{LONG}}}")]
    groups = [group for parts in (_expressions(), lines, long) if (group := _group(parts)) is not None]
    return _Sieve(*groups) if len(groups) == 3 else None


@cache
def _parts() -> tuple[_Group, ...]:
    """The expressions of ``main`` again, apart; made when a text needs it."""
    every = _expressions()
    parts = [[one for one in every if one[0] in part] for part in _PARTS]
    return tuple(group for part in parts if (group := _group(part)) is not None)


def warm() -> bool:
    """Make the scanner now instead of when it pays; False where it does not run."""
    global _sieve
    _sieve = _sieve or _make()
    return _sieve is not None


def is_clean(text: str, data: bytes) -> bool:
    """Whether no rule needs to look at a text; False also where that is not known."""
    return _sieve is not None and _sieve.is_clean(text, data)


def find_looks(text: str) -> dict[Rule, list[Look]] | None:
    """Where each rule should look; None when every rule has to look everywhere.

    That is so where the scanner does not run, and while the process has seen too little text for it to pay.
    """
    global _looked_at
    if _sieve is None:
        _looked_at += len(text)
        if _looked_at < _WORTH and len(text) < _LONG:
            return None
        if not warm():
            _looked_at = -(1 << 62)  # never again
            return None
        assert _sieve is not None
    return _sieve.looks(text)
