"""What follows a failed attempt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from taskcenter.models import RetryPolicy
from taskcenter.scheduling.retry import decide_retry, delay_after, total_attempts

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("strategy", "delays"),
    [("linear", [100, 200, 300, 400]), ("exponential", [100, 200, 400, 800]), ("fixed", [100, 100, 100, 100])],
)
def test_the_delay_grows_by_strategy(strategy: str, delays: list[int]) -> None:
    policy = RetryPolicy.model_validate({"maxAttempts": 9, "backoffMs": 100, "strategy": strategy})
    assert [delay_after(policy, attempt) for attempt in (1, 2, 3, 4)] == delays


def test_a_limit_holds_and_nothing_overflows() -> None:
    policy = RetryPolicy(max_attempts=100, backoff_ms=86_400_000, strategy="exponential", max_backoff_ms=5_000)
    assert delay_after(policy, 100) == 5_000
    endless = policy.model_copy(update={"max_backoff_ms": None})
    assert decide_retry(endless, 100, NOW).due == NOW + timedelta(days=365)


def test_there_is_one_first_try_and_then_the_extra_ones() -> None:
    policy = RetryPolicy(max_attempts=2, backoff_ms=1_000)
    assert total_attempts(policy) == 3
    decisions = [decide_retry(policy, attempt, NOW) for attempt in (1, 2, 3)]
    assert [d.again for d in decisions] == [True, True, False]
    assert [d.due for d in decisions] == [NOW + timedelta(seconds=1), NOW + timedelta(seconds=2), None]
    assert decisions[0].reason == "attempt 1 of 3 failed; the next one starts in 1000 ms (linear delay)"
    assert decisions[2].reason == "attempt 3 of 3 was the last"


def test_without_a_policy_nothing_follows() -> None:
    decision = decide_retry(RetryPolicy(), 1, NOW)
    assert (decision.again, decision.delay_ms, decision.due, decision.reason) == (False, 0, None, "no retries are set")


def test_attempts_count_from_one() -> None:
    with pytest.raises(ValueError, match="counted from 1"):
        decide_retry(RetryPolicy(), 0, NOW)
