"""The truth table of conditions and joins, held against a second reading of spec 3.4, exhaustively."""

from __future__ import annotations

import subprocess
import sys
from itertools import permutations, product
from pathlib import Path

import pytest

from composites.conditions import CONDITIONS, NAMED_JOINS, Verdict
from composites.truth import markdown, verdict
from composites.walk import Outcome, compile_graph
from taskcenter.status import StepStatus
from tests.graphs import FAILED, GOOD, SKIPPED, SUCCESS, composite, edge_holds, join_holds, walk_all

OUTCOMES = (SUCCESS, FAILED, SKIPPED)
JOINS = (*NAMED_JOINS, "at_least(1)", "at_least(2)", "at_least(3)", "at_least(4)", "at_least(5)")


def expected(join: str, edges: tuple[tuple[str, StepStatus], ...]) -> bool:
    held = [edge_holds(condition, Outcome(outcome), passed=False) for condition, outcome in edges]
    return join_holds(join, held, [outcome for _, outcome in edges])


@pytest.mark.parametrize("join", JOINS)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_vector_of_outcomes_up_to_five_sources(join: str, condition: str) -> None:
    for count in range(1, 6):
        for outcomes in product(OUTCOMES, repeat=count):
            edges = tuple((condition, outcome) for outcome in outcomes)
            said, _ = verdict(join, edges)
            assert (said is Verdict.READY) == expected(join, edges), (join, edges)
            assert said is not Verdict.WAIT, (join, edges)


@pytest.mark.parametrize("join", JOINS)
def test_edges_with_different_conditions(join: str) -> None:
    """Every combination of conditions and outcomes of up to three sources."""
    ways = list(product(CONDITIONS, OUTCOMES))
    for count in (1, 2, 3):
        for edges in product(ways, repeat=count):
            assert (verdict(join, edges)[0] is Verdict.READY) == expected(join, edges), (join, edges)


@pytest.mark.parametrize("join", JOINS)
def test_the_order_in_which_sources_end_changes_nothing(join: str) -> None:
    """All orders of all outcomes of four sources with success edges; the walker itself is asked, not the table."""
    keys = ("a", "b", "c", "d")
    steps = {**{key: {"on_error": "continue"} for key in keys}, "child": {"join": join}}
    graph = compile_graph(composite(steps, [(key, "child") for key in keys]))
    for vector in product((SUCCESS, FAILED), repeat=4):
        outcomes = {key: Outcome(status) for key, status in zip(keys, vector, strict=True)}
        ends = set()
        for order in permutations(keys):
            walked = walk_all(graph, outcomes, lambda running, order=order: min(running, key=(*order, "child").index))
            ends.add(walked.statuses["child"])
        wanted = expected(join, tuple(("success", status) for status in vector))
        assert ends == {SUCCESS if wanted else SKIPPED}, (join, vector)


def test_a_join_is_decided_as_early_as_it_can_be() -> None:
    """``any`` starts at the first satisfied edge, ``all`` gives up at the first unsatisfied one."""
    ok, bad = ("success", SUCCESS), ("success", FAILED)
    assert verdict("any", [ok, ok, ok]) == (Verdict.READY, 1)
    assert verdict("any", [bad, bad, ok]) == (Verdict.READY, 3)
    assert verdict("all", [bad, ok, ok]) == (Verdict.NEVER, 1)
    assert verdict("all", [ok, ok, ok]) == (Verdict.READY, 3)
    assert verdict("at_least(2)", [ok, bad, ok, bad]) == (Verdict.READY, 3)
    assert verdict("at_least(3)", [bad, bad, ok, ok]) == (Verdict.NEVER, 2)
    assert verdict("any_failed", [ok, bad, ok]) == (Verdict.READY, 2)
    assert verdict("none_failed", [bad, ok]) == (Verdict.NEVER, 1)
    assert verdict("all_done", [bad, ok]) == (Verdict.READY, 2)


@pytest.mark.parametrize(
    ("join", "wanted"),
    [
        ("a.success and not b.failed", lambda a, b: a is SUCCESS and b is not FAILED),
        ("a.failed or b.skipped", lambda a, b: a is FAILED or b is SKIPPED),
        ("steps['a'].status == 'failed'", lambda a, b: a is FAILED),
        ("a.done and b.done", lambda a, b: a is not SKIPPED and b is not SKIPPED),
        ("not (a.success or b.success)", lambda a, b: SUCCESS not in (a, b)),
    ],
)
def test_expression_joins_over_all_outcomes(join: str, wanted: object) -> None:
    """A source is made to skip by a step before it that does not satisfy its edge."""
    spec = composite(
        {"pa": {}, "pb": {}, "a": {"on_error": "continue"}, "b": {"on_error": "continue"}, "child": {"join": join}},
        [("pa", "a", "result.go"), ("pb", "b", "result.go"), ("a", "child"), ("b", "child")],
    )
    graph = compile_graph(spec)
    for a, b in product(OUTCOMES, repeat=2):
        outcomes = {
            "pa": Outcome(SUCCESS, {"go": a is not SKIPPED}),
            "pb": Outcome(SUCCESS, {"go": b is not SKIPPED}),
            "a": Outcome(a),
            "b": Outcome(b),
            "child": GOOD,
        }
        walked = walk_all(graph, outcomes)
        assert (walked.statuses["a"], walked.statuses["b"]) == (a, b)
        assert walked.statuses["child"] is (SUCCESS if wanted(a, b) else SKIPPED), (join, a, b)  # type: ignore[operator]


def test_the_docs_page_is_what_the_code_says() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "joins.md"
    assert page.read_text(encoding="utf-8") == markdown(), "run: python -m composites.truth > docs/joins.md"


def test_the_page_is_printed_by_one_command() -> None:
    said = subprocess.run([sys.executable, "-m", "composites.truth"], capture_output=True, text=True, check=True)
    assert said.stdout == markdown()
