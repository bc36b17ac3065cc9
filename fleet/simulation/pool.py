"""One pool, simulated job by job: first come first served, one job a worker, cold starts, drain, paid per second from order to end.

Between two ticks nothing but arrivals, ends and boots happens, and since jobs start in the order they came, a heap of the moments at
which workers come free is the whole state. At a tick the policy is shown what a live pool would show it and goes through
`fleet.sizing.bounding.decide`, like everything that sizes.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from fleet.simulation.learning import ColdStarts, JobTimes
from fleet.simulation.outcome import Outcome, Sample, sum_up
from fleet.sizing import bounding
from fleet.sizing.bounding import Limits
from fleet.sizing.seen import Memory, Planned, Policy, Seen

AHEAD_S = 6 * 3600.0
"""How far ahead announced demand is shown, as for a live pool."""
PATIENCE_S = 24 * 3600.0
"""Jobs that have not started so long after the last arrival never will."""


def simulate(
    arrivals: ArrayLike,
    service: ArrayLike,
    *,
    policy: Policy,
    base: int,
    maximum: int,
    cold_start_s: float | Sequence[float],
    target_s: float,
    target_share: float = 0.99,
    tick_s: float = 15.0,
    price_per_hour_microusd: int = 0,
    floor: Callable[[float], int] | None = None,
    limits: Callable[[float], Limits] | Limits = Limits(),
    planned: Sequence[Planned] = (),
    kinds: Sequence[int] | None = None,
    seed: int = 0,
    start_s: float = 0.0,
    until_s: float | None = None,
    memory: Memory | None = None,
    progress: Callable[[float], None] | None = None,
) -> Outcome:
    """Play `arrivals` (sorted seconds) with `service` seconds each against a pool that `policy` sizes.

    `cold_start_s` is one number, or measured starts to draw from. `floor(t_s)` replaces the base from then on; `limits` are what stands
    beside the policy. `planned` is announced demand with its times counted from second 0; it is shown as a live pool would. `kinds` names
    each job's kind (0, 1, ...) when their times are to be learned apart. The pool starts at `start_s` with its base ready, and is paid
    for until `until_s` (the last arrival unless said) and until the last job has ended. A policy with a `tick_s` of its own is asked
    that often; one with `stops_busy` (peers only) may let workers at work leave: they finish their job and are counted.

    Raises ValueError when the arrays differ in length or are not sorted, or base is above the maximum.
    """
    play = _Pool(arrivals, service, kinds, cold_start_s, seed=seed, start_s=start_s, workers=floor(start_s) if floor else base, check=(base, maximum))
    own = getattr(policy, "tick_s", None)
    step = float(own) if own is not None else tick_s
    if not step > 0:
        raise ValueError("tick_s must be above zero")
    kills = bool(getattr(policy, "stops_busy", False))
    memory = {} if memory is None else memory
    last = max(until_s if until_s is not None else start_s, play.last_arrival if until_s is None else start_s)
    tick, n = 0, 0
    while True:
        now = start_s + tick * step
        play.advance(now)
        if now >= last and (play.over or now >= max(last, play.last_arrival) + PATIENCE_S):
            break
        least = max(0, min(maximum, int(floor(now)))) if floor is not None else base
        seen = play.observe(now, planned, least, maximum, target_s, target_share, price_per_hour_microusd)
        beside = limits(now) if callable(limits) else limits
        if kills:
            wanted = policy.decide(seen, memory).wanted
            play.resize(now, max(least, min(maximum, wanted)), seen.live)
        else:
            decision = bounding.decide(seen, policy, memory, beside)
            wanted = decision.proposal.wanted if decision.proposal is not None else seen.live
            if decision.applied > 0:
                play.order(now, decision.applied)
            elif decision.applied < 0:
                play.release(now, -decision.applied)
        play.samples.append((now, seen.ready or 0, len(seen.coming_s), seen.queue or 0, wanted))
        tick += 1
        if progress is not None and tick - n >= 256:
            n = tick
            progress(now)
    return play.outcome(target_s=target_s, until=last, price=price_per_hour_microusd)


class _Pool:
    """The queue and the workers. Times are seconds on the arrivals' clock."""

    def __init__(
        self,
        arrivals: ArrayLike,
        service: ArrayLike,
        kinds: Sequence[int] | None,
        cold: float | Sequence[float],
        *,
        seed: int,
        start_s: float,
        workers: int,
        check: tuple[int, int],
    ) -> None:
        came = np.asarray(arrivals, dtype=np.float64)
        took = np.asarray(service, dtype=np.float64)
        if came.ndim != 1 or came.shape != took.shape or (kinds is not None and len(kinds) != len(came)):
            raise ValueError("arrivals, service and kinds must be of one length")
        if len(came) and (np.any(np.diff(came) < 0) or not np.all(np.isfinite(came)) or not np.all(took >= 0) or not np.all(np.isfinite(took))):
            raise ValueError("arrivals must be sorted, and service times must be numbers not below zero")
        if not 0 <= check[0] <= check[1]:
            raise ValueError("base must lie between zero and the maximum")
        first = int(np.searchsorted(came, start_s, side="left"))
        self.came: list[float] = came[first:].tolist()
        self.took: list[float] = took[first:].tolist()
        self.came_np = came[first:]
        self.last_arrival = self.came[-1] if self.came else start_s
        self.start_s = start_s
        self.random = np.random.default_rng(seed)
        self.cold = [float(cold)] if isinstance(cold, int | float) else [float(x) for x in cold]
        self.times = JobTimes(took[first:], list(kinds)[first:] if kinds is not None else None)
        self.starts = ColdStarts()
        self.begun: list[float] = []
        """When each job started; jobs start in the order they came."""
        self.ends: list[float] = []
        """Ends of the jobs started since the last tick."""
        self.free: list[float] = []
        """Heap of the moments at which busy and booting workers come free."""
        self.idle: deque[float] = deque([start_s] * workers)
        """Since when each idle worker has nothing to do, longest first. The last to fall idle takes the next job."""
        self.coming: list[tuple[float, float]] = []
        """Ready and ordered moment of each booting worker, soonest ready first."""
        self.paid = 0.0
        """Seconds of workers that have gone, less the order moments of those that live."""
        self.live = workers
        self.paid -= workers * start_s
        self.ups = self.downs = self.launches = self.busy_stops = 0
        self.peak = workers
        self.samples: list[Sample] = []

    def advance(self, now: float) -> None:
        """Start what can start up to and including `now`."""
        came, took, free, idle = self.came, self.took, self.free, self.idle
        begun, ends = self.begun, self.ends
        push, pop, replace = heapq.heappush, heapq.heappop, heapq.heapreplace
        add_begun, add_end = begun.append, ends.append
        head, count = len(begun), len(came)
        while head < count:
            at = came[head]
            if at > now:
                break
            while free and free[0] <= at:
                idle.append(pop(free))
            if idle:
                idle.pop()
                end = at + took[head]
                push(free, end)
            else:
                if not free:
                    break
                at = free[0]
                if at > now:
                    break
                end = at + took[head]
                replace(free, end)
            add_begun(at)
            add_end(end)
            head += 1
        while free and free[0] <= now:
            idle.append(pop(free))
        while self.coming and self.coming[0][0] <= now:
            ready, ordered = self.coming.pop(0)
            self.starts.add(ready - ordered)

    @property
    def over(self) -> bool:
        """Whether every job has started and ended."""
        return len(self.begun) == len(self.came) and len(self.free) == len(self.coming)

    def observe(self, now: float, planned: Sequence[Planned], base: int, maximum: int, target_s: float, share: float, price: int) -> Seen:
        """What a live pool would show at this moment."""
        first = len(self.begun)
        arrived = bisect_right(self.came, now, first)
        self.times.look(now, first - len(self.ends), self.ends)
        self.ends.clear()
        job, work = self.times.waiting(first, arrived)
        busy = len(self.free) - len(self.coming)
        coming = tuple([now - ordered for _, ordered in self.coming]) if self.coming else ()
        return Seen(
            now_s=now,
            queue=arrived - first,
            ready=busy + len(self.idle),
            busy=busy,
            coming_s=coming if len(coming) < 2 else tuple(sorted(coming, reverse=True)),
            idle_s=tuple([now - since for since in self.idle]),
            queue_work_s=work,
            oldest_wait_s=now - self.came[first] if first < arrived else 0.0,
            rate_1m=(arrived - bisect_right(self.came, now - 60, 0, arrived)) / 60,
            rate_5m=(arrived - bisect_right(self.came, now - 300, 0, arrived)) / 300,
            rate_10m=(arrived - bisect_right(self.came, now - 600, 0, arrived)) / 600,
            rate_1h=(arrived - bisect_right(self.came, now - 3600, 0, arrived)) / 3600,
            job=job,
            cold=self.starts.seen,
            planned=_shown(planned, now) if planned else (),
            base=base,
            maximum=maximum,
            target_s=target_s,
            target_share=share,
            price_per_hour_microusd=price,
        )

    def order(self, now: float, count: int) -> None:
        """Order so many workers; they are paid from now on."""
        for _ in range(count):
            took = self.cold[0] if len(self.cold) == 1 else self.cold[int(self.random.integers(len(self.cold)))]
            self.coming.append((now + took, now))
            heapq.heappush(self.free, now + took)
        self.coming.sort()
        self.live += count
        self.paid -= count * now
        self.ups += 1
        self.launches += count
        self.peak = max(self.peak, self.live)

    def release(self, now: float, count: int) -> int:
        """Let up to so many idle workers leave, the longest idle first; says how many did."""
        leaving = min(count, len(self.idle))
        for _ in range(leaving):
            self.idle.popleft()
        self.live -= leaving
        self.paid += leaving * now
        self.downs += leaving > 0
        return leaving

    def resize(self, now: float, size: int, live: int) -> None:
        """Have `size` workers, as an orchestrator that asks nobody: those not ready go first, then idle ones, then ones at work, which
        finish their job before they go."""
        if size > live:
            self.order(now, size - live)
        if size >= live:
            return
        less, downs = live - size, self.downs
        for _ in range(min(less, len(self.coming))):
            ready, _ordered = self.coming.pop()
            self._drop(ready)
            self.live -= 1
            self.paid += now
            less -= 1
        less -= self.release(now, less)
        if less > 0:
            boots = [ready for ready, _ in self.coming]
            at_work = list(self.free)
            for ready in boots:
                at_work.remove(ready)
            # Nobody can know which job ends first; any of them is as likely.
            for end in self.random.permutation(np.array(sorted(at_work)))[:less].tolist():
                self._drop(end)
                self.live -= 1
                self.paid += end
                self.busy_stops += 1
        self.downs = downs + 1

    def _drop(self, moment: float) -> None:
        self.free.remove(moment)
        heapq.heapify(self.free)

    def outcome(self, *, target_s: float, until: float, price: int) -> Outcome:
        """The sums. Workers that still live are paid to `until`, or to the end of their last job."""
        begun = np.asarray(self.begun)
        service = self.times.service[: len(begun)]
        close = max(until, float((begun + service).max())) if len(begun) else until
        unserved = len(self.came) - len(begun)
        if unserved and self.samples:
            close = max(close, self.samples[-1][0])
        waits = begun - self.came_np[: len(begun)]
        if unserved:
            waits = np.concatenate((waits, close - self.came_np[len(begun) :]))
        seconds = self.paid + self.live * close
        return sum_up(
            waits,
            target_s=target_s,
            gpu_hours=seconds / 3600,
            busy_hours=float(service.sum()) / 3600,
            cost_microusd=round(seconds * price / 3600),
            ups=self.ups,
            downs=self.downs,
            launches=self.launches,
            busy_stops=self.busy_stops,
            peak=self.peak,
            samples=self.samples,
            unserved=unserved,
            hours=(close - self.start_s) / 3600,
        )


def _shown(planned: Sequence[Planned], now: float) -> tuple[Planned, ...]:
    """Announced demand as seen from `now`."""
    return tuple(
        Planned(p.starts_in_s - now, p.ends_in_s - now, jobs=p.jobs, work_s=p.work_s, factor=p.factor, workers=p.workers)
        for p in planned
        if p.ends_in_s > now and p.starts_in_s < now + AHEAD_S
    )
