from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.kernel import money


@pytest.mark.parametrize(
    ("quantity", "unit", "owed"), [(3, 1_200, 3_600), (Decimal("0.5"), 1, 1), (Decimal("0.4999"), 1, 0), (Decimal("-0.5"), 1, -1), (0, Decimal("0.1"), 0)]
)
def test_an_amount_is_rounded_once_half_away_from_zero(quantity, unit, owed: int) -> None:
    assert money.amount(quantity, unit) == owed


@given(st.integers(-(10**15), 10**15))
def test_dollars_and_micro_dollars_convert_exactly_both_ways(micro: int) -> None:
    assert money.from_usd(money.to_usd(micro)) == micro


@pytest.mark.parametrize(("micro", "text"), [(12_040_000, "12.04"), (3_600, "0.0036"), (0, "0.00"), (-1, "-0.000001"), (5_000_000, "5.00")])
def test_the_exact_amount_reads_as_a_plain_decimal(micro: int, text: str) -> None:
    assert money.to_usd(micro) == text


@pytest.mark.parametrize("text", ["", "abc", "1.0000001", "NaN", "Infinity", "1,5"])
def test_what_is_no_amount_of_micro_dollars_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an amount|is finer"):
        money.from_usd(text)


@pytest.mark.parametrize(
    ("micro", "tile", "text"),
    [
        (0, False, "$0.00"),
        (3_600, False, "$0.0036"),
        (999_940, False, "$0.9999"),
        (999_950, False, "$1.00"),
        (12_345_670_000, False, "$12,345.67"),
        (12_345_670_000, True, "$12,346"),
        (-2_500_000, False, "−$2.50"),
    ],
)
def test_people_see_cents_from_a_dollar_and_more_digits_below(micro: int, tile: bool, text: str) -> None:
    assert money.display(micro, tile=tile) == text
