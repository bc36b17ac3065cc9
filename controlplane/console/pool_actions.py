"""Actions on pools and workers: add a pool, change its bounds, resume it, drain a worker."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST

from controlplane.console import actions, once, pages, roles
from controlplane.kernel import money
from controlplane.kernel.errors import WorkflowError
from fleet import membership, pools, scaling
from fleet.models import Pool, Worker


@require_http_methods(["GET", "POST"])
@roles.needs("fleet", "Adding a pool")
def new(request: HttpRequest) -> HttpResponse:
    values: dict[str, Any] = {"slug": "", "name": "", "provider": "local", "base": "1", "maximum": "2", "price": "0", "gpu": "cpu"}
    errors: dict[str, str] = {}
    if request.method == "POST":
        values |= {name: actions.text(request, name, most=120) for name in values}
        slug = values["slug"].lower()
        try:
            if once.first_time(request):
                pools.create(
                    slug=slug,
                    name=values["name"],
                    provider=values["provider"],
                    base=_whole(values, "base", "The minimum"),
                    maximum=_whole(values, "maximum", "The maximum"),
                    price_per_hour_microusd=_price(values["price"]),
                    gpu=values["gpu"],
                    actor=actions.actor(request),
                    now=timezone.now(),
                )
                messages.success(request, f"Pool {slug} was added. Its first workers start within seconds.")
            return redirect("ops:pool", slug)
        except WorkflowError as refusal:
            errors[refusal.details.get("field", "slug")] = f"{refusal.message} {refusal.suggestion}"
        except _NotANumber as wrong:
            errors[wrong.field] = wrong.say
    context = {"values": values, "errors": errors, "providers": Pool.Provider.choices}
    crumbs = [("Fleet", reverse("ops:fleet")), ("New pool", "")]
    return pages.page(request, "console/pool_new.html", context, title="New pool", active="fleet", crumbs=crumbs, status=422 if errors else 200)


@require_http_methods(["GET", "POST"])
@roles.needs("fleet", "Editing a pool")
def edit(request: HttpRequest, slug: str) -> HttpResponse:
    pool = _pool(slug)
    values: dict[str, Any] = {"base": pool.base, "maximum": pool.max, "reason": ""}
    errors: dict[str, str] = {}
    if request.method == "POST":
        values |= {name: actions.text(request, name) for name in values}
        try:
            if once.first_time(request):
                changed = pools.change(
                    pool,
                    {"base": _whole(values, "base", "The minimum"), "max": _whole(values, "maximum", "The maximum")},
                    actor=actions.actor(request),
                    reason=values["reason"],
                    now=timezone.now(),
                )
                messages.success(
                    request, f"{slug} now keeps {values['base']} to {values['maximum']} workers." if changed else "Nothing was different, so nothing changed."
                )
            return redirect("ops:pool", slug)
        except WorkflowError as refusal:
            errors[refusal.details.get("field", "base")] = f"{refusal.message} {refusal.suggestion}"
        except _NotANumber as wrong:
            errors[wrong.field] = wrong.say
    crumbs = [("Fleet", reverse("ops:fleet")), (slug, reverse("ops:pool", args=[slug])), ("Edit", "")]
    context = {"pool": pool, "values": values, "errors": errors}
    return pages.page(request, "console/pool_edit.html", context, title=f"Edit {slug}", active="fleet", crumbs=crumbs, status=422 if errors else 200)


@require_POST
@roles.needs("fleet", "Resuming a pool")
def resume(request: HttpRequest, slug: str) -> HttpResponse:
    pool = _pool(slug)

    def act() -> str:
        scaling.resume(pool, actor=actions.actor(request), now=timezone.now())
        return f"{slug} orders workers again. If they keep failing to start it stops by itself."

    return actions.done(request, act, back=reverse("ops:pool", args=[slug]))


@require_POST
@roles.staff
def drain(request: HttpRequest, worker_id: Any) -> HttpResponse:
    if not (roles.may(request, "operator") or roles.may(request, "fleet")):
        return roles.refuse(request, "operator", "Draining a worker")
    worker = get_object_or_404(Worker.objects.select_related("pool"), id=worker_id)

    def act() -> str:
        membership.drain(worker, actor=actions.actor(request), reason=actions.reason(request), now=timezone.now())
        return f"{worker.name} finishes its job and leaves."

    return actions.done(request, act, back=reverse("ops:pool", args=[worker.pool.slug]))


class _NotANumber(Exception):
    def __init__(self, field: str, say: str) -> None:
        super().__init__(say)
        self.field, self.say = field, say


def _whole(values: dict[str, Any], field: str, what: str) -> int:
    value = actions.number(str(values[field]))
    if value is None:
        raise _NotANumber(field, f"{what} must be a whole number.")
    return int(value)


def _price(text: str) -> int:
    try:
        return money.from_usd(text.lstrip("$") or "0")
    except ValueError:
        raise _NotANumber("price", "The price must be dollars, such as 0.86, with at most six decimals.") from None


def _pool(slug: str) -> Pool:
    pool = Pool.objects.filter(slug=slug).first()
    if pool is None:
        raise Http404(f"There is no pool called {slug}.")
    return pool
