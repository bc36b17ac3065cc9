"""Control loops: each is led by one database row, whoever holds it ticks, everybody else waits.

A lead is a lease with an epoch. It is taken, renewed and released by compare-and-set; a new leader
raises the epoch. A leader that stalls past its lease may find another one at work: what it still does
must call `tick.fence()` in the transaction of its effect, which raises `LostLead` unless its epoch still
leads, and holds the row so that nobody takes over before that transaction ends.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import close_old_connections, connection, transaction
from django.db.models import F

from controlplane.kernel.models import LoopLease

log = logging.getLogger(__name__)

LEASE_S = 15.0
LATE_AFTER_S = 60.0
LONGEST_BACK_OFF_S = 60.0
BEAT_S = 5.0
HUNG_S = 600.0
"""A loop that has not turned for so long hangs: no step takes that long, and a follower turns every third of a lease."""
FORGET_AFTER = timedelta(days=1)


class LostLead(Exception):
    """Somebody else leads this loop now: drop the work."""


@dataclass(frozen=True)
class Tick:
    """One turn of a loop: when it is, and the epoch that entitles it to act."""

    now: datetime
    epoch: int
    name: str = ""
    lease_s: float = LEASE_S

    def keep(self, now: datetime) -> None:
        """Renew the lease in the middle of a long step; raises `LostLead` when it is somebody else's."""
        if not renew(self.name, epoch=self.epoch, lease_s=self.lease_s, now=now):
            raise LostLead(f"{self.name}: epoch {self.epoch} lost its lead")

    def fence(self) -> None:
        """Raise `LostLead` unless this tick's epoch still leads; call it inside the transaction of the effect."""
        fence(self.name, self.epoch)


@dataclass(frozen=True)
class Loop:
    """A step to take every `every_s` seconds. One that outlasts `lease_s` without `tick.keep` may lose its lead."""

    name: str
    every_s: float
    step: Callable[[Tick], str]
    lease_s: float = LEASE_S


@dataclass(frozen=True)
class Age:
    """How long ago a loop last succeeded, and what is known about it."""

    name: str
    every_s: float
    age_s: float | None
    late: bool
    holder: str
    epoch: int
    tick_ms: float
    ticks: int
    failures_in_a_row: int
    last_error: str
    note: str


@dataclass(frozen=True)
class Lead:
    """What `take` gives: the epoch, and when this loop last succeeded under anybody."""

    epoch: int
    ticked_at: datetime | None


def take(loop: Loop, *, holder: str, now: datetime) -> Lead | None:
    """Become the leader when nobody is, or when the leader's lease ran out."""
    lease = LoopLease.objects.filter(name=loop.name).first()
    if lease is None:
        lease, _ = LoopLease.objects.get_or_create(name=loop.name, defaults={"every_s": loop.every_s})
    if lease.holder and lease.expires_at is not None and lease.expires_at > now:
        return None
    seen = LoopLease.objects.filter(name=loop.name, epoch=lease.epoch, holder=lease.holder, expires_at=lease.expires_at)
    if lease.expires_at is None:
        seen = LoopLease.objects.filter(name=loop.name, epoch=lease.epoch, holder=lease.holder, expires_at__isnull=True)
    expires_at = now + timedelta(seconds=loop.lease_s)
    if not seen.update(holder=holder, epoch=lease.epoch + 1, expires_at=expires_at, every_s=loop.every_s):
        return None
    return Lead(lease.epoch + 1, lease.ticked_at)


def renew(name: str, *, epoch: int, lease_s: float, now: datetime) -> bool:
    """Keep the lead for another lease; tell whether it was still ours."""
    return LoopLease.objects.filter(name=name, epoch=epoch).update(expires_at=now + timedelta(seconds=lease_s)) == 1


def release(loop: Loop, *, epoch: int, now: datetime) -> None:
    """Give the lead away, so that the next one need not wait for the lease to end."""
    LoopLease.objects.filter(name=loop.name, epoch=epoch).update(holder="", expires_at=now)


