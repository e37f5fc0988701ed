"""Writes ``docs/cli.md`` from the commands themselves: ``python -m taskcenter_console.commands.reference``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from taskcenter_console.cli import SECTIONS, cli

__all__ = ["FILE", "commands", "page"]

FILE = Path(__file__).parents[2] / "docs" / "cli.md"

_HEAD = """\
# The command line

Made from the commands themselves with `python -m taskcenter_console.commands.reference`; a test compares.

Where the center is comes from the environment (see [settings](settings.md)); a center that runs on this machine for
the same `TASKCENTER_HOME` is found by itself. With `TASKCENTER_API_URL` set, commands that need a center refuse: this
command line does not speak to a remote service yet.

## What every command does alike

- On a terminal there are tables, colours and live progress; elsewhere aligned plain text without escape sequences.
  A state is always a glyph and a word, never a colour alone. `NO_COLOR=1` switches colours off.
- `--json` prints one JSON document to stdout and nothing else there; lists stand under `items`. (`runs logs --json`
  prints one object per line.) Times are UTC in JSON, and in this machine's zone otherwise.
- `-q` prints only names, ids or hashes, one per line.
- Problems go to stderr: a sentence that says what, where and what to do, without secrets. With `--json` they are
  `{"error": {"code", "message", "problems": [{"code", "path", "message", "severity"}]}}`.
- `KEY=VALUE` takes the value as JSON when it reads as such and as text otherwise: `--set limit=5` is a number,
  `--set 'code="5"'` a text. Dots go deeper: `--set headers.Accept=text/plain`.
- A time without an offset is UTC; `task create --at … --timezone ZONE` reads it in that zone.
- Questions are asked only when stdin and stdout are a terminal, and never with `--json` or `-q`.

## Exit codes

| code | meaning |
| --- | --- |
| 0 | all went well |
| 1 | a run failed or was cancelled, or a check found differences |
| 2 | the command, a value, a file or a setting is not valid; nothing was stored |
| 3 | what was named does not exist |
| 4 | refused by a rule, or somebody else changed it in between; nothing was changed |
| 5 | a server that is needed does not answer |
| 70 | a defect of Task Center; `TASKCENTER_DEBUG=1` shows the trace |
| 130 | Ctrl-C. A run that was being watched goes on |

When the reader of the output goes away (`taskcenter runs logs … | head`), the command ends quietly with 1.

## Completion in the shell

    eval "$(_TASKCENTER_COMPLETE=bash_source taskcenter)"     # ~/.bashrc
    eval "$(_TASKCENTER_COMPLETE=zsh_source taskcenter)"      # ~/.zshrc
    _TASKCENTER_COMPLETE=fish_source taskcenter | source      # ~/.config/fish/completions/taskcenter.fish

## Examples

    taskcenter composite check composites/*.py
    taskcenter plan nightly-sales --set since=2025-06-01
    taskcenter run nightly-sales --plan "$(taskcenter plan nightly-sales -q)"
    taskcenter run nightly-sales --skip alarm --step-set copy_daily_sales.timeoutSeconds=60
    taskcenter run fails-midway --resume 5520e40e --mode from --step load
    taskcenter task create --name "Orders report" --type sql_script --set connection=sample \\
        --set 'sql=select count(*) from orders' --cron '0 6 * * 1-5' --timezone Europe/Berlin
    taskcenter runs list --status failed --json | jq -r '.items[].id'
    taskcenter runs logs -f 5520e40e

# Commands
"""


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by what a user types, groups before what is in them."""
    root = click.Context(cli, info_name="taskcenter")
    for section in SECTIONS.values():
        for name in section:
            command = cli.get_command(root, name)
            assert command is not None
            yield from _within(name, command)


def _within(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for inner in sorted(command.commands):
            yield from _within(f"{name} {inner}", command.commands[inner])


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join([_HEAD, *(_section(name, command) for name, command in commands())]).rstrip()


def _section(name: str, command: click.Command) -> str:
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    options = [p for p in command.params if isinstance(p, click.Option)]
    usage = " ".join(["taskcenter", name, *(_usage(argument) for argument in arguments)])
    tail = " COMMAND" if isinstance(command, click.Group) else " [OPTIONS]" if options else ""
    lines = [f"## {name}", "", f"    {usage}{tail}", "", inspect.cleandoc(command.help or ""), ""]
    if options:
        lines += ["| option | meaning |", "| --- | --- |", *map(_row, options), ""]
    return "\n".join(lines)


def _usage(argument: click.Argument) -> str:
    text = argument.metavar or (argument.name or "").upper()
    return text if argument.required or text.startswith("[") else f"[{text}]"


def _row(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    takes = f" {option.metavar or _kind(option)}" if not option.is_flag else ""
    default = f" Default: {option.default}." if option.show_default else ""
    return f"| {names}{takes} | {option.help}{default} |"


def _kind(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return " \\| ".join(map(str, option.type.choices))
    return "N" if isinstance(option.type, click.IntRange) else (option.name or "").upper()


if __name__ == "__main__":
    FILE.write_text(page() + "\n", encoding="utf-8")
