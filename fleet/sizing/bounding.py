"""What no policy may pass: the pool's bounds, its budget, a crash loop, a pause; and no worker at work is ever stopped.

`decide` asks a policy and turns its proposal into one change. The scaler, the simulator and every replay go through it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from fleet.sizing import waits
from fleet.sizing.seen import Memory, Policy, Proposal, Seen
from fleet.sizing.words import seconds, workers

FAILURES_TO_HALT = 3
FAILURE_WINDOW_S = 300.0
FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What stands beside the proposal. The floor and the maximum are in `Seen`."""

    start_failures: int = 0
    """Starts in a row that failed: workers that died or never became ready; those that vanished together count once."""
    last_failure_age_s: float | None = None
    halted: str = ""
    """Why ordering is stopped; empty when it is not."""
    paused: str = ""
    """Why nothing at all is changed; empty when it is not paused."""
    unreachable: str = ""
    """Why the provider cannot be asked now; empty when it can."""
    stands_back: bool = False
    """Somebody else sets the size: the wish is only told."""
    budget_workers: int | None = None
    """Workers that the budget pays for; the base is always kept."""
    rise: int | None = None
    """At most so many more in one step."""
    fresh_start: bool = False
    """The scaler has just taken over and has not watched for a stable while: it does not shrink."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done, what was wanted, what stood in the way, and why in one sentence."""

    action: str
    """up, down, hold or halted."""
    wanted: int
    """Change the policy asked for, in workers."""
    applied: int
    """Change made; negative: so many idle workers leave."""
    reason: str
    bound: str = ""
    cost_change_microusd: int = 0
    """Per hour."""
    proposal: Proposal | None = None


def missing(seen: Seen) -> str:
    """The figure without which nothing is decided; empty when all are there."""
    return "queue depth" if seen.queue is None else "list of workers" if seen.ready is None else ""


def wait_s(failures: int) -> float:
    """How long to wait after the last of `failures` failed starts before ordering again."""
    return 0.0 if failures < 1 else min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** (failures - 1))


def decide(seen: Seen, policy: Policy, memory: Memory, limits: Limits = Limits()) -> Decision:
    """One step for one pool. `memory` is changed as the policy wishes."""
    if seen.ready is None and limits.unreachable:
        return Decision("hold", 0, 0, f"The provider cannot be asked, so nothing is changed: {limits.unreachable}"[:290], bound="provider unavailable")
    if lacking := missing(seen):
        return Decision("hold", 0, 0, f"The {lacking} is not known, so nothing is changed.", bound="missing data")
    proposal = policy.decide(seen, memory)
    live = seen.live
    size, why = proposal.wanted, proposal.reason
    if size < seen.base:
        size = seen.base
        if live < seen.base:
            why = f"The pool has {workers(live)} and keeps at least {seen.base:,}."
    change = size - live
    if limits.stands_back:
        return Decision("hold", change, 0, f"{why} Its size is set elsewhere; {workers(size)} is what it is told.", "size set elsewhere", 0, proposal)
    if limits.paused:
        return Decision("hold", change, 0, f"{why} Nothing is changed: {limits.paused}"[:290], "paused", 0, proposal)
    if change > 0:
        return _up(seen, limits, proposal, change, why)
    if live > seen.maximum:
        return _down(seen, limits, proposal, seen.maximum - live, f"The pool has {workers(live)} and may have {seen.maximum:,} at most.")
    if change < 0:
        return _down(seen, limits, proposal, change, why)
    if limits.halted:
        return Decision("halted", 0, 0, _halted(limits), "halted", 0, proposal)
    return Decision("hold", 0, 0, why, "", 0, proposal)


def _up(seen: Seen, limits: Limits, proposal: Proposal, change: int, why: str) -> Decision:
    live, most, bound = seen.live, seen.maximum, f"maximum of {seen.maximum:,}"
    if limits.budget_workers is not None and max(limits.budget_workers, seen.base) < most:
        most, bound = max(limits.budget_workers, seen.base), f"budget for {workers(max(limits.budget_workers, seen.base))}"
    room = most - live
    if room <= 0:
        proposal = replace(proposal, predicted_wait_s=waits.expected_s(seen, live))
        expect = f" Expect waits of about {seconds(proposal.predicted_wait_s)}." if proposal.predicted_wait_s is not None else ""
        stopped = f"{most:,} is the pool's maximum" if bound.startswith("maximum") else f"the budget pays for {most:,}"
        return Decision("hold", change, 0, f"{why} No more are ordered because {stopped}.{expect}", bound, 0, proposal)
    if limits.halted:
        return Decision("halted", change, 0, _halted(limits), "halted", 0, proposal)
    if limits.unreachable:
        return Decision("hold", change, 0, f"{why} Nothing is ordered now: {limits.unreachable}."[:290], "provider unavailable", 0, proposal)
    if limits.start_failures >= FAILURES_TO_HALT:
        reason = (
            f"{limits.start_failures:,} starts in a row failed within {FAILURE_WINDOW_S / 60:g} minutes: workers cannot start, they die or never become ready. "
            "Ordering stops until somebody has read the worker's log and resumed the pool."
        )
        return Decision("halted", change, 0, reason, "crash loop", 0, proposal)
    pause = wait_s(limits.start_failures)
    if limits.last_failure_age_s is not None and 0 <= limits.last_failure_age_s < pause:
        return Decision(
            "hold", change, 0, f"{why} The last start failed, so the next one waits {pause:g} s.", f"waiting {pause:g} s after a failed start", 0, proposal
        )
    applied = min(change, room)
    held = bound if applied < change else ""
    if limits.rise is not None and applied > limits.rise:
        applied, held = max(1, limits.rise), f"at most {limits.rise:,} more in one step"
    if limits.start_failures:
        applied, held = 1, "one at a time until one has become ready"
    if applied < change:
        proposal = replace(proposal, predicted_wait_s=waits.expected_s(seen, live + applied))
    ordered = "one more" if applied == 1 else f"{applied:,} more"
    return Decision("up", change, applied, f"{why} Ordered {ordered}.", held, applied * seen.price_per_hour_microusd, proposal)


def _down(seen: Seen, limits: Limits, proposal: Proposal, change: int, why: str) -> Decision:
    if limits.fresh_start:
        return Decision("hold", change, 0, f"{why} The scaler has just started and watches first.", "just started", 0, proposal)
    leaving = min(-change, len(seen.idle_s))
    if leaving <= 0:
        return Decision("hold", change, 0, f"{why} All are at work or starting, and those are never stopped.", "no idle worker", 0, proposal)
    held = "" if leaving == -change else "no more idle workers"
    said = "One idle worker leaves." if leaving == 1 else f"{leaving:,} idle workers leave."
    return Decision("down", change, -leaving, f"{why} {said}", held, -leaving * seen.price_per_hour_microusd, proposal)


def _halted(limits: Limits) -> str:
    return f"Ordering is stopped: {limits.halted or 'a crash loop was seen.'}"[:290]


def as_inputs(seen: Seen) -> dict[str, Any]:
    """`Seen` as plain JSON, to be stored with the decision."""
    found = asdict(seen)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
