"""Prices: the sum of the lines is the price, never past the quote, nothing for what was not the customer's doing."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.pricing import FREE_CLASSES, Line, Terms, quote, settle
from fleet.models import Job

prices = st.decimals(0, 10_000_000, places=6)
terms = st.builds(Terms, prices, prices)
seconds = st.floats(0, 10_000_000, allow_nan=False)
classes = st.sampled_from(["", *Job.FailureClass.values])
ends = st.sampled_from(["succeeded", "failed", "canceled", "expired"])


@given(terms=terms, expected_s=seconds, used_s=seconds, outcome=ends, failure_class=classes)
def test_a_price_is_the_sum_of_its_lines_and_never_passes_the_quote(terms: Terms, expected_s: float, used_s: float, outcome: str, failure_class: str) -> None:
    promised = quote(terms, expected_s=expected_s)
    lines = settle(terms, outcome=outcome, failure_class=failure_class, gpu_seconds=used_s, quote_microusd=promised)
    assert [line.meter for line in lines] == ["job", "gpu_second"], "each meter once, also at a price of zero"
    assert all(type(line.amount) is int and line.amount >= 0 for line in lines)
    assert sum(line.amount for line in lines) <= promised
    assert lines[1].quantity == Decimal(str(round(used_s, 6))), "what was used is metered whatever it costs"


@given(terms=terms, used_s=seconds, outcome=st.sampled_from(["failed", "canceled", "expired"]), failure_class=st.sampled_from(sorted(FREE_CLASSES)))
def test_what_was_not_the_customers_doing_costs_nothing(terms: Terms, used_s: float, outcome: str, failure_class: str) -> None:
    lines = settle(terms, outcome=outcome, failure_class=failure_class, gpu_seconds=used_s, quote_microusd=10**15)
    assert [(line.amount, line.unit_price) for line in lines] == [(0, 0), (0, 0)]


@given(terms=terms, used_s=seconds, quote_microusd=st.integers(0, 10**9))
def test_a_quote_below_the_price_holds(terms: Terms, used_s: float, quote_microusd: int) -> None:
    lines = settle(terms, outcome="succeeded", failure_class="", gpu_seconds=used_s, quote_microusd=quote_microusd)
    assert all(line.amount >= 0 for line in lines) and sum(line.amount for line in lines) <= quote_microusd


def test_platform_and_capacity_are_free() -> None:
    assert {"platform", "capacity"} <= FREE_CLASSES
    assert "customer_input" not in FREE_CLASSES and "customer_cancel" not in FREE_CLASSES


@pytest.mark.parametrize(
    ("outcome", "failure_class", "job", "gpu"),
    [
        ("succeeded", "", 10_000, 2_500),
        ("canceled", "customer_cancel", 0, 2_500),
        ("failed", "customer_input", 0, 2_500),
        ("failed", "workflow", 0, 0),
        ("failed", "quality", 0, 0),
        ("failed", "external", 0, 0),
        ("failed", "platform", 0, 0),
        ("failed", "capacity", 0, 0),
        ("expired", "capacity", 0, 0),
        ("expired", "", 0, 0),
    ],
)
def test_who_pays_for_what(outcome: str, failure_class: str, job: int, gpu: int) -> None:
    lines = settle(Terms(Decimal(10_000), Decimal(1_000)), outcome=outcome, failure_class=failure_class, gpu_seconds=2.5, quote_microusd=10**6)
    assert [line.amount for line in lines] == [job, gpu]


def test_fractions_are_rounded_once_a_line() -> None:
    lines = settle(Terms(Decimal("0.5"), Decimal("0.4")), outcome="succeeded", failure_class="", gpu_seconds=1.0, quote_microusd=100)
    assert lines == [Line("job", Decimal(1), Decimal("0.5"), 1), Line("gpu_second", Decimal(1), Decimal("0.4"), 0)]


def test_a_quote_covers_a_second_at_least_and_half_as_much_again() -> None:
    assert quote(Terms(Decimal(7), Decimal(10)), expected_s=0) == 7 + 15
    assert quote(Terms(Decimal(7), Decimal(10)), expected_s=10) == 7 + 150
