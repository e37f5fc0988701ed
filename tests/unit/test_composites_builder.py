"""Writing composites in Python, and that the object is equal to its JSON form. (spec 3.1)"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composites import Composite
from composites.model import CompositeSpec, EdgeSpec, StepSpec
from taskcenter.errors import SetupError, ValidationFailed


def edges(made: Composite) -> list[tuple[str, str, str]]:
    return [(e.from_step_key, e.to_step_key, e.condition) for e in made.spec.edges]


def test_arrows_draw_edges() -> None:
    made = Composite("x")
    a, b, c, d, e = (made.step(key, "noop") for key in "abcde")
    assert a >> b >> c is c
    [a, b] >> d
    c >> [d, e]
    assert edges(made) == [
        ("a", "b", "success"),
        ("b", "c", "success"),
        ("a", "d", "success"),
        ("b", "d", "success"),
        ("c", "d", "success"),
        ("c", "e", "success"),
    ]


def test_a_group_is_a_side_of_an_arrow() -> None:
    made = Composite("x")
    a, b, c, d, e = (made.step(key, "noop") for key in "abcde")
    middle = made.group("middle", [b, c])
    a >> middle >> [d, e]
    [a] >> middle
    assert [(s, t) for s, t, _ in edges(made)] == [
        ("a", "b"), ("a", "c"), ("b", "d"), ("b", "e"), ("c", "d"), ("c", "e"), ("a", "b"), ("a", "c"),
    ]  # fmt: skip
    assert [step.group for step in made.spec.steps] == [None, "middle", "middle", None, None]


def test_edges_by_name_with_a_condition() -> None:
    made = Composite("x")
    a, _, c = (made.step(key, "noop") for key in ("a", "b-long", "c"))
    made.edge(a, "b-long", when="failed")
    made.edge(" b-long ", c, when="result.n > 0")
    made.edge("a", "c", when=" ")
    a >> "b-long" >> c
    assert edges(made) == [
        ("a", "b-long", "failed"),
        ("b-long", "c", "result.n > 0"),
        ("a", "c", "success"),
        ("a", "b-long", "success"),
        ("b-long", "c", "success"),
    ]


def test_steps_of_two_composites_cannot_be_joined() -> None:
    one, two = Composite("one"), Composite("two")
    a, b = one.step("a", "noop"), two.step("b", "noop")
    with pytest.raises(SetupError, match="the step 'b' belongs to the composite 'two'"):
        a >> b


def test_options_describe_the_step_and_everything_else_is_its_payload() -> None:
    made = Composite("x", tags=[" Sales ", ""])
    made.step(" a ", "sql_script", sql="select 1", connection="dw", retries=2, retry_backoff_ms=500, timeout=900)
    made.step("b", task="nightly", payload={"timeout": 3}, join="any", priority="high", name="The B")
    made.step("c", "noop", over=1).map("{{inputs.tables}}", parallel=2, tolerance=1, max_items=5)
    a, b, c = made.spec.steps
    assert made.spec.tags == ("sales",)
    assert (a.step_key, a.position, a.retries, a.retry_backoff_ms, a.timeout_seconds) == ("a", 0, 2, 500, 900)
    assert a.payload == {"sql": "select 1", "connection": "dw"}
    assert (b.referenced_task_id, b.task_type, b.payload, b.join, b.priority) == (
        "nightly", None, {"timeout": 3}, "any", "high",
    )  # fmt: skip
    assert (b.name, b.position) == ("The B", 1)
    assert (c.map_over, c.map_parallel, c.tolerance, c.map_max_items) == ("{{inputs.tables}}", 2, 1, 5)
    assert c.payload == {"over": 1}


def test_what_python_has_and_json_has_not_is_turned_when_it_is_written() -> None:
    made = Composite("x", inputs={"day": date(2025, 1, 2)})
    made.step("a", "noop", paths=(Path("/tmp/a"), Path("b")), limit=Decimal("1.50"), map_over=(1, 2))
    made.step("b", "noop").map((3, 4))
    assert made.spec.inputs == {"day": "2025-01-02"}
    assert made.spec.steps[0].payload == {"paths": ["/tmp/a", "b"], "limit": "1.50"}
    assert [step.map_over for step in made.spec.steps] == [[1, 2], [3, 4]]
    assert Composite.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    with pytest.raises(ValidationFailed, match=r"a\.payload\.x"):
        made.step("a", "noop", x=object())


def test_what_is_given_is_copied() -> None:
    payload = {"list": [1]}
    made = Composite("x")
    made.step("a", "noop", payload=payload)
    payload["list"].append(2)
    assert made.spec.steps[0].payload == {"list": [1]}


def test_two_composites_are_equal_when_their_data_is() -> None:
    def make(last: str) -> Composite:
        made = Composite("x")
        made.step("a", "noop") >> made.step(last, "noop")
        return made

    assert make("b") == make("b")
    assert make("b") != make("c")
    assert make("b") != make("b").to_dict()
    with pytest.raises(TypeError):
        hash(make("b"))
    assert repr(make("b")) == "Composite('x', 2 steps, 1 edges)"


def test_mistakes_are_shown_together_before_anything_runs() -> None:
    made = Composite("x")
    made.step("a", "noop")
    made.edge("a", "ghost")
    made.edge("a", "a")
    assert {"edge_unknown", "edge_self"} <= {p.code for p in made.check()}
    with pytest.raises(ValidationFailed) as error:
        made.plan()
    assert {"edge_unknown", "edge_self"} <= {p.code for p in error.value.problems}


def test_importing_it_starts_nothing_and_needs_no_prefect() -> None:
    code = (
        "import sys; from composites import Composite; c = Composite('x'); c.step('a', 'noop'); c.to_dict();"
        "print([m for m in ('prefect', 'sqlalchemy', 'fastapi', 'asyncpg') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


# --- equal to its JSON form ---------------------------------------------------------------------------------------

WORDS = st.text(alphabet="abcXYZ019_-", min_size=1, max_size=8)
TEXTS = st.text(max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
OBJECTS = st.dictionaries(TEXTS, JSON, max_size=3)
STEPS = st.builds(
    StepSpec,
    step_key=WORDS,
    position=st.integers(0, 99),
    task_type=st.none() | WORDS,
    referenced_task_id=st.none() | WORDS,
    payload=OBJECTS,
    name=st.none() | TEXTS,
    on_error=st.sampled_from([None, "stop", "continue", "skip"]),
    enabled=st.booleans(),
    join=st.sampled_from(["all", "any", "at_least(2)", "a.success and not b.failed"]),
    retries=st.integers(0, 5),
    retry_backoff_ms=st.integers(0, 5_000),
    timeout_seconds=st.none() | st.integers(1, 9) | st.floats(0.1, 9),
    map_over=st.none() | st.lists(JSON, max_size=2) | st.just("{{inputs.x}}"),
    map_parallel=st.none() | st.integers(1, 9),
    map_max_items=st.integers(1, 2_000),
    tolerance=st.integers(0, 5),
    priority=st.sampled_from(["high", "normal", "low"]),
    group=st.none() | TEXTS,
)
EDGES = st.builds(EdgeSpec, WORDS, WORDS, st.sampled_from(["success", "failed", "always", "result.n > 0"]))
SPECS = st.builds(
    CompositeSpec,
    name=TEXTS,
    description=st.none() | TEXTS,
    tags=st.lists(WORDS.map(str.lower), max_size=3).map(tuple),
    steps=st.lists(STEPS, max_size=4).map(tuple),
    edges=st.lists(EDGES, max_size=4).map(tuple),
    inputs=OBJECTS,
    continue_on_error=st.booleans(),
    fail_on_any_error=st.booleans(),
    max_parallel=st.integers(1, 20),
    sequential=st.booleans(),
    halt_mode=st.sampled_from(["wait", "cancel"]),
)


@given(SPECS)
def test_a_composite_is_equal_to_its_json_form(spec: CompositeSpec) -> None:
    made = Composite.from_spec(spec)
    assert Composite.from_dict(made.to_dict()) == made
    through_text = json.loads(json.dumps(made.to_dict()))
    assert Composite.from_dict(through_text) == made
    assert Composite.from_dict(through_text).to_dict() == through_text


@given(
    st.lists(st.tuples(TEXTS, st.dictionaries(WORDS, JSON, max_size=2)), max_size=4),
    st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=4),
)
def test_whatever_is_written_with_the_builder_comes_back(steps: list[Any], drawn: list[Any]) -> None:
    """Also blanks around keys, which are trimmed on both roads."""
    made = Composite("x")
    for key, payload in steps:
        made.step(key, "noop", payload=payload)
    for source, target, when in drawn:
        made.edge(source, target, when=when)
    assert Composite.from_dict(json.loads(json.dumps(made.to_dict()))) == made
