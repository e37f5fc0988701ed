"""The ``http`` type against a small server on loopback, and its rules about addresses."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from flows.task_types.http_guard import check_address
from taskcenter.context import Cancelled, RunContext
from taskcenter.errors import Refused, StepFailed, TimedOut
from taskcenter.settings import Settings
from taskcenter.task_types import registry


class Handler(BaseHTTPRequestHandler):
    """Answers by path: /status/NNN, /redirect?to, /slow, /big, /packed, /flaky, else what was asked, as JSON."""

    protocol_version = "HTTP/1.1"
    flaky = 0

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        length = int(self.headers.get("content-length") or 0)
        sent = self.rfile.read(length).decode()
        if path.startswith("/status/"):
            return self.answer(b"plain text", int(path[8:]), {"content-type": "text/plain; charset=latin-1"})
        if path == "/redirect":
            return self.answer(b"", 302, {"location": query})
        if path == "/see-other":
            return self.answer(b"", 303, {"location": "/echo"})
        if path == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.05)
            return None
        if path == "/big":
            return self.answer(b"x" * 100_000)
        if path == "/packed":
            return self.answer(gzip.compress(b"0" * 10_000_000), headers={"content-encoding": "gzip"})
        if path == "/flaky":
            Handler.flaky += 1
            return self.answer(b"{}", 503 if Handler.flaky % 2 else 200, {"retry-after": "0"})
        data: dict[str, Any] = {
            "method": self.command,
            "path": self.path,
            "headers": {k.lower(): v for k, v in self.headers.items()},
        }
        data |= {"body": sent, "items": [{"id": 7, "tags": ["a", "b"]}], "none": None, "yes": True}
        return self.answer(json.dumps(data).encode(), headers={"set-cookie": "session=hunter2"})

    do_POST = do_PUT = do_DELETE = do_GET

    def answer(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client under test hangs up on purpose
            super().handle()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()


@pytest.fixture
def ctx(tmp_path: Path) -> RunContext:
    return RunContext(resolve_secret=lambda name: f"<{name}>", temp_dir=tmp_path)


def call(ctx: RunContext, url: str, **payload: Any) -> Any:
    payload = {"url": url, **payload}
    problems = registry.get("http").check(payload)
    assert not problems, problems
    return registry.get("http").call(payload, ctx)


def test_request_and_answer(server: str, ctx: RunContext) -> None:
    output = call(
        ctx,
        f"{server}/a?x=1",
        method="post",
        query={"y": ["ü", True]},
        headers={"X-Key": {"secret": "k"}, "X-Plain": "p"},
        json={"n": None},
        auth={"secret": "token"},
    )
    seen = output["json"]
    assert (output["executor"], output["status"], output["attempts"]) == ("http", 200, 1)
    assert output["headers"]["set-cookie"] == "***"
    assert seen["method"] == "POST"
    assert seen["path"] == "/a?x=1&y=%C3%BC&y=true"
    assert seen["body"] == '{"n": null}'
    assert seen["headers"]["authorization"] == "Bearer <token>"
    assert (seen["headers"]["x-key"], seen["headers"]["x-plain"]) == ("<k>", "p")
    assert seen["headers"]["host"] == server.removeprefix("http://")


def test_basic_auth_and_plain_body(server: str, ctx: RunContext) -> None:
    seen = call(ctx, server, method="PUT", body="text é", auth={"username": "u", "secret": "p"})["json"]
    assert seen["headers"]["authorization"] == "Basic dTo8cD4="
    assert seen["body"] == "text é"


def test_it_works_below_a_running_event_loop(server: str, ctx: RunContext) -> None:
    async def inside() -> Any:
        return call(ctx, server)

    assert asyncio.run(inside())["status"] == 200


def test_statuses(server: str, ctx: RunContext) -> None:
    with pytest.raises(StepFailed, match=r"answered 404, expected 200\.\.299") as caught:
        call(ctx, f"{server}/status/404?token=hunter2")
    assert caught.value.error_type == "http_status"
    assert caught.value.output["text"] == "plain text"
    assert "hunter2" not in caught.value.message
    for wanted in (404, [404], "4xx", ["200..299", "400..410"]):
        assert call(ctx, f"{server}/status/404", expectStatus=wanted)["status"] == 404


@pytest.mark.parametrize(
    ("assertion", "says"),
    [
        ({"path": "items[0].id", "equals": 7}, ""),
        ({"path": 'items[-1]["tags"][1]', "equals": "b"}, ""),
        ({"path": "items[0].id", "equals": "7"}, 'items[0].id is 7, not "7"'),
        ({"path": "yes", "equals": 1}, "yes is true, not 1"),
        ({"path": "none", "equals": None}, ""),
        ({"path": "items[1].id", "equals": 1}, "items[1].id is not there"),
        ({"path": "items[1]", "exists": False}, ""),
        ({"path": "none", "exists": False}, "none is there"),
        ({"path": "items[0].tags", "contains": "a"}, ""),
        ({"path": "method", "contains": "XX"}, "does not contain"),
        ({"path": "items[0].id", "min": 5, "max": 7}, ""),
        ({"path": "items[0].id", "max": 6}, "more than 6"),
        ({"path": "yes", "min": 0}, "is no number"),
        ({"path": "method", "notEquals": "GET"}, 'method is "GET"'),
    ],
)
def test_assertions(server: str, ctx: RunContext, assertion: dict[str, Any], says: str) -> None:
    if not says:
        call(ctx, server, expectJson=[assertion])
        return
    with pytest.raises(StepFailed) as caught:
        call(ctx, server, expectJson=assertion)
    assert says in caught.value.message
    assert caught.value.error_type == "http_json"


def test_an_answer_that_is_not_json(server: str, ctx: RunContext) -> None:
    with pytest.raises(StepFailed, match="not JSON"):
        call(ctx, f"{server}/status/200", expectJson={"path": "a", "exists": True})


def test_retry_on(server: str, ctx: RunContext) -> None:
    assert call(ctx, f"{server}/flaky", retryOn=[503])["attempts"] == 2
    with pytest.raises(StepFailed):
        call(ctx, f"{server}/flaky")


def test_size_limits_hold_for_packed_answers_too(server: str, ctx: RunContext) -> None:
    assert len(call(ctx, f"{server}/big", maxBytes=100_000)["text"]) == 100_000
    for path in ("/big", "/packed"):
        with pytest.raises(StepFailed, match="longer than 99999 bytes") as caught:
            call(ctx, server + path, maxBytes=99_999)
        assert caught.value.error_type == "http_too_large"


def test_the_time_out_is_for_the_whole(server: str, ctx: RunContext) -> None:
    started = time.monotonic()
    with pytest.raises(TimedOut, match=r"took longer than 0\.4 s"):
        call(ctx, f"{server}/slow", timeoutSeconds=0.4)
    ctx.is_cancelled = lambda: time.monotonic() - started > 0.8
    with pytest.raises(Cancelled):
        call(ctx, f"{server}/slow")
    assert time.monotonic() - started < 3


def test_redirects_are_followed_and_checked(server: str, ctx: RunContext) -> None:
    assert call(ctx, f"{server}/redirect?/a")["json"]["path"] == "/a"
    three = f"{server}/redirect?{server}/redirect?{server}/redirect?/end"
    assert call(ctx, three)["json"]["path"] == "/end"
    with pytest.raises(Refused, match="more than 3 redirects"):
        call(ctx, f"{server}/redirect?{three}")
    with pytest.raises(Refused, match="link-local"):
        call(ctx, f"{server}/redirect?http://169.254.169.254/latest/meta-data")
    with pytest.raises(Refused, match="only http and https"):
        call(ctx, f"{server}/redirect?file:///etc/passwd")
    seen = call(ctx, f"{server}/see-other", method="POST", json={"a": 1})["json"]
    assert (seen["method"], seen["body"]) == ("GET", "")


def test_credentials_stay_with_the_first_host(server: str, ctx: RunContext) -> None:
    other = server.replace("127.0.0.1", "localhost")
    headers = {"X-Key": {"secret": "k"}, "X-Plain": "p"}
    same = call(ctx, f"{server}/redirect?{server}/a", auth={"secret": "t"}, headers=headers)["json"]["headers"]
    assert (same["authorization"], same["x-key"]) == ("Bearer <t>", "<k>")
    away = call(ctx, f"{server}/redirect?{other}/a", auth={"secret": "t"}, headers=headers)["json"]["headers"]
    assert ("authorization" in away, "x-key" in away, away["x-plain"]) == (False, False, "p")


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "fe80::1%eth0",
        "::ffff:169.254.169.254",
        "2002:a9fe:a9fe::1",
        "64:ff9b::a9fe:a9fe",
        "fd00:ec2::254",
        "100.100.100.200",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "255.255.255.255",
    ],
)
def test_addresses_that_are_never_reached(address: str) -> None:
    with pytest.raises(Refused, match="are refused"):
        check_address(address, 80, Settings(home=Path("/")))


def test_own_ports_are_never_reached(ctx: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKCENTER_PORT", "18787")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:14200/api")
    for url in ("http://127.0.0.1:18787/", "http://localhost:14200/api", "http://[::ffff:127.0.0.2]:18787/"):
        with pytest.raises(Refused, match="own port"):
            call(ctx, url)
    check_address("192.0.2.1", 18787, Settings.from_env())


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({"url": "ftp://x"}, "only http and https"),
        ({"url": "http://"}, "names no host"),
        ({"url": "http://user:pw@h/"}, "login inside the address"),
        ({"url": "http://h", "json": 1, "body": "x"}, "json or body"),
        ({"url": "http://h", "auth": {"type": "basic", "secret": "x"}}, "basic needs a username"),
        ({"url": "http://h", "expectStatus": [99]}, "payload.expectStatus"),
        ({"url": "http://h", "expectJson": [{"path": "a"}]}, "give one of equals"),
        ({"url": "http://h", "expectJson": [{"path": "a[", "exists": True}]}, "a path looks like"),
        ({"url": "http://h", "timeoutSeconds": 0}, "greater than 0"),
        ({"url": "http://h", "headers": {"a b": "x"}}, "payload.headers"),
        ({"url": "http://h", "method": "BREW"}, "payload.method"),
    ],
)
def test_bad_payloads(payload: dict[str, Any], says: str) -> None:
    assert any(says in str(problem) for problem in registry.get("http").check(payload))


def test_who_cannot_be_reached(ctx: RunContext) -> None:
    with pytest.raises(StepFailed, match="cannot be found") as caught:
        call(ctx, "http://no-such-host.invalid/")
    assert caught.value.error_type == "http_connect"
    with pytest.raises(StepFailed, match="cannot be reached"):
        call(ctx, "http://127.0.0.1:1/")


def test_the_preview_sends_nothing(ctx: RunContext) -> None:
    note = registry.get("http").preview({"url": "https://no-such.invalid/x?k=1", "auth": {"secret": "s"}}, ctx)
    assert note is not None
    assert note.summary == "sends GET to no-such.invalid:443"
    assert note.details == {"method": "GET", "url": "https://no-such.invalid/x", "secrets": ["s"]}
