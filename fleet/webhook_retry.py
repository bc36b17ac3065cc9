"""When to try a webhook again: the schedule that Standard Webhooks recommends. Pure; the caller brings the jitter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MINUTE, HOUR = 60.0, 3600.0
SCHEDULE_S = (5.0, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR)
SPREAD = 0.1
LONGEST_S = 24 * HOUR


@dataclass(frozen=True)
class Decision:
    """What becomes of a message after an attempt."""

    then: Literal["done", "retry", "dead"]
    delay_s: float = 0.0


def decide(*, attempt: int, status: int | None, jitter: float, retry_after_s: float | None = None) -> Decision:
    """`attempt` counts from 1; `status` is None when there was no answer; `jitter` in [0, 1] spreads retries by a tenth either way."""
    if status is not None and 200 <= status < 300:
        return Decision("done")
    if status == 410 or attempt > len(SCHEDULE_S):
        return Decision("dead")
    delay_s = SCHEDULE_S[attempt - 1] * (1 + SPREAD * (2 * jitter - 1))
    if status in (429, 503) and retry_after_s is not None:
        delay_s = max(delay_s, min(retry_after_s, LONGEST_S))
    return Decision("retry", delay_s)
