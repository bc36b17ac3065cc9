"""Plan for growth: how load grows, what each way to add capacity holds and costs, when it runs out, and which is cheaper from when on.

Pure. Load and capacity are counted in today's workers, so that a larger, a further and a less burdened worker can be compared. A month's
load is the load at its start. An option is bought once at the start and again, step by step, in each month whose peak would not fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from controlplane.kernel import money
from fleet.planning import growth_checks

MOST_STEPS = 10_000


@dataclass(frozen=True, slots=True)
class Case:
    """Where a fleet stands, and how it is expected to grow. Shares are of one."""

    workers: float
    """What there is now, at its maximum."""
    average: float
    """Share of `workers` that is at work on average in business hours."""
    peak: float
    monthly_microusd: int
    jobs_a_month: float
    new_customers: float = 0.0
    """Load that comes at once, as a share of today's."""
    monthly: float = 0.0
    """Growth a month, compounding."""
    months: int = 12
    target_job_microusd: int | None = None
    job_s: float = 10.0
    cv2: float = 1.0
    target_s: float = 60.0
    target_share: float = 0.99


@dataclass(frozen=True, slots=True)
class Option:
    """One way to grow. A step adds `workers`; `speed` and `work` hold from the first one on."""

    name: str
    kind: str
    """vertical, horizontal or hybrid."""
    monthly_microusd: int
    """What a step costs a month."""
    workers: float = 0.0
    work: float = 1.0
    """Work a job needs afterwards, as a share of today's: 0.7 after a gain of 30%."""
    once_microusd: int = 0
    assumed: str = ""
    """What was assumed of it, for whoever reads the result."""


@dataclass(frozen=True, slots=True)
class Month:
    """One month of one option; load and capacity in today's workers."""

    month: int
    load: float
    peak: float
    capacity: float
    steps: int
    monthly_microusd: int
    cumulative_microusd: int
    job_microusd: int
    """What a job costs: the month's bill over its jobs."""


@dataclass(frozen=True, slots=True)
class Waits:
    """What simulated jobs waited."""

    p50_s: float
    p95_s: float
    p99_s: float
    within: float


@dataclass(frozen=True, slots=True)
class Result:
    """An option, month by month."""

    option: Option
    capacity: float
    """After the first step, in today's workers."""
    average_full: float | None
    """Months until the average load passes the first step's capacity; 0: at once, None: never."""
    peak_full: float | None
    job_microusd: int
    """What a job costs after `work`, at today's bill a job: the option's own promise."""
    meets_target: bool | None
    months: tuple[Month, ...]
    waits: Waits | None = None
    """With the first step, in the first month."""
    waits_later: Waits | None = None
    """With the first step alone, in the last month."""

    @property
    def peak_utilisation(self) -> float:
        """Peak load of the first month as a share of the capacity."""
        return self.months[0].peak / self.capacity if self.capacity else math.inf


@dataclass(frozen=True, slots=True)
class BreakEven:
    """From which month on `cheaper` has cost less in all than `than`; None: never within the months asked for."""

    cheaper: str
    than: str
    month: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer."""

    case: Case
    load_now: float
    """As a share of today's workers, like the next two."""
    load_at_once: float
    load_after: float
    nothing_done: float | None
    """Months until today's workers are passed by the average load."""
    results: tuple[Result, ...]
    break_even: tuple[BreakEven, ...]
    best: str
    said: tuple[str, ...] = field(default=())
    """Sentences: what follows from the figures."""

    def as_json(self) -> dict[str, Any]:
        """Plain JSON; money in micro-dollars."""
        return asdict(self)


Simulate = Callable[[Case, float, float, float], Waits]
"""(case, load in today's workers, workers there are, their capacity in today's workers) -> waits."""


def plan(case: Case, options: Sequence[Option], *, simulate: Simulate | None = None) -> Plan:
    """Work the options out. Raises Invalid for figures that mean nothing."""
    growth_checks.check(case, options)
    now = case.workers * case.average
    results = tuple(_worked_out(case, option, simulate) for option in options)
    pairs = tuple(_break_even(a, b) for i, a in enumerate(results) for b in results[i + 1 :])
    last = [r.months[-1].cumulative_microusd for r in results]
    best = results[last.index(min(last))].option.name
    made = Plan(
        case=case,
        load_now=case.average,
        load_at_once=case.average * (1 + case.new_customers),
        load_after=_load(case, now, case.months) / case.workers,
        nothing_done=_until(case, now, case.workers),
        results=results,
        break_even=pairs,
        best=best,
    )
    return Plan(**{**{name: getattr(made, name) for name in Plan.__slots__}, "said": tuple(_sentences(made))})


def needed_gain(now_microusd: int, target_microusd: int) -> float:
    """By which share a job must become cheaper to meet the target: 0.348 from $0.23 to $0.15."""
    return max(0.0, 1 - target_microusd / now_microusd) if now_microusd > 0 else 0.0


