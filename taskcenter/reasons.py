"""Why something was skipped, halted or refused: a code and data, put into words in one place. (spec 0.4)"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Reason", "ReasonCode"]


class ReasonCode(StrEnum):
    EDGE_UNSATISFIED = "edge_unsatisfied"
    JOIN_UNSATISFIED = "join_unsatisfied"
    HALTED_BY = "halted_by"
    DISABLED = "disabled"
    OVERRIDE_SKIP = "override_skip"
    HELD = "held"
    NOT_SELECTED = "not_selected"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    LOST = "lost"


_WORDS: dict[ReasonCode, str] = {
    ReasonCode.EDGE_UNSATISFIED: "{step} ended {outcome}, and the edge {step} → {target} asks for {condition}",
    ReasonCode.JOIN_UNSATISFIED: "its join {condition} can no longer hold since {step} ended {outcome}",
    ReasonCode.HALTED_BY: "{step} failed and the composite stops on failure (halted_by {step})",
    ReasonCode.DISABLED: "it is disabled in the definition",
    ReasonCode.OVERRIDE_SKIP: "it was left out for this run",
    ReasonCode.HELD: "it was held for this run; resume the run from here to let it go",
    ReasonCode.NOT_SELECTED: "this run was asked for other steps only",
    ReasonCode.CANCELLED: "the run was cancelled",
    ReasonCode.TIMED_OUT: "the run was stopped because it ran longer than it may",
    ReasonCode.LOST: "the run ended without a word about it",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """``step`` is the step that caused it, where one did."""

    code: ReasonCode
    step: str = ""
    outcome: str = ""
    condition: str = ""
    target: str = ""

    def __str__(self) -> str:
        return _WORDS[self.code].format(
            step=self.step, outcome=self.outcome, condition=self.condition, target=self.target
        )
