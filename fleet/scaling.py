"""Size a pool: observe it, ask its policy, bound the answer, write down the decision, then carry it out.

A worker's row is written before the provider is asked for it, so a crash in between leaves a row that `fleet.workers`
finds; the row's instance name makes a second launch for it impossible. A decision to leave things as they are, like the
one before it, is not a new row: the old one says how often it was repeated, and what was seen last.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from django.db import transaction

from controlplane.kernel import audit
from controlplane.kernel.errors import Conflict
from fleet import decisions, demand, launching, observing, previous_image, providers
from fleet.models import Pool, ScalingDecision, Worker
from fleet.observing import Observed
from fleet.providers.base import Provider, ProviderError
from fleet.sizing import bounding, policies, victims
from fleet.sizing.bounding import Decision

log = logging.getLogger(__name__)

STABLE_S = 60.0


def step(pool: Pool, *, provider: Provider | None = None, fence: Callable[[], None], epoch: int, now: datetime) -> Decision:
    """One decision for `pool`, recorded and carried out. `fence` is called in the recording transaction."""
    by = provider or providers.of(pool)
    found = observing.of(pool, provider=by, now=now)
    memory = dict(pool.memory)
    if _taken_over(memory, epoch=epoch, now=now):
        found = replace(found, limits=replace(found.limits, fresh_start=True))
    decision = _ask(pool, found, memory)
    shadows = _shadows(pool, found, memory)
    with transaction.atomic():
        fence()
        leaving = _retire(pool, found, -decision.applied, now=now) if decision.applied < 0 else []
        if decision.applied < 0 and not leaving:
            return replace(decision, action="hold", applied=0)  # they took jobs meanwhile: look again next time
        ordered = launching.write_ahead(pool, found, decision.applied, now=now) if decision.applied > 0 and not by.counted else []
        if decision.applied > 0 and not by.counted:
            decision = _as_ordered(decision, len(ordered))
        if ordered or leaving:  # each at its own price, which need not be the pool's
            decision = replace(decision, cost_change_microusd=sum(w.price_per_hour_microusd for w in ordered) - sum(w.price_per_hour_microusd for w in leaving))
        if decision.action == "halted" and pool.halted_at is None and (switched := previous_image.switch(pool, decision, now=now)):
            decision, found = switched, replace(found, beside={**found.beside, **previous_image.beside(pool)})
        elif decision.action == "halted" and pool.halted_at is None:
            Pool.objects.filter(id=pool.id, halted_at__isnull=True).update(halted_at=now, halted_reason=decision.reason[:300])
        if memory != pool.memory:
            Pool.objects.filter(id=pool.id).update(memory=memory)
        row = decisions.record(pool, found, decision, shadows=shadows, epoch=epoch, now=now)
        demand.note(pool, observing.minute(found, decision, shadows), now=now)
    outcome = _carry_out(pool, by, found, decision, leaving=leaving, ordered=ordered, now=now)
    if outcome:
        ScalingDecision.objects.filter(id=row).update(outcome=outcome[:300])
    return decision


def _as_ordered(decision: Decision, count: int) -> Decision:
    """The decision as far as there is a kind of machine to order: nothing is written down as ordered that is not."""
    if count >= decision.applied:
        return decision
    cost = decision.cost_change_microusd * count // decision.applied
    short = "No more of the pool's kinds of machine can be had now." if count else "None of the pool's kinds of machine can be had now."
    reason = f"{decision.reason[: 288 - len(short)].removesuffix(' Ordered one more.')} {short}"
    return replace(decision, action="up" if count else "hold", applied=count, bound="no machine to be had", reason=reason, cost_change_microusd=cost)


def _taken_over(memory: dict[str, object], *, epoch: int, now: datetime) -> bool:
    """Whether another scaler led until a moment ago: what it watched is not known to this one, so nothing shrinks for a stable while."""
    led = memory.get("led")
    if not isinstance(led, dict) or led.get("epoch") != epoch:
        memory["led"] = {"epoch": epoch, "since": now.timestamp() if isinstance(led, dict) else 0.0}
        return isinstance(led, dict)
    return 0 <= now.timestamp() - float(led.get("since") or 0.0) < STABLE_S


def _ask(pool: Pool, found: Observed, memory: dict[str, object]) -> Decision:
    """What the pool's policy wants, bounded. A policy that cannot be made (its knobs were written by hand) changes nothing."""
    kept: dict[str, object] = dict(memory.get(pool.policy) or {})  # type: ignore[call-overload]
    decision = bounding.decide(found.seen, policies.make(pool.policy, pool.knobs), kept, found.limits)
    memory[pool.policy] = kept
    return decision


