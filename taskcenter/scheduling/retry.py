"""Whether a failed attempt is followed by another one, and when. (spec 4.8)"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ..models import RetryPolicy

__all__ = ["RetryDecision", "decide_retry", "delay_after", "total_attempts"]

_LONGEST_MS = 365 * 86_400_000
"""Where delays saturate: whoever waits a year for a retry has written a schedule."""


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """What follows a failed attempt, and the sentence that says why. ``due`` is None when nothing follows."""

    again: bool
    delay_ms: int
    due: datetime | None
    reason: str


def total_attempts(policy: RetryPolicy) -> int:
    """The first try and the extra ones."""
    return 1 + policy.max_attempts


def delay_after(policy: RetryPolicy, attempt: int) -> int:
    """Milliseconds to wait after the ``attempt``-th attempt (from 1) failed.

    linear: ``backoffMs × attempt``; exponential: ``backoffMs × 2^(attempt - 1)``; fixed: ``backoffMs``. Never more
    than ``maxBackoffMs``, nor than a year.
    """
    if attempt < 1:
        raise ValueError(f"attempts are counted from 1, not {attempt}")
    if policy.strategy == "fixed":
        delay = policy.backoff_ms
    elif policy.strategy == "linear":
        delay = policy.backoff_ms * attempt
    else:
        delay = policy.backoff_ms * 2 ** min(attempt - 1, 64)  # 64 doublings of 1 ms are beyond every limit
    limit = _LONGEST_MS if policy.max_backoff_ms is None else min(policy.max_backoff_ms, _LONGEST_MS)
    return min(delay, limit)


def decide_retry(policy: RetryPolicy, attempt: int, now: datetime) -> RetryDecision:
    """What follows when the ``attempt``-th attempt (from 1) has failed at ``now``.

    Whether the failure is one that may be retried at all (a person's cancel is not) is for the caller to know.
    """
    total = total_attempts(policy)
    delay = delay_after(policy, attempt)
    if attempt >= total:
        said = "no retries are set" if policy.max_attempts == 0 else f"attempt {attempt} of {total} was the last"
        return RetryDecision(False, 0, None, said)
    reason = f"attempt {attempt} of {total} failed; the next one starts in {delay} ms ({policy.strategy} delay)"
    return RetryDecision(True, delay, now + timedelta(milliseconds=delay), reason)
