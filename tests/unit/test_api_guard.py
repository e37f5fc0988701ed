"""Who may speak to the service, with what kind of request, and how it says no. (spec 8.1, 8.8)"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from starlette.types import Message

from taskcenter_console.api.app import make_app
from taskcenter_console.api.guard import BODY_LIMIT, HEADERS, Guard, host_allowed
from taskcenter_console.api.json_text import MAX_DEPTH, MAX_VALUES
from taskcenter_console.services import tasks
from tests.fakes import api_client, fake_center

if TYPE_CHECKING:
    from starlette.testclient import TestClient

TASK = {"name": "Hello", "taskType": "shell", "payload": {"command": ["echo", "hello"]}}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with fake_center(tmp_path) as center:
        yield api_client(center)


def refused(answer: Any, status: int, code: str) -> dict[str, Any]:
    """The body of a refusal, which has the one form and the strict headers."""
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["type"]) == (status, f"urn:taskcenter:problem:{code}"), body
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert all(set(item) == {"path", "code", "message"} for item in body["errors"])
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    return body


# hosts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost:8787", "LOCALHOST:1", "[::1]:8787", "[::1]", "127.0.0.1:65535"]
)
def test_the_names_of_this_machine_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/api/tasks", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8787",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "notlocalhost",
        "127.0.0.2",
        "localhost.",
        "[::2]",
        "2130706433",
    ],
)
@pytest.mark.parametrize("path", ["/api/tasks", "/", "/api/openapi.json", "/nothing-here"])
def test_another_name_is_misdirected(client: TestClient, host: str, path: str) -> None:
    refused(client.get(path, headers={"Host": host}), 421, "wrong_host")


@pytest.mark.parametrize(
    "host", ["", "localhost@evil.example", "localhost:x", "a b", "localhost,evil", "[::1", "::1", "ü"]
)
def test_a_malformed_name_is_a_bad_request(client: TestClient, host: str) -> None:
    refused(client.get("/api/tasks", headers={"Host": host.encode("latin-1")}), 400, "bad_host")


def test_two_hosts_or_none_are_a_bad_request(client: TestClient) -> None:
    for hosts in ([], [b"127.0.0.1", b"127.0.0.1"], [b"127.0.0.1", b"evil.example"]):
        status, _ = asgi(client.app, headers=[(b"host", host) for host in hosts])
        assert status == 400


def test_an_entry_with_a_port_wants_that_port() -> None:
    assert host_allowed("tasks.example.org:443", ["tasks.example.org:443"])
    assert not host_allowed("tasks.example.org:444", ["tasks.example.org:443"])
    assert not host_allowed("tasks.example.org", ["tasks.example.org:443"])


def test_the_list_is_the_callers(tmp_path: Path) -> None:
    with fake_center(tmp_path) as center:
        client = api_client(center, allowed_hosts=["Tasks.Example.org"])
        assert client.get("/api/tasks", headers={"Host": "tasks.example.org:8443"}).status_code == 200
        refused(client.get("/api/tasks"), 421, "wrong_host")


def test_sockets_are_guarded_too() -> None:
    async def never(*_: Any) -> None:
        raise AssertionError("the guard let it through")

    for headers in ([(b"host", b"evil.example")], [(b"host", b"localhost"), (b"origin", b"http://evil.example")]):
        sent: list[Message] = []

        async def send(message: Message, sent: list[Message] = sent) -> None:
            sent.append(message)

        asyncio.run(Guard(never)({"type": "websocket", "headers": headers}, never, send))  # type: ignore[arg-type]
        assert sent == [{"type": "websocket.close", "code": 1008}]


# origins -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "",
        "http://localhost.evil.example",
        "http://localhost@evil.example",
        "file://",
        "http://localhost/",
        "chrome-extension://localhost",
    ],
)
def test_a_page_of_another_site_may_not_change_anything(client: TestClient, origin: str) -> None:
    headers = {"Origin": origin}
    refused(client.post("/api/tasks", json=TASK, headers=headers), 403, "wrong_origin")
    refused(client.delete("/api/tasks/hello", headers=headers), 403, "wrong_origin")
    assert client.get("/api/tasks", headers=headers).json()["items"] == []


@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1:8787", "http://localhost:8787", "http://[::1]", "https://localhost"]
)
def test_a_page_of_this_machine_may(client: TestClient, origin: str) -> None:
    assert client.post("/api/tasks", json=TASK, headers={"Origin": origin}).status_code == 201


def test_another_port_may_not_do_what_a_browser_sends_without_asking(client: TestClient) -> None:
    client.post("/api/tasks", json=TASK)
    other, own = {"Origin": "http://127.0.0.1:3000"}, {"Origin": "http://127.0.0.1:8787"}
    refused(client.post("/api/tasks/hello/run", headers=other), 403, "wrong_origin")
    assert client.post("/api/tasks/hello/run", headers=own).status_code == 202


def test_no_answer_invites_other_sites(client: TestClient) -> None:
    headers = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    for answer in (client.options("/api/tasks", headers=headers), client.get("/api/tasks", headers=headers)):
        assert not [name for name in answer.headers if name.startswith("access-control")]
    refused(client.options("/api/tasks", headers=headers), 405, "method_not_allowed")


# bodies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/jsonp",
        "text/json",
        "application/json; charset=utf-16",
        "",
        "json",
        "application/json, text/plain",
    ],
)
def test_only_json_is_taken(client: TestClient, kind: str) -> None:
    refused(client.post("/api/tasks", content=b"{}", headers={"Content-Type": kind}), 415, "not_json_type")


def test_a_body_without_a_type_or_compressed_is_not_taken(client: TestClient) -> None:
    refused(client.post("/api/tasks", content=b"{}"), 415, "not_json_type")
    answer = client.post("/api/tasks", content=b"{}", headers={**JSON, "Content-Encoding": "gzip"})
    refused(answer, 415, "not_json_type")


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=UTF-8", "application/merge-patch+json"]
)
def test_every_way_to_say_json_is(client: TestClient, kind: str) -> None:
    assert client.post("/api/composites/check", content=b"{}", headers={"Content-Type": kind}).status_code == 200


def test_a_body_that_is_too_large_is_refused_unread(client: TestClient) -> None:
    refused(client.post("/api/tasks", content=b"x" * (BODY_LIMIT + 1), headers=JSON), 413, "too_large")
    status, read = asgi(client.app, headers=[(b"content-length", b"9" * 30)])
    assert (status, read) == (413, 0)


def test_a_body_that_does_not_say_its_size_is_read_only_so_far(client: TestClient) -> None:
    status, read = asgi(client.app, chunk=b"[" + b" " * 99_999, chunks=1000)
    assert status == 413
    assert read <= BODY_LIMIT // 100_000 + 1


def test_a_body_of_the_largest_size_is_taken(client: TestClient) -> None:
    text = b'{"name": "' + b"x" * (BODY_LIMIT - 12) + b'"}'
    assert len(text) == BODY_LIMIT
    assert client.post("/api/composites/check", content=text, headers=JSON).status_code == 200


def test_a_body_in_small_pieces_arrives_whole(client: TestClient) -> None:
    pieces = (bytes([byte]) for byte in b'{"name": "a", "steps": []}')
    assert (
        client.post("/api/composites/check", content=pieces, headers=JSON).json()["problems"][0]["code"] == "no_steps"
    )


def test_a_length_that_is_no_number_is_refused(client: TestClient) -> None:
    assert asgi(client.app, headers=[(b"content-length", b"-1")])[0] == 400


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"{", "not_json"),
        (b"not json", "not_json"),
        (b"{'a': 1}", "not_json"),
        (b'{"a": 1,}', "not_json"),
        (b'{"a": 1} {}', "not_json"),
        (b'{"a": "\xff"}', "not_json"),
        (b"\xef\xbb\xbf{}", "not_json"),
        ('{"a": 1}'.encode("utf-16"), "not_json"),
        (b'{"a": "\x00"}', "not_json"),
        (b'{"a": "\n"}', "not_json"),
        (b'{"a": NaN}', "not_finite"),
        (b'{"a": -Infinity}', "not_finite"),
        (b'{"a": 1e999}', "not_finite"),
        (b'{"a": ' + b"1" * 5000 + b"}", "too_large"),
        (b'{"a": 9223372036854775808}', "too_large"),
        (b'{"a": 1, "a": 2}', "same_key"),
        (b'{"a": ["b", {"c": "x\\u0000"}]}', "nul"),
        (b'{"\\u0000": 1}', "nul"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": "\\udc00\\ud800"}', "surrogate"),
        (b"[" * 900_000, "too_deep"),
        (b"[" * 1000 + b"]" * 1000, "too_deep"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "too_deep"),
        (b"[" + b"0," * MAX_VALUES + b"0]", "too_many"),
    ],
)
def test_odd_json_is_a_bad_request(client: TestClient, text: bytes, code: str) -> None:
    answer = client.post("/api/tasks", content=text, headers=JSON)
    body = answer.json()
    assert answer.status_code == 400, body
    assert code in {body["type"].rpartition(":")[2], *(item["code"] for item in body["errors"])}


def test_the_place_of_what_is_refused_is_named(client: TestClient) -> None:
    answer = client.post("/api/tasks", content=b'{"a": ["b", {"c": "x\\u0000"}]}', headers=JSON)
    assert answer.json()["errors"][0]["path"] == "a[1].c"


def test_a_pair_of_surrogates_is_one_character(client: TestClient) -> None:
    text = b'{"name": "\\ud83d\\ude00 smile", "taskType": "wait", "payload": {"seconds": 1}}'
    assert client.post("/api/tasks", content=text, headers=JSON).json()["name"] == "😀 smile"


# forms and headers -------------------------------------------------------------------------------------------


def test_unknown_routes_and_methods_have_the_same_form(client: TestClient) -> None:
    for path in (
        "/api",
        "/api/",
        "/api/nothing",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/api/tasks/",
        "/api/tasks/a/b/c",
    ):
        refused(client.get(path), 404, "not_found")
    body = refused(client.put("/api/tasks", json={}), 405, "method_not_allowed")
    assert "PUT" in body["detail"]
    assert client.put("/api/tasks/x", json={}).headers["allow"]


def test_what_nobody_expected_is_told_to_the_log_alone(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("password=hunter2-is-long at /srv/secret/place")

    monkeypatch.setattr(tasks, "list_tasks", broken)
    with caplog.at_level(logging.ERROR):
        answer = client.get("/api/tasks")
    body = refused(answer, 500, "unexpected")
    assert "hunter2" not in answer.text
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert body["id"] in caplog.text
    assert "RuntimeError" in caplog.text
    assert "hunter2" not in caplog.text


def test_strict_headers_stand_on_every_answer(client: TestClient) -> None:
    for answer in (client.get("/api/tasks"), client.get("/api/openapi.json"), client.get("/nothing")):
        for name, value in HEADERS.items():
            assert answer.headers[name] == value


def test_the_page_is_whole_and_asks_no_other_server(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    style = re.search(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert set(re.findall(r'(?:href|src)="([^"]*)"', answer.text)) == {
        "http://127.0.0.1:4200",
        "/api/openapi.json",
        "/api/health",
    }
    assert not re.search(r"<script|@import|url\(|style=", answer.text)


def test_an_application_without_a_center_of_its_own_is_not_shared(tmp_path: Path) -> None:
    with fake_center(tmp_path) as one, fake_center(tmp_path) as two:
        api_client(one).post("/api/tasks", json=TASK)
        assert make_app(one) is not make_app(two)
        assert api_client(two).get("/api/tasks").json()["items"] == []


def asgi(
    app: Any,
    *,
    headers: Sequence[tuple[bytes, bytes]] = (),
    chunk: bytes = b"",
    chunks: int = 1,
) -> tuple[int, int]:
    """One POST, byte for byte: the status, and how many pieces of the body were read."""
    read, statuses = 0, []
    own = [(b"content-type", b"application/json"), *headers]
    if not any(name == b"host" for name, _ in headers) and (headers or chunk):
        own.append((b"host", b"localhost"))

    async def receive() -> Message:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": chunk, "more_body": read < chunks}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/tasks",
        "raw_path": b"/api/tasks",
        "query_string": b"",
        "root_path": "",
        "headers": own,
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", 8787),
    }
    asyncio.run(app(scope, receive, send))
    return statuses[0], read
