"""The seed rule, by table and by property."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.scaling_rule import FAILURES_TO_HALT, Seen, WorkerSeen, decide, wait_s


def pool(states: str = "", *, queue: int | None = 0, idle_s: float = 0.0, **more: object) -> Seen:
    """`states` is one letter a worker: o(rdered) s(tarting) i(dle) b(usy) d(raining)."""
    names = {"o": "ordered", "s": "starting", "i": "idle", "b": "busy", "d": "draining"}
    workers = [WorkerSeen(str(n), names[c], idle_s if c == "i" else None) for n, c in enumerate(states)]
    given_: dict[str, object] = {"base": 2, "max": 8, "price_per_hour_microusd": 1_000_000}
    return Seen(queue=queue, workers=workers, **(given_ | more))  # type: ignore[arg-type]


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
        (pool("bbd"), "hold", 0, 0),  # a draining worker counts for nothing
        (pool("bd"), "up", 1, 1),
        (pool("iii", idle_s=299.9), "hold", 0, 0),
        (pool("iii", idle_s=300), "down", -1, -1),
        (pool("ii", idle_s=9999), "hold", 0, 0),  # base
        (pool("bbb"), "hold", 0, 0),  # busy ones stay
        (pool("iii", idle_s=300, queue=3), "up", 1, 1),  # the queue speaks first
        (pool("bbb", max=2), "hold", -1, 0),  # above a lowered maximum, but all at work
        (pool("bbi", max=2), "down", -1, -1),
        (pool("", base=0), "hold", 0, 0),
        (pool("", base=0, queue=1), "up", 1, 1),
        (pool("bb", queue=None), "hold", 0, 0),
        (Seen(queue=5, workers=None, base=2, max=8), "hold", 0, 0),
    ],
)
def test_the_rule_by_table(seen: Seen, action: str, wanted: int, applied: int) -> None:
    decision = decide(seen)
    assert (decision.action, decision.wanted, decision.applied) == (action, wanted, applied)
    assert decision.reason.endswith(".") and not decision.reason[0].islower() and len(decision.reason) <= 300
    assert (decision.victim is not None) == (decision.action == "down")
    assert decision.cost_change_microusd == decision.applied * seen.price_per_hour_microusd
    assert bool(decision.bound) == (decision.wanted != decision.applied or seen.queue is None or seen.workers is None)


def test_the_worker_idle_longest_is_the_one_to_go() -> None:
    workers = [WorkerSeen("a", "idle", 301), WorkerSeen("b", "idle", 900), WorkerSeen("c", "busy"), WorkerSeen("d", "idle", 400)]
    assert decide(Seen(queue=0, workers=workers, base=1, max=8)).victim == "b"


def test_after_a_failed_start_the_next_one_waits_longer_each_time() -> None:
    assert [wait_s(n) for n in (0, 1, 2, 3, 99)] == [0, 2, 4, 8, 60]
    early = decide(pool("", start_failures=1, last_failure_age_s=1.0))
    assert (early.action, early.applied) == ("hold", 0) and "waits 2 s" in early.reason
    later = decide(pool("", start_failures=1, last_failure_age_s=2.0))
    assert (later.action, later.wanted, later.applied) == ("up", 2, 1)  # one at a time until one is ready


def test_three_failed_starts_stop_ordering_and_say_so() -> None:
    decision = decide(pool("", start_failures=FAILURES_TO_HALT, last_failure_age_s=200))
    assert (decision.action, decision.wanted, decision.applied) == ("halted", 2, 0)
    assert "3 workers in a row" in decision.reason and "resumed" in decision.reason


def test_a_halted_pool_says_so_even_when_nothing_is_wanted_and_may_still_shrink() -> None:
    assert decide(pool("", halted=True, halted_reason="bad image")).action == "halted"
    assert decide(pool("ii", halted=True, halted_reason="bad image")).reason == "Ordering is stopped: bad image"
    assert decide(pool("iii", idle_s=400, halted=True)).action == "down"


workers_seen = st.lists(
    st.builds(
        WorkerSeen,
        id=st.uuids().map(str),
        state=st.sampled_from(["ordered", "starting", "idle", "busy", "draining"]),
        idle_s=st.none() | st.floats(0, 10_000),
    ),
    max_size=12,
    unique_by=lambda w: w.id,
)
bounds = st.tuples(st.integers(0, 6), st.integers(0, 6)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(
    queue=st.none() | st.integers(0, 200),
    workers=st.none() | workers_seen,
    bound=bounds,
    factor=st.floats(0.05, 5),
    idle_s=st.floats(1, 1000),
    failures=st.integers(0, 5),
    age=st.none() | st.floats(0, 300),
    halted=st.booleans(),
)
def test_no_pool_grows_past_its_maximum_nor_below_its_base_and_no_busy_worker_is_stopped(queue, workers, bound, factor, idle_s, failures, age, halted) -> None:
    base, most = bound
    seen = Seen(
        queue=queue, workers=workers, base=base, max=most, queue_per_worker=factor, idle_s=idle_s, price_per_hour_microusd=7,
        start_failures=failures, last_failure_age_s=age, halted=halted,
    )  # fmt: skip
    decision = decide(seen)
    assert decision.reason.endswith(".") and len(decision.reason) <= 300
    if workers is None or queue is None:
        assert (decision.action, decision.applied) == ("hold", 0)
        return
    live = [w for w in workers if w.state != "draining"]
    after = len(live) + decision.applied
    if decision.applied > 0:
        assert after <= most and not halted
    if decision.applied < 0:
        assert after >= base
        assert {w.id: w.state for w in workers}[decision.victim] == "idle"
    assert (decision.applied > 0) == (decision.action == "up")
    assert (decision.applied < 0) == (decision.action == "down")
    assert abs(decision.applied) <= abs(decision.wanted)


@given(workers=workers_seen, bound=bounds, idle_s=st.floats(1, 1000))
def test_fewer_jobs_never_order_more(workers, bound, idle_s) -> None:
    base, most = bound
    applied = [decide(Seen(queue=q, workers=workers, base=base, max=most, idle_s=idle_s)).applied for q in (0, 1, 5, 50)]
    assert applied == sorted(applied)
