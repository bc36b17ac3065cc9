"""How long jobs wait for one of `c` workers in the long run: Erlang's delay formula, with the spread of job times allowed for.

P(wait > t) = C(c, a) exp(-(c - a) t / (s (1 + cv2) / 2)), where a is the work offered in workers, C the probability of waiting at
all (Erlang 1917, by the recursion of his loss formula, which neither overflows nor needs factorials), and the last factor the usual
two-moment scaling of M/G/c waits (Lee and Longton 1959).
"""

from __future__ import annotations

import math
from functools import lru_cache

from fleet.sizing.seen import JobTime


def delay(servers: int, offered: float) -> float:
    """Share of the jobs that wait at all for one of so many workers; 1.0 when more work is offered than they can do."""
    if offered <= 0:
        return 0.0
    if servers <= offered:
        return 1.0
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = offered * blocked / (n + offered * blocked)
    return servers * blocked / (servers - offered * (1 - blocked))


def spread_s(job: JobTime) -> float:
    """Seconds that scale the tail of the wait."""
    return max(1e-6, job.mean_s * (1 + job.cv2) / 2)


def size(offered: float, *, job: JobTime, wait_s: float, late: float, most: int) -> int:
    """Fewest workers with which at most the share `late` of the jobs waits longer than `wait_s`; `most` when that is not enough.

    Offered work is rounded to three digits, so that answers can be kept.
    """
    if offered <= 0 or most <= 0:
        return 0
    return _size(float(f"{offered:.3g}"), float(f"{max(0.0, wait_s) / spread_s(job):.3g}"), late, most)


@lru_cache(maxsize=8192)
def _size(offered: float, spreads: float, late: float, most: int) -> int:
    blocked = 1.0
    for n in range(1, most + 1):
        blocked = offered * blocked / (n + offered * blocked)
        if n > offered and n * blocked / (n - offered * (1 - blocked)) * math.exp(-(n - offered) * spreads) <= late:
            return n
    return most


def wait_s(servers: int, offered: float, *, job: JobTime, late: float) -> float:
    """Wait that all but the share `late` stay under in the long run; infinite when more work is offered than can be done."""
    waiting = delay(servers, offered)
    if waiting <= late:
        return 0.0
    if servers <= offered:
        return math.inf
    return math.log(waiting / late) * spread_s(job) / (servers - offered)
