"""Reads what one run chooses beside its payload. Apart from ``runs``, so that a plan from a file stays light."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from taskcenter.errors import Problem, ValidationFailed
from taskcenter.options import RunOptions

__all__ = ["parse_options"]


def parse_options(data: Mapping[str, Any] | None) -> RunOptions:
    """Per-run options from JSON; raises ValidationFailed with every problem."""
    try:
        return RunOptions.model_validate(dict(data or {}))
    except ValidationError as error:
        problems = [
            Problem(item["type"], f"options.{'.'.join(map(str, item['loc']))}", item["msg"])
            for item in error.errors(include_url=False)
        ]
        raise ValidationFailed("the run's options", problems) from None
