"""The door of the service: who may speak to it at all, and with what kind of request. (spec 8.1, 8.8)

Plain ASGI, outermost of all, so that it holds for whatever is mounted on the application later, sockets too.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Sequence
from email.message import Message
from urllib.parse import urlsplit

from anyio.to_thread import run_sync
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Event

from taskcenter.redaction import redact_exception_text
from taskcenter_console.services.center import ASKED_FROM

from .json_text import BadJson, check_json
from .problems import ProblemResponse, problem

__all__ = ["BODY_LIMIT", "LOOPBACK", "Guard", "host_allowed"]

BODY_LIMIT = 1_000_000
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,255})(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
_log = logging.getLogger(__name__)

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def host_allowed(authority: str, allowed: Sequence[str]) -> bool:
    """Whether ``host[:port]`` is on the list; an entry without a port allows any."""
    text = authority.lower()
    match = _AUTHORITY.fullmatch(text)
    return match is not None and (match["host"] in allowed or text in allowed)


class Guard:
    """Refuses before anything else runs: a wrong Host or Origin, no JSON, too much, malformed JSON.

    It also sets the strict headers, and turns an exception nobody expected into a 500 with an id.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Sequence[str] = LOOPBACK, body_limit: int = BODY_LIMIT) -> None:
        self.app = app
        self.allowed = tuple(host.lower() for host in allowed_hosts)
        self.body_limit = body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        client = scope.get("client")
        ASKED_FROM.set(client[0] if client else None)
        headers = Headers(scope=scope)
        refusal = self._host(headers) or self._origin(scope, headers)
        if scope["type"] == "websocket":
            if refusal is not None:
                await send({"type": "websocket.close", "code": 1008})
                return
            await self.app(scope, receive, send)
            return
        await self._http(scope, headers, refusal, receive, send)

    async def _http(
        self, scope: Scope, headers: Headers, refusal: ProblemResponse | None, receive: Receive, send: Send
    ) -> None:
        began = False

        async def send_strict(event: Event) -> None:
            nonlocal began
            if event["type"] == "http.response.start":
                began = True
                out = MutableHeaders(scope=event)
                for name, value in HEADERS.items():
                    out.setdefault(name, value)
            await send(event)

        if refusal is None and scope["method"] not in _SAFE:
            refusal, receive = await self._body(headers, receive)
        if refusal is not None:
            await refusal(scope, receive, send_strict)
            return
        try:
            await self.app(scope, receive, send_strict)
        except Exception as error:
            answer = _unexpected(error, scope)
            if began:
                raise
            await answer(scope, receive, send_strict)

    def _host(self, headers: Headers) -> ProblemResponse | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or _AUTHORITY.fullmatch(hosts[0].lower()) is None:
            return problem(400, "the request needs exactly one well-formed Host header", code="bad_host")
        if not host_allowed(hosts[0], self.allowed):
            return problem(421, "this service does not answer to that Host", code="wrong_host")
        return None

    def _origin(self, scope: Scope, headers: Headers) -> ProblemResponse | None:
        """Sockets and unsafe methods: a page of another site may not speak for the person who looks at it."""
        origins = headers.getlist("origin")
        if not origins or (scope["type"] == "http" and scope["method"] in _SAFE):
            return None
        if len(origins) == 1 and _is_origin(origins[0]) and host_allowed(urlsplit(origins[0]).netloc, self.allowed):
            # Another port of this machine is another site. Its pages get no further than what a browser sends
            # without asking first, and that is never JSON.
            same = urlsplit(origins[0]).netloc.lower() == headers["host"].lower()
            if same or (scope["type"] == "http" and _is_json(headers.get("content-type", ""))):
                return None
        return problem(403, "a page of another site may not do this", code="wrong_origin")

    async def _body(self, headers: Headers, receive: Receive) -> tuple[ProblemResponse | None, Receive]:
        """The whole body, checked; the application gets it again from the returned ``receive``."""
        too_large = problem(413, f"the body is larger than {self.body_limit} bytes", code="too_large")
        length = headers.get("content-length")
        if length is not None and not (length.isascii() and length.isdigit()):
            return problem(400, "Content-Length is not a number", code="bad_length"), receive
        if length is not None and (len(length) > 15 or int(length) > self.body_limit):
            return too_large, receive
        kind = headers.get("content-type")
        if (kind is not None and not _is_json(kind)) or headers.get("content-encoding", "identity") != "identity":
            return _not_json_type(), receive
        body = bytearray()
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                return problem(400, "the body ended early", code="short_body"), receive
            body += event.get("body", b"")
            if len(body) > self.body_limit:
                return too_large, receive
            if not event.get("more_body", False):
                break
        if body and kind is None:
            return _not_json_type(), receive
        if body:
            try:
                await (run_sync(check_json, bytes(body)) if len(body) > 20_000 else _inline(bytes(body)))
            except BadJson as error:
                return problem(error.status, error.message, code=error.code, errors=error.problems), receive
        return None, _replay(bytes(body), receive)


async def _inline(body: bytes) -> None:
    check_json(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Event:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _is_origin(text: str) -> bool:
    return text.startswith(("http://", "https://")) and text.count("/") == 2


def _is_json(content_type: str) -> bool:
    message = Message()
    message["content-type"] = content_type
    kind, charset = message.get_content_type(), message.get_param("charset", "utf-8")
    json = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
    return json and str(charset).lower() in ("utf-8", "utf8", "us-ascii")


def _not_json_type() -> ProblemResponse:
    return problem(415, "the body must be JSON in UTF-8: send Content-Type: application/json", code="not_json_type")


def _unexpected(error: Exception, scope: Scope) -> ProblemResponse:
    error_id = uuid.uuid4().hex[:12]
    _log.error(
        "%s %s failed in a way nobody expected (id %s)\n%s",
        scope["method"],
        scope["path"],
        error_id,
        redact_exception_text(error),
        extra={"event": "api_error", "error_id": error_id},
    )
    detail = f"something went wrong in the service; its log tells more under the id {error_id}"
    return problem(500, detail, code="unexpected", error_id=error_id)
