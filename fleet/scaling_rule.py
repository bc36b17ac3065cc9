"""How many workers a pool should have, by the seed rule. Pure: what was seen goes in, one decision comes out.

Queue above a share of the workers orders one more, up to the maximum; a worker idle long enough is stopped, down to
the base. A busy worker is never stopped, missing figures mean hold, and workers that keep failing to start are not
ordered again until an operator has looked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NAME = "seed-rule"
FAILURES_TO_HALT = 3
FAILURE_WINDOW_S = 300.0
FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 60.0

_LIVE = frozenset({"ordered", "starting", "idle", "busy"})


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker as the scaler sees it. Draining ones are on their way out and count for nothing."""

    id: str
    state: str
    idle_s: float | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a decision rests on; stored with it, so that it can be replayed. None means the figure could not be had."""

    queue: int | None
    workers: Sequence[WorkerSeen] | None
    base: int
    max: int
    queue_per_worker: float = 0.8
    idle_s: float = 300.0
    price_per_hour_microusd: int = 0
    start_failures: int = 0
    last_failure_age_s: float | None = None
    halted: bool = False
    halted_reason: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, what was wanted, what stood in the way, and why in one sentence."""

    action: str  # up, down, hold, halted
    wanted: int
    applied: int
    reason: str
    bound: str = ""
    victim: str | None = None
    cost_change_microusd: int = 0


def wait_s(failures: int) -> float:
    """How long to wait after the last of `failures` failed starts before ordering again."""
    return 0.0 if failures < 1 else min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** (failures - 1))


def decide(seen: Seen) -> Decision:
    """One step for one pool."""
    if seen.queue is None or seen.workers is None:
        missing = "queue depth" if seen.queue is None else "list of workers"
        return Decision("hold", 0, 0, f"The {missing} is not known, so nothing is changed.", bound="missing data")
    live = [w for w in seen.workers if w.state in _LIVE]
    wanted, why = _wanted(seen, live, seen.queue)
    if wanted > 0:
        return _up(seen, live, wanted, why)
    if wanted < 0:
        return _down(seen, live, why)
    if seen.halted:
        return Decision("halted", 0, 0, _halted(seen), bound="halted")
    return Decision("hold", 0, 0, why)


def _wanted(seen: Seen, live: Sequence[WorkerSeen], queue: int) -> tuple[int, str]:
    """The change the rule asks for, before any bound, and why."""
    count = len(live)
    threshold = seen.queue_per_worker * count
    if count < seen.base:
        return seen.base - count, f"The pool has {_workers(count)} and keeps at least {seen.base}."
    if count > seen.max:
        return -1, f"The pool has {_workers(count)} and may have {seen.max} at most."
    if queue > threshold:
        return 1, f"{_jobs(queue)} for {_workers(count)}: more than {seen.queue_per_worker:g} each."
    idlest = _idlest(live)
    if count > seen.base and idlest is not None and (idlest.idle_s or 0.0) >= seen.idle_s:
        return -1, f"A worker has been idle for {seen.idle_s:g} s and the pool has {_workers(count)}, {count - seen.base} more than its base."
    if count == seen.base:
        return 0, f"{_jobs(queue)} for {_workers(count)}, the pool's base: nothing to change."
    return 0, f"{_jobs(queue)} for {_workers(count)}, none of them idle for {seen.idle_s:g} s: nothing to change."


def _up(seen: Seen, live: Sequence[WorkerSeen], wanted: int, why: str) -> Decision:
    room = seen.max - len(live)
    if room <= 0:
        return Decision("hold", wanted, 0, f"{why} No more are ordered because {seen.max} is the pool's maximum.", bound=f"maximum of {seen.max}")
    if seen.halted:
        return Decision("halted", wanted, 0, _halted(seen), bound="halted")
    if seen.start_failures >= FAILURES_TO_HALT:
        reason = (
            f"{_workers(seen.start_failures)} in a row died or never became ready within {FAILURE_WINDOW_S / 60:g} minutes, so ordering stops "
            "until somebody has read the worker's log and resumed the pool."
        )
        return Decision("halted", wanted, 0, reason, bound="crash loop")
    pause = wait_s(seen.start_failures)
    if seen.last_failure_age_s is not None and seen.last_failure_age_s < pause:
        reason = f"{why} The last start failed, so the next one waits {pause:g} s."
        return Decision("hold", wanted, 0, reason, bound=f"waiting {pause:g} s after {seen.start_failures} failed")
    applied = min(wanted, room)
    if seen.start_failures:
        applied = 1  # one at a time until one has become ready
    ordered = "one more" if applied == 1 else f"{applied} more"
    return Decision(
        "up",
        wanted,
        applied,
        f"{why} Ordered {ordered}.",
        bound="" if applied == wanted else f"{applied} of {wanted}",
        cost_change_microusd=applied * seen.price_per_hour_microusd,
    )


def _down(seen: Seen, live: Sequence[WorkerSeen], why: str) -> Decision:
    victim = _idlest(live)
    if victim is None:
        return Decision("hold", -1, 0, f"{why} All are at work or starting, and those are never stopped.", bound="no idle worker")
    return Decision("down", -1, -1, f"{why} Stopped the one idle longest.", victim=victim.id, cost_change_microusd=-seen.price_per_hour_microusd)


def _idlest(live: Sequence[WorkerSeen]) -> WorkerSeen | None:
    idle = [w for w in live if w.state == "idle" and w.idle_s is not None]
    return max(idle, key=lambda w: (w.idle_s or 0.0, w.id), default=None)


def _halted(seen: Seen) -> str:
    return f"Ordering is stopped: {seen.halted_reason or 'a crash loop was seen.'}"[:290]


def _workers(count: int) -> str:
    return {0: "no worker", 1: "1 worker"}.get(count, f"{count} workers")


def _jobs(count: int) -> str:
    return {0: "No job waits", 1: "1 job waits"}.get(count, f"{count} jobs wait")
