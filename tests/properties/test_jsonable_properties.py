"""Whatever is returned becomes JSON or is refused with a path; nothing else can happen."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from taskcenter.errors import ValidationFailed
from taskcenter.jsonable import size_of, to_jsonable

leaves = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.decimals(), st.uuids()),
    *(st.datetimes(), st.dates(), st.times(), st.timedeltas(), st.just(object())),
)
hashable = st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.dates())
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner, inner), st.dictionaries(hashable, inner), st.sets(hashable)
    ),
    max_leaves=20,
)


@given(values)
def test_the_result_is_json_or_every_problem_has_a_path(value: Any) -> None:
    try:
        result = to_jsonable(value)
    except ValidationFailed as refusal:
        problems = refusal.problems
    else:
        problems = ()
    if problems:
        assert all(p.path.startswith("result") and p.message for p in problems)
        return
    text = json.dumps(result, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    assert json.loads(text) == result
    assert size_of(result) == len(text.encode("utf-8", "surrogatepass"))
    assert to_jsonable(result) == result
