"""The reference pages in ``docs/`` that are made from the code: ``python -m taskcenter_console.docs``.

A test compares the committed pages with these functions, so that no state, event or setting is undocumented.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from taskcenter.events import EVENTS
from taskcenter.reasons import Reason, ReasonCode
from taskcenter.settings import VARIABLES
from taskcenter.status import RUN_TRANSITIONS, STEP_TRANSITIONS, RunPhase, RunStatus, StepStatus, TaskStatus, sentence
from taskcenter_adapter.mapping import RUN_STATES, STEP_STATES

__all__ = ["PAGES", "write"]

FOLDER = Path(__file__).resolve().parent.parent / "docs"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [" | ".join(head), " | ".join("---" for _ in head), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)


def _next(state: StrEnum, after: frozenset[StrEnum], order: type[StrEnum]) -> str:
    return ", ".join(f"`{s}`" for s in order if s in after) or "– (final)"


def lifecycle() -> str:
    """States of tasks, runs and steps, each with its sentence, and Prefect's states in our words."""
    runs: list[tuple[str, ...]] = [(f"`{s}`", sentence(s), _next(s, RUN_TRANSITIONS[s], RunStatus)) for s in RunStatus]
    steps: list[tuple[str, ...]] = [
        (f"`{s}`", sentence(s), _next(s, STEP_TRANSITIONS[s], StepStatus)) for s in StepStatus
    ]
    phases: list[tuple[str, ...]] = [(f"`{p}`", sentence(p)) for p in RunPhase]
    tasks: list[tuple[str, ...]] = [(f"`{t}`", sentence(t)) for t in TaskStatus]
    mapped: list[tuple[str, ...]] = [
        (kind, name or "any other", f"`{status}`", f"`{phase}`" if phase else "")
        for (kind, name), (status, phase) in RUN_STATES.items()
    ]
    mapped_steps: list[tuple[str, ...]] = [(kind, f"`{status}`") for kind, status in STEP_STATES.items()]
    reasons: list[tuple[str, ...]] = [
        (f"`{code}`", str(Reason(code, "a", "failed", "success", "b"))) for code in ReasonCode
    ]
    return "\n\n".join(
        [
            "# Lifecycles",
            "Made from `taskcenter/status.py`, `taskcenter/reasons.py` and `taskcenter_adapter/mapping.py`.",
            "## A task",
            _table(("status", "meaning"), tasks),
            "## A run",
            "One row per attempt; attempts of one root share `rootRunId`. A final state is never overwritten by a late "
            "report.",
            _table(("status", "meaning", "next"), runs),
            "Beside the status stands a phase, which says it more finely and decides nothing:",
            _table(("phase", "meaning"), phases),
            "## A step",
            "One row per run and step; the items of a mapped step have rows of their own (`count[0]`, `count[1]`, …).",
            _table(("status", "meaning", "next"), steps),
            "## Why a step was skipped",
            "Reasons are codes with data; this is how they read (for steps `a` → `b`):",
            _table(("code", "sentence"), reasons),
            "## Prefect's states in our words",
            _table(("flow run type", "name", "status", "phase"), mapped),
            _table(("task run type", "step status"), mapped_steps),
        ]
    )


def events() -> str:
    """The events of the outbox as a table."""
    rows: list[tuple[str, ...]] = [
        (f"`{name}`", ", ".join(f"`{field}`" for field in fields)) for name, fields in EVENTS.items()
    ]
    return "\n\n".join(
        [
            "# Events",
            "Each event is a row of `outbox_events`, written in the transaction of the change it tells of, and is "
            "given out in that order. Texts are redacted before they are stored. `GET /api/events` lists them.",
            _table(("event", "payload"), rows),
        ]
    )


def settings() -> str:
    """The environment variables that are read."""
    rows: list[tuple[str, ...]] = [(f"`{name}`", text) for name, text in VARIABLES.items()]
    return "\n\n".join(
        [
            "# Settings",
            "Read from the environment once, when a process starts. A value of the wrong kind is refused by name.",
            _table(("variable", "meaning"), rows),
        ]
    )


def commands() -> str:
    """Every command with its options and the exit codes."""
    from .commands.reference import page

    return page().rstrip("\n")


PAGES = {"lifecycle.md": lifecycle, "events.md": events, "settings.md": settings, "cli.md": commands}


def write() -> None:
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page() + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
