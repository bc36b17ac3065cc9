"""What else could have been done at a decision, with its cost and the wait to expect, from the figures stored with it. Pure.

The wait is worked out as the default policy does it (`waits.expected_s`), whatever policy decided: an estimate to compare sizes with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from fleet.sizing import waits
from fleet.sizing.seen import ColdStart, JobTime, Seen


@dataclass(frozen=True, slots=True)
class Alternative:
    """A size that could have been chosen."""

    label: str
    workers: int
    cost_per_hour_microusd: int
    wait_s: float | None
    """That all jobs but the share the target lets be late stay under; None when no job had been measured."""
    chosen: bool = False


def of_inputs(inputs: Mapping[str, Any]) -> Seen | None:
    """The `Seen` that was stored with a decision; None when it is not one (older rows) or a figure was missing."""
    if inputs.get("queue") is None or inputs.get("ready") is None or "now_s" not in inputs:
        return None
    known = {f.name for f in fields(Seen)}
    values: dict[str, Any] = {name: value for name, value in inputs.items() if name in known and name != "planned"}
    try:
        for name, kind in (("job", JobTime), ("cold", ColdStart)):
            part = inputs.get(name)
            own = {f.name for f in fields(kind)}
            figures: dict[str, Any] = {k: float(v) for k, v in part.items() if k in own} if isinstance(part, Mapping) else {}
            values[name] = kind(**figures)
        for name in ("coming_s", "idle_s"):
            values[name] = tuple(float(s) for s in inputs.get(name) or ())
        for name in ("queue", "ready", "busy", "base", "maximum", "price_per_hour_microusd"):
            if name in values:
                values[name] = int(values[name])
        seen = Seen(**values)
        math.fsum([seen.now_s, seen.queue_work_s or 0.0, seen.rate_1m, seen.rate_5m, seen.target_s, seen.target_share])
    except (TypeError, ValueError, OverflowError):
        return None
    return seen


def around(seen: Seen, *, applied: int) -> list[Alternative]:
    """One fewer, as decided, one more, and the maximum; sizes that are the same only once."""
    size = seen.live + applied
    decided = "As decided, the maximum" if size == seen.maximum else "As decided"
    more = "One more, above the maximum" if size + 1 > seen.maximum else "One more"
    wanted = [("One fewer", size - 1), (decided, size), (more, size + 1), ("The maximum", seen.maximum)]
    found: list[Alternative] = []
    for label, workers in wanted:
        if workers < 0 or any(a.workers == workers for a in found):
            continue
        found.append(Alternative(label, workers, workers * seen.price_per_hour_microusd, waits.expected_s(seen, workers), chosen=workers == size))
    return found
