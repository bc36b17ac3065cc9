"""Make pools and change how they are sized. Every change is a revision; nothing of it reaches a running job."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_slug
from django.db import transaction
from django.db.models import Max

from controlplane.kernel import audit
from controlplane.kernel.errors import Conflict, Invalid
from fleet.models import PolicyRevision, Pool, PoolOffer
from fleet.providers import settings as provider_settings
from fleet.sizing import policies

MOST_WORKERS = 1000
LONGEST_PAUSE = timedelta(days=7)
TERMS = (
    "base",
    "max",
    "policy",
    "knobs",
    "shadows",
    "target_s",
    "target_share",
    "forecast_floor",
    "forecast_base",
    "budget_per_hour_microusd",
    "budget_per_day_microusd",
    "on_demand_share",
    "price_per_hour_microusd",
    "image",
    "settings",
    "start_s",
)
"""The columns of a pool that a policy revision holds."""


@transaction.atomic
def create(
    *, slug: str, name: str, provider: str, base: int, maximum: int, price_per_hour_microusd: int, gpu: str = "cpu", actor: str, now: datetime, **terms: Any
) -> Pool:
    """A new pool; the scaler starts its base workers within seconds. `terms` are further TERMS. Raises Invalid or Conflict."""
    try:
        validate_slug(slug)
    except ValidationError:
        raise Invalid("slug_invalid", f"{slug!r} cannot be a pool's short name.", "Use small letters, digits and dashes.", details={"field": "slug"}) from None
    if provider not in Pool.Provider.values:
        raise Invalid(
            "provider_unknown", f"There is no provider {provider!r}.", f"Choose from {', '.join(Pool.Provider.values)}.", details={"field": "provider"}
        )
    pool = Pool(slug=slug, name=name or slug, provider=provider, gpu=gpu or "cpu", created_at=now)
    _set(pool, {"base": base, "max": maximum, "price_per_hour_microusd": price_per_hour_microusd} | terms)
    if Pool.objects.filter(slug=slug).exists():
        raise Conflict("pool_exists", f"There is already a pool called {slug}.", "Choose another short name.", details={"field": "slug"})
    pool.save(force_insert=True)
    _revise(pool, reason="Made", replay={}, actor=actor, now=now)
    audit.record(actor=actor, action="pool.create", object_type="pool", object_id=slug, after=terms_of(pool), now=now)
    return pool


@transaction.atomic
def change(pool: Pool, changes: Mapping[str, Any], *, actor: str, reason: str = "", replay: Mapping[str, Any] | None = None, now: datetime) -> bool:
    """Set some of the pool's TERMS; False when nothing differs. `replay` is what was shown of its effect. Raises Invalid."""
    held = Pool.objects.select_for_update().get(id=pool.id)
    before = terms_of(held)
    _set(held, changes)
    after = terms_of(held)
    if before == after:
        return False
    if before["image"] != after["image"]:
        held.previous_image = before["image"]
    held.save(update_fields=[*TERMS, "previous_image"])
    revision = _revise(held, reason=reason, replay=dict(replay or {}), actor=actor, now=now)
    moved = [name for name in TERMS if before[name] != after[name]]
    audit.record(
        actor=actor,
        action="pool.change",
        object_type="pool",
        object_id=held.slug,
        before={name: before[name] for name in moved},
        after={name: after[name] for name in moved} | {"revision": revision.number},
        reason=reason,
        now=now,
    )
    return True


@transaction.atomic
def pause(pool: Pool, *, until: datetime, reason: str, actor: str, now: datetime) -> None:
    """Change nothing of the pool's size until then. Jobs go on. Raises Invalid for a time that is past or far off."""
    if not now < until <= now + LONGEST_PAUSE:
        raise Invalid("pause_invalid", "A pause ends in the future, within seven days.", "Choose another end.", details={"field": "until"})
    Pool.objects.filter(id=pool.id).update(paused_until=until, paused_reason=reason[:200])
    audit.record(actor=actor, action="pool.pause", object_type="pool", object_id=pool.slug, after={"until": until.isoformat()}, reason=reason, now=now)


@transaction.atomic
def unpause(pool: Pool, *, actor: str, now: datetime) -> None:
    """Let sizing act again. Raises Conflict when it is not paused."""
    if not Pool.objects.filter(id=pool.id, paused_until__gt=now).update(paused_until=None, paused_reason=""):
        raise Conflict("pool_not_paused", f"Sizing of {pool.slug} is not paused.", "Nothing needs to be done.")
    audit.record(actor=actor, action="pool.unpause", object_type="pool", object_id=pool.slug, now=now)


