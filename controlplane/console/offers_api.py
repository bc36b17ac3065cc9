"""A pool's kinds of machine for scripts, under /ops/api: list, add, change, move, remove, ask again. Prices are for who sees money."""

from __future__ import annotations

from typing import Any

from django.urls import path
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.console import roles
from controlplane.console.scripting import OperatorView
from controlplane.kernel import jsonbody
from controlplane.kernel.errors import Forbidden, Invalid, NotFound
from fleet import offers, queries_offers
from fleet.models import Pool, PoolOffer
from fleet.presenting import stamp
from fleet.queries_offers import Kind

_ANYWHERE = ("reason", "rank")


class Offers(OperatorView):
    """GET lists a pool's kinds in the order they are tried; POST {"gpu", "price_per_hour_microusd", …} adds one, last or at `rank`."""

    roles = {"POST": "fleet"}

    def get(self, request: Request, slug: str) -> Response:
        return Response({"results": _all(request, _pool(slug)), "next": None})

    def post(self, request: Request, slug: str) -> Response:
        pool, now = _pool(slug), timezone.now()
        terms, reason, rank = _read(request)
        made = offers.add(pool, terms, actor=_actor(request), reason=reason, to=rank, now=now)
        return Response(_one(request, pool, made), status=201)


class OneOffer(OperatorView):
    """GET one; PATCH sets what is named, `rank` its place from 1; DELETE removes it unless workers of it live."""

    roles = {"PATCH": "fleet", "DELETE": "fleet"}

    def get(self, request: Request, slug: str, offer: int) -> Response:
        pool = _pool(slug)
        return Response(_one(request, pool, offers.named(pool, offer)))

    def patch(self, request: Request, slug: str, offer: int) -> Response:
        pool, now = _pool(slug), timezone.now()
        held = offers.named(pool, offer)
        terms, reason, rank = _read(request)
        if "price_per_hour_microusd" in terms and not roles.sees_money(request._request):
            raise Forbidden("price_hidden", "Your roles do not show prices, so they cannot change one.", "Leave price_per_hour_microusd out, or ask an admin.")
        offers.change(held, terms, actor=_actor(request), reason=reason, to=rank, now=now)
        return Response(_one(request, pool, held))

    def delete(self, request: Request, slug: str, offer: int) -> Response:
        reason = request.query_params.get("reason", "").replace("\x00", "")[:300]
        offers.remove(offers.named(_pool(slug), offer), actor=_actor(request), reason=reason, now=timezone.now())
        return Response(status=204)


class AskAgain(OperatorView):
    """POST: let it be ordered at once though it could not be had a moment ago."""

    roles = {"POST": "fleet"}

    def post(self, request: Request, slug: str, offer: int) -> Response:
        pool = _pool(slug)
        jsonbody.only(jsonbody.load(request._request.body) if request._request.body else {}, ())
        held = offers.named(pool, offer)
        offers.ask_again(held, actor=_actor(request), now=timezone.now())
        return Response(_one(request, pool, held))


def _read(request: Request) -> tuple[dict[str, Any], str, int | None]:
    """Terms, reason and place of a body."""
    body = jsonbody.load(request._request.body)
    jsonbody.only(body, (*offers.FIELDS, *_ANYWHERE))
    reason, rank = body.pop("reason", ""), body.pop("rank", None)
    if not isinstance(reason, str) or len(reason) > 300:
        raise Invalid("wrong_type", "reason must be text of at most 300 characters.", "Say why in a sentence, or leave it out.", details={"field": "reason"})
    return body, reason.replace("\x00", ""), rank


def _actor(request: Request) -> str:
    return str(request.user.get_username())


def _pool(slug: str) -> Pool:
    found = Pool.objects.filter(slug=slug[:60]).first() if "\x00" not in slug else None
    if found is None:
        raise NotFound("pool_not_found", f"There is no pool called {slug[:60]!r}.", "Its page in the console names it.")
    return found


def _all(request: Request, pool: Pool) -> list[dict[str, Any]]:
    return [_row(kind, money=roles.sees_money(request._request)) for kind in queries_offers.of_pool(pool, now=timezone.now()).rows]


def _one(request: Request, pool: Pool, offer: PoolOffer) -> dict[str, Any]:
    found = next((row for row in _all(request, pool) if row["id"] == offer.id), None)
    return found or {"id": offer.id, "removed": True}  # by somebody else, a moment ago


def _row(kind: Kind, *, money: bool) -> dict[str, Any]:
    offer = kind.offer
    shown = {
        "id": offer.id,
        "rank": kind.place,
        "gpu": offer.gpu,
        "market": offer.market,
        "most": offer.most,
        "placement": offer.placement,
        "available": not (kind.refused or kind.full),
        "workers": kind.workers,
        "unavailable_until": stamp(offer.unavailable_until),
        "unavailable_reason": offer.unavailable_reason,
        "interruptions": offer.interruptions,
        "worker_hours": round(offer.worker_hours, 3),
    }
    return shown | ({"price_per_hour_microusd": offer.price_per_hour_microusd} if money else {})


urlpatterns = [
    path("pools/<str:slug>/offers", Offers.as_view(), name="operator-offers"),
    path("pools/<str:slug>/offers/<int:offer>", OneOffer.as_view(), name="operator-offer"),
    path("pools/<str:slug>/offers/<int:offer>/ask-again", AskAgain.as_view(), name="operator-offer-ask"),
]
