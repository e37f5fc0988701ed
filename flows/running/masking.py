"""What keeps secrets in the process of a run: its log records, the errors that leave it, its connections. (spec 6.6)"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blocks.connections import Connection, resolve
from blocks.prefect_blocks import find_block
from taskcenter.errors import TaskCenterError
from taskcenter.redaction import redact_exception, redact_text, register_secret

__all__ = ["MASKING", "Masked", "connection", "masked_errors"]


class Masked(str):
    """A text that was redacted: a record that says it and nothing else needs no second look.

    A type, since no ``extra`` of anybody's logger can claim to be it.
    """

    __slots__ = ()


class _Masking(logging.Filter):
    """What any logger says (errors with tracebacks) is redacted, once, before a handler sees it."""

    def filter(self, record: logging.LogRecord) -> bool:
        if type(record.msg) is Masked and not (record.args or record.exc_info or record.exc_text or record.stack_info):
            return True
        parts = [record.getMessage()]
        if record.exc_info:
            if not isinstance(record.exc_info[1], TaskCenterError):  # those are sentences already
                parts.append(logging.Formatter().formatException(record.exc_info))
        elif record.exc_text:
            parts.append(record.exc_text)
        if record.stack_info:
            parts.append(record.stack_info)
        record.msg, record.args = Masked(redact_text("\n".join(parts))), ()
        record.exc_info = record.exc_text = record.stack_info = None
        return True


MASKING = _Masking()


@contextmanager
def masked_errors() -> Iterator[None]:
    """An error goes on to Prefect, which stores its text, without secrets.

    A cancel, Prefect's own signals and the like stay what they are: as an error they would be a failure.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        clean = redact_exception(error)
        if clean is error:
            raise
        raise clean from None


def connection(name: str, home: Path) -> Connection:
    """From the environment, the samples or Prefect's blocks; its password is masked from now on."""
    found = resolve(name, lookup=find_block, home=home)
    if found.password and len(found.password) >= 4:
        register_secret(found.password)
    return found
