"""What announced demand asks for before it is there: a batch, an event with more jobs than usual, or so many workers. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.sizing.seen import Seen
from fleet.sizing.words import jobs, seconds, workers

REVIEW_S = 30.0
"""Orders are given this much before the latest moment: two ticks, so that one may be missed."""
TAKES_OVER_S = 60.0
"""So long after it began, measured arrivals speak for an event."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """Announced demand that workers ordered now would be in time for."""

    work_s: float = 0.0
    """Seconds of one worker that will have arrived by then, beside what waits."""
    offered: float = 0.0
    """Workers' worth of work that then arrives steadily, beside what is measured."""
    factor: float = 1.0
    """Times as many jobs as measured now."""
    workers: int = 0
    why: str = ""


def of(seen: Seen) -> Ahead:
    """What of `seen.planned` has to be ordered for now. Several announcements add up, except for factors and workers: the largest counts."""
    lead = seen.cold.p90_s + REVIEW_S
    work = offered = 0.0
    factor, floor, why = 1.0, 0, ""
    for one in seen.planned:
        if one.starts_in_s > lead or one.ends_in_s <= 0:
            continue
        coming = one.starts_in_s > -TAKES_OVER_S
        if one.workers > floor:
            floor, why = one.workers, f"{workers(one.workers)} are announced to be needed {_when(one.starts_in_s)}."
        if not coming:
            continue
        if one.factor > factor:
            factor, why = one.factor, f"{one.factor:g} times the usual jobs are announced {_when(one.starts_in_s)}."
        if one.work_s > 0 or one.jobs > 0:
            total = one.work_s or one.jobs * seen.job.mean_s
            length = one.ends_in_s - one.starts_in_s
            if length > lead:
                offered += total / length
            else:
                # What has arrived already waits or has run: it is no longer ahead.
                there = seen.waiting_work_s if one.starts_in_s <= 0 else 0.0
                work += max(0.0, total - there)
            why = f"{jobs(one.jobs, 'is', 'are') if one.jobs else 'Work is'} announced {_when(one.starts_in_s)}."
    return Ahead(work, offered, factor, floor, why)


def _when(starts_in_s: float) -> str:
    return f"in {seconds(starts_in_s)}" if starts_in_s > 0 else "now"
