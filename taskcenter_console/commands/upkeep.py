"""``publish``, ``db`` and ``reconcile``: keeping Prefect, the tables and the records in agreement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from taskcenter_console.terminal import emit, note, say

from . import common
from .common import Out, output

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["db", "publish", "reconcile"]


@click.command()
@click.option("--check", is_flag=True, help="Say only what would change; exit code 1 when something would.")
@output
def publish(check: bool, out: Out) -> int:
    """Save the composites whose files changed, and make Prefect's deployments those of the saved tasks."""
    from taskcenter_console.services.publishing import publish as carry_out

    with common.open_center() as center, common.stdout_kept():
        done = carry_out(center, common.caller(), write=not check)
    changes = [change for change in done.changes if change.kind != "same"]
    if out.json:
        emit({"applied": not check, "differs": done.differs, **done.to_dict()})
    else:
        for name in done.adopted:
            say(f"save   composite {name}")
        for change in changes:
            say(str(change))
        for one in done.broken:
            note(f"✗ broken file {one.file}: {one.message}")
        if not out.quiet:
            say(_said(len(done.changes), len(changes) + len(done.adopted), check))
    if done.broken:
        return 2
    return 1 if check and done.differs else 0


def _said(count: int, changed: int, check: bool) -> str:
    if not changed:
        return f"● {count} deployments, all as they should be"
    return f"{changed} would change; do it with: taskcenter publish" if check else f"● {changed} changed"


@click.command()
@click.option("--check", is_flag=True, help="Compare all of history and write nothing.")
@output
def reconcile(check: bool, out: Out) -> int:
    """Make the run records agree with Prefect; exit code 1 when a difference stays open."""
    from taskcenter_console.services.reconciling import reconcile as carry_out

    with common.open_center() as center:
        report = carry_out(center, common.caller(), repair=not check)
    if out.json:
        emit(report)
    else:
        for difference in report["differences"]:
            explained = difference["repaired"] or difference["exception"]
            if not (out.quiet and explained):
                say(f"{'●' if explained else '✗'} {difference['text']}")
        if not out.quiet:
            steps = f" and {report['steps']} steps" if check else ""
            say(f"{report['runs']} runs{steps} compared, {report['open']} open differences")
    return 1 if report["open"] else 0


@click.group()
def db() -> None:
    """Look at Task Center's own database and bring it to this version.

    It is the database of the running center, or the one that TASKCENTER_DATABASE_URL names.
    """


def _engine() -> Engine:
    from taskcenter_adapter.database import make_engine
    from taskcenter_adapter.runtime import database_url

    chosen = common.settings()
    common.refuse_remote(chosen)
    return make_engine(database_url(chosen))


def _standing(engine: Engine) -> dict[str, Any]:
    from taskcenter_adapter import database

    revision = database.current(engine)
    return {"database": database.where(engine), "revision": revision, "current": database.check(engine)}


def _say_standing(found: dict[str, Any], out: Out) -> None:
    if out.json:
        emit(found)
    elif out.quiet:
        say(found["revision"] or "none")
    else:
        glyph, word = ("●", "as this version needs it") if found["current"] else ("✗", "not of this version")
        say(f"{glyph} {found['database']}: revision {found['revision'] or 'none'}, {word}")
        if not found["current"]:
            say("  bring it to this version with: taskcenter db upgrade")


@db.command()
@output
def upgrade(out: Out) -> None:
    """Bring the tables to this version; all of it or nothing. Safe to repeat."""
    from taskcenter_console.services import upgrading

    engine = _engine()
    try:
        upgrading.upgrade(engine, common.caller())
        _say_standing(_standing(engine), out)
    finally:
        engine.dispose()


@db.command()
@output
def current(out: Out) -> None:
    """Say at which revision the tables stand."""
    engine = _engine()
    try:
        _say_standing(_standing(engine), out)
    finally:
        engine.dispose()


@db.command()
@output
def check(out: Out) -> int:
    """As current; exit code 1 when the tables are not those of this version."""
    engine = _engine()
    try:
        found = _standing(engine)
    finally:
        engine.dispose()
    _say_standing(found, out)
    return 0 if found["current"] else 1


@db.command()
@click.option("--show-password", is_flag=True, help="Print the password too.")
@output
def url(show_password: bool, out: Out) -> None:
    """Print the address of the database, its password hidden."""
    engine = _engine()
    text = engine.url.render_as_string(hide_password=not show_password)
    engine.dispose()
    if out.json:
        emit({"url": text})
    else:
        click.echo(text)
