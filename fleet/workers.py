"""Look after workers that were ordered: take back the jobs of those that are gone, and end those that should be.

What a provider shows is the truth about processes, what an agent reports about itself. Every write names the state it
starts from, so a worker that registers or leaves at the same moment wins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Min

from fleet import adoption, membership, preemption, providers, queue, replacing, watching
from fleet.models import Attempt, Job, Pool, PoolOffer, Worker
from fleet.providers.base import Instance, Observed, Provider, ProviderError

log = logging.getLogger(__name__)

DRAIN_GRACE = timedelta(seconds=30)
HEARD_EVERY = timedelta(seconds=10)
HOST_SILENT = "host_silent"
"""Why a worker was given up of whose place nothing could be seen: it ran and is paid for, but speaks against no image and halts no pool."""
NEVER_LAUNCHED = timedelta(seconds=10)
NEVER_LAUNCHED_ELSEWHERE = timedelta(seconds=120)
"""The same where a launch is calls over a network: sixteen are made eight at a time, and those with GPUs named one by one."""


def look_after(pool: Pool, *, provider: Provider | None = None, fence: Callable[[], None], now: datetime) -> list[str]:
    """One round over the pool's workers; says what was done."""
    by = provider or providers.of(pool)
    done = replacing.step(pool, provider=by, fence=fence, now=now)
    # Read before the provider is asked: one that is launched meanwhile would seem gone.
    rows = list(Worker.objects.filter(pool=pool, state__in=Worker.LIVE).order_by("id"))
    seen: Observed | None
    try:
        seen = by.observe(pool)
    except ProviderError as error:
        seen = None
        done.append(f"provider unavailable: {error}"[:100])
    if seen is not None:
        _note_heard(pool, now - timedelta(seconds=seen.heard_s))
        done += _closed(pool, seen, now=now)
        done += adoption.settle(pool, by, seen, fence=fence, now=now)
        if by.counted:
            done += _tended(pool, by)
    round_ = _Round(pool, by, seen, fence, now)
    return done + [said for worker in rows if (said := round_.check(worker))] + preemption.look_after(pool, provider=by, fence=fence, now=now)


def _note_heard(pool: Pool, at: datetime) -> None:
    """Write down when the provider was last heard, a few times a minute: others write to the row of the pool as well."""
    if pool.provider_heard_at is None or abs(at - pool.provider_heard_at) >= HEARD_EVERY:
        Pool.objects.filter(id=pool.id).update(provider_heard_at=at)


def _closed(pool: Pool, seen: Observed, *, now: datetime) -> list[str]:
    """Order nothing from hosts that are silent while others answer, until a little after they are heard again."""
    if not seen.silent:
        return []
    until, why = now + timedelta(seconds=settings.PROVIDER_RETRY_S), next(iter(seen.silent.values()))
    open_ = PoolOffer.objects.filter(pool=pool, id__in=[id_ for id_ in seen.closed if id_ is not None])
    open_.exclude(unavailable_until__gte=until).update(unavailable_until=until, unavailable_reason=why[:300])
    return [f"{len(seen.silent)} of its hosts silent: {why}"[:120]]


def _tended(pool: Pool, provider: Provider) -> list[str]:
    try:
        return provider.tend(pool)
    except ProviderError as error:
        return [f"not brought up to date: {error}"[:100]]


