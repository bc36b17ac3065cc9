"""Pools on Kubernetes: a Deployment per kind of machine, whose count we set. Scheduling, restarts and devices are Kubernetes' own.

What is there is read from the API server; nothing is remembered that matters. Lowering a count, the pods to go are named by
`pod-deletion-cost`; where the ReplicaSet would take another one first, the pod is deleted and the count lowered after it, and where
it would take a busy one, the count stays. To stop one pod is to lower the count by it: the scaler, not the ReplicaSet, says whether
another one comes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from django.conf import settings
from django.utils import timezone
from django.utils.crypto import salted_hmac

from controlplane.kernel.errors import Invalid
from fleet import tokens
from fleet.models import Pool, PoolOffer, Worker
from fleet.providers.base import Instance, NoCapacity, Observed, ProviderError, Ref, Refused
from fleet.providers.kubernetes import objects, ranking, reading, shrinking, spreading, standing
from fleet.providers.kubernetes import settings as pool_settings
from fleet.providers.kubernetes.api import Api
from fleet.providers.kubernetes.land import Land, drifted
from fleet.providers.kubernetes.objects import Json, Kind
from fleet.providers.kubernetes.settings import Spec

COSTS_A_ROUND = 32
"""Most pods whose cost is written in one round, busy ones first."""
SECRET_S = 600.0
"""So often a pool's token is written again, though nothing says that it is gone."""


