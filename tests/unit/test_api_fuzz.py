"""Whatever is sent to whichever route: an answer below 500, in the documented form. The OpenAPI document names them."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskcenter_console.api.app import make_app
from tests.fakes import api_client, fake_center

if TYPE_CHECKING:
    from starlette.testclient import TestClient

STEP = {"stepKey": "a", "position": 0, "taskType": "wait", "payload": {"seconds": 1}, "join": "all", "retries": 1}
GRAPH = {
    "steps": [
        STEP,
        {**STEP, "stepKey": "b", "payload": {"seconds": "{{steps.a.x}}"}, "mapOver": [1], "onError": "stop"},
    ],
    "edges": [{"fromStepKey": "a", "toStepKey": "b", "condition": "result.x > 1"}],
}
COMPOSITE = {"name": "c", "inputs": {"x": 1}, "maxParallel": 2, "haltMode": "wait", "tags": ["x"], **GRAPH}
TASK = {
    "name": "Fuzz",
    "slug": "fuzz",
    "taskType": "shell",
    "payload": {"command": ["echo", "x"], "cwd": "/tmp", "environment": {"A": "b"}},
    "tags": ["a"],
    "environment": {"A": "b"},
    "termination": {"maxRuntime": 1.5, "maxFailures": 1},
    "retryPolicy": {"maxAttempts": 1, "backoffMs": 1, "strategy": "fixed"},
    "maxConcurrent": 1,
    "priority": "high",
    "triggers": [
        {"type": "cron", "cronExpression": "0 1 * * *", "timezone": "Europe/Berlin", "payload": {"a": 1}},
        {"type": "interval", "intervalSeconds": 60, "anchor": "2026-01-01T00:00:00Z"},
        {"type": "one_shot", "runAt": "2030-01-01T00:00:00Z", "enabled": False},
    ],
}
GRAPHED = {"name": "Fuzz two", "taskType": "composite", "graph": GRAPH, "schedule": "0 1 * * *"}
SQL = {"name": "S", "taskType": "sql_script", "payload": {"connection": "x", "sql": "select 1", "parameters": {"a": 1}}}
HTTP = {
    "name": "H",
    "taskType": "http",
    "payload": {"url": "http://127.0.0.1:1/", "method": "GET", "headers": {"a": "b"}},
}
RUN = {
    "payload": {"command": ["date"]},
    "options": {"skip": ["a"], "set": {"a": {"x": 1}}, "from": ["b"], "resume": "0000", "planHash": "x"},
    "dryRun": True,
    "at": "2030-01-01T00:00:00Z",
    "confirm": True,
}
STEPS = {"payload": {"x": 1}, "options": {"skip": ["a"], "set": {"b": {"x": 1}}, "hold": ["b"]}, "confirm": True}
TASKS: list[Any] = [TASK, GRAPHED, SQL, HTTP]
SEEDS: dict[str, list[Any]] = {
    "/api/tasks": TASKS,
    "/api/tasks/{name}": TASKS,
    "/api/tasks/import": [{"tasks": [TASK, GRAPHED], "schemaVersion": 1}],
    "/api/tasks/{name}/run": [RUN, STEPS],
    "/api/tasks/{name}/plan": [{"payload": {"x": 1}}, {"options": STEPS["options"]}],
    "/api/composites/check": [COMPOSITE],
    "/api/composites/plan": [COMPOSITE],
}

ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, 0, -1, 2**31, 2**62, -(2**62), 1e308, 5e-324, 0.5),
        *("", " ", "\t", "a" * 300, "\u202e", "\ud7ff", "😀", "\x7f", "-", "_", "__proto__"),
        *("../../etc/passwd", "a.py", "a/b", "'; drop table tasks; --", "${x}", "%s%n", "true", "[]", "inf", "1e999"),
        *("{{inputs.x}}", "{{steps.a.b[0]}}", "{{ 9 ** 9 ** 9 }}", "{{", "{% x %}", "result.x ** 99", "n_failed:3"),
        *("0 0 31 2 *", "* * * * * *", "@daily", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"),
        *([], {}, [[]], [{}], {"": 0}, {"a": {"b": {"c": {}}}}, [None], [0] * 50),
        *({"$ref": "#"}, {"secret": "x"}, {"__class__": 1}),
    ]
).map(copy.deepcopy)
TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=30)
LEAVES = ODD | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
ANY = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12
)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*at, key))


@st.composite
def bent(draw: st.DrawFn, seeds: list[Any]) -> Any:
    """Something valid with a few of its places changed, removed or added to."""
    body = copy.deepcopy(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.sampled_from(list(places(body))))
        if not at:
            continue
        holder = body
        for key in at[:-1]:
            holder = holder[key]
        match draw(st.sampled_from(["change", "remove", "add"])):
            case "change":
                holder[at[-1]] = draw(ANY)
            case "remove":
                del holder[at[-1]]
            case "add" if isinstance(holder, dict):
                holder[draw(TEXTS)] = draw(ANY)
    return body


def operations(*methods: str) -> list[tuple[str, str]]:
    document = make_app(None).openapi()  # type: ignore[arg-type]
    return [(m, path) for path, item in document["paths"].items() for m in item if m in methods]


KNOWN: list[Any] = [{**TASK, "name": "Known", "slug": "known"}, {**GRAPHED, "name": "Graphed"}]


@pytest.fixture
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with fake_center(tmp_path_factory.mktemp("fuzz")) as center:
        client = api_client(center)
        for task in KNOWN:
            assert client.post("/api/tasks", json=task).status_code == 201
        assert client.post("/api/tasks/known/run").status_code == 202
        yield client


def holds(answer: Any) -> None:
    """Below 500, and a refusal is a problem whose parts are texts."""
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        body = answer.json()
        assert body["status"] == answer.status_code
        assert body["detail"]
        assert "Traceback" not in answer.text
        for item in body["errors"]:
            assert all(isinstance(item[name], str) for name in ("path", "code", "message"))
            assert item["message"]


def filled(path: str, value: str) -> str:
    """The address with ``value`` for each of its parts that stand for something."""
    return re.sub(r"\{\w+\}", lambda _: value, path)


RELAXED = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(("method", "path"), operations("post", "patch", "put", "delete"))
def test_any_body(client: TestClient, method: str, path: str) -> None:
    everything = [seed for seeds in SEEDS.values() for seed in seeds]

    @RELAXED
    @given(
        body=bent(SEEDS.get(path, everything)) | bent(everything) | ANY,
        name=st.sampled_from(["known", "graphed", "fuzz", "nothing"]),
    )
    def send(body: Any, name: str) -> None:
        holds(client.request(method, filled(path, name), content=json.dumps(body).encode(), headers=JSON))

    send()


@pytest.mark.parametrize(("method", "path"), operations("post", "patch"))
def test_any_bytes(client: TestClient, method: str, path: str) -> None:
    @RELAXED
    @given(raw=st.binary(max_size=60) | bent(SEEDS.get(path, [{}])).map(lambda body: json.dumps(body).encode()[:-1]))
    def send(raw: bytes) -> None:
        holds(client.request(method, filled(path, "known"), content=raw, headers=JSON))

    send()


WORDS = st.text(max_size=20) | st.integers().map(str) | ODD.map(str)


@pytest.mark.parametrize(("method", "path"), operations("get"))
@RELAXED
@given(
    name=st.text(min_size=1, max_size=20) | st.sampled_from(["known", "graphed", "nightly-sales", "shell"]),
    query=st.dictionaries(
        st.sampled_from(
            [
                "status",
                "taskType",
                "sortBy",
                "limit",
                "offset",
                "search",
                "cursor",
                "task",
                "run",
                "after",
                "format",
                "x",
            ]
        ),
        WORDS,
        max_size=4,
    ),
)
def test_any_address(client: TestClient, method: str, path: str, name: str, query: dict[str, str]) -> None:
    def sent(text: str) -> str:
        return quote(text.encode("utf-8", "surrogatepass"), safe="")

    path = filled(path, sent(name))
    holds(client.request(method, f"{path}?{'&'.join(f'{sent(k)}={sent(v)}' for k, v in query.items())}"))


@RELAXED
@given(
    match=st.text(st.characters(max_codepoint=255), max_size=20),
    prefer=st.text(st.characters(max_codepoint=255), max_size=20).filter(lambda text: "=" not in text),
)
def test_any_header(client: TestClient, match: str, prefer: str) -> None:
    headers = {"If-Match": match.encode("latin-1"), "Prefer": prefer.encode("latin-1")}
    holds(client.patch("/api/tasks/known", json={}, headers=headers))
    holds(client.post("/api/tasks/known/run", json={"dryRun": True}, headers=headers))
