"""Plays the controller manager and the scheduler over a `kube_server.Server`: Deployment to ReplicaSets to pods, pods to nodes.

Written from the real ones' source, and without a look at the product's own ranking, so that each can find the other's mistakes.
"""

from __future__ import annotations

import copy
import functools
import random
from typing import Any

from kube_server import Json, Server, stamp, template_hash

COST = "controller.kubernetes.io/pod-deletion-cost"


class Controllers:
    """One namespace. `settle` works until nothing changes."""

    def __init__(self, server: Server, namespace: str) -> None:
        self.server, self.namespace = server, namespace
        self.sets: dict[tuple[str, str], int] = {}
        self.quota: int | None = None
        self.random = random.Random(7)
        self.taken: list[str] = []
        """Pods that ReplicaSets chose to delete, in order."""

    def settle(self) -> None:
        with self.server.lock:
            for _ in range(50):
                before = self.server.version
                for deployment in list(self.server.bucket("apps", "deployments", self.namespace).values()):
                    self._deployment(deployment)
                self._orphans()
                self._schedule()
                if self.server.version == before:
                    return
            raise AssertionError("the cluster does not settle")

    def pods(self) -> list[Json]:
        return list(self.server.bucket("", "pods", self.namespace).values())

    def _orphans(self) -> None:
        names = set(self.server.bucket("apps", "deployments", self.namespace))
        for pod in self.pods():
            if pod["metadata"]["labels"].get("test/deployment") not in names:
                self.server.end_pod(self.namespace, pod["metadata"]["name"])

    def _deployment(self, deployment: Json) -> None:
        name, spec = deployment["metadata"]["name"], deployment["spec"]
        wanted = spec["replicas"]
        now = template_hash(spec["template"])
        mine = {h: n for (d, h), n in self.sets.items() if d == name}
        old = {h: n for h, n in mine.items() if h != now and (n or self._active(name, h))}
        if not old:
            self.sets = {k: v for k, v in self.sets.items() if k[0] != name} | {(name, now): wanted}
        else:
            rolling = spec["strategy"]["rollingUpdate"]
            room = wanted + rolling["maxSurge"] - sum(mine.values())
            self.sets[(name, now)] = min(wanted, mine.get(now, 0) + max(0, room))
            available = sum(1 for p in self.pods() if self._of(p, name) and _active(p) and _ready(p))
            spare = available - (wanted - rolling["maxUnavailable"])
            for h, n in old.items():
                fewer = min(n, max(0, spare))
                self.sets[(name, h)] = n - fewer
                spare -= fewer
        failed = ""
        for (d, h), count in list(self.sets.items()):
            if d == name:
                failed = self._replicas(deployment, h, count) or failed
        conditions = [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": failed}] if failed else []
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": sum(1 for p in self.pods() if self._of(p, name) and _active(p)),
            "conditions": conditions,
        }
        if deployment.get("status") != status:
            self.server.put("apps", "deployments", self.namespace, copy.deepcopy(deployment) | {"status": status})

    def _of(self, pod: Json, deployment: str) -> bool:
        return bool(pod["metadata"]["labels"].get("test/deployment") == deployment)

    def _active(self, deployment: str, hash_: str) -> list[Json]:
        return [p for p in self.pods() if self._of(p, deployment) and p["metadata"]["labels"]["pod-template-hash"] == hash_ and _active(p)]

    def _replicas(self, deployment: Json, hash_: str, count: int) -> str:
        active = self._active(deployment["metadata"]["name"], hash_)
        for pod in _to_delete(active, len(active) - count):
            self.taken.append(pod["metadata"]["name"])
            self.server.end_pod(self.namespace, pod["metadata"]["name"])
        for _ in range(count - len(active)):
            if self.quota is not None and len([p for p in self.pods() if _active(p)]) >= self.quota:
                return f'pods "x" is forbidden: exceeded quota: gpus, limited: {self.quota}'
            self._make(deployment, hash_)
        return ""

    def _make(self, deployment: Json, hash_: str) -> None:
        template = copy.deepcopy(deployment["spec"]["template"])
        name = f"{deployment['metadata']['name']}-{hash_}-{''.join(self.random.choices('bcdfghjklmnpqrstvwxz2456789', k=5))}"
        labels = template["metadata"].get("labels", {}) | {"pod-template-hash": hash_, "test/deployment": deployment["metadata"]["name"]}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": labels,
                "annotations": template["metadata"].get("annotations", {}),
                "uid": f"uid-{name}",
                "creationTimestamp": stamp(),
            },
            "spec": template["spec"],
            "status": {"phase": "Pending"},
        }
        self.server.put("", "pods", self.namespace, pod, kind="ADDED")

    # The scheduler

    def _schedule(self) -> None:
        nodes = self.server.bucket("", "nodes", "")
        for pod in self.pods():
            if pod["spec"].get("nodeName") or "deletionTimestamp" in pod["metadata"]:
                continue
            chosen = next((n for n, node in sorted(nodes.items()) if self._room(node, pod)), None)
            bound = copy.deepcopy(pod)
            if chosen is not None:
                bound["spec"]["nodeName"] = chosen
                bound["status"]["conditions"] = [{"type": "PodScheduled", "status": "True"}]
            else:
                said = f"0/{len(nodes)} nodes are available: {len(nodes)} Insufficient nvidia.com/gpu."
                bound["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}]
            if bound != pod:
                self.server.put("", "pods", self.namespace, bound)

    def _room(self, node: Json, pod: Json) -> bool:
        labels = node["metadata"].get("labels", {})
        if any(labels.get(k) != v for k, v in pod["spec"].get("nodeSelector", {}).items()):
            return False
        for taint in node["spec"].get("taints", ()):
            if taint["effect"] in ("NoSchedule", "NoExecute") and not any(_tolerates(t, taint) for t in pod["spec"].get("tolerations", ())):
                return False
        used = sum(
            _gpus(p) for p in self.pods() if p["spec"].get("nodeName") == node["metadata"]["name"] and p["status"].get("phase") not in ("Failed", "Succeeded")
        )
        return bool(used + _gpus(pod) <= int(node["status"]["allocatable"].get("nvidia.com/gpu", 0)))


def _gpus(pod: Json) -> int:
    return int(pod["spec"]["containers"][0]["resources"].get("limits", {}).get("nvidia.com/gpu", 0))


def _tolerates(toleration: Json, taint: Json) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("operator") == "Exists":
        return not toleration.get("key") or toleration["key"] == taint["key"]
    return bool(toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", ""))


def _active(pod: Json) -> bool:
    return "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") not in ("Succeeded", "Failed")


def _ready(pod: Json) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


def _to_delete(pods: list[Json], diff: int) -> list[Json]:
    """getPodsToDelete of replica_set.go with ActivePodsWithRanks.Less of controller_utils.go."""
    if diff <= 0:
        return []
    if diff >= len(pods):
        return pods
    together: dict[str, int] = {}
    for pod in pods:
        node = pod["spec"].get("nodeName", "")
        together[node] = together.get(node, 0) + 1

    def less(a: Json, b: Json) -> int:
        for first, second in _compared(a, b, together):
            if first != second:
                return -1 if first < second else 1
        return 0

    return sorted(pods, key=functools.cmp_to_key(less))[:diff]


def _compared(a: Json, b: Json, together: dict[str, int]) -> list[tuple[Any, Any]]:
    phases = {"Pending": 0, "Unknown": 1, "Running": 2}

    def restarts(pod: Json) -> int:
        return max((c.get("restartCount", 0) for c in pod["status"].get("containerStatuses", ())), default=0)

    def deletion_cost(pod: Json) -> int:
        return int(pod["metadata"].get("annotations", {}).get(COST, "0"))

    return [
        (bool(a["spec"].get("nodeName")), bool(b["spec"].get("nodeName"))),
        (phases[a["status"]["phase"]], phases[b["status"]["phase"]]),
        (_ready(a), _ready(b)),
        (deletion_cost(a), deletion_cost(b)),
        (-together[a["spec"].get("nodeName", "")], -together[b["spec"].get("nodeName", "")]),
        (-restarts(a), -restarts(b)),
        (b["metadata"]["creationTimestamp"], a["metadata"]["creationTimestamp"]),
    ]
