"""What a pass of the reconciler says it found. (spec 6.2)"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Difference", "Report"]


@dataclass(frozen=True)
class Difference:
    """One thing that does not agree. ``exception``: known and left alone, with the reason."""

    run_id: str
    what: str
    ours: str
    prefect: str
    repaired: bool = False
    exception: str | None = None

    def __str__(self) -> str:
        tail = f" ({self.exception})" if self.exception else " (repaired)" if self.repaired else ""
        return f"run {self.run_id[:8]}: {self.what}: ours {self.ours}, Prefect {self.prefect}{tail}"


@dataclass
class Report:
    """What one pass looked at and found."""

    runs: int = 0
    steps: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def repaired(self) -> list[Difference]:
        return [d for d in self.differences if d.repaired]

    @property
    def open(self) -> list[Difference]:
        """What is neither repaired nor a written exception."""
        return [d for d in self.differences if not d.repaired and d.exception is None]
