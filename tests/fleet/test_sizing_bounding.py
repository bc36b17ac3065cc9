"""The seed's rule through the bounds every policy goes through, by table and by property."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.kernel.errors import Invalid
from fleet.sizing import policies
from fleet.sizing.bounding import FAILURES_TO_HALT, Decision, Limits, as_inputs, decide, wait_s
from fleet.sizing.policies import POLICIES
from fleet.sizing.seen import JobTime, Planned, Seen
from fleet.sizing.threshold import Threshold


def pool(states: str = "", *, queue: int | None = 0, idle_s: float = 0.0, **more: Any) -> Seen:
    """`states` is one letter a worker: o(rdered) s(tarting) i(dle) b(usy)."""
    seen: dict[str, Any] = {
        "now_s": 0.0,
        "queue": queue,
        "ready": sum(c in "ib" for c in states),
        "busy": states.count("b"),
        "coming_s": (10.0,) * sum(c in "os" for c in states),
        "idle_s": (idle_s,) * states.count("i"),
        "base": 2,
        "maximum": 8,
        "price_per_hour_microusd": 1_000_000,
    }
    return Seen(**(seen | more))


def seed(seen: Seen, **limits: Any) -> Decision:
    return decide(seen, Threshold(), {}, Limits(**limits))


@pytest.mark.parametrize(
    ("seen", "action", "wanted", "applied"),
    [
        (pool(""), "up", 2, 2),  # nothing there: up to base at once
        (pool("b"), "up", 1, 1),
        (pool("ii"), "hold", 0, 0),
        (pool("bb", queue=1), "hold", 0, 0),  # 1 <= 0.8 x 2
        (pool("bb", queue=2), "up", 1, 1),  # 2 > 1.6
        (pool("bbbbb", queue=4), "hold", 0, 0),  # exactly at the threshold
        (pool("bbbbb", queue=5), "up", 1, 1),
        (pool("bo", queue=2), "up", 1, 1),
        (pool("boooo", queue=4), "hold", 0, 0),  # those on their way count
        (pool("bbbbbbbb", queue=99), "hold", 1, 0),  # at the maximum
        (pool("iii", idle_s=299.9), "hold", 0, 0),
        (pool("iii", idle_s=300), "down", -1, -1),
        (pool("ii", idle_s=9999), "hold", 0, 0),  # base
        (pool("bbb"), "hold", 0, 0),  # busy ones stay
        (pool("iii", idle_s=300, queue=3), "up", 1, 1),  # the queue speaks first
        (pool("bbb", base=1, maximum=2), "hold", -1, 0),  # above a lowered maximum, but all at work
        (pool("bbi", base=1, maximum=2), "down", -1, -1),
        (pool("", base=0), "hold", 0, 0),
        (pool("", base=0, queue=1), "up", 1, 1),
        (pool("bb", queue=None), "hold", 0, 0),
        (pool("bb", ready=None), "hold", 0, 0),
    ],
)
def test_the_seed_rule_by_table(seen: Seen, action: str, wanted: int, applied: int) -> None:
    decision = seed(seen)
    assert (decision.action, decision.wanted, decision.applied) == (action, wanted, applied)
    assert decision.reason.endswith(".") and not decision.reason[0].islower() and len(decision.reason) <= 300
    assert decision.cost_change_microusd == decision.applied * seen.price_per_hour_microusd
    assert bool(decision.bound) == (decision.wanted != decision.applied or seen.queue is None or seen.ready is None)


def test_after_a_failed_start_the_next_one_waits_longer_each_time() -> None:
    assert [wait_s(n) for n in (0, 1, 2, 3, 99)] == [0, 2, 4, 8, 60]
    early = seed(pool(""), start_failures=1, last_failure_age_s=1.0)
    assert (early.action, early.applied) == ("hold", 0) and "waits 2 s" in early.reason
    later = seed(pool(""), start_failures=1, last_failure_age_s=2.0)
    assert (later.action, later.wanted, later.applied) == ("up", 2, 1)  # one at a time until one is ready
    assert seed(pool(""), start_failures=1, last_failure_age_s=-3600.0).action == "up", "a clock set back does not hold a pool for an hour"


def test_three_failed_starts_stop_ordering_and_say_so() -> None:
    decision = seed(pool(""), start_failures=FAILURES_TO_HALT, last_failure_age_s=200)
    assert (decision.action, decision.wanted, decision.applied) == ("halted", 2, 0)
    assert "3 starts in a row" in decision.reason and "cannot start" in decision.reason and "resumed" in decision.reason


def test_a_halted_pool_says_so_even_when_nothing_is_wanted_and_may_still_shrink() -> None:
    assert seed(pool(""), halted="bad image").action == "halted"
    assert seed(pool("ii"), halted="bad image").reason == "Ordering is stopped: bad image"
    assert seed(pool("iii", idle_s=400), halted="bad image").action == "down"


@pytest.mark.parametrize(
    ("limits", "bound", "said"),
    [
        ({"budget_workers": 3}, "budget for 3 workers", "the budget pays for 3"),
        ({"paused": "an upgrade, until 14:00 UTC."}, "paused", "an upgrade"),
        ({"unreachable": "its provider did not answer"}, "provider unavailable", "did not answer"),
        ({"stands_back": True}, "size set elsewhere", "4 workers is what it is told"),
    ],
)
def test_what_holds_an_order_back_is_named(limits: dict[str, Any], bound: str, said: str) -> None:
    decision = seed(pool("bbb", queue=99), **limits)
    assert (decision.action, decision.wanted, decision.applied, decision.bound) == ("hold", 1, 0, bound)
    assert said in decision.reason


def test_a_budget_never_takes_the_base_away() -> None:
    assert seed(pool(""), budget_workers=0).applied == 2


def test_a_provider_that_cannot_be_asked_is_named_when_its_workers_are_unknown() -> None:
    decision = seed(pool("bb", ready=None), unreachable="429 for 30 s")
    assert (decision.action, decision.bound) == ("hold", "provider unavailable") and "429" in decision.reason


def test_a_scaler_that_has_just_started_does_not_shrink() -> None:
    assert seed(pool("iii", idle_s=400), fresh_start=True).applied == 0


@pytest.mark.parametrize(
    ("name", "knobs", "code"),
    [
        ("best", {}, "policy_unknown"),
        ("threshold", {"idle": 1}, "knob_unknown"),
        ("threshold", {"idle_s": -1}, "knob_invalid"),
        ("threshold", {"idle_s": float("nan")}, "knob_invalid"),
        ("threshold", {"idle_s": True}, "knob_invalid"),
        ("threshold", {"idle_s": "300"}, "knob_invalid"),
    ],
)
def test_knobs_that_cannot_be_are_refused(name: str, knobs: dict[str, Any], code: str) -> None:
    with pytest.raises(Invalid) as refused:
        policies.make(name, knobs)
    assert refused.value.code == code and refused.value.suggestion


ages = st.lists(st.floats(0, 10_000), max_size=8).map(lambda found: tuple(sorted(found, reverse=True)))
sights = st.builds(
    lambda idle, busy, coming, base, more, **rest: Seen(
        ready=len(idle) + busy, busy=busy, idle_s=idle, coming_s=coming, base=base, maximum=base + more, price_per_hour_microusd=7, **rest
    ),
    idle=ages, busy=st.integers(0, 20), coming=ages, base=st.integers(0, 6), more=st.integers(0, 20),
    now_s=st.floats(-1e9, 2e9), queue=st.integers(0, 100_000), oldest_wait_s=st.floats(0, 1e6),
    rate_1m=st.floats(0, 1e4), rate_5m=st.floats(0, 1e4), rate_10m=st.floats(0, 1e4), rate_1h=st.floats(0, 1e4),
    job=st.builds(JobTime, mean_s=st.floats(0.001, 1e5), cv2=st.floats(0, 100), samples=st.integers(0, 1000)),
    planned=st.lists(st.builds(Planned, starts_in_s=st.floats(-1e4, 1e4), ends_in_s=st.floats(-1e4, 2e4), jobs=st.integers(0, 10_000),
                               work_s=st.floats(0, 1e7), factor=st.floats(0.1, 10), workers=st.integers(0, 50)), max_size=3).map(tuple),
    target_s=st.floats(1, 1e4), target_share=st.floats(0.5, 0.999),
)  # fmt: skip
limits = st.builds(
    Limits,
    start_failures=st.integers(0, 5),
    last_failure_age_s=st.none() | st.floats(-1e4, 300),
    halted=st.sampled_from(["", "bad image"]),
    budget_workers=st.none() | st.integers(0, 20),
    rise=st.none() | st.integers(1, 20),
    unreachable=st.sampled_from(["", "down"]),
)


@pytest.mark.parametrize("name", POLICIES)
@given(sequence=st.lists(st.tuples(sights, limits), min_size=1, max_size=4))
def test_no_pool_grows_past_its_maximum_nor_below_its_base_and_no_busy_worker_is_stopped(name: str, sequence: list[tuple[Seen, Limits]]) -> None:
    memory: dict[str, Any] = {}  # the same one through a sequence of unrelated moments: clocks jump, pools change
    for seen, beside in sequence:
        decision = decide(seen, policies.make(name), memory, beside)
        after = seen.live + decision.applied
        assert decision.reason and len(decision.reason) <= 400
        if decision.applied > 0:
            assert after <= seen.maximum and not beside.halted and not beside.unreachable
        if decision.applied < 0:
            assert after >= seen.base and -decision.applied <= len(seen.idle_s)
        assert (decision.applied > 0) == (decision.action == "up")
        assert (decision.applied < 0) == (decision.action == "down")
        assert abs(decision.applied) <= abs(decision.wanted)
        as_inputs(seen)


@pytest.mark.parametrize("name", POLICIES)
@given(seen=sights)
def test_fewer_jobs_never_order_more(name: str, seen: Seen) -> None:
    def applied(queue: int) -> int:
        values = {field: getattr(seen, field) for field in seen.__dataclass_fields__} | {"queue": queue, "planned": ()}
        return decide(Seen(**values), policies.make(name), {}).applied

    found = [applied(queue) for queue in (0, 1, 5, 50, 5000)]
    assert found == sorted(found)
