"""/ops/audit/: the trail of what people and loops did, filtered by the address."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils import timezone

from controlplane.console import changes, numbers, pages, ranges, roles
from controlplane.kernel.models import AuditEntry

DEFAULT_RANGE = "28d"
FIELDS = {"type": "object_type", "object": "object_id", "actor": "actor", "action": "action"}
AMOUNT, HIDDEN = "_microusd", "shown to the account role"
TYPES = ("api_key", "customer", "job", "pool", "version", "worker", "workflow")


@dataclass(frozen=True, slots=True)
class Change:
    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Row:
    e: AuditEntry
    href: str
    changed: list[Change]


def wanted(request: HttpRequest) -> dict[str, str]:
    return {name: request.GET.get(name, "").replace("\x00", "").strip()[:120] for name in FIELDS}


def entries(request: HttpRequest, span: ranges.Range) -> QuerySet[AuditEntry]:
    """The filtered trail, newest first."""
    found = AuditEntry.objects.filter(at__gte=span.start, at__lte=span.end).order_by("-seq")
    for name, value in wanted(request).items():
        if value:
            found = found.filter(**{FIELDS[name] if name in ("type", "actor") else f"{FIELDS[name]}__icontains": value})
    return found


@roles.staff
def audit(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    span = ranges.parse(request.GET, now=now, default=DEFAULT_RANGE)
    found = entries(request, span)
    after = pages.cursor(request)
    if after and isinstance(after[0], int):
        found = found.filter(seq__lt=after[0])
    money = roles.sees_money(request)
    cut = pages.cut(request, list(found[: pages.PAGE_SIZE + 1]), lambda e: [e.seq])
    rows = pages.Slice([Row(e, changes.page_of(e), changed(e, money=money)) for e in cut.rows], next=cut.next, first=cut.first)
    terms = wanted(request)
    context = {
        "page": rows,
        "wanted": terms,
        "types": sorted({*TYPES, terms["type"]} - {""}),
        "filtered": ", ".join(f"{name} is {value}" for name, value in terms.items() if value),
    }
    csv_href = f"{reverse('ops:audit_csv')}?{request.GET.urlencode()}"
    return pages.page(request, "console/audit.html", context, title="Audit log", active="audit", span=span, csv_href=csv_href, now=now)


def changed(e: AuditEntry, *, money: bool = True) -> list[Change]:
    """What differs between before and after, at most six facts. Amounts are for who sees money."""
    before, after = (side if isinstance(side, dict) else {} for side in (e.before, e.after))
    names = [n for n in {**before, **after} if before.get(n) != after.get(n)]
    return [_change(n, before.get(n), after.get(n), money=money) for n in names[:6]]


def _change(name: str, before: Any, after: Any, *, money: bool) -> Change:
    label = name.removesuffix(AMOUNT).replace("_", " ")
    if not name.endswith(AMOUNT):
        return Change(label, short(before), short(after) or "none")
    return Change(label, _usd(before), _usd(after) or "none") if money else Change(label, "", HIDDEN)


def _usd(value: Any) -> str:
    return numbers.usd(value) if isinstance(value, int) and not isinstance(value, bool) else short(value)


def _without_amounts(facts: Any) -> Any:
    """The facts of an entry as they are told to who sees no money."""
    if isinstance(facts, dict):
        return {name: HIDDEN if str(name).endswith(AMOUNT) else _without_amounts(value) for name, value in facts.items()}
    return facts


def short(value: Any) -> str:
    """A fact in at most eighty characters."""
    if value is None or value == "":
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:79]}…"


@roles.staff
def audit_csv(request: HttpRequest) -> HttpResponseBase:
    span = ranges.parse(request.GET, now=timezone.now(), default=DEFAULT_RANGE)
    told: Callable[[Any], Any] = (lambda facts: facts) if roles.sees_money(request) else _without_amounts
    header = ["seq", "at", "actor", "action", "object_type", "object_id", "before", "after", "reason", "origin", "request_id", "hash"]

    def lines() -> Iterator[list[Any]]:
        for e in entries(request, span)[:50_000].iterator(chunk_size=1000):
            before, after = (json.dumps(told(side), ensure_ascii=False) for side in (e.before, e.after))
            yield [e.seq, e.at, e.actor, e.action, e.object_type, e.object_id, before, after, e.reason, e.origin, e.request_id, e.hash]

    return pages.csv_file("audit", header, lines())
