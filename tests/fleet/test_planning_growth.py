"""Growth: the arithmetic of the seed's month six, and options compared."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.kernel.errors import Invalid
from fleet.planning import growth
from fleet.planning.growth import Case, Option
from fleet.planning.presets import SEED_MONTH_6

CASE = Case(workers=10, average=0.5, peak=0.8, monthly_microusd=1_000_000_000, jobs_a_month=10_000, new_customers=0.2, monthly=0.1, months=12)
MORE = Option("More", "horizontal", 100_000_000, workers=1)


def test_the_seeds_month_six_is_reproduced_and_its_gaps_are_named():
    made = growth.plan(SEED_MONTH_6.case, SEED_MONTH_6.options)
    assert (made.load_now, round(made.load_at_once, 4), round(made.load_after, 3)) == (0.75, 1.05, 1.597), "105% at once; the stated 160% after three months"
    assert made.nothing_done == 0, "what there is does not carry it for a day"
    vertical, horizontal, hybrid = made.results
    assert [r.option.monthly_microusd for r in made.results] == [800_000_000, 1_200_000_000, 600_000_000]
    assert (hybrid.job_microusd, hybrid.meets_target) == (161_000, False), "−30% of $0.23 misses $0.15"
    assert growth.needed_gain(230_000, 150_000) == pytest.approx(0.348, abs=0.0005)
    assert made.best == "Hybrid"
    said = " ".join(made.said)
    for words in ("105% at once", "159.7% after 3 months", "takes −34.8%", "$0.161 a job, which misses the target of $0.15 by $0.011"):
        assert words in said
    assert round(hybrid.average_full, 1) == 3.8 and round(horizontal.average_full, 1) == 2.6 and round(vertical.average_full, 1) == 1.7
    stated = {claim.what: (claim.stated, claim.worked_out, claim.holds) for claim in SEED_MONTH_6.claims}
    assert stated["Load projected"] == ("160%", "159.7%", True)
    assert stated["Cost per workflow with −30%"][1:] == ("$0.161", False)
    assert stated["Load with the new customers"][1] == "105%"


def test_the_claims_figures_are_those_the_plan_works_out():
    case = SEED_MONTH_6.case
    assert pytest.approx(2.429, abs=0.001) == 0.75 * 1.4 * 1.15**6
    assert case.peak * 1.4 == pytest.approx(1.33)
    assert round(case.jobs_a_month) == 10_435 and case.job_s / 60 == pytest.approx(7.6, abs=0.05)
    assert round(case.monthly_microusd / case.jobs_a_month) == 230_000


def test_a_step_is_bought_in_the_month_whose_peak_would_not_fit():
    (result,) = growth.plan(CASE, [MORE]).results
    assert [m.steps for m in result.months[:4]] == [1, 1, 2, 3]
    for month in result.months:
        assert month.peak <= month.capacity + 1e-9
        assert month.monthly_microusd == 1_000_000_000 + month.steps * 100_000_000
    assert result.months[0].peak == pytest.approx(10 * 0.8 * 1.2)
    assert result.peak_full == pytest.approx(math.log(11 / 9.6) / math.log(1.1))


def test_what_costs_more_once_and_less_a_month_breaks_even_later():
    tuned = Option("Tuned", "hybrid", 50_000_000, workers=1, work=0.9, once_microusd=500_000_000)
    (even,) = growth.plan(CASE, [MORE, tuned]).break_even
    assert (even.cheaper, even.than) == ("Tuned", "More")
    more, other = (r.months for r in growth.plan(CASE, [MORE, tuned]).results)
    assert other[even.month].cumulative_microusd <= more[even.month].cumulative_microusd
    assert other[even.month - 1].cumulative_microusd > more[even.month - 1].cumulative_microusd
    never = growth.plan(CASE, [MORE, Option("Dear", "vertical", 100_000_000, workers=1, once_microusd=1)]).break_even[0]
    assert (never.cheaper, never.month) == ("More", 0)


def test_without_growth_nothing_runs_out():
    made = growth.plan(Case(10, 0.5, 0.8, 0, 100, months=6), [MORE])
    assert made.nothing_done is None and made.results[0].peak_full is None
    assert "for as long as nothing grows" in made.said[-1]


@given(
    average=st.floats(0.01, 1.5), over=st.floats(0, 1), monthly=st.floats(0, 0.5), new=st.floats(0, 2), months=st.integers(0, 24), workers=st.floats(0.5, 500)
)
def test_cost_and_capacity_never_fall_and_peaks_always_fit(average, over, monthly, new, months, workers):
    case = Case(workers, average, average + over, 10**9, 1000, new_customers=new, monthly=monthly, months=months)
    (result,) = growth.plan(case, [Option("Add", "horizontal", 10**7, workers=workers / 10)]).results
    for before, after in zip(result.months, result.months[1:], strict=False):
        assert after.capacity >= before.capacity and after.cumulative_microusd > before.cumulative_microusd
    assert all(m.peak <= m.capacity * (1 + 1e-9) or m.steps == growth.MOST_STEPS for m in result.months)


@pytest.mark.parametrize(
    "wrong",
    [
        {"workers": 0},
        {"average": -1},
        {"peak": 0.1},
        {"months": 99},
        {"monthly": math.nan},
        {"monthly_microusd": -1},
        {"job_s": 0},
        {"new_customers": math.inf},
    ],
)
def test_figures_that_mean_nothing_are_refused(wrong):
    values = {name: getattr(CASE, name) for name in Case.__slots__} | wrong
    with pytest.raises(Invalid):
        growth.plan(Case(**values), [MORE])


@pytest.mark.parametrize("options", [[], [MORE, MORE], [Option("x", "hybrid", 1, work=0)], [Option("x", "hybrid", -1)]])
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(Invalid):
        growth.plan(CASE, options)
