"""Which lines of a text are worth a look, and by which rule: one pass that most of a log never gets beyond.

Each expression here lets through all that its rule can find, and little else; the rule itself decides. They are
written wider than the rules where that is simpler: repeats without bounds, no look-around.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from .patterns import BODIES, VENDOR_NAMES
from .scanner import CASELESS, MULTILINE, PLAIN, Scanner, make_scanner

__all__ = ["Rule", "find_lines", "warm"]


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
    KEY_LINE = 9


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
# a value that has a digit or a sign in it; what may close or separate counts when something follows it
_STRONG = r"[^\s]*(?:[^A-Za-z\s\-_./:,;&)\]}\"'`]|[,;&)\]}][^\s]|[\"'`][^\s\"'`,;:)\]}])"

_EXPRESSIONS: tuple[tuple[Rule, int, str], ...] = (
    (Rule.PRIVATE_KEY, PLAIN, r"PRIVATE KEY|PuTTY-User-Key|SSH2 ENCRYPTED"),
    (Rule.NAMED, CASELESS, rf"{_SURE}{_REST}{_FOR}(?:{_ASSIGNS}[:=> \t]*[^\s:=>]|{_LISTS}|>[^\s])"),
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
    (Rule.LOOSE, PLAIN, r"[A-Za-z0-9_\-]{32}-us\d|[0-9a-f]{32}-[0-9a-f]{8}-[0-9a-f]{8}|[a-f0-9]{36}NRAL"),
    (Rule.LOOSE, PLAIN, r"\d{6}:AA[A-Za-z0-9_\-]{30}|\d{13}\|[A-Za-z0-9_\-]{20}"),
    (Rule.LOOSE, PLAIN, r"_session=[A-Za-z0-9%._\-]{16}|/token/[A-Za-z0-9+=_\-]{30}"),
)
_KEY_LINE = r"[A-Za-z0-9+/]{59}={0,2}[ \t\r\\nr\"',+*]{0,8}/?$"


def _start_of(body: str) -> str:
    """The shortest text that the regular expression of a token can match: what it takes to be worth a look."""
    body = re.sub(r"\(\?[=!][^()]*\)", "", body)
    body = re.sub(r"([}*])\+", r"\1", body).removesuffix("=*")
    return re.sub(r"\{([1-9]\d*),\d*\}$", r"{\1}", body)


_AFTER_VENDOR = r"[ \t\w.\-]*[ \t\"'`]*(?:[=:>,]|\|\|:|\?=)[>= \t\"'`\\]*[A-Za-z0-9_=\-]{14}"

_WORTH = 1024 * 1024
"""Characters after which a process has enough to mask to pay for the scanner: 0.3 s to load and compile."""

_LONG = 64 * 1024
"""A single text so long is worth it at once: what is made to cost time costs most without the scanner."""


@dataclass(frozen=True, slots=True)
class _Sieve:
    """All expressions, ready to be looked for."""

    main: Scanner
    rules: tuple[Rule, ...]
    """Of each expression of ``main``, and of the key lines."""
    key_lines: Scanner
    """The one expression that slows the others down; most single lines are known not to need it."""

    def lines(self, text: str) -> dict[Rule, list[tuple[int, int]]] | None:
        """From and to of the lines that each rule should look at; None when there are too many such places."""
        # one byte per sign, so that positions stay what they are; what is not ASCII becomes a question mark
        data = text.encode("ascii", "replace")
        hits = self.main.scan(data)
        # 59 signs of base64 within 9 signs of the end leave no room for a blank here
        if hits is not None and ("\n" in text or " " not in text[-59:-9]):
            ends = self.key_lines.scan(data)
            hits = None if ends is None else [*hits, *((len(self.rules) - 1, start, end) for _, start, end in ends)]
        if not hits:
            return None if hits is None else {}
        found: dict[Rule, list[tuple[int, int]]] = {}
        for number, _, end in hits:
            lines = found.setdefault(self.rules[number], [])
            if not lines or end > lines[-1][1]:
                stop = text.find("\n", end - 1)
                lines.append((text.rfind("\n", 0, end - 1) + 1, stop if stop >= 0 else len(text)))
        return {rule: found[rule] for rule in sorted(found)}


_sieve: _Sieve | None = None
_looked_at = 0
"""Characters that were looked at without it."""


def _make() -> _Sieve | None:
    # one expression for each token and vendor: what begins with plain letters is what the engine is fastest at
    tokens = ((Rule.SHAPE, PLAIN, rf"\b{_start_of(body)}") for body in BODIES)
    vendors = ((Rule.VENDOR, CASELESS, vendor + _AFTER_VENDOR) for vendor in VENDOR_NAMES.split("|"))
    rules, flags, expressions = zip(*_EXPRESSIONS, *tokens, *vendors, strict=True)
    main, key_lines = make_scanner(expressions, flags), make_scanner([_KEY_LINE], [MULTILINE])
    return _Sieve(main, (*rules, Rule.KEY_LINE), key_lines) if main is not None and key_lines is not None else None


def warm() -> bool:
    """Make the scanner now instead of when it pays; False where it does not run."""
    global _sieve
    _sieve = _sieve or _make()
    return _sieve is not None


def find_lines(text: str) -> dict[Rule, list[tuple[int, int]]] | None:
    """From and to of the lines that each rule should look at; None when every rule has to look everywhere.

    That is so where there are too many such places, where the scanner does not run, and while the process has seen
    too little text for it to pay.
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
    return _sieve.lines(text)
