"""Order workers: the row first, then the provider; the kind of machine that cannot be had is left for the next one."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings

from fleet.models import Pool, PoolOffer, Worker
from fleet.observing import PROVIDER_DOWN, Observed
from fleet.providers.base import NoCapacity, Provider, ProviderError, Ref, Unavailable
from fleet.sizing import offers

log = logging.getLogger(__name__)

AT_ONCE = 8
NO_CAPACITY = "no_capacity"
NO_CAPACITY_RETRY_S = 60.0
"""Before the only kind of machine of a pool is asked for again after it could not be had; of several, OFFER_RETRY_S."""


def write_ahead(pool: Pool, found: Observed, count: int, *, now: datetime) -> list[Worker]:
    """Rows of `count` workers that are about to be ordered, each with its kind of machine; fewer when no kind can be had."""
    kinds = _kinds(pool, found, count, now=now)
    return [_row(pool, kind, now=now) for kind in kinds]


def launch(ordered: Sequence[Worker], provider: Provider, *, now: datetime) -> list[str]:
    """Ask the provider for each; says what came of them. One that cannot be had is tried as the pool's next kind of machine, once."""
    said: list[str] = []
    began = time.monotonic()
    with ThreadPoolExecutor(max_workers=min(AT_ONCE, len(ordered)), thread_name_prefix="launch") as threads:
        for worker, ref, error in threads.map(lambda w: _try(w, provider), ordered):
            if isinstance(error, NoCapacity) and worker.offer is not None:
                ref, error = _elsewhere(worker, provider, error, now=now + timedelta(seconds=time.monotonic() - began))
            if error is not None:  # dated when it was said: a provider that was slow to is left alone for as long as a quick one
                if why := _given_up(worker, error, now=now + timedelta(seconds=time.monotonic() - began)):
                    said.append(why)
            else:
                Worker.objects.filter(id=worker.id).update(provider_ref=ref)
    started = len(ordered) - len(said)
    if started:
        said.insert(0, f"{ordered[0].name} was ordered." if len(ordered) == 1 else f"{started} were ordered.")
    return said


def price(pool: Pool, offer: PoolOffer | None) -> int:
    """Micro-dollars an hour for one worker."""
    return pool.price_per_hour_microusd if offer is None else offer.price_per_hour_microusd


def _kinds(pool: Pool, found: Observed, count: int, *, now: datetime) -> list[PoolOffer | None]:
    rows = {row.id: row for row in PoolOffer.objects.filter(pool=pool)}
    if not rows:
        since = now - timedelta(seconds=NO_CAPACITY_RETRY_S)
        full = Worker.objects.filter(pool=pool, stop_reason=NO_CAPACITY, stopped_at__gt=since, stopped_at__lte=now).exists()
        return [] if full else [None] * count
    choice = offers.choose(
        [_offer(row, now=now) for row in rows.values()],
        count,
        live=found.by_offer,
        base=found.seen.base,
        on_demand_share=pool.on_demand_share,
        job_s=found.seen.job.mean_s,
        cold_s=found.seen.cold.p90_s,
    )
    return [rows[id_] for id_ in choice]


def _offer(row: PoolOffer, *, now: datetime) -> offers.Offer:
    return offers.Offer(
        id=row.id,
        rank=row.rank,
        market=row.market,
        price_per_hour_microusd=row.price_per_hour_microusd,
        most=row.most,
        available=row.unavailable_until is None or row.unavailable_until <= now,
        interruptions=row.interruptions,
        worker_hours=row.worker_hours,
    )


def _row(pool: Pool, kind: PoolOffer | None, *, now: datetime) -> Worker:
    mark = secrets.token_hex(8)
    return Worker.objects.create(
        pool=pool,
        name=f"w-{mark[:4]}",
        instance=f"{pool.slug}-{mark}",
        state=Worker.State.ORDERED,
        state_since=now,
        ordered_at=now,
        offer=kind,
        market=kind.market if kind else Worker.Market.ON_DEMAND,
        gpu=kind.gpu if kind else pool.gpu,
        image=pool.image,
        price_per_hour_microusd=price(pool, kind),
    )


def _try(worker: Worker, provider: Provider) -> tuple[Worker, Ref, ProviderError | None]:
    """Runs in a thread of its own: everything it reads of the row is loaded."""
    try:
        return worker, provider.launch(worker), None
    except ProviderError as error:
        return worker, {}, error
    except Exception as error:
        log.exception("a provider failed", extra={"worker": worker.name})
        return worker, {}, ProviderError(f"The provider failed: {error}"[:300])


def _elsewhere(worker: Worker, provider: Provider, error: NoCapacity, *, now: datetime) -> tuple[Ref, ProviderError | None]:
    """The pool's next kind of machine, when the first cannot be had. The first is left alone for a while."""
    full = worker.offer
    assert full is not None
    until = now + timedelta(seconds=error.retry_after_s or settings.OFFER_RETRY_S)
    PoolOffer.objects.filter(id=full.id).update(unavailable_until=until, unavailable_reason=str(error)[:300])
    others = PoolOffer.objects.filter(pool=worker.pool).exclude(id=full.id).order_by("rank")
    for other in others:
        if other.unavailable_until is not None and other.unavailable_until > now:
            continue
        if other.most is not None and Worker.objects.filter(offer=other, state__in=Worker.LIVE).count() >= other.most:
            continue
        worker.offer, worker.market, worker.gpu, worker.price_per_hour_microusd = other, other.market, other.gpu, other.price_per_hour_microusd
        worker.save(update_fields=["offer", "market", "gpu", "price_per_hour_microusd"])
        _, ref, again = _try(worker, provider)
        if not isinstance(again, NoCapacity):
            return ref, again
        PoolOffer.objects.filter(id=other.id).update(unavailable_until=until, unavailable_reason=str(again)[:300])
    return {}, error


def _given_up(worker: Worker, error: ProviderError, *, now: datetime) -> str:
    """End the row of a worker that could not be ordered; empty when it registered meanwhile. A provider that is down is no fault of the worker's.

    It is not asked for elsewhere: what does not answer may have started it. The next one is, of another kind of machine if there is one.
    """
    if isinstance(error, Unavailable) and worker.offer_id is not None:
        until = now + timedelta(seconds=settings.PROVIDER_RETRY_S)
        PoolOffer.objects.filter(id=worker.offer_id).exclude(unavailable_until__gte=until).update(unavailable_until=until, unavailable_reason=str(error)[:300])
    reason = PROVIDER_DOWN if isinstance(error, Unavailable) else NO_CAPACITY if isinstance(error, NoCapacity) else "order_failed"
    ended: dict[str, Any] = {"state": "stopped", "state_since": now, "stopped_at": now, "stop_reason": reason, "stop_message": str(error)[:500]}
    if not Worker.objects.filter(id=worker.id, state__in=Worker.LIVE, registered_at__isnull=True).update(**ended):
        log.info("worker registered before its order failed", extra={"worker": worker.name, "why": str(error)})
        return ""  # it started, only the answer was lost: how to find it is noted when it is seen
    log.warning("worker not ordered", extra={"worker": worker.name, "why": str(error)})
    return f"{worker.name} could not be ordered: {error}"
