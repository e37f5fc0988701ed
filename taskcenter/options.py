"""What one run may choose beside its payload. (spec 1.4, 3.9)"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from .models import Model

__all__ = ["RunOptions"]


class RunOptions(Model):
    """Per-run choices, as a flow's ``options`` parameter and the API take them. Steps are named by their keys."""

    skip: tuple[str, ...] = ()
    hold: tuple[str, ...] = ()
    fail: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    start_from: tuple[str, ...] = Field((), alias="from")
    downstream_of: tuple[str, ...] = ()
    set: dict[str, dict[str, Any]] = Field(default_factory=dict)
    resume: str | None = None
    """The run whose results may be reused."""
    resume_mode: Literal["failed", "from", "downstream", "alone"] = "failed"
    resume_step: str | None = None
    plan_hash: str | None = None
    """Refuse to run when the plan of now has another hash."""

    def overridden_steps(self) -> list[str]:
        """Every step that this run treats differently, for the audit."""
        named = (*self.skip, *self.hold, *self.fail, *self.set, *self.only, *self.start_from, *self.downstream_of)
        return list(dict.fromkeys(named))
