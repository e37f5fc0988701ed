"""Where jobs may write: the project, ``backups/`` and ``files/`` of the data directory, folders named in a setting."""

from __future__ import annotations

from pathlib import Path

from taskcenter.context import RunContext
from taskcenter.errors import Refused
from taskcenter.settings import Settings

__all__ = ["job_file"]


def job_file(path: str, ctx: RunContext, what: str) -> Path:
    """The absolute path, links followed; a relative one is below the project.

    Raises Refused when it lies nowhere that jobs may write. ``what`` is the field's name, for the sentence.
    """
    settings = Settings.from_env()
    homes = {settings.home, ctx.data_dir}
    roots = [settings.project, *(home / part for home in homes for part in ("backups", "files")), *settings.file_roots]
    resolved = (settings.project / Path(path).expanduser()).resolve()
    if not any(resolved.is_relative_to(root.resolve()) for root in roots):
        raise Refused(
            f"{what} {path!r} lies outside the project {settings.project} and the data directory; to let jobs write "
            "there, name the folder in TASKCENTER_FILE_ROOTS"
        )
    return resolved
