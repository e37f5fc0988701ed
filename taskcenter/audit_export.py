"""The audit as a file of its own: one JSON object per line, verifiable without any database. (spec 6.4)

The first line says what it is and where the chain ends; one line per entry follows in the chain's order; the last
line is the SHA-256 of every byte before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from .audit import FIELDS, Head, Report, Verifier

__all__ = ["FORMAT", "verify_export", "write_export"]

FORMAT = "taskcenter-audit"


def write_export(rows: Iterable[Mapping[str, Any]], head: Head, exported_at: str) -> Iterator[bytes]:
    """The file's lines. ``rows`` are the sealed entries in the order of the chain."""
    digest = hashlib.sha256()
    first = {
        "format": FORMAT,
        "version": 1,
        "exportedAt": exported_at,
        "head": {"position": head.position, "hash": head.hash},
    }
    for line in _lines(first, rows):
        digest.update(line)
        yield line
    yield _line({"sha256": digest.hexdigest()})


def _lines(first: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    yield _line(first)
    for row in rows:
        yield _line({**{name: row[name] for name in FIELDS}, "hash": row["hash"]})


def _line(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode() + b"\n"


def verify_export(file: BinaryIO, expected: Mapping[int, str] | None = None) -> Report:
    """Read an export and say whether it is what was written."""
    verifier = Verifier(expected)
    digest = hashlib.sha256()
    head: Head | None = None
    last = b""
    for number, line in enumerate(file):
        if last:
            digest.update(last)
            head = _read(verifier, last, number, head)
        last = line
    if last != _line({"sha256": digest.hexdigest()}):
        verifier.damaged("the file's bytes are not those that were written: its last line does not fit")
    return verifier.finish(head)


def _read(verifier: Verifier, line: bytes, number: int, head: Head | None) -> Head | None:
    try:
        data = json.loads(line)
        if number == 1:
            if data["format"] != FORMAT or data["version"] != 1:
                raise ValueError("another format")
            return Head(int(data["head"]["position"]), str(data["head"]["hash"]))
        if set(data) != {*FIELDS, "hash"}:
            raise ValueError("other fields")
        verifier.add(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        verifier.damaged(f"line {number} is not a line of an export")
    return head
