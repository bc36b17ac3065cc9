"""What else could have been done at a decision, with its cost and the wait to expect, from the figures stored with it. Pure.

The wait is that of the job which comes last in the queue as it was: the work ahead of it over the workers, the ones still starting
counted from when they are ready, plus the wait at steady load (Sakasegawa's approximation of M/G/c, which needs only mean and
variation). It is an estimate to compare sizes with, not a promise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from fleet.sizing.seen import ColdStart, JobTime, Seen


@dataclass(frozen=True, slots=True)
class Alternative:
    """A size that could have been chosen."""

    label: str
    workers: int
    cost_per_hour_microusd: int
    wait_s: float | None
    """None: the queue would grow for as long as jobs come like this."""
    chosen: bool = False


def of_inputs(inputs: Mapping[str, Any]) -> Seen | None:
    """The `Seen` that was stored with a decision; None when it is not one (older rows) or a figure was missing."""
    if inputs.get("queue") is None or inputs.get("ready") is None or "now_s" not in inputs:
        return None
    known = {f.name for f in fields(Seen)}
    values: dict[str, Any] = {name: value for name, value in inputs.items() if name in known and name != "planned"}
    for name, kind in (("job", JobTime), ("cold", ColdStart)):
        part = inputs.get(name)
        own = {f.name for f in fields(kind)}
        values[name] = kind(**{k: v for k, v in part.items() if k in own}) if isinstance(part, Mapping) else kind()
    for name in ("coming_s", "idle_s"):
        values[name] = tuple(inputs.get(name) or ())
    try:
        seen = Seen(**values)
        math.fsum([seen.now_s, seen.queue or 0, seen.ready or 0, seen.rate_5m, seen.job.mean_s, seen.cold.p50_s, seen.price_per_hour_microusd, seen.maximum])
    except TypeError:
        return None
    return seen


def around(seen: Seen, *, applied: int) -> list[Alternative]:
    """One fewer, as decided, one more, and the maximum; sizes that are the same only once."""
    size = seen.live + applied
    wanted = [("One fewer", size - 1), ("As decided", size), ("One more", size + 1), ("The maximum", seen.maximum)]
    found: list[Alternative] = []
    for label, workers in wanted:
        if workers < 0 or any(a.workers == workers for a in found):
            continue
        found.append(Alternative(label, workers, workers * seen.price_per_hour_microusd, wait_s(seen, workers), chosen=workers == size))
    return found


def wait_s(seen: Seen, workers: int) -> float | None:
    """Seconds the job that came last would wait with `workers`; None when they could never keep up."""
    offered = max(seen.rate_5m, seen.rate_1m) * seen.job.mean_s
    if workers <= 0:
        return None if seen.queue or offered > 0 else 0.0
    backlog = _backlog_s(seen, workers)
    steady = _steady_s(offered, workers, seen.job)
    if steady is None:
        # More comes than is done: the queue grows. Over one target's time, so much is added to it.
        return None if offered >= workers else backlog
    return backlog + steady


def _backlog_s(seen: Seen, workers: int) -> float:
    """Seconds until the work that waits is taken up, by the ready ones now and the others as they become ready."""
    ready = min(seen.ready or 0, workers)
    work = seen.waiting_work_s
    if work <= 0:
        return 0.0
    left = [max(0.0, seen.cold.p50_s - s) for s in seen.coming_s[: max(0, workers - ready)]]
    joins = sorted([*left, *([seen.cold.p50_s] * max(0, workers - ready - len(left)))])
    at, done = 0.0, 0.0
    for join in joins:
        if ready and done + ready * (join - at) >= work:
            break
        done += ready * (join - at)
        at, ready = join, ready + 1
    return at + (work - done) / ready if ready else at


def _steady_s(offered: float, workers: int, job: JobTime) -> float | None:
    """Mean wait in an M/G/c queue (Sakasegawa 1977); None at or beyond full load."""
    load = offered / workers
    if load >= 1:
        return None
    if load <= 0:
        return 0.0
    return (1 + job.cv2) / 2 * load ** (math.sqrt(2 * (workers + 1)) - 1) / (workers * (1 - load)) * job.mean_s
