"""Make pools and change their bounds."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_slug
from django.db import transaction

from controlplane.kernel import audit
from controlplane.kernel.errors import Conflict, Invalid
from fleet.models import Pool

MOST_WORKERS = 1000


@transaction.atomic
def create(*, slug: str, name: str, provider: str, base: int, maximum: int, price_per_hour_microusd: int, gpu: str = "cpu", actor: str, now: datetime) -> Pool:
    """A new pool; the scaler starts its base workers within seconds. Raises Invalid or Conflict."""
    try:
        validate_slug(slug)
    except ValidationError:
        raise Invalid("slug_invalid", f"{slug!r} cannot be a pool's short name.", "Use small letters, digits and dashes.", details={"field": "slug"}) from None
    if provider not in Pool.Provider.values:
        raise Invalid(
            "provider_unknown", f"There is no provider {provider!r}.", f"Choose from {', '.join(Pool.Provider.values)}.", details={"field": "provider"}
        )
    _check(base=base, maximum=maximum)
    if price_per_hour_microusd < 0:
        raise Invalid("price_negative", "A price cannot be negative.", "Write what one worker costs an hour, or 0.", details={"field": "price"})
    if Pool.objects.filter(slug=slug).exists():
        raise Conflict("pool_exists", f"There is already a pool called {slug}.", "Choose another short name.", details={"field": "slug"})
    pool = Pool.objects.create(
        slug=slug,
        name=name or slug,
        provider=provider,
        base=base,
        max=maximum,
        price_per_hour_microusd=price_per_hour_microusd,
        gpu=gpu or "cpu",
        created_at=now,
    )
    audit.record(actor=actor, action="pool.create", object_type="pool", object_id=slug, after=_terms(pool), now=now)
    return pool


@transaction.atomic
def change(pool: Pool, *, base: int, maximum: int, queue_per_worker: float, idle_s: int, actor: str, reason: str = "", now: datetime) -> bool:
    """Set how many workers the pool keeps and may have; False when nothing differs."""
    _check(base=base, maximum=maximum)
    if not 0 < queue_per_worker <= 1000:
        raise Invalid(
            "queue_factor_invalid", "Waiting jobs per worker must lie between 0 and 1000.", "The usual value is 0.8.", details={"field": "queue_per_worker"}
        )
    if not 0 <= idle_s <= 86400:
        raise Invalid("idle_invalid", "The idle time must lie between 0 and 86,400 seconds.", "The usual value is 300.", details={"field": "idle_s"})
    held = Pool.objects.select_for_update().get(id=pool.id)
    before = _terms(held)
    held.base, held.max, held.queue_per_worker, held.idle_s = base, maximum, queue_per_worker, idle_s
    after = _terms(held)
    if before == after:
        return False
    held.save(update_fields=["base", "max", "queue_per_worker", "idle_s"])
    audit.record(actor=actor, action="pool.change", object_type="pool", object_id=held.slug, before=before, after=after, reason=reason, now=now)
    return True


def _check(*, base: int, maximum: int) -> None:
    if base < 0 or maximum < base or maximum > MOST_WORKERS:
        field = "maximum" if maximum < base or maximum > MOST_WORKERS else "base"
        raise Invalid(
            "pool_bounds_invalid",
            f"A pool of {base} to {maximum} workers is not possible.",
            f"The minimum is 0 or more, the maximum at least the minimum and at most {MOST_WORKERS:,}.",
            details={"field": field},
        )


def _terms(pool: Pool) -> dict[str, Any]:
    return {"base": pool.base, "max": pool.max, "queue_per_worker": pool.queue_per_worker, "idle_s": pool.idle_s}
