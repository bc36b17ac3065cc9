"""What else could have been done at a decision, from the figures stored with it."""

from dataclasses import replace

import pytest

from fleet.sizing import alternatives, bounding
from fleet.sizing.seen import ColdStart, JobTime, Seen

SEEN = Seen(
    now_s=1000.0, queue=84, ready=4, busy=4, coming_s=(12.0,), queue_work_s=840.0, rate_1m=0.3, rate_5m=0.3, job=JobTime(10.0, 0.4, 300),
    cold=ColdStart(60.0, 95.0, 12), base=2, maximum=10, price_per_hour_microusd=860_000,
)  # fmt: skip


def test_what_is_stored_is_read_back_as_it_was():
    assert alternatives.of_inputs(bounding.as_inputs(SEEN)) == SEEN


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"queue": None},
        {"ready": None},
        {"queue": "many"},
        {"job": {"mean_s": "x"}},
        {"coming_s": 5},
        {"idle_s": ["a"]},
        {"rate_5m": None},
        {"maximum": [1]},
    ],
)
def test_figures_that_are_none_make_no_alternatives(broken):
    stored = bounding.as_inputs(SEEN) | broken if broken else {}
    assert alternatives.of_inputs(stored) is None


def test_one_fewer_as_decided_one_more_and_the_maximum_each_with_its_price():
    found = alternatives.around(SEEN, applied=2)
    assert [(a.label, a.workers) for a in found] == [("One fewer", 6), ("As decided", 7), ("One more", 8), ("The maximum", 10)]
    assert [a.cost_per_hour_microusd for a in found] == [n * 860_000 for n in (6, 7, 8, 10)]
    assert [a.chosen for a in found] == [False, True, False, False]


def test_more_workers_never_wait_longer():
    waits = [a.wait_s for a in alternatives.around(SEEN, applied=0)]
    assert all(w is not None for w in waits) and waits == sorted(waits, reverse=True)


def test_a_size_is_named_once_and_none_is_below_nothing():
    assert [a.workers for a in alternatives.around(replace(SEEN, ready=0, busy=0, coming_s=()), applied=0)] == [0, 1, 10]
    at_most = alternatives.around(SEEN, applied=5)
    assert [(a.label, a.workers) for a in at_most] == [("One fewer", 9), ("As decided, the maximum", 10), ("One more, above the maximum", 11)]


def test_without_a_measured_job_no_wait_is_promised():
    assert {a.wait_s for a in alternatives.around(replace(SEEN, job=JobTime()), applied=0)} == {None}
