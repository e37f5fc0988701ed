"""What leaves a run's process: log records masked once, errors without secrets, cancels that stay cancels."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from prefect.exceptions import Abort, TerminationSignal

from flows.running import masking
from flows.running.masking import MASKING, Masked, masked_errors
from taskcenter.redaction import MASK, RedactedError, register_secret

SECRET = "masking of a certain value"


@pytest.fixture(autouse=True)
def _known() -> None:
    register_secret(SECRET)


class Stubborn(Exception):
    """Its text is computed, so it cannot be cleaned in place."""

    def __str__(self) -> str:
        return f"it was {SECRET}"


@pytest.mark.parametrize("end", [asyncio.CancelledError("x"), Abort("x"), TerminationSignal(15), KeyboardInterrupt()])
def test_what_is_no_error_stays_what_it_is(end: BaseException) -> None:
    end.__context__ = Stubborn()
    with pytest.raises(type(end)) as caught, masked_errors():
        raise end
    assert caught.value is end


@pytest.mark.parametrize("error", [Stubborn(), SystemExit(SECRET), ValueError(SECRET)])
def test_an_error_goes_on_without_its_secret(error: BaseException) -> None:
    with pytest.raises((RedactedError, SystemExit, ValueError)) as caught, masked_errors():
        raise error
    assert SECRET not in str(caught.value)
    assert MASK in str(caught.value)


@pytest.fixture
def logged() -> tuple[logging.Logger, list[str]]:
    """A logger that is masked, and so is its handler, which keeps what it is given."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    logger, handler = logging.Logger("of the test", logging.DEBUG), Kept()
    logger.addHandler(handler)
    logger.addFilter(MASKING)
    handler.addFilter(MASKING)
    return logger, lines


def test_a_record_is_masked_once(logged: tuple[logging.Logger, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    logger, lines = logged
    seen: list[str] = []
    once = masking.redact_text
    monkeypatch.setattr(masking, "redact_text", lambda text: seen.append(text) or once(text))
    logger.info("%s is %s", "it", SECRET)
    assert (lines, len(seen)) == ([f"it is {MASK}"], 1)
    logger.info(Masked("known to be clean: 100 %"))
    assert (lines[1:], len(seen)) == (["known to be clean: 100 %"], 1)


def test_no_line_gets_through_because_of_what_came_with_it(logged: tuple[logging.Logger, list[str]]) -> None:
    logger, lines = logged

    class Adds(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            record.exc_text = SECRET
            return True

    more: dict[str, Any] = {"extra": {"taskcenter": True, "masked": True}}
    logger.info(f"a {SECRET}", **more)
    logger.info(Masked("b %s"), SECRET, **more)
    logger.info(Masked("c"), exc_info=(Stubborn, Stubborn(), None))
    logger.info(Masked("d") + f" {SECRET}")
    logger.handlers[0].filters.insert(0, Adds())
    logger.info("e")
    assert len(lines) == 5
    assert not any(SECRET in line for line in lines)
    assert lines[:2] == [f"a {MASK}", f"b {MASK}"]
