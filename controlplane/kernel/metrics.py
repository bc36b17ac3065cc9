"""Process metrics (request durations). State gauges are read from the database at scrape time by their own rooms."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Histogram, multiprocess

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

api_request_duration = Histogram("api_request_duration_seconds", "Duration of HTTP requests by route", ["method", "route", "status"], buckets=_BUCKETS)


def observe_request(*, route: str, method: str, status: int, seconds: float) -> None:
    """Count one request. Labels are bounded: the route's pattern, a known method, the status class."""
    method = method if method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH") else "other"
    api_request_duration.labels(method, route, f"{status // 100}xx").observe(seconds)


def process_registry() -> CollectorRegistry:
    """The registry of this process, or of all web processes when PROMETHEUS_MULTIPROC_DIR is set."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        return registry
    registry = CollectorRegistry()
    registry.register(api_request_duration)
    return registry
