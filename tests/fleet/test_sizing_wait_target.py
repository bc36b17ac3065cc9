"""The default policy: what it orders, what it keeps, what it says, and what nothing can make it do."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.simulation import simulate
from fleet.sizing import attainment, bounding, erlang, policies, waits
from fleet.sizing.bounding import Limits
from fleet.sizing.seen import ColdStart, JobTime, Memory, Planned, Seen
from fleet.sizing.wait_target import WaitTarget

JOB = JobTime(20.0, 1.0, 200)
COLD = ColdStart(90.0, 100.0, 20)


def seen(**more) -> Seen:
    asked = {"now_s": 1000.0, "queue": 0, "ready": 2, "job": JOB, "cold": COLD, "base": 0, "maximum": 40, "target_s": 60.0} | more
    if "idle_s" not in asked:
        asked["idle_s"] = (30.0,) * max(0, (asked["ready"] or 0) - asked.get("busy", 0))
    return Seen(**asked)


def wanted(**more) -> int:
    return WaitTarget().decide(seen(**more), {}).wanted


@pytest.mark.parametrize(
    ("offered", "servers", "expected"),
    [(0.5, 1, 0.5), (2.0, 3, 4 / 9), (8.0, 10, 0.4092), (20.0, 25, 0.2092)],
)
def test_erlangs_delay_formula_gives_the_published_figures(offered, servers, expected):
    assert erlang.delay(servers, offered) == pytest.approx(expected, abs=2e-3)


@given(st.floats(0.01, 300), st.floats(0, 600), st.sampled_from([0.1, 0.05, 0.01]), st.floats(0.1, 4))
def test_the_size_found_is_the_smallest_that_meets_the_target(offered, wait, late, cv2):
    job = JobTime(20.0, cv2, 10)
    offered = float(f"{offered:.3g}")
    size = erlang.size(offered, job=job, wait_s=wait, late=late, most=10_000)

    def misses(servers: int) -> float:
        spreads = float(f"{wait / erlang.spread_s(job):.3g}")
        return 1.0 if servers <= offered else erlang.delay(servers, offered) * math.exp(-(servers - offered) * spreads)

    assert misses(size) <= late + 1e-12
    assert size == 1 or misses(size - 1) > late


def test_an_idle_pool_goes_to_zero_and_the_first_job_brings_it_back():
    assert wanted(ready=1, idle_s=(500.0,)) == 0
    first = WaitTarget().decide(seen(ready=0, queue=1, rate_1m=1 / 60), {})
    assert first.wanted >= 1
    assert "1 job waits" in first.reason


def test_a_worker_on_its_way_is_counted():
    assert wanted(ready=0, queue=1, rate_1m=1 / 60, coming_s=(10.0,)) == 1


def test_an_order_that_cannot_help_is_not_made():
    """Two workers clear six short jobs long before another could start."""
    assert wanted(queue=6, busy=2, job=JobTime(3.0, 1.0, 100), cold=ColdStart(240, 260, 5)) == 2
    assert wanted(queue=60, busy=2, job=JobTime(30.0, 1.0, 100), cold=ColdStart(240, 260, 5)) > 10


def test_long_jobs_need_more_workers_than_short_ones_for_the_same_queue():
    assert wanted(queue=20, busy=2, job=JobTime(180.0, 0.5, 50)) > wanted(queue=20, busy=2, job=JobTime(20.0, 0.5, 50))


def test_workers_leave_only_after_less_was_needed_for_as_long_as_a_start_would_cost():
    policy, memory = WaitTarget(), {}
    busy = seen(ready=10, busy=8, rate_1m=0.4, rate_5m=0.4, rate_10m=0.4)
    quiet = seen(ready=10, rate_1m=0.05, rate_5m=0.05)
    assert policy.decide(busy, memory).wanted >= 8
    assert policy.decide(replace(quiet, now_s=1015.0), memory).wanted >= 8
    later = policy.decide(replace(quiet, now_s=1085.0), memory)
    assert later.wanted < 8
    assert "would do" in later.reason


def test_a_pool_that_starts_quickly_needs_less_in_hand():
    rates = {"rate_1m": 1.0, "rate_5m": 1.0, "rate_10m": 1.0, "rate_1h": 1.0, "ready": 1, "busy": 1}
    sizes = [wanted(**rates, cold=ColdStart(cold, cold, 20)) for cold in (10, 90, 240)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_an_announced_batch_has_its_workers_before_it_arrives():
    batch = Planned(starts_in_s=110.0, ends_in_s=111.0, jobs=60, work_s=1200.0)
    early = WaitTarget().decide(seen(planned=(replace(batch, starts_in_s=900.0, ends_in_s=901.0),)), {})
    assert early.wanted <= 2
    asked = WaitTarget().decide(seen(planned=(batch,)), {})
    assert asked.wanted >= 15
    assert "60 jobs are announced in 1m 50s" in asked.reason
    there = WaitTarget().decide(seen(planned=(replace(batch, starts_in_s=-5.0, ends_in_s=1.0),), queue=60, ready=30, rate_1m=1.0), {})
    assert there.wanted <= 40  # not counted twice


def test_an_event_brings_its_factor_or_its_workers():
    rates = {"rate_1m": 0.5, "rate_5m": 0.5, "rate_10m": 0.5, "ready": 12, "busy": 10}
    soon = {"starts_in_s": 60.0, "ends_in_s": 3600.0}
    assert wanted(**rates, planned=(Planned(**soon, factor=3.0),)) > 2 * wanted(**rates) - 4
    assert wanted(planned=(Planned(**soon, workers=17),)) == 17
    assert wanted(planned=(Planned(-7200.0, 0.0, workers=17),)) < 17


def test_late_jobs_make_it_careful_and_a_good_record_makes_it_thrifty():
    load = seen(ready=10, busy=10, rate_1m=0.5, rate_5m=0.5, rate_10m=0.5, rate_1h=0.5)

    def after(oldest: float, hours: float) -> float:
        policy, memory = WaitTarget(), {}
        for tick in range(int(hours * 240)):
            found = policy.decide(replace(load, now_s=tick * 15.0, oldest_wait_s=oldest, queue=5), memory)
        json.dumps(memory)
        return found.terms["caution"]

    assert after(0.0, 6) < -0.5
    assert after(90.0, 1.5) > 1.0
    assert after(90.0, 9) == attainment.MOST_CAREFUL
    policy = WaitTarget(learn=0.0)
    assert policy.decide(load, {}).terms["caution"] == 0.0


def test_jobs_that_were_late_before_its_first_workers_could_be_ready_are_not_its_fault():
    def late(recovers_after_s: float) -> float:
        memory: Memory = {}
        for tick in range(80):
            at = tick * 15.0
            attainment.note(seen(now_s=at, rate_1m=1.0, rate_1h=1.0, oldest_wait_s=at if at <= recovers_after_s else 10.0), memory)
        for tick in range(80, 100):  # later on it is
            attainment.note(seen(now_s=tick * 15.0, rate_1m=1.0, rate_1h=1.0, oldest_wait_s=100.0), memory)
        return attainment.late_share(memory) or 0.0

    never = late(0.0)
    assert 0.1 < never < 0.25
    assert late(300.0) == pytest.approx(never)


def test_a_queue_that_is_never_caught_up_with_becomes_its_fault_after_an_hour():
    memory: Memory = {}
    for tick in range(480):
        attainment.note(seen(now_s=tick * 15.0, rate_1m=1.0, rate_1h=1.0, oldest_wait_s=500.0), memory)
    assert 0.4 < (attainment.late_share(memory) or 0.0) < 0.6


def test_long_jobs_are_given_to_more_workers_than_short_ones_of_as_much_work():
    def asked(job_s: float, waiting: int) -> int:
        return wanted(job=JobTime(job_s, 0.5, 100), queue=waiting, queue_work_s=waiting * job_s, ready=4, busy=4, base=1, maximum=64)

    assert asked(240.0, 5) >= 7  # nine jobs in all, of which a worker gets through one while a job may wait
    assert asked(8.0, 150) > asked(240.0, 5)  # as much work, but it can be shared out


def test_what_long_jobs_ask_for_is_said_in_its_own_words():
    asked = WaitTarget().decide(seen(job=JobTime(240.0, 0.5, 100), queue=2, ready=4, busy=4, base=1, maximum=64), {})
    assert asked.rule == "long jobs" and asked.wanted > 4
    assert asked.reason.startswith("6 jobs wait or run at 4m 00s each, and a worker gets through 1.")
    assert asked.reason.endswith(f"takes {asked.wanted} workers.")


def test_without_learning_the_aim_alone_says_how_careful_it_is():
    load = seen(job=JobTime(50.0, 0.5, 100), queue=2, ready=4, busy=4)
    safe, usual, thrifty = (WaitTarget(learn=0.0, aim=aim).decide(load, {}) for aim in (0.1, attainment.USUAL_AIM, 5.0))
    assert safe.terms["caution"] > usual.terms["caution"] == 0.0 > thrifty.terms["caution"]
    assert safe.wanted > thrifty.wanted


def test_the_late_share_is_that_of_the_jobs_that_started():
    memory: Memory = {}
    for tick in range(240):  # an hour at one job a second, the last quarter late
        attainment.note(seen(now_s=tick * 15.0, rate_1m=1.0, rate_1h=1.0, oldest_wait_s=0.0 if tick < 180 else 100.0), memory)
    assert attainment.late_share(memory) == pytest.approx(0.25, abs=0.02)


def test_predicted_waits_grow_as_workers_go_and_are_unknown_before_anything_was_measured():
    load = seen(ready=12, busy=10, queue=8, rate_1m=0.5, rate_5m=0.5)
    waiting = [waits.expected_s(load, size) for size in (1, 5, 9, 11, 14, 20, 40)]
    assert waiting == sorted(waiting, reverse=True)
    assert waiting[0] > 300
    assert waits.expected_s(replace(load, job=JobTime()), 5) is None
    assert waits.expected_s(seen(ready=0, queue=3), 0) == waits.LONGEST_S


def test_what_is_needed_above_the_maximum_is_said():
    decision = bounding.decide(seen(ready=4, busy=4, queue=200, maximum=4, rate_1m=3.0, rate_5m=3.0), WaitTarget(), {})
    assert (decision.action, decision.applied, decision.bound) == ("hold", 0, "maximum of 4")
    assert decision.wanted > 10
    assert "Expect waits of about" in decision.reason


sizes = st.integers(0, 40)
rates = st.floats(0, 5)


@st.composite
def pools(draw) -> Seen:
    ready = draw(sizes)
    busy = draw(st.integers(0, ready))
    base = draw(st.integers(0, 10))
    planned = draw(
        st.lists(
            st.builds(Planned, st.floats(-600, 600), st.floats(-600, 7200), st.integers(0, 500), st.floats(0, 1e5), st.floats(0, 5), st.integers(0, 80)),
            max_size=2,
        )
    )
    return Seen(
        now_s=draw(st.floats(0, 1e9)),
        queue=draw(st.integers(0, 5000)),
        ready=ready,
        busy=busy,
        coming_s=tuple(sorted(draw(st.lists(st.floats(0, 900), max_size=10)), reverse=True)),
        idle_s=tuple(sorted(draw(st.lists(st.floats(0, 9000), min_size=ready - busy, max_size=ready - busy)), reverse=True)),
        queue_work_s=draw(st.one_of(st.none(), st.floats(0, 1e6))),
        oldest_wait_s=draw(st.floats(0, 1e5)),
        rate_1m=draw(rates),
        rate_5m=draw(rates),
        rate_10m=draw(rates),
        rate_1h=draw(rates),
        job=JobTime(draw(st.floats(0.001, 5000)), draw(st.floats(0, 20)), draw(st.integers(0, 1000))),
        cold=ColdStart(draw(st.floats(0, 900)), draw(st.floats(0, 1800)), draw(st.integers(0, 50))),
        planned=tuple(planned),
        base=base,
        maximum=draw(st.integers(max(base, 1), 60)),
        target_s=draw(st.floats(0, 600)),
        target_share=draw(st.sampled_from([0.5, 0.95, 0.99, 0.9999])),
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(pools(), min_size=1, max_size=4), st.sampled_from(sorted(policies.POLICIES)))
def test_no_policy_passes_a_bound_or_stops_a_worker_at_work_whatever_it_is_shown_and_in_any_order_of_time(shown, name):
    policy, memory = policies.make(name), {}
    for one in shown:
        decision = bounding.decide(one, policy, memory, Limits())
        memory = json.loads(json.dumps(memory))  # it survives a restart
        after = one.live + decision.applied
        if decision.applied > 0:
            assert after <= one.maximum
        if decision.applied < 0:
            assert after >= min(one.base, one.live)
            assert -decision.applied <= len(one.idle_s)
        assert len(decision.reason) <= 300
        json.dumps(dict(decision.proposal.terms))
        assert all(math.isfinite(v) for v in decision.proposal.terms.values())
        waiting = decision.proposal.predicted_wait_s
        assert waiting is None or 0 <= waiting <= waits.LONGEST_S
    gap = replace(shown[-1], queue=None)
    assert bounding.decide(gap, policy, memory, Limits()).applied == 0
    assert bounding.decide(replace(shown[-1], ready=None), policy, memory, Limits()).applied == 0


@settings(max_examples=100, deadline=None)
@given(pools(), st.integers(1, 500), st.sampled_from(sorted(policies.POLICIES)))
def test_more_jobs_waiting_never_make_it_smaller(one, more, name):
    one = replace(one, queue_work_s=None, planned=())
    longer = replace(one, queue=one.queue + more)
    assert policies.make(name).decide(longer, {}).wanted >= policies.make(name).decide(one, {}).wanted


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
@settings(max_examples=50, deadline=None)
def test_a_clock_that_jumps_neither_stops_it_nor_fills_its_memory(clock):
    policy, memory = WaitTarget(), {}
    for now in clock:
        found = policy.decide(seen(now_s=now, queue=3, busy=2, rate_1m=0.1, rate_5m=0.1, oldest_wait_s=5.0), memory)
        assert 0 <= found.wanted <= 160
    assert len(memory["needs"]) <= len(clock)
    assert 0 <= attainment._number(memory, "late") <= attainment._number(memory, "started") + 1e-9


def test_a_memory_that_somebody_spoiled_is_put_up_with():
    memory: Memory = {"at": "noon", "late": None, "started": True, "queue": math.nan, "rate": "fast"}
    assert WaitTarget().decide(seen(queue=3, rate_1m=0.1), memory).wanted >= 0


def test_a_batch_that_was_announced_starts_in_time_and_one_that_was_not_cannot():
    """Control loops' scenario D: a batch lands faster than a worker starts."""
    arrivals = [at for hour in range(1, 6) for at in [hour * 3600.0 + n * 0.05 for n in range(40)]]
    asked = {"policy": WaitTarget(), "base": 0, "maximum": 60, "cold_start_s": 300, "target_s": 60}
    blind = simulate(arrivals, [20.0] * len(arrivals), **asked)
    told = simulate(
        arrivals, [20.0] * len(arrivals), planned=[Planned(h * 3600.0, h * 3600.0 + 2, jobs=40, work_s=800.0) for h in range(1, 6)], start_s=0.0, **asked
    )
    assert blind.within < 0.2
    assert told.within > 0.75
    assert told.gpu_hours < 60 * 6 / 4  # they leave again in between


def test_a_pool_without_base_serves_what_comes_now_and_then_and_pays_little_in_between():
    arrivals = [float(at) for hour in range(12) for at in range(hour * 3600, hour * 3600 + 300, 30)]
    found = simulate(arrivals, [10.0] * len(arrivals), policy=WaitTarget(), base=0, maximum=4, cold_start_s=60, target_s=120, start_s=0.0)
    assert (found.unserved, found.busy_stops) == (0, 0)
    assert found.within > 0.95
    assert found.gpu_hours < 0.35 * found.hours * 1


def test_a_hold_that_lacks_a_little_says_how_many_would_be_needed():
    found = WaitTarget().decide(seen(ready=1, busy=1, rate_1m=0.04, rate_10m=0.04), {})
    assert found.wanted == 1
    assert found.reason == "No job waits and 1 of 1 worker is busy: the work of the last minutes asks for 2 workers, too few more to be worth a start."
