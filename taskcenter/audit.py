"""The audit's chain: each entry carries the hash of the one before it, so that no entry changes unseen. (spec 6.4)

An entry is written in the transaction of what it tells of. A moment later the one sequencer *seals* it: it gets the
next ``position``, the hash of its predecessor and its own hash over all of it. What retention takes leaves a gap,
and the newest anchor entry in the chain names every gap with the hashes at both its ends.

Pure: rows in, findings out. Where rows come from stands in ``taskcenter_adapter.audit_chain`` and
``taskcenter.audit_export``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .status import Origin, RunStatus

__all__ = [
    "ANCHOR",
    "FIELDS",
    "GENESIS",
    "Finding",
    "Gap",
    "Head",
    "Report",
    "Verifier",
    "ended",
    "hash_of",
    "with_gaps",
]

ANCHOR = "audit_anchor"
"""The event type of the entry that retention leaves for what it took."""

GENESIS = "0" * 64
"""What the first entry names as the hash before it."""

FIELDS = (
    *("sequence", "position", "id", "event_type", "task_id", "run_id", "actor", "channel", "address", "object"),
    *("before", "after", "result", "message", "metadata", "created_at", "prev_hash"),
)
"""What the hash covers: every column but itself."""

_MOST_FINDINGS = 1_000


def ended(origin: Origin, status: RunStatus) -> str:
    """The event type of the entry for a run's end: what a person asked for has the seed's names."""
    if origin in (Origin.MANUAL_RETRY, Origin.RESUME):
        return "manual_retry_finished"
    if origin is Origin.MANUAL:
        return "manual_run_cancelled" if status is RunStatus.CANCELLED else "manual_run_finished"
    return "run_cancelled" if status is RunStatus.CANCELLED else "run_finished"


def hash_of(row: Mapping[str, Any]) -> str:
    """SHA-256 over the entry's canonical JSON: sorted keys, no spaces, times as UTC text with microseconds."""
    body = {name: row[name] for name in FIELDS}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class Head:
    """The end of the chain, kept apart from the entries: without it nobody would miss the last ones."""

    position: int = 0
    hash: str = GENESIS


@dataclass(frozen=True)
class Gap:
    """Positions that retention emptied, and the hashes of the entry before the first and of the last."""

    first: int
    last: int
    prev_hash: str
    last_hash: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "first": self.first,
            "last": self.last,
            "count": self.last - self.first + 1,
            "prevHash": self.prev_hash,
            "lastHash": self.last_hash,
        }

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Gap:
        return cls(data["first"], data["last"], data["prevHash"], data["lastHash"])


