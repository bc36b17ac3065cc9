"""Take a whole pool out of work: its sizing is paused and every worker finishes its job and leaves. Undone by resuming its sizing."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from fleet import membership, pools
from fleet.models import Pool, Worker


@transaction.atomic
def drain(pool: Pool, *, until: datetime, reason: str, actor: str, now: datetime) -> int:
    """Ask every worker of `pool` to leave, and order none until then; returns how many were asked. Raises Invalid for an end past or far off."""
    pools.pause(pool, until=until, reason=f"Drained: {reason}"[:200], actor=actor, now=now)
    asked = 0
    for worker in Worker.objects.filter(pool=pool, state__in=Worker.LIVE, drain_asked_at__isnull=True).order_by("id"):
        membership.drain(worker, actor=actor, reason=reason, now=now)
        asked += 1
    return asked
