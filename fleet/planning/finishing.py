"""When a batch would be done on a pool as it stands: the pool played forward several times, each with other luck. Pure.

Each run draws its own job times (from a bootstrap of what was measured, so that few measurements widen the answer), arrivals of
others, and starts of workers. A customer's jobs take turns with those of others, so whoever comes later does not wait behind the whole
batch: the last job of the batch starts when nobody waits any more. That moment does not depend on whose job is taken first, as no
worker is left idle while one waits, so the simulator's plain order finds it. What others may take is bounded by their fair share.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from fleet.planning.playing import Terms
from fleet.sizing.seen import ColdStart, JobTime, Memory, Planned, Policy, Proposal, Seen

if TYPE_CHECKING:
    import numpy as np

    from fleet.simulation.outcome import Floats

RUNS = 20
LEAST_RUNS = 5
BUDGET_S = 0.8
"""Runs begin until this much time has passed; the first few always do."""
SINGLY = 2000
"""Jobs of a batch simulated one by one; of a larger one several count as one, except at its end."""
OTHERS = 4000
"""Jobs of others simulated a run."""
LEARNED = 20
"""Jobs a simulated pool must have measured itself before its own figures replace the live pool's."""


@dataclass(frozen=True, slots=True)
class Present:
    """A pool at the moment a quote is made. Seconds and jobs."""

    terms: Terms
    ready: int
    busy_left_s: tuple[float, ...] = ()
    """What is left of each running job, at most one for each ready worker."""
    boots_left_s: tuple[float, ...] = ()
    """Until each coming worker is ready."""
    ahead: int = 0
    """Jobs waiting that go before the batch."""
    rates: tuple[float, ...] = (0.0,)
    """Jobs a second others send, hour by hour from now; the last goes on."""
    others: int = 1
    """How many other customers use the pool."""
    seconds: Sequence[float] = ()
    """Measured times of the pool's jobs."""
    cold_s: Sequence[float] = (60.0,)
    job: JobTime = field(default_factory=JobTime)
    cold: ColdStart = field(default_factory=ColdStart)
    planned: tuple[Planned, ...] = ()
    """Announced by others."""
    memory: Memory = field(default_factory=dict)

    @property
    def live(self) -> int:
        return self.ready + len(self.boots_left_s)


@dataclass(frozen=True, slots=True)
class Batch:
    """What is asked for. `seconds` are measured times of such jobs; none: guessed widely."""

    jobs: int
    starts_in_s: float = 0.0
    seconds: Sequence[float] = ()
    announced: bool = False
    at_once: int | None = None
    """Most of them that may wait or run at once, by the customer's plan."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Seconds from now until the last job of the batch has ended."""

    p50_s: float
    p90_s: float
    runs: int
    took_s: float
    peak: int
    """Most workers of the median run."""


