"""Rows for the tests of the console's own pages: a busy fleet, and ways to look at a page."""

from __future__ import annotations

import csv
import io
from datetime import timedelta

from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing.models import Account
from billing.quotas import period_of
from controlplane.kernel import audit
from fleet import rollups
from fleet.models import ScalingDecision
from tests import factories
from tests.controlplane import work_rows

MOST_QUERIES, MOST_BYTES = 15, 120_000
LONG = "a-name-that-goes-on-and-on-and-on-and-on-and-on-and-on-ab"
XSS = work_rows.XSS


def look(client, url, *, status=200, most=MOST_QUERIES, **headers):
    """The page's HTML, within the budget of queries and bytes."""
    with CaptureQueriesContext(connection) as queries:
        response = client.get(url, headers=headers or None)
        html = response.content.decode()
    assert response.status_code == status, html[:300]
    assert len(queries) <= most, [q["sql"][:140] for q in queries]
    assert len(html) < MOST_BYTES
    return html


def read_csv(response):
    assert response.status_code == 200
    return list(csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode())))


def decision(pool, *, now, action="up", applied=1, **fields):
    values = {"policy": "seed-rule", "wanted": applied, "reason": "9 jobs wait for 4 workers.", "outcome": "w-1 was ordered.", "epoch": 1}
    values |= {"inputs": {"queue": 9, "workers": [{"id": "a", "state": "busy", "idle_s": None}]}, "cost_change_microusd": applied * 860_000}
    return ScalingDecision.objects.create(pool=pool, at=now, last_seen_at=now, action=action, applied=applied, **(values | fields))


def spent(customer, microusd, *, now):
    Account.objects.filter(customer=customer).update(settled_microusd=microusd, period=period_of(now))


def busy_world(now, *, jobs=12, name="l40s-image", customer="harbor"):
    """A pool with workers, a customer, jobs that ended well and badly, rollups, decisions and an audit entry."""
    pool = factories.make_pool(now=now - timedelta(days=3), slug=name, base=1, max=8)
    factories.make_worker(pool, now=now - timedelta(hours=3))
    worker = factories.make_worker(pool, now=now - timedelta(hours=2), usage={"vram_used_bytes": 10**10, "vram_total_bytes": 48 * 10**9})
    who = factories.make_customer(now=now - timedelta(days=20), slug=customer)
    made = work_rows.workflow(now=now, slug="product-shot", pool=pool)
    for i in range(jobs):
        status = "failed" if i % 4 == 3 else "succeeded"
        work_rows.job(who, made, now=now, status=status, worker=worker, created=now - timedelta(minutes=5 + 7 * i))
    rollups.recompute(now=now, since=now - timedelta(hours=23))
    decision(pool, now=now - timedelta(minutes=30))
    decision(pool, now=now - timedelta(minutes=20), action="down", applied=-1)
    decision(pool, now=now - timedelta(minutes=10), action="hold", applied=0, wanted=1, bound="maximum of 8", reason="Held at the maximum.")
    audit.record(actor="lena", action="pool.change", object_type="pool", object_id=pool.slug, before={"max": 6}, after={"max": 8}, reason="Friday", now=now)
    return pool, worker, who, made
