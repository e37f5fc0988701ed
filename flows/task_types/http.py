"""``http``: one request, its answer checked. (spec 2.8, 8.6)"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from taskcenter.context import PlanNote, RunContext
from taskcenter.errors import Refused, StepFailed
from taskcenter.task_types import task_type

from .http_guard import check_url
from .payload import Payload, Seconds, SecretRef, Text, Whole, also

__all__ = ["Assertion", "HttpPayload", "http"]

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_RANGE = re.compile(r"^(?:(?P<low>[1-5]\d\d)\.\.(?P<high>[1-5]\d\d)|(?P<class>[1-5])xx|(?P<one>[1-5]\d\d))$")
_PATH_PART = re.compile(r"(?:^|\.)([^.\[\]]+)|\[(-?\d+)\]|\[\"([^\"]*)\"\]")


def _readable_url(value: str) -> str:
    try:
        check_url(value)
    except Refused as error:
        raise ValueError(error.message) from None
    return value


def _readable_status(value: int | str) -> int | str:
    if not _RANGE.match(str(value)):
        raise ValueError('a status is a number like 200, a range like "200..299" or a class like "2xx"')
    return value


def _readable_path(value: str) -> str:
    if "".join(match[0] for match in _PATH_PART.finditer(value)) != value:
        raise ValueError('a path looks like "items[0].id"')
    return value


Status = Annotated[Whole | str, AfterValidator(_readable_status)]


class Auth(Payload):
    """``{"secret": "name"}`` is sent as a bearer token; with ``username`` it is the password of basic auth."""

    type: Literal["bearer", "basic"] | None = None
    username: Text | None = Field(None, validation_alias=also("username", "user"))
    secret: Text

    @model_validator(mode="after")
    def _fits(self) -> Auth:
        if (self.type == "basic") != (self.username is not None) and self.type is not None:
            raise ValueError("basic needs a username, bearer takes none")
        return self


class Assertion(Payload):
    """One check of the JSON answer. ``path`` like ``items[0].id``; empty means the whole answer."""

    path: Annotated[str, AfterValidator(_readable_path)] = ""
    equals: Any = None
    not_equals: Any = None
    contains: Any = None
    exists: bool | None = Field(None, strict=True)
    min: float | None = Field(None, strict=True)
    max: float | None = Field(None, strict=True)

    @model_validator(mode="after")
    def _says_something(self) -> Assertion:
        if not self.model_fields_set - {"path"}:
            raise ValueError("give one of equals, notEquals, contains, exists, min, max")
        return self

    def broken(self, answer: Any) -> str:
        """Empty when it holds, else a sentence."""
        there, found = _at(answer, self.path)
        where = self.path or "the answer"
        asked = self.model_fields_set
        if "exists" in asked and self.exists is False:
            return f"{where} is there" if there else ""
        if not there:
            return f"{where} is not there"
        if "equals" in asked and not _same(found, self.equals):
            return f"{where} is {_shown(found)}, not {_shown(self.equals)}"
        if "not_equals" in asked and _same(found, self.not_equals):
            return f"{where} is {_shown(found)}"
        if "contains" in asked and not _holds(found, self.contains):
            return f"{where} does not contain {_shown(self.contains)}"
        number = isinstance(found, int | float) and not isinstance(found, bool)
        if self.min is not None and not (number and found >= self.min):
            return f"{where} is {_shown(found)}, less than {self.min:g}" if number else f"{where} is no number"
        if self.max is not None and not (number and found <= self.max):
            return f"{where} is {_shown(found)}, more than {self.max:g}" if number else f"{where} is no number"
        return ""


class HttpPayload(Payload):
    """The request, and what its answer must be."""

    method: Method = "GET"
    url: Annotated[Text, AfterValidator(_readable_url)]
    headers: dict[Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")], str | SecretRef] = Field({})
    query: dict[str, str | Whole | float | bool | list[str | Whole | float | bool]] = Field({})
    json_body: Any = Field(None, validation_alias=also("json", "json_body"))
    body: str | None = None
    auth: Auth | None = None
    timeout_seconds: Annotated[Seconds, Field(gt=0, le=3600)] = Field(30, description="For the whole of it.")
    expect_status: tuple[Status, ...] = Field(("200..299",), min_length=1)
    expect_json: tuple[Assertion, ...] = ()
    max_bytes: Annotated[Whole, Field(ge=1, le=64 * 1024 * 1024)] = Field(1024 * 1024)
    retry_on: tuple[Status, ...] = Field((), description="Statuses to try again after, inside the time-out.")

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, data: Any) -> Any:
        """A single status or assertion need not be written as a list."""
        if not isinstance(data, dict):
            return data
        names = ("expectStatus", "expect_status", "expectJson", "expect_json", "retryOn", "retry_on")
        return {k: [v] if k in names and isinstance(v, int | str | dict) else v for k, v in data.items()}

    @model_validator(mode="before")
    @classmethod
    def _upper(cls, data: Any) -> Any:
        method = data.get("method") if isinstance(data, dict) else None
        return {**data, "method": method.upper()} if isinstance(method, str) else data

    @model_validator(mode="after")
    def _one_body(self) -> HttpPayload:
        if "json_body" in self.model_fields_set and self.body is not None:
            raise ValueError("give json or body, not both")
        return self


def plan(payload: HttpPayload, ctx: RunContext) -> PlanNote:
    """Names the request; nothing is sent, no name is looked up."""
    _, host, port = check_url(payload.url)
    secrets = {value.secret for value in payload.headers.values() if isinstance(value, SecretRef)}
    secrets |= {payload.auth.secret} if payload.auth else set()
    return PlanNote(
        f"sends {payload.method} to {host}:{port}",
        details={"method": payload.method, "url": payload.url.partition("?")[0], "secrets": sorted(secrets)},
    )


@task_type("http", title="HTTP request", category="network", icon="http", tags=["http"], plan=plan)
def http(payload: HttpPayload, ctx: RunContext) -> dict[str, Any]:
    """Send an HTTP request and check its answer.

    Gives ``{executor, status, headers, json | text, durationMs, attempts}``; headers that carry credentials are
    ``***``. Raises StepFailed (``http_status``, ``http_json``, ``http_connect``, ``http_too_large``, with what came
    as its output), TimedOut, Cancelled, and Refused for an address that may not be reached.
    """
    from .http_client import send

    output = send(payload, ctx)
    if not fits(output["status"], payload.expect_status):
        raise StepFailed(
            f"{payload.method} {payload.url.partition('?')[0]} answered {output['status']}, expected "
            f"{', '.join(map(str, payload.expect_status))}",
            error_type="http_status",
            output=output,
            status=output["status"],
        )
    if payload.expect_json:
        if "json" not in output:
            raise StepFailed("the answer is not JSON", error_type="http_json", output=output)
        broken = [sentence for a in payload.expect_json if (sentence := a.broken(output["json"]))]
        if broken:
            raise StepFailed(
                f"the answer is not as expected: {'; '.join(broken)}", error_type="http_json", output=output
            )
    return output


def fits(status: int, wanted: tuple[int | str, ...]) -> bool:
    """Whether ``status`` is one of the numbers, ranges and classes in ``wanted``."""
    for item in wanted:
        match = _RANGE.match(str(item))
        if match is None:
            continue
        if match["one"] and status == int(match["one"]):
            return True
        if match["class"] and status // 100 == int(match["class"]):
            return True
        if match["low"] and int(match["low"]) <= status <= int(match["high"]):
            return True
    return False


def _at(answer: Any, path: str) -> tuple[bool, Any]:
    """Whether something stands at ``path``, and what."""
    for match in _PATH_PART.finditer(path):
        try:
            answer = answer[int(match[2])] if match[2] is not None else answer[match[1] or match[3] or ""]
        except (KeyError, IndexError, TypeError):
            return False, None
    return True, answer


def _same(a: Any, b: Any) -> bool:
    """Equal as JSON: ``1`` is not ``true``."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _holds(found: Any, wanted: Any) -> bool:
    if isinstance(found, str):
        return isinstance(wanted, str) and wanted in found
    return isinstance(found, list | dict) and wanted in found


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:199] + "…"
