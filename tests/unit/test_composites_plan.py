"""The plan, what resuming reuses, the renderings and the loader. (spec 3.8, 3.9)"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from composites import Composite
from composites.load import catalog, find, load_file
from composites.plan import Expectation, Plan, PlanStep, make_plan
from composites.render import render, render_plan, to_dot, to_mermaid, to_tree
from composites.resume import apply_set, decide_resume, select
from composites.walk import Overrides
from taskcenter.context import PlanNote, RunContext
from taskcenter.errors import NotFound, ValidationFailed
from taskcenter.task_types import Registry, task_type
from tests.graphs import composite

types = Registry()


@task_type("noop", into=types, plan=lambda payload, ctx: PlanNote(f"does nothing with {payload.x}"))
def noop(x: int = 0) -> None: ...


@task_type("broken", into=types, plan=lambda payload, ctx: payload.nothing_like_it, danger="breaks", expensive=True)
def broken(connection: str = "") -> None: ...


def by_key(plan: Plan) -> dict[str, PlanStep]:
    return {step.key: step for step in plan.steps}


def test_a_plan_follows_success_and_says_what_depends_on_more() -> None:
    spec = composite(
        {"a": {}, "b": {}, "alarm": {"join": "any_failed"}, "big": {}, "after": {}, "off": {"enabled": False}},
        [("a", "b"), ("a", "alarm"), ("b", "alarm"), ("a", "big", "result.rows > 10"), ("big", "after")],
    )
    plan = make_plan(spec)
    steps = by_key(plan)
    assert {k: (s.predicted, s.certain) for k, s in steps.items()} == {
        "a": ("success", True),
        "b": ("success", True),
        "alarm": ("skipped", False),
        "big": ("success", False),
        "after": ("success", False),
        "off": ("skipped", True),
    }
    assert steps["alarm"].depends_on == ("a", "b")
    assert steps["alarm"].reason == "its join any_failed can no longer hold since b ended success"
    assert steps["big"].depends_on == ("a",)
    assert steps["after"].depends_on == ("big",)
    assert steps["off"].reason == "it is disabled in the definition"
    assert plan.order[0] == "a"
    assert set(plan.order) == {"a", "b", "big", "after"}


def test_a_plan_shows_what_is_known_and_where_the_rest_comes_from() -> None:
    spec = composite(
        {
            "a": {"payload": {"day": "{{inputs.day}}", "password": "hunter2-x9!", "s": '{{secret("db")}}'}},
            "b": {"payload": {"rows": "{{steps.a.rows}}", "missing": "x"}},
            "c": {"payload": {"x": "{{inputs.nope}}"}},
        },
        [("a", "b")],
        inputs={"day": "mon"},
    )
    steps = by_key(make_plan(spec, inputs={"day": "tue"}))
    assert steps["a"].resolved_payload["day"] == "tue"
    assert steps["a"].secrets == ("db",)
    assert "hunter2" not in json.dumps(steps["a"].to_dict())
    assert steps["b"].resolved_payload["rows"] == "‹from steps.a.rows›"
    assert steps["b"].mapping_error is None
    assert (
        steps["c"].mapping_error
        == "{{inputs.nope}} cannot be resolved: inputs has no 'nope'; it is an object with the keys day"
    )


def test_a_reference_that_can_never_resolve_is_an_error_of_the_plan() -> None:
    """``a`` is left out of the run, so there is nothing that ``b`` could read."""
    spec = composite({"a": {}, "b": {"payload": {"x": "{{steps.a.rows}}", "y": "{{steps.a.status}}"}}}, [("a", "b")])
    assert by_key(make_plan(spec))["b"].mapping_error is None
    for over in (select(spec, only=["b"]), select(spec, skip=["a"])):
        step = by_key(make_plan(spec, overrides=over))["b"]
        assert step.mapping_error == "{{steps.a.rows}} cannot be resolved: steps.a.execution has no 'rows'; it is null"


def test_reused_results_are_certain_and_their_values_known() -> None:
    spec = composite({"a": {}, "b": {"payload": {"x": "{{steps.a.rows}}"}}}, [("a", "b", "result.rows > 2")])
    plan = make_plan(spec, overrides=Overrides(reused={"a": {"rows": 3}}))
    assert [(s.key, s.predicted, s.certain) for s in plan.steps] == [("a", "reused", True), ("b", "success", True)]
    assert by_key(plan)["b"].resolved_payload == {"x": 3}


@pytest.mark.parametrize(
    ("over", "items", "error"),
    [
        ([1, 2, 3], 3, None),
        ("{{inputs.tables}}", 2, None),
        ("{{steps.a.tables}}", None, None),
        ("{{inputs.nope}}", None, "{{inputs.nope}} cannot be resolved: inputs has no 'nope'"),
        ("{{inputs.text}}", None, "mapOver gave a str, not a list"),
        ([1] * 6, 6, "mapOver gave 6 items; at most 5 are allowed"),
    ],
)
def test_a_plan_counts_the_items_of_a_map(over: Any, items: int | None, error: str | None) -> None:
    steps: dict[str, Any] = {"a": {}, "b": {"map_over": over, "map_max_items": 5}}
    step = by_key(make_plan(composite(steps, [("a", "b")], inputs={"tables": ["x", "y"], "text": "t"})))["b"]
    assert step.items == items
    assert (step.mapping_error or "").startswith(error or "")
    assert (step.mapping_error is None) == (error is None)


def test_the_notes_of_task_types_and_one_whose_preview_is_broken() -> None:
    spec = composite({"a": {"payload": {"x": 3}}, "b": {"task_type": "broken", "payload": {"connection": "dw"}}})
    plan = make_plan(spec, find_type=types.types.get, has_connection=lambda name: False)
    a, b = by_key(plan)["a"], by_key(plan)["b"]
    assert a.note is not None
    assert a.note.summary == "does nothing with 3"
    assert b.note is None
    assert "nothing_like_it" in (b.note_error or "")
    assert (b.danger, b.expensive, b.connections) == ("breaks", True, {"dw": False})
    assert "connection dw (MISSING)" in render_plan(plan, "tree", spec)


def test_expected_times_follow_from_history_on_a_virtual_clock() -> None:
    spec = composite("a b c d", [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")])
    history = {key: Expectation(p50, p50 * 2, 9) for key, p50 in {"a": 1, "b": 5, "c": 2, "d": 1}.items()}
    plan = make_plan(spec, history=history)
    assert {s.key: (s.expected_start, s.expected_end) for s in plan.steps} == {
        "a": (0, 1), "b": (1, 6), "c": (1, 3), "d": (6, 7),
    }  # fmt: skip
    assert (plan.expected_total, plan.critical_path) == (7, ("a", "b", "d"))
    one = make_plan(composite("a b c", max_parallel=1), history=history)
    assert one.expected_total == 8
    assert make_plan(spec, history={"a": history["a"]}).expected_total is None


def test_the_longest_chain_of_a_sequential_composite_is_all_of_it() -> None:
    plan = make_plan(composite("a b c", sequential=True))
    assert (plan.critical_path, plan.order, plan.waves) == (("a", "b", "c"), ("a", "b", "c"), 3)


def test_the_hash_changes_with_what_matters_and_with_nothing_else() -> None:
    spec = composite({"a": {"payload": {"x": 1}}}, inputs={"day": "mon"})

    def of(one: Any = spec, **more: Any) -> str:
        return make_plan(one, **more).hash

    assert of() == of() == of(inputs={"day": "mon"}) == of(history={"a": Expectation(1, 2, 3)})
    others = [
        of(composite({"a": {"payload": {"x": 2}}}, inputs={"day": "mon"})),
        of(inputs={"day": "tue"}),
        of(revision=2),
        of(overrides=Overrides(skip=frozenset({"a"}))),
        of(overrides=Overrides(reused={"a": 1})),
    ]
    assert len({of(), *others}) == 6


def test_a_plan_keeps_the_keys_of_the_stored_form() -> None:
    data = make_plan(composite("a"), task_id="t-1").to_dict()
    assert (data["executor"], data["taskId"], data["dryRun"], data["totalSteps"]) == ("composite", "t-1", True, 1)
    assert {"continueOnError", "failOnAnyError", "planHash"} <= set(data)
    assert {"step", "stepKey", "name", "position", "wave", "certain", "resolvedPayload"} <= set(data["steps"][0])
    assert data["steps"][0]["status"] == "planned"


# --- selections and resuming --------------------------------------------------------------------------------------

DIAMOND = composite("a b c d e", [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")])


def test_selections_follow_the_edges() -> None:
    assert select(DIAMOND).selected is None
    assert select(DIAMOND, only=["b", "e"]).selected == {"b", "e"}
    assert select(DIAMOND, start_from=["b"]).selected == {"b", "d"}
    assert select(DIAMOND, downstream_of=["a"]).selected == {"b", "c", "d"}
    over = select(DIAMOND, skip=["a"], hold=["b"], fail=["c"])
    assert (over.skip, over.hold, over.fail) == ({"a"}, {"b"}, {"c"})
    in_turn = composite("a b c", sequential=True)
    assert select(in_turn, start_from=["b"]).selected == {"b", "c"}
    with pytest.raises(ValidationFailed) as error:
        select(DIAMOND, only=["x", "y"])
    assert [p.message for p in error.value.problems] == ["there is no step 'x'", "there is no step 'y'"]


def test_payload_fields_of_one_run() -> None:
    changed = apply_set(DIAMOND, {"b": {"region": "us"}})
    assert [step.payload for step in changed.steps] == [{}, {"region": "us"}, {}, {}, {}]
    assert DIAMOND.steps[1].payload == {}
    with pytest.raises(ValidationFailed, match="there is no step 'x'"):
        apply_set(DIAMOND, {"x": {}})


def ended(**statuses: str) -> dict[str, dict[str, Any]]:
    return {key: {"status": status, "execution": {"of": key}} for key, status in statuses.items()}


def again(resume: Any) -> dict[str, str]:
    return {d.key: d.reason for d in resume.decisions if not d.reuse}


def test_resuming_what_failed() -> None:
    previous = ended(a="success", b="failed", c="success", d="skipped", e="success")
    resume = decide_resume(DIAMOND, previous, earlier=DIAMOND)
    assert resume.overrides.reused == {key: {"of": key} for key in "ace"}
    assert again(resume) == {
        "b": "it ended failed in the earlier run",
        "d": "it ended skipped in the earlier run",
    }
    assert "unchanged" in resume.decisions[0].reason


def test_a_change_since_then_runs_the_step_and_all_after_it_again() -> None:
    previous = ended(a="success", b="success", c="success", d="success", e="success")
    payload = apply_set(DIAMOND, {"b": {"x": 1}})
    assert set(again(decide_resume(payload, previous, earlier=DIAMOND))) == {"b", "d"}
    edge = composite("a b c d e", [("a", "b"), ("a", "c", "always"), ("b", "d"), ("c", "d")])
    assert again(decide_resume(edge, previous, earlier=DIAMOND)) == {
        "c": "its definition changed since the earlier run",
        "d": "c runs again, and its result may differ",
    }
    inputs = composite("a", inputs={"day": 2})
    assert set(again(decide_resume(inputs, previous, earlier=composite("a", inputs={"day": 1})))) == {"a"}


def test_resuming_from_a_step_downstream_of_it_and_alone() -> None:
    previous = ended(a="success", b="success", c="failed", d="success", e="success")
    resume = decide_resume(DIAMOND, previous, mode="from", step="b")
    assert (set(again(resume)), resume.overrides.selected) == ({"b", "c", "d"}, None)
    resume = decide_resume(DIAMOND, previous, mode="downstream", step="b")
    assert resume.overrides.selected == {"b", "d"}
    assert not set(resume.overrides.reused) & {"b", "d"}
    resume = decide_resume(DIAMOND, previous, mode="alone", step="b")
    assert resume.overrides.selected == {"b"}
    for wrong in ({"mode": "all"}, {"mode": "from"}, {"mode": "alone", "step": "x"}):
        with pytest.raises(ValidationFailed):
            decide_resume(DIAMOND, previous, **wrong)  # type: ignore[arg-type]


def test_resuming_a_sequential_composite_runs_what_came_later_again() -> None:
    in_turn = composite("a b c", sequential=True)
    resume = decide_resume(in_turn, ended(a="success", b="failed", c="success"))
    assert again(resume) == {
        "b": "it ended failed in the earlier run",
        "c": "b runs again, and its result may differ",
    }


def test_resuming_ten_thousand_steps_takes_no_square() -> None:
    keys = [f"s{i}" for i in range(10_000)]
    spec = composite({key: {} for key in keys}, list(pairwise(keys)))
    resume = decide_resume(spec, ended(**dict.fromkeys(keys[:5000], "success")), earlier=spec)
    assert len(resume.overrides.reused) == 5_000
    assert len(select(spec, start_from=keys[:1_000]).selected or ()) == 10_000


# --- renderings ---------------------------------------------------------------------------------------------------


def test_a_tree_names_each_step_once_under_the_parent_it_waits_for_longest() -> None:
    spec = composite(
        {"a": {}, "b": {"retries": 2}, "c": {"join": "any_failed"}, "d": {"enabled": False}},
        [("a", "b"), ("a", "c"), ("b", "c"), ("b", "d", "failed")],
    )
    assert to_tree(spec).splitlines() == [
        "test  4 steps, 3 waves, 8 at once",
        "└─ a  noop",
        "   └─ b  noop  (retries 2)",
        "      ├─ c  noop  (join any_failed; also after a)",
        "      └─ [failed] d  noop  (disabled)",
    ]
    assert "├─ ● c" in to_tree(spec, {"c": "success"})


def test_a_chain_of_ten_thousand_steps_is_drawn_without_growing_with_its_square() -> None:
    keys = [f"s{i}" for i in range(10_000)]
    spec = composite({key: {} for key in keys}, list(pairwise(keys)))
    text = to_tree(spec)
    assert text.count("\n") == 10_000
    assert len(text) < 10_000 * 130
    assert to_mermaid(spec).count("-->") == 9_999
    assert to_dot(spec).count("->") == 9_999


def test_renderings_quote_what_they_are_given() -> None:
    made = Composite('x"y')
    made.step('a"<b>', 'no"op')
    made.step("c", "noop")
    made.edge('a"<b>', "c", when='result["n"] > 1')
    mermaid, dot = to_mermaid(made.spec, {"c": "failed"}), to_dot(made.spec, {"c": "failed"})
    assert 's0["a&quot;&lt;b&gt;<br/>' in mermaid
    assert 's0 -->|"result[&quot;n&quot;] &gt; 1"| s1' in mermaid
    assert "class s1 failed" in mermaid
    assert 'digraph "x\\"y" {' in dot
    assert '"a\\"<b>" -> "c" [label="result[\\"n\\"] > 1"];' in dot
    assert json.loads(render(made.spec, "json")) == made.to_dict()
    with pytest.raises(ValueError, match="svg"):
        render(made.spec, "svg")


def test_a_plan_is_rendered_in_every_form() -> None:
    plan = make_plan(DIAMOND)
    assert json.loads(render_plan(plan, "json", DIAMOND))["planHash"] == plan.hash
    tree = render_plan(plan, "tree", DIAMOND).splitlines()
    assert tree[0] == "Plan of test: 5 steps in 3 waves, at most 8 at once"
    assert tree[2] == "  longest chain: a → b → d"
    for form in ("mermaid", "dot"):
        assert "success" in render_plan(plan, form, DIAMOND)


# --- files --------------------------------------------------------------------------------------------------------

GOOD = "from composites import Composite\nc = Composite('{name}')\nc.step('a', 'noop')\n"


def test_files_are_found_and_a_broken_one_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD.format(name="good"))
    (tmp_path / "data.json").write_text(json.dumps({"steps": [{"stepKey": "a", "taskType": "noop"}]}))
    (tmp_path / "_private.py").write_text("raise RuntimeError")
    (tmp_path / "again.py").write_text(GOOD.format(name="zzz") + GOOD.format(name="other"))
    broken = {
        "syntax.py": ("def f(:\n", "line 1"),
        "raises.py": ("x = 1\nraise RuntimeError('boom')\n", "line 2: RuntimeError: boom"),
        "leaves.py": ("import sys\n\nsys.exit(3)\n", "line 3: SystemExit: 3"),
        "none.py": ("x = 1\n", "the file defines no Composite"),
        "wrong.py": ("from composites import Composite\nComposite.from_dict([])\n", "must be a JSON object"),
        "bad.json": ("{", "is not JSON"),
        "field.json": ('{"steps": 3}', "steps: must be a list, not int"),
        "deep.json": ("[" * 100_000, "nested too deeply"),
        "twice.py": (GOOD.format(name="good"), "the name 'good' is used by"),
    }
    for name, (text, _) in broken.items():
        (tmp_path / name).write_text(text)
    found, lost = catalog(tmp_path)
    names = [item.spec.name for item in found]
    assert {"good", "data", "other"} <= set(names)
    said = {item.file.name: item.message for item in lost if item.file.parent == tmp_path.resolve()}
    assert set(said) == set(broken)
    for name, (_, says) in broken.items():
        assert says in said[name], name


def test_a_name_that_is_not_there_gives_the_names_that_are(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD.format(name="good"))
    (tmp_path / "bad.json").write_text("{")
    assert find("good", tmp_path).spec.name == "good"
    with pytest.raises(NotFound) as error:
        find("goods", tmp_path)
    assert "good" in error.value.message
    assert "bad.json" in error.value.message
    with pytest.raises(NotFound, match="there is no file"):
        load_file(tmp_path / "nowhere.py")


def test_a_context_for_previews_is_a_dry_run() -> None:
    seen: list[RunContext] = []
    private = Registry()

    def preview(payload: Any, ctx: RunContext) -> PlanNote:
        seen.append(ctx)
        return PlanNote("x")

    task_type("peek", into=private, plan=preview)(lambda: None)
    make_plan(composite({"a": {"task_type": "peek"}}), find_type=private.types.get)
    assert [ctx.dry_run for ctx in seen] == [True]
