from __future__ import annotations

import threading
from datetime import datetime, timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from controlplane.kernel import loops
from controlplane.kernel.loops import Loop, LostLead, Runner, Tick
from controlplane.kernel.models import LoopLease

pytestmark = pytest.mark.django_db


class Clock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Steps:
    """A step that remembers its ticks and does what it is told."""

    def __init__(self) -> None:
        self.ticks: list[Tick] = []
        self.then = lambda tick: f"tick {len(self.ticks)}"

    def __call__(self, tick: Tick) -> str:
        self.ticks.append(tick)
        return self.then(tick)


@pytest.fixture
def clock(now: datetime) -> Clock:
    return Clock(now)


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
def loop(steps: Steps) -> Loop:
    return Loop("scale", 2.0, steps)


def row() -> LoopLease:
    return LoopLease.objects.get(name="scale")


def test_the_leader_ticks_when_due_and_writes_down_how_it_went(loop, steps, clock) -> None:
    runner = Runner(loop, holder="a", clock=clock)
    assert runner.turn() == 2.0
    clock.pass_s(1)
    assert runner.turn() == 1.0
    clock.pass_s(1)
    runner.turn()
    assert [(tick.now, tick.epoch) for tick in steps.ticks] == [(clock.now - timedelta(seconds=2), 1), (clock.now, 1)]
    lease = row()
    assert (lease.holder, lease.epoch, lease.ticks, lease.note, lease.every_s) == ("a", 1, 2, "tick 2", 2.0)
    assert lease.ticked_at == clock.now and lease.expires_at == clock.now + timedelta(seconds=15)


def test_a_clock_that_is_set_back_does_not_stop_a_loop(loop, steps, clock) -> None:
    runner = Runner(loop, holder="a", clock=clock)
    runner.turn()
    clock.pass_s(-3600)
    assert runner.turn() == 2.0 and len(steps.ticks) == 2
    assert row().ticked_at == clock.now


def test_a_second_controller_waits_and_takes_over_with_a_higher_epoch_when_the_lease_ends(loop, steps, clock) -> None:
    first, second = Runner(loop, holder="a", clock=clock), Runner(loop, holder="b", clock=clock)
    first.turn()
    assert second.turn() == 5.0 and len(steps.ticks) == 1
    clock.pass_s(14.9)
    second.turn()
    assert row().holder == "a"
    clock.pass_s(0.2)
    second.turn()
    assert (row().holder, row().epoch) == ("b", 2) and steps.ticks[-1].epoch == 2


def test_a_leader_that_slept_through_its_lease_notices_and_waits(loop, steps, clock) -> None:
    first, second = Runner(loop, holder="a", clock=clock), Runner(loop, holder="b", clock=clock)
    first.turn()
    clock.pass_s(20)
    second.turn()
    before = len(steps.ticks)
    first.turn()  # its epoch is stale: what it writes down matches no row
    assert first.epoch is None and (row().holder, row().ticks) == ("b", before)
    assert first.turn() == 5.0


def test_a_waiting_leader_renews_at_a_third_of_its_lease(steps, clock) -> None:
    runner = Runner(Loop("scale", 3600.0, steps), holder="a", clock=clock)
    assert runner.turn() == 5.0
    for _ in range(10):
        clock.pass_s(5)
        assert runner.turn() == 5.0
    assert row().expires_at == clock.now + timedelta(seconds=15) and row().epoch == 1 and len(steps.ticks) == 1


def test_a_restart_does_not_tick_an_hourly_loop_again(steps, clock) -> None:
    hourly = Loop("scale", 3600.0, steps)
    first = Runner(hourly, holder="a", clock=clock)
    first.turn()
    first.stop()
    assert row().holder == ""
    clock.pass_s(60)
    again = Runner(hourly, holder="b", clock=clock)
    again.turn()
    assert row().holder == "b" and row().epoch == 2 and len(steps.ticks) == 1
    clock.pass_s(3541)
    again.turn()
    assert len(steps.ticks) == 2


def test_the_fence_stops_an_effect_whose_leader_was_replaced(loop, steps, clock) -> None:
    def stall(tick: Tick) -> str:
        clock.pass_s(30)
        assert loops.take(loop, holder="b", now=clock.now) is not None
        with transaction.atomic():
            tick.fence()
            raise AssertionError("the effect happened")

    steps.then = stall
    runner = Runner(loop, holder="a", clock=clock)
    runner.turn()
    assert runner.epoch is None and (row().holder, row().epoch, row().ticks, row().failures_in_a_row) == ("b", 2, 0, 0)


def test_the_fence_lets_the_leader_pass(loop, clock) -> None:
    lead = loops.take(loop, holder="a", now=clock.now)
    assert lead is not None
    with transaction.atomic():
        loops.fence("scale", lead.epoch)
    with pytest.raises(LostLead), transaction.atomic():
        loops.fence("scale", lead.epoch + 1)
    with pytest.raises(LostLead), transaction.atomic():
        loops.fence("unknown", 1)


def test_a_long_step_keeps_its_lead_as_long_as_it_says_so(loop, steps, clock) -> None:
    def long(tick: Tick) -> str:
        for _ in range(5):
            clock.pass_s(10)
            assert loops.take(loop, holder="b", now=clock.now) is None
            tick.keep(clock.now)
        return "long"

    steps.then = long
    Runner(loop, holder="a", clock=clock).turn()
    assert (row().holder, row().epoch, row().note) == ("a", 1, "long")


