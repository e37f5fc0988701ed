"""``taskcenter why``, ``simulate``, ``backtest``, ``ledger``: what holds a task, what would happen, what happened.
(spec 4.4, 4.9)"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from taskcenter_console.terminal import brief, emit, moment, note, say, span, table

from . import common
from .common import Out, output

if TYPE_CHECKING:
    from taskcenter_console.services.lookahead import Simulated

__all__ = ["backtest", "draw_gantt", "ledger", "simulate", "why"]

_MARKS = {"pass": "●", "hold": "✗"}
_COLUMNS = 60


def _now() -> datetime:
    from taskcenter.clock import utc_now

    return utc_now()


@click.command()
@click.argument("task", metavar="TASK")
@click.option("--at", metavar="TIME", help="Another time than now; of a past one the ledger tells.")
@click.option("--trigger", metavar="ID", help="For this one of its triggers; else for the one that is due first.")
@output
def why(task: str, at: str | None, trigger: str | None, out: Out) -> None:
    """Say why a task runs or does not: every gate in order, since when and until when it holds."""
    from taskcenter_console.services import lookahead as service
    from taskcenter_console.services.periods import instant

    when = instant(at, "--at", _now()) if at is not None else None
    with common.open_center() as center:
        found = service.why(center, task, when, trigger)
    if out.json:
        emit(found.to_dict())
    elif out.quiet:
        say(found.answer)
    elif not found.gates:
        say(f"{found.task.slug} at {moment(found.at)}: {found.answer}")
    else:
        say(f"{found.task.slug} at {moment(found.at)}: {found.answer}")
        cells = [
            [f"{_MARKS[gate.verdict]} {gate.name}", gate.verdict, brief(gate.since) if gate.since else "",
             brief(gate.until) if gate.until else "", gate.sentence]
            for gate in found.gates
        ]  # fmt: skip
        table(("gate", "says", "since", "until", "because"), cells)


@click.command()
@click.argument("task", metavar="TASK")
@click.option("--trigger", metavar="ID", help="Only of this one of its triggers.")
@click.option("--since", metavar="TIME", help="Slots from then on.")
@click.option("--until", metavar="TIME", help="Slots up to then.")
@click.option("--verdict", metavar="WORD", help="Only slots that were fired, skipped, coalesced, expired, …")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="The most rows.")
@output
def ledger(
    task: str, trigger: str | None, since: str | None, until: str | None, verdict: str | None, limit: int, out: Out
) -> None:
    """Show what became of every slot of a task, newest first."""
    from taskcenter.errors import Problem, ValidationFailed
    from taskcenter.scheduling.ledger import Verdict
    from taskcenter_console.services import lookahead as service
    from taskcenter_console.services.periods import instant

    words = [word.value for word in Verdict]
    if verdict is not None and verdict not in words:
        said = f"there is no verdict {verdict!r}; there are: {', '.join(words)}"
        raise ValidationFailed("--verdict", [Problem("verdict", "", said)])
    now = _now()
    first, last = (
        instant(text, option, now) if text is not None else None
        for text, option in ((since, "--since"), (until, "--until"))
    )
    with common.open_center() as center:
        owner, rows = service.ledger(
            center, task, trigger=trigger, since=first, until=last, verdict=verdict, limit=limit
        )
    if out.json:
        emit({"task": owner.slug, "items": [row.to_json() for row in rows]})
    elif out.quiet:
        for row in rows:
            say(f"{row.slot.isoformat()} {row.verdict}")
    else:
        cells = [
            [moment(row.slot), f"to {brief(row.until)}, {row.count} slots" if row.until else "", row.verdict,
             (row.run_id or "")[:8] if "-" in (row.run_id or "")[:9] else "", row.reason]
            for row in rows
        ]  # fmt: skip
        table(("slot", "range", "verdict", "run", "because"), cells, empty=f"no slot of {owner.slug} has a verdict")


@click.command()
@click.option("--from", "start", metavar="TIME", help="Where the clock begins. Default: now.")
@click.option("--to", "end", metavar="TIME", help="Where it ends, at most 31 days later. Default: a day later.")
@click.option("--outage", multiple=True, metavar="A-B", help="The service is away (02:00-05:30, +1h-+3h). Repeatable.")
@click.option("--pause", multiple=True, metavar="A-B", help="The scheduler is paused. Repeatable.")
@click.option("--set", "sets", multiple=True, metavar="LIMIT=N",
              help="limit=2 (the pool), task.NAME=1, tag.NAME=1, connection.NAME=1. Repeatable.")  # fmt: skip
@click.option("--seed", type=int, metavar="N", help="Draw durations from the history; without it: the median.")
@click.option("--gantt", is_flag=True, help="Draw the runs of the busiest tasks on a time line.")
@output
def simulate(
    start: str | None, end: str | None, outage: tuple[str, ...], pause: tuple[str, ...], sets: tuple[str, ...],
    seed: int | None, gantt: bool, out: Out,
) -> None:  # fmt: skip
    """Run the whole fleet on a virtual clock. Nothing is written; runs last as long as they did before."""
    from taskcenter_console.services import lookahead as service
    from taskcenter_console.services.periods import instant, period

    first = instant(start, "--from", _now()) if start is not None else _now()
    last = instant(end, "--to", first) if end is not None else None
    with common.open_center() as center:
        found = service.simulate(
            center, first, last, seed=seed, sets=sets,
            outages=[period(text, "--outage", first) for text in outage],
            pauses=[period(text, "--pause", first) for text in pause],
        )  # fmt: skip
    if out.json:
        emit(found.to_dict())
        return
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in found.found.verdicts.items()) or "none"
    if out.quiet:
        say(verdicts)
        return
    _show(found, verdicts, gantt)


def _show(made: Simulated, verdicts: str, gantt: bool) -> None:
    found = made.found
    late = found.lateness
    say(f"{moment(found.start)} to {moment(found.end)}, {made.pool or 'unlimited'} places")
    say(f"  slots: {verdicts}")
    say(f"  misfires {found.misfires}, overlaps {found.overlaps}, still waiting at the end {found.waiting}")
    say(f"  from slot to start: median {_seconds(late['p50'])}, 95 % {_seconds(late['p95'])}, "
        f"most {_seconds(late['max'])}")  # fmt: skip
    if found.occupancy:
        most = max(found.occupancy, key=lambda hour: (hour.peak, hour.mean))
        say(f"  busiest hour: {brief(most.hour)}, {most.peak} runs at once, {most.mean:.1f} in the mean")
    tasks = made.tasks()[:20]
    cells = [[one.task, one.slots, one.runs, one.not_run, _seconds(one.busy_seconds), _seconds(one.most_late)]
             for one in tasks]  # fmt: skip
    table(("task", "slots", "runs", "no run", "busy", "most late"), cells, empty="no trigger has a slot in this time")
    if gantt:
        say()
        for line in draw_gantt(made):
            say(line)


def _seconds(seconds: float) -> str:
    return "0 s" if seconds == 0 else span(seconds * 1000)


def draw_gantt(made: Simulated, most: int = 20, columns: int = _COLUMNS) -> list[str]:
    """A line for each of the busiest tasks: ``█`` where a run goes, ``░`` where one waits."""
    found = made.found
    names = [one.task for one in made.tasks()[:most]]
    width = max(map(len, names), default=0)
    step = (found.end - found.start) / columns
    lines: dict[str, list[str]] = {name: [" "] * columns for name in names}
    for run in found.runs:
        line = lines.get(made.name(run.task_id))
        if line is None:
            continue
        started, ended = run.started or found.end, run.ended or found.end
        for since, until, sign in ((run.due, started, "░"), (started, ended, "█")):
            if until <= since:
                continue
            first = max(0, int((since - found.start) / step))
            last = min(columns - 1, int((until - found.start) / step))
            for column in range(first, last + 1):
                if line[column] != "█":
                    line[column] = sign
    scale = f"{'':{width}}  {brief(found.start):<{columns // 2}}{brief(found.end):>{columns - columns // 2}}"
    return [*(f"{name:{width}}  {''.join(line)}".rstrip() for name, line in lines.items()), scale]


@click.command()
@click.option("--days", type=float, default=30, show_default=True, help="How far back.")
@output
def backtest(days: float, out: Out) -> None:
    """Replay the past and say how many verdicts the simulation would have told. Ends with 1 when one differs."""
    from taskcenter_console.services import lookahead as service

    with common.open_center() as center:
        made = service.backtest(center, days)
    found = made.found
    if out.json:
        emit(made.to_dict())
    elif out.quiet:
        say(f"{found.agreement:.3f}")
    else:
        say(f"{moment(made.start)} to {moment(made.end)}: {found.agreed} of {found.compared} verdicts agree "
            f"({found.agreement:.2f} %)")  # fmt: skip
        if found.durations is not None:
            one = found.durations
            say(f"  durations of {one.count} runs: {one.mean_seconds:.1f} s off in the mean, "
                f"{one.median_percent:.0f} % in the median")  # fmt: skip
        cells = [
            [made.names.get(one.trigger_id, one.trigger_id), moment(one.slot), one.recorded or "nothing",
             one.replayed or "nothing"]
            for one in found.differences[:50]
        ]  # fmt: skip
        if cells:
            table(("task", "slot", "recorded", "replayed"), cells)
        if len(found.differences) > len(cells):
            note(f"{len(found.differences) - len(cells)} more differ; --json lists a hundred")
    if found.differences:
        raise SystemExit(1)
