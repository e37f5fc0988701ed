"""Take secrets out of text and data before anything else sees them. (spec 6.6)

Three rules: registered values (:class:`Redactor`), names that say what stands behind them, and shapes of well-known
tokens. What is found becomes ``[REDACTED]``, whatever its length. Promises: linear time, the same result when applied
twice, JSON text stays JSON text, never an exception: when anything goes wrong the whole text is masked.

Rules 2 and 3 are best effort. Left alone on purpose: ``token_count``, ``max_tokens``, ``secret_name``, truth values,
``null``, numbers (in text: of fewer than four digits), and placeholders: ``${PASSWORD}``, ``<password>``, ``***``.
"""

from __future__ import annotations

import base64
import html
import json
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

from .errors import Problem, ValidationFailed
from .redaction_patterns import (
    ANSI,
    ASSIGNMENT,
    BASE64_LINE,
    COMPARISON,
    CURL_USER,
    HARMLESS_ENDINGS,
    HARMLESS_STARTS,
    HARMLESS_VALUE,
    IDENTIFIED_BY,
    KEY_NAME,
    KEY_WORDS,
    LOOSE_SHAPES,
    LOOSE_START,
    PRIVATE_KEY,
    SCHEME,
    SHAPES,
    UNCERTAIN,
    URL_LOGIN,
)

__all__ = ["MASK", "Redactor", "is_secret_name", "redact", "redact_exception_text", "redact_text", "register_secret"]

MASK = "[REDACTED]"
_MOST_CANDIDATES = 5_000
_CANDIDATES_PER_SIGN = 1 / 256
"""A text with more places to look at than this is masked whole, which bounds the time it can take. A place that a
glance decides (``key=42``, ``token_count=7``) counts for a fifth."""
_LONG_WORD = 16
_MOST_ROUNDS = 4
_Span = tuple[int, int, str]


class _TooMuch(Exception):
    """More candidates than we are willing to look at one by one."""


def redact_text(text: str) -> str:
    """``text`` with what looks like a secret replaced by ``[REDACTED]``."""
    try:
        return _redact_text(_PROCESS.mask_registered(text))
    except Exception:  # fail closed: whatever it was, the text is not shown
        return _whole(text)


def redact(value: Any) -> Any:
    """A JSON-like value with secrets masked by key and by pattern, at any depth. Keys, order and types stay."""
    try:
        return _settled(value, _PROCESS.mask_leaf)
    except Exception:  # too deep, a cycle, or an object that misbehaves
        return MASK


def redact_exception_text(exc: BaseException) -> str:
    """Type, message and traceback of ``exc`` (and its causes) as redacted text."""
    try:
        text = "".join(traceback.format_exception(exc))
    except Exception:  # an exception whose __str__ raises
        text = f"{type(exc).__name__}: {MASK}"
    return redact_text(text)


def is_secret_name(name: str) -> bool:
    """Whether the name of an object key says that its value is secret (rule 2), look-alikes excepted."""
    lower = name.lower()
    return any(
        (match[1] not in UNCERTAIN or _has_owner(lower, match))
        and not _is_harmless_name(lower, match.start(), lower[max(match.end(), len(lower) - 40) :].strip("_-. "))
        for match in KEY_NAME.finditer(lower)
    )


def _whole(text: str) -> str:
    """The mask for a whole text; quoted where the text may be JSON, so that it still is."""
    return f'"{MASK}"' if text.lstrip()[:1] in ('"', "[", "{") and text != MASK else MASK


# --- text ---------------------------------------------------------------------------------------------------------


def _redact_text(text: str) -> str:
    current = text
    for _ in range(_MOST_ROUNDS):
        after = _one_round(current)
        if after == current:
            return current if current is text else _still_json(text, current)
        current = after
    return _whole(text)  # never settles: fail closed


def _still_json(before: str, after: str) -> str:
    """``after``, or, when masking broke a JSON text, the same text masked value by value."""
    if before.lstrip()[:1] not in ('"', "[", "{"):
        return after
    try:
        parsed = json.loads(before)
    except ValueError:
        return after
    try:
        json.loads(after)
    except ValueError:
        clean = json.dumps(_redact_value(parsed, redact_text), ensure_ascii=False)
        # It is only given out when it needs no further masking, so that masking twice is masking once.
        return clean if _one_round(clean) == clean else _whole(before)
    return after


