"""``{{ … }}`` in the strings of a step: the grammar, fall-backs, and that nothing is rendered twice. (spec 3.6)"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composites.expressions import UNKNOWN
from composites.templates import has_template, parse, placeholders, render
from taskcenter.errors import MappingError

SCOPE: dict[str, Any] = {
    "steps": {
        "a": {"status": "success", "execution": {"rows": 3, "list": [{"x": 1}, "two"], "a.b": "dot"}, "durationMs": 7},
        "a-b": {"status": "success", "execution": [10, 20, 30], "durationMs": 1},
        "bad": {"status": "failed", "error": "no disk", "errorType": "error", "durationMs": 2},
        "off": {"status": "skipped", "execution": None, "reason": "it is disabled in the definition"},
    },
    "inputs": {"day": "2025-01-02", "null": None, "deep": {"q'uote": 1, 'd"quote': 2, "7": "seven"}, "empty": ""},
    "run": {"id": "r-1", "slot": None},
    "task": {"slug": "nightly"},
    "env": {"HOME": "/home/x"},
    "item": {"name": "t1"},
    "index": 4,
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{steps.a.execution.rows}}", 3),
        ("{{steps.a.rows}}", 3),
        ("{{ steps . a . rows }}", 3),
        ("{{steps.a.status}}", "success"),
        ("{{steps.a.durationMs}}", 7),
        ("{{steps.a.list[0].x}}", 1),
        ("{{steps.a.list[-1]}}", "two"),
        ("{{steps.a.list.1}}", "two"),
        ("{{steps.a['a.b']}}", "dot"),
        ('{{steps["a"]["a.b"]}}', "dot"),
        ('{{steps["a-b"][2]}}', 30),
        ("{{steps.a-b[0]}}", 10),
        ("{{steps.a-b}}", {"status": "success", "execution": [10, 20, 30], "durationMs": 1}),
        ("{{steps.bad.error}}", "no disk"),
        ("{{steps.off.execution}}", None),
        ("{{steps.off.status}}", "skipped"),
        ("{{inputs.day}}", "2025-01-02"),
        ("{{inputs.deep['q\\'uote']}}", 1),
        ('{{inputs.deep["q\'uote"]}}', 1),
        ('{{inputs.deep["d\\"quote"]}}', 2),
        ("{{inputs.deep['7']}}", "seven"),
        ("{{run.id}}", "r-1"),
        ("{{run.slot}}", None),
        ("{{task.slug}}", "nightly"),
        ("{{env.HOME}}", "/home/x"),
        ("{{item.name}}", "t1"),
        ("{{index}}", 4),
    ],
)
def test_one_placeholder_keeps_the_type_of_its_value(text: str, value: Any) -> None:
    got = render(text, SCOPE)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ""),
        ("no template", "no template"),
        ("{ } }} {", "{ } }} {"),
        ("day {{inputs.day}}", "day 2025-01-02"),
        (" {{steps.a.rows}}", " 3"),
        ("{{inputs.day}}/{{steps.a.rows}}/{{run.id}}", "2025-01-02/3/r-1"),
        ("{{steps.a.rows}}{{steps.a.rows}}", "33"),
        ("slot=[{{run.slot}}]", "slot=[]"),
        ("x{{inputs.empty}}y", "xy"),
        ("{{steps.a-b.execution}} rows", "[10, 20, 30] rows"),
        ("got {{steps.a.list[0]}}", 'got {"x": 1}'),
        ("{{inputs.day}}}}", "2025-01-02}}"),
        ("é{{inputs.day}}ü", "é2025-01-02ü"),
        ("a\n{{run.id}}\nb", "a\nr-1\nb"),
    ],
)
def test_a_mixed_string_renders_null_as_nothing_text_raw_and_the_rest_as_json(text: str, value: str) -> None:
    assert render(text, SCOPE) == value


def test_every_string_at_any_depth_is_rendered_and_everything_else_stays() -> None:
    value = {"a": ["{{run.id}}", 1, None, True, {"b": "{{inputs.day}}!"}], "{{run.id}}": 2.5}
    assert render(value, SCOPE) == {"a": ["r-1", 1, None, True, {"b": "2025-01-02!"}], "{{run.id}}": 2.5}
    assert value["a"][0] == "{{run.id}}", "the definition is not changed"  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{{inputs.nope | default("x")}}', "x"),
        ("{{inputs.nope|default('x')}}", "x"),
        ("{{inputs.nope | default( 3 ) }}", 3),
        ("{{inputs.nope | default(null)}}", None),
        ('{{inputs.nope | default({"a": [1, 2]})}}', {"a": [1, 2]}),
        ("{{steps.bad.rows | default(0)}}", 0),
        ("{{steps.off.rows | default([])}}", []),
        ("{{inputs.day | default(0)}}", "2025-01-02"),
        ("{{inputs.null | default(5)}}", None),
        ('n={{inputs.nope | default("}}")}}', "n=}}"),
        ('{{inputs.nope | default("{{run.id}}")}}', "{{run.id}}"),
    ],
)
def test_a_default_stands_in_for_a_path_that_is_not_there(text: str, value: Any) -> None:
    assert render(text, SCOPE) == value


def test_rendered_values_are_never_rendered_again() -> None:
    """An output that looks like a template, or like a secret's, is text like any other."""
    nasty = 'x {{secret("db")}} {{env.HOME}} {{'
    scope = {**SCOPE, "inputs": {"nasty": nasty, "list": [nasty]}, "steps": {"a": {"execution": {"out": nasty}}}}

    def secret(name: str) -> str:
        raise AssertionError("no secret was asked for")

    assert render("{{inputs.nasty}}", scope, secret) == nasty
    assert render("<{{steps.a.out}}>", scope, secret) == f"<{nasty}>"
    assert render({"a": ["{{inputs.list}}"]}, scope, secret) == {"a": [[nasty]]}
    assert render("{{inputs.nope | default('{{secret(\"db\")}}')}}", scope, secret) == '{{secret("db")}}'


