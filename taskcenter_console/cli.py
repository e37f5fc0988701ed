"""The command line ``taskcenter``: which commands there are, and what becomes of an error. (spec 7.3)

A command's module is imported when the command is used and not before, so that ``--help`` costs almost nothing;
the commands themselves import the services inside their functions for the same reason.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from taskcenter.errors import TaskCenterError

__all__ = ["SECTIONS", "cli", "main"]

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Start": {
        "up": ("starting:up", "Start everything on this machine and serve until Ctrl-C."),
        "demo": ("starting:demo", "Start with the sample database and show a plan, runs and results."),
        "serve": ("starting:serve", "Start the service alone, beside a Prefect server of your own."),
        "doctor": ("starting:doctor", "Say what this machine has, what is missing and what to do."),
        "init": ("starter:init", "Make a starter project in a folder."),
    },
    "Define": {
        "task": ("tasks:task", "Create, list, change, import and export tasks."),
        "composite": ("composites:composite", "List, check, plan, show and render composites."),
        "trigger": ("triggers:trigger", "When tasks fire: add, change, pause and remove triggers."),
        "secret": ("secrets:secret", "Values that tasks use by name, encrypted and never shown."),
        "calendar": ("scheduling:calendar", "Named calendars: days on which triggers may fire, or not."),
        "publish": ("upkeep:publish", "Make Prefect's deployments those of the saved tasks."),
    },
    "Run": {
        "plan": ("planning:plan", "Say what a run would do, step by step; nothing is executed."),
        "run": ("running:run", "Run a task and watch it."),
        "runs": ("runs:runs", "List runs, show one, read its log, cancel, hold or repeat it."),
        "batch": ("batch:batch", "Batches of runs: list, show, cancel."),
        "queue": ("queue:queue", "What waits for a worker, and who goes first."),
    },
    "Schedule": {
        "scheduler": ("scheduling:scheduler", "The scheduler: its state, who leads, pause and resume it."),
        "why": ("lookahead:why", "Say why a task runs or does not: every gate, and which one holds."),
        "ledger": ("lookahead:ledger", "What became of every slot of a task."),
        "simulate": ("lookahead:simulate", "The whole fleet on a virtual clock, with an outage or other limits."),
        "backtest": ("lookahead:backtest", "Replay the past and say how well it is told."),
        "fire": ("triggers:fire", "Fire an ad_hoc trigger."),
        "backfill": ("triggers:backfill", "Run slots of the past: first the dates, then the runs."),
    },
    "Look after": {
        "snapshot": ("snapshots:snapshot", "Kept structures of databases, and what changed between two."),
        "stats": ("stats:stats", "Numbers about runs: counts, durations, failures."),
        "workers": ("queue:workers", "Who executes: workers and their processes."),
        "db": ("upkeep:db", "Look at Task Center's own database and bring it to this version."),
        "redact": ("redacting:redact", "Show what redaction makes of a text."),
        "reconcile": ("upkeep:reconcile", "Make the run records agree with Prefect."),
        "retention": ("retention:retention", "How long history is kept: show, set, preview, purge."),
        "audit": ("audit:audit", "Who did what: list, show, export and verify."),
    },
}
"""Section → command → (module:attribute, one line for ``--help``)."""

_COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}
_EPILOG = (
    "Exit codes: 0 ok, 1 a run failed or a check found differences, 2 usage, 3 not found, 4 refused, 5 server away."
)
_UNEXPECTED = 70
_INTERRUPTED = 130


class _Lazy(click.Group):
    """The root of all commands: it knows their names, and loads one when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"taskcenter_console.commands.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            raise click.exceptions.NoSuchCommand(name, possibilities=_COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(10), text) for name, (_, text) in commands.items()])

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> Any:
        """Run, and end the process with the documented exit code; an error becomes a sentence on stderr."""
        given = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        as_json = "--json" in (given[: given.index("--")] if "--" in given else given)
        sys.exit(_guarded(lambda: super(_Lazy, self).main(given, *more, **extra), as_json))


def _guarded(call: Any, as_json: bool) -> int:
    try:
        code = call()
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        _silence()
        return 1
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except click.ClickException as error:
        if not as_json:
            error.show()
            return 2
        return _fail("usage", error.format_message(), 2, as_json=True)
    except TaskCenterError as error:
        _note_refusal(error)
        problems = [problem.to_dict() for problem in getattr(error, "problems", ())]
        return _fail(error.code, error.message, error.exit_code, problems, as_json)
    except OSError as error:
        if error.filename is None:
            return _unexpected(error, as_json)
        _trace(error)
        return _fail("file", f"{error.filename}: {error.strerror or error}", 2, as_json=as_json)
    except RecursionError:
        return _fail("too_deep", "what was given is nested too deeply", 2, as_json=as_json)
    except Exception as error:  # whatever else it is, a user gets a sentence and a way to the trace
        return _unexpected(error, as_json)


def _note_refusal(error: TaskCenterError) -> None:
    """That a rule said no stands in the audit of the center that was asked, if one is there to keep it."""
    from taskcenter.errors import Refused

    if isinstance(error, Refused):
        from .commands.common import note_refusal

        note_refusal(error)


def _unexpected(error: Exception, as_json: bool) -> int:
    _trace(error)
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    hint = "This is a defect of Task Center. Run it again with TASKCENTER_DEBUG=1 for the trace."
    return _fail("unexpected", f"{said}\n{hint}", _UNEXPECTED, as_json=as_json)


def _trace(error: BaseException) -> None:
    if os.environ.get("TASKCENTER_DEBUG"):
        import traceback

        from taskcenter.redaction import redact_text

        click.echo(redact_text("".join(traceback.format_exception(error))), err=True, nl=False)


def _fail(
    code: str, message: str, exit_code: int, problems: Sequence[dict[str, str]] = (), as_json: bool = False
) -> int:
    """Write the error, without secrets, to stderr."""
    from taskcenter.redaction import redact, redact_text

    from .terminal import clean, to_json

    if as_json:
        error = {"code": code, "message": redact_text(message), "problems": redact(list(problems))}
        click.echo(to_json({"error": error}), err=True)
    else:
        click.echo(f"{click.style('error:', fg='red')} {clean(redact_text(message), lines=True)}", err=True)
    return exit_code


def _silence() -> None:
    """The reader of our output is gone: nothing more can be said, also not by the interpreter as it ends."""
    with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=_Lazy, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="taskcenter", prog_name="taskcenter")
def cli() -> None:
    """Task Center: jobs against databases and servers, planned before they run, explained while they run,
    remembered after."""


def main() -> NoReturn:
    """The entry point of the distribution."""
    # A short command makes little but imported modules. Searching those for garbage, again and again and once more
    # at the end, would be a quarter of its time.
    gc.set_threshold(50_000, 20, 20)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name in another alphabet is no reason to fail
    try:
        cli.main(prog_name="taskcenter")
    finally:
        gc.freeze()
    raise SystemExit(0)
