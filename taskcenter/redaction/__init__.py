"""Take secrets out of text and data before anything else sees them. (spec 6.6)

Three rules: registered values (:func:`register_secret`), names that say what stands behind them, and shapes of
well-known tokens. What is found becomes ``[REDACTED]``, whatever its length. Promises: linear time, the same result
when applied twice, JSON text stays JSON text, never an exception: when anything goes wrong the whole text is masked.

Rules 2 and 3 are best effort. Left alone on purpose: ``token_count``, ``max_tokens``, ``secret_name``, truth values,
``null``, numbers (in text: of fewer than four digits), and placeholders: ``${PASSWORD}``, ``<password>``, ``***``.
The list is in ``docs/redaction.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .data import mask_data
from .exceptions import RedactedError, exception_text, redacted_exception
from .judge import is_secret_name
from .own import OwnPatterns, own_patterns, read_own_patterns
from .patterns import MASK
from .registered import LEAST_LENGTH_IN_TEXT, Registered
from .sieve import is_clean
from .spans import whole
from .text import MOST_ROUNDS, mask_own, mask_text

__all__ = [
    "MASK",
    "RedactedError",
    "Redactor",
    "holds_secret",
    "is_secret_name",
    "read_own_patterns",
    "redact",
    "redact_exception",
    "redact_exception_text",
    "redact_registered",
    "redact_text",
    "redacts_many",
    "register_secret",
]


_LONG = 4096
"""Shorter texts are lines of a log, of which most hold nothing: that is asked first."""


class Redactor:
    """Masks its registered values (rule 1), then everything that rules 2 and 3 find.

    A value of 8 characters and more is masked wherever it occurs, one of 4 to 7 only where it is a whole string in
    data. Shorter ones are refused as secrets.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        self.registered = Registered()
        for value in values:
            self.register(value)

    def register(self, value: str) -> None:
        """Mask ``value`` from now on. Raises ValidationFailed when it is shorter than 4 characters."""
        self.registered.add(value)

    def redact_text(self, text: str) -> str:
        """``text`` with registered values and recognised secrets masked."""
        try:
            own = own_patterns()
            finds = self.registered.finds
            if finds is not None and len(text) < _LONG and text.isascii() and "\x1b" not in text:
                data = text.encode()
                if not finds(data) and (own is None or not own.finds(data)):
                    if is_clean(text, data):
                        return text
                    if own is None:
                        return mask_text(text)
            return mask_text(self.registered.mask(text)) if own is None else self._settled(text, own)
        except Exception:  # fail closed: whatever it was, the text is not shown
            return whole(text)

    def _settled(self, text: str, own: OwnPatterns) -> str:
        """With the user's own patterns too, which may match what the other rules leave, and the other way round."""
        current = text
        for _ in range(MOST_ROUNDS):
            after = mask_text(mask_own(self.registered.mask(current), own))
            if after == current:
                return current
            current = after
        return whole(text)

    def redact(self, value: Any) -> Any:
        """A JSON-like value with secrets masked by key and in every text, at any depth. Keys, order and types stay."""
        return self._redact(value, self._mask_leaf)

    def redacts_many(self) -> Callable[[Any], Any]:
        """``redact`` for many values at once, which remembers the texts it has seen, as keys are the same in each.

        To be dropped with the values: it does not learn of what is registered later.
        """
        seen: dict[str, str] = {}

        def clean(text: str) -> str:
            masked = seen.get(text)
            if masked is None:
                masked = seen[text] = self._mask_leaf(text)
            return masked

        return lambda value: self._redact(value, clean)

    def _redact(self, value: Any, clean: Callable[[str], str]) -> Any:
        try:
            own = own_patterns()
            return mask_data(value if own is None else own.mask_numbers(value), clean)
        except Exception:  # too deep, a cycle, or an object that misbehaves
            return MASK

    def redact_exception_text(self, exc: BaseException) -> str:
        """Type, message and traceback of ``exc`` (and its causes) as redacted text."""
        try:
            text = exception_text(exc)
        except Exception:  # an exception whose __str__ raises
            text = f"{type(exc).__name__}: {MASK}"
        return self.redact_text(text)

    def redact_exception(self, exc: BaseException) -> BaseException:
        """``exc`` with redacted text and traceback, to be raised on to code that stores what it catches."""
        return redacted_exception(exc, self.redact_text, self.redact)

    def holds_secret(self, value: Any) -> bool:
        """Whether a registered value stands anywhere in JSON-like data, or nobody can tell."""
        try:
            return any(self.registered.is_short(text) or self.registered.mask(text) != text for text in _texts(value))
        except Exception:  # too deep, or an object that misbehaves
            return True

    def redact_registered(self, value: Any) -> Any:
        """JSON-like data with registered values masked and nothing else: what only looks like a secret stays."""
        if isinstance(value, dict):
            return {self.redact_registered(key): self.redact_registered(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.redact_registered(item) for item in value]
        if isinstance(value, str):
            return MASK if self.registered.is_short(value) else self.registered.mask(value)
        return value

    def _mask_leaf(self, text: str) -> str:
        """A whole string in data, where a short registered value is masked too."""
        return MASK if self.registered.is_short(text) else self.redact_text(text)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    else:
        yield str(value)


_PROCESS = Redactor()
"""What this process has resolved so far: the functions below mask it wherever they are called."""

holds_secret = _PROCESS.holds_secret
redact_text = _PROCESS.redact_text
redact = _PROCESS.redact
redacts_many = _PROCESS.redacts_many
redact_registered = _PROCESS.redact_registered
redact_exception = _PROCESS.redact_exception
redact_exception_text = _PROCESS.redact_exception_text


def register_secret(value: str) -> None:
    """Mask ``value``, and each longer line of it, from now on and everywhere in this process.

    Raises ValidationFailed when it is shorter than 4 characters.
    """
    _PROCESS.register(value)
    for line in value.splitlines():
        if len(line.strip()) >= LEAST_LENGTH_IN_TEXT:
            _PROCESS.register(line.strip())