def test_a_step_that_lost_its_lead_cannot_keep_it(loop, steps, clock) -> None:
    def slow(tick: Tick) -> str:
        clock.pass_s(16)
        assert loops.take(loop, holder="b", now=clock.now) is not None
        tick.keep(clock.now)
        raise AssertionError("went on")

    steps.then = slow
    runner = Runner(loop, holder="a", clock=clock)
    runner.turn()
    assert runner.epoch is None and (row().holder, row().failures_in_a_row) == ("b", 0)


@pytest.mark.django_db(transaction=True)
def test_a_fence_without_a_transaction_is_a_mistake() -> None:
    with pytest.raises(RuntimeError, match="transaction"):
        loops.fence("scale", 1)


def test_failures_are_counted_kept_and_backed_off_from(loop, steps, clock) -> None:
    def fail(tick: Tick) -> str:
        raise ValueError("no such pool")

    steps.then = fail
    runner = Runner(loop, holder="a", clock=clock)
    waits = []
    for _ in range(8):
        runner.turn()
        waits.append((runner.due_at - clock.now).total_seconds())
        clock.pass_s(70)
    lease = row()
    assert lease.failures_in_a_row == 8 and "ValueError: no such pool" in lease.last_error and lease.ticked_at is None
    assert 3 <= waits[0] <= 4 and waits[0] < waits[1] < waits[2] and max(waits) <= 60
    steps.then = lambda tick: "well again"
    runner.turn()
    assert (row().failures_in_a_row, row().last_error, row().note) == (0, "", "well again")
    assert row().epoch == 1, "the same leader, late as it was, since nobody else took over"


def test_ages_tell_which_loops_are_late(loop, clock) -> None:
    Runner(loop, holder="a", clock=clock).turn()
    LoopLease.objects.create(name="zeal", every_s=1)
    fresh, never = loops.ages(clock.now + timedelta(seconds=10))
    assert (fresh.name, fresh.age_s, fresh.late) == ("scale", 10.0, False)
    assert (never.age_s, never.late) == (None, True)
    assert loops.ages(clock.now + timedelta(seconds=61))[0].late
    assert loops.ages(clock.now - timedelta(seconds=5))[0].age_s == 0.0


def test_rows_of_loops_that_are_gone_are_forgotten_after_a_day(loop, clock) -> None:
    Runner(loop, holder="a", clock=clock).turn()
    assert loops.forget(keep=[], now=clock.now + timedelta(hours=23)) == 0
    assert loops.forget(keep=["scale"], now=clock.now + timedelta(days=2)) == 0
    assert loops.forget(keep=[], now=clock.now + timedelta(days=2)) == 1


def test_one_run_says_its_note_or_who_leads(loop, steps, clock) -> None:
    assert loops.run_once(loop, holder="a", clock=clock) == "tick 1"
    assert loops.run_once(loop, holder="b", clock=clock) == "tick 2", "at once, though it ran a moment ago"
    loops.take(loop, holder="c", now=clock.now)
    assert loops.run_once(loop, holder="a", clock=clock) == "led by another controller"


def test_one_run_raises_what_the_step_raised(loop, steps, clock) -> None:
    steps.then = lambda tick: 1 // 0  # type: ignore[return-value]
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        loops.run_once(loop, holder="a", clock=clock)
    assert row().holder == ""


@pytest.mark.django_db(transaction=True)
def test_two_controllers_at_once_never_lead_the_same_epoch_and_leave_no_lead_behind(clock) -> None:
    seen: list[tuple[str, int, str]] = []
    stop = threading.Event()

    def step_of(holder: str, name: str):
        def step(tick: Tick) -> str:
            seen.append((name, tick.epoch, holder))
            if len(seen) > 20:
                stop.set()
            with transaction.atomic():
                tick.fence()
            return ""

        return step

    def controller(holder: str) -> None:
        try:
            mine = [Loop(name, 0.001, step_of(holder, name), lease_s=0.3) for name in ("one", "two")]
            ended.append(loops.run(mine, stop=stop, holder=holder, clock=timezone.now, grace_s=10))
        finally:
            connection.close()

    ended: list[bool] = []
    threads = [threading.Thread(target=controller, args=(holder,)) for holder in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert ended == [True, True]
    assert {name for name, _, _ in seen} == {"one", "two"}
    assert len({(name, epoch) for name, epoch, _ in seen}) == len({(name, epoch, holder) for name, epoch, holder in seen})
    assert list(LoopLease.objects.values_list("holder", flat=True)) == ["", ""]


@pytest.mark.django_db(transaction=True)
def test_many_who_reach_for_a_free_lead_get_one_leader(loop, now) -> None:
    gate, won = threading.Barrier(6), []

    def reach(holder: str) -> None:
        try:
            gate.wait(10)
            if lead := loops.take(loop, holder=holder, now=now):
                won.append((holder, lead.epoch))
        finally:
            connection.close()

    threads = [threading.Thread(target=reach, args=(str(n),)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(won) == 1 and (row().holder, row().epoch) == won[0]
