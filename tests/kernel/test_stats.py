from __future__ import annotations

import json
import math
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.kernel.stats import RELATIVE_ERROR, Histogram

values = st.lists(st.floats(0, 1e7) | st.floats(1e-6, 1e-2) | st.integers(0, 100).map(float), max_size=60)


def of(numbers: list[float]) -> Histogram:
    histogram = Histogram()
    for number in numbers:
        histogram.add(number)
    return histogram


def exact(numbers: list[float], q: float) -> float:
    return sorted(numbers)[max(1, math.ceil(q * len(numbers))) - 1]


def test_nothing_counted_has_no_quantile() -> None:
    empty = Histogram()
    assert (empty.count, empty.sum, empty.min, empty.max, empty.mean, empty.quantile(0.5)) == (0, 0, None, None, None, None)
    assert empty.to_json() == {} and Histogram.from_json({}) == Histogram.from_json(None) == empty


@given(values, values, values)
def test_merging_is_associative_and_commutative_and_equals_counting_together(a: list[float], b: list[float], c: list[float]) -> None:
    left = of(a).merge(of(b)).merge(of(c))
    right = of(a).merge(of(b).merge(of(c)))
    assert left == right == of(c).merge(of(b)).merge(of(a)) == of(a + b + c)


@given(values.filter(len), st.floats(0, 1))
def test_a_quantile_is_within_the_stated_error_of_the_exact_one(numbers: list[float], q: float) -> None:
    found, true = of(numbers).quantile(q), exact(numbers, q)
    assert abs(found - true) <= true * RELATIVE_ERROR * (1 + 1e-9) + 1e-6
    assert RELATIVE_ERROR < 0.05


@given(values.filter(len))
def test_count_sum_least_and_greatest_are_exact(numbers: list[float]) -> None:
    histogram = of(numbers)
    assert (histogram.count, histogram.min, histogram.max) == (len(numbers), min(numbers), max(numbers))
    assert histogram.sum == pytest.approx(sum(numbers), abs=1e-6 * len(numbers))
    assert (histogram.quantile(0), histogram.quantile(1)) == (min(numbers), max(numbers))


@given(values)
def test_json_gives_the_same_histogram_back(numbers: list[float]) -> None:
    histogram = of(numbers)
    assert Histogram.from_json(json.loads(json.dumps(histogram.to_json()))) == histogram


@given(values, st.integers(0, 9))
def test_counting_n_at_once_is_counting_n_times(numbers: list[float], n: int) -> None:
    at_once = Histogram()
    for number in numbers:
        at_once.add(number, n)
    assert at_once == reduce(Histogram.merge, [of(numbers) for _ in range(n)], Histogram())


def test_merging_with_itself_doubles() -> None:
    histogram = of([1, 2])
    assert histogram.merge(histogram).count == 4 and histogram == of([1, 2, 1, 2])


def test_a_negative_duration_counts_as_zero_and_what_is_no_number_is_refused() -> None:
    histogram = of([-1, 5])
    assert (histogram.min, histogram.sum) == (0, 5)
    for wrong in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not a duration"):
            histogram.add(wrong)
    with pytest.raises(ValueError, match="never taken back"):
        histogram.add(1, -1)
    with pytest.raises(ValueError, match="not a share"):
        histogram.quantile(1.1)


def test_values_up_to_a_limit_can_be_counted() -> None:
    histogram = of([0, 0.5, 1, 1, 2, 30])
    assert [histogram.at_most(limit) for limit in (0, 0.9, 1.5, 10, 30)] == [1, 2, 4, 5, 6]


def test_a_day_of_durations_stays_small() -> None:
    histogram = of([math.exp(x / 1000 * math.log(3600 / 0.001)) * 0.001 for x in range(1000)])
    assert len(histogram.buckets) < 170 and len(json.dumps(histogram.to_json())) < 1700
