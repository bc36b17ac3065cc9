"""Actions on customers: create, change the plan, suspend after a typed confirmation, reopen."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.text import slugify
from django.views.decorators.http import require_http_methods, require_POST

from billing import customers
from billing import queries as billing
from billing.models import Customer, PlanRevision
from controlplane.console import actions, numbers, once, pages, roles
from controlplane.console.customers import one
from controlplane.kernel.errors import WorkflowError
from fleet.models import Job

# Offered only while no plan exists, so that a fresh installation can take its first customer.
STARTER: dict[str, Any] = {
    "slug": "starter",
    "name": "Starter",
    "price_per_job_microusd": 20_000,
    "price_per_gpu_second_microusd": 500,
    "monthly_limit_microusd": 50_000_000,
    "max_active_jobs": 20,
    "requests_per_minute": 60,
}


def choices(*, now_on: PlanRevision | None = None) -> list[tuple[str, str]]:
    """Plans to choose from, with their terms in words; the one a customer is on stays among them."""
    offers = billing.offers()
    if now_on is not None and now_on not in offers:
        offers.insert(0, now_on)
    found = [(str(r.id), f"{r.plan.name}: {terms(r)}") for r in offers]
    if found:
        return found
    draft = PlanRevision(**{k: v for k, v in STARTER.items() if k not in ("slug", "name")})
    return [("starter", f"Starter (new): {terms(draft)}")]


def terms(r: PlanRevision) -> str:
    job, second = numbers.usd(round(r.price_per_job_microusd)), numbers.usd(round(r.price_per_gpu_second_microusd))
    return f"{job} a job, {second} a GPU second, at most {numbers.usd(r.monthly_limit_microusd, tile=True)} a month"


def revision(chosen: str, request: HttpRequest) -> PlanRevision | None:
    """The chosen revision; makes the starter plan when it was offered and taken."""
    if chosen == "starter" and not billing.plans_exist():
        return customers.publish_plan(**STARTER, now=timezone.now())
    return PlanRevision.objects.select_related("plan").filter(id=int(chosen)).first() if chosen.isdecimal() and len(chosen) < 18 else None


@require_http_methods(["GET", "POST"])
@roles.needs("account", "Creating a customer")
def new(request: HttpRequest) -> HttpResponse:
    values = {"name": "", "slug": "", "plan": ""}
    errors: dict[str, str] = {}
    if request.method == "POST":
        values = {name: actions.text(request, name) for name in values}
        slug = slugify(values["slug"] or values["name"])[:60].strip("-")
        plan = revision(values["plan"], request)
        if not values["name"] or len(values["name"]) > 120:
            errors["name"] = "Write a name of at most 120 characters."
        if values["slug"] and slug != values["slug"]:
            errors["slug"] = f"Use small letters, digits and dashes, such as {slug or 'lumen-labs'}."
        elif values["name"] and not slug:
            errors["slug"] = "Write a short name with small letters, digits and dashes."
        if plan is None:
            errors["plan"] = "Choose a plan."
        if not errors and plan is not None:
            try:
                if once.first_time(request):
                    customers.create(slug=slug, name=values["name"], plan_revision=plan, actor=actions.actor(request), now=timezone.now())
                    messages.success(request, f"{values['name']} was created. Issue a key so that they can call the API.")
                return redirect("ops:customer", slug)
            except WorkflowError as refusal:
                errors["slug"] = f"{refusal.message} {refusal.suggestion}"
    crumbs = [("Customers", reverse("ops:customers")), ("New customer", "")]
    context = {"values": values, "errors": errors, "plans": choices()}
    return pages.page(request, "console/customer_new.html", context, title="New customer", active="customers", crumbs=crumbs, status=422 if errors else 200)


@require_http_methods(["GET", "POST"])
@roles.needs("account", "Changing a plan")
def plan(request: HttpRequest, slug: str) -> HttpResponse:
    who = one(slug)
    errors: dict[str, str] = {}
    if request.method == "POST":
        chosen = revision(request.POST.get("plan", ""), request)
        if chosen is None:
            errors["plan"] = "Choose a plan."
        else:

            def act() -> str:
                customers.change_plan(who, plan_revision=chosen, actor=actions.actor(request), reason=actions.reason(request), now=timezone.now())
                return f"{who.name} is now on {chosen.plan.name}, revision {chosen.number}. Jobs already sent keep their terms."

            return actions.done(request, act, back=reverse("ops:customer", args=[slug]))
    context = {
        "who": who,
        "errors": errors,
        "plans": choices(now_on=who.plan_revision),
        "current": str(who.plan_revision_id),
        "terms": terms(who.plan_revision),
    }
    shell: dict[str, Any] = {"title": f"Plan of {who.name}", "active": "customers", "crumbs": trail(who, "Plan")}
    return pages.page(request, "console/customer_plan.html", context, status=422 if errors else 200, **shell)


@require_http_methods(["GET", "POST"])
@roles.needs("account", "Suspending a customer")
def suspend(request: HttpRequest, slug: str) -> HttpResponse:
    who = one(slug)
    active = Job.objects.filter(customer=who, status__in=["queued", "running"]).count()
    errors: dict[str, str] = {}
    if request.method == "POST":
        if request.POST.get("confirm", "").strip() != slug:
            errors["confirm"] = f"Type {slug} exactly as it is written here."
        if not actions.reason(request):
            errors["reason"] = "Write why; it is kept in the audit log."
        if not errors:

            def act() -> str:
                customers.set_status(
                    who, status=Customer.Status.SUSPENDED, actor=actions.actor(request), reason=actions.reason(request), now=timezone.now()
                )  # fmt: skip
                return f"{who.name} is suspended. New requests are refused; {numbers.plural(active, 'job')} still in work will finish."

            return actions.done(request, act, back=reverse("ops:customer", args=[slug]))
    keys = sum(billing.key_state(k, now=timezone.now()) == "active" for k in billing.keys(who))
    context = {
        "who": who,
        "errors": errors,
        "active_jobs": active,
        "working_keys": keys,
        "reason": actions.reason(request),
        "already": who.status == Customer.Status.SUSPENDED,
    }
    shell: dict[str, Any] = {"title": f"Suspend {who.name}", "active": "customers", "crumbs": trail(who, "Suspend")}
    return pages.page(request, "console/customer_suspend.html", context, status=422 if errors else 200, **shell)


@require_POST
@roles.needs("account", "Reopening a customer")
def reopen(request: HttpRequest, slug: str) -> HttpResponse:
    who = one(slug)

    def act() -> str:
        customers.set_status(who, status=Customer.Status.ACTIVE, actor=actions.actor(request), reason=actions.reason(request), now=timezone.now())
        return f"{who.name} is open again."

    return actions.done(request, act, back=reverse("ops:customer", args=[slug]))


def trail(who: Customer, last: str) -> list[tuple[str, str]]:
    return [("Customers", reverse("ops:customers")), (who.name, reverse("ops:customer", args=[who.slug])), (last, "")]
