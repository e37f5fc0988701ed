"""The small evaluator of conditions and joins: what it can say, what it refuses, and what is not known yet. (3.4)"""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composites.expressions import UNKNOWN, parse
from taskcenter.errors import ExpressionError

RESULT: dict[str, Any] = {"n": 3, "rows": [{"id": 7}, {"id": 8}], "text": "abc", "none": None, "ok": True, "a-b": 1}


def value(text: str, **scope: Any) -> Any:
    return parse(text).evaluate({"result": RESULT, **scope})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("result.n > 0", True),
        ("result.n > 3", False),
        ("0 < result.n <= 3", True),
        ("0 < result.n < 3", False),
        ("result.n == 3 and result.ok", True),
        ("result.n == 4 or result.text", "abc"),
        ("not result.none", True),
        ("result.rows[0].id + 1 == result.rows[-1].id", True),
        ("result['a-b'] == 1", True),
        ('result["rows"][1]["id"]', 8),
        ("result.n * 2 - 1", 5),
        ("result.n / 2", 1.5),
        ("result.n // 2", 1),
        ("-result.n % 2", 1),
        ("result.text + 'd'", "abcd"),
        ("'b' in result.text", True),
        ("result.n in [1, 2, 3]", True),
        ("result.n not in (1, 2)", True),
        ("'n' in result", True),
        ("result.none is null", True),
        ("result.none == None", True),
        ("result.ok == true and True", True),
        ("result.ok != false", True),
        ("  result.n  ", 3),
        ("result", RESULT),
    ],
)
def test_what_it_can_say(text: str, wanted: Any) -> None:
    assert value(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "len(result)",
        "result.text.upper()",
        "__import__('os').system('true')",
        "(lambda: 1)()",
        "[x for x in result.rows]",
        "{x: 1 for x in result}",
        "{'a': 1}",
        "{1, 2}",
        "f'{result.n}'",
        "result.__class__",
        "result._private",
        "().__class__.__bases__",
        "2 ** 99999999",
        "1 << 99999999",
        "result.n | 1",
        "~result.n",
        "result.rows[0:1]",
        "1 if result.n else 2",
        "(x := 1)",
        "[*result.rows]",
        "b'bytes'",
        "1j",
        "...",
        "await result",
        "yield",
        "result.n = 1",
        "result.n; 1",
        "import os",
        "",
        "   ",
        "result.",
        "(" * 300 + "1" + ")" * 300,
        "[" * 150 + "]" * 150,
        "-" * 500 + "1",
        "not " * 240 + "true",
        "result" + ".a" * 400,
        "1" * 2_000,
        "+".join(["1"] * 300),
        "\x00",
        "resu\nlt",
    ],
)
def test_what_it_refuses(text: str) -> None:
    with pytest.raises(ExpressionError) as error:
        parse(text)
    assert error.value.message
    assert error.value.error_type == "expression"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("result.nope > 1", "there is no 'nope'; there are: n, rows, text, none, ok, a-b"),
        ("result.rows[5]", "there is no item 5; the list has 2"),
        ("result.none.x", "'x' cannot be looked up in NoneType"),
        ("result.text.x", "'x' cannot be looked up in str"),
        ("result.text[0]", "0 cannot be looked up in str"),
        ("other > 1", "'other' is not known; known: result"),
        ("result.n > 'a'", "not supported between"),
        ("result.n / 0", "division by zero"),
        ("result.n % 0", "modulo"),
        ("result.text * 1000000", "cannot combine str and int this way"),
        ("[1] * 1000000", "cannot combine list and int this way"),
        ("result.text + 1", "cannot combine str and int this way"),
        ("result.text % 5", "cannot combine str and int this way"),
        ("1 in 5", "not iterable"),
        ("-result.text", "bad operand"),
        ("result[[1]]", "unhashable"),
    ],
)
def test_an_error_names_the_expression_and_what_went_wrong(text: str, says: str) -> None:
    with pytest.raises(ExpressionError) as error:
        value(text)
    assert error.value.message.startswith(f"the expression {text!r} failed: ")
    assert says in error.value.message


