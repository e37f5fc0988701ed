"""Every error a user may see. The docstring of a leaf says what went wrong; the message says where and what to do.

``exit_code`` is what the command line ends with (spec 7.3); ``status`` what the API answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Conflict",
    "ConnectionUnavailable",
    "ExpressionError",
    "MappingError",
    "NotFound",
    "Problem",
    "Refused",
    "ServerAway",
    "SetupError",
    "StepFailed",
    "TaskCenterError",
    "TimedOut",
    "ValidationFailed",
]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: a stable code, the place, and a sentence.

    ``severity`` is ``error`` (nothing is saved or run) or ``warning`` (said, not refused).
    """

    code: str
    path: str
    message: str
    severity: str = field(default="error", compare=False)

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message

    def to_dict(self) -> dict[str, str]:
        return {"code": self.code, "path": self.path, "message": self.message, "severity": self.severity}


class TaskCenterError(Exception):
    """Something went wrong that a user can understand."""

    exit_code = 1
    status = 500
    code = "error"

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.data = data


class ValidationFailed(TaskCenterError):
    """What was given is not valid; every problem is listed, nothing was stored."""

    exit_code = 2
    status = 422
    code = "validation"

    def __init__(self, what: str, problems: Iterable[Problem]) -> None:
        self.problems: Sequence[Problem] = tuple(problems)
        count = len(self.problems)
        head = f"{what} has {count} problem{'s' if count != 1 else ''}"
        super().__init__("\n".join([head + ":", *(f"  - {p}" for p in self.problems)]))
        self.what = what


class NotFound(TaskCenterError):
    """The named thing does not exist."""

    exit_code = 3
    status = 404
    code = "not_found"


class Refused(TaskCenterError):
    """A rule forbids it; nothing was changed."""

    exit_code = 4
    status = 409
    code = "refused"


class Conflict(Refused):
    """Somebody else changed it in between."""

    code = "conflict"


class ServerAway(TaskCenterError):
    """A server that is needed does not answer."""

    exit_code = 5
    status = 503
    code = "server_away"


class SetupError(TaskCenterError):
    """This machine or its settings do not allow it: a port, a folder, a missing program."""

    exit_code = 2
    status = 500
    code = "setup"


class ConnectionUnavailable(TaskCenterError):
    """A saved connection is missing or its server refuses."""

    code = "connection"
    status = 422


class StepFailed(TaskCenterError):
    """The work itself failed; ``error_type`` names the kind for retry rules and statistics."""

    code = "step_failed"

    def __init__(self, message: str, *, error_type: str = "error", output: Any = None, **data: Any) -> None:
        super().__init__(message, **data)
        self.error_type = error_type
        self.output = output


class TimedOut(StepFailed):
    """The work ran longer than it may and was stopped."""

    code = "timed_out"

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message, error_type="timeout", **data)


class MappingError(StepFailed):
    """A template names something that is not there."""

    code = "mapping"

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message, error_type="mapping", **data)


class ExpressionError(StepFailed):
    """A condition could not be evaluated."""

    code = "expression"

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message, error_type="expression", **data)
