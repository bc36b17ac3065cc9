"""What follows a failed attempt, as a table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.pricing import FREE_CLASSES
from fleet.models import Job
from fleet.queue.transitions import ALLOWED
from fleet.retries import OURS, RETRIED_CLASSES, Ended, next_status

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
S = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("failure_class", "attempt", "cancel", "deadline_at", "status"),
    [
        ("platform", 1, False, None, "queued"),
        ("capacity", 2, False, NOW + S, "queued"),
        ("platform", 3, False, None, "failed"),
        ("platform", 4, False, None, "failed"),
        ("customer_input", 1, False, None, "failed"),
        ("workflow", 1, False, None, "failed"),
        ("quality", 1, False, None, "failed"),
        ("external", 1, False, None, "failed"),
        ("customer_cancel", 1, False, None, "failed"),
        ("", 1, False, None, "failed"),
        ("platform", 1, True, None, "canceled"),
        ("customer_cancel", 1, True, None, "canceled"),
        ("platform", 3, True, None, "canceled"),
        ("platform", 1, False, NOW, "expired"),
        ("customer_input", 1, True, NOW - S, "expired"),
    ],
)
def test_the_next_status(failure_class: str, attempt: int, cancel: bool, deadline_at: datetime | None, status: str) -> None:
    assert next_status(Ended(failure_class, attempt, 3, cancel, deadline_at), now=NOW) == status


@given(
    failure_class=st.sampled_from(["", *Job.FailureClass.values]),
    attempt=st.integers(1, 10),
    most=st.integers(1, 5),
    cancel=st.booleans(),
    deadline_s=st.none() | st.integers(-5, 5),
)
def test_a_retry_is_allowed_bounded_and_only_for_what_is_ours(failure_class: str, attempt: int, most: int, cancel: bool, deadline_s: int | None) -> None:
    deadline_at = None if deadline_s is None else NOW + deadline_s * S
    status = next_status(Ended(failure_class, attempt, most, cancel, deadline_at), now=NOW)
    assert status in ALLOWED["running"]
    if status == "queued":
        assert failure_class in RETRIED_CLASSES and attempt < most and not cancel


def test_whatever_we_try_again_costs_the_customer_nothing() -> None:
    assert RETRIED_CLASSES <= OURS <= FREE_CLASSES
