"""What the scaler asks of whoever runs workers. State is read from the provider, never remembered: every call may be repeated.

There are two kinds. One that starts *each* worker by itself (processes, containers) is given a row that was written ahead and answers
with a reference. One that is told a *count* (a Kubernetes Deployment) is given the number and whom to take first; its workers' rows
are made from what it shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fleet.models import Pool, PoolOffer, Worker

Ref = dict[str, Any]


class ProviderError(Exception):
    """The provider could not do what was asked, for a reason of its own. `retry_after_s` is its wish, if it told one."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(ProviderError):
    """Down, slow or throttled: nothing is known of its workers now, so nothing is concluded from their absence."""


class NoCapacity(ProviderError):
    """This kind of machine cannot be had now; another kind may."""


class Refused(ProviderError):
    """It will not work as asked however often it is tried: an image it does not have, settings it does not take."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One worker as the provider sees it."""

    name: str
    """The worker's `instance`."""
    ref: Ref
    phase: str
    """pending (not running yet), running, stopping, ended."""
    failed: bool = False
    """Ended by itself, with an error; or pending for a reason that will not pass (image cannot be pulled)."""
    why: str = ""
    """Why it is pending, ended or failed, in one sentence; empty when there is nothing to say."""
    image: str = ""
    market: str = ""
    gpu: str = ""
    zone: str = ""
    preempt_in_s: float | None = None
    """Seconds until the provider takes it away, when it gave notice."""
    short: bool = False
    """It has waited long for a machine of its kind: another kind may be had."""


@dataclass(frozen=True, slots=True)
class Observed:
    """A pool as its provider sees it."""

    instances: Mapping[str, Instance] = field(default_factory=dict)
    wanted: int | None = None
    """Of a provider that is told a count: the count it was told."""
    heard_s: float = 0.0
    """Of a provider that is watched: seconds since it last said anything of its workers."""
    silent: Mapping[str, str] = field(default_factory=dict)
    """Of a provider of several machines: the hosts that did not answer, and why. The rest is known."""
    closed: frozenset[int | None] = frozenset()
    """Offers on silent hosts, by id; None for what the pool orders without an offer."""

    def hides(self, worker: Worker) -> bool:
        """Whether nothing is known of this worker, because its host is silent: its absence means nothing."""
        return worker.provider_ref.get("host") in self.silent if worker.provider_ref else worker.offer_id in self.closed


class Provider(Protocol):
    """Order, stop and look after workers. No call waits for a worker to become ready."""

    orders: bool
    """Whether workers can be ordered at all."""
    counted: bool
    """Whether it is told a count (`resize`) instead of each worker (`launch`)."""
    knows: bool
    """Whether `observe` shows every worker, so that absence means gone."""

    def observe(self, pool: Pool) -> Observed:
        """Everything of this pool that it runs or has run and not forgotten; of several hosts, what those that answer show.

        Raises Unavailable when nothing can be known.
        """

    def launch(self, worker: Worker) -> Ref:
        """Start an agent for this row (its `pool`, `offer`, `image`, `instance`, `name`) and return how to find it again.

        Called twice for one instance it starts one. Raises NoCapacity, Refused or Unavailable.
        """

    def resize(self, pool: Pool, *, wanted: int, victims: Sequence[Worker] = ()) -> None:
        """Counted providers: run `wanted` workers; of those to go, `victims` first. Raises Unavailable or Refused."""

    def tend(self, pool: Pool) -> list[str]:
        """Counted providers: bring what stands around the workers up to date (image, settings, whom to spare); says what was done."""

    def stop(self, ref: Ref, *, force: bool = False) -> None:
        """Ask it to finish and leave, or with `force` end it now. Stopping what is gone does nothing. Raises Unavailable."""

    def boot_log(self, ref: Ref, *, lines: int = 40) -> list[str]:
        """The last lines it wrote, oldest first; empty when they cannot be had. Never raises."""

    def forget(self, instance: str, ref: Ref) -> None:
        """Drop what is kept about an instance that has ended (a stopped container, its files)."""

    def price(self, pool: Pool, offer: PoolOffer | None) -> int:
        """Micro-dollars an hour for one worker: as the offer says, or the pool when there is none."""
