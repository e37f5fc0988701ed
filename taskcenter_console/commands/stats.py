"""``taskcenter stats``: numbers about runs."""

from __future__ import annotations

from typing import Any

import click

from taskcenter_console.terminal import emit, say, span, table

from . import common
from .common import Out, output
from .running import parse_time

__all__ = ["stats"]


@click.command()
@click.option("--task", metavar="TASK", help="Only runs of this task.")
@click.option("--tag", metavar="TAG", help="Only runs of tasks with this tag.")
@click.option("--since", metavar="ISO", help="From this time on. Default: 30 days before the end.")
@click.option("--until", metavar="ISO", help="Before this time. Default: now.")
@click.option("--by", type=click.Choice(["task", "tag", "day"]), help="Beside the whole, each of its parts.")
@click.option("--timezone", default="UTC", show_default=True, metavar="ZONE", help="Of days and hours.")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@output
def stats(
    task: str | None,
    tag: str | None,
    since: str | None,
    until: str | None,
    by: Any,
    timezone: str,
    as_csv: bool,
    out: Out,
) -> None:
    """Count runs and say how long they took and waited, why they failed and when they are busy."""
    from taskcenter_console.services import statistics as service

    with common.open_center() as center:
        found = service.numbers(center, task=task, tag=tag, since=parse_time(since, "--since"),
                                until=parse_time(until, "--until"), by=by, timezone=timezone)  # fmt: skip
    if out.json:
        emit(found)
        return
    if as_csv or out.quiet:
        say(service.as_csv(found).rstrip("\n"))
        return
    say(f"runs from {found['since'][:19]} to {found['until'][:19]} UTC")
    rows = [_row(row) for row in ({"key": "all", **found}, *found["parts"])]
    table(("", "runs", "ok", "failed", "cancelled", "open", "rate", "p50", "p95", "p99", "waits p95"), rows)
    for item in found["failures"]:
        say(f"{item['count']:5d} × {item['reason']}")


def _row(row: dict[str, Any]) -> list[Any]:
    waiting = row["queued"] + row["running"] + row["paused"]
    took = [span(row["durationMs"][share]) for share in ("p50", "p95", "p99")]
    rate = f"{row['successRate']:.0%}" if row["completed"] + row["failed"] else "-"
    return [row["key"], row["total"], row["completed"], row["failed"], row["cancelled"], waiting, rate, *took,
            span(row["waitMs"]["p95"])]  # fmt: skip