def fence(name: str, epoch: int) -> None:
    """Raise `LostLead` unless `epoch` still leads `name`; until the caller's transaction ends nobody else can take it."""
    if not connection.in_atomic_block:
        raise RuntimeError("fence() guards the transaction it is called in; open one first")
    leading = LoopLease.objects.select_for_update().filter(name=name).values_list("epoch", flat=True).first()
    if leading != epoch:
        raise LostLead(f"{name}: epoch {epoch} lost its lead to {leading}")


def ages(now: datetime) -> list[Age]:
    """Every loop that ever ran, with the time since it last succeeded."""
    found = []
    for lease in LoopLease.objects.order_by("name"):
        age_s = None if lease.ticked_at is None else max(0.0, (now - lease.ticked_at).total_seconds())
        late = age_s is None or age_s > max(LATE_AFTER_S, 3 * lease.every_s)
        found.append(
            Age(
                name=lease.name,
                every_s=lease.every_s,
                age_s=age_s,
                late=late,
                holder=lease.holder,
                epoch=lease.epoch,
                tick_ms=lease.tick_ms,
                ticks=lease.ticks,
                failures_in_a_row=lease.failures_in_a_row,
                last_error=lease.last_error,
                note=lease.note,
            )
        )
    return found


def forget(*, keep: Iterable[str], now: datetime) -> int:
    """Drop rows of loops that no longer exist, once nobody has led them for a day."""
    with transaction.atomic():
        return LoopLease.objects.exclude(name__in=list(keep)).filter(expires_at__lt=now - FORGET_AFTER).delete()[0]


class Runner:
    """Leads one loop, or waits to. `turn` does what is due and says how long to wait; it never sleeps."""

    def __init__(self, loop: Loop, *, holder: str, clock: Callable[[], datetime]) -> None:
        self.loop, self.holder, self.clock = loop, holder, clock
        self.epoch: int | None = None
        self.failures = 0
        self.turned_at = time.monotonic()
        self.due_at = self.renew_at = clock()

    def turn(self, *, at_once: bool = False) -> float:
        """Seconds to wait before the next turn; `at_once` ticks now even when the loop ran a moment ago."""
        self.turned_at = time.monotonic()
        now = self.clock()
        if self.epoch is None:
            lead = take(self.loop, holder=self.holder, now=now)
            if lead is None:
                return self.loop.lease_s / 3
            self.epoch = lead.epoch
            self.due_at = now if lead.ticked_at is None else min(now + self._every, lead.ticked_at + self._every)
            self._renewed(now)
            log.info("loop led", extra={"loop": self.loop.name, "epoch": self.epoch})
        if self.due_at - now > timedelta(seconds=max(self.loop.every_s, LONGEST_BACK_OFF_S)):
            self.due_at = now  # the clock was set back: nothing is ever due that far ahead
        if at_once or now >= self.due_at:
            self._tick(now, self.epoch)
        elif now >= self.renew_at:
            if renew(self.loop.name, epoch=self.epoch, lease_s=self.loop.lease_s, now=now):
                self._renewed(now)
            else:
                self._lost()
        if self.epoch is None:
            return self.loop.lease_s / 3
        return max(0.0, (min(self.due_at, self.renew_at) - self.clock()).total_seconds())

    def back_off_s(self) -> float:
        """How long to wait after a failure: doubling, with jitter, so that many loops do not come back together."""
        first, longest = max(0.1, min(self.loop.every_s, 5.0)), max(LONGEST_BACK_OFF_S, self.loop.every_s)
        return random.uniform(0.75, 1.0) * min(longest, first * 2.0 ** min(self.failures, 16))

    def stop(self) -> None:
        """Release the lead, when it is held."""
        if self.epoch is not None:
            release(self.loop, epoch=self.epoch, now=self.clock())
            self.epoch = None

    def _tick(self, now: datetime, epoch: int) -> None:
        started = time.perf_counter()
        try:
            note = self.loop.step(Tick(now, epoch, self.loop.name, self.loop.lease_s))
        except LostLead:
            self._lost()
            return
        except Exception:
            self.failures += 1
            log.exception("loop failed", extra={"loop": self.loop.name, "epoch": epoch, "failures_in_a_row": self.failures})
            self.due_at = self.clock() + timedelta(seconds=self.back_off_s())
            self._note_end(epoch, failures_in_a_row=F("failures_in_a_row") + 1, last_error=traceback.format_exc(limit=-4)[-4000:])
            return
        self.failures = 0
        self.due_at = now + self._every
        self._note_end(
            epoch,
            ticked_at=self.clock(),
            tick_ms=round((time.perf_counter() - started) * 1000, 3),
            ticks=F("ticks") + 1,
            failures_in_a_row=0,
            last_error="",
            note=(note or "")[:300],
        )

    def _note_end(self, epoch: int, **values: object) -> None:
        """Write down how the tick went; the same statement renews the lease."""
        now = self.clock()
        expires_at = now + timedelta(seconds=self.loop.lease_s)
        if LoopLease.objects.filter(name=self.loop.name, epoch=epoch).update(expires_at=expires_at, **values):
            self._renewed(now)
        else:
            self._lost()

    @property
    def _every(self) -> timedelta:
        return timedelta(seconds=self.loop.every_s)

    def _renewed(self, now: datetime) -> None:
        self.renew_at = now + timedelta(seconds=self.loop.lease_s / 3)

    def _lost(self) -> None:
        log.warning("loop lost its lead", extra={"loop": self.loop.name, "epoch": self.epoch})
        self.epoch = None


