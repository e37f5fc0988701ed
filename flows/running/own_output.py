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
    """A stream that passes on whole lines, masked, and is the real one in all else.

    A line may end in the ``\\r`` of a progress bar. And a write may begin in the middle of another one of the same
    thread: in a ``__del__``, a warning, the handler of a signal.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._begun: list[str] = []
        self._size = 0
        self._turn = threading.RLock()

    def write(self, text: str) -> int:
        ends = max(text.rfind("\n"), text.rfind("\r")) + 1
        with self._turn:
            if ends:
                self._pass_on(text[:ends])
            self._begun.append(text[ends:])
            self._size += len(text) - ends
            if self._size > _LONGEST:
                self._pass_on()
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def finish(self) -> None:
        """Pass on what has no end of line."""
        with self._turn:
            self._pass_on()
            self._stream.flush()

    def _pass_on(self, more: str = "") -> None:
        """All that was begun, taken before it is written: a write in the middle finds nothing of it any more."""
        begun, self._begun, self._size = self._begun, [], 0
        line = "".join((*begun, more))
        end = line[-1:] if line[-1:] in ("\n", "\r") else ""
        self._stream.write(redact_text(line.removesuffix(end)) + end)

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
