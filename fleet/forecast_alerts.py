"""What a forecast warns of: days on which the pool's maximum is reached, and the week in which growth gets there. A forecast in, sentences out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fleet import costs
from fleet.models import Forecast, Pool

MOST = 7


@dataclass(frozen=True, slots=True)
class Alert:
    """One warning. Workers are what the wait target needs at the 10th and 90th percentile of the forecast."""

    kind: str
    """`maximum`: the middle of the forecast needs more than the maximum; `range`: only its upper edge; `growth`: weeks from now."""
    at: datetime
    message: str
    low: int = 0
    high: int = 0
    raise_to: int = 0
    cost_microusd: int = 0
    unpriced: str = ""
    """The message for who does not see money; empty when it names none."""

    def shown(self, *, money_shown: bool) -> Alert:
        """The same for somebody who sees money, or does not."""
        return self if money_shown or not self.unpriced else replace(self, message=self.unpriced, cost_microusd=0)


def of(pool: Pool, row: Forecast | None, *, now: datetime) -> list[Alert]:
    """The warnings of a forecast, the next first. None of one that is not fresh, or whose error is too large for that."""
    from fleet.forecasting import reach

    if row is None or not sure(row) or not isinstance(row.points, list) or not isinstance(row.plan, dict):
        return []
    job_s = float(row.plan.get("job_s") or 0.0) or 30.0
    skip = max(0, int((now - row.starts_at).total_seconds() // row.step_s))
    points = row.points[skip:]
    if not points:
        return []
    begin = row.starts_at.astimezone(UTC) + timedelta(seconds=skip * row.step_s)
    offset = (begin - begin.replace(hour=0, minute=0, second=0)).total_seconds()
    target: dict[str, Any] = {"job_s": job_s, "target_s": pool.target_s, "target_share": pool.target_share}
    found = []
    for day in reach.days(points, step_s=row.step_s, offset_s=offset, maximum=pool.max, **target)[:MOST]:
        peak = begin + timedelta(seconds=day.step * row.step_s)
        more = costs.of_seconds(pool.price_per_hour_microusd, day.extra_hours * 3600)
        verb = "Maximum reached" if day.sure else "Maximum may be reached"
        cost = f"costs about {_usd(more)} more on that day" if pool.price_per_hour_microusd else "costs nothing that is priced"
        said = f"{verb} on {peak:%A %H:%M} ({day.low:,}–{day.high:,} workers)"
        message, unpriced = f"{said}, raising it to {day.raise_to:,} {cost}.", f"{said}; {day.raise_to:,} would do."
        found.append(Alert("maximum" if day.sure else "range", peak, message, day.low, day.high, day.raise_to, more, unpriced))
    if not any(alert.kind == "maximum" for alert in found):
        found += _growing(pool, row, target, now=now)
    return found


def sure(row: Forecast) -> bool:
    """Whether the forecast's error is small enough to warn by it; one that may draw a floor by its record need not be."""
    said = row.backtest.get("sure") if isinstance(row.backtest, dict) else None
    return row.usable if said is None else bool(said)


def _growing(pool: Pool, row: Forecast, target: dict[str, Any], *, now: datetime) -> list[Alert]:
    from fleet.forecasting import reach

    growth = row.plan.get("growth")
    if not isinstance(growth, dict):
        return []
    grown = reach.Growth(float(growth["weekly"]), float(growth["low"]), float(growth["high"]), int(growth["weeks"]))
    peak = max((float(point[0]) for point in row.points if point), default=0.0)
    ahead = reach.weeks_until(peak, grown, maximum=pool.max, **target)
    if ahead is None:
        return []
    middle, early, late = ahead
    at = now + timedelta(weeks=middle)
    when = f"in about {middle} week{'s' if middle > 1 else ''}, around {at:%d %b}"
    span = f"between {early} and {late} weeks from now" if late is not None else f"not before {early} week{'s' if early > 1 else ''} from now"
    message = f"Demand grew {grown.weekly:.0%} a week over {grown.weeks} weeks: the maximum of {pool.max:,} is reached {when} ({span})."
    return [Alert("growth", at, message)]


def _usd(microusd: int) -> str:
    dollars = microusd / 1_000_000
    return f"${dollars:,.0f}" if dollars >= 10 else f"${dollars:,.2f}"
