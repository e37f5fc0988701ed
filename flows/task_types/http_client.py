"""Sends what ``http`` describes: total time-out, cancel, size limit, checked redirects."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import zlib
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin

import httpx

from taskcenter.context import Cancelled, RunContext
from taskcenter.errors import Refused, StepFailed, TimedOut
from taskcenter.settings import Settings

from .http_guard import Target, resolve_target
from .payload import SecretRef

if TYPE_CHECKING:
    from .http import HttpPayload

__all__ = ["send"]

T = TypeVar("T")
_MAX_REDIRECTS = 3
_MAX_TRIES = 4
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HIDDEN = frozenset({"set-cookie", "set-cookie2", "authorization", "proxy-authorization", "authentication-info"})
_PRIVATE = frozenset({"authorization", "cookie", "proxy-authorization"})


def send(payload: HttpPayload, ctx: RunContext) -> dict[str, Any]:
    """The answer as ``http`` gives it. See there for what is raised."""
    return _run(_limited(payload, ctx))


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, also when the caller's own thread has an event loop running."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def _limited(payload: HttpPayload, ctx: RunContext) -> dict[str, Any]:
    work = asyncio.ensure_future(_tries(payload, ctx))
    deadline = time.monotonic() + payload.timeout_seconds
    try:
        while not work.done():
            await asyncio.wait({work}, timeout=min(0.2, max(0.0, deadline - time.monotonic())))
            if work.done():
                break
            if ctx.is_cancelled is not None and ctx.is_cancelled():
                raise Cancelled("the request was given up because the run was cancelled")
            if time.monotonic() >= deadline:
                raise TimedOut(
                    f"{payload.method} {payload.url.partition('?')[0]} took longer than {payload.timeout_seconds:g} s"
                )
        return work.result()
    finally:
        if not work.done():
            work.cancel()
            await asyncio.wait({work})


async def _tries(payload: HttpPayload, ctx: RunContext) -> dict[str, Any]:
    """Send, and again while the answer's status is in ``retryOn``: waits 1, 2, 4 s, or what Retry-After says."""
    from .http import fits

    started = time.monotonic()
    for attempt in range(1, _MAX_TRIES + 1):
        answer = await _follow(payload, ctx)
        if attempt == _MAX_TRIES or not fits(answer.status, payload.retry_on):
            break
        after = answer.headers.get("retry-after", "")
        pause = float(after) if after.isdigit() else float(2 ** (attempt - 1))
        ctx.output(f"answered {answer.status}; trying again in {pause:g} s", "stdout")
        await asyncio.sleep(pause)
    output: dict[str, Any] = {"executor": "http", "status": answer.status}
    output["headers"] = {k: "***" if k.lower() in _HIDDEN else v for k, v in answer.headers.items()}
    try:
        output["json"] = json.loads(answer.body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        output["text"] = _text(answer)
    output["durationMs"] = round((time.monotonic() - started) * 1000, 1)
    output["attempts"] = attempt
    return output


def _text(answer: _Answer) -> str:
    try:
        return answer.body.decode(answer.charset, "replace")
    except LookupError:  # a charset that nobody knows
        return answer.body.decode("utf-8", "replace")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: httpx.Headers
    body: bytes
    charset: str


async def _follow(payload: HttpPayload, ctx: RunContext) -> _Answer:
    """One request with its redirects. Each hop connects to the address that was checked."""
    settings = Settings.from_env()
    method, url, content, headers = payload.method, _url(payload), _content(payload), _headers(payload, ctx)
    # Proxies of the environment are not used: behind one, no address could be checked.
    async with httpx.AsyncClient(trust_env=False, timeout=httpx.Timeout(None, connect=10)) as client:
        for _ in range(_MAX_REDIRECTS + 1):
            target = await resolve_target(url, settings)
            response = await _send(client, method, url, target, headers, content)
            try:
                location = response.headers.get("location")
                if response.status_code not in _REDIRECTS or not location:
                    body = await _read(response, payload.max_bytes)
                    return _Answer(response.status_code, response.headers, body, response.charset_encoding or "utf-8")
            finally:
                await response.aclose()
            following = urljoin(url, location)
            if _origin(following) != _origin(url):
                headers = {k: v for k, v in headers.items() if k not in _private_headers(payload)}
            if response.status_code == 303 or (response.status_code in (301, 302) and method == "POST"):
                method, content = "HEAD" if method == "HEAD" else "GET", None
                headers = {k: v for k, v in headers.items() if k != "content-type"}
            url = following
    raise Refused(f"more than {_MAX_REDIRECTS} redirects")


def _private_headers(payload: HttpPayload) -> frozenset[str]:
    """Headers that stay with the first host: credentials, and whatever came from a secret."""
    return _PRIVATE | {k.lower() for k, v in payload.headers.items() if isinstance(v, SecretRef)}


async def _send(
    client: httpx.AsyncClient, method: str, url: str, target: Target, headers: dict[str, str], content: bytes | None
) -> httpx.Response:
    """The response with its body still to be read, from the first of the checked addresses that connects."""
    failed = ""
    for address in target.addresses:
        try:
            request = client.build_request(
                method,
                httpx.URL(url).copy_with(host=address),
                headers={**headers, "host": httpx.URL(url).netloc.decode("ascii")},
                content=content,
                extensions={"sni_hostname": target.host},
            )
            return await client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            failed = str(error) or "no connection in 10 s"
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise StepFailed(
                f"{method} {target.host}:{target.port}: {error or type(error).__name__}", error_type="http_protocol"
            ) from None
    raise StepFailed(f"{target.host}:{target.port} cannot be reached: {failed}", error_type="http_connect")


async def _read(response: httpx.Response, limit: int) -> bytes:
    """The body, unpacked; StepFailed as soon as it is longer than ``limit``, however well it was packed."""
    coding = response.headers.get("content-encoding", "identity").lower()
    unpack = zlib.decompressobj(wbits=47) if coding in ("gzip", "x-gzip", "deflate") else None  # 47: either header
    body = bytearray()
    try:
        async for chunk in response.aiter_raw():
            body += unpack.decompress(chunk, limit + 1 - len(body)) if unpack else chunk
            if len(body) > limit:
                raise StepFailed(f"the answer is longer than {limit} bytes", error_type="http_too_large")
    except (httpx.HTTPError, zlib.error) as error:
        raise StepFailed(
            f"the answer broke off after {len(body)} bytes: {error or type(error).__name__}", error_type="http_protocol"
        ) from None
    return bytes(body)


def _url(payload: HttpPayload) -> str:
    return str(httpx.URL(payload.url).copy_merge_params(payload.query)) if payload.query else payload.url


def _content(payload: HttpPayload) -> bytes | None:
    if "json_body" in payload.model_fields_set:
        return json.dumps(payload.json_body, ensure_ascii=False, allow_nan=False).encode()
    return None if payload.body is None else payload.body.encode()


def _headers(payload: HttpPayload, ctx: RunContext) -> dict[str, str]:
    """All request headers, lower-cased; secrets are resolved here and nowhere else."""
    # identity: a packed answer is read too, but then its size is known only while unpacking
    headers = {"user-agent": "taskcenter", "accept": "*/*", "accept-encoding": "identity"}
    if "json_body" in payload.model_fields_set:
        headers["content-type"] = "application/json"
    for name, value in payload.headers.items():
        headers[name.lower()] = ctx.secret(value.secret) if isinstance(value, SecretRef) else value
    if payload.auth is not None:
        secret = ctx.secret(payload.auth.secret)
        if payload.auth.username is None:
            headers["authorization"] = f"Bearer {secret}"
        else:
            both = base64.b64encode(f"{payload.auth.username}:{secret}".encode()).decode("ascii")
            headers["authorization"] = f"Basic {both}"
    return headers


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = httpx.URL(url)
    return parts.scheme, parts.host, parts.port