def _one_round(text: str) -> str:
    seen = ANSI.sub(lambda m: " " * len(m[0]), text) if "\x1b[" in text else text
    # U+0130 is the one letter whose lower case is longer; positions in `lower` must be positions in `text`.
    lower = (seen if seen.isascii() else seen.replace("\u0130", "i")).lower()
    spans: list[_Span] = []
    for word in KEY_WORDS:
        if word in lower:
            _named(seen, lower, spans)
            break
    if "://" in seen and "@" in seen:
        _url_logins(seen, spans)
    if "==" in seen or "!=" in seen:
        _plain(COMPARISON, seen, spans)
    if "identified" in lower:
        _plain(IDENTIFIED_BY, seen, spans)
    if "curl" in lower:
        _curl_users(seen, spans)
    if "PRIVATE KEY" in seen or "PuTTY-" in seen:
        _private_keys(seen, spans)
    words = [word for word in seen.split() if len(word) >= _LONG_WORD]
    if words:
        _shapes(seen, words, spans)
    return _apply(text, spans) if spans else text


def _plain(pattern: re.Pattern[str], text: str, spans: list[_Span]) -> None:
    for match in _bounded(pattern, text):
        if not _is_harmless(match[1]):
            spans.append((match.start(1), match.end(1), MASK))


