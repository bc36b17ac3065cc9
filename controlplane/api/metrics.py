"""/metrics in Prometheus' text form: request durations of this process, and the state of the whole read from the database at scrape time.

Counters of jobs come from minute rollups and begin anew at midnight UTC (Prometheus takes that for a restart), so every
process says the same and a scrape reads a bounded number of rows. Labels are bounded: workflows past the first
`MOST_WORKFLOWS` are one. Read from this machine with no proxy between, or with METRICS_TOKEN.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock

from django.conf import settings
from django.db.models import Count, Min
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from builds.models import Version
from controlplane.api import fleet_metrics, model_stores
from controlplane.kernel import envelope, metrics
from controlplane.kernel.errors import Forbidden
from controlplane.kernel.models import LoopLease, OutboxEntry
from controlplane.kernel.stats import Histogram
from fleet import queries_smoke, reconcile
from fleet.models import Job, MinuteRollup, Pool, Worker

MOST_WORKFLOWS = 200
OTHER = "other"
STATUSES = ("succeeded", "failed", "canceled", "expired")
BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
# Rollups younger than this may still be written over.
SETTLES = timedelta(minutes=15)
_FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP")


@require_safe
def view(request: HttpRequest) -> HttpResponse:
    """Everything there is to scrape."""
    if not allowed(request):
        return envelope.render(
            Forbidden(
                "metrics_not_allowed",
                "Metrics are read from the web process itself, or with the metrics token.",
                "Send 'Authorization: Bearer <token>'; it is METRICS_TOKEN, or kept in DATA_DIR/secrets/metrics_token.",
            ),
            request,
        )
    registry = metrics.process_registry()
    registry.register(State(now=timezone.now()))
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"})


def allowed(request: HttpRequest) -> bool:
    """Whether the caller has the token, or sits on this machine with no proxy in between."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if settings.METRICS_TOKEN and scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), settings.METRICS_TOKEN.encode()):
        return True
    if any(name in request.META for name in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False


@dataclass(slots=True)
class Tally:
    """What one workflow's jobs came to."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATUSES, 0))
    run: Histogram = field(default_factory=Histogram)

    def copy(self) -> Tally:
        return Tally(dict(self.counts), Histogram().merge(self.run))


class Day:
    """Today's rollups by workflow: settled minutes are read once, the last quarter of an hour every time."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._from: datetime | None = None
        self._until: datetime | None = None
        self._settled: dict[str, Tally] = {}

    def tallies(self, *, now: datetime) -> dict[str, Tally]:
        """Tallies since midnight."""
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        with self._lock:
            if self._from != midnight or self._until is None:
                self._from = self._until = midnight
                self._settled = {}
            settled = max(midnight, (now - SETTLES).replace(second=0, microsecond=0))
            if settled > self._until:
                self._add(self._settled, since=self._until, until=settled)
                self._until = settled
            tallies = {name: tally.copy() for name, tally in self._settled.items()}
            since = self._until
        self._add(tallies, since=since, until=None)
        return tallies

    def _add(self, tallies: dict[str, Tally], *, since: datetime, until: datetime | None) -> None:
        rows = MinuteRollup.objects.filter(minute__gte=since)
        if until is not None:
            rows = rows.filter(minute__lt=until)
        found = list(rows.values_list("version_id", *STATUSES, "run"))
        slugs = dict(Version.objects.filter(id__in={row[0] for row in found}).values_list("id", "workflow__slug"))
        for version, *counts, run in found:
            slug = slugs.get(version, OTHER)
            if slug not in tallies and len(tallies) >= MOST_WORKFLOWS:
                slug = OTHER
            tally = tallies.setdefault(slug, Tally())
            for status, n in zip(STATUSES, counts, strict=True):
                tally.counts[status] += n
            tally.run.merge(Histogram.from_json(run))


_day = Day()


def forget() -> None:
    """Drop what was read (tests)."""
    global _day
    _day = Day()


class State(Collector):
    """What the database says now."""

    def __init__(self, *, now: datetime) -> None:
        self._now = now

    def describe(self) -> list[CounterMetricFamily]:
        return []

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        yield from self._jobs()
        yield from self._pools()
        yield from fleet_metrics.families(now=self._now)
        yield from self._loops()
        yield from self._smoke()
        yield from model_stores.families(now=self._now)
        pending = GaugeMetricFamily("comfyplane_outbox_entries", "Outbox entries not delivered, by state", labels=["state"])
        held = dict(OutboxEntry.objects.exclude(state=OutboxEntry.State.DONE).values_list("state").annotate(n=Count("id")).order_by())
        for state in ("pending", "dead"):
            pending.add_metric([state], held.get(state, 0))
        yield pending
        drift = reconcile.recent_drift(now=self._now)
        yield GaugeMetricFamily(
            "comfyplane_reconcile_drift", "Differences between jobs, ledger and accounts in what ended lately and what is open; must be 0", value=drift
        )

    def _jobs(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        executions = CounterMetricFamily("workflow_executions", "Jobs ended since midnight UTC", labels=["workflow", "status"])
        durations = HistogramMetricFamily("workflow_execution_duration_seconds", "Run time of succeeded jobs since midnight UTC", labels=["workflow"])
        for slug, tally in sorted(_day.tallies(now=self._now).items()):
            for status, n in tally.counts.items():
                executions.add_metric([slug, status], n)
            buckets = [(str(float(limit)), tally.run.at_most(limit)) for limit in BUCKETS_S]
            durations.add_metric([slug], [*buckets, ("+Inf", tally.run.count)], sum_value=tally.run.sum)
        yield executions
        yield durations

    def _pools(self) -> Iterator[GaugeMetricFamily]:
        depth = GaugeMetricFamily("comfyplane_queue_depth", "Jobs queued", labels=["pool"])
        running = GaugeMetricFamily("comfyplane_jobs_running", "Jobs running", labels=["pool"])
        oldest = GaugeMetricFamily("comfyplane_queue_oldest_seconds", "Time the longest waiting job of the queue has waited", labels=["pool"])
        workers = GaugeMetricFamily("comfyplane_workers", "Workers by state", labels=["pool", "state"])
        limits = GaugeMetricFamily("comfyplane_pool_workers_limit", "Workers a pool keeps and may have", labels=["pool", "bound"])
        waiting = Job.objects.filter(status="queued").exclude(source=Job.SMOKE)  # smoke jobs wait for idle workers, which is no backlog
        queued = {row[0]: row[1:] for row in waiting.values_list("pool_id").annotate(n=Count("id"), at=Min("queued_at")).order_by()}
        active = dict(Job.objects.filter(status="running").values_list("pool_id").annotate(n=Count("id")).order_by())
        states = {
            (pool, state): n
            for pool, state, n in Worker.objects.filter(state__in=Worker.LIVE).values_list("pool_id", "state").annotate(n=Count("id")).order_by()
        }
        for pool in Pool.objects.only("id", "slug", "base", "max"):
            n, at = queued.get(pool.id, (0, None))
            depth.add_metric([pool.slug], n)
            running.add_metric([pool.slug], active.get(pool.id, 0))
            oldest.add_metric([pool.slug], max(0.0, (self._now - at).total_seconds()) if at else 0.0)
            for state in Worker.LIVE:
                workers.add_metric([pool.slug, str(state)], states.get((pool.id, state), 0))
            limits.add_metric([pool.slug, "base"], pool.base)
            limits.add_metric([pool.slug, "max"], pool.max)
        yield from (depth, running, oldest, workers, limits)

    def _smoke(self) -> Iterator[GaugeMetricFamily]:
        found = queries_smoke.matrix()
        endpoints = GaugeMetricFamily("comfyplane_smoke_endpoints", "Endpoints by what their last smoke run came to", labels=["state"])
        for state in ("passed", "failed", "never"):
            endpoints.add_metric([state], sum(cell.state == state for cell in found.cells))
        passed = GaugeMetricFamily("comfyplane_smoke_passed", "Whether no last smoke run of a workflow's endpoints failed", labels=["workflow"])
        seconds = GaugeMetricFamily("comfyplane_smoke_run_seconds", "Run time of the last smoke run of what production runs", labels=["workflow"])
        for row in found.rows[:MOST_WORKFLOWS]:  # the failing ones come first
            if any(cell.ended is not None for cell in row.cells):
                passed.add_metric([row.workflow.slug], 0 if any(cell.failing for cell in row.cells) else 1)
            live = next((cell.ended for cell in row.cells if "production" in cell.channels and cell.ended is not None), None)
            if live is not None and live.report.get("run_s") is not None:
                seconds.add_metric([row.workflow.slug], live.report["run_s"])
        yield from (endpoints, passed, seconds)

    def _loops(self) -> Iterator[GaugeMetricFamily]:
        age = GaugeMetricFamily("comfyplane_loop_age_seconds", "Time since a control loop last ran", labels=["loop"])
        failures = GaugeMetricFamily("comfyplane_loop_failures_in_a_row", "Failures of a control loop since it last succeeded", labels=["loop"])
        for lease in LoopLease.objects.exclude(ticked_at=None):
            age.add_metric([lease.name], max(0.0, (self._now - lease.ticked_at).total_seconds()) if lease.ticked_at else 0.0)
            failures.add_metric([lease.name], lease.failures_in_a_row)
        yield age
        yield failures
