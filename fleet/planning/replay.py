"""What changed terms would have done on a pool's own history: shown before they are saved."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from controlplane.kernel.errors import Invalid
from fleet import history, pools
from fleet.models import Pool
from fleet.planning.comparing import Replay, compare
from fleet.planning.playing import Terms, play

LONGEST_H = 24 * 14


def of_pool(pool: Pool, changes: Mapping[str, Any], *, hours: float = 24, now: datetime) -> Replay:
    """`pool` under `changes` (names of `pools.TERMS`) against the terms in force, over the last `hours`. Saves nothing. Raises Invalid."""
    if not 0.25 <= hours <= LONGEST_H:
        raise Invalid("hours_invalid", f"A replay covers 0.25 to {LONGEST_H} hours.", "24 is the usual stretch.", details={"field": "hours"})
    trial = pools.checked(pool, changes)
    before, after = terms_of(pool), terms_of(trial)
    began = time.perf_counter()
    start = max(now - timedelta(hours=hours), min(pool.created_at, now - timedelta(minutes=15)))
    came = history.of_pool(pool, start=start, end=now, now=now)
    one = play(before, came)
    other = one if after == before else play(after, came)
    return compare(one, other, terms=after, history=came, took_s=time.perf_counter() - began)


def terms_of(pool: Pool) -> Terms:
    """What of a pool the simulator reads."""
    price, budget = pool.price_per_hour_microusd, pool.budget_per_hour_microusd
    return Terms(
        policy=pool.policy,
        base=pool.base,
        maximum=pool.max,
        knobs=pool.knobs,
        target_s=pool.target_s,
        target_share=pool.target_share,
        price_per_hour_microusd=price,
        budget_workers=budget // price if budget is not None and price > 0 else None,
    )
