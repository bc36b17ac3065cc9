"""The kinds of machine a pool may order: in their order, with what lives of each and what could not be had; and the forms that change them."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST

from controlplane.console import actions, once, pages, policy_form, pool_found, roles
from controlplane.kernel.errors import Invalid, NotFound, WorkflowError
from controlplane.kernel.money import to_usd
from fleet import offers, queries_offers
from fleet.models import Pool, PoolOffer
from fleet.queries_offers import Kinds

EMPTY = {"gpu": "", "market": "on_demand", "price": "", "most": "", "placement": "", "reason": ""}
_FIELDS = {"price_per_hour_microusd": "price"}
MARKETS = PoolOffer._meta.get_field("market").choices or []


@roles.staff
def machines(request: HttpRequest, slug: str) -> HttpResponse:
    """Every kind, in the order they are tried."""
    pool, now = pool_found.plain(slug), timezone.now()
    kinds = queries_offers.of_pool(pool, now=now)
    title = says(pool, kinds)
    context = {
        "pool": pool,
        "kinds": kinds,
        "says": title,
        "orders": pool.provider != Pool.Provider.EXTERNAL,
        "idle_spot": pool.on_demand_share >= 1 and {k.offer.market for k in kinds.rows} == {"spot", "on_demand"},
        "full": len(kinds.rows) >= offers.MOST_OFFERS,
        "may_fleet": roles.may(request, "fleet"),
    }
    return pages.page(request, "console/machines.html", context, title=title, active="fleet", crumbs=_crumbs(pool), fragment="console/_machines.html", now=now)


def says(pool: Pool, kinds: Kinds) -> str:
    """Which machine the pool gets next, as the page's headline."""
    if pool.provider == Pool.Provider.EXTERNAL:
        return f"Somebody else starts the machines of {pool.slug}"
    if not kinds.rows:
        return f"{pool.slug} orders {pool.gpu} only"
    if kinds.nothing:
        return f"No machine can be had for {pool.slug} now"
    first = kinds.rows[0]
    free = next(k for k in kinds.rows if not k.refused and not k.full)
    if free is first:
        return f"{pool.slug} orders {first.offer.gpu} first"
    why = "cannot be had" if first.refused else "is at its most"
    one, other = (k.offer.gpu if first.offer.gpu != free.offer.gpu else f"{k.offer.gpu} {k.offer.get_market_display()}" for k in (first, free))
    return f"{pool.slug} turns to {other}: {one} {why}"


@require_http_methods(["GET", "POST"])
@roles.needs("fleet", "Adding a kind of machine")
def new(request: HttpRequest, slug: str) -> HttpResponse:
    """A further kind, tried after the others."""
    pool = pool_found.plain(slug)
    values: dict[str, Any] = dict(EMPTY)
    if not pool.offers.exists():
        values |= {"gpu": pool.gpu, "price": to_usd(pool.price_per_hour_microusd) if roles.sees_money(request) else ""}

    def act(terms: dict[str, Any], reason: str) -> str:
        made = offers.add(pool, terms, actor=actions.actor(request), reason=reason, now=timezone.now())
        return f"{made.gpu} {made.get_market_display()} was added. It is tried after the others."

    return _form(request, pool, None, values, act)


@require_http_methods(["GET", "POST"])
@roles.needs("fleet", "Editing a kind of machine")
def edit(request: HttpRequest, slug: str, offer_id: int) -> HttpResponse:
    """Its GPU, market, price, how many at most, and where it is found."""
    pool = pool_found.plain(slug)
    offer = _found(pool, offer_id)
    values = {
        "gpu": offer.gpu,
        "market": offer.market,
        "price": to_usd(offer.price_per_hour_microusd) if roles.sees_money(request) else "",
        "most": "" if offer.most is None else str(offer.most),
        "placement": json.dumps(offer.placement, indent=2) if offer.placement else "",
        "reason": "",
    }

    def act(terms: dict[str, Any], reason: str) -> str:
        changed = offers.change(offer, terms, actor=actions.actor(request), reason=reason, now=timezone.now())
        return f"{terms['gpu']} was changed. Workers that run keep the price they were ordered at." if changed else "Nothing was different, so nothing changed."

    return _form(request, pool, offer, values, act)