def run(
    loops: Iterable[Loop],
    *,
    stop: threading.Event,
    holder: str,
    clock: Callable[[], datetime],
    grace_s: float = 30.0,
    beat: Callable[[], None] = lambda: None,
) -> bool:
    """Run every loop in a thread of its own until `stop` is set; tell whether all of them ended within the grace.

    `beat` is called every few seconds while all of them turn: not when a thread has ended or hangs.
    """
    runners = [Runner(loop, holder=holder, clock=clock) for loop in loops]
    threads = [threading.Thread(target=_keep_turning, args=(runner, stop), name=f"loop-{runner.loop.name}", daemon=True) for runner in runners]
    for thread in threads:
        thread.start()
    while not stop.is_set():
        if all(thread.is_alive() for thread in threads) and all(time.monotonic() - runner.turned_at < HUNG_S for runner in runners):
            beat()
        stop.wait(BEAT_S)
    deadline = time.monotonic() + grace_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


def run_once(loop: Loop, *, holder: str, clock: Callable[[], datetime]) -> str:
    """Tick once now and give the lead back; the note, or why it did not run. Raises what the step raised."""

    def step(tick: Tick) -> str:
        outcome.append(loop.step(tick))
        return outcome[-1]

    outcome: list[str] = []
    runner = Runner(Loop(loop.name, loop.every_s, step, loop.lease_s), holder=holder, clock=clock)
    runner.turn(at_once=True)
    failed, led = runner.failures, runner.epoch is not None
    runner.stop()
    if failed:
        raise RuntimeError(LoopLease.objects.get(name=loop.name).last_error)
    return outcome[0] if outcome else ("lost its lead" if led else "led by another controller")


def _keep_turning(runner: Runner, stop: threading.Event) -> None:
    try:
        while not stop.is_set():
            close_old_connections()
            try:
                wait_s = runner.turn()
            except Exception:  # the database is away, or the row could not be written: nothing was decided
                runner.failures += 1
                log.exception("loop could not turn", extra={"loop": runner.loop.name, "failures_in_a_row": runner.failures})
                connection.close()
                wait_s = runner.back_off_s()
            if wait_s > 5:
                close_old_connections()
            stop.wait(wait_s)
        try:
            runner.stop()
        except Exception:
            log.exception("lead not released; it ends with its lease", extra={"loop": runner.loop.name})
    finally:
        connection.close()
