"""The truth table of conditions and joins as a page: ``python -m composites.truth > docs/joins.md``. (spec 3.4)

The page is made from the functions the walker itself asks, and a test compares the committed page with it; another
test holds both against a second reading of the rules, over every combination of outcomes of up to five sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations_with_replacement

from taskcenter.status import StepStatus

from .conditions import CONDITIONS, Tally, Verdict, decide, parse_join, satisfies

__all__ = ["OUTCOMES", "markdown", "verdict"]

OUTCOMES = (StepStatus.SUCCESS, StepStatus.FAILED, StepStatus.SKIPPED)
_BY_EDGE = ("all", "any", "at_least(2)")
_BY_OUTCOME = ("all_done", "none_failed", "any_failed")


def verdict(join: str, edges: Sequence[tuple[str, StepStatus]]) -> tuple[Verdict, int]:
    """What a named join makes of edges whose sources end in this order, and after how many of them it is decided.

    Each edge is its condition and its source's outcome. READY or NEVER; WAIT only where there are no edges.
    """
    tally = Tally(edges=len(edges))
    for count, (condition, outcome) in enumerate(edges, start=1):
        satisfied = satisfies(condition, outcome)
        tally.satisfied += satisfied
        tally.unsatisfied += not satisfied
        tally.failed += outcome is StepStatus.FAILED
        said = decide(parse_join(join), tally)
        if said is Verdict.READY or said is Verdict.NEVER:
            return said, count
    return Verdict.WAIT, len(edges)


def markdown() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield from (
        "# Joins and conditions",
        "",
        "Made by `python -m composites.truth`; do not edit by hand.",
        "",
        "An edge carries a **condition**: which outcomes of its source satisfy it. A step with several incoming edges",
        "has a **join**: what must hold before it starts. A step whose join can no longer hold is skipped, and its",
        "reason names the step that decided it.",
        "",
        "## What satisfies an edge",
        "",
    )
    header = ["condition", *(str(outcome) for outcome in OUTCOMES)]
    rows = [[f"`{name}`", *(_yes(satisfies(name, o)) for o in OUTCOMES)] for name in CONDITIONS]
    rows.append(["an expression on `result`", "when it is true", "no", "no"])
    yield from _table(header, rows)
    yield from (
        "",
        "A source that was passed over (disabled, left out of this run, not selected) satisfies every edge. An",
        "expression that fails with an error does not satisfy its edge; when the join cannot do without it, the step",
        "fails with the error's text once all its sources have ended.",
        "",
        "## When a join starts its step",
        "",
    )
    yield from _table(
        ["join", "starts when", "is skipped when"],
        [
            ["`all` (default)", "every edge is satisfied", "one edge is not"],
            ["`any`", "one edge is satisfied; the others do not hold it", "no edge is"],
            ["`at_least(n)`", "n edges are satisfied", "fewer than n still can be"],
            ["`all_done`", "every source has ended, however", "never"],
            ["`none_failed`", "every source has ended and none failed", "one source failed"],
            ["`any_failed`", "one source failed", "every source has ended and none failed"],
            ["an expression", "every source has ended and it is true", "every source has ended and it is false"],
        ],
    )
    yield from (
        "",
        "`all_done`, `none_failed`, `any_failed` and expressions look at outcomes, not at edge conditions. A step",
        "without incoming edges starts at once, whatever its join.",
        "",
        "## Joins that look at outcomes",
        "",
        "The order in which the sources end changes when a step is decided, never what is decided.",
        "",
    )
    yield from _outcomes_table(_BY_OUTCOME, "success")
    for condition in CONDITIONS:
        yield from ("", f"## Joins over `{condition}` edges", "")
        yield from _outcomes_table(_BY_EDGE, condition)


def _outcomes_table(joins: Iterable[str], condition: str) -> Iterator[str]:
    rows = []
    for count in (1, 2, 3):
        for outcomes in combinations_with_replacement(OUTCOMES, count):
            edges = [(condition, outcome) for outcome in outcomes]
            said = ["runs" if verdict(join, edges)[0] is Verdict.READY else "skipped" for join in joins]
            rows.append([", ".join(outcomes), *said])
    yield from _table(["sources end", *(f"`{join}`" for join in joins)], rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


if __name__ == "__main__":
    print(markdown(), end="")
