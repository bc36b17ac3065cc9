"""/ops/search/: one box for every object. An exact id opens at once."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from billing import queries as billing
from builds.models import Workflow
from controlplane.console import pages, roles, states
from controlplane.console.overview import address
from controlplane.kernel.ids import parse_uuid
from fleet import queries_jobs
from fleet.models import Pool, Worker

MOST = 8


@dataclass(frozen=True, slots=True)
class Hit:
    title: str
    detail: str
    href: str
    icon: str


@dataclass(frozen=True, slots=True)
class Group:
    title: str
    hits: list[Hit]
    more: bool = False


@roles.staff
def search(request: HttpRequest) -> HttpResponse:
    text = request.GET.get("q", "").replace("\x00", "").strip()[:200]
    groups = find(text) if text else recent()
    hits = [h for g in groups for h in g.hits]
    if text and len(hits) == 1 and (parse_uuid(text) is not None or hits[0].title.lower() == text.lower()) and hits[0].href:
        return redirect(hits[0].href)
    context = {"text": text, "search_text": text, "groups": groups, "total": len(hits)}
    return pages.page(request, "console/search.html", context, title=f"Search for {text}" if text else "Search", active="")


def recent() -> list[Group]:
    """Where people go when they have not typed yet: the pools and the first customers."""
    return [g for g in (_pools(Q()), _customers("")) if g.hits]


def find(text: str) -> list[Group]:
    """Everything that matches, by kind."""
    named = Q(slug__icontains=text) | Q(name__icontains=text)
    found = [_customers(text), _workflows(named), _pools(named), _jobs(text), _workers(text), _keys(text)]
    return [g for g in found if g.hits]


def _cut(title: str, hits: list[Hit]) -> Group:
    return Group(title, [h for h in hits if h.href][:MOST], more=len(hits) > MOST)


def _customers(text: str) -> Group:
    rows = billing.customers(text=text)[: MOST + 1]
    return _cut("Customers", [Hit(c.name, f"{c.plan_revision.plan.name}, {c.status}", address("ops:customer", c.slug), "users") for c in rows])


def _workflows(named: Q) -> Group:
    rows = Workflow.objects.filter(named).order_by("slug").only("slug", "name")[: MOST + 1]
    return _cut("Workflows", [Hit(w.slug, w.name, address("ops:workflow", w.slug), "flow") for w in rows])


def _pools(named: Q) -> Group:
    rows = Pool.objects.filter(named).order_by("slug")[: MOST + 1]
    return _cut("Pools", [Hit(p.slug, f"{p.gpu}, {p.base} to {p.max} workers", address("ops:pool", p.slug), "gpu") for p in rows])


def _jobs(text: str) -> Group:
    return _cut("Jobs", [Hit(str(j.id), "Job", address("ops:job", str(j.id)), "list") for j in queries_jobs.by_text(text)])


def _workers(text: str) -> Group:
    exact = parse_uuid(text)
    wanted = Q(id=exact) if exact is not None else Q(name__istartswith=text) | Q(instance=text)
    rows = Worker.objects.filter(wanted).select_related("pool").only("id", "name", "state", "pool__slug").order_by("-ordered_at")[: MOST + 1]
    return _cut("Workers", [Hit(w.name, f"{states.words(w.state)[0]}, {w.pool.slug}", f"{address('ops:pool', w.pool.slug)}#w-{w.id}", "box") for w in rows])


def _keys(text: str) -> Group:
    wanted = text.lstrip("…").strip()
    rows = billing.keys_ending(wanted) if 4 <= len(wanted) <= 16 else []
    return _cut("API keys", [Hit(f"{k.name} …{k.last4}", k.customer.name, f"{address('ops:customer', k.customer.slug)}#keys", "key") for k in rows])
