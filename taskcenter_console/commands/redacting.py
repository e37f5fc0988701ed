"""``redact``: what redaction makes of a text, and patterns of one's own. (spec 6.6)"""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from taskcenter_console.terminal import emit, note, say

from .common import Out, output, read_text, settings

__all__ = ["redact"]


@click.group()
def redact() -> None:
    """Secrets in texts: what is masked before anything is stored or shown."""


@redact.command("test")
@click.argument("text", nargs=-1)
@output
def test(text: tuple[str, ...], out: Out) -> int:
    """Show what is masked in TEXT, or in stdin; exit code 1 when something was. Nothing is stored.

    Values that tasks use by name are masked beside this in their runs, whatever they look like.
    """
    from taskcenter.redaction import read_own_patterns, redact_text

    read_own_patterns(settings().patterns_file)
    given = " ".join(text) if text else read_text("-")
    began = time.perf_counter()
    found = redact_text(given)
    took = (time.perf_counter() - began) * 1000
    changed = sum(before != after for before, after in zip(given.splitlines(), found.splitlines(), strict=False))
    if out.json:
        emit({"text": found, "changedLines": changed, "masked": found != given, "milliseconds": round(took, 3)})
    else:
        say(found.removesuffix("\n"))
        if not out.quiet:
            note(
                f"{changed} of {len(given.splitlines())} lines changed in {took:.1f} ms"
                if changed
                else "nothing masked"
            )
    return 1 if found != given else 0


@redact.command("patterns")
@output
def patterns(out: Out) -> int:
    """List the patterns of your own, and check each."""
    from taskcenter.redaction.own import OwnPatterns, read_expressions

    file = settings().patterns_file
    found = read_expressions(file)
    OwnPatterns(found, str(file))
    _show(file, found, out)
    return 0


@redact.command("add")
@click.argument("pattern")
@output
def add(pattern: str, out: Out) -> int:
    """Mask what PATTERN matches, in every process that starts from now on.

    PATTERN is a regular expression without look-around and back references: it runs in linear time. `(?i)` in front
    makes it take capitals and small letters alike. A running service reads it when it is started again.
    """
    from taskcenter.redaction.own import OwnPatterns, read_expressions

    file = settings().patterns_file
    found = read_expressions(file)
    if pattern not in found:
        found = (*found, pattern)
        OwnPatterns(found, str(file))
        _write(file, found)
    _show(file, found, out)
    return 0


@redact.command("remove")
@click.argument("pattern")
@output
def remove(pattern: str, out: Out) -> int:
    """Mask what PATTERN matches no longer."""
    from taskcenter.errors import NotFound
    from taskcenter.redaction.own import read_expressions

    file = settings().patterns_file
    found = read_expressions(file)
    if pattern not in found:
        raise NotFound(f"{file} holds no such pattern; `taskcenter redact patterns` lists them", pattern=pattern)
    _write(file, tuple(each for each in found if each != pattern))
    _show(file, read_expressions(file), out)
    return 0


def _write(file: Path, found: tuple[str, ...]) -> None:
    """Comments stay; what is new comes last."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except FileNotFoundError:
        lines = []
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = [line for line in lines if line in found or not line.strip() or line.startswith("#")]
    half = file.with_name(f"{file.name}.part")
    half.touch(mode=0o600)
    half.write_text("".join(f"{line}\n" for line in (*kept, *(each for each in found if each not in kept))), "utf-8")
    os.replace(half, file)


def _show(file: Path, found: tuple[str, ...], out: Out) -> None:
    if out.json:
        emit({"file": str(file), "patterns": list(found)})
        return
    for pattern in found:
        say(pattern)
    if not out.quiet:
        note(f"{len(found)} in {file}")
