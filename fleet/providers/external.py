"""Workers that somebody else starts: a machine at a customer's site, or a cluster that sizes itself by our metric. They are drained, never ordered."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.models import Pool, PoolOffer, Worker
from fleet.providers.base import Observed, Ref, Refused


class External:
    """Knows nothing of processes: a worker is there while it reports."""

    orders = False
    counted = False
    knows = False

    def observe(self, pool: Pool) -> Observed:
        return Observed()

    def launch(self, worker: Worker) -> Ref:
        raise Refused("The workers of this pool are started by hand, with its pool token.")

    def resize(self, pool: Pool, *, wanted: int, victims: Sequence[Worker] = ()) -> None:
        raise Refused("The size of this pool is set by somebody else.")

    def stop(self, ref: Ref, *, force: bool = False) -> None:
        return None

    def boot_log(self, ref: Ref, *, lines: int = 40) -> list[str]:
        return []

    def forget(self, instance: str, ref: Ref) -> None:
        return None

    def price(self, pool: Pool, offer: PoolOffer | None) -> int:
        return pool.price_per_hour_microusd if offer is None else offer.price_per_hour_microusd
