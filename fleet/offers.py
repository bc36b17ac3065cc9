"""The kinds of machine a pool may order, in the order they are tried: add, change, remove, reorder, ask again.

What is wrong is refused before it is kept, so that an order never fails for a typing error. A kind with live workers stays:
Kubernetes would otherwise end their pods, and their price would have no name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import copy
from datetime import datetime
from itertools import count
from typing import Any

from django.db import transaction

from controlplane.kernel import audit
from controlplane.kernel.errors import Conflict, Invalid, NotFound
from fleet.models import Pool, PoolOffer, Worker
from fleet.pools import MOST_WORKERS
from fleet.providers import settings as provider_settings

FIELDS = ("gpu", "market", "price_per_hour_microusd", "most", "placement")
"""The columns of an offer that a person sets; its place is set by `move`."""
MARKETS = ("on_demand", "spot")
MOST_OFFERS = 20
DEAREST_MICROUSD = 100_000_000_000
"""An hour of any machine costs less; more is a typing error."""
MOST_PLACEMENT = 20_000
_OTHER_KIND = ("gpu", "market", "placement")
"""What of an offer makes it another kind of machine: what was learned of the old one does not count for the new one."""


@transaction.atomic
def add(pool: Pool, terms: Mapping[str, Any], *, actor: str, reason: str = "", to: int | None = None, now: datetime) -> PoolOffer:
    """A further kind, tried after the others or as the `to`-th. `terms` are FIELDS, at least gpu and price. Raises Invalid or Conflict."""
    held = Pool.objects.select_for_update().get(id=pool.id)
    ranks = list(held.offers.values_list("rank", flat=True))
    if len(ranks) >= MOST_OFFERS:
        raise Conflict("offers_full", f"A pool has at most {MOST_OFFERS} kinds of machine.", "Remove one that is no longer ordered.")
    if "gpu" not in terms or "price_per_hour_microusd" not in terms:
        missing = "gpu" if "gpu" not in terms else "price_per_hour_microusd"
        raise Invalid("missing_field", f"{missing} is missing.", "A kind of machine has a GPU and a price an hour.", details={"field": missing})
    offer = PoolOffer(pool=held, rank=_next(ranks))
    _set(held, offer, terms)
    offer.save(force_insert=True)
    _note("pool.offer_add", offer, actor=actor, reason=reason, after=terms_of(offer), now=now)
    if to is not None:
        move(offer, to=to, actor=actor, now=now)
    return offer


@transaction.atomic
def change(offer: PoolOffer, terms: Mapping[str, Any], *, actor: str, reason: str = "", to: int | None = None, now: datetime) -> bool:
    """Set some of its FIELDS, and make it the `to`-th; False when nothing differs. Raises Invalid, or Conflict where it would replace live pods.

    Workers that run keep the price agreed when they were ordered.
    """
    held = _held(offer)
    before = terms_of(held)
    _set(held.pool, held, terms)
    after = terms_of(held)
    others = [name for name in _OTHER_KIND if before[name] != after[name]]
    if others and held.pool.provider == "kubernetes" and (live := Worker.objects.filter(offer=held, state__in=Worker.LIVE).count()):
        raise Conflict(  # they are the pod's template: Kubernetes would replace every pod of it, whatever it works on
            "offer_in_use",
            f"{live:,} pod{' of it lives and' if live == 1 else 's of it live and'} would be replaced.",
            "Add a further kind, and set the most of this one to 0; remove it when its pods have left.",
            details={"field": others[0], "live": live},
        )
    moves = to is not None and move(offer, to=to, actor=actor, now=now)
    if before == after:
        return moves
    fields = list(FIELDS)
    if others:
        held.unavailable_until, held.unavailable_reason = None, ""
        fields += ["unavailable_until", "unavailable_reason"]
    if (before["gpu"], before["market"]) != (after["gpu"], after["market"]):
        held.interruptions, held.worker_hours = 0, 0.0
        fields += ["interruptions", "worker_hours"]
    held.save(update_fields=fields)
    moved = [name for name in FIELDS if before[name] != after[name]]
    told = {"offer": held.id, "rank": held.rank}
    _note(
        "pool.offer_change",
        held,
        actor=actor,
        reason=reason,
        before=told | {name: before[name] for name in moved},
        after=told | {name: after[name] for name in moved},
        now=now,
    )
    return True


@transaction.atomic
def remove(offer: PoolOffer, *, actor: str, reason: str = "", now: datetime) -> None:
    """The kind is no longer ordered. Raises Conflict while workers of it live."""
    held = _held(offer)
    live = Worker.objects.filter(offer=held, state__in=Worker.LIVE).count()
    if live:
        raise Conflict(
            "offer_in_use",
            f"{live:,} worker{' of it lives' if live == 1 else 's of it live'}.",
            "Set its most to 0, so that no more are ordered, drain them, and remove it then.",
            details={"field": "most", "live": live},
        )
    before = terms_of(held)
    named = PoolOffer(id=held.id, pool=held.pool, rank=held.rank, gpu=held.gpu, market=held.market)
    held.delete()
    _note("pool.offer_remove", named, actor=actor, reason=reason, before=before, now=now)


@transaction.atomic
def move(offer: PoolOffer, *, to: int, actor: str, now: datetime) -> bool:
    """Make it the `to`-th that is tried, from 1; False when it is already. Raises Invalid for a place there is not."""
    held = _held(offer)
    rows = list(held.pool.offers.order_by("rank"))
    if type(to) is not int or not 1 <= to <= len(rows):
        raise Invalid("place_invalid", f"There is no place {to!r}"[:80] + ".", f"Places go from 1 to {len(rows)}.", details={"field": "rank"})
    before = [row.id for row in rows]
    after = [id_ for id_ in before if id_ != held.id]
    after.insert(to - 1, held.id)
    if before == after:
        return False
    _rank(rows, after)
    named = {row.id: f"{row.gpu} {row.get_market_display()}" for row in rows}
    _note("pool.offer_order", held, actor=actor, before={"order": [named[i] for i in before]}, after={"order": [named[i] for i in after]}, now=now)
    return True


@transaction.atomic
def ask_again(offer: PoolOffer, *, actor: str, now: datetime) -> None:
    """Let it be ordered at the next turn though it could not be had a moment ago. Raises Conflict when nothing keeps it back."""
    held = _held(offer)
    if held.unavailable_until is None or held.unavailable_until <= now:
        raise Conflict("offer_available", f"Nothing keeps {held.gpu} back.", "It is ordered when the pool needs a worker.")
    until = held.unavailable_until
    PoolOffer.objects.filter(id=held.id).update(unavailable_until=now)
    _note("pool.offer_ask_again", held, actor=actor, before={"unavailable_until": until.isoformat()}, after={"unavailable_until": now.isoformat()}, now=now)


def problems(pool: Pool, terms: Mapping[str, Any], offer: PoolOffer | None = None) -> dict[str, Invalid]:
    """What is wrong with these terms, by field, all at once: for a form. `offer` is the one they would change."""
    found: dict[str, Invalid] = {}
    left = dict(terms)
    while True:
        trial = PoolOffer(pool=pool, gpu="any", price_per_hour_microusd=0) if offer is None else copy(offer)
        try:
            _set(pool, trial, left)
        except Invalid as refusal:
            field = str(refusal.details.get("field"))
            if field not in left:
                return found | {field: refusal}
            found[field] = refusal
            del left[field]
        else:
            return found


def named(pool: Pool, offer_id: int) -> PoolOffer:
    """The pool's offer of that id. Raises NotFound."""
    found = pool.offers.filter(id=offer_id).first() if 0 < offer_id < 2**63 else None
    if found is None:
        raise NotFound("offer_not_found", f"{pool.slug} has no such kind of machine.", f"GET /ops/api/pools/{pool.slug}/offers lists them.")
    return found


