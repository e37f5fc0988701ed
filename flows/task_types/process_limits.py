"""A command line that sets the limits of its own process before the program begins. (spec 5.7, 8.4)

``/bin/sh`` does it and then becomes the program: code between fork and exec would have to run in a process with
threads, and a limit that is set from outside comes when the program runs already.
"""

from __future__ import annotations

import math
import os
import resource
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from taskcenter.models import ResourceLimits

__all__ = ["limited"]

_TO_END: Final = 2
"""CPU seconds between the signal that a process may heed and the one that it cannot."""


def limited(
    argv: Sequence[str], limits: ResourceLimits | None, environment: Mapping[str, str], cwd: Path | None
) -> list[str]:
    """``argv`` as it is started; unchanged without limits, and where the program is not there: starting it says so."""
    commands = list(_commands(limits)) if limits is not None else []
    if not commands or not _is_there(argv[0], environment, cwd):
        return list(argv)
    return ["/bin/sh", "-c", " && ".join([*commands, 'exec "$@"']), "sh", *argv]


def _commands(limits: ResourceLimits) -> list[str]:
    found = []
    if limits.cpu_seconds is not None:
        soft = _at_most(math.ceil(limits.cpu_seconds), resource.RLIMIT_CPU)
        hard = _at_most(soft + _TO_END, resource.RLIMIT_CPU)
        found += [f"ulimit -S -t {soft}", f"ulimit -H -t {hard}"]
    if limits.memory_mb is not None and sys.platform.startswith("linux"):
        # What it can write to. The address space counts what is only reserved, too, of which some languages take much.
        found.append(f"ulimit -d {_at_most(limits.memory_mb << 20, resource.RLIMIT_DATA) >> 10}")
    if limits.open_files is not None:
        found.append(f"ulimit -n {_at_most(limits.open_files, resource.RLIMIT_NOFILE)}")
    return found


def _at_most(wanted: int, kind: int) -> int:
    """A process may only lower what it was given."""
    hard = resource.getrlimit(kind)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def _is_there(program: str, environment: Mapping[str, str], cwd: Path | None) -> bool:
    if os.sep not in program:
        return shutil.which(program, path=environment.get("PATH", os.defpath)) is not None
    place = (cwd or Path.cwd()) / program
    return place.is_file() and os.access(place, os.X_OK) and (cwd is None or cwd.is_dir())