class Kubernetes:
    """Runs a pool's agents as pods."""

    orders = True
    counted = True
    knows = True

    def __init__(self, *, connect: Callable[[str], Api] = Api, watched: bool = True, clock: Callable[[], datetime] = timezone.now) -> None:
        self.connect, self.watched, self.clock = connect, watched, clock
        self._lands: dict[tuple[str, str, bool], Land] = {}
        self._lock = threading.Lock()
        self._tokens: dict[str, tuple[str, float]] = {}

    def observe(self, pool: Pool) -> Observed:
        spec = _spec(pool)
        land, now = self._land(spec), self.clock()
        wanted = sum(_count(d) for d in land.deployments_of(pool.slug).values())
        nodes: Mapping[str, Json] = land.nodes.objects() if land.nodes is not None else {}
        patience = {kind.offer: kind.spec.patience_s for kind in self._kinds(pool)} if pool.offers.exists() else {}
        found: dict[str, Instance] = {}
        for name, pod in land.pods_of(pool.slug).items():
            node = nodes.get(pod.get("spec", {}).get("nodeName") or "")
            seen = reading.instance(pod, context=spec.context, node=node, short_after_s=patience.get(_offer(pod)), now=now)
            if seen is not None:
                found[name] = seen
        return Observed(found, wanted, heard_s=land.pods.age_s or 0.0)

    def launch(self, worker: Worker) -> Ref:
        raise Refused("Pods are not started one by one: the pool's count is set.")

    def resize(self, pool: Pool, *, wanted: int, victims: Sequence[Worker] = ()) -> None:
        kinds = self._kinds(pool)
        land = self._land(kinds[0].spec)
        deployments, pods = land.deployments_of(pool.slug, fresh=True), land.pods_of(pool.slug, fresh=True)
        worth = standing.of(pool, now=self.clock())
        leaving = {w.instance for w in victims}
        held = [_held(name, deployment, pods, leaving, worth) for name, deployment in deployments.items()]
        plan = spreading.plan(held, self._offers(pool, kinds), wanted=wanted, base=pool.base, on_demand_share=pool.on_demand_share)
        stayed = 0
        for name, fewer in plan.fewer.items():
            mine = [p for p in pods.values() if _name_of(p) == name]
            stayed += shrinking.shrink(land, deployments[name], mine, count=fewer, victims=leaving, worth=worth)
        for kind in kinds:
            if more := plan.more.get(kind.name, 0):
                self._grow(pool, land, kind, deployments.get(kind.name), more)
        if stayed:
            raise ProviderError(f"{stayed} stay for now: a busy pod might be taken in their place.")
        if plan.missing:
            raise NoCapacity(f"No kind of machine of this pool can be had now; {plan.missing} of the {wanted} wanted are not ordered.")
        if why := _cannot_make(deployments.values()):
            raise NoCapacity(why)

    def tend(self, pool: Pool) -> list[str]:
        """Bring what stands around the pods up to date: image and settings, budget, token, how dear each pod is. Says what was done."""
        kinds = self._kinds(pool)
        land = self._land(kinds[0].spec)
        deployments, pods = land.deployments_of(pool.slug), land.pods_of(pool.slug)
        said: list[str] = []
        for kind in kinds:
            found = deployments.get(kind.name)
            if found is not None:
                self._keep_token(pool, land, kind)
                if drifted(objects.deployment(kind), found):
                    land.budget(kind)
                    if land.reform(kind, land.deployment(kind.name)):
                        said.append(f"{kind.name} gets {kind.image}"[:100])
        current = {kind.name for kind in kinds}
        for name, found in deployments.items():
            if name not in current and not _count(found) and not any(_name_of(p) == name for p in pods.values()):
                land.drop(name)
                said.append(f"{name} deleted: the pool no longer has that kind of machine"[:100])
        worth = standing.of(pool, now=self.clock())
        dear = sorted(((cost, name) for name, cost in worth.costs.items() if name in pods and ranking.cost(pods[name]) != cost), reverse=True)
        for cost, name in dear[:COSTS_A_ROUND]:
            if ranking.active(pods[name]) and ranking.cost(pods[name]) != ranking.VICTIM:
                land.set_cost(name, cost)
        return said

    def stop(self, ref: Ref, *, force: bool = False) -> None:
        name = str(ref.get("pod") or "")
        if not name:
            return
        land = self._land(Spec(context=str(ref.get("context") or ""), namespace=str(ref.get("namespace") or "")))
        pod = land.pod(name)
        if pod is None or (ref.get("uid") and pod["metadata"].get("uid") != ref["uid"]) or objects.INSTALLATION not in (pod["metadata"].get("labels") or {}):
            return
        counted = ranking.active(pod)
        if not force and not counted:
            return
        slug = pod["metadata"]["labels"].get(objects.POOL, "")
        left = [p for n, p in land.pods_of(slug, fresh=True).items() if _name_of(p) == _name_of(pod) and n != name] if counted else []
        if land.delete_pod(name, pod["metadata"].get("uid", ""), grace_s=0 if force else None) and counted:
            pool = Pool.objects.filter(slug=slug).first()
            deployment = land.deployments_of(slug, fresh=True).get(_name_of(pod))
            if pool is not None and deployment is not None:
                shrinking.follow(land, deployment, left, worth=standing.of(pool, now=self.clock()))

    def boot_log(self, ref: Ref, *, lines: int = 40) -> list[str]:
        name = str(ref.get("pod") or "")
        try:
            land = self._land(Spec(context=str(ref.get("context") or ""), namespace=str(ref.get("namespace") or "")))
            for previous in (True, False):  # the run that failed, when it was started again since
                try:
                    if said := land.log(name, lines=lines, previous=previous).splitlines():
                        return [line[:500] for line in said[-lines:]]
                except ProviderError:
                    continue
        except ProviderError:
            pass
        return []

    def forget(self, instance: str, ref: Ref) -> None:
        self.stop(ref, force=True)

    def price(self, pool: Pool, offer: PoolOffer | None) -> int:
        return pool.price_per_hour_microusd if offer is None else offer.price_per_hour_microusd

    def close(self) -> None:
        """End the watches."""
        for land in self._lands.values():
            land.close()

    def _grow(self, pool: Pool, land: Land, kind: Kind, found: Json | None, more: int) -> None:
        if found is None:
            self._keep_token(pool, land, kind, again=True)
            land.budget(kind)
            made = land.create(kind, replicas=more)
            if _count(made) != more:
                land.scale(made, lambda _: more)
            return
        if drifted(objects.deployment(kind), found):
            land.reform(kind, found)
            found = land.deployment(kind.name)
        target = _count(found) + more  # absolute: said twice it counts once
        land.scale(found, lambda _: target)

    def _keep_token(self, pool: Pool, land: Land, kind: Kind, *, again: bool = False) -> None:
        token, key = tokens.pool_token(pool), f"{land.api.context}/{land.namespace}/{objects.secret_name(pool.slug)}"
        written, at = self._tokens.get(key, ("", 0.0))
        if again or written != token or time.monotonic() - at > SECRET_S:
            land.secret(kind, token)
            self._tokens[key] = (token, time.monotonic())

    def _kinds(self, pool: Pool) -> list[Kind]:
        """The pool's Deployments, in the order in which they are tried. Raises Refused."""
        if not pool.image:
            raise Refused(f"The pool {pool.slug} has no image: pods need one. Build one and set it.")
        rows: list[PoolOffer | None] = [*pool.offers.order_by("rank")] or [None]
        return [
            Kind(
                installation=installation(),
                pool=pool.slug,
                offer=row.id if row else 0,
                gpu=row.gpu if row else pool.gpu,
                market=row.market if row else "on_demand",
                image=pool.image,
                url=(spec := _spec(pool, row)).url or settings.AGENT_URL,
                spec=spec,
            )
            for row in rows
        ]

    def _offers(self, pool: Pool, kinds: Sequence[Kind]) -> list[spreading.Choice]:
        now = self.clock()
        rows = {row.id: row for row in pool.offers.all()}
        return [spreading.choice(kind.name, rows.get(kind.offer), now=now) for kind in kinds]

    def _land(self, spec: Spec) -> Land:
        key = (spec.context, spec.namespace, spec.read_nodes)
        with self._lock:
            land = self._lands.get(key)
            if land is None or land.api.refused:
                api = self.connect(spec.context)
                land = Land(api, spec.namespace or api.namespace, installation(), watched=self.watched, read_nodes=spec.read_nodes)
                self._lands[key] = land
            return land


