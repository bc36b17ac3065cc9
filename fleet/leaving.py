"""Ask a worker to go, and tell its provider: where that is told a count, one less is wanted from then on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from django.db import transaction

from fleet import membership
from fleet.models import Pool, Worker
from fleet.providers.base import Provider, ProviderError


def let_go(worker: Worker, pool: Pool, provider: Provider, *, actor: str, reason: str, fence: Callable[[], None], now: datetime) -> str:
    """Drain `worker` for `reason`; says what was done. Its agent hears of it at its next heartbeat."""
    with transaction.atomic():
        fence()
        membership.drain(worker, actor=actor, reason=reason, now=now)
    if provider.counted:
        try:
            told = provider.observe(pool).wanted
            if told:
                provider.resize(pool, wanted=told - 1, victims=[worker])
        except ProviderError as error:  # the scaler sees one too many then, and takes it back
            return f"{worker.name} leaves, but its provider did not hear of it: {error}"[:200]
    return f"{worker.name} leaves: {reason}"