def with_gaps(known: Iterable[Gap], removed: Iterable[Mapping[str, Any]]) -> list[Gap]:
    """The gaps there are when these rows (position, prev_hash, hash) are gone too; neighbours become one."""
    parts = [*known, *(Gap(row["position"], row["position"], row["prev_hash"], row["hash"]) for row in removed)]
    merged: list[Gap] = []
    for gap in sorted(parts, key=lambda gap: gap.first):
        if merged and merged[-1].last + 1 == gap.first:
            before = merged.pop()
            gap = Gap(before.first, gap.last, before.prev_hash, gap.last_hash)
        merged.append(gap)
    return merged


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it was written. ``position`` is where in the chain, None for the whole."""

    kind: str
    """changed, missing, inserted, order, head, anchor, damaged"""
    position: int | None
    message: str

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "position": self.position, "message": self.message}


@dataclass
class Report:
    """What a look at a whole chain says."""

    entries: int = 0
    """Sealed entries that were read."""
    unsealed: int = 0
    """Entries the sequencer has not reached yet: the chain says nothing about them."""
    purged: int = 0
    """Entries that retention took, as the anchor says."""
    head: Head = Head()
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "entries": self.entries,
            "unsealed": self.unsealed,
            "purged": self.purged,
            "head": {"position": self.head.position, "hash": self.head.hash},
            "findings": [finding.to_dict() for finding in self.findings],
        }


class Verifier:
    """Reads a chain from its beginning to its end. Give it every row, then ask :meth:`finish`.

    ``expected`` are entries somebody noted elsewhere, position → hash: they prove that nothing up to them was
    written anew, which the chain alone cannot.
    """

    def __init__(self, expected: Mapping[int, str] | None = None, *, ordered: bool = False) -> None:
        self._report = Report()
        self._last = Head()
        self._gaps: list[Gap] = []
        self._anchor: Sequence[Mapping[str, Any]] = ()
        self._expected = dict(expected or {})
        self._ordered = ordered
        self._highest = 0
        self._open: list[int] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """The next sealed entry by position, or one that is not sealed (in any place)."""
        position, found = row["position"], row["hash"]
        if found is None:
            self._unsealed(row)
            return
        self._report.entries += 1
        if type(position) is not int or position <= self._last.position:
            where = position if type(position) is int else None
            self._find("order", where, f"entry {row['id']} stands after position {self._last.position}")
            return
        if position > self._last.position + 1:
            self._gaps.append(Gap(self._last.position + 1, position - 1, self._last.hash, str(row["prev_hash"])))
        elif row["prev_hash"] != self._last.hash:
            self._find("order", position, "it does not name the entry before it: one of the two was put here")
        if hash_of(row) != found:
            self._find("changed", position, f"entry {row['id']} ({row['event_type']}) is not what was sealed")
        elif row["event_type"] == ANCHOR:
            self._anchor = row["metadata"].get("gaps", ())
        wanted = self._expected.pop(position, found)
        if wanted != found:
            self._find("changed", position, "its hash is not the one that was noted: the chain was written anew")
        self._last = Head(position, str(found))
        if type(row["sequence"]) is int:
            self._highest = max(self._highest, row["sequence"])

    def _unsealed(self, row: Mapping[str, Any]) -> None:
        self._report.unsealed += 1
        if row["position"] is not None or row["prev_hash"] is not None:
            self._find("changed", None, f"entry {row['id']} has a place in the chain and no hash")
        elif type(row["sequence"]) is int:
            self._open.append(row["sequence"])

    def _find(self, kind: str, position: int | None, message: str) -> None:
        if len(self._report.findings) < _MOST_FINDINGS:
            self._report.findings.append(Finding(kind, position, message))

    def damaged(self, message: str) -> None:
        """The place the entries were read from is broken."""
        self._find("damaged", None, message)

    def finish(self, head: Head | None) -> Report:
        """All has been read; ``head`` is where the chain is said to end (None: nothing says so)."""
        report = self._report
        report.head = self._last
        self._check_gaps()
        if head is None:
            if report.entries:
                self._find("head", None, "nothing says where the chain ends")
        elif head.position > self._last.position:
            lost = head.position - self._last.position
            self._find("missing", self._last.position + 1, f"the last {_entries(lost)} are missing")
        elif head != self._last:
            self._find("head", head.position, "the chain does not end where it is said to end")
        for position in self._expected:
            self._find("missing", position, "an entry was noted for this position and none stands there")
        # Where numbers are given in the order of the commits, an entry with an older number came in afterwards.
        for sequence in self._open if self._ordered else ():
            if sequence < self._highest:
                self._find("inserted", None, f"the entry with number {sequence} was put between sealed ones")
        return report

    def _check_gaps(self) -> None:
        try:
            known = [Gap.of(data) for data in self._anchor]
            told = set(known)
        except (KeyError, TypeError):
            known, told = [], set()
        for gap in self._gaps:
            if gap in told:
                self._report.purged += gap.last - gap.first + 1
            else:
                span = f"position {gap.first}" if gap.first == gap.last else f"positions {gap.first} to {gap.last}"
                self._find("missing", gap.first, f"{span}: {_entries(gap.last - gap.first + 1)} missing")
        found = set(self._gaps)
        for gap in known:
            if gap not in found:
                self._find("inserted", gap.first, f"positions {gap.first} to {gap.last} were purged and are not empty")


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"