def _shadows(pool: Pool, found: Observed, memory: dict[str, object]) -> dict[str, dict[str, object]]:
    """What the policies in shadow would want. One that fails is said to; it never stops the real one."""
    wanted: dict[str, dict[str, object]] = {}
    if bounding.missing(found.seen):
        return wanted
    for shadow in pool.shadows:
        name = str(shadow.get("policy"))
        kept = dict(memory.get(f"shadow:{name}") or {})  # type: ignore[call-overload]
        try:
            proposal = policies.make(name, shadow.get("knobs")).decide(found.seen, kept)
        except Exception as error:
            wanted[name] = {"error": str(error)[:200]}
            continue
        memory[f"shadow:{name}"] = kept
        wanted[name] = {"wanted": max(found.seen.base, min(found.seen.maximum, proposal.wanted)), "reason": proposal.reason[:300]}
    return wanted


def _retire(pool: Pool, found: Observed, count: int, *, now: datetime) -> list[Worker]:
    """Mark the idle workers worth least as leaving; those that are no longer idle stay."""
    chosen = victims.choose(found.idle, count, demand=found.warm_demand)
    idle = Worker.objects.select_for_update().filter(id__in=chosen, state=Worker.State.IDLE).exclude(jobs__status="running")
    leaving = list(idle.order_by("id"))
    Worker.objects.filter(id__in=[w.id for w in leaving]).update(state=Worker.State.DRAINING, state_since=now, drain_asked_at=now, idle_since=None)
    return leaving


def _carry_out(pool: Pool, by: Provider, found: Observed, decision: Decision, *, leaving: list[Worker], ordered: list[Worker], now: datetime) -> str:
    """Tell the provider; says what came of it. What it could not do is tried again at the next step, from what is then seen."""
    said: list[str] = []
    try:
        if by.counted and decision.applied:
            # From the count it was told, not from those that can take jobs: cordoned and faulted ones are counted there too.
            wanted = max(0, (found.seen.live if found.told is None else found.told) + max(decision.applied, -len(leaving)))
            by.resize(pool, wanted=wanted, victims=leaving)
            said.append(f"Told the provider to run {wanted:,}.")
        elif leaving:
            for worker in leaving:
                by.stop(worker.provider_ref)
            said.append(f"{_names(leaving)} asked to leave.")
    except ProviderError as error:  # a retired worker's agent is told to drain by its next heartbeat all the same
        said.append(f"The provider did not take it: {error}")
    if ordered:
        said += launching.launch(ordered, by, now=now)
    return " ".join(said)


def _names(workers: list[Worker]) -> str:
    names = ", ".join(w.name for w in workers[:4])
    return f"{names} was" if len(workers) == 1 else f"{names} and {len(workers) - 4} more were" if len(workers) > 4 else f"{names} were"


@transaction.atomic
def resume(pool: Pool, *, actor: str, now: datetime) -> None:
    """Order workers again after a crash loop; failures before this moment no longer count. Raises Conflict when it is not halted."""
    held = Pool.objects.select_for_update().get(id=pool.id)
    if held.halted_at is None:
        raise Conflict("pool_not_halted", f"Ordering for {held.name} is not stopped.", "Nothing needs to be done.")
    before = held.halted_reason
    held.halted_at, held.halted_reason = None, ""
    held.save(update_fields=["halted_at", "halted_reason"])
    decisions.note_resumed(held, f"{actor} resumed ordering.", now=now)
    audit.record(actor=actor, action="pool.resume", object_type="pool", object_id=held.slug, before={"halted": before}, after={"halted": ""}, now=now)
    pool.halted_at, pool.halted_reason = None, ""
