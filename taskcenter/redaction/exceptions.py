"""Exceptions whose text, causes and traceback hold no secret, for raising on to code that stores what it catches."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["RedactedError", "exception_text", "redacted_exception"]


class RedactedError(Exception):
    """Stands for an exception that could not be cleaned in place; its text is the redacted traceback."""


def exception_text(exc: BaseException) -> str:
    """Type, message and traceback with all causes. Raises what a wicked ``__str__`` raises."""
    return "".join(traceback.format_exception(exc))


def redacted_exception(
    exc: BaseException, clean_text: Callable[[str], str], clean: Callable[[Any], Any]
) -> BaseException:
    """``exc`` itself, with cleaned arguments and attributes all along its chain.

    Where that is not enough (a text that is computed, a group's message, source code with a secret in it) a
    :class:`RedactedError` takes its place, without cause and traceback.
    """
    try:
        before = exception_text(exc)
        if clean_text(before) == before:
            return exc
        for one in _chain(exc):
            one.args = tuple(clean(argument) for argument in one.args)
            for name, value in list(vars(one).items()):
                setattr(one, name, clean(value))
        after = exception_text(exc)
        if clean_text(after) == after:
            return exc
        said = clean_text(before)
    except Exception:  # fail closed
        said = f"{type(exc).__name__}: its text could not be redacted and is not shown"
    return RedactedError(said)


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """The exception, its causes and contexts, and the members of groups, each once."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [exc]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += (one.__cause__, one.__context__)
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
