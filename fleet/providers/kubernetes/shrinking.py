"""Lower a Deployment's count so that the pods meant to go are those that go, and never a busy one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from fleet.providers.kubernetes import ranking
from fleet.providers.kubernetes.land import Land
from fleet.providers.kubernetes.objects import Json
from fleet.providers.kubernetes.standing import Standing


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
    first = ranking.prefix(ranked, going)
    if absent + first:
        land.scale(deployment, lambda _: replicas - absent - first)
    left = ranked[first:]
    rest = [name for name in left if name in going]
    for index, name in enumerate(rest):
        others = [n for n in left if n not in rest[: index + 1]]
        if _endangered(others[: index + 1], active, worth, knows_cost=land.knows_cost):
            return len(rest) - index
        land.delete_pod(name, active[name]["metadata"].get("uid", ""))
        land.scale(land.deployment(deployment["metadata"]["name"]), lambda now: now - 1)
    return 0


def follow(land: Land, deployment: Json, left: Sequence[Json], *, worth: Standing) -> bool:
    """A pod was deleted, `left` are the others: lower the count after it, unless a busy one could be taken for it. False when the count stays."""
    ranked = ranking.order(left, knows_cost=land.knows_cost)
    if _endangered(ranked[:1], {p["metadata"]["name"]: p for p in left}, worth, knows_cost=land.knows_cost):
        return False
    land.scale(deployment, lambda now: now - 1)
    return True


def _endangered(first: Sequence[str], pods: Mapping[str, Json], worth: Standing, *, knows_cost: bool) -> bool:
    """Whether one of these is busy and could be taken: a ReplicaSet may hear of the lower count before it hears of the deletion.

    Where the cost counts, those that are ready come after every victim.
    """
    return any(name in worth.busy and not (knows_cost and ranking.ready(pods[name])) for name in first)
