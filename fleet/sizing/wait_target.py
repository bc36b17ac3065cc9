"""The default: enough workers that the stated share of jobs starts within the target, from what jobs and starts really take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from fleet.sizing import announced, attainment, erlang, waits
from fleet.sizing.seen import Memory, Proposal, Seen
from fleet.sizing.words import jobs, seconds, share, workers

REVIEW_S = 7.5
"""Half a tick: an order waits so long on average before it is given."""
TREND = 0.6
"""How far the work expected during a start is believed, against the queue that is there."""
SHORTEST_HOLD_S = 60.0
TOO_FEW = 1.5
"""Swings of the demand by which a size must be too small before a start is worth it; the queue itself says so earlier."""
USUAL_START_S = 90.0
"""Where starts take longer, fewer jobs are given to a worker: what is ordered comes late for them."""
MOST = 4
"""Sizes up to so many times the maximum are worked out, to say what would be needed."""


@dataclass(frozen=True, slots=True)
class WaitTarget:
    """Sizes to the wait target: offered work by Erlang's formula with room for its swings, and whatever would still wait when a new
    worker became ready, cleared within the target, with never more jobs to a worker than one gets through. Learns from its own late
    jobs how careful to be. A worker is kept idle for about as long as starting another would cost."""

    name: ClassVar[str] = "wait-target"
    aim: float = attainment.USUAL_AIM
    """Share of the late jobs that the target allows which it makes use of: less is dearer and safer."""
    spare: float = 0.0
    """Workers kept beyond what is worked out."""
    hold_s: float = 0.0
    """Seconds that less must have been needed before workers leave; 0: four fifths of a cold start, a minute at least."""
    window_s: float = 300.0
    """Seconds of past arrivals that are believed to go on: 60, 300, 600 or 3,600 is used, whichever reaches as far."""
    learn: float = 1.0
    """1: the share of late jobs moves how careful it is; 0: `aim` alone says that, once and for all."""

    def decide(self, seen: Seen, memory: Memory) -> Proposal:
        attainment.note(seen, memory)
        care = attainment.caution(seen, memory, aim=self.aim) if self.learn else attainment.unlearned(self.aim)
        need, keep, terms, why, rule = self._needs(seen, care)
        most_needed = self._most_needed(seen, memory, keep)
        live, allowed = seen.live, 1 - seen.target_share
        terms = {**terms, "caution": care, "most_needed": most_needed}
        late = attainment.late_share(memory)
        if late is not None:
            terms["late_share"] = late
        if need > live:
            return Proposal(need, why, rule, terms, waits.expected_s(seen, need, late=allowed))
        size = max(seen.base, most_needed, seen.busy)
        if size < live:
            said = f"{workers(size)} would do, and no more were needed for {seconds(self._hold_s(seen))}, about what another start would cost."
            return Proposal(size, said, "idle", terms, waits.expected_s(seen, size, late=allowed))
        waiting = (
            f"{jobs(seen.queue)} for {workers(live)}"
            if seen.queue
            else f"No job waits and {seen.busy:,} of {workers(live)} {'is' if 1 in (seen.busy, live) else 'are'} busy"
        )
        booting = f", {seen.coming:,} of them still starting" if seen.coming else ""
        return Proposal(live, f"{waiting}{booting}: {_enough(seen, most_needed)}.", "steady", terms, waits.expected_s(seen, live, late=allowed))

    def _needs(self, seen: Seen, care: float) -> tuple[int, int, dict[str, float], str, str]:
        """Workers to have now, workers not to go below, the figures behind both, and why in a sentence."""
        target, cold, mean = max(seen.target_s, 1.0), seen.cold.p50_s, seen.job.mean_s
        horizon = cold + REVIEW_S
        allowed = max(1e-4, 1 - seen.target_share)
        ahead = announced.of(seen)
        usual = self._rate(seen)
        quick = max(seen.rate_1m, usual) * mean * ahead.factor + ahead.offered
        offered = (max(seen.rate_1m, usual) + usual) / 2 * mean * ahead.factor + ahead.offered
        # Demand can swing while a start lasts; the longer that is against the target, the more room it needs. The wait itself is a
        # buffer, so a short start needs less than the offered work in hand.
        room = -0.45 + 0.2 * min(4.0, cold / target) * min(1.2, math.log10(1 / allowed) / 2) + 0.35 * care
        swing = math.sqrt(offered)
        planned = max(0.0, offered + room * (0.5 * offered + swing))
        late, most = max(0.01, allowed), MOST * max(seen.maximum, 1)
        steady = erlang.size(planned, job=seen.job, wait_s=target, late=late, most=most)
        firm = steady if erlang.size(max(0.0, planned - TOO_FEW * swing), job=seen.job, wait_s=target, late=late, most=most) > seen.live else 0
        done = (seen.ready or 0) * horizon + sum(max(0.0, horizon - max(0.0, cold - age)) for age in seen.coming_s)
        left = max(0.0, seen.waiting_work_s + TREND * (quick * horizon - done))
        left += ahead.work_s  # what is done before a batch is there does not shorten it
        # The last of the jobs left must start within the target: the others of its worker take that long, and it adds its own.
        clear_s = (0.38 * target + 0.6 * mean) * min(2.2, max(0.25, math.exp(-0.25 * care)))
        # Long jobs pass a worker on seldom: what one gets through while a job may wait bounds how many are given to it.
        each = 1 + 0.6 * target / mean * min(1.0, USUAL_START_S / max(1.0, cold)) * math.exp(-0.4 * care) if mean > 0 else math.inf
        inside = (seen.queue or 0) + seen.busy
        clear, shared = min(1_000_000, math.ceil(left / clear_s)), min(1_000_000, math.ceil(inside / each))
        spare = round(self.spare)
        floor = max(seen.base, ahead.workers)
        keep = max(floor, steady + spare, clear + spare, shared + spare)
        orders = ((firm, "steady"), (clear if clear > seen.live else 0, "backlog"), (shared if shared > seen.live else 0, "long jobs"))
        need, rule = max(*((size + spare if size else 0, name) for size, name in orders), (floor, "floor"))
        if seen.queue and seen.live < 1 and need < 1:
            need, rule = 1, "first"
        terms = {"offered": offered, "steady": steady, "backlog": clear, "shared": shared, "left_s": left, "horizon_s": horizon, "cold_s": cold, "job_s": mean}
        if ahead.why and need > seen.live and need > (firm if not ahead.work_s and not ahead.offered else 0):
            return need, keep, terms, f"{ahead.why} {workers(need)} are needed for it.", "announced"
        return need, keep, terms, _why(seen, rule, need, offered, left, each), rule

    def _rate(self, seen: Seen) -> float:
        """Jobs a second over the window."""
        if self.window_s <= 300:
            return seen.rate_1m if self.window_s <= 60 else seen.rate_5m
        return seen.rate_10m if self.window_s <= 600 else seen.rate_1h

    def _hold_s(self, seen: Seen) -> float:
        return self.hold_s or max(SHORTEST_HOLD_S, 0.8 * seen.cold.p50_s)

    def _most_needed(self, seen: Seen, memory: Memory, keep: int) -> int:
        """The most that was needed within the hold, this moment included."""
        since = seen.now_s - self._hold_s(seen)
        past = [[at, size] for at, size in memory.get("needs", ()) if since < at <= seen.now_s]
        while past and past[-1][1] <= keep:  # it can never be the most again
            past.pop()
        past.append([seen.now_s, keep])
        memory["needs"] = past
        return int(past[0][1])


def _why(seen: Seen, rule: str, need: int, offered: float, left: float, each: float) -> str:
    goal = f"{share(seen.target_share)} of the jobs within {seconds(seen.target_s)}"
    if rule == "backlog":
        waiting = jobs(seen.queue or 0)
        then = f"{seconds(left)} of work would be left when a new worker is ready, {seconds(seen.cold.p50_s)} from now"
        return f"{waiting}, and {then}: {goal} takes {workers(need)}."
    if rule == "long jobs":
        inside = jobs((seen.queue or 0) + seen.busy, "waits or runs", "wait or run")
        return f"{inside} at {seconds(seen.job.mean_s)} each, and a worker gets through {each:.1f} while a job may wait: {goal} takes {workers(need)}."
    if rule == "first":
        return f"{jobs(seen.queue or 0)} and there is no worker."
    if rule == "floor":
        return f"The pool keeps at least {workers(need)}."
    return f"Arriving jobs keep {offered:.1f} workers busy at {seconds(seen.job.mean_s)} each: {goal} takes {workers(need)}."


def _enough(seen: Seen, needed: int) -> str:
    live = seen.live
    if needed > live:
        return f"the work of the last minutes asks for {workers(needed)}, too few more to be worth a start"
    if needed == live:
        return "just what is needed"
    return f"{workers(needed)} would do, but those at work and starting are never stopped"
