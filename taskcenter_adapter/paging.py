"""Cursors of keyset pages: opaque to the reader, checked when they come back."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from datetime import UTC, datetime

from taskcenter.errors import Problem, ValidationFailed

__all__ = ["read_cursor", "write_cursor"]

_CHECK = 8


def write_cursor(created_at: datetime, key: str) -> str:
    """The place after the row that was created then and has this key."""
    body = json.dumps([created_at.astimezone(UTC).isoformat(), key]).encode()
    return base64.urlsafe_b64encode(_sum(body) + body).decode().rstrip("=")


def read_cursor(cursor: str) -> tuple[datetime, str]:
    """The place a cursor stands for. Raises ValidationFailed when it is not one of ours, or was changed."""
    try:
        padding = "=" * (-len(cursor) % 4)
        raw = base64.b64decode(cursor.encode("ascii") + padding.encode(), altchars=b"-_", validate=True)
        check, body = raw[:_CHECK], raw[_CHECK:]
        if check != _sum(body):
            raise ValueError("the sum does not fit")
        moment, key = json.loads(body)
        return datetime.fromisoformat(moment).astimezone(UTC), str(key)
    except (ValueError, TypeError, binascii.Error) as error:
        raise ValidationFailed(
            "The page's cursor",
            [Problem("bad_cursor", "cursor", "this is not a cursor of an earlier page; start from the first page")],
        ) from error


def _sum(body: bytes) -> bytes:
    # Against slips of copying, not against forgery: a cursor names a place in a list and opens nothing.
    return hashlib.sha256(b"taskcenter cursor\x00" + body).digest()[:_CHECK]
