"""Scaling decisions: the list on a pool's page, one decision with all it rested on, and the CSV."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils import timezone

from controlplane.console import decision_words, pages, pool_found, ranges, roles
from controlplane.console.decision_words import Row
from controlplane.kernel import money
from fleet import queries_pools
from fleet.models import Pool, ScalingDecision, Worker

SHOWN = 12
READ = 300
"""So many are looked through for a page of lines."""
KINDS = (("", "All", ""), ("up", "Up", "arrow-up"), ("down", "Down", "arrow-down"), ("held", "Held back", "lock"))


def kind_of(request: HttpRequest) -> str:
    kind = request.GET.get("decisions", "")
    return kind if kind in {key for key, _, _ in KINDS} else ""


def kind_chips(request: HttpRequest, kind: str) -> list[dict[str, Any]]:
    query = request.GET.copy()
    query.pop("cursor", None)
    found = []
    for key, label, icon in KINDS:
        query["decisions"] = key
        if not key:
            query.pop("decisions")
        found.append({"label": label, "href": f"?{query.urlencode()}#decisions", "on": key == kind, "icon": icon})
    return found


def listed(request: HttpRequest, pool: Pool, kind: str, span: ranges.Range, workers: Sequence[Worker]) -> pages.Slice:
    """Decisions of the range, newest first, a page of them. Neighbours that held back for one reason are one line."""
    found = queries_pools.decisions(pool=pool, kind=kind, start=span.start, end=span.end)
    after = pages.cursor(request)
    if after and len(after) == 2 and isinstance(after[1], int):
        with contextlib.suppress(ValueError):
            found = queries_pools.before(found, datetime.fromisoformat(str(after[0])), after[1])
    read = list(found[: READ + 1])
    rows: list[Row] = []
    used = 0
    for d in read[:READ]:
        if rows and decision_words.same_stretch(rows[-1].d, d):
            rows[-1] = replace(rows[-1], since=d.at, among=rows[-1].among + 1)
        elif len(rows) == SHOWN:
            break
        else:
            rows.append(decision_words.row(d, workers))
        used += 1
    # `cut` tells whether there is more from one row too many, and where the next page begins from the last decision used
    cut = pages.cut(request, read[: used + 1], lambda d: [d.at.isoformat(), d.id], size=max(1, used))
    return replace(cut, rows=rows)


@roles.staff
def decisions_csv(request: HttpRequest, slug: str) -> HttpResponseBase:
    """Every decision of the range with the figures it rested on."""
    now = timezone.now()
    here = pool_found.found(slug, now=now)
    span = pool_found.span_of(request, here.pool, now)
    found = queries_pools.decisions(pool=here.pool, kind=kind_of(request), start=span.start, end=span.end)
    header = ["id", "at", "last_seen_at", "repeats", "policy", "rule", "action", "wanted", "applied", "bound", "reason", "outcome"]
    header += ["queue", "ready", "busy", "coming", "oldest_wait_s", "rate_5m_jobs_per_s", "job_mean_s", "predicted_wait_s", "shadows"]
    shows_money = roles.sees_money(request)

    def line(d: ScalingDecision) -> list[Any]:
        seen = decision_words.inputs(d)
        job = seen.get("job")
        row: list[Any] = [d.id, d.at, d.last_seen_at, d.repeats, d.policy, seen.get("rule", ""), d.action, d.wanted, d.applied, d.bound, d.reason, d.outcome]
        row += [decision_words.number(seen, name) for name in ("queue", "ready", "busy")]
        row += [len(seen["coming_s"]) if isinstance(seen.get("coming_s"), list) else None]
        row += [decision_words.number(seen, name) for name in ("oldest_wait_s", "rate_5m")]
        row += [decision_words.number(job, "mean_s") if isinstance(job, dict) else None, d.predicted_wait_s]
        row.append("; ".join(f"{name} {said.get('wanted', 'failed')}" for name, said in sorted(d.shadow.items())) if isinstance(d.shadow, dict) else "")
        return row + ([money.to_usd(d.cost_change_microusd)] if shows_money else [])

    rows = (line(d) for d in found[:50_000].iterator(chunk_size=1000))
    return pages.csv_file(f"{slug}-decisions", header + (["cost_change_usd_per_hour"] if shows_money else []), rows)
