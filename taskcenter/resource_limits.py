"""How much one run may use, and which limit it was that ended it. (spec 5.7)

Pure: what was used comes in, a sentence comes out. The kernel holds a process to its limits (``process_limits`` of the
task types), and a watcher in the run's process holds the whole tree to them (``flows.running.resources``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .models import ResourceLimits

__all__ = ["MEGABYTE", "exceeded", "hit_by_child", "in_words", "printed_too_much"]

MEGABYTE: Final = 1 << 20
_CPU_SIGNAL: Final = 24
_SHELL_BASE: Final = 128
"""A shell whose command a signal ended gives 128 and the signal's number."""
_MEMORY: Final = re.compile(
    r"MemoryError|out of memory|cannot allocate memory|can't allocate|bad_alloc|memory exhausted|std::length_error",
    re.IGNORECASE,
)
_FILES: Final = re.compile(r"too many open files|EMFILE", re.IGNORECASE)


def in_words(limits: ResourceLimits) -> str:
    """``2 CPU seconds, 200 MB of memory``; empty without any."""
    return ", ".join(_parts(limits))


def _parts(limits: ResourceLimits) -> Iterator[str]:
    if limits.cpu_seconds is not None:
        yield f"{limits.cpu_seconds:g} CPU seconds"
    if limits.memory_mb is not None:
        yield f"{limits.memory_mb} MB of memory"
    if limits.open_files is not None:
        yield f"{limits.open_files} open files"
    if limits.log_bytes is not None:
        yield f"{limits.log_bytes:,} bytes of output"


def exceeded(limits: ResourceLimits, *, cpu_seconds: float, memory: int) -> str | None:
    """The limit that the run's processes together are over, as a sentence. ``memory`` is in bytes."""
    if limits.cpu_seconds is not None and cpu_seconds > limits.cpu_seconds:
        return _cpu(limits)
    if limits.memory_mb is not None and memory > limits.memory_mb * MEGABYTE:
        return _memory(limits)
    return None


def hit_by_child(limits: ResourceLimits, exit_code: int, said: str) -> str | None:
    """Which limit a process that failed had met, by how it ended and by the last it said; None: none that shows."""
    if limits.cpu_seconds is not None and exit_code == _SHELL_BASE + _CPU_SIGNAL:
        return _cpu(limits)
    if exit_code and limits.memory_mb is not None and _MEMORY.search(said):
        return _memory(limits)
    if exit_code and limits.open_files is not None and _FILES.search(said):
        return f"it had {limits.open_files} files open, the most it may (openFiles)"
    return None


def printed_too_much(limits: ResourceLimits, size: int) -> str | None:
    """``size``: bytes that the processes of the run have printed so far."""
    if limits.log_bytes is None or size <= limits.log_bytes:
        return None
    return f"it printed more than {limits.log_bytes:,} bytes (logBytes)"


def _cpu(limits: ResourceLimits) -> str:
    return f"it used more than {limits.cpu_seconds:g} CPU seconds (cpuSeconds)"


def _memory(limits: ResourceLimits) -> str:
    return f"it needed more than {limits.memory_mb} MB of memory (memoryMb)"
