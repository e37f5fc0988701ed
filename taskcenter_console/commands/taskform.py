"""The options with which ``task create`` and ``task edit`` describe a task."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import click

from .common import payload_of

__all__ = ["fields", "given_fields", "in_zone"]

_OPTIONS = [
    click.option("--name", metavar="NAME", help="Its name; the slug is made from it."),
    click.option("--slug", metavar="SLUG", help="Its short name in addresses: a-z, 0-9, - and _."),
    click.option("--type", "task_type", metavar="TYPE", help="Its task type; `task types` lists them."),
    click.option("--description", metavar="TEXT", help="What it is for."),
    click.option("--payload", metavar="JSON", help="What the task type is given."),
    click.option("--payload-file", metavar="FILE", help="The same from a JSON or YAML file; - is stdin."),
    click.option(
        "--set",
        "pairs",
        multiple=True,
        metavar="KEY=VALUE",
        help="One field of the payload; dots go deeper. Repeatable.",
    ),
    click.option("--cron", multiple=True, metavar="EXPR", help="Run at these times, as in crontab. Repeatable."),
    click.option("--every", multiple=True, type=float, metavar="SECONDS", help="Run every SECONDS. Repeatable."),
    click.option("--at", multiple=True, metavar="ISO", help="Run once at this time. Repeatable."),
    click.option("--timezone", metavar="ZONE", help="The zone of --cron and --at, as Europe/Berlin. Default: UTC."),
    click.option("--no-triggers", is_flag=True, help="Take all triggers away."),
    click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag; the given ones replace all. Repeatable."),
    click.option("--owner", metavar="OWNER", help="Whom to ask about it."),
    click.option("--category", metavar="CATEGORY", help="Where it is filed."),
    click.option("--priority", metavar="PRIORITY", help="high, normal or low."),
]
_PLAIN = {
    "name": "name",
    "slug": "slug",
    "task_type": "taskType",
    "description": "description",
    "owner": "owner",
    "category": "category",
    "priority": "priority",
}


def fields(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options to a command, which gets them as ``form``."""
    own = {*_PLAIN, "payload", "payload_file", "pairs", "cron", "every", "at", "timezone", "no_triggers", "tags"}

    @functools.wraps(function)
    def call(*args: Any, **values: Any) -> Any:
        form = {name: values.pop(name) for name in own}
        _check_usage(form, values.get("file"))
        return function(*args, form=form, **values)

    for option in reversed(_OPTIONS):
        call = option(call)
    return call


def _check_usage(form: Mapping[str, Any], file: str | None) -> None:
    """What can be said before anything is opened."""
    if file == form["payload_file"] == "-":
        raise click.UsageError("stdin can be read once: FILE and --payload-file are both -.")
    if form["payload"] is not None and form["payload_file"] is not None:
        raise click.UsageError("--payload and --payload-file exclude each other.")
    if form["no_triggers"] and (form["cron"] or form["every"] or form["at"]):
        raise click.UsageError("--no-triggers excludes --cron, --every and --at.")
    if form["timezone"] is not None and not (form["cron"] or form["at"]):
        raise click.UsageError("--timezone belongs to --cron or --at.")


def given_fields(form: Mapping[str, Any], payload: Mapping[str, Any] | None) -> dict[str, Any]:
    """Only what was given, in the task's JSON form; ``payload`` is what --set is laid over."""
    data: dict[str, Any] = {wire: form[name] for name, wire in _PLAIN.items() if form[name] is not None}
    changed = payload_of(form["payload"], form["payload_file"], form["pairs"], payload)
    if changed is not None:
        data["payload"] = changed
    if form["tags"]:
        data["tags"] = list(form["tags"])
    triggers = _triggers(form)
    if triggers or form["no_triggers"]:
        data["triggers"] = triggers
    return data


def _triggers(form: Mapping[str, Any]) -> list[dict[str, Any]]:
    zone = {"timezone": form["timezone"]} if form["timezone"] is not None else {}
    found: list[dict[str, Any]] = [{"type": "cron", "cronExpression": text, **zone} for text in form["cron"]]
    found += [{"type": "interval", "intervalSeconds": seconds} for seconds in form["every"]]
    return found + [{"type": "one_shot", "runAt": in_zone(text, form["timezone"]), **zone} for text in form["at"]]


def in_zone(text: str, zone: str | None) -> str:
    """A time of a clock in ``zone``, when it names no offset itself. What is no time is left to the check."""
    from datetime import datetime
    from zoneinfo import ZoneInfo

    try:
        when = datetime.fromisoformat(text)
        return when.replace(tzinfo=ZoneInfo(zone)).isoformat() if zone and when.tzinfo is None else text
    except (ValueError, KeyError, OSError):  # ZoneInfoNotFoundError is a KeyError
        return text
