"""``taskcenter plan`` and what ``composite`` shares with it: finding a composite, showing a plan."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from taskcenter.errors import NotFound, Problem, ValidationFailed
from taskcenter_console.terminal import emit, say, show_plan

from . import common
from .choices import Choices, choices
from .common import Out, output

if TYPE_CHECKING:
    from composites.plan import Plan
    from taskcenter_console.services.center import Center
    from taskcenter_console.services.composites import Named

__all__ = ["FORMATS", "find_all", "find_one", "format_option", "is_file", "maybe_center", "plan", "planned"]

FORMATS = ("tree", "mermaid", "dot", "json")


def is_file(name: str) -> bool:
    return name.endswith((".py", ".json"))


@contextmanager
def maybe_center(name: str) -> Iterator[Center | None]:
    """For a file none: nothing is asked but the file. Else the running center, if there is one."""
    center = None if is_file(name) else common.center_if_running()
    try:
        yield center
    finally:
        if center is not None:
            center.close()


def find_all(name: str, center: Center | None) -> list[Named]:
    """The composites of a file, or the one of that name: saved, or of the catalogue."""
    from taskcenter_console.services.composites import locate

    with common.stdout_kept():
        return locate(name, common.settings(), center)


def find_one(name: str, which: str | None, center: Center | None) -> Named:
    """As ``find_all``; ``which`` chooses where a file has several."""
    found = find_all(name, center)
    names = ", ".join(one.spec.name for one in found)
    if which is not None:
        found = [one for one in found if one.spec.name == which]
        if not found:
            raise NotFound(f"there is no composite {which!r} in {name}; there are: {names}")
    if len(found) > 1:
        problem = Problem("several", "", f"defines {len(found)} composites; choose one with --name: {names}")
        raise ValidationFailed(name, [problem])
    return found[0]


def planned(name: str, which: str | None, chosen: Choices) -> tuple[Plan, Any]:
    """The plan of a file's composite, of a saved task or of a composite of the catalogue."""
    options = chosen.options()
    with maybe_center(name) as center:
        if center is not None:
            from taskcenter_console.services.planning import plan_saved

            with common.stdout_kept():
                return plan_saved(center, name, payload=chosen.payload, options=options)
        if options is not None and options.resume:
            raise NotFound(f"there is no run {options.resume} to resume: no Task Center is running here")
        from taskcenter_console.services.composites import plan_offline

        one = find_one(name, which, None)
        with common.stdout_kept():
            made, spec = plan_offline(one, common.settings(), inputs=chosen.payload, options=options)
        _same(made, options.plan_hash if options else None)
        return made, spec


def _same(made: Plan, wanted: str | None) -> None:
    from taskcenter.errors import Refused

    if wanted is not None and made.hash != wanted:
        raise Refused(f"the plan {wanted} is not the plan of now ({made.hash}): something changed since; plan again")


def show(made: Plan, spec: Any, form: str, out: Out) -> None:
    if out.quiet:
        say(made.hash)
    elif out.json:
        emit(made.to_dict())
    else:
        show_plan(made, spec, form)


format_option = click.option(
    "--format", "form", type=click.Choice(FORMATS), default="tree", show_default=True, help="How it is drawn."
)
name_option = click.option("--name", "which", metavar="NAME", help="Which composite, where a file has several.")


@click.command()
@click.argument("name", metavar="TASK|FILE")
@name_option
@choices
@format_option
@output
def plan(name: str, which: str | None, chosen: Choices, form: str, out: Out) -> None:
    """Say what a run would do, step by step; nothing is executed.

    TASK is a saved task (a composite or any other), or a composite of the catalogue; FILE a .py or .json file with
    a composite, for which no server is needed. -q prints the plan's hash, which `run --plan` takes.
    """
    made, spec = planned(name, which, chosen)
    show(made, spec, form, out)
