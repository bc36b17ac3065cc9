"""Go back to the image a pool ran before, once and by itself, when workers of the new one cannot start."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from controlplane.kernel.errors import WorkflowError
from fleet import pools
from fleet.models import Pool, ScalingDecision, Worker
from fleet.observing import FAILED_STARTS
from fleet.sizing.bounding import FAILURE_WINDOW_S, Decision

SCALER = "scaler"
ACTION = "image"


def switch(pool: Pool, decision: Decision, *, now: datetime) -> Decision | None:
    """Swap the pool's image for the previous one instead of halting; the decision that says so, or None when that is not to be done.

    Not when the previous image failed as well, nor when the pool has already gone back from it to this one: then somebody must look.
    """
    held = Pool.objects.select_for_update().get(id=pool.id)
    bad, good = held.image, held.previous_image
    if not good or good == bad or _tried(held) or _failed(held, good, now=now):
        return None
    why = f"{_short(bad)} cannot start: {decision.reason}"
    try:
        pools.change(held, {"image": good}, actor=SCALER, reason=why[:300], now=now)
    except WorkflowError:  # its settings do not go with that image any more
        return None
    pool.image, pool.previous_image = good, bad
    reason = f"Workers of {_short(bad)} died or never became ready. The pool goes back to {_short(good)}, which it ran before, and orders on."
    return replace(decision, action=ACTION, applied=0, reason=reason[:290], bound="previous image")


def beside(pool: Pool) -> dict[str, str]:
    """What is kept with the decision: the images as they are after the switch."""
    return {"image_from": pool.previous_image, "image_to": pool.image}


def _tried(pool: Pool) -> bool:
    """Whether the last switch was to the image the pool now has."""
    last = ScalingDecision.objects.filter(pool=pool, action=ACTION).order_by("-at", "-id").values_list("inputs", flat=True).first()
    return last is not None and last.get("image_to") == pool.image


def _failed(pool: Pool, image: str, *, now: datetime) -> bool:
    since = now - timedelta(seconds=FAILURE_WINDOW_S)
    gone = Worker.objects.filter(pool=pool, state__in=Worker.GONE, stopped_at__gt=since, stop_reason__in=FAILED_STARTS)
    return gone.filter(image=image, jobs_done=0, ready_at__isnull=True).exists()


def _short(image: str) -> str:
    """An image as people say it: without its registry, and without the length of its digest."""
    name, _, digest = image.rpartition("/")[2].partition("@")
    return (f"{name}@{digest[:19]}" if digest else name)[:80] or "an unnamed image"