def _form(request: HttpRequest, pool: Pool, offer: PoolOffer | None, values: dict[str, Any], act: Any) -> HttpResponse:
    errors: dict[str, str] = {}
    if request.method == "POST":
        values |= {name: actions.text(request, name, most=offers.MOST_PLACEMENT if name == "placement" else 300) for name in EMPTY if name in request.POST}
        terms = _terms(values, errors, stays=offer is not None and not roles.sees_money(request))
        for field, refusal in offers.problems(pool, terms, offer).items():
            errors.setdefault(_FIELDS.get(field, field), f"{refusal.message} {refusal.suggestion}")
        try:
            if not errors:
                if once.first_time(request):
                    messages.success(request, act(terms, values["reason"]))
                else:
                    messages.info(request, "That was done already; nothing was repeated.")
                return redirect("ops:machines", pool.slug)
        except WorkflowError as refusal:
            field = _FIELDS.get(str(refusal.details.get("field")), str(refusal.details.get("field")))
            errors[field if field in values else "gpu"] = f"{refusal.message} {refusal.suggestion}"
    context = {
        "pool": pool,
        "offer": offer,
        "values": values,
        "errors": errors,
        "markets": MARKETS,
        "known_settings": policy_form.known_settings(pool.provider),
        "first": offer is None and not pool.offers.exists(),
    }
    title = f"{offer.gpu} of {pool.slug}" if offer else f"Add a kind of machine to {pool.slug}"
    crumbs = [*_crumbs(pool, link=True), (offer.gpu if offer else "New", "")]
    return pages.page(request, "console/machine_edit.html", context, title=title, active="fleet", crumbs=crumbs, status=422 if errors else 200)


def _terms(values: dict[str, Any], errors: dict[str, str], *, stays: bool) -> dict[str, Any]:
    """What `offers` is given; what cannot be read lands in `errors`. With `stays` a price that is not shown is not read."""
    terms: dict[str, Any] = {"gpu": values["gpu"], "market": values["market"]}
    try:
        terms["most"] = policy_form.whole(values["most"], "The most of it") if values["most"] else None
    except policy_form.Wrong as wrong:
        errors["most"] = str(wrong)
    try:
        price = None if stays else policy_form.dollars(values["price"])
        if price is not None:
            terms["price_per_hour_microusd"] = price
        elif not stays:
            errors["price"] = "Write what one worker costs an hour; 0 on your own machine."
    except policy_form.Wrong as wrong:
        errors["price"] = str(wrong)
    try:
        terms["placement"] = json.loads(values["placement"]) if values["placement"] else {}
    except (ValueError, RecursionError):
        errors["placement"] = 'This is not JSON. Write an object such as {"zone": "b"}, or leave it empty.'
    return terms


@require_http_methods(["GET", "POST"])
@roles.needs("fleet", "Removing a kind of machine")
def remove(request: HttpRequest, slug: str, offer_id: int) -> HttpResponse:
    """It is no longer ordered; asked once more before."""
    pool, now = pool_found.plain(slug), timezone.now()
    offer = _found(pool, offer_id)
    error = ""
    if request.method == "POST":
        try:
            if once.first_time(request):
                offers.remove(offer, actor=actions.actor(request), reason=actions.reason(request), now=now)
                messages.success(request, f"{offer.gpu} {offer.get_market_display()} is no longer ordered.")
            return redirect("ops:machines", slug)
        except WorkflowError as refusal:
            error = f"{refusal.message} {refusal.suggestion}"
    kinds = queries_offers.of_pool(pool, now=now)
    context = {
        "pool": pool,
        "kind": next((k for k in kinds.rows if k.offer.id == offer.id), None),
        "left": [k.offer for k in kinds.rows if k.offer.id != offer.id],
        "error": error,
        "reason": actions.reason(request),
    }
    crumbs = [*_crumbs(pool, link=True), ("Remove", "")]
    return pages.page(
        request, "console/machine_remove.html", context, title=f"Remove {offer.gpu}?", active="fleet", crumbs=crumbs, now=now, status=422 if error else 200
    )


@require_POST
@roles.needs("fleet", "Reordering kinds of machine")
def move(request: HttpRequest, slug: str, offer_id: int) -> HttpResponse:
    """Try it sooner or later."""
    offer = _found(pool_found.plain(slug), offer_id)

    def act() -> str:
        to = actions.number(actions.text(request, "to"))
        if to is None:
            raise Invalid("place_invalid", "Say which place, a whole number.", "1 is tried first.")
        moved = offers.move(offer, to=int(to), actor=actions.actor(request), now=timezone.now())
        return f"{offer.gpu} is number {int(to)} now." if moved else f"{offer.gpu} was number {int(to)} already."

    return actions.done(request, act, back=f"{reverse('ops:machines', args=[slug])}#m-{offer.id}")


@require_POST
@roles.needs("fleet", "Asking for a machine again")
def ask(request: HttpRequest, slug: str, offer_id: int) -> HttpResponse:
    """Let it be ordered at once though it could not be had a moment ago."""
    offer = _found(pool_found.plain(slug), offer_id)

    def act() -> str:
        offers.ask_again(offer, actor=actions.actor(request), now=timezone.now())
        return f"{offer.gpu} is asked for again when {slug} next needs a worker."

    return actions.done(request, act, back=f"{reverse('ops:machines', args=[slug])}#m-{offer.id}")


def _found(pool: Pool, offer_id: int) -> PoolOffer:
    try:
        return offers.named(pool, offer_id)
    except NotFound as missing:
        raise Http404(missing.message) from None


def _crumbs(pool: Pool, *, link: bool = False) -> list[tuple[str, str]]:
    here = reverse("ops:machines", args=[pool.slug]) if link else ""
    return [("Fleet", reverse("ops:fleet")), (pool.slug, reverse("ops:pool", args=[pool.slug])), ("Kinds of machine", here)]
