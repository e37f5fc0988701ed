"""What code in the run's own process prints, or says through any logger, is masked: it may end in a worker's log. (6.6)

Processes that a step starts are masked where their output is read.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from taskcenter.redaction import redact_text

__all__ = ["masked_output"]

_LONGEST = 1 << 20
"""Characters of a line after which it is passed on before it has ended."""


class _Masked:
    """A stream that passes on whole lines, masked, and is the real one in all else."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._begun = ""
        self._turn = threading.Lock()

    def write(self, text: str) -> int:
        with self._turn:
            whole, end, self._begun = (self._begun + text).rpartition("\n")
            if len(self._begun) > _LONGEST:
                whole, end, self._begun = whole + end + self._begun, "", ""
            if whole or end:
                self._stream.write(redact_text(whole) + end)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def finish(self) -> None:
        """Pass on what has no end of line."""
        with self._turn:
            rest, self._begun = self._begun, ""
            self._stream.write(redact_text(rest))
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def masked_output(masking: logging.Filter) -> Iterator[None]:
    """Mask both streams and what reaches the root's handlers. Inside another one it does nothing more."""
    if isinstance(sys.stdout, _Masked):
        yield
        return
    before, handlers = (sys.stdout, sys.stderr), list(logging.getLogger().handlers)
    out, err = _Masked(sys.stdout), _Masked(sys.stderr)
    sys.stdout, sys.stderr = out, err
    for handler in handlers:
        handler.addFilter(masking)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for handler in handlers:
            handler.removeFilter(masking)
        for stream in (out, err):
            stream.finish()
