"""The model stores of live workers for /metrics, from their last heartbeats (`Worker.usage["store"]`, docs/worker-protocol.md).

Counts are those of the workers that live now, so they fall when one leaves: gauges, by pool and by a fixed list of names.
Workers of one host share a store; its bytes count once per pool. What a heartbeat says is taken for numbers only.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from prometheus_client.core import GaugeMetricFamily

from fleet.models import Worker

BYTES = {"used": "used_bytes", "cap": "cap_bytes", "pinned": "pinned_bytes", "partial": "partial_bytes"}
EVENTS = {
    "hit": "hits",
    "miss": "misses",
    "coalesced": "coalesced",
    "evicted": "evictions",
    "corrupt": "corrupt",
    "failed": "failed",
    "fetched_bytes": "fetched_bytes",
    "fetched_seconds": "fetched_s",
}
SILENT = timedelta(minutes=2)
MOST_STORES = 1000


def families(*, now: datetime) -> Iterator[GaugeMetricFamily]:
    """Gauges by pool; none for pools whose workers have no store."""
    heard = Worker.objects.filter(state__in=Worker.LIVE, seen_at__gt=now - SILENT).values_list("pool__slug", "usage").order_by("pool__slug", "-seen_at")
    stores: dict[tuple[str, str], dict[str, Any]] = {}
    sums: dict[str, dict[str, float]] = {}
    waiting: dict[str, float] = {}
    for pool, usage in heard.iterator(chunk_size=500):
        store = usage.get("store") if isinstance(usage, dict) else None
        if not isinstance(store, dict) or not store:
            continue
        if len(stores) < MOST_STORES:
            stores.setdefault((pool, str(store.get("id"))[:64]), store)
        counts = sums.setdefault(pool, dict.fromkeys(EVENTS, 0.0))
        for event, name in EVENTS.items():
            counts[event] += _number(store.get(name))
        waiting[pool] = waiting.get(pool, 0.0) + _number(store.get("waiting"))
    sizes = GaugeMetricFamily("comfyplane_model_store_bytes", "Bytes of the model stores of live workers, each store once", labels=["pool", "kind"])
    events = GaugeMetricFamily("comfyplane_model_store_events", "What live workers' stores did since each worker started", labels=["pool", "event"])
    queue = GaugeMetricFamily("comfyplane_model_store_waiting", "Jobs that wait for a model another process fetches", labels=["pool"])
    for pool in sorted(sums):
        of_pool = [store for (slug, _), store in stores.items() if slug == pool]
        for kind, name in BYTES.items():
            sizes.add_metric([pool, kind], sum(_number(store.get(name)) for store in of_pool))
        for event, value in sums[pool].items():
            events.add_metric([pool, event], value)
        queue.add_metric([pool], waiting[pool])
    yield from (sizes, events, queue)


def _number(value: object) -> float:
    """A plain number of a sane size; anything else is 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 2**63:  # nan is in no range
        return 0.0
    return float(value)