def _bounded(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    most = _most(text)
    for seen, match in enumerate(pattern.finditer(text)):
        if seen >= most:
            raise _TooMuch
        yield match


def _most(text: str) -> float:
    return _MOST_CANDIDATES + len(text) * _CANDIDATES_PER_SIGN


def _apply(text: str, spans: list[_Span]) -> str:
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


_OPENING = re.compile(
    r"[@(\[ ]{0,3}+(?:[bBuUrRfFL$@]{1,2}(?=[\"']))?(\\{0,8}+(?:\"\"\"|'''|[\"'`])|&quot;|&#34;|%22|\\u0022)"
)
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


def _named(text: str, lower: str, spans: list[_Span]) -> None:
    """Values that follow a secret's name, in whatever notation."""
    left = _most(text)
    decode: Callable[[str, int], tuple[Any, int]] | None = json.JSONDecoder().raw_decode
    at = 0
    while match := ASSIGNMENT.search(lower, at):
        left -= 0.2
        if left < 0:
            raise _TooMuch
        start, at = match.span()
        stem, rest, closed = match.group(1, 2, 3)
        kind = match.lastindex or 4
        if kind == 7 and not rest and not _LIKELY[7].match(lower, at) and not _is_option(lower, start):
            continue  # a word in a sentence
        if (rest and rest.endswith(HARMLESS_ENDINGS)) or _counts(lower, start):
            continue
        sure = stem not in UNCERTAIN
        if not sure:
            inner = KEY_NAME.search(rest) if rest else None  # auth_token, key_secret: the surer name counts
            if inner and inner[1] not in UNCERTAIN:
                stem, sure = inner[1], True
            elif _has_owner(lower, match):
                sure = True
            elif (stem != "key" and start and lower[start - 1].isalpha()) or (kind == 6 and rest[-1:] == "-"):
                continue  # bypass, compass; item.key->value
        if not sure and not _LIKELY[kind].match(lower, at) and not _is_option(lower, start):
            continue
        left -= 1
        if kind == 4 and sure and closed and decode is not None and text[at : at + 1] in ("{", "["):
            try:
                end = decode(text, at)[1]
            except ValueError:
                decode = None  # not JSON after all; asking again at every brace would not be linear
            else:
                if end - at > 2:
                    spans.append((at, end, f'"{MASK}"'))
                    at = end
                continue
        found = _value(text, at, header=kind == 4 and stem in ("authorization", "cookie"))
        if found is None:
            continue
        value_start, end, quote_mark = found
        if kind == 7 and quote_mark and not text.startswith(quote_mark, end):
            continue  # an apostrophe in prose
        name = _Name(stem, sure, bool(closed), kind)
        if end - value_start <= 200 and not _hides(text[value_start:end], quote_mark, name, lower, start):
            continue
        if kind == 4 and not quote_mark and value_start == at:
            value_start -= len(match[4]) - len(match[4].rstrip())  # `password: x` becomes `password:[REDACTED]`
        spans.append((value_start, end, MASK))
        at = end


class _Name(NamedTuple):
    stem: str
    sure: bool
    closed: bool  # quotes or brackets stand behind it
    kind: int  # of separator, see ASSIGNMENT


def _value(text: str, at: int, *, header: bool) -> tuple[int, int, str] | None:
    """Where the value that begins at ``at`` starts and ends, and its opening quote if it has one."""
    opening = _OPENING.match(text, at)
    if opening:
        mark, start = opening[1], opening.end()
        if mark in _CLOSING:
            closing = _CLOSING[mark].match(text, start)
            end = closing.end() if closing else start
        else:
            end = _find_closing(text, mark, start)
        return (start, end, mark) if end > start else None
    scheme = SCHEME.match(text, at)
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
    if _is_harmless(value):
        return False
    stem, sure, closed, kind = name
    if kind == 4:
        if not sure:
            return _is_strong(value, {"key": 16, "api": 16, "login": 20}.get(stem, 6))
        # an unquoted number behind a quoted name is a JSON number: it stays one
        return bool(quote_mark) or not (_NUMBER.fullmatch(value) and (closed or len(value) < 4))
    if kind == 6 and sure:
        return True
    if kind == 7:
        if closed and not quote_mark:
            return False
        if _is_option(lower, start) and not value.startswith("-"):
            return sure or _is_strong(value, 6)
        if quote_mark and stem[0] == "p" and stem[-1] == "d":
            return True  # SQL: PASSWORD 'x'
    return _is_strong(value, 6 if quote_mark and sure else 8)


def _is_option(lower: str, start: int) -> bool:
    """Whether the name that reaches back from ``start`` is a command line option such as ``--db-password``."""
    if "-" not in lower[max(0, start - 40) : start + 1]:
        return False
    first = start
    while first > 0 and start - first < 40 and lower[first - 1] not in " \t\n\"'(,[":
        first -= 1
    return lower.startswith("-", first)


_PASS_OWNERS = ("db", "user", "admin", "root", "my", "ftp", "smtp", "mail", "sql", "login", "any", "_", "-", ".")


def _has_owner(lower: str, match: re.Match[str]) -> bool:
    """``db_pass``, ``userpass``: with an owner before it, `pass` is a password; `bypass` and `pass: 12` are not."""
    return match[1] == "pass" and lower[max(0, match.start() - 6) : match.start()].endswith(_PASS_OWNERS)


def _is_harmless_name(lower: str, start: int, rest: str) -> bool:
    return (bool(rest) and rest.endswith(HARMLESS_ENDINGS)) or _counts(lower, start)


def _counts(lower: str, start: int) -> bool:
    return start > 1 and lower[max(0, start - 11) : start].endswith(HARMLESS_STARTS)


def _is_harmless(value: str) -> bool:
    if value == MASK:
        return True
    if len(value) > 200:
        return False
    value = value.strip()
    if not value or value.endswith("...") or HARMLESS_VALUE.fullmatch(value):
        return True
    if len(value) >= 3 and len(set(value.lower()) - _FILLERS) <= 1:
        return True  # xxxx, ****, 0000-0000
    if len(value) >= 16 and set(value[-12:].lower()) - _FILLERS <= {"x", "*", "#"}:
        return True  # ghp_xxxxxxxxxxxx
    # letters only that call themselves an example
    return value.replace("_", "a").isalpha() and _says_example(value.lower())


_FILLERS = frozenset("-_. =")


def _says_example(lower: str) -> bool:
    return any(word in lower for word in ("fake", "dummy", "example", "placeholder"))


def _is_strong(value: str, least: int) -> bool:
    """Whether a value looks like a secret by itself: long enough, with digits or signs among letters, one word."""
    if len(value) < least or " " in value:
        return False
    letters = digits = signs = 0
    for sign in value[:64]:
        if sign.isalpha():
            letters += 1
        elif sign.isdigit():
            digits += 1
        elif sign not in "-_./:":
            signs += 1
    if least >= 16:
        return letters >= 4 and digits >= 3 and "." not in value and len(set(value)) >= 8
    return letters >= 2 and (digits > 0 or signs > 0)


def _url_logins(text: str, spans: list[_Span]) -> None:
    for match in _bounded(URL_LOGIN, text):
        if match[2] is not None:
            if match[2].isalpha() or not _is_harmless(match[2]):
                spans.append((match.start(2), match.end(2), MASK))
        elif len(match[1]) >= 20 and not _is_harmless(match[1]):
            spans.append((match.start(1), match.end(1), MASK))


def _curl_users(text: str, spans: list[_Span]) -> None:
    for match in _bounded(CURL_USER, text):
        user, password = match.group(1, 2)
        if not password:  # curl -u "token:": the name is the secret
            if _is_strong(user, 8) and not _is_harmless(user):
                spans.append((match.start(1), match.end(1), MASK))
        elif user[0] not in "<$" and password not in (user, "pass", "password") and not _is_harmless(password):
            spans.append((match.start(2), match.end(2), MASK))


_KEY_BODY = re.compile(r"[A-Za-z0-9+/=\s\\\"'+>|#*-]{0,65536}+")


def _private_keys(text: str, spans: list[_Span]) -> None:
    done = 0
    no_end_after = len(text) + 1
    for match in _bounded(PRIVATE_KEY, text):
        start = match.start()
        if start < done:
            continue
        end = match.end()
        if " END" not in match[0] and not match[0].startswith("-----END"):
            close = text.find("-----END", end) if end < no_end_after else -1
            if close < 0:
                no_end_after = min(no_end_after, end)
                body = _KEY_BODY.match(text, end)
                end = end + len(body[0].rstrip("\"' \n\t")) if body else end
            else:
                tail = text.find("-----", close + 8)
                end = tail + 5 if 0 <= tail - close <= 60 else close + 8
        spans.append((start, end, MASK))
        done = end


def _shapes(text: str, words: list[str], spans: list[_Span]) -> None:
    """Tokens known by their shape. ``words`` are the long words only: most of a log is not among them."""
    longest = max(map(len, words))
    joined = " ".join(words)
    if 2 * len(joined) > len(text) or SHAPES.search(joined):
        for match in _bounded(SHAPES, text):
            if _is_real(match[0]) and text[match.start() - 1 : match.start()] != "+":  # +: the middle of base64
                start = match.start() + (16 if match[0].startswith("hooks.") else 0)
                spans.append((start, match.end(), MASK))
    if longest >= 30 and LOOSE_SHAPES.search(joined):
        for match in _bounded(LOOSE_SHAPES, text):
            start = match.start() + (0 if match[0].startswith("-s4t2") else LOOSE_START[match[0][0]])
            if _is_real(text[start : match.end()]):
                spans.append((start, match.end(), MASK))
    if longest >= 59 and BASE64_LINE.search(" \n".join([word for word in words if len(word) >= 59])):
        for match in _bounded(BASE64_LINE, text):
            if _is_key_body(match[0]):
                spans.append((match.start(), match.end(), MASK))


def _is_real(token: str) -> bool:
    """Not ``ghp_xxxx…``; a JSON Web Token has a dot (else it is any base64 of JSON), a Slack token has numbers."""
    if token.startswith("eyJ") and "." not in token:
        return token.startswith("eyJrIjoi")
    if token.startswith("xox"):
        return sum(map(str.isdigit, token)) >= 6 and len(set(token[-12:].lower())) > 3
    return len(set(token[-16:].lower())) > 3


def _is_key_body(line: str) -> bool:
    if line.count("/") > 6:
        return False  # a path
    upper, lower = sum(map(str.isupper, line)), sum(map(str.islower, line))
    return upper >= 8 and lower >= 8 and (len(line) in (64, 76) or any(map(str.isdigit, line)))


# --- data ---------------------------------------------------------------------------------------------------------


def _settled(value: Any, clean: Callable[[str], str]) -> Any:
    """Masked until nothing changes any more, so that masking twice is masking once."""
    for _ in range(_MOST_ROUNDS):
        after = _redact_value(value, clean)
        if after == value:
            return after
        value = after
    return MASK


def _redact_value(value: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return _redact_mapping(value, clean)
    if isinstance(value, (list, tuple)):
        items = _redact_items(value, clean)
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, (bytes, bytearray)):
        return clean(value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    return value


def _redact_items(items: Iterable[Any], clean: Callable[[str], str]) -> list[Any]:
    """The elements; one that follows an option such as ``--password`` is that option's value."""
    result: list[Any] = []
    masked_next = False
    for item in items:
        if masked_next and isinstance(item, str) and not item.startswith("-"):
            result.append(_hide(item, clean))
            masked_next = False
            continue
        done = _redact_value(item, clean)
        masked_next = isinstance(item, str) and item.startswith("-") and "=" not in item and _names_secret(item, done)
        result.append(done)
    return result


def _names_secret(name: str, cleaned: str) -> bool:
    """Whether a name tells of a secret, as it was or as it stands after masking."""
    return is_secret_name(name) or (cleaned != name and is_secret_name(cleaned))


def _redact_mapping(value: Mapping[Any, Any], clean: Callable[[str], str]) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    # {"name": "DB_PASSWORD", "value": "…"}: how containers and forms write an environment
    pair = next((value[k] for k in ("name", "key", "Name", "Key") if isinstance(value.get(k), str)), "")
    named_pair = bool(pair) and _names_secret(pair, clean(pair))
    for key, item in value.items():
        name = key
        if isinstance(key, str):
            name = clean(key)
            hidden = _names_secret(key, name) or (named_pair and key.lower() == "value")
            while name in result:
                name += "#"  # two keys that were masked alike both stay
            if hidden:
                result[name] = _hide(item, clean)
                continue
        result[name] = _redact_value(item, clean)
    return result


def _hide(item: Any, clean: Callable[[str], str]) -> Any:
    """The value behind a secret's name: masked whole, but nothing, truth values, numbers and placeholders stay."""
    if (
        item is None
        or isinstance(item, (bool, int, float))
        or (not item and isinstance(item, (str, list, tuple, dict)))
    ):
        return item
    if isinstance(item, str) and _is_harmless(item) and not item.isalpha():
        return clean(item)
    return MASK


# --- registered values --------------------------------------------------------------------------------------------


class Redactor:
    """Masks registered values (rule 1) in all their written forms, then everything that rules 2 and 3 find.

    A value of 8 characters and more is masked wherever it occurs, one of 4 to 7 only where it is a whole string in
    data: in running text it would hit innocent words. Shorter ones are refused as secrets.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values: set[str] = set()
        self._short: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        for value in values:
            self.register(value)

    def register(self, value: str) -> None:
        """Mask ``value`` from now on. Raises ValidationFailed when it is shorter than 4 characters."""
        if len(value) < 4:
            sentence = "is shorter than 4 characters: masking it would blank out innocent text"
            raise ValidationFailed("the secret", [Problem("secret_too_short", "value", sentence)])
        if value in self._values or value in self._short:
            return
        if len(value) < 8:
            self._short.add(value)
            return
        self._values.add(value)
        self._pattern = None

    def redact_text(self, text: str) -> str:
        """``text`` with registered values and recognised secrets masked."""
        try:
            return redact_text(self.mask_registered(text))
        except Exception:  # fail closed
            return _whole(text)

    def redact(self, value: Any) -> Any:
        """Data with registered values and recognised secrets masked."""
        try:
            return _settled(value, self.mask_leaf)
        except Exception:  # fail closed
            return MASK

    def redact_exception_text(self, exc: BaseException) -> str:
        """Type, message and traceback with registered values and recognised secrets masked."""
        try:
            text = "".join(traceback.format_exception(exc))
        except Exception:  # an exception whose __str__ raises
            text = f"{type(exc).__name__}: {MASK}"
        return self.redact_text(text)

    def mask_leaf(self, text: str) -> str:
        """A whole string in data, where a short registered value is masked too."""
        return MASK if text in self._short else self.redact_text(text)

    def mask_registered(self, text: str) -> str:
        """``text`` with registered values masked, and nothing else."""
        if not self._values:
            return text
        if self._pattern is None:
            forms = {
                form for value in self._values for form in _written_forms(value) if len(form) >= 6 and form not in MASK
            }
            # the longest first, so that a value that contains another one is masked whole
            self._pattern = re.compile("|".join(map(re.escape, sorted(forms, key=lambda f: (-len(f), f)))) or r"(?!)")
        return self._pattern.sub(MASK, text)


_PROCESS = Redactor()
"""What this process has resolved so far: ``redact`` and ``redact_text`` mask it wherever they are called."""


def register_secret(value: str) -> None:
    """Mask ``value``, and each longer line of it, from now on and everywhere in this process.

    Raises ValidationFailed when it is shorter than 4 characters.
    """
    _PROCESS.register(value)
    for line in value.splitlines():
        if len(line.strip()) >= 8:
            _PROCESS.register(line.strip())


def _written_forms(value: str) -> set[str]:
    """How a value may be written: as it is, URL, JSON, repr, shell, HTML, hex, and base64 at its three offsets."""
    raw = value.encode("utf-8", "surrogatepass")
    url = quote(raw, safe="")
    forms = {value, url, quote_plus(raw), quote(raw), re.sub("%..", lambda m: m[0].lower(), url)}
    forms |= {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    forms |= {json.dumps(json.dumps(value)[1:-1])[1:-1], json.dumps(value)[1:-1].replace("/", "\\/")}
    forms |= {value.replace("'", "'\\''"), value.replace("'", "'\"'\"'"), html.escape(value), html.escape(value, False)}
    forms |= {html.escape(value).replace("&#x27;", "&apos;"), raw.hex(), raw.hex().upper()}
    for offset in range(3):
        text = base64.b64encode(b"\0" * offset + raw).decode("ascii")
        # the first and last characters also hold bits of the neighbours: only those in between are certain
        sure = text[(0, 2, 3)[offset] : (8 * (offset + len(raw))) // 6]
        forms |= {sure, sure.replace("+", "-").replace("/", "_")}
    return forms
