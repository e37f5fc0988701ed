"""Every refusal of the API in one form: ``application/problem+json`` (RFC 9457) a path, a sentence. (spec 7.4)"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from taskcenter.errors import Problem, Refused, ServerAway, TaskCenterError, ValidationFailed
from taskcenter_console.services.auditing import record_refusal

from .depends import caller_of

__all__ = [
    "MEDIA_TYPE",
    "FieldProblem",
    "PreconditionFailed",
    "ProblemDocument",
    "ProblemResponse",
    "add_handlers",
    "documented",
    "problem",
]

MEDIA_TYPE = "application/problem+json"
_UNSENDABLE = re.compile("[\ud800-\udfff]")


class PreconditionFailed(Refused):
    """The definition is not the one that If-Match names."""

    status = 412
    code = "precondition_failed"


class FieldProblem(BaseModel):
    """One thing that is wrong, and where."""

    path: str = Field(description="Where it stands: `payload.sql`, `triggers[0].cronExpression`; empty for the whole.")
    code: str = Field(description="A stable word for programs.")
    message: str = Field(description="A sentence for people.")


class ProblemDocument(BaseModel):
    """What every answer from 400 up holds."""

    type: str = Field(description="A URN that names the kind of problem.")
    title: str
    status: int
    detail: str = Field(description="What is wrong here, and what to do.")
    errors: list[FieldProblem] = []
    id: str | None = Field(None, description="For a 500: the id under which the server's log tells more.")


class ProblemResponse(JSONResponse):
    media_type = MEDIA_TYPE


def problem(
    status: int,
    detail: str,
    *,
    code: str | None = None,
    title: str | None = None,
    errors: Iterable[Problem] = (),
    headers: Mapping[str, str] | None = None,
    error_id: str | None = None,
) -> ProblemResponse:
    """The answer for a refusal. Text that UTF-8 cannot carry is replaced: an answer is always sent."""
    phrase = HTTPStatus(status).phrase
    body: dict[str, Any] = {
        "type": f"urn:taskcenter:problem:{code or phrase.lower().replace(' ', '_').replace(chr(39), '')}",
        "title": title or phrase,
        "status": status,
        "detail": _sendable(detail),
        "errors": [
            {"path": _sendable(item.path), "code": item.code, "message": _sendable(item.message)} for item in errors
        ],
    }
    if error_id is not None:
        body["id"] = error_id
    return ProblemResponse(body, status, headers=dict(headers or {}))


def _sendable(text: str) -> str:
    return _UNSENDABLE.sub("\ufffd", text)


def documented(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for its entry in the OpenAPI document."""
    return {code: {"model": ProblemDocument, "description": HTTPStatus(code).phrase} for code in codes}


def add_handlers(app: FastAPI) -> None:
    """Every error a route may raise, in the one form."""

    async def on_task_center_error(request: Request, error: Exception) -> ProblemResponse:
        assert isinstance(error, TaskCenterError)
        if isinstance(error, Refused) and request.method != "GET":
            await run_in_threadpool(_note_refusal, request, error)
        title = _title(type(error))
        headers = {"Retry-After": "5"} if isinstance(error, ServerAway) else None
        found: Sequence[Problem] = ()
        detail = error.message
        if isinstance(error, ValidationFailed):
            found, detail = error.problems, detail.splitlines()[0].rstrip(":")
        return problem(error.status, detail, code=error.code, title=title, errors=found, headers=headers)

    async def on_bad_request(_: Request, error: Exception) -> ProblemResponse:
        assert isinstance(error, RequestValidationError)
        items = error.errors()
        if any(item["type"] == "json_invalid" for item in items):
            return problem(400, "the body is not JSON", code="not_json")
        found = [Problem(str(item["type"]), _path(item["loc"]), _sentence(item)) for item in items]
        return problem(
            422,
            f"the request has {len(found)} problem{'s' if len(found) != 1 else ''}",
            code=ValidationFailed.code,
            title=_title(ValidationFailed),
            errors=found,
        )

    async def on_http_error(request: Request, error: Exception) -> ProblemResponse:
        assert isinstance(error, HTTPException)
        detail = str(error.detail)
        if error.status_code == 404:
            detail = f"there is nothing at {request.url.path}; GET /api/openapi.json lists what there is"
        elif error.status_code == 405:
            detail = f"{request.method} is not possible at {request.url.path}"
        return problem(error.status_code, detail, headers=error.headers)

    app.add_exception_handler(TaskCenterError, on_task_center_error)
    app.add_exception_handler(RequestValidationError, on_bad_request)
    app.add_exception_handler(HTTPException, on_http_error)


def _note_refusal(request: Request, error: Refused) -> None:
    """Into the audit; a database that is away must not change the answer.

    Not for the command line: it may ask the person back and go on, and notes the refusals that stand by itself.
    """
    caller = caller_of(request)
    if caller.channel == "cli":
        return
    with contextlib.suppress(TaskCenterError):
        record_refusal(request.app.state.center, caller, f"{request.method} {request.url.path}", error)


def _title(kind: type[TaskCenterError]) -> str:
    """The docstring of an error says what kind of thing went wrong."""
    return (kind.__doc__ or kind.__name__).strip().splitlines()[0].rstrip(".")


def _path(loc: Iterable[Any]) -> str:
    """``("body", "triggers", 0, "type")`` → ``triggers[0].type``."""
    text = ""
    for part in list(loc)[1:]:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _sentence(item: Mapping[str, Any]) -> str:
    match str(item["type"]):
        case "missing":
            return "is required and missing"
        case "extra_forbidden":
            return "is not known here"
    return str(item["msg"]).removeprefix("Value error, ")
