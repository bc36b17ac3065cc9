"""Bring rows and what the provider shows together: note what was launched, adopt what came by itself, end what nobody wants."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from fleet.models import Pool, PoolOffer, Worker
from fleet.providers.base import Instance, Observed, Provider, ProviderError

log = logging.getLogger(__name__)

STOP_GRACE = timedelta(seconds=15)


def settle(pool: Pool, provider: Provider, seen: Observed, *, fence: Callable[[], None], now: datetime) -> list[str]:
    """One round; says what was done. Instances whose worker is retired or was never written down are asked, then ended, then forgotten."""
    if not seen.instances:
        return []
    said: list[str] = []
    rows = {w.instance: w for w in Worker.objects.filter(instance__in=list(seen.instances)).only("id", "instance", "provider_ref", "stopped_at", "pool_id")}
    for name, instance in seen.instances.items():
        row = rows.get(name)
        try:
            if row is not None and row.stopped_at is None:
                _note(pool, row, instance, counted=provider.counted)
            elif instance.phase == "ended":
                provider.forget(name, instance.ref)
            elif row is None and provider.counted:
                if instance.phase != "stopping":  # nobody is missed who goes before anybody knew of it
                    said.append(_adopt(pool, instance, fence=fence, now=now))
            elif instance.phase != "stopping" and (row is None or (row.stopped_at is not None and now - row.stopped_at > STOP_GRACE)):
                provider.stop(instance.ref, force=True)
                said.append(f"{name} ended: no worker is written down for it")
        except ProviderError as error:
            said.append(f"{name}: {error}"[:100])
    return said


def _note(pool: Pool, row: Worker, instance: Instance, *, counted: bool) -> None:
    """Fill in what only the provider knows, once: it registered, or was ordered, but the controller ended before it noted the process.

    A worker of a counted provider may register before anybody saw it.
    """
    if not row.provider_ref and instance.ref:
        kind = _kind(pool, instance) if counted else {}
        Worker.objects.filter(id=row.id, provider_ref={}).update(provider_ref=instance.ref, **kind)


def _kind(pool: Pool, instance: Instance) -> dict[str, Any]:
    """What kind of machine it is, as columns of its row."""
    mine = PoolOffer.objects.filter(pool=pool)
    offer = mine.filter(id=instance.ref.get("offer", 0)).first() or mine.filter(gpu=instance.gpu, market=instance.market or "on_demand").first()
    return {
        "offer": offer,
        "market": instance.market or Worker.Market.ON_DEMAND,
        "gpu": instance.gpu or pool.gpu,
        "zone": instance.zone[:60],
        "image": instance.image[:300] or pool.image,
        "price_per_hour_microusd": pool.price_per_hour_microusd if offer is None else offer.price_per_hour_microusd,
    }


def _adopt(pool: Pool, instance: Instance, *, fence: Callable[[], None], now: datetime) -> str:
    """A row for an instance of a counted provider: that is where its workers come from."""
    with transaction.atomic():
        fence()
        Worker.objects.get_or_create(
            instance=instance.name,
            defaults={
                "pool": pool,
                "name": instance.name[-12:],
                "state": Worker.State.ORDERED,
                "state_since": now,
                "ordered_at": now,
                "provider_ref": instance.ref,
                **_kind(pool, instance),
            },
        )
    return f"{instance.name} adopted"
