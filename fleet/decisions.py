"""Write down what sizing decided and why."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import F

from fleet.models import Pool, ScalingDecision
from fleet.observing import Observed
from fleet.sizing import bounding
from fleet.sizing.bounding import Decision

RESUMED = "operator"
"""The policy named on the row that records a resumption."""
FAILED = "the scaler failed"


def record(pool: Pool, found: Observed, decision: Decision, *, shadows: dict[str, Any], epoch: int, now: datetime) -> int:
    """The row of this decision: the last one again when nothing but the time and the figures differ."""
    held: dict[str, Any] = {
        "policy": pool.policy,
        "action": decision.action,
        "applied": decision.applied,
        "bound": decision.bound[:200],
    }
    proposal = decision.proposal
    inputs: dict[str, Any] = {**bounding.as_inputs(found.seen), **found.beside}
    if proposal is not None:
        inputs |= {"rule": proposal.rule, "terms": dict(proposal.terms), "asked": proposal.wanted}
    latest: dict[str, Any] = {
        "wanted": decision.wanted,  # changes with every job while a pool stands at its maximum
        "reason": decision.reason[:300],
        "inputs": inputs,
        "last_seen_at": now,
        "epoch": epoch,
        "shadow": shadows,
        "predicted_wait_s": None if proposal is None else proposal.predicted_wait_s,
    }
    last = _last(pool, now)
    if last is not None and decision.applied == 0 and all(getattr(last, name) == value for name, value in held.items()):
        ScalingDecision.objects.filter(id=last.id).update(repeats=F("repeats") + 1, **latest)
        return last.id
    return ScalingDecision.objects.create(pool=pool, at=now, cost_change_microusd=decision.cost_change_microusd, **held, **latest).id


def note_resumed(pool: Pool, reason: str, *, now: datetime) -> None:
    """The row from which failed starts are counted anew."""
    ScalingDecision.objects.create(
        pool=pool, at=now, last_seen_at=now, policy=RESUMED, inputs={}, action="hold", wanted=0, applied=0, reason=reason[:300], epoch=0
    )


def note_failed(pool: Pool, error: Exception, *, epoch: int, now: datetime) -> None:
    """The scaler itself could not decide: nothing was changed, and the page says so."""
    reason = f"Nothing is changed: the scaler could not decide ({type(error).__name__}: {error})."[:300]
    last = _last(pool, now)
    if last is not None and (last.bound, last.reason) == (FAILED, reason):
        ScalingDecision.objects.filter(id=last.id).update(repeats=F("repeats") + 1, last_seen_at=now)
        return
    ScalingDecision.objects.create(
        pool=pool, at=now, last_seen_at=now, policy=pool.policy, inputs={}, action="hold", wanted=0, applied=0, bound=FAILED, reason=reason, epoch=epoch
    )


def _last(pool: Pool, now: datetime) -> ScalingDecision | None:
    """The newest decision but those of a clock that was ahead: nothing that comes now would ever be taken for a repetition of them."""
    return ScalingDecision.objects.filter(pool=pool, at__lte=now).order_by("-at", "-id").first()
