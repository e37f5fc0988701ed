"""Is this a secret, or does it only look like one? What names and values are left alone. (spec 6.6, rule 2)"""

from __future__ import annotations

import re

from .patterns import HARMLESS_ENDINGS, HARMLESS_STARTS, HARMLESS_VALUE, KEY_NAME, MASK, UNCERTAIN

__all__ = ["counts", "describes", "has_owner", "is_harmless", "is_secret_name", "is_strong"]

_FILLERS = frozenset("-_. =")
_ENDINGS = {last: tuple(w for w in HARMLESS_ENDINGS if w[-1] == last) for last in {w[-1] for w in HARMLESS_ENDINGS}}
_STARTS_END = frozenset(word[-1] for word in HARMLESS_STARTS)
_PASS_OWNERS = ("db", "user", "admin", "root", "my", "ftp", "smtp", "mail", "sql", "login", "any", "_", "-", ".")


def is_secret_name(name: str) -> bool:
    """Whether the name of an object key says that its value is secret (rule 2), look-alikes excepted."""
    lower = name.lower()
    return any(
        (match[1] not in UNCERTAIN or has_owner(lower, match))
        and not _is_harmless_name(lower, match.start(), lower[max(match.end(), len(lower) - 40) :].strip("_-. "))
        for match in KEY_NAME.finditer(lower)
    )


def _is_harmless_name(lower: str, start: int, rest: str) -> bool:
    return describes(rest) or counts(lower, start)


def describes(rest: str) -> bool:
    """Whether what follows the name says that it is something about it: ``token_count``, ``password_file``."""
    return bool(rest) and rest.endswith(_ENDINGS.get(rest[-1], ()))


def has_owner(lower: str, match: re.Match[str]) -> bool:
    """``db_pass``, ``userpass``: with an owner before it, `pass` is a password; `bypass` and `pass: 12` are not."""
    return match[1] == "pass" and lower[max(0, match.start() - 6) : match.start()].endswith(_PASS_OWNERS)


def counts(lower: str, start: int) -> bool:
    """Whether what stands before the name says that it counts or describes: ``max_tokens``, ``has_password``."""
    return start > 1 and lower[start - 1] in _STARTS_END and lower[max(0, start - 11) : start].endswith(HARMLESS_STARTS)


def is_harmless(value: str) -> bool:
    """Whether ``value`` holds nothing: a mask, a placeholder, a truth value, a word of a sentence."""
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


def _says_example(lower: str) -> bool:
    return any(word in lower for word in ("fake", "dummy", "example", "placeholder"))


def is_strong(value: str, least: int) -> bool:
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