def _load(case: Case, now: float, month: float) -> float:
    return float(now * (1 + case.new_customers) * (1 + case.monthly) ** month)


def _until(case: Case, now: float, capacity: float) -> float | None:
    """Months until `now`, grown, passes `capacity`: 0 when it does at once."""
    first = _load(case, now, 0)
    if first > capacity:
        return 0.0
    if case.monthly <= 0 or first <= 0:
        return None
    return math.log(capacity / first) / math.log1p(case.monthly)


def _capacity(case: Case, option: Option, steps: int) -> float:
    return (case.workers + option.workers * steps) / option.work


def _worked_out(case: Case, option: Option, simulate: Simulate | None) -> Result:
    average, peak = case.workers * case.average, case.workers * case.peak
    months: list[Month] = []
    steps, total = 1, option.once_microusd
    for month in range(case.months + 1):
        load, most = _load(case, average, month), _load(case, peak, month)
        if option.workers > 0:
            steps = max(steps, min(MOST_STEPS, math.ceil((most * option.work - case.workers) / option.workers - 1e-9)))
        monthly = case.monthly_microusd + steps * option.monthly_microusd
        total += monthly
        jobs = _load(case, case.jobs_a_month, month)
        months.append(Month(month, load, most, _capacity(case, option, steps), steps, monthly, total, round(monthly / jobs) if jobs > 0 else 0))
    capacity = _capacity(case, option, 1)
    # Larger workers are as many as before.
    workers = case.workers + (0 if option.kind == "vertical" else option.workers)
    promised = round(case.monthly_microusd / case.jobs_a_month * option.work) if case.jobs_a_month > 0 else 0
    return Result(
        option=option,
        capacity=capacity,
        average_full=_until(case, average, capacity),
        peak_full=_until(case, peak, capacity),
        job_microusd=promised,
        meets_target=None if case.target_job_microusd is None else promised <= case.target_job_microusd,
        months=tuple(months),
        waits=simulate(case, months[0].load, workers, capacity) if simulate else None,
        waits_later=simulate(case, months[-1].load, workers, capacity) if simulate else None,
    )


def _break_even(a: Result, b: Result) -> BreakEven:
    """Who has cost less at the end, and since when without a break."""
    ends = a.months[-1].cumulative_microusd, b.months[-1].cumulative_microusd
    low, high = (a, b) if ends[0] <= ends[1] else (b, a)
    since: int | None = None
    for mine, theirs in zip(low.months, high.months, strict=True):
        if mine.cumulative_microusd > theirs.cumulative_microusd:
            since = None
        elif since is None:
            since = mine.month
    return BreakEven(low.option.name, high.option.name, None if ends[0] == ends[1] else since)


def _sentences(made: Plan) -> list[str]:
    case = made.case
    later = f" and {_share(made.load_after)} after {_months(case.months)} of {_share(case.monthly)} a month" if case.monthly and case.months else ""
    said = [f"Load is {_share(made.load_now)} of today's workers. With the new customers it is {_share(made.load_at_once)} at once{later}."]
    if made.nothing_done is not None:
        said.append("Today's workers do not carry it." if made.nothing_done == 0 else f"Today's workers carry it for {made.nothing_done:.1f} months.")
    if case.target_job_microusd is not None and case.jobs_a_month > 0:
        now = round(case.monthly_microusd / case.jobs_a_month)
        need = needed_gain(now, case.target_job_microusd)
        if need > 0:
            said.append(f"From {_usd(now)} a job to {_usd(case.target_job_microusd)} takes {_share(-need, 1)}.")
        for result in made.results:
            if result.option.work < 1:
                verdict = (
                    "which meets the target"
                    if result.meets_target
                    else f"which misses the target of {_usd(case.target_job_microusd)} by {_usd(result.job_microusd - case.target_job_microusd)}"
                )
                said.append(f"{result.option.name} promises {_share(result.option.work - 1)}: {_usd(result.job_microusd)} a job, {verdict}.")
    for result in made.results:
        said.append(_when_full(result))
    return said


def _when_full(result: Result) -> str:
    name, full = result.option.name, result.peak_full
    if full is None:
        return f"{name} holds the peaks for as long as nothing grows."
    if full == 0:
        return f"{name} does not hold the peaks from the first day."
    if full < 0.05:
        return f"{name} just holds the peaks of the first day, and none that grow; the average for {result.average_full or 0:.1f} months."
    average = f", the average for {result.average_full:.1f}" if result.average_full else ""
    return f"{name} holds the peaks for {full:.1f} months{average}; then another step is due."


def _share(value: float, digits: int = 0) -> str:
    text = f"{value * 100:.{digits}f}" if digits else f"{value * 100:.1f}".removesuffix(".0")
    return f"{text.replace('-', '−')}%"


def _usd(microusd: int) -> str:
    """$0.15, $0.161, $0.011: no digits that say nothing."""
    return f"${money.to_usd(round(microusd, -3))}"


def _months(n: int) -> str:
    return "1 month" if n == 1 else f"{n} months"
