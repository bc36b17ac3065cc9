"""Which kind of machine is ordered, by table and by property; and who leaves when a pool shrinks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.sizing import victims
from fleet.sizing.offers import Offer, choose, expected_price, risk_per_hour
from fleet.sizing.victims import Idle

FIRM = Offer(1, 1, "on_demand", 2_000_000)
SPARE = Offer(2, 2, "on_demand", 3_000_000)
SPOT = Offer(3, 3, "spot", 900_000, worker_hours=1000.0)


def ordered(count: int, *offers: Offer, live: dict[int, int] | None = None, base: int = 2, share: float = 0.0, **rest: float) -> list[int]:
    return choose(offers, count, live=live or {}, base=base, on_demand_share=share, **rest)


@pytest.mark.parametrize(
    ("offers", "live", "share", "wanted", "chosen"),
    [
        ((FIRM, SPOT), {}, 0.0, 4, [1, 1, 3, 3]),  # the base on demand, spot above it
        ((FIRM, SPOT), {}, 0.5, 6, [1, 1, 1, 3, 1, 3]),  # half of what is above the base
        ((FIRM, SPOT), {}, 1.0, 4, [1, 1, 1, 1]),
        ((FIRM, SPOT), {1: 2}, 0.0, 2, [3, 3]),  # the base is there already
        ((FIRM, SPOT), {3: 5}, 0.0, 2, [1, 1]),  # five spot workers are no base
        ((FIRM, SPARE), {}, 1.0, 2, [1, 1]),  # in the pool's order
        ((replace(FIRM, most=1), SPARE), {}, 1.0, 3, [1, 2, 2]),
        ((replace(FIRM, most=1), SPARE), {1: 1}, 1.0, 1, [2]),
        ((replace(FIRM, available=False), SPARE), {}, 1.0, 1, [2]),
        ((FIRM, replace(SPOT, available=False)), {1: 2}, 0.0, 2, [1, 1]),  # no spot to be had: on demand at once
        ((replace(FIRM, available=False), SPOT), {}, 1.0, 2, [3, 3]),  # a spot worker is better than none
        ((replace(FIRM, most=1),), {}, 1.0, 3, [1]),  # no more can be had
        ((), {}, 1.0, 3, []),
    ],
)
def test_the_kind_of_machine_by_table(offers: tuple[Offer, ...], live: dict[int, int], share: float, wanted: int, chosen: list[int]) -> None:
    assert ordered(wanted, *offers, live=live, share=share) == chosen


def test_spot_that_is_taken_away_too_often_for_long_jobs_is_not_worth_its_price() -> None:
    flaky = replace(SPOT, price_per_hour_microusd=1_800_000, interruptions=400, worker_hours=400.0)
    assert ordered(1, FIRM, flaky, live={1: 2}, job_s=10.0) == [3]
    assert ordered(1, FIRM, flaky, live={1: 2}, job_s=3600.0, cold_s=120.0) == [1]


def test_a_kind_never_seen_is_no_safer_than_one_that_was_watched() -> None:
    new, watched = replace(SPOT, worker_hours=0.0), SPOT
    assert risk_per_hour(new) > risk_per_hour(watched) > 0 == risk_per_hour(FIRM)
    assert expected_price(FIRM, job_s=3600) == FIRM.price_per_hour_microusd < expected_price(replace(FIRM, market="spot"), job_s=3600)


@given(
    kinds=st.lists(st.tuples(st.sampled_from(["on_demand", "spot"]), st.integers(0, 10**7), st.none() | st.integers(0, 5), st.booleans()), max_size=4),
    count=st.integers(0, 12),
    base=st.integers(0, 6),
    share=st.floats(0, 1),
)
def test_no_kind_is_ordered_beyond_its_most_nor_while_it_cannot_be_had(kinds, count, base, share) -> None:
    offers = [Offer(n, n, market, price, most, available) for n, (market, price, most, available) in enumerate(kinds)]
    chosen = choose(offers, count, live={}, base=base, on_demand_share=share)
    assert len(chosen) <= count
    for offer in offers:
        assert chosen.count(offer.id) <= (count if offer.most is None else offer.most) and (offer.available or offer.id not in chosen)
    room = sum(count if o.most is None else o.most for o in offers if o.available)
    assert len(chosen) == min(count, room), "what can be had is had"


def idle(name: str, *warm: str, idle_s: float = 100.0, **rest: object) -> Idle:
    return Idle(name, idle_s, warm, **rest)  # type: ignore[arg-type]


DEMAND = {"flux": 0.7, "pony": 0.5, "sdxl": 0.2}


@pytest.mark.parametrize(
    ("workers", "count", "leave"),
    [
        ([idle("a", "flux"), idle("b", "sdxl"), idle("c", "old")], 2, ["c", "b"]),  # least warm value first
        ([idle("a", "flux"), idle("b", "flux"), idle("c", "pony")], 2, ["a", "c"]),  # the last holder of a wanted model stays
        ([idle("a", "flux", cordoned=True), idle("b")], 1, ["a"]),
        ([idle("a", "flux", old_image=True), idle("b")], 1, ["a"]),
        ([idle("a", price_per_hour_microusd=1), idle("b", price_per_hour_microusd=2)], 1, ["b"]),
        ([idle("a"), idle("b", spot=True)], 1, ["b"]),
        ([idle("a", idle_s=10), idle("b", idle_s=900)], 1, ["b"]),
        ([idle("a")], 5, ["a"]),
        ([], 1, []),
    ],
)
def test_who_leaves_by_table(workers: list[Idle], count: int, leave: list[str]) -> None:
    assert victims.choose(workers, count, demand=DEMAND) == leave
