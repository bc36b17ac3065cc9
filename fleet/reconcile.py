"""Prove that jobs, ledger and accounts say the same. The drift must be zero; each kind is counted and named."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from django.db import connection
from django.db.models import Count, F, OuterRef, Q, Subquery, Sum
from django.db.models.functions import Coalesce

from billing.models import Account, UsageEntry
from billing.quotas import next_period, period_of
from fleet.models import Job

METERS = tuple(UsageEntry.Meter.values)


@dataclass(slots=True)
class Drift:
    """What does not fit. All counts are zero when the books are right."""

    terminal_jobs: int = 0
    entries: int = 0
    jobs_without_entries: list[str] = field(default_factory=list)
    entries_without_jobs: list[str] = field(default_factory=list)
    price_differs: list[str] = field(default_factory=list)
    accounts_differ: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Number of differences found."""
        return len(self.jobs_without_entries) + len(self.entries_without_jobs) + len(self.price_differs) + len(self.accounts_differ)


def drift(*, now: datetime) -> Drift:
    """Compare every terminal job with its ledger lines, and every account with its jobs and lines."""
    found = Drift()
    terminal = Job.objects.filter(status__in=Job.TERMINAL)
    found.terminal_jobs = terminal.count()
    found.entries = UsageEntry.objects.count()
    first = UsageEntry.objects.filter(job_id=OuterRef("id"), reverses__isnull=True, revision=1).order_by().values("job_id")
    counted = terminal.annotate(lines=Coalesce(Subquery(first.annotate(n=Count("meter", distinct=True)).values("n")), 0))
    found.jobs_without_entries = [str(i) for i in counted.exclude(lines=len(METERS)).values_list("id", flat=True)]
    with_entry = UsageEntry.objects.filter(~Q(job_id__in=terminal.values("id")))
    found.entries_without_jobs = [str(i) for i in with_entry.values_list("id", flat=True)]
    paid = UsageEntry.objects.filter(job_id=OuterRef("id"), reverses__isnull=True, revision=1).order_by().values("job_id")
    priced = terminal.annotate(paid=Coalesce(Subquery(paid.annotate(sum=Sum("amount_microusd")).values("sum")), 0))
    found.price_differs = [str(i) for i in priced.exclude(paid=F("price_microusd")).values_list("id", flat=True)]
    found.accounts_differ = _accounts(now)
    return found


def _accounts(now: datetime) -> list[str]:
    """Differences between each account's counters and what its open jobs and booked lines add up to."""
    period = period_of(now)
    reserved: Counter[object] = Counter()
    active: Counter[object] = Counter()
    for customer, quote, jobs in (
        Job.objects.exclude(status__in=Job.TERMINAL)
        .order_by()
        .values("customer_id")
        .annotate(quote=Sum("quote_microusd"), n=Count("id"))
        .values_list("customer_id", "quote", "n")
    ):
        reserved[customer], active[customer] = quote, jobs
    # A correction counts in the month the job ended in, whichever month it is booked in.
    start = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    ended = UsageEntry.objects.filter(occurred_at__gte=start, occurred_at__lt=next_period(start))
    settled = dict(ended.order_by().values("customer_id").annotate(s=Sum("amount_microusd")).values_list("customer_id", "s"))
    differences = []
    for account in Account.objects.select_related("customer"):
        name, id_ = account.customer.slug, account.customer_id
        if account.reserved_microusd != reserved[id_]:
            differences.append(f"{name}: reserved {account.reserved_microusd}, open jobs hold {reserved[id_]}")
        if account.active_jobs != active[id_]:
            differences.append(f"{name}: {account.active_jobs} active jobs counted, {active[id_]} are open")
        booked = account.settled_microusd if account.period == period else 0
        if booked != settled.get(id_, 0):
            differences.append(f"{name}: settled {booked}, ledger says {settled.get(id_, 0)} in {period}")
    return differences


_RECENT = """
SELECT
  (SELECT COUNT(*) FROM fleet_job j WHERE j.finished_at >= %s
     AND (SELECT COUNT(*) FROM billing_usageentry e WHERE e.job_id = j.id AND e.reverses_id IS NULL AND e.revision = 1) <> %s),
  (SELECT COALESCE(SUM(active_jobs), 0) FROM billing_account) - (SELECT COUNT(*) FROM fleet_job WHERE status IN ('queued', 'running'))
"""


def recent_drift(*, now: datetime, window: timedelta = timedelta(minutes=5)) -> int:
    """Differences among what ended lately and what is open, in one statement: cheap enough for every scrape. `drift` looks at everything."""
    with connection.cursor() as cursor:
        cursor.execute(_RECENT, [now - window, len(METERS)])
        without_lines, active = cursor.fetchone()
    return int(without_lines) + abs(int(active))