def test_results_stay_small() -> None:
    with pytest.raises(ExpressionError, match="grows too large"):
        value("result.big * result.big", result={"big": 10**1_000})
    with pytest.raises(ExpressionError, match="grows too long"):
        value("result.t + result.t", result={"t": "x" * 60_000})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("result", UNKNOWN),
        ("result.a.b[3]", UNKNOWN),
        ("result.n > 3", UNKNOWN),
        ("3 < result.n", UNKNOWN),
        ("result.n + 1", UNKNOWN),
        ("not result.n", UNKNOWN),
        ("-result.n", UNKNOWN),
        ("1 in result.list", UNKNOWN),
        ("1 in [result.n]", UNKNOWN),
        ("result.n in [1, 2]", UNKNOWN),
        ("[1, 2][result.n]", UNKNOWN),
        ("result.n > 3 and true", UNKNOWN),
        ("true and result.n > 3", UNKNOWN),
        ("result.n > 3 and false", False),
        ("false and result.n > 3", False),
        ("result.n > 3 or true", True),
        ("true or result.n > 3", True),
        ("result.n > 3 or false", UNKNOWN),
        ("not (result.n > 3 and false)", True),
        ("1 > 2 > result.n", False),
    ],
)
def test_what_is_not_known_yet_stays_so_unless_the_rest_decides(text: str, wanted: Any) -> None:
    got = parse(text).evaluate({"result": UNKNOWN})
    assert got is wanted


def test_unknown_is_one_thing_even_when_copied() -> None:
    assert copy.deepcopy({"a": UNKNOWN})["a"] is UNKNOWN
    assert repr(UNKNOWN) == "UNKNOWN"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a.success and not b.failed", {"a", "b"}),
        ("steps['a-b'].success or steps.c.failed", {"a-b", "c", "steps"}),
        ("result.n > 0 and true and null", {"result"}),
        ("a['b'].c", {"a"}),
        ("a[b]", {"a", "b"}),
    ],
)
def test_the_names_it_reads(text: str, names: set[str]) -> None:
    assert parse(text).names == names


NUMBERS = st.integers(-50, 50)


@given(NUMBERS, NUMBERS, NUMBERS, st.sampled_from(["+", "-", "*"]), st.sampled_from(["<", "<=", "==", "!=", ">", ">="]))
def test_numbers_count_as_they_do_in_python(a: int, b: int, c: int, sign: str, than: str) -> None:
    text = f"({a}) {sign} x {than} ({c}) or not ({a} {than} x)"
    assert parse(text).evaluate({"x": b}) == eval(text.replace("x", f"({b})"))


@given(st.text(max_size=60))
def test_any_text_is_an_expression_or_a_refusal(text: str) -> None:
    try:
        parsed = parse(text)
    except ExpressionError:
        return
    with contextlib.suppress(ExpressionError):
        parsed.evaluate({"result": {"n": 1}})


GRAMMAR = st.recursive(
    st.sampled_from(["result.n", "result.t", "unknown", "1", "0", "'x'", "true", "null", "result.list"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or", "+", "==", "<", "in", "*"]), inner).map(
            lambda p: f"({' '.join(p)})"
        ),
        inner.map(lambda text: f"(not {text})"),
    ),
    max_leaves=8,
)


@given(GRAMMAR, st.sampled_from([0, 1, "x", None, True, [1]]))
def test_a_decided_plan_is_never_contradicted_by_the_run(text: str, later: Any) -> None:
    """What an expression says before a value is known, where it says anything, it says whatever the value becomes."""
    scope = {"result": {"n": 1, "t": "x", "list": [1, "x"]}}
    try:
        before = parse(text).evaluate({**scope, "unknown": UNKNOWN})
    except ExpressionError:
        return
    if before is UNKNOWN:
        return
    try:
        after = parse(text).evaluate({**scope, "unknown": later})
    except ExpressionError:
        return
    assert bool(after) == bool(before)
