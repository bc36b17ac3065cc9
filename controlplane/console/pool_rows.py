"""A line of the pools table, on the overview and the fleet page."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.console import numbers
from fleet.queries_pools import PoolNow
from fleet.queries_traffic import Times, Traffic

URGENCY = {"halted": 0, "empty": 1, "short": 2, "pool_paused": 3, "pool_starting": 4, "healthy": 5, "zero": 6}


@dataclass(frozen=True, slots=True)
class PoolRow:
    now: PoolNow
    wait_p95: float | None
    spark: list[float]
    jobs: int

    @property
    def busy_share(self) -> float:
        return self.now.busy / self.now.pool.max if self.now.pool.max else 0.0

    @property
    def ready_share(self) -> float | None:
        return self.now.ready / self.now.pool.max if self.now.pool.max and self.now.ready else None

    @property
    def meter_kind(self) -> str:
        return "bad" if self.now.state in ("halted", "empty", "short") else ""

    @property
    def slow(self) -> bool:
        return self.wait_p95 is not None and self.wait_p95 > self.now.pool.target_s

    @property
    def busy_label(self) -> str:
        return f"{self.now.pool.slug}: busy workers of its maximum"

    @property
    def spark_label(self) -> str:
        return f"{self.now.pool.slug}: jobs over the range, {numbers.count(self.jobs)} in all"


def rows(pools: list[PoolNow], traffic: Traffic, waits: Times) -> list[PoolRow]:
    """Most urgent first."""
    found = [PoolRow(p, waits.of(p.pool.id).quantile(0.95), thinned(traffic.line("succeeded", p.pool.id)), traffic.total(p.pool.id).jobs) for p in pools]
    return sorted(found, key=lambda r: (URGENCY[r.now.state], -r.now.queue, r.now.pool.slug))


def thinned(values: list[float], points: int = 24) -> list[float]:
    """The same line in fewer points, by sums, for a sparkline."""
    width = max(1, -(-len(values) // points))
    return [sum(values[i : i + width]) for i in range(0, len(values), width)]