def test_a_secret_is_resolved_only_where_somebody_can() -> None:
    text = "postgres://u:{{ secret(\"db/pass word\") }}@h and {{secret('k')}}"
    assert render(text, {}) == "postgres://u:‹secret db/pass word›@h and ‹secret k›"
    assert render(text, {}, lambda name: f"<{name}>") == "postgres://u:<db/pass word>@h and <k>"
    assert [p.secret for _, p in placeholders({"x": text})] == ["db/pass word", "k"]
    assert render('{{secret("a")}}', {}, lambda name: '{{secret("b")}}') == '{{secret("b")}}'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "{{inputs.nope}}",
            "{{inputs.nope}} cannot be resolved: inputs has no 'nope'; it is an object with the keys day",
        ),
        ("{{steps.a.nope}}", "steps.a.execution has no 'nope'; it is an object with the keys rows, list, a.b"),
        ("{{steps.a.list[2]}}", "steps.a.execution.list has no 2; it is a list of 2"),
        ("{{steps.a.list.x}}", "steps.a.execution.list has no 'x'; it is a list of 2"),
        ("{{steps.a.list[0].x.y}}", "steps.a.execution.list[0].x has no 'y'; it is a number"),
        ("{{steps.a.list[1].y}}", "steps.a.execution.list[1] has no 'y'; it is a text"),
        ("{{steps.off.rows}}", "steps.off.execution has no 'rows'; it is null"),
        ("{{steps.bad.rows}}", "steps.bad has no 'execution'; it is an object with the keys status, error"),
        ("{{steps.ghost.rows}}", "steps has no 'ghost'; it is an object with the keys a, a-b, bad, off"),
        ("{{inputs.deep[7]}}", "inputs.deep has no 7"),
        ("x {{env.NOPE}}", "{{env.NOPE}} cannot be resolved: env has no 'NOPE'"),
    ],
)
def test_a_path_that_is_not_there_says_what_was(text: str, says: str) -> None:
    with pytest.raises(MappingError) as error:
        render(text, SCOPE)
    assert says in error.value.message
    assert error.value.error_type == "mapping"


