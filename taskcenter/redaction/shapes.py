"""Secrets that are known without a name: logins in addresses, SQL and curl, keys, vendors' tokens. (spec 6.6)"""

from __future__ import annotations

import re

from .judge import is_harmless, is_strong
from .patterns import (
    BASE64_LINE,
    COMPARISON,
    CURL_USER,
    IDENTIFIED_BY,
    LONG,
    LONG_BASE64,
    LOOSE_SHAPES,
    LOOSE_START,
    MASK,
    PRIVATE_KEY,
    SHAPES,
    TEMPLATES,
    URL_LOGIN,
    VENDOR,
)
from .spans import Budget, Look, Span, every

__all__ = [
    "find_comparisons",
    "find_curl_users",
    "find_identified",
    "find_key_lines",
    "find_long_base64",
    "find_loose_shapes",
    "find_private_keys",
    "find_shapes",
    "find_templates",
    "find_url_logins",
    "find_vendors",
]


def find_comparisons(text: str, look: Look, budget: Budget, spans: list[Span]) -> None:
    """``"value" == password``."""
    _first_group(COMPARISON, text, look, budget, spans)


def find_identified(text: str, look: Look, budget: Budget, spans: list[Span]) -> None:
    """``IDENTIFIED BY 'value'``."""
    _first_group(IDENTIFIED_BY, text, look, budget, spans)


def _first_group(pattern: re.Pattern[str], text: str, look: Look, budget: Budget, spans: list[Span]) -> None:
    for match in every(pattern, text, look, budget):
        if not is_harmless(match[1]):
            spans.append((match.start(1), match.end(1), MASK))


def find_vendors(text: str, look: Look, budget: Budget, spans: list[Span]) -> None:
    """``sumologic.accessId = "su9OL59biWiJu7"``: a vendor's name, then something that nobody would make up."""
    for match in every(VENDOR, text, look, budget):
        if is_strong(match[1], 14) and sum(map(str.isdigit, match[1])) >= 3 and not is_harmless(match[1]):
            spans.append((match.start(1), match.end(1), MASK))


def find_url_logins(text: str, look: Look, budget: Budget, spans: list[Span]) -> None:
    """``scheme://user:password@host`` and ``scheme://token@host``."""
    for match in every(URL_LOGIN, text, look, budget):
        if match[2] is not None:
            if match[2].isalpha() or not is_harmless(match[2]):
                spans.append((match.start(2), match.end(2), MASK))
        elif len(match[1]) >= 20 and not is_harmless(match[1]):
            spans.append((match.start(1), match.end(1), MASK))


def find_curl_users(text: str, look: Look, budget: Budget, spans: list[Span]) -> None:
    """``curl -u name:password``; only asked where the text speaks of curl."""
    for match in every(CURL_USER, text, look, budget):
        user, password = match.group(1, 2)
        if not password:  # curl -u "token:": the name is the secret
            if is_strong(user, 8) and not is_harmless(user):
                spans.append((match.start(1), match.end(1), MASK))
        elif user[0] not in "<$" and password not in (user, "pass", "password") and not is_harmless(password):
            spans.append((match.start(2), match.end(2), MASK))


_KEY_BODY = re.compile(r"[A-Za-z0-9+/=\s\\\"'+>|#*-]{0,65536}+")


def find_private_keys(text: str, budget: Budget, spans: list[Span]) -> None:
    """Whole PEM blocks, over as many lines as they have."""
    done = 0
    no_end_after = len(text) + 1
    for match in every(PRIVATE_KEY, text, Look(0, len(text), len(text)), budget):
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


def find_shapes(text: str, look: Look, budget: Budget, spans: list[Span]) -> None:
    """Tokens that begin with letters of their vendor's own."""
    for match in every(SHAPES, text, look, budget):
        if _is_real(match[0]) and text[match.start() - 1 : match.start()] != "+":  # +: the middle of base64
            first = match.start() + (16 if match[0].startswith("hooks.") else 0)
            spans.append((first, match.end(), MASK))


def find_loose_shapes(text: str, look: Look, budget: Budget, spans: list[Span]) -> None:
    """Tokens that are known by something in their middle."""
    for match in every(LOOSE_SHAPES, text, look, budget):
        first = match.start() + (0 if match[0].startswith("-s4t2") else LOOSE_START[match[0][0]])
        if _is_real(text[first : match.end()]):
            spans.append((first, match.end(), MASK))


def find_templates(text: str, look: Look, budget: Budget, spans: list[Span]) -> None:
    """``xoxb-%s-%s``: the beginning of a vendor's token and a format in place of the rest."""
    spans += ((match.start(), match.end(), MASK) for match in every(TEMPLATES, text, look, budget))


def find_long_base64(text: str, look: Look, budget: Budget, spans: list[Span]) -> None:
    """Very long runs of base64, but no images in a page."""
    for match in every(LONG_BASE64, text, look, budget):
        start, end = match.span()
        sample = text[start : start + LONG]
        if "base64," not in text[max(0, start - 12) : start] and _is_random(sample):
            spans.append((start, end, MASK))


def _is_random(sample: str) -> bool:
    """Not a hash, not a path, not the same again and again."""
    kinds = (sum(map(is_kind, sample)) for is_kind in (str.isupper, str.islower, str.isdigit))
    return min(kinds) >= 16 and len(set(sample)) >= 40 and sample.count("/") <= len(sample) // 16


def find_key_lines(text: str, look: Look, budget: Budget, spans: list[Span]) -> None:
    """The body of a private key that arrives line by line."""
    for match in every(BASE64_LINE, text, look, budget):
        if _is_key_body(match[0]):
            spans.append((match.start(), match.end(), MASK))


def _is_real(token: str) -> bool:
    """Not ``ghp_xxxx…``; a JSON Web Token has a dot (else it is any base64 of JSON), a Slack token has numbers."""
    if token.startswith("eyJ") and "." not in token:
        return token.startswith("eyJrIjoi")
    if token.startswith("xox"):
        return sum(map(str.isdigit, token)) >= 6 and len(set(token[-12:].lower())) > 3
    return len(set(token[-16:].lower())) > 3


_EARLY = 29
"""Among so many signs of base64 at the beginning is a capital letter, but once in three millions."""


def _is_key_body(line: str) -> bool:
    if line.islower() or line.isupper() or line.count("/") > 6:
        return False  # a hash; a path
    if not any(map(str.isupper, line[:_EARLY])):
        return False  # what the sieve looks for
    upper, lower = sum(map(str.isupper, line)), sum(map(str.islower, line))
    return upper >= 8 and lower >= 8 and (len(line) in (64, 76) or any(map(str.isdigit, line)))
