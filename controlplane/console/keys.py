"""Actions on API keys: issue and rotate show the secret once; revoke asks for the key's name."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from billing import keys
from billing import queries as billing
from billing.models import ApiKey, Customer
from controlplane.console import actions, once, pages, roles
from controlplane.console.customer_actions import trail
from controlplane.console.customers import one
from controlplane.kernel import audit
from controlplane.kernel.errors import WorkflowError

EXPIRIES = [("", "Never"), ("30", "In 30 days"), ("90", "In 90 days"), ("365", "In a year")]
OVERLAPS = [("0", "At once"), ("1", "After an hour"), ("24", "After a day"), ("168", "After 7 days")]


@require_http_methods(["GET", "POST"])
@roles.needs("account", "Issuing a key")
def issue(request: HttpRequest, slug: str) -> HttpResponse:
    who, now = one(slug), timezone.now()
    name, days = actions.text(request, "name"), actions.text(request, "expires")
    scopes = [s for s in keys.SCOPES if s in request.POST.getlist("scopes")] if request.method == "POST" else list(keys.SCOPES)
    errors: dict[str, str] = {}
    if request.method == "POST":
        if not name or len(name) > 80:
            errors["name"] = "Write a name of at most 80 characters, such as catalog-prod."
        if not scopes:
            errors["scopes"] = "Choose at least one scope."
        if days not in dict(EXPIRIES):
            errors["expires"] = "Choose when it expires."
        if not errors:
            if not once.first_time(request):
                return _again(request, who)
            with transaction.atomic():
                key, secret = keys.issue(customer=who, name=name, scopes=scopes, expires_at=now + timedelta(days=int(days)) if days else None, now=now)
                _note(request, "key.issue", key, now=now)
            return _shown_once(request, who, key, secret)
    context = {"who": who, "name": name, "expires": days, "errors": errors, "expiries": EXPIRIES, "all_scopes": [(s, s in scopes) for s in keys.SCOPES]}
    return _page(request, "console/key_new.html", context, who, "New key", status=422 if errors else 200)


@require_http_methods(["GET", "POST"])
@roles.needs("account", "Rotating a key")
def rotate(request: HttpRequest, key_id: UUID) -> HttpResponse:
    key, now = _key(key_id), timezone.now()
    hours = request.POST.get("overlap", "24")
    if request.method == "POST" and hours in dict(OVERLAPS):
        if not once.first_time(request):
            return _again(request, key.customer)
        try:
            with transaction.atomic():
                fresh, secret = keys.rotate(key, overlap=timedelta(hours=int(hours)), now=now)
                _note(request, "key.rotate", fresh, now=now, before={"key": key.prefix}, after={"key": fresh.prefix, "overlap_h": int(hours)})
        except WorkflowError as refusal:
            messages.error(request, f"{refusal.message} {refusal.suggestion}")
            return redirect("ops:customer", key.customer.slug)
        return _shown_once(request, key.customer, fresh, secret)
    return _page(request, "console/key_rotate.html", {"who": key.customer, "key": key, "overlaps": OVERLAPS, "overlap": hours}, key.customer, "Rotate key")


@require_http_methods(["GET", "POST"])
@roles.needs("account", "Revoking a key")
def revoke(request: HttpRequest, key_id: UUID) -> HttpResponse:
    key, now = _key(key_id), timezone.now()
    errors: dict[str, str] = {}
    if request.method == "POST":
        if request.POST.get("confirm", "").strip() != key.name.strip():
            errors["confirm"] = f"Type {key.name} exactly as it is written here."
        else:

            def act() -> str:
                with transaction.atomic():
                    keys.revoke(key, now=now)
                    _note(request, "key.revoke", key, now=now)
                return f"Key {key.name} …{key.last4} is revoked. Calls with it are refused from now on."

            return actions.done(request, act, back=reverse("ops:customer", args=[key.customer.slug]))
    context = {"who": key.customer, "key": key, "errors": errors, "state": billing.key_state(key, now=now), "reason": actions.reason(request)}
    return _page(request, "console/key_revoke.html", context, key.customer, "Revoke key", status=422 if errors else 200)


def _key(key_id: UUID) -> ApiKey:
    return get_object_or_404(ApiKey.objects.select_related("customer"), id=key_id)


def _note(
    request: HttpRequest, action: str, key: ApiKey, *, now: datetime, before: dict[str, Any] | None = None, after: dict[str, Any] | None = None
) -> None:  # fmt: skip
    facts = after or {"key": key.prefix, "scopes": key.scopes, "expires_at": key.expires_at}
    audit.record(
        actor=actions.actor(request),
        action=action,
        object_type="api_key",
        object_id=key.prefix,
        before=before,
        after=facts,
        reason=actions.reason(request),
        request_id=getattr(request, "request_id", ""),
        now=now,
    )


def _again(request: HttpRequest, who: Customer) -> HttpResponse:
    messages.info(request, "That key was made already, and its secret is shown only once. Rotate it if the secret was lost.")
    return redirect("ops:customer", who.slug)


def _shown_once(request: HttpRequest, who: Customer, key: ApiKey, secret: str) -> HttpResponse:
    response = _page(request, "console/key_secret.html", {"who": who, "key": key, "secret": secret}, who, "New key")
    response["Cache-Control"] = "no-store"
    return response


def _page(request: HttpRequest, template: str, context: dict[str, Any], who: Customer, title: str, *, status: int = 200) -> HttpResponse:
    return pages.page(request, template, context, title=title, active="customers", crumbs=trail(who, title), status=status)