def terms_of(offer: PoolOffer) -> dict[str, Any]:
    """Its terms as plain JSON."""
    return {name: getattr(offer, name) for name in FIELDS}


def _held(offer: PoolOffer) -> PoolOffer:
    """The row as it is now, with its pool locked: whoever changes the pool's offers waits."""
    pool = Pool.objects.select_for_update().get(id=offer.pool_id)
    row = named(pool, offer.id)
    row.pool = pool
    return row


def _next(ranks: list[int]) -> int:
    """A place after the others; what was counted up to the end by hand leaves room somewhere."""
    after = max(ranks, default=0) + 1
    return after if after <= 32_767 else next(n for n in count(1) if n not in set(ranks))


def _rank(rows: list[PoolOffer], order: list[int]) -> None:
    """Number the rows 1, 2, 3 in this order. A place is taken once at every moment, so each moves aside first."""
    taken = {row.rank for row in rows}
    aside = (n for n in count(len(rows) + 1) if n not in taken)
    for row in rows:
        PoolOffer.objects.filter(id=row.id).update(rank=next(aside))
    for rank, id_ in enumerate(order, 1):
        PoolOffer.objects.filter(id=id_).update(rank=rank)


def _set(pool: Pool, offer: PoolOffer, terms: Mapping[str, Any]) -> None:
    for name, value in terms.items():
        if name not in FIELDS:
            raise Invalid("term_unknown", f"A kind of machine has no {str(name)[:40]!r}.", f"It has {', '.join(FIELDS)}.", details={"field": str(name)[:40]})
        setattr(offer, name, value)
    gpu = offer.gpu.replace("\x00", "").strip() if isinstance(offer.gpu, str) else ""
    if not 0 < len(gpu) <= 60:
        raise Invalid("gpu_invalid", "A kind of machine is named by its GPU, in at most 60 characters.", "Such as L40S, or cpu.", details={"field": "gpu"})
    offer.gpu = gpu
    if offer.market not in MARKETS:
        raise Invalid("market_unknown", f"There is no market {str(offer.market)[:40]!r}.", f"Use one of {', '.join(MARKETS)}.", details={"field": "market"})
    _check_price(offer.price_per_hour_microusd)
    if offer.most is not None and (type(offer.most) is not int or not 0 <= offer.most <= MOST_WORKERS):
        raise Invalid(
            "most_invalid",
            f"At most 0 to {MOST_WORKERS:,} workers may be of one kind.",
            "Left out, there is no limit but the pool's.",
            details={"field": "most"},
        )
    if "placement" in terms:  # what was written by hand before is refused when it is used, and stands in nobody's way
        _check_placement(pool, offer)


