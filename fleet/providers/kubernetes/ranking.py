"""Whom a ReplicaSet would take first when its count goes down, and how far it may go down. Pure: pods as the API server shows them.

Source: `ActivePodsWithRanks` of kubernetes/pkg/controller/controller_utils.go. What it looks at before `pod-deletion-cost` is why the
cost alone does not protect a busy pod: one that is not ready at the moment goes before every one that is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

Pod = Mapping[str, Any]

COST = "controller.kubernetes.io/pod-deletion-cost"
VICTIM, COMING, IDLE, BUSY = -1000, 0, 500, 1000
"""Costs that are set. A pod without one counts as 0."""
_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


def active(pod: Pod) -> bool:
    """Whether it counts as one of the replicas."""
    return "deletionTimestamp" not in pod["metadata"] and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")


def placed(pod: Pod) -> bool:
    return bool(pod.get("spec", {}).get("nodeName"))


def ready(pod: Pod) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def cost(pod: Pod) -> int:
    """The deletion cost it carries; 0 when it carries none that can be read."""
    try:
        return int((pod["metadata"].get("annotations") or {}).get(COST, 0))
    except ValueError:
        return 0


def order(pods: Sequence[Pod], *, costs: Mapping[str, int] | None = None, knows_cost: bool = True) -> list[str]:
    """Names of the active pods, the one that goes first in front. `costs` by name count instead of those the pods carry.

    Pods that are equal in all of this are ordered by their age here; the real one also spreads over nodes.
    """
    given = costs or {}

    def key(pod: Pod) -> tuple[Any, ...]:
        meta, status = pod["metadata"], pod.get("status", {})
        restarts = max((c.get("restartCount", 0) for c in status.get("containerStatuses") or ()), default=0)
        return (
            placed(pod),
            _PHASES.get(status.get("phase", "Pending"), 0),
            ready(pod),
            given.get(meta["name"], cost(pod)) if knows_cost else 0,
            -restarts,
            # ISO times: the youngest first
            tuple(-ord(c) for c in meta.get("creationTimestamp") or ""),
            meta["name"],
        )

    return [pod["metadata"]["name"] for pod in sorted((p for p in pods if active(p)), key=key)]


def prefix(ranked: Sequence[str], may_go: Collection[str]) -> int:
    """By how many the count may go down at once so that only pods in `may_go` go."""
    return next((index for index, name in enumerate(ranked) if name not in may_go), len(ranked))
