"""Lower a Deployment's count so that the pods meant to go are those that go, and never a busy one."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence

from fleet.providers.kubernetes import ranking
from fleet.providers.kubernetes.land import Land
from fleet.providers.kubernetes.objects import POOL, Json
from fleet.providers.kubernetes.standing import Standing

NOTICE_S = 2.0
"""So long a ReplicaSet may take to make a pod in place of a deleted one. That pod is the one it takes back when the count goes down."""
_LOOK_S = 0.1


def shrink(land: Land, deployment: Json, pods: Sequence[Json], *, count: int, victims: Collection[str], worth: Standing) -> int:
    """Lower the count by `count`: `victims` go, then pods that never served. Returns how many could not go now.

    The costs are written before the count, so whoever acts on the count finds them. A crash in between leaves dear and cheap pods
    and the old count: the next try does the same again.
    """
    active = {p["metadata"]["name"]: p for p in pods if ranking.active(p)}
    costs = {name: ranking.BUSY for name in active if name in worth.busy} | {name: ranking.VICTIM for name in active if name in victims}
    for name, cost in sorted(costs.items(), key=lambda item: -item[1]):
        if ranking.cost(active[name]) != cost:
            land.set_cost(name, cost)
    ranked = ranking.order(list(active.values()), costs=costs, knows_cost=land.knows_cost)
    going = [name for name in ranked if name in victims][:count]
    replicas = int(deployment["spec"].get("replicas") or 0)
    absent = min(max(0, replicas - len(active)), count - len(going))  # counted, but no pod yet
    loose = [name for name in ranked if name not in victims and name not in worth.serving and name not in worth.busy]
    going += loose[: count - len(going) - absent]
    # Without costs, pods that are equal otherwise are taken as the ReplicaSet likes: then all are named.
    first = ranking.prefix(ranked, going) if land.knows_cost else 0
    if absent + first:
        land.scale(deployment, lambda _: replicas - absent - first)
    left = ranked[first:]
    rest = [name for name in left if name in going]
    if not rest:
        return 0
    if _endangered([n for n in left if n not in going][: len(rest)], active, worth):
        return len(rest)
    for name in rest:
        land.delete_pod(name, active[name]["metadata"].get("uid", ""))
    if not _replaced(land, deployment, set(active), len(rest)) and not land.knows_cost:
        return len(rest)
    land.scale(land.deployment(deployment["metadata"]["name"]), lambda now: now - len(rest))
    return 0


def follow(land: Land, deployment: Json, left: Sequence[Json], *, worth: Standing) -> bool:
    """A pod was deleted, `left` are the others: lower the count after it, unless a busy one could be taken for it. False when the count stays."""
    ranked = ranking.order(left, knows_cost=land.knows_cost)
    if _endangered(ranked[:1], {p["metadata"]["name"]: p for p in left}, worth):
        return False
    if not _replaced(land, deployment, {p["metadata"]["name"] for p in left}, 1) and not land.knows_cost:
        return False
    land.scale(land.deployment(deployment["metadata"]["name"]), lambda now: now - 1)
    return True


def _replaced(land: Land, deployment: Json, known: Collection[str], count: int) -> bool:
    """Wait until the ReplicaSet has heard of so many deletions, which is seen by the pods it makes."""
    pool, wanted = deployment["metadata"]["labels"].get(POOL, ""), deployment["spec"]["selector"]["matchLabels"]
    pause = threading.Event()
    for _ in range(round(NOTICE_S / _LOOK_S)):
        pods = land.pods_of(pool, fresh=True).items()
        made = sum(1 for name, p in pods if name not in known and ranking.active(p) and wanted.items() <= p["metadata"]["labels"].items())
        if made >= count:
            return True
        pause.wait(_LOOK_S)
    return False


def _endangered(first: Sequence[str], pods: Mapping[str, Json], worth: Standing) -> bool:
    """Whether one of these is busy and could be taken: a ReplicaSet may hear of the lower count before it hears of the deletion.

    Where the cost counts, those that are ready come after every victim; where it does not, the count waits until the deletion was heard.
    """
    return any(name in worth.busy and not ranking.ready(pods[name]) for name in first)
