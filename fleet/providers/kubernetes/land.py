"""One namespace of one cluster: what of ours is there, and the writes to it. Every write may be repeated, and names what it expects to find."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fleet.providers.base import Refused, Unavailable
from fleet.providers.kubernetes import objects
from fleet.providers.kubernetes.api import MERGE, Api, Conflicted, Missing, segment
from fleet.providers.kubernetes.mirror import Mirror
from fleet.providers.kubernetes.objects import Json, Kind

log = logging.getLogger(__name__)

TRIES = 5
COSTS_SINCE = 22
"""The minor version from which `pod-deletion-cost` counts."""


class Land:
    """A connection with what is kept at hand of it."""

    def __init__(self, api: Api, namespace: str, installation: str, *, watched: bool = True, read_nodes: bool = False) -> None:
        self.api, self.namespace, self.installation = api, namespace, installation
        mine = objects.selector(installation)
        self.pods = Mirror(api, self._path("v1", "pods"), selector=mine, watched=watched)
        self.deployments = Mirror(api, self._path("apps/v1", "deployments"), selector=mine, watched=watched)
        self.nodes = Mirror(api, "/api/v1/nodes", watched=False) if read_nodes else None
        self._budgets = "policy/v1"
        self._knows_cost: bool | None = None

    def deployments_of(self, pool: str, *, fresh: bool = False) -> dict[str, Json]:
        return {n: d for n, d in self.deployments.objects(fresh=fresh).items() if d["metadata"]["labels"].get(objects.POOL) == pool}

    def pods_of(self, pool: str, *, fresh: bool = False) -> dict[str, Json]:
        return {n: p for n, p in self.pods.objects(fresh=fresh).items() if p["metadata"]["labels"].get(objects.POOL) == pool}

    @property
    def knows_cost(self) -> bool:
        """Whether this server's ReplicaSets look at the deletion cost."""
        if self._knows_cost is None:
            told = self.api.call("GET", "/version")
            minor = "".join(c for c in str(told.get("minor") or "") if c.isdecimal())
            self._knows_cost = str(told.get("major")) != "1" or int(minor or COSTS_SINCE) >= COSTS_SINCE
        return self._knows_cost

    # Deployments

    def create(self, kind: Kind, *, replicas: int) -> Json:
        """The kind's Deployment: a new one, or the one that is there. Raises Refused when that belongs to somebody else."""
        self.deployments.forget()
        try:
            made: Json = self.api.call("POST", self._path("apps/v1", "deployments"), body=objects.deployment(kind, replicas=replicas))
            return made
        except Conflicted:
            return self.deployment(kind.name)

    def deployment(self, name: str) -> Json:
        """One Deployment as it is now."""
        found: Json = self.api.call("GET", self._path("apps/v1", "deployments", name))
        if (found["metadata"].get("labels") or {}).get(objects.INSTALLATION) != self.installation:
            raise Refused(f"The Deployment {name} in {self.namespace} belongs to somebody else. Give the pool a namespace of its own.")
        return found

    def reform(self, kind: Kind, found: Json) -> bool:
        """Make the Deployment's pods as the kind says, its count untouched; False when they are already."""
        wanted = objects.deployment(kind)
        for _ in range(TRIES):
            if not drifted(wanted, found):
                return False
            spec = found["spec"] | {key: wanted["spec"][key] for key in ("template", "strategy", "revisionHistoryLimit", "progressDeadlineSeconds")}
            meta = found["metadata"] | {
                "labels": (found["metadata"].get("labels") or {}) | wanted["metadata"]["labels"],
                "annotations": (found["metadata"].get("annotations") or {}) | wanted["metadata"]["annotations"],
            }
            body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}
            self.deployments.forget()
            try:
                self.api.call("PUT", self._path("apps/v1", "deployments", kind.name), body=body)
                return True
            except Conflicted:
                found = self.deployment(kind.name)
        raise Unavailable(f"The Deployment {kind.name} is being changed by somebody else all the time.")

    def scale(self, found: Json, to: Callable[[int], int]) -> int:
        """Set the count to what `to` makes of the one that is there; returns the new one."""
        name = found["metadata"]["name"]
        for _ in range(TRIES):
            now, meta = int(found["spec"].get("replicas") or 0), found["metadata"]
            count = max(0, to(now))
            if count == now:
                return now
            body = {
                "apiVersion": "autoscaling/v1",
                "kind": "Scale",
                "metadata": {"name": name, "namespace": self.namespace, "resourceVersion": meta["resourceVersion"]},
                "spec": {"replicas": count},
            }
            self.deployments.forget()
            self.pods.forget()
            try:
                self.api.call("PUT", self._path("apps/v1", "deployments", name, "scale"), body=body)
                return count
            except Conflicted:
                found = self.deployment(name)
        raise Unavailable(f"The Deployment {name} is being changed by somebody else all the time.")

    def drop(self, name: str) -> None:
        """Delete a Deployment that has no pods, and its budget."""
        self.deployments.forget()
        for version, what in (("apps/v1", "deployments"), (self._budgets, "poddisruptionbudgets")):
            try:
                self.api.call("DELETE", self._path(version, what, name), body={"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"})
            except Missing:
                continue

    # What stands beside them

    def budget(self, kind: Kind) -> None:
        """Write the disruption budget."""
        for version in dict.fromkeys((self._budgets, "policy/v1beta1")):  # servers before 1.21 know only the second
            try:
                self._budget(objects.budget(kind, version=version), self._path(version, "poddisruptionbudgets"))
            except Missing:
                continue
            self._budgets = version
            return
        log.warning("no disruption budgets", extra={"namespace": self.namespace})

    def _budget(self, wanted: Json, path: str) -> None:
        try:
            self.api.call("POST", path, body=wanted)
        except Conflicted:
            one = f"{path}/{segment(wanted['metadata']['name'])}"
            found = self.api.call("GET", one)
            if objects.lacks(wanted["spec"], found.get("spec")):
                version = {"resourceVersion": found["metadata"]["resourceVersion"]}
                self.api.call("PUT", one, body=wanted | {"metadata": wanted["metadata"] | version})

    def secret(self, kind: Kind, token: str) -> None:
        """Write the pool's token. It is never read: the Role need not allow that."""
        body, path = objects.secret(kind, token), self._path("v1", "secrets")
        try:
            self.api.call("POST", path, body=body)
        except Conflicted:
            self.api.call("PUT", f"{path}/{segment(body['metadata']['name'])}", body=body)

    # Pods

    def pod(self, name: str) -> Json | None:
        """One pod as it is now."""
        try:
            found: Json = self.api.call("GET", self._path("v1", "pods", name))
            return found
        except Missing:
            return None

    def set_cost(self, name: str, cost: int) -> None:
        """Say how dear a pod is; one that is gone needs none."""
        from fleet.providers.kubernetes.ranking import COST

        try:
            self.api.call("PATCH", self._path("v1", "pods", name), body={"metadata": {"annotations": {COST: str(cost)}}}, kind=MERGE)
        except Missing:
            return
        self.pods.forget()

    def delete_pod(self, name: str, uid: str, *, grace_s: int | None = None) -> bool:
        """Tell a pod to go; False when that very pod is gone."""
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        self.pods.forget()
        try:
            self.api.call("DELETE", self._path("v1", "pods", name), body=options)
        except (Missing, Conflicted):  # a conflict is another pod of that name
            return False
        return True

    def log(self, name: str, *, lines: int, previous: bool) -> str:
        query: dict[str, Any] = {"container": objects.AGENT, "tailLines": lines, "limitBytes": 64_000} | ({"previous": "true"} if previous else {})
        said: str = self.api.call("GET", self._path("v1", "pods", name, "log"), query=query, plain=True)
        return said

    def close(self) -> None:
        self.pods.close()
        self.deployments.close()

    def _path(self, version: str, what: str, name: str = "", sub: str = "") -> str:
        root = "/api/v1" if version == "v1" else f"/apis/{version}"
        return "/".join([root, "namespaces", segment(self.namespace), what, *([segment(name)] if name else []), *([sub] if sub else [])])


def drifted(wanted: Json, found: Json) -> bool:
    """Whether a Deployment's pods are not what they should be. Its count is not looked at."""
    keys = ("template", "strategy", "revisionHistoryLimit")
    return objects.lacks({key: wanted["spec"][key] for key in keys}, found.get("spec")) or objects.lacks(
        wanted["metadata"]["labels"], found["metadata"].get("labels")
    )