def finish(present: Present, batch: Batch, *, seed: int = 0, runs: int = RUNS, budget_s: float = BUDGET_S) -> Finish | None:
    """When `batch` is done, at the median and at nine of ten; None when it never is, as no worker can come."""
    if present.terms.maximum < 1 and present.live < 1:
        return None
    began = time.perf_counter()
    ends: list[tuple[float, int]] = []
    for run in range(max(LEAST_RUNS, runs)):
        gone = time.perf_counter() - began
        if (run >= LEAST_RUNS and gone > budget_s) or (run > 1 and gone > 3 * budget_s):
            break
        ends.append(_run(present, batch, seed=seed * 1000 + run))
    ends.sort()
    if not math.isfinite(ends[-1][0]):
        return None
    p50 = ends[(len(ends) - 1) // 2]
    return Finish(p50[0], ends[min(len(ends) - 1, math.ceil(0.9 * len(ends)) - 1)][0], len(ends), time.perf_counter() - began, p50[1])


def _run(present: Present, batch: Batch, *, seed: int) -> tuple[float, int]:
    import numpy as np

    from fleet.simulation import simulate

    random = np.random.default_rng(seed)
    mine, others = _resampled(batch.seconds, random), _resampled(present.seconds or batch.seconds, random)
    most = max(present.terms.maximum, present.live, 1)
    load = mine[random.integers(len(mine), size=batch.jobs)]
    work = float(load.sum()) + present.ahead * float(others.mean())
    rates = _fair(present, random, mean_s=float(others.mean()), most=most)
    free = max(most - max(rates) * float(others.mean()), most / (present.others + 1), 0.5)
    horizon = batch.starts_in_s + 2 * work / free + 2 * max(present.cold_s) + 600
    first = [*present.busy_left_s[: present.ready], *present.boots_left_s]
    ahead = others[random.integers(len(others), size=present.ahead)]
    came_others, took_others = _others(rates, present.planned, others, horizon, random)
    # A worker that is still booting stands as one at work until it is ready; so does the rest of a running job.
    at_start = np.concatenate((np.asarray(first, dtype=np.float64), ahead))
    lumps = _lumped(load, singly=max(SINGLY, 20 * most), tail=4 * most)
    # The last is a job of no length: the simulator gives up on what has not started a day after the last arrival.
    came = np.concatenate((np.zeros(len(at_start)), np.full(len(lumps), batch.starts_in_s), came_others, [horizon]))
    took = np.concatenate((at_start, lumps, took_others, [0.0]))
    order = np.argsort(came, kind="stable")
    last = int(np.flatnonzero(order == len(at_start) + len(lumps) - 1)[0])
    planned = [*present.planned]
    if batch.announced:
        planned.append(Planned(batch.starts_in_s, batch.starts_in_s, jobs=batch.jobs, work_s=batch.jobs * float(mine.mean())))
    terms = present.terms
    outcome = simulate(
        came[order],
        took[order],
        policy=Primed(terms.made(), present, known=_known(mine, others, batch.jobs, present), standing=len(at_start)),
        base=terms.base,
        maximum=max(terms.maximum, terms.base),
        cold_start_s=list(present.cold_s),
        target_s=terms.target_s,
        target_share=terms.target_share,
        tick_s=max(15.0, horizon / 300),
        floor=lambda t: present.live if t <= 0 else terms.base,
        planned=planned,
        seed=seed,
        until_s=batch.starts_in_s,
        memory=dict(present.memory),
    )
    if outcome.unserved:
        return math.inf, outcome.peak
    starts = came[order] + outcome.waits
    # The queue is empty after the first start that leaves nobody waiting: the batch's last job starts no later.
    nobody = np.append(came[order][1:] > starts[:-1] + 1e-9, True)
    at = last + int(np.argmax(nobody[last:]))
    tail = starts[max(0, at - outcome.peak + 1) : at + 1]
    tail = tail[-min(len(tail), batch.jobs) :]
    end = float((tail + mine[random.integers(len(mine), size=len(tail))]).max())
    if batch.at_once:  # sent in portions, no more of it runs at a time than the plan allows
        end = max(end, batch.starts_in_s + float(load.sum()) / batch.at_once)
    return end, outcome.peak


class Primed:
    """A policy that knows from the first tick what the live pool has measured, and takes what stood there for no arrivals."""

    name: ClassVar[str] = "primed"

    def __init__(self, policy: Policy, present: Present, *, known: JobTime, standing: int) -> None:
        self.policy, self.present, self.known, self.standing = policy, present, known, standing

    def decide(self, seen: Seen, memory: Memory) -> Proposal:
        """As the policy decides, with the figures set right."""
        t = max(0.0, seen.now_s)
        rate = self.present.rates[0]

        def over(measured: float, window: float) -> float:
            if t >= window:
                return measured
            return max(0.0, measured - self.standing / window) + rate * (window - t) / window

        changed = replace(
            seen, rate_1m=over(seen.rate_1m, 60), rate_5m=over(seen.rate_5m, 300), rate_10m=over(seen.rate_10m, 600), rate_1h=over(seen.rate_1h, 3600)
        )
        if seen.job.samples < LEARNED + self.standing:
            changed = replace(changed, job=self.known, queue_work_s=(seen.queue or 0) * self.known.mean_s)
        # Beyond what the maximum could ever clear in time the figure says nothing more, and some policies count up to it.
        most = 1.5 * max(1, seen.maximum) * max(1.0, seen.target_s)
        if changed.waiting_work_s > most:
            changed = replace(changed, queue_work_s=most)
        if not seen.cold.samples:
            changed = replace(changed, cold=self.present.cold)
        return self.policy.decide(changed, memory)


def _resampled(seconds: Sequence[float], random: np.random.Generator) -> Floats:
    """A bootstrap of measured times; without any, times around the unmeasured ten seconds with a factor nobody knows."""
    import numpy as np

    if not len(seconds):
        return np.asarray(random.lognormal(math.log(10.0), 0.6) * random.lognormal(-0.18, 0.6, size=200))
    known = np.asarray(seconds, dtype=np.float64)
    return known[random.integers(len(known), size=len(known))]


def _known(mine: Floats, others: Floats, jobs: int, present: Present) -> JobTime:
    """Times of what waits once the batch has come."""
    n, m = jobs, present.ahead
    mean = (n * float(mine.mean()) + m * float(others.mean())) / (n + m)
    square = (n * float((mine**2).mean()) + m * float((others**2).mean())) / (n + m)
    return JobTime(mean, max(0.0, square / mean**2 - 1) if mean > 0 else 0.0, max(1, present.job.samples))


def _fair(present: Present, random: np.random.Generator, *, mean_s: float, most: int) -> list[float]:
    """Rates of others by hour: as uncertain as a count of that size is, and no more than their share while the batch waits."""
    cap = most / mean_s * present.others / (present.others + 1) if mean_s > 0 else math.inf
    rates = [float(random.gamma(rate * 3600 + 0.5)) / 3600 if rate > 0 else 0.0 for rate in present.rates]
    return [min(rate, cap) for rate in rates] or [0.0]


def _others(rates: list[float], planned: Sequence[Planned], seconds: Floats, horizon: float, random: np.random.Generator) -> tuple[Floats, Floats]:
    """When others' jobs come until `horizon`, and their times. Very many are merged."""
    import numpy as np

    hours = max(1, math.ceil(horizon / 3600))
    parts: list[Floats] = []
    for hour in range(min(hours, 24 * 60)):
        length = min(3600.0, horizon - hour * 3600)
        count = int(random.poisson(max(0.0, rates[min(hour, len(rates) - 1)] * length)))
        parts.append(hour * 3600 + random.random(min(count, 1_000_000)) * length)
    for one in planned:
        if one.jobs and one.starts_in_s < horizon:
            begin = max(0.0, one.starts_in_s)
            parts.append(begin + random.random(min(one.jobs, 100_000)) * max(0.0, one.ends_in_s - begin))
    came = np.sort(np.concatenate(parts))
    took = seconds[random.integers(len(seconds), size=len(came))]
    merged = -(-len(came) // OTHERS)
    if merged > 1:
        firsts = np.arange(0, len(came), merged)
        came, took = came[firsts], np.add.reduceat(took, firsts)
    return came, took


def _lumped(load: Floats, *, singly: int, tail: int) -> Floats:
    """The batch's times, several as one beyond `singly` jobs; its last `tail` stay single, as they make the end."""
    import numpy as np

    if len(load) <= singly:
        return load
    head, rest = load[: len(load) - tail], load[len(load) - tail :]
    size = -(-len(head) // max(1, singly - tail))
    return np.concatenate((np.add.reduceat(head, np.arange(0, len(head), size)), rest))
