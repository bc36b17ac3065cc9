"""The wait to be expected of a size: what a decision promises, and what a bound costs in waiting. Pure."""

from __future__ import annotations

import math

from fleet.sizing import erlang
from fleet.sizing.seen import Seen

LONGEST_S = 6 * 3600.0
PILING_S = 300.0


def expected_s(seen: Seen, size: int, *, late: float | None = None) -> float | None:
    """Wait in seconds that all but the share `late` of the jobs stay under with `size` workers; None when no job has been measured.

    What waits now is served in turn; beyond it the long run decides, and where more work arrives than `size` workers do, what piles up
    in five minutes more. Six hours stand for anything longer.
    """
    if seen.job.samples <= 0 or seen.queue is None:
        return None
    if size <= 0:
        return 0.0 if not seen.queue and seen.rate_5m <= 0 else LONGEST_S
    allowed = max(1e-4, 1 - seen.target_share if late is None else late)
    offered = seen.rate_5m * seen.job.mean_s
    piled = seen.waiting_work_s / size
    if size < seen.live or not seen.coming:
        starting = 0.0
    else:
        starting = max(0.0, seen.cold.p50_s - seen.coming_s[0]) if not seen.ready else 0.0
    if not seen.ready and not seen.coming:
        starting = seen.cold.p50_s
    # Close to what can just be done the long run is too long to come true: one worker more than that speaks for it.
    steady = min(erlang.wait_s(size, offered, job=seen.job, late=allowed), math.log(1 / allowed) * erlang.spread_s(seen.job))
    if offered > size:
        steady += (offered - size) / size * PILING_S
    return min(LONGEST_S, max(steady, piled + starting))
