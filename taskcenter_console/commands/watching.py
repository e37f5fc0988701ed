"""Watching a run from outside: live lines on a terminal, plain ones elsewhere. It only reads."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from taskcenter.clock import utc_now
from taskcenter.progress import outlook
from taskcenter_console.terminal import GLYPHS, STYLES, clean, say, span

if TYPE_CHECKING:
    from taskcenter.models import LogLine, Run, StepRun
    from taskcenter_console.services.center import Center

__all__ = ["summary", "watch"]

_EVERY = 0.25
_PATIENCE = 8.0
"""Seconds a run may wait before we say what it may be waiting for."""
_TOLD = ("success", "failed", "skipped", "running")
_SHOWN = 8
"""How many running steps are drawn at once."""


@dataclass
class _Seen:
    """What was said already, so that every change is said once."""

    status: dict[str, str] = field(default_factory=dict)
    log: int = -1
    run: str = ""
    asked: bool = False
    progress: dict[str | None, LogLine] = field(default_factory=dict)


Say = Callable[[str, str], None]
"""Takes a line and the state it is about."""


def watch(center: Center, run_id: str, *, live: bool, lines: bool = False) -> Run:
    """Show a run until it is over, and give it. ``lines``: show its log too."""
    seen = _Seen()
    begin = time.monotonic()
    with _screen(live) as screen:
        while True:
            started = time.monotonic()
            run, steps = _look(center, run_id, seen, screen, lines)
            if run.status.value not in ("queued", "running"):
                break
            if run.status.value == "queued" and time.monotonic() - begin > _PATIENCE:
                _say_waiting(center, seen, screen)
            screen.draw(run, steps, seen)
            # A composite with thousands of steps costs its database little that way.
            time.sleep(max(_EVERY, 4 * (time.monotonic() - started)))
    say(summary(run, steps))
    return run


def _look(center: Center, run_id: str, seen: _Seen, screen: _Plain, lines: bool) -> tuple[Run, list[StepRun]]:
    from taskcenter_console.services import runs as service

    run = service.get(center, run_id)  # before its steps: the last look then has all of them
    steps = service.steps(center, run_id)
    if seen.run != run.status.value:
        seen.run = run.status.value
        if seen.run in ("queued", "running"):
            screen.say(f"run {run.task_slug} {run.name} ({run.id[:8]}) {seen.run}", seen.run)
    for step in steps:
        before, seen.status[step.step_key] = seen.status.get(step.step_key), step.status.value
        if step.status.value != before and step.status.value not in ("pending", before):
            screen.say(_step_line(step), step.status.value)
    while found := service.logs(center, run_id, after=seen.log):
        for line in found:
            if line.stream == "progress":
                seen.progress[line.step_key] = line
            elif lines:
                screen.say(line.message, "")
        seen.log = found[-1].sequence
    return run, steps


def _step_line(step: StepRun) -> str:
    took = f"  {span(step.duration_ms)}" if step.duration_ms is not None else ""
    tries = f"  after {step.attempts} tries" if step.attempts > 1 else ""
    reused = "  reused" if step.reused else ""
    why = step.error or step.reason if step.status.value in ("failed", "skipped") else None
    return f"{step.step_key}  {step.status.value}{took}{tries}{reused}" + (f": {why}" if why else "")


def _say_waiting(center: Center, seen: _Seen, screen: _Plain) -> None:
    from taskcenter_console.services import runs as service

    if seen.asked:
        return
    seen.asked = True
    online = service.workers_online(center)
    if online is None:
        screen.say("still queued: the Prefect server does not answer. Start it with: taskcenter up", "queued")
    elif online == 0:
        screen.say("still queued: no worker is online. Start one with: taskcenter up", "queued")
    else:
        screen.say(f"still queued: {online} worker(s) online, busy or about to take it", "queued")


def summary(run: Run, steps: list[StepRun]) -> str:
    """How a run ended, in a line or two."""
    counts = Counter(step.status.value for step in steps if "[" not in step.step_key)
    told = ", ".join(f"{counts[name]} {name}" for name in _TOLD if counts[name])
    head = f"{GLYPHS[run.status.value]} {run.status.value}: {run.task_slug} {run.name} ({run.id[:8]})"
    tail = "".join(f", {part}" for part in (span(run.duration_ms) if run.duration_ms is not None else "", told) if part)
    said = run.error or run.message
    return head + tail + (f"\n  {said}" if said else "")


class _Plain:
    """One line per change, with the time."""

    def say(self, text: str, state: str) -> None:
        glyph = f"{GLYPHS[state]} " if state in GLYPHS else ""
        say(f"{utc_now().astimezone():%H:%M:%S} {glyph}{clean(text)}" if state else text)

    def draw(self, run: Run, steps: list[StepRun], seen: _Seen) -> None:
        """Nothing moves here."""


class _Live(_Plain):
    """The same lines above, and below them what runs right now."""

    def __init__(self, live: Any) -> None:
        self._live = live

    def say(self, text: str, state: str) -> None:
        from rich.text import Text

        glyph = f"{GLYPHS[state]} " if state in GLYPHS else ""
        self._live.console.print(Text(glyph, style=STYLES.get(state, "")) + Text(clean(text, lines=not state)))

    def draw(self, run: Run, steps: list[StepRun], seen: _Seen) -> None:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        top = [step for step in steps if "[" not in step.step_key]
        counts = Counter(step.status.value for step in top)
        ended = len(top) - counts["running"] - counts["pending"]
        now = utc_now()
        rows = Table.grid(padding=(0, 1))
        head = f"{run.status.value} {_since(run.started_at or run.created_at, now)}"
        told = "  ".join(
            f"{GLYPHS[k]} {counts[k]} {k}" for k in ("success", "failed", "skipped", "running") if counts[k]
        )
        bar = (
            ProgressBar(total=len(top), completed=ended, width=24)
            if top
            else Text(_percent(seen, None, run.started_at, now))
        )
        rows.add_row(Spinner("dots"), Text(head), bar, Text(told))
        running = [step for step in steps if step.status.value == "running"]
        below = [
            Text(f"  ▶ {clean(step.step_key)}  {step.task_type}  {_since(step.started_at, now)}"
                 f"  {_percent(seen, step.step_key, step.started_at, now)}".rstrip(),
                 style="cyan", no_wrap=True, overflow="ellipsis")
            for step in running[:_SHOWN]
        ]  # fmt: skip
        if len(running) > _SHOWN:
            below.append(Text(f"  and {len(running) - _SHOWN} more"))
        self._live.update(Group(rows, *below))


def _since(start: datetime | None, now: datetime) -> str:
    return span((now - start).total_seconds() * 1000) if start else ""


def _percent(seen: _Seen, key: str | None, start: datetime | None, now: datetime) -> str:
    """The last report, and what is left at the rate so far."""
    line = seen.progress.get(key)
    if line is None:
        return ""
    ahead = outlook((line.metadata or {}).get("percent"), start, now)
    left = f", {span(ahead.left[0] * 1000)} left" if ahead.left and ahead.left[0] else ""
    return clean(line.message) + left


@contextmanager
def _screen(live: bool) -> Iterator[_Plain]:
    if not live:
        yield _Plain()
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(highlight=False), refresh_per_second=8, transient=True) as display:
        yield _Live(display)
