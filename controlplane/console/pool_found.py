"""The pool an address names, and the time range of its pages."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.http import Http404, HttpRequest

from controlplane.console import ranges
from fleet import queries_pools
from fleet.models import Pool
from fleet.queries_pools import PoolNow

YOUNG = ((timedelta(minutes=12), "15m"), (timedelta(hours=1), "1h"), (timedelta(hours=6), "6h"))


def found(slug: str, *, now: datetime, request: HttpRequest | None = None) -> PoolNow:
    """The pool as it stands, or 404."""
    here = queries_pools.one(slug, now=now)
    if here is None:
        raise Http404(f"There is no pool called {slug}.")
    if request is not None:
        request.halted_pools = here.pool.halted_pools  # type: ignore[attr-defined]
    return here


def span_of(request: HttpRequest, pool: Pool, now: datetime) -> ranges.Range:
    """The page's range; a pool younger than the usual one is looked at closer."""
    default = next((text for age, text in YOUNG if now - pool.created_at < age), "12h")
    span = ranges.parse(request.GET, now=now, default=default)
    return ranges.with_ahead(span, request.GET, default="6h" if span.seconds >= 6 * 3600 else "1h")


def plain(slug: str) -> Pool:
    """The row alone, or 404."""
    pool = Pool.objects.filter(slug=slug).first()
    if pool is None:
        raise Http404(f"There is no pool called {slug}.")
    return pool