def terms_of(pool: Pool) -> dict[str, Any]:
    """The pool's terms as plain JSON."""
    return {name: getattr(pool, name) for name in TERMS}


def latest_revision(pool: Pool) -> PolicyRevision | None:
    """The revision in force; None for a pool older than revisions."""
    return PolicyRevision.objects.filter(pool=pool).order_by("-number").first()


def checked(pool: Pool, changes: Mapping[str, Any]) -> Pool:
    """A copy of `pool`, not saved, with these terms: for a replay before saving. Raises Invalid."""
    trial = Pool.objects.get(id=pool.id)
    _set(trial, changes)
    return trial


def _revise(pool: Pool, *, reason: str, replay: dict[str, Any], actor: str, now: datetime) -> PolicyRevision:
    number = (PolicyRevision.objects.filter(pool=pool).aggregate(n=Max("number"))["n"] or 0) + 1
    return PolicyRevision.objects.create(pool=pool, number=number, terms=terms_of(pool), replay=replay, reason=reason[:300], author=actor[:120], created_at=now)


def _set(pool: Pool, changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        if name not in TERMS:
            raise Invalid("term_unknown", f"A pool has no setting {name!r}.", f"It has {', '.join(TERMS)}.", details={"field": name})
        setattr(pool, name, value)
    _check_bounds(pool)
    _check_policy(pool)
    _check_money(pool)
    if "settings" in changes:  # what was written by hand before is refused when it is used, and stands in nobody's way
        offers = PoolOffer.objects.filter(pool_id=pool.pk).values_list("rank", "placement") if pool.pk else ()
        pool.settings = provider_settings.checked(pool.provider, pool.settings, placements={f"offer {rank}": placement for rank, placement in offers})


def _check_bounds(pool: Pool) -> None:
    base, maximum = pool.base, pool.max
    if any(type(n) is not int for n in (base, maximum)) or base < 0 or maximum < base or maximum > MOST_WORKERS:
        field = "maximum" if type(maximum) is not int or (type(base) is int and maximum < base) or maximum > MOST_WORKERS else "base"
        raise Invalid(
            "pool_bounds_invalid",
            f"A pool of {base} to {maximum} workers is not possible.",
            f"The minimum is 0 or more, the maximum at least the minimum and at most {MOST_WORKERS:,}.",
            details={"field": field},
        )
    if pool.forecast_base is not None and not 0 <= pool.forecast_base <= base:
        raise Invalid(
            "forecast_base_invalid", f"A forecast cannot lower the minimum of {base} to {pool.forecast_base}.", "Use 0 up to the minimum, or leave it empty.",
            details={"field": "forecast_base"},
        )  # fmt: skip
    if pool.start_s is not None and not 5 <= pool.start_s <= 7200:
        raise Invalid("start_invalid", "A worker may take from 5 to 7,200 seconds to start.", "The usual value is 120.", details={"field": "start_s"})


def _check_policy(pool: Pool) -> None:
    policies.make(pool.policy, pool.knobs)
    if not isinstance(pool.shadows, list) or len(pool.shadows) > 4:
        raise Invalid("shadows_invalid", "At most four policies run in shadow.", "Leave one out.", details={"field": "shadows"})
    for shadow in pool.shadows:
        if not isinstance(shadow, dict):
            raise Invalid("shadows_invalid", "A policy in shadow is {policy, knobs}.", "Name its policy.", details={"field": "shadows"})
        policies.make(str(shadow.get("policy")), shadow.get("knobs"))
    if not _within(pool.target_s, 1, 86_400):
        raise Invalid("target_invalid", "The wait target lies between 1 and 86,400 seconds.", "The usual value is 60.", details={"field": "target_s"})
    if not _within(pool.target_share, 0.5, 0.999):
        raise Invalid(
            "share_invalid", "The share of jobs within the target lies between 0.5 and 0.999.", "The usual value is 0.99.", details={"field": "target_share"}
        )
    if not _within(pool.on_demand_share, 0, 1):
        raise Invalid("share_invalid", "The share on demand lies between 0 and 1.", "1 means no spot workers.", details={"field": "on_demand_share"})


def _check_money(pool: Pool) -> None:
    if type(pool.price_per_hour_microusd) is not int or pool.price_per_hour_microusd < 0:
        raise Invalid("price_negative", "A price cannot be negative.", "Write what one worker costs an hour, or 0.", details={"field": "price"})
    for field in ("budget_per_hour_microusd", "budget_per_day_microusd"):
        value = getattr(pool, field)
        if value is not None and (type(value) is not int or value < 0):
            raise Invalid("budget_invalid", "A budget cannot be negative.", "Write dollars, or leave it empty.", details={"field": field})


def _within(value: object, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and least <= value <= most