class _Round:
    """One look at every worker of a pool."""

    def __init__(self, pool: Pool, provider: Provider, seen: Observed | None, fence: Callable[[], None], now: datetime) -> None:
        self.pool, self.provider, self.seen, self.fence, self.now = pool, provider, seen, fence, now
        self.watched = watching.since(f"workers of {pool.id}", now=now)
        usual = timedelta(seconds=2 * settings.WORKER["LEASE_S"])
        self.heard = Worker.objects.filter(seen_at__gt=now - usual).exists()
        self.usual = usual

    def check(self, worker: Worker) -> str:
        now = self.now
        if worker.ready_at is None and worker.registered_at is not None:
            _note_ready(worker)
        instance = self.seen.instances.get(worker.instance) if self.seen is not None else None
        if self._known(worker) and (ended := self._gone(worker, instance)):
            return ended
        if instance is not None and instance.preempt_in_s is not None:
            preemption.notice(worker, at=now + timedelta(seconds=instance.preempt_in_s), why=instance.why, now=now)
        start = timedelta(seconds=self.pool.start_s or settings.WORKER["START_S"])
        began = worker.ordered_at if worker.ready_at is None else worker.state_since  # it was ready before: its ComfyUI comes up again
        if worker.state in Worker.COMING and self._passed(began) > start:
            after = "after it was ordered" if worker.ready_at is None else "after its ComfyUI went down"
            why = f"It was not ready {start.total_seconds():g} s {after}." + (f" {instance.why}" if instance and instance.why else "")
            return self._end(worker, "stopped", *self._because(worker, "start_timeout", why), instance)
        silent = self._patience(worker, instance)
        if worker.registered_at is not None and self._passed(worker.seen_at or worker.registered_at) > silent:
            why = f"Nothing was heard of it for {silent.total_seconds():g} s."
            return self._end(worker, "lost", *self._because(worker, "lost", why), instance)
        if worker.state == Worker.State.DRAINING and worker.drain_asked_at is not None and now - worker.drain_asked_at > DRAIN_GRACE:
            if not Job.objects.filter(worker=worker, status="running").exists():
                return self._end(worker, "stopped", "drained", "It had nothing to do and did not leave by itself.", instance)
        return ""

    def _known(self, worker: Worker) -> bool:
        """Whether its absence from what was seen means that it is gone."""
        return self.seen is not None and self.provider.knows and not self.seen.hides(worker)

    def _because(self, worker: Worker, reason: str, why: str) -> tuple[str, str]:
        """Reason and words of an end. While its place cannot be seen, whether it was the worker's or the place's fault is not known."""
        if not self.provider.knows or self._known(worker):
            return reason, why
        return HOST_SILENT, f"{why} {'Its provider' if self.seen is None else 'Its host'} does not answer either."

    def _passed(self, at: datetime) -> timedelta:
        return watching.passed(at, watched=self.watched, now=self.now)

    def _gone(self, worker: Worker, instance: Instance | None) -> str:
        """What to do when the provider shows that it ended, never began, or cannot begin."""
        asked = worker.drain_asked_at is not None
        if instance is None:
            if not worker.provider_ref and worker.registered_at is None:
                if self.now - worker.ordered_at < (NEVER_LAUNCHED if self.pool.provider == Pool.Provider.LOCAL else NEVER_LAUNCHED_ELSEWHERE):
                    return ""
                return self._end(worker, "stopped", "never_started", "The controller ended before it was launched.", None, kill=False)
            if not worker.provider_ref and not self.provider.counted:
                return ""  # it registered by itself, before its process was noted
            # A pod that fails stays and says so; one that is gone before it was ready was taken away by its cluster.
            reason = "drained" if asked else "taken_away" if self.provider.counted and worker.state in Worker.COMING else "vanished"
            return self._end(worker, "stopped", reason, "" if asked else "Its process ended without a word.", None, kill=False)
        if instance.phase == "ended":
            reason = "drained" if asked and not instance.failed else "vanished"
            why = "" if reason == "drained" else instance.why or "Its process ended without a word."
            return self._end(worker, "stopped", reason, why, instance, kill=False)
        if instance.failed and worker.state in Worker.COMING:
            return self._end(worker, "stopped", "start_failed", instance.why or "It cannot start.", instance)
        if instance.short and worker.state == Worker.State.ORDERED:
            if worker.offer_id is not None:
                until = self.now + timedelta(seconds=settings.OFFER_RETRY_S)
                PoolOffer.objects.filter(id=worker.offer_id).update(unavailable_until=until, unavailable_reason=instance.why[:300])
            return self._end(worker, "stopped", "no_capacity", instance.why or "No machine of its kind could be had.", instance)
        return ""

    def _patience(self, worker: Worker, instance: Instance | None) -> timedelta:
        """How long a worker may be silent. When nobody at all is heard it is more likely us: then as long as agents themselves wait."""
        if self.heard or (self._known(worker) and (instance is None or instance.phase == "ended")):
            return self.usual
        if self.seen is not None and not self.provider.knows:
            return self.usual
        return max(self.usual, timedelta(seconds=settings.WORKER["SILENCE_EXIT_S"]))

    def _end(self, worker: Worker, state: str, reason: str, message: str, instance: Instance | None, *, kill: bool = True) -> str:
        """Retire the worker and put its jobs back, in one transaction; then end its process. One that never became ready leaves its last words."""
        ref = instance.ref if instance is not None else worker.provider_ref
        log_lines = list(worker.engine_log)
        if not log_lines and ref and worker.ready_at is None and reason not in ("drained", "never_started"):
            log_lines = [line[:500] for line in self.provider.boot_log(ref)][-40:]
        with transaction.atomic():
            self.fence()
            changed = Worker.objects.filter(id=worker.id, state=worker.state).update(
                state=state,
                state_since=self.now,
                stopped_at=self.now,
                stop_reason=reason,
                stop_message=(message or worker.stop_message)[:500],  # of one taken out, why it was
                idle_since=None,
                engine_log=log_lines,
            )
            if not changed:
                return ""
            if reason == "vanished" and worker.market == Worker.Market.SPOT and worker.ready_at is not None and worker.preempt_at is None:
                preemption.interrupted(worker)  # taken away without a word
            membership.add_hours(worker, now=self.now)
            taken = queue.requeue_worker(worker, now=self.now)
        if kill and ref:
            try:
                self.provider.stop(ref, force=True)
            except ProviderError as error:  # it is ended when it is found with a retired row
                log.warning("worker not ended", extra={"worker": worker.name, "why": str(error)})
        log.warning("worker ended", extra={"worker": worker.name, "reason": reason, "jobs_taken_back": taken})
        return f"{worker.name} {reason}"


def _note_ready(worker: Worker) -> None:
    """A worker handed a job at its very first claim was ready then, without ever having been idle."""
    first = Attempt.objects.filter(worker=worker).aggregate(at=Min("claimed_at"))["at"]
    if first is not None:
        Worker.objects.filter(id=worker.id, ready_at__isnull=True).update(ready_at=first)
