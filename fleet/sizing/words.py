"""Counts in words, for reasons."""

from __future__ import annotations


def workers(count: int) -> str:
    """no worker, 1 worker, 12 workers."""
    return {0: "no worker", 1: "1 worker"}.get(count, f"{count:,} workers")


def jobs(count: int, one: str = "waits", many: str = "wait") -> str:
    """No job waits, 1 job waits, 12 jobs wait."""
    return {0: f"No job {one}", 1: f"1 job {one}"}.get(count, f"{count:,} jobs {many}")


def seconds(value: float) -> str:
    """8 s, 4m 10s, 2h 05m."""
    whole = round(value)
    if whole < 90:
        return f"{whole} s"
    if whole < 5400:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def share(value: float) -> str:
    """99 %, 99.9 %, 95 %."""
    return f"{value * 100:.4g}%"
