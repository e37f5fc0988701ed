"""What the command line prints: tables, JSON, states, times. Rich on a terminal, aligned plain text elsewhere."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from taskcenter.clock import utc_now

if TYPE_CHECKING:
    from composites.model import CompositeSpec
    from composites.plan import Plan

__all__ = [
    "brief",
    "clean",
    "emit",
    "heading",
    "is_terminal",
    "mark",
    "moment",
    "note",
    "say",
    "show_plan",
    "span",
    "style_of",
    "table",
    "to_json",
]

GLYPHS: Mapping[str, str] = {
    "success": "●", "failed": "✗", "skipped": "○", "running": "▶", "pending": "·", "queued": "·",
    "cancelled": "■", "active": "●", "paused": "‖", "disabled": "○",
    "ok": "●", "create": "+", "update": "~", "delete": "-", "same": "=", "refused": "✗",
}  # fmt: skip
"""Beside every colour stands a glyph and the word itself."""
STYLES: Mapping[str, str] = {
    "success": "green", "failed": "red", "skipped": "bright_black", "running": "cyan", "cancelled": "yellow",
    "active": "green", "paused": "yellow", "disabled": "bright_black", "ok": "green",
    "create": "green", "update": "yellow", "delete": "red", "refused": "red",
}  # fmt: skip

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


_KEPT = 16
"""Columns of cells up to this long are not broken into lines."""


def is_terminal() -> bool:
    """Whether a person looks at stdout."""
    try:
        return sys.stdout.isatty()
    except ValueError:
        return False


def clean(text: str, *, lines: bool = False) -> str:
    """Text that cannot command the terminal: escape sequences go, other control characters are drawn.

    ``lines``: keep line ends; otherwise they become ``⏎``.
    """
    text = _ESCAPES.sub("", text).replace("\r\n", "\n").replace("\t", "    ")
    if not lines:
        text = text.rstrip("\n").replace("\n", " ⏎ ")
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def to_json(data: Any) -> str:
    """Indented JSON; plain ASCII where stdout cannot hold more."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
    return json.dumps(data, indent=2, ensure_ascii=not encoding.startswith("utf"), default=str)


def emit(data: Any) -> None:
    """The one JSON document of a command, to stdout."""
    click.echo(to_json(data))


def say(text: str = "") -> None:
    click.echo(clean(text, lines=True))


def heading(text: str) -> None:
    """A title over what follows."""
    say()
    click.secho(clean(text), bold=True)
    say("─" * min(len(text), 100))


def note(text: str) -> None:
    """A remark beside the data, to stderr."""
    click.echo(clean(text, lines=True), err=True)


def mark(state: str | None) -> str:
    """``● success``: glyph and word; the table adds the colour."""
    return f"{GLYPHS.get(state, '?')} {state}" if state else "-"


def moment(value: datetime | str | None) -> str:
    """A time in this machine's zone, to the second."""
    if value is None:
        return "-"
    when = datetime.fromisoformat(value) if isinstance(value, str) else value
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def brief(value: datetime | str | None) -> str:
    """A time for a table: the time of day when it is today, else the day and the minute."""
    text = moment(value)
    today = moment(utc_now())[:10]
    return text[11:] if text[:10] == today else text[:16]


def span(milliseconds: float | None) -> str:
    """``350 ms``, ``2.5 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if milliseconds is None:
        return "-"
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def style_of(cell: str) -> str:
    """The colour of a cell that is a state; none for any other text."""
    glyph, _, word = cell.partition(" ")
    return STYLES.get(word, "") if GLYPHS.get(word) == glyph else ""


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str = "nothing") -> None:
    """Rows under headings; ``empty`` is said on stderr when there is none."""
    cells = [[clean("-" if cell is None or cell == "" else str(cell)) for cell in row] for row in rows]
    if not cells:
        note(empty)
    elif is_terminal():
        _rich_table(columns, cells)
    else:
        widths = [max(len(row[i]) for row in [list(columns), *cells]) for i in range(len(columns))]
        for row in [[name.upper() for name in columns], *cells]:
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _rich_table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold underline")
    for index, name in enumerate(columns):
        short = max(len(row[index]) for row in cells) <= _KEPT
        drawn.add_column(name, overflow="fold", no_wrap=short)
    for row in cells:
        drawn.add_row(*(Text(cell, style=style_of(cell)) for cell in row))
    Console(highlight=False).print(drawn)


def show_plan(plan: Plan, spec: CompositeSpec, form: str = "tree") -> None:
    """A plan as a tree, Mermaid, DOT or JSON."""
    from composites.render import render_plan

    say(render_plan(plan, form, spec))
