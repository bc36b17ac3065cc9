"""Workers that somebody else starts, e.g. a machine with a GPU at a customer's site: they are drained, never ordered."""

from __future__ import annotations

from fleet.models import Worker
from fleet.providers.base import ProviderError, Ref


class External:
    """Knows nothing of processes: a worker is there while it reports."""

    orders = False

    def order(self, worker: Worker) -> Ref:
        raise ProviderError("The workers of this pool are started by hand, with its pool token.")

    def find(self, instance: str) -> Ref | None:
        return None

    def alive(self, ref: Ref) -> bool | None:
        return None

    def stop(self, ref: Ref, *, force: bool = False) -> None:
        return None

    def known(self) -> dict[str, Ref]:
        return {}

    def forget(self, instance: str) -> None:
        return None
