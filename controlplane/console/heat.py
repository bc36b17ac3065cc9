"""The forecast of a week as a strip of hours: a row a day, each hour coloured by how much of the maximum it needs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from controlplane.console import numbers
from fleet.models import Pool
from fleet.queries_capacity import Ahead

DAYS = 7
LEVELS = (0.25, 0.5, 0.75, 1.0)
"""Shares of the maximum at which the next shade begins; beyond the last one the maximum is too small."""


@dataclass(frozen=True, slots=True)
class Cell:
    """An hour. `level` 0 to 4 is a shade, None is not forecast or past."""

    level: int | None
    label: str
    mark: str = ""
    """Printed where the maximum would not do: the workers needed."""


@dataclass(frozen=True, slots=True)
class Day:
    name: str
    cells: list[Cell]
    peak: str
    over: bool = False
    """Whether some hour needs more than a pool's maximum."""


def strip(pools: Sequence[tuple[Pool, Ahead]], *, now: datetime) -> list[Day]:
    """Days from today on. Nothing when no pool has a forecast."""
    if not pools:
        return []
    first = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return [_day(pools, first + timedelta(days=i), now) for i in range(DAYS)]


def _day(pools: Sequence[tuple[Pool, Ahead]], day: datetime, now: datetime) -> Day:
    cells, most = [], 0.0
    for hour in range(24):
        at = day + timedelta(hours=hour)
        needed = _needed(pools, at, now)
        most = max(most, needed[0] if needed else 0.0)
        cells.append(_cell(needed, at))
    known = any(cell.level is not None for cell in cells)
    over = any(cell.level == len(LEVELS) for cell in cells)
    return Day(f"{day:%a %-d %b}", cells, f"peak {most:.1f}" if known else "not forecast", over)


def _needed(pools: Sequence[tuple[Pool, Ahead]], at: datetime, now: datetime) -> tuple[float, float, list[str]] | None:
    """Workers needed in the hour (its highest step), the largest share of a pool's maximum, and the pools it would not do for."""
    end = at + timedelta(hours=1)
    if end <= now:
        return None
    total, share, short, known = 0.0, 0.0, [], False
    for pool, ahead in pools:
        peak = ahead.peak(start=at, end=end)
        if peak is None:
            continue
        known = True
        total += peak[0]
        mine = peak[0] / pool.max if pool.max else (2.0 if peak[0] > 0 else 0.0)
        share = max(share, mine)
        if mine > 1:
            short.append(pool.slug)
    return (total, share, short) if known else None


def _cell(needed: tuple[float, float, list[str]] | None, at: datetime) -> Cell:
    when = f"{at:%a %-d %b, %H:00} UTC"
    if needed is None:
        return Cell(None, f"{when}: not forecast")
    total, share, short = needed
    level = sum(share > limit for limit in LEVELS)
    why = f"; more than the maximum of {', '.join(short[:3])}" if short else ""
    return Cell(level, f"{when}: {total:.1f} workers, {numbers.pct(share)} of the maximum{why}", f"{total:.0f}" if short else "")
