"""``up``, ``demo``, ``serve`` and ``doctor``: starting a center, and finding out why it does not start."""

from __future__ import annotations

from typing import Any

import click

from taskcenter.settings import Settings
from taskcenter_console.terminal import emit, mark, say, table

from . import common
from .common import Out, output

__all__ = ["demo", "doctor", "serve", "up"]

_port = click.option(
    "--port", type=click.IntRange(0, 65_535), metavar="PORT", help="Port of the service and console; 0: a free one."
)
_prefect_port = click.option(
    "--prefect-port", type=click.IntRange(0, 65_535), metavar="PORT", help="Port of the Prefect server; 0: a free one."
)
_database = click.option(
    "--database", type=click.Choice(["auto", "embedded", "sqlite"]), help="Which database is started. Default: auto."
)
_project = click.option(
    "--project", metavar="DIR", help="Folder with composites/ and task_types/ of your own. Default: this folder."
)
_workers = click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    metavar="N",
    help="How many runs may execute at once.",
)


def _settings(**given: Any) -> Settings:
    from pathlib import Path

    folder = given.pop("project", None)
    project = Path(folder).expanduser().absolute() if folder is not None else None
    if project is not None and not project.is_dir():
        raise click.UsageError(f"--project {folder}: there is no such folder. Make one with: taskcenter init {folder}")
    return common.settings(project=project, **given)


@click.command()
@_port
@_prefect_port
@_database
@_project
@_workers
def up(port: int | None, prefect_port: int | None, database: str | None, project: str | None, workers: int) -> int:
    """Start everything on this machine and serve until Ctrl-C: database, Prefect server, service, worker."""
    from taskcenter_console.up import up as start

    chosen = _settings(port=port, prefect_port=prefect_port, database=database, project=project)
    return start(chosen, workers=workers)


@click.command()
@_port
@_prefect_port
@_database
@_project
@_workers
@click.option("--once", is_flag=True, help="Stop after the show instead of serving on.")
def demo(
    port: int | None, prefect_port: int | None, database: str | None, project: str | None, workers: int, once: bool
) -> int:
    """Start with the sample database, show a plan, a run and its result, then serve until Ctrl-C."""
    from taskcenter_console.demo import demo as start

    chosen = _settings(port=port, prefect_port=prefect_port, database=database, project=project)
    return start(chosen, once=once, workers=workers)


@click.command()
@_port
@_project
def serve(port: int | None, project: str | None) -> int:
    """Start the service alone, beside the Prefect server and the database that the settings name."""
    from taskcenter_console.serve import serve as start

    return start(_settings(port=port, project=project))


@click.command()
@output
def doctor(out: Out) -> int:
    """Say what this machine has, what is missing and what to do; exit code 1 when something is missing."""
    from taskcenter_console.doctor import doctor as look

    with common.stdout_kept():
        found = look(common.settings())
    if out.json:
        emit({"items": [{"name": name, "ok": ok, "message": said} for name, ok, said in found]})
    elif out.quiet:
        for name, ok, _ in found:
            if not ok:
                say(name)
    else:
        table(("what", "state", "about"), [[name, mark("ok" if ok else "failed"), said] for name, ok, said in found])
    return 0 if all(ok for _, ok, _ in found) else 1
