from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.webhook_retry import SCHEDULE_S, Decision, decide


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_done(status: int) -> None:
    assert decide(attempt=1, status=status, jitter=0.5) == Decision("done")
    assert decide(attempt=99, status=status, jitter=0.5) == Decision("done")


@pytest.mark.parametrize("attempt", [1, 5, 10])
def test_410_means_never_again(attempt: int) -> None:
    assert decide(attempt=attempt, status=410, jitter=0.5) == Decision("dead")


@pytest.mark.parametrize("status", [None, 100, 301, 307, 400, 401, 404, 429, 500, 503])
def test_everything_else_is_tried_again_by_the_schedule(status: int | None) -> None:
    decisions = [decide(attempt=attempt, status=status, jitter=0.5) for attempt in range(1, 11)]
    assert [d.delay_s for d in decisions[:-1]] == [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]
    assert decisions[-1] == Decision("dead")


def test_retry_after_is_heeded_when_longer_and_never_beyond_a_day() -> None:
    assert decide(attempt=1, status=429, jitter=0.5, retry_after_s=60).delay_s == 60
    assert decide(attempt=2, status=503, jitter=0.5, retry_after_s=60).delay_s == 300
    assert decide(attempt=1, status=503, jitter=0.5, retry_after_s=1e9).delay_s == 86400
    assert decide(attempt=1, status=500, jitter=0.5, retry_after_s=60).delay_s == 5


@given(st.integers(1, 9), st.floats(0, 1))
def test_jitter_moves_a_retry_by_a_tenth_at_most(attempt: int, jitter: float) -> None:
    delay_s = decide(attempt=attempt, status=500, jitter=jitter).delay_s
    assert SCHEDULE_S[attempt - 1] * 0.9 - 1e-6 <= delay_s <= SCHEDULE_S[attempt - 1] * 1.1 + 1e-6
