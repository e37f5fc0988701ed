"""``taskcenter retention``: how long history is kept, what would go, and letting it go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from taskcenter_console.terminal import emit, moment, note, say, table

from . import common
from .common import Out, output

if TYPE_CHECKING:
    from retention.policy import Policy
    from taskcenter_console.services.center import Center

__all__ = ["retention"]

_WORDS = {
    "deletedRunLogs": "log lines",
    "deletedRuns": "runs",
    "deletedStepRuns": "step runs",
    "deletedAuditLogs": "audit entries",
    "deletedLedgerRows": "ledger rows",
    "deletedRunRequests": "requests for runs",
    "deletedFirings": "used requests that a trigger fire",
    "deletedEvents": "events",
    "deletedPrefectRuns": "runs in Prefect",
    "deletedFiles": "folders of killed runs",
}


@click.group()
def retention() -> None:
    """How long history is kept. What is older goes once an hour while the scheduler runs, or when you say so."""


@retention.command()
@output
def show(out: Out) -> None:
    """Show the policy."""
    from taskcenter_console.services import retaining

    with common.open_center() as center:
        _say_policy(center, retaining.policy(center), out)


def _say_policy(center: Center, policy: Policy, out: Out) -> None:
    from taskcenter_console.services import holding

    found = policy.to_json()
    if out.json:
        emit(found)
        return
    if out.quiet:
        say(str(found["days"]))
        return
    own = {name: value for name, value in found.items() if name not in ("rules", "holds", "prefect", "days")}
    say(f"history is kept for {found['days']} days" + ("" if found["prefect"] else "; runs in Prefect stay"))
    for name, value in own.items():
        if value:
            say(f"  {name} {value}")
    for rule in found["rules"]:
        subject = f"task {rule['task']}" if rule["task"] else f"tag {rule['tag']}"
        rest = ", ".join(f"{name} {value}" for name, value in rule.items() if value and name not in ("task", "tag"))
        say(f"  {subject}: {rest}")
    for hold in policy.holds:
        say(f"  ‖ legal hold on {holding.words(center, hold)}{': ' + hold.note if hold.note else ''}")


_DAYS = click.IntRange(1, 3650)


@retention.command("set")
@click.argument("days", type=_DAYS, required=False, metavar="[DAYS]")
@click.option("--success-days", type=_DAYS, metavar="N", help="Runs that succeeded.")
@click.option("--failed-days", type=_DAYS, metavar="N", help="Runs that failed.")
@click.option("--cancelled-days", type=_DAYS, metavar="N", help="Runs that were cancelled.")
@click.option("--audit-days", type=_DAYS, metavar="N", help="Entries of the audit.")
@click.option("--ledger-days", type=_DAYS, metavar="N", help="Verdicts on slots, and requests for runs.")
@click.option("--event-days", type=_DAYS, metavar="N", help="Events of the outbox.")
@click.option("--keep-last", type=click.IntRange(0, 10_000), metavar="N", help="Runs of each task kept at any age.")
@click.option("--prefect/--no-prefect", default=None, help="Purge the runs along that Prefect keeps.")
@click.option("--unset", multiple=True, metavar="FIELD", help="Put a field back to its default. Repeatable.")
@click.option(
    "--rule",
    "rules",
    multiple=True,
    metavar="JSON",
    help='Days of a task or tag: {"tag": "nightly", "failedDays": 365}. Repeatable; replaces all rules.',
)
@click.option("--hold", multiple=True, metavar="NAME", help="Legal hold on a task, or on a run (run:ID). Repeatable.")
@click.option("--release", multiple=True, metavar="NAME", help="Take a legal hold off. Repeatable.")
@click.option("--note", "why", default="", metavar="TEXT", help="Why the hold is put on.")
@output
def set_policy(
    days: int | None, unset: tuple[str, ...], rules: tuple[str, ...], hold: tuple[str, ...], release: tuple[str, ...],
    why: str, out: Out, **given: Any,
) -> None:  # fmt: skip
    """Change the policy: DAYS for everything that has no days of its own, 1 to 3650. What is not named stays."""
    from taskcenter_console.services import retaining

    changes = {name: value for name, value in {"days": days, **given}.items() if value is not None}
    changes |= dict.fromkeys(name.replace("-", "_") for name in unset)
    if rules:
        changes["rules"] = [common.read_object(text, "--rule") for text in rules if text.strip()]
    with common.open_center() as center:
        made = retaining.set_policy(center, changes, common.caller(), hold=hold, release=release, note=why)
        _say_policy(center, made, out)


@retention.command()
@click.option("--days", type=_DAYS, metavar="N", help="As if the policy kept so many days.")
@output
def preview(days: int | None, out: Out) -> None:
    """Say what a purge would delete now; nothing is deleted."""
    from taskcenter_console.services import retaining

    with common.open_center() as center:
        found = retaining.preview(center, days)
    if out.json:
        emit({name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in found.items()})
        return
    _say_counts(found, out)
    if not out.quiet:
        say(f"about {found['bytes'] / 1e6:,.1f} MB; older than {moment(found['cutoffAt'])}")
        for name, words in (("oldestLogKept", "log line"), ("oldestRunKept", "run"), ("oldestAuditKept", "entry")):
            if found[name]:
                say(f"oldest {words} that stays: {moment(found[name])}")


@retention.command()
@click.option("--days", type=_DAYS, metavar="N", help="For this purge only: other days than the policy's.")
@output
def purge(days: int | None, out: Out) -> None:
    """Delete what the policy does not keep, now. Safe while everything runs; Ctrl-C leaves the rest for the next."""
    from taskcenter_console.services import retaining

    with common.open_center() as center:
        found = retaining.purge(center, common.caller(), days)
    if out.json:
        emit(found)
        return
    _say_counts(found, out)
    if not out.quiet:
        say(f"● purged in {found['seconds']:.1f} s; history is kept from {moment(found['cutoffAt'])} on")
    for text in found["notes"]:
        note(text)


def _say_counts(found: dict[str, Any], out: Out) -> None:
    if out.quiet:
        say(str(sum(found.get(name, 0) for name in _WORDS)))
    else:
        table(("what", "rows"), [[words, found[name]] for name, words in _WORDS.items() if name in found])
