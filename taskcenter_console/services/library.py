"""Composites as the API asks for them: by a name that is never a file's, or whole in their JSON form. (spec 3)"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Any

from composites.load import Broken, Found, catalog
from composites.model import CompositeSpec
from composites.plan import Plan
from composites.render import render
from composites.validate import check
from taskcenter.errors import NotFound, Problem, ValidationFailed

from . import composites, tasks
from .center import Center

__all__ = ["catalogue", "check_json", "plan_json", "plan_named", "rendered", "show"]

_NAME = re.compile(r"[A-Za-z0-9_ -]{1,200}")
_reading = threading.RLock()
"""Held while files are imported: two threads at once would find each other's half-made modules."""


def catalogue(center: Center) -> tuple[list[Found], list[Broken]]:
    """The composites in files, and the files that could not be read."""
    with _reading:
        return catalog(center.settings.project / "composites")


def show(center: Center, name: str) -> composites.Named:
    """The saved composite or the one of the catalogue; never a file that happens to have this name."""
    if not _NAME.fullmatch(name):
        raise NotFound(f"there is no composite {name!r}", name=name)
    with _reading:
        return composites.locate(name, center.settings, center)[0]


def plan_named(center: Center, name: str) -> Plan:
    """What a run of it with its own inputs would do."""
    with _reading:
        return composites.plan(center, show(center, name).spec.name)[0]


def rendered(center: Center, name: str, form: str) -> str:
    """A composite as a tree, Mermaid, DOT or JSON; raises ValidationFailed when its graph cannot be drawn."""
    named = show(center, name)
    errors = check(named.spec, tasks.known(center)).errors
    if errors:
        raise ValidationFailed(f"the composite {named.spec.name!r}", errors)
    return render(named.spec, form)


def check_json(center: Center, data: Any) -> list[Problem]:
    """Every problem of a composite in its JSON form, warnings too; empty when there is none."""
    spec, problems = CompositeSpec.read(_named(data))
    return [*problems, *check(spec, tasks.known(center)).problems]


def plan_json(center: Center, data: Any) -> Plan:
    """The plan of a composite in its JSON form; raises ValidationFailed with all problems."""
    errors = [problem for problem in check_json(center, data) if problem.severity == "error"]
    if errors:
        raise ValidationFailed("the composite", errors)
    named = composites.Named(CompositeSpec.from_dict(_named(data)), "request")
    with _reading:
        return composites.plan_offline(named, center.settings)[0]


def _named(data: Any) -> Any:
    """A name of null is as good as none."""
    return {**data, "name": ""} if isinstance(data, Mapping) and data.get("name") is None else data
