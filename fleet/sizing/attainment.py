"""What a policy makes of its own record: how many of the jobs it looked after started late, and how careful it should be for that.

The policy sees a pool every few seconds: from the arrivals and the change of the queue it knows how many jobs started since the last
look, and from the age of the oldest waiting job whether those were late. Sums fade over a day. So one set of defaults meets the
target on any workload: where it is met easily the policy grows thrifty, where jobs are late it grows careful (control on the
logarithm of the share of late jobs; nothing is integrated, so nothing winds up). Jobs that were late before the first worker it ordered
could have been ready are no fault of its carefulness, and are not counted against it.
"""

from __future__ import annotations

import math

from fleet.sizing.seen import Memory, Seen

FADE_S = 24 * 3600.0
PRIOR_S = 3 * 3600.0
"""Before anything is known, so many seconds of arrivals count as having been on target."""
PRIOR_LATE = 10.0
"""And at least as many jobs as allow so many late ones: late jobs come in bursts, so one burst of a small pool proves little."""
TAKING_OVER_S = 3600.0
"""After so long the pool is the policy's own doing, even if jobs have been late from its first moment."""
LONGEST_LOOK_S = 300.0
"""A longer pause than this is not judged: what happened in it was not seen."""
THRIFTIEST, MOST_CAREFUL = -2.5, 8.0
USUAL_AIM = 0.5
FIXED = 1.5
UP, UP_MORE, DOWN = 2.0, 3.0, 1.0
"""Late jobs make it careful faster than good ones make it thrifty, and much too many of them out of proportion."""


def note(seen: Seen, memory: Memory) -> None:
    """Count the jobs started since the last look, and those of them that were late, into `memory`."""
    last, now, queue = _number(memory, "at", math.nan), seen.now_s, seen.queue or 0
    since = now - last
    if 0 < since <= LONGEST_LOOK_S:
        started = max(0.0, seen.rate_1m * since + _number(memory, "queue") - queue)
        before, after, target = _number(memory, "oldest_s"), seen.oldest_wait_s, seen.target_s
        low, high = min(before, after), max(before, after)
        share = 1.0 if low > target else 0.0 if high <= target else (high - target) / (high - low)
        kept = 1 - since / FADE_S
        memory["started"] = _number(memory, "started") * kept + started
        memory["late"] = _number(memory, "late") * kept + (started * share if _own(seen, memory, high) else 0.0)
        first = _number(memory, "first", now)
        usual, rate = _number(memory, "rate"), max(seen.rate_1h, seen.rate_10m if now - first < 3600 else 0.0)
        memory["rate"] = usual + (rate - usual) * min(1.0, since / max(3600.0, min(now - first, 4 * 3600.0))) if usual > 0 else rate
    memory.setdefault("first", now)
    memory["at"], memory["queue"], memory["oldest_s"] = now, queue, seen.oldest_wait_s


def _own(seen: Seen, memory: Memory, oldest_s: float) -> bool:
    """Whether late jobs are this policy's own doing: it has had the time to have workers, and the queue it found is gone."""
    if memory.get("own"):
        return True
    passed = seen.now_s - _number(memory, "first", seen.now_s)
    if passed > TAKING_OVER_S or (passed >= seen.cold.p50_s + seen.target_s and oldest_s <= seen.target_s):
        memory["own"] = 1
        return True
    return False


def late_share(memory: Memory) -> float | None:
    """Share of the jobs that started late by its own doing, recently; None when none were seen."""
    started = _number(memory, "started")
    return _number(memory, "late") / started if started >= 1 else None


def caution(seen: Seen, memory: Memory, *, aim: float) -> float:
    """How careful to be: 0 as usual, above it more. `aim` is the share of the allowed late jobs that is made use of."""
    allowed = max(1e-4, 1 - seen.target_share) * max(0.01, aim)
    prior = max(PRIOR_S * _number(memory, "rate"), PRIOR_LATE / max(1e-4, 1 - seen.target_share))
    share = (_number(memory, "late") + prior * allowed) / (_number(memory, "started") + prior)
    off = math.log(share / allowed) if share > 0 else THRIFTIEST
    return max(THRIFTIEST, min(MOST_CAREFUL, off * (UP + UP_MORE * off if off > 0 else DOWN)))


def unlearned(aim: float) -> float:
    """How careful to be when nothing is to be learned: 0 at the usual aim."""
    return max(THRIFTIEST, min(MOST_CAREFUL, FIXED * math.log(USUAL_AIM / max(1e-4, aim))))


def _number(memory: Memory, name: str, otherwise: float = 0.0) -> float:
    found = memory.get(name, otherwise)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found) else otherwise
