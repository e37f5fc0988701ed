"""``secret``: values that tasks use by name. A value is typed, or read from stdin; never from the command line."""

from __future__ import annotations

import sys

import click

from taskcenter_console.terminal import brief, emit, say

from . import common
from .common import Out, output
from .showing import show_list, tell

__all__ = ["secret"]


@click.group()
def secret() -> None:
    """Values that tasks use by name, encrypted; nothing ever shows them again."""


@secret.command("set")
@click.argument("name")
@output
def set_secret(name: str, out: Out) -> None:
    """Set a secret: asks for the value, or reads it from stdin (one newline at its end does not count)."""
    from taskcenter_console.services import secrets as service

    if sys.stdin.isatty():
        value = click.prompt(f"Value of {name}", hide_input=True, confirmation_prompt=True, err=True)
    else:
        value = common.read_text("-").removesuffix("\n").removesuffix("\r")
    with common.open_center() as center:
        done = service.put(center, name, value, common.caller())
    tell(out, done, name, f'● {name} is set (version {done["version"]}). A task uses it as {{{{secret("{name}")}}}}')


@secret.command("list")
@output
def list_secrets(out: Out) -> None:
    """List the names of the secrets, with their versions."""
    from taskcenter_console.services import secrets as service

    with common.open_center() as center:
        rows = service.list_secrets(center)
    show_list(
        out,
        rows,
        name=lambda row: str(row["name"]),
        columns=("secret", "version", "set", "by"),
        cells=lambda row: [row["name"], row["version"], brief(row["setAt"]), row["setBy"]],
        empty="no secrets; make one with: taskcenter secret set NAME",
    )


@secret.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@output
def delete(name: str, yes: bool, out: Out) -> None:
    """Delete a secret with all its versions. Tasks that use it fail from then on."""
    from taskcenter_console.services import secrets as service

    common.confirm(yes, out, f"Delete the secret {name}?", f"deleting the secret {name} cannot be undone")
    with common.open_center() as center:
        service.delete(center, name, common.caller())
    tell(out, {"deleted": name}, name, f"- the secret {name} was deleted")


@secret.command("rotate")
@output
def rotate(out: Out) -> None:
    """Encrypt all secrets with a new key. A value is rotated by setting it again."""
    from taskcenter_console.services import secrets as service

    with common.open_center() as center:
        done = service.rotate_key(center, common.caller())
    if out.json:
        emit(done)
    elif not out.quiet:
        say(f"● {done['values']} stored values are encrypted with the key {done['key']}")
