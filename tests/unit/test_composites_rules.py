"""Every rule of spec 3.2: each mistake alone gives its code, its place and its sentence; many give all at once."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, model_validator

from composites import Composite
from composites.model import CompositeSpec, EdgeSpec, StepSpec
from composites.validate import MAX_DEPTH, Known, check
from taskcenter.errors import Problem, ValidationFailed
from taskcenter.task_types import Registry, task_type
from tests.graphs import composite

types = Registry()


class Copy(BaseModel):
    model_config = ConfigDict(extra="forbid")
    source: str
    rows: int = 10
    ratio: float = 1.0
    options: dict[str, int] = {}

    @model_validator(mode="after")
    def no_zero(self) -> Copy:
        if self.rows == 0 and self.source == "empty":
            raise ValueError("an empty source with no rows makes no sense")
        return self


@task_type("copy_rows", into=types)
def copy_rows(payload: Copy) -> None: ...


@task_type("noop", into=types)
def noop(x: Any = None) -> None: ...


KNOWN = Known(find_type=lambda key: types.types.get(key), type_names=lambda: sorted(types.types))


def problems(spec: CompositeSpec, known: Known = KNOWN) -> list[Problem]:
    return list(check(spec, known).problems)


def told(spec: CompositeSpec, known: Known = KNOWN) -> list[tuple[str, str, str]]:
    return [(p.code, p.path, p.message) for p in problems(spec, known)]


def test_a_sound_composite_has_no_problem_and_says_its_waves() -> None:
    found = check(composite("a b c d", [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]), KNOWN)
    assert found.problems == ()
    assert found.waves == [["a"], ["b", "c"], ["d"]]


SINGLE: list[tuple[str, CompositeSpec, tuple[str, str, str]]] = [
    ("no steps", composite(""), ("no_steps", "steps", "a composite needs at least one step")),
    ("no name", composite("a", name="  "), ("blank_name", "name", "the composite has no name")),
    (
        "blank key",
        CompositeSpec("x", steps=(StepSpec("", task_type="noop"),)),
        ("blank_key", "steps[0].stepKey", "the step key is blank"),
    ),
    (
        "duplicate key",
        CompositeSpec("x", steps=(StepSpec("a", task_type="noop"), StepSpec("a", task_type="noop"))),
        ("duplicate_key", "steps[1].stepKey", "'a' is used by an earlier step too"),
    ),
    (
        "bad key",
        composite({"a.b": {}}),
        ("bad_key", "steps[0].stepKey", "'a.b' may hold only A-Z a-z 0-9 _ and -"),
    ),
    (
        "key with a line break at its end",
        composite({"a\n": {}}),
        ("bad_key", "steps[0].stepKey", "'a\\n' may hold only A-Z a-z 0-9 _ and -"),
    ),
    (
        "key that is too long",
        composite({"k" * 201: {}}),
        ("bad_key", "steps[0].stepKey", "has 201 characters; at most 200 fit"),
    ),
    (
        "neither type nor reference",
        composite({"a": {"task_type": None}}),
        ("no_type", "steps[0] (a)", "names neither a task type nor a saved task"),
    ),
    (
        "both type and reference",
        composite({"a": {"referenced_task_id": "t1"}}),
        ("two_kinds", "steps[0] (a)", "names both a task type and a saved task; give one of them"),
    ),
    (
        "unknown type",
        composite({"a": {"task_type": "nope"}}),
        ("unknown_type", "steps[0] (a).taskType", "there is no task type 'nope'; known: copy_rows, noop"),
    ),
    (
        "payload that is a list",
        composite({"a": {"payload": [1]}}),
        ("payload_not_object", "steps[0] (a).payload", "the payload must be a JSON object, not list"),
    ),
    (
        "payload without a required field",
        composite({"a": {"task_type": "copy_rows"}}),
        ("payload_missing", "steps[0] (a).payload.source", "is required and missing"),
    ),
    (
        "payload with an unknown field",
        composite({"a": {"task_type": "copy_rows", "payload": {"source": "s", "sauce": 1}}}),
        ("payload_extra_forbidden", "steps[0] (a).payload.sauce", "is not a field of this task type"),
    ),
    (
        "payload with an unknown field that holds a template",
        composite({"a": {"task_type": "copy_rows", "payload": {"source": "s", "sauce": "{{run.id}}"}}}),
        ("payload_extra_forbidden", "steps[0] (a).payload.sauce", "is not a field of this task type"),
    ),
    (
        "payload against a rule over several fields",
        composite({"a": {"task_type": "copy_rows", "payload": {"source": "empty", "rows": 0}}}),
        ("payload_value_error", "steps[0] (a).payload", "an empty source with no rows makes no sense"),
    ),
    (
        "edge from nowhere",
        composite("a", [("", "a")]),
        ("edge_blank", "edges[0].fromStepKey", "the end of the edge is blank"),
    ),
    (
        "edge to an unknown step",
        composite("a", [("a", "b")]),
        ("edge_unknown", "edges[0].toStepKey", "there is no step 'b'"),
    ),
    (
        "duplicate edge",
        composite("a b", [("a", "b"), ("a", "b", "failed")]),
        ("edge_duplicate", "edges[1]", "a → b stands twice"),
    ),
    (
        "self edge",
        composite("a", [("a", "a")]),
        ("edge_self", "edges[0]", "a → a: a step cannot wait for itself"),
    ),
    (
        "cycle of two",
        composite("a b", [("a", "b"), ("b", "a")]),
        ("cycle", "edges", "the steps wait for each other: a → b → a"),
    ),
    (
        "cycle of three, drawn from its first step, without what only leads to it",
        composite("first a b c last", [("first", "b"), ("b", "c"), ("c", "a"), ("a", "b"), ("c", "last")]),
        ("cycle", "edges", "the steps wait for each other: a → b → c → a"),
    ),
    (
        "unknown condition",
        composite("a b", [("a", "b", "sucess")]),
        (
            "unknown_condition",
            "edges[0].condition",
            "unknown condition 'sucess'; known: success, failed, done, skipped, always, or an expression such as "
            "'result.totalRows > 0'",
        ),
    ),
    (
        "condition on something else than the result",
        composite("a b", [("a", "b", "result.n > inputs.n")]),
        ("unknown_condition", "edges[0].condition", "only 'result' is known here, not inputs"),
    ),
    (
        "condition with a call",
        composite("a b", [("a", "b", "len(result) > 0")]),
        ("unknown_condition", "edges[0].condition", "'len(result) > 0': calls are not allowed"),
    ),
    (
        "unknown join",
        composite({"a": {}, "b": {"join": "most"}}, [("a", "b")]),
        (
            "unknown_join",
            "steps[1] (b).join",
            "unknown join 'most'; known: all, any, all_done, none_failed, any_failed, at_least(n), or an expression "
            "such as 'a.success and not b.failed'",
        ),
    ),
    (
        "join over a step that no edge comes from",
        composite({"a": {}, "b": {}, "c": {"join": "a.success and b.success"}}, [("a", "c")]),
        ("join_unknown_step", "steps[2] (c).join", "no edge comes from b"),
    ),
    (
        "at_least(0)",
        composite({"a": {}, "b": {"join": "at_least(0)"}}, [("a", "b")]),
        ("unknown_join", "steps[1] (b).join", "at_least(0) asks for nothing; at_least(1) is the same as any"),
    ),
    (
        "at_least more than there are",
        composite({"a": {}, "b": {"join": "at_least(2)"}}, [("a", "b")]),
        ("never_runs", "steps[1] (b).join", "at_least(2) can never hold with 1 incoming edge"),
    ),
    (
        "a step that waits for a skip that cannot be",
        composite("a b", [("a", "b", "skipped")]),
        ("never_runs", "steps[1] (b)", "no outcome of a can satisfy its join 'all': it would never run"),
    ),
    (
        "template of an unknown step",
        composite({"a": {"payload": {"x": "{{steps.b.rows}}"}}}),
        ("template_unknown_step", "steps[0] (a).payload.x", "{{steps.b.rows}}: there is no step 'b'"),
    ),
    (
        "template of a step beside it",
        composite({"a": {}, "b": {"payload": {"x": ["{{steps.a.rows}}"]}}}),
        ("template_not_ancestor", "steps[1] (b).payload.x[0]", "{{steps.a.rows}}: 'a' does not come before 'b'"),
    ),
    (
        "template of itself",
        composite({"a": {"payload": {"x": "{{steps.a.rows}}"}}}),
        ("template_not_ancestor", "steps[0] (a).payload.x", "{{steps.a.rows}}: 'a' does not come before 'a'"),
    ),
    (
        "template that cannot be read",
        composite({"a": {"payload": {"x": "{{steps.}}"}}}),
        (
            "template_syntax",
            "steps[0] (a).payload.x",
            "the template '{{steps.}}' cannot be read at column 8: a step key is expected after 'steps.'",
        ),
    ),
    (
        "item outside of a map",
        composite({"a": {"payload": {"x": "{{item.name}}"}}}),
        ("template_item", "steps[0] (a).payload.x", "{{item.name}} is only known in the payload of a mapped step"),
    ),
    (
        "map over something that is no list",
        composite({"a": {"map_over": 7}}),
        ("bad_map", "steps[0] (a).mapOver", "must be a list or a template that gives one"),
    ),
    (
        "map over an unknown step",
        composite({"a": {"map_over": "{{steps.b.rows}}"}}),
        ("template_unknown_step", "steps[0] (a).mapOver", "{{steps.b.rows}}: there is no step 'b'"),
    ),
    (
        "unknown onError",
        composite({"a": {"on_error": "ignore"}}),
        ("unknown_on_error", "steps[0] (a).onError", "'ignore': known are stop, continue, skip"),
    ),
    (
        "unknown priority",
        composite({"a": {"priority": "urgent"}}),
        ("unknown_priority", "steps[0] (a).priority", "'urgent': known are high, normal, low"),
    ),
    ("retries", composite({"a": {"retries": -1}}), ("out_of_range", "steps[0] (a).retries", "must not be negative")),
    (
        "time-out of zero",
        composite({"a": {"timeout_seconds": 0}}),
        ("out_of_range", "steps[0] (a).timeoutSeconds", "must be above 0"),
    ),
    (
        "time-out that is no number",
        composite({"a": {"timeout_seconds": float("nan")}}),
        ("out_of_range", "steps[0] (a).timeoutSeconds", "must be above 0"),
    ),
    (
        "map of at most nothing",
        composite({"a": {"map_over": [1], "map_max_items": 0}}),
        ("out_of_range", "steps[0] (a).mapMaxItems", "must be at least 1"),
    ),
    ("no parallel", composite("a", max_parallel=0), ("out_of_range", "maxParallel", "must be at least 1")),
    (
        "unknown halt mode",
        composite("a", halt_mode="kill"),
        ("unknown_halt_mode", "haltMode", "'kill' is not known; known: wait, cancel"),
    ),
]


@pytest.mark.parametrize(("spec", "problem"), [case[1:] for case in SINGLE], ids=[case[0] for case in SINGLE])
def test_each_mistake_alone(spec: CompositeSpec, problem: tuple[str, str, str]) -> None:
    assert told(spec) == [problem]
    assert problems(spec)[0].severity == "error"


def test_keys_are_trimmed_when_they_are_read() -> None:
    spec = CompositeSpec.from_dict(
        {
            "name": "x",
            "steps": [{"stepKey": " a ", "taskType": "noop"}, {"stepKey": "a", "taskType": "noop"}],
            "edges": [{"fromStepKey": "a ", "toStepKey": " a"}],
        }
    )
    assert [step.step_key for step in spec.steps] == ["a", "a"]
    assert {p.code for p in problems(spec)} == {"duplicate_key", "edge_self"}
    blank = CompositeSpec.from_dict({"name": "x", "steps": [{"stepKey": "  ", "taskType": "noop"}, {}]})
    assert [p.code for p in problems(blank)] == ["blank_key", "blank_key", "no_type"]


def test_a_payload_with_three_mistakes_shows_three_lines() -> None:
    spec = composite({"a": {"task_type": "copy_rows", "payload": {"rows": "many", "ratio": [], "colour": 1}}})
    found = problems(spec)
    assert sorted(p.path for p in found) == [
        "steps[0] (a).payload.colour",
        "steps[0] (a).payload.ratio",
        "steps[0] (a).payload.rows",
        "steps[0] (a).payload.source",
    ]
    text = str(ValidationFailed("the composite 'test'", found))
    assert text.splitlines()[0] == "the composite 'test' has 4 problems:"
    assert len(text.splitlines()) == 5


def test_a_composite_with_many_mistakes_shows_them_all_at_once() -> None:
    spec = CompositeSpec(
        "",
        steps=(
            StepSpec("a", task_type="noop", payload={"x": "{{steps.ghost.y}}"}),
            StepSpec("a", task_type="noop"),
            StepSpec("", task_type="noop"),
            StepSpec("b c", task_type="nope", payload=[1]),  # two mistakes in one step
            StepSpec("d", join="most"),
            StepSpec("e", task_type="copy_rows", payload={"source": 1, "rows": "x"}, on_error="ignore", retries=-1),
        ),
        edges=(
            EdgeSpec("a", "d"),
            EdgeSpec("d", "a"),
            EdgeSpec("a", "ghost"),
            EdgeSpec("", "e"),
            EdgeSpec("e", "e", "sometimes"),
            EdgeSpec("a", "d"),
        ),
        max_parallel=0,
        halt_mode="kill",
    )
    assert sorted(p.code for p in problems(spec)) == sorted(
        [
            "blank_name",
            "out_of_range",  # maxParallel
            "unknown_halt_mode",
            "duplicate_key",
            "blank_key",
            "bad_key",
            "cycle",
            "edge_unknown",
            "edge_blank",
            "edge_self",
            "edge_duplicate",
            "unknown_condition",
            "payload_not_object",
            "unknown_type",
            "no_type",
            "unknown_join",
            "unknown_on_error",
            "out_of_range",  # retries
            "payload_string_type",
            "payload_int_parsing",
            "template_unknown_step",
        ]
    )


def test_a_long_cycle_is_drawn_by_its_ends() -> None:
    keys = [f"s{i}" for i in range(10_000)]
    edges = [*pairwise(keys), (keys[-1], keys[0])]
    (problem,) = problems(composite({key: {} for key in keys}, edges))
    assert problem.code == "cycle"
    assert problem.message.startswith("the steps wait for each other: s0 → s1 → ")
    assert " → … → " in problem.message
    assert problem.message.endswith("s9999 → s0")


def test_more_steps_than_the_setting_allows() -> None:
    spec = composite({f"s{i}": {} for i in range(10_001)})
    assert told(spec) == [("too_many_steps", "steps", "has 10001 steps; at most 10000 are allowed")]
    assert problems(composite({f"s{i}": {} for i in range(10_000)})) == []
    few = Known(max_steps=2)
    assert told(composite("a b c"), few) == [("too_many_steps", "steps", "has 3 steps; at most 2 are allowed")]


def test_a_chain_of_ten_thousand_steps_with_templates_across_it() -> None:
    steps: dict[str, dict[str, Any]] = {f"s{i}": {"task_type": "other"} for i in range(10_000)}
    steps["s9999"]["payload"] = {"x": "{{steps.s0.rows}}"}
    steps["s5"]["payload"] = {"x": "{{steps.s9000.rows}}"}
    edges = [(f"s{i}", f"s{i + 1}") for i in range(9_999)]
    assert [(p.code, p.path) for p in problems(composite(steps, edges), Known())] == [
        ("template_not_ancestor", "steps[5] (s5).payload.x")
    ]


def test_a_template_may_read_any_step_before_it_not_only_its_parents() -> None:
    steps = {"a": {}, "b": {}, "c": {"task_type": "t", "payload": {"x": "{{steps.a.rows}} {{steps.b.rows}}"}}}
    assert problems(composite(steps, [("a", "b"), ("b", "c")]), Known()) == []
    assert problems(composite(steps, sequential=True), Known()) == []
    backwards = {key: {**fields, "position": 9 - i} for i, (key, fields) in enumerate(steps.items())}
    assert [p.code for p in problems(composite(backwards, sequential=True), Known())] == ["template_not_ancestor"] * 2


def test_templates_in_typed_fields_are_checked_when_their_value_is_known() -> None:
    payload = {"source": "{{run.id}}", "rows": "{{inputs.rows}}", "options": {"a": "{{inputs.a}}", "b": "x"}}
    found = told(composite({"a": {"task_type": "copy_rows", "payload": payload}}))
    assert [(code, path) for code, path, _ in found] == [("payload_int_parsing", "steps[0] (a).payload.options.b")]


def test_mistakes_beside_a_cycle_are_still_told() -> None:
    spec = composite(
        {"a": {"payload": {"x": "{{steps.ghost.y}}", "y": "{{oops}}"}, "task_type": "t"}, "b": {"payload": 1}},
        [("a", "b"), ("b", "a")],
    )
    assert [p.code for p in problems(spec, Known())] == [
        "cycle",
        "payload_not_object",
        "template_unknown_step",
        "template_syntax",
    ]


def test_a_payload_of_any_depth_is_answered_with_a_sentence() -> None:
    deep: Any = 1
    for _ in range(5_000):
        deep = [deep]
    for spec in (composite({"a": {"payload": {"x": deep}}}), composite("a", inputs={"x": deep})):
        (problem,) = problems(spec, Known())
        assert problem.code == "payload_too_deep"
        assert "deeper than 64 levels" in problem.message


def test_never_runs_follows_outcomes_through_the_graph() -> None:
    steps: dict[str, dict[str, Any]] = {"a": {"enabled": False}, "b": {}, "c": {"join": "any_failed"}, "d": {}}
    edges = [("a", "b"), ("a", "c"), ("b", "d", "failed")]
    (problem,) = problems(composite(steps, edges))
    assert (problem.code, problem.path) == ("never_runs", "steps[2] (c)")


@pytest.mark.parametrize(
    ("join", "condition"),
    [
        ("any", "skipped"),
        ("all_done", "skipped"),
        ("none_failed", "failed"),
        ("any_failed", "skipped"),
        ("all", "done"),
    ],
)
def test_never_runs_is_not_said_of_a_step_that_may_run(join: str, condition: str) -> None:
    spec = composite(
        {"z": {}, "a": {}, "b": {}, "c": {"join": join}}, [("z", "b", "failed"), ("a", "c"), ("b", "c", condition)]
    )
    assert [p.code for p in check(spec, KNOWN).errors] == []


def test_a_condition_that_its_join_ignores_is_a_warning() -> None:
    spec = composite({"a": {}, "b": {"join": "all_done"}}, [("a", "b", "failed")])
    (problem,) = problems(spec)
    assert (problem.code, problem.severity) == ("condition_ignored", "warning")
    assert problem.message == "the join 'all_done' looks at outcomes; the condition on a → b is not used"
    assert check(spec, KNOWN).errors == []


def test_a_referenced_task_must_be_there() -> None:
    asked: list[str] = []

    def there(ref: str) -> bool:
        asked.append(ref)
        return ref == "t1"

    spec = composite(
        {k: {"task_type": None, "referenced_task_id": r} for k, r in (("a", "t1"), ("b", "t2"), ("c", "t2"))}
    )
    known = Known(find_task=there)
    assert told(spec, known) == [
        ("task_missing", "steps[1] (b).referencedTaskId", "there is no task 't2'"),
        ("task_missing", "steps[2] (c).referencedTaskId", "there is no task 't2'"),
    ]
    assert asked == ["t1", "t2"], "each is asked for once"
    assert problems(spec, Known()) == [], "where there is nobody to ask, references are not checked"


def nested(name: str, *inner: str) -> CompositeSpec:
    steps = {f"s{i}": {"task_type": None, "referenced_task_id": ref} for i, ref in enumerate(inner)}
    return composite(steps or "leaf", name=name)


def library(*specs: CompositeSpec) -> Known:
    saved = {spec.name: spec for spec in specs}
    return Known(find_composite=saved.get, find_task=lambda ref: True)


def test_a_composite_that_contains_itself_is_drawn() -> None:
    outer = nested("outer", "middle")
    known = library(outer, nested("middle", "inner"), nested("inner", "outer"))
    assert told(outer, known) == [
        (
            "composite_cycle",
            "steps[0] (s0).referencedTaskId",
            "the composites contain each other: outer → middle → inner → outer",
        )
    ]
    alone = nested("alone", "alone")
    assert told(alone, library(alone))[0][2] == "the composites contain each other: alone → alone"


def test_a_cycle_that_one_only_leads_to_is_found_too() -> None:
    known = library(nested("b", "c"), nested("c", "b"))
    assert told(nested("a", "b"), known)[0][2] == "the composites contain each other: b → c → b"


def test_a_composite_inside_by_type_counts_like_a_reference() -> None:
    spec = composite({"s": {"task_type": "composite", "payload": {"composite": "me"}}}, name="me")
    (problem,) = problems(spec, library(spec))
    assert (problem.code, problem.path) == ("composite_cycle", "steps[0] (s).payload.composite")


def test_nesting_is_allowed_to_a_depth() -> None:
    chain = [nested(f"c{i}", *([f"c{i + 1}"] if i < 20 else [])) for i in range(1, 21)]
    known = library(*chain)
    deepest_allowed = chain[20 - MAX_DEPTH]
    assert problems(deepest_allowed, known) == []
    (problem,) = problems(chain[20 - MAX_DEPTH - 1], known)
    assert problem.code == "too_deep"
    assert problem.message.startswith("composites are nested deeper than 8: c12 → c13 → ")
    assert problem.message.endswith("→ c20")


def test_many_steps_with_one_reference_ask_for_it_once() -> None:
    asked: list[str] = []
    inner = nested("inner")

    def find(ref: str) -> CompositeSpec:
        asked.append(ref)
        return inner

    spec = nested("outer", *["inner"] * 500)
    assert problems(spec, Known(find_composite=find)) == []
    assert asked == ["inner"]


def test_nesting_that_branches_everywhere_is_still_answered_at_once() -> None:
    layers = [[f"l{d}n{i}" for i in range(20)] for d in range(7)]
    specs = [nested(name, *(layers[d + 1] if d < 6 else [])) for d, names in enumerate(layers) for name in names]
    assert problems(nested("top", *layers[0]), library(*specs)) == []  # 20^7 paths


# --- reading the JSON form ----------------------------------------------------------------------------------------


def refused(data: Any) -> list[tuple[str, str, str]]:
    with pytest.raises(ValidationFailed) as error:
        CompositeSpec.from_dict(data)
    return [(p.code, p.path, p.message) for p in error.value.problems]


def test_every_malformed_field_is_told_with_its_path() -> None:
    data = {
        "name": 7,
        "maxParallel": "8",
        "sequential": 1,
        "colour": "red",
        "steps": [
            {"stepKey": 1, "position": True, "retries": 1.5, "taskTyp": "noop"},
            "not a step",
            {"stepKey": "a", "enabled": "yes", "timeoutSeconds": "60"},
        ],
        "edges": {"a": "b"},
    }
    found = refused(data)
    assert {path: code for code, path, _ in found} == {
        "name": "wrong_kind",
        "maxParallel": "wrong_kind",
        "sequential": "wrong_kind",
        "colour": "unknown_field",
        "steps[0].stepKey": "wrong_kind",
        "steps[0].position": "wrong_kind",
        "steps[0].retries": "wrong_kind",
        "steps[0].taskTyp": "unknown_field",
        "steps[1]": "not_object",
        "steps[2].enabled": "wrong_kind",
        "steps[2].timeoutSeconds": "wrong_kind",
        "edges": "wrong_kind",
    }
    assert ("unknown_field", "steps[0].taskTyp", "is not a field here; did you mean 'taskType'?") in found


@pytest.mark.parametrize("data", [None, [], "x", 3, True])
def test_something_that_is_no_object(data: Any) -> None:
    assert refused(data)[0][0] == "not_object"


def test_both_spellings_are_read_and_one_is_written() -> None:
    given = {
        "name": "x",
        "max_parallel": 2,
        "steps": [{"step_key": "a", "task_type": "noop", "on_error": None}, {"stepKey": "b", "taskType": "noop"}],
        "edges": [{"from_step_key": "a", "toStepKey": "b", "condition": ""}],
    }
    spec = CompositeSpec.from_dict(given)
    assert spec.edges[0].condition == "success"
    assert json.loads(json.dumps(spec.to_dict())) == {
        "name": "x",
        "maxParallel": 2,
        "steps": [
            {"stepKey": "a", "position": 0, "taskType": "noop", "payload": {}, "enabled": True},
            {"stepKey": "b", "position": 1, "taskType": "noop", "payload": {}, "enabled": True},
        ],
        "edges": [{"fromStepKey": "a", "toStepKey": "b"}],
    }


def test_null_means_the_default_for_conditions_and_joins() -> None:
    data = {
        "name": "nulls",
        "inputs": None,
        "steps": [{"stepKey": "a", "taskType": "x"}, {"stepKey": "b", "taskType": "x", "join": None, "priority": None}],
        "edges": [{"fromStepKey": "a", "toStepKey": "b", "condition": None}],
    }
    spec = CompositeSpec.from_dict(data)
    assert (spec.steps[1].join, spec.steps[1].priority, spec.edges[0].condition) == ("all", "normal", "success")


def test_a_join_without_edges_is_a_warning() -> None:
    graph = Composite("alarm-only")
    graph.step("alarm", "x", join="any_failed")
    [problem] = check(graph.spec).problems
    assert (problem.code, problem.severity) == ("join_without_edges", "warning")
    assert "starts at once" in problem.message