def test_what_was_there_is_named_without_its_contents() -> None:
    with pytest.raises(MappingError) as error:
        render("{{inputs.token.x}}", {"inputs": {"token": "s3cret-value"}})
    assert "s3cret" not in error.value.message


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("{{", 3, "a name such as steps"),
        ("{{}}", 3, "a name such as steps"),
        ("{{ }}", 3, "a name such as steps"),
        ("x {{run.id", 11, "'}}' is expected"),
        ("{{run.id}", 9, "'}}' is expected"),
        ("{{oops.x}}", 3, "'oops' is not known; known: steps, inputs, run, task, env, item, index, secret"),
        ("{{steps}}", 8, "a step key is expected"),
        ("{{steps[0]}}", 11, "a step key is expected"),
        ("{{inputs}}", 9, "a name is expected after 'inputs'"),
        ("{{steps.a.}}", 10, "'}}' is expected"),
        ("{{steps.a[}}", 10, "'}}' is expected"),
        ("{{steps.a['x}}", 10, "'}}' is expected"),
        ("{{run.id | upper}}", 10, "'}}' is expected"),
        ("{{run.id | default()}}", 20, "default(…) takes a JSON value"),
        ("{{run.id | default(NaN)}}", 20, "default(…) takes a JSON value"),
        ("{{run.id | default(1}}", 21, "')' is expected"),
        ("{{run.id | default('x)}}", 20, "the quote is not closed"),
        ("{{secret(db)}}", 3, "'secret' is not known"),
        ("{{run.id}} {{1}}", 14, "a name such as steps"),
        ("{{run.__class__()}}", 16, "'}}' is expected"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_column(text: str, column: int, says: str) -> None:
    with pytest.raises(MappingError) as error:
        parse(text)
    assert f"cannot be read at column {column}: " in error.value.message
    assert says in error.value.message


def test_a_long_text_is_shortened_in_the_message() -> None:
    with pytest.raises(MappingError) as error:
        parse("{{oops}}" + "x" * 1_000_000)
    assert len(error.value.message) < 400


def test_a_default_nested_beyond_reason_is_a_mistake_and_no_crash() -> None:
    with pytest.raises(MappingError):
        parse("{{run.id | default(" + "[" * 100_000 + ")}}")


def test_what_a_step_does_to_its_payload_stays_with_it() -> None:
    """Two readers of one value, and of one default, get a copy each."""
    first = render({"l": "{{steps.a-b.execution}}", "d": "{{inputs.nope | default([])}}"}, SCOPE)
    first["l"].append(40)
    first["d"].append(1)
    assert render("{{steps.a-b.execution}}", SCOPE) == [10, 20, 30]
    assert render("{{inputs.nope | default([])}}", SCOPE) == []


def test_in_a_plan_a_value_to_come_shows_where_it_comes_from() -> None:
    scope = {"steps": {"a": UNKNOWN}, "run": UNKNOWN, "item": UNKNOWN, "inputs": {}}
    assert render("{{steps.a.rows}}", scope) == "‹from steps.a.rows›"
    assert (
        render("{{steps.a.execution.rows[0]}} of {{run.id}}", scope)
        == "‹from steps.a.execution.rows.0› of ‹from run.id›"
    )
    with pytest.raises(MappingError):
        render("{{inputs.x}}", scope)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_any_json_value_comes_through_one_placeholder_unchanged(value: Any) -> None:
    scope = {"inputs": {"x": value}}
    got = render({"k": ["{{inputs.x}}"]}, scope)["k"][0]
    assert got == value
    assert type(got) is type(value)


@given(st.text())
def test_any_text_without_two_braces_is_left_alone(text: str) -> None:
    if "{{" not in text:
        assert render(text, {}) == text
        assert not has_template(text)


@given(st.text(alphabet="{}secrtipu.\"'[]()|dfa01 \\-$", max_size=60))
def test_no_text_at_all_ends_in_anything_but_a_value_or_a_mapping_error(text: str) -> None:
    with contextlib.suppress(MappingError):
        render("{{" + text, {"inputs": {"s": 1}}, lambda name: "v")


@given(st.text(min_size=1), st.text())
def test_any_key_can_be_quoted(key: str, around: str) -> None:
    quoted = key.replace("\\", "\\\\").replace('"', '\\"')
    if "\n" in quoted:
        return  # a backslash escapes one character of the same line; a key with a line break is read by its parent
    assert render(f'{{{{inputs["{quoted}"]}}}}', {"inputs": {key: around}}) == around
