"""``redact test``: what redaction makes of a text. (spec 6.6)"""

from __future__ import annotations

import time

import click

from taskcenter_console.terminal import emit, note, say

from .common import Out, output, read_text

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
    from taskcenter.redaction import redact_text

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
