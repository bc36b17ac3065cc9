"""The simulator against what is known: Lindley's recursion exactly, Erlang's formula in the mean, and books that balance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.simulation import Outcome, simulate
from fleet.sizing import policies
from fleet.sizing.bounding import Limits
from fleet.sizing.seen import Memory, Planned, Proposal, Seen


class Fixed:
    """Wants one size for ever."""

    name = "fixed"

    def __init__(self, size: int) -> None:
        self.size = size
        self.shown: list[Seen] = []

    def decide(self, seen: Seen, memory: Memory) -> Proposal:
        self.shown.append(seen)
        return Proposal(self.size, "It is what it is.")


class Killer(Fixed):
    name = "killer"
    stops_busy = True

    def decide(self, seen: Seen, memory: Memory) -> Proposal:
        return Proposal(self.size if int(seen.now_s / 60) % 2 else 1, "Up and down.")


def erlang_c(servers: int, offered: float) -> float:
    b = 1.0
    for n in range(1, servers + 1):
        b = offered * b / (n + offered * b)
    return servers * b / (servers - offered * (1 - b))


def run(arrivals, service, size: int, **more) -> Outcome:
    asked = {"policy": Fixed(size), "base": size, "maximum": size, "cold_start_s": 60, "target_s": 30} | more
    return simulate(arrivals, service, **asked)


lists = st.lists(st.tuples(st.floats(0, 60), st.floats(0, 200)), min_size=1, max_size=60)


@given(lists)
def test_one_worker_waits_as_lindley_says(gaps_and_services):
    gaps, service = (np.array(x) for x in zip(*gaps_and_services, strict=True))
    arrivals = np.cumsum(gaps)
    wait, expected = 0.0, []
    for n in range(len(gaps)):
        wait = 0.0 if n == 0 else max(0.0, wait + service[n - 1] - gaps[n])
        expected.append(wait)
    assert run(arrivals, service, 1).waits == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("servers", "offered"), [(1, 0.7), (4, 3.0), (20, 16.0), (100, 92.0)])
def test_mean_waits_agree_with_erlang_c(servers, offered):
    random = np.random.default_rng(servers)
    jobs, mean = 300_000, 20.0
    arrivals = np.cumsum(random.exponential(mean / offered, jobs))
    found = run(arrivals, random.exponential(mean, jobs), servers, tick_s=3600.0).waits[jobs // 10 :]
    expected = erlang_c(servers, offered) * mean / (servers - offered)
    # Waits of neighbours are alike: the error of the mean comes from batches of them.
    batches = found[: len(found) // 30 * 30].reshape(30, -1).mean(axis=1)
    assert abs(found.mean() - expected) < 3.5 * batches.std(ddof=1) / math.sqrt(30)
    tail = erlang_c(servers, offered) * math.exp(-(servers - offered) * 30 / mean)
    late = (found > 30).reshape(30, -1).mean(axis=1) if len(found) % 30 == 0 else (found[: len(found) // 30 * 30] > 30).reshape(30, -1).mean(axis=1)
    assert abs(late.mean() - tail) < 3.5 * late.std(ddof=1) / math.sqrt(30) + 1e-4


@settings(max_examples=40, deadline=None)
@given(
    lists,
    st.sampled_from(sorted(policies.POLICIES)),
    st.integers(0, 3),
    st.integers(0, 5),
    st.one_of(st.floats(0, 300), st.just([20.0, 90.0])),
    st.integers(0, 3),
)
def test_books_balance_for_every_policy(gaps_and_services, name, base, more, cold, seed):
    gaps, service = (np.array(x) for x in zip(*gaps_and_services, strict=True))
    arrivals = np.cumsum(gaps)
    found = simulate(
        arrivals,
        service,
        policy=policies.make(name),
        base=base,
        maximum=base + more or 1,
        cold_start_s=cold,
        target_s=60,
        seed=seed,
        price_per_hour_microusd=3_600_000,
    )
    assert found.jobs == len(gaps)
    assert found.busy_stops == 0
    assert found.peak <= max(base + more, 1)
    assert all(base <= ready + coming <= max(base + more, 1) for _, ready, coming, _, _ in found.samples)
    if not found.unserved:
        assert found.busy_hours == pytest.approx(service.sum() / 3600)
        assert found.gpu_hours >= found.busy_hours - 1e-9
    assert found.cost_microusd == pytest.approx(found.gpu_hours * 3_600_000, abs=1)
    assert (found.waits >= 0).all()


def test_paid_hours_are_the_integral_of_the_workers():
    random = np.random.default_rng(5)
    arrivals = np.sort(random.uniform(0, 7200, 900))
    found = simulate(arrivals, random.exponential(20, 900), policy=policies.make("request-count"), base=1, maximum=20, cold_start_s=90, target_s=60)
    times = [s[0] for s in found.samples]
    # A sample is the state before its tick's change, so it tells of the stretch that ends with it.
    integral = sum((b[0] - a[0]) * (b[1] + b[2]) for a, b in zip(found.samples, found.samples[1:], strict=False))
    rest = found.hours * 3600 - times[-1]
    last = found.samples[-1][1] + found.samples[-1][2]
    assert found.gpu_hours * 3600 == pytest.approx(integral + rest * last, abs=20 * 15)
    assert found.launches > 0


def test_the_same_seed_gives_the_same_outcome_and_another_does_not():
    random = np.random.default_rng(1)
    arrivals, service = np.sort(random.uniform(0, 3600, 600)), random.exponential(30, 600)

    def once(seed: int) -> Outcome:
        return simulate(arrivals, service, policy=policies.make("threshold"), base=1, maximum=9, cold_start_s=[30.0, 60.0, 240.0], target_s=60, seed=seed)

    first, again, other = once(1), once(1), once(2)
    assert first.samples == again.samples
    assert (first.waits == again.waits).all()
    assert (first.waits != other.waits).any()


def test_a_policy_is_shown_only_what_a_live_pool_knows():
    policy = Fixed(3)
    arrivals, service = np.arange(0.0, 100.0, 10.0), np.full(10, 25.0)
    simulate(arrivals, service, policy=policy, base=0, maximum=3, cold_start_s=40, target_s=60)
    first, second, third, fourth = policy.shown[:4]
    assert (first.queue, first.ready, first.coming, first.job.samples, first.cold.samples) == (1, 0, 0, 0, 0)
    assert (second.queue, second.coming_s, second.rate_1m) == (2, (15.0, 15.0, 15.0), 2 / 60)
    assert second.oldest_wait_s == 15.0
    assert third.ready == 0
    assert (fourth.ready, fourth.busy, fourth.cold.samples, fourth.cold.p50_s, fourth.job.samples) == (3, 3, 3, 40.0, 0)
    assert policy.shown[5].job == pytest.approx(policy.shown[5].job)
    assert policy.shown[5].job.samples == 3
    assert policy.shown[5].job.mean_s == 25.0


def test_kinds_are_learned_apart_and_tell_what_work_waits():
    policy = Fixed(1)
    service = np.array([10.0, 100.0] * 10 + [100.0] * 5)
    arrivals = np.concatenate((np.arange(20) * 120.0, np.full(5, 2500.0)))
    kinds = [0, 1] * 10 + [1] * 5
    simulate(arrivals, service, policy=policy, base=1, maximum=1, cold_start_s=40, target_s=60, kinds=kinds)
    waiting = next(s for s in policy.shown if s.now_s == 2505.0)
    assert (waiting.queue, waiting.queue_work_s, waiting.job.mean_s) == (4, 400.0, 100.0)


def test_the_floor_and_the_limits_move_with_time():
    arrivals, service = np.array([0.0, 7200.0]), np.array([1.0, 1.0])
    floor = simulate(arrivals, service, policy=Fixed(0), base=0, maximum=8, cold_start_s=60, target_s=60, floor=lambda t: 5 if 1800 <= t < 3600 else 1)
    assert max(r + c for _, r, c, _, _ in floor.samples) == 5
    assert floor.gpu_hours == pytest.approx(2 + 4 * 0.5, abs=0.02)
    held = simulate(
        arrivals, service, policy=Fixed(8), base=1, maximum=8, cold_start_s=60, target_s=60, limits=lambda t: Limits(halted="it is" if t < 3600 else "")
    )
    assert max(r + c for t, r, c, _, _ in held.samples if t <= 3600) == 1
    assert max(r + c for t, r, c, _, _ in held.samples) == 8


def test_announced_demand_is_shown_with_the_time_that_is_left():
    policy = Fixed(1)
    simulate([0.0, 100.0], [1.0, 1.0], policy=policy, base=1, maximum=2, cold_start_s=60, target_s=60, planned=[Planned(60.0, 90.0, jobs=5)])
    assert [s.planned[0].starts_in_s for s in policy.shown[:6]] == [60.0, 45.0, 30.0, 15.0, 0.0, -15.0]
    assert policy.shown[6].planned == ()


def test_workers_that_an_orchestrator_stops_at_work_finish_their_job_and_are_counted():
    random = np.random.default_rng(3)
    arrivals, service = np.sort(random.uniform(0, 3600, 400)), random.exponential(60, 400)
    found = simulate(arrivals, service, policy=Killer(12), base=0, maximum=12, cold_start_s=10, target_s=60)
    assert found.busy_stops > 0
    assert found.busy_hours == pytest.approx(service.sum() / 3600)
    assert found.gpu_hours >= found.busy_hours


def test_a_pool_that_never_gets_a_worker_gives_up_and_says_so():
    found = simulate([0.0, 10.0], [1.0, 1.0], policy=Fixed(0), base=0, maximum=4, cold_start_s=60, target_s=60, tick_s=600)
    assert (found.jobs, found.unserved, found.within, found.gpu_hours) == (2, 2, 0.0, 0.0)


def test_a_stretch_without_jobs_costs_its_base():
    found = simulate([], [], policy=Fixed(2), base=2, maximum=4, cold_start_s=60, target_s=60, until_s=3600)
    assert (found.jobs, found.within, found.gpu_hours) == (0, 1.0, 2.0)


@pytest.mark.parametrize(
    ("arrivals", "service", "more"),
    [
        ([1.0, 0.0], [1.0, 1.0], {}),
        ([0.0], [1.0, 2.0], {}),
        ([0.0], [-1.0], {}),
        ([0.0], [math.nan], {}),
        ([0.0], [1.0], {"base": 5}),
        ([0.0], [1.0], {"tick_s": 0}),
    ],
)
def test_nonsense_is_refused(arrivals, service, more):
    asked = {"policy": Fixed(1), "base": 1, "maximum": 2, "cold_start_s": 60, "target_s": 60} | more
    with pytest.raises(ValueError, match=r"must"):
        simulate(arrivals, service, **asked)