def _check_price(price: object) -> None:
    if type(price) is not int or price < 0:
        raise Invalid(
            "price_negative", "A price cannot be negative.", "Write what one worker costs an hour, or 0.", details={"field": "price_per_hour_microusd"}
        )
    if price > DEAREST_MICROUSD:
        raise Invalid(
            "price_too_high",
            f"No worker costs more than ${DEAREST_MICROUSD // 1_000_000:,} an hour.",
            "The price is for one worker and one hour, in micro-dollars where a script writes it.",
            details={"field": "price_per_hour_microusd"},
        )


def _check_placement(pool: Pool, offer: PoolOffer) -> None:
    """Its placement, together with what the pool's own settings say. Raises Invalid."""
    said = {"field": "placement"}
    if not isinstance(offer.placement, dict) or not _kept(offer.placement):
        raise Invalid("placement_invalid", "A placement is a JSON object of at most 20,000 characters.", "Leave it out where nothing differs.", details=said)
    try:
        provider_settings.checked(pool.provider, pool.settings, placements={offer.gpu: offer.placement})
    except Invalid as refusal:
        wrong = refusal.details.get("settings", {})
        own = any(str(name).startswith(f"{offer.gpu}: ") for name in wrong)
        suggestion = refusal.suggestion if own else "This is the pool's own setting: correct it where its policy is edited, then come back."
        raise Invalid("placement_invalid", refusal.message, suggestion, details=said | {"settings": wrong}) from None


def _kept(placement: dict[str, Any]) -> bool:
    """Whether every database keeps it: short enough, no number that is none, no zero byte."""
    try:
        text = json.dumps(placement, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        return False
    return len(text) <= MOST_PLACEMENT and "\\u0000" not in text


def _note(
    action: str,
    offer: PoolOffer,
    *,
    actor: str,
    reason: str = "",
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    now: datetime,
) -> None:
    audit.record(
        actor=actor,
        action=action,
        object_type="pool",
        object_id=offer.pool.slug,
        before=before,
        after=after,
        reason=reason or f"{offer.gpu}, {offer.get_market_display()}",
        now=now,
    )