def installation() -> str:
    """What marks this installation's objects: the same in every process, and after every restart."""
    return salted_hmac("comfyplane.installation", "kubernetes", algorithm="sha256").hexdigest()[:16]


def _spec(pool: Pool, offer: PoolOffer | None = None) -> Spec:
    try:
        return pool_settings.read(pool.settings, offer.placement if offer else None)
    except Invalid as error:
        raise Refused(f"{error.message} {error.suggestion}") from error


def _held(name: str, deployment: Json, pods: Mapping[str, Json], leaving: set[str], worth: standing.Standing) -> spreading.Held:
    mine = [n for n, p in pods.items() if _name_of(p) == name and ranking.active(p)]
    victims = sum(1 for n in mine if n in leaving)
    loose = sum(1 for n in mine if n not in leaving and n not in worth.serving and n not in worth.busy)
    return spreading.Held(name, _count(deployment), victims=victims, loose=loose + max(0, _count(deployment) - len(mine)))


def _cannot_make(deployments: object) -> str:
    for deployment in deployments:  # type: ignore[attr-defined]
        for condition in (deployment.get("status") or {}).get("conditions") or ():
            if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
                return f"Kubernetes cannot make pods of {deployment['metadata']['name']}: {condition.get('message')}"[:300]
    return ""


def _count(deployment: Json) -> int:
    return int(deployment["spec"].get("replicas") or 0)


def _offer(pod: Json) -> int:
    text = pod["metadata"]["labels"].get(objects.OFFER, "0")
    return int(text) if text.isdecimal() else 0


def _name_of(pod: Json) -> str:
    """The Deployment a pod belongs to."""
    return objects.name_of(pod["metadata"]["labels"].get(objects.POOL, ""), _offer(pod))
