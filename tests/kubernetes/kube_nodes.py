"""Hollow nodes: they say over HTTP what a kubelet would say of its pods, and run nothing. They work on the stub and on a real API server."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from kube_server import Json, stamp

MERGE = "application/merge-patch+json"


class Admin:
    """JSON over HTTP with everything allowed."""

    def __init__(self, url: str, token: str, *, ca: str = "") -> None:
        self.split, self.token = urlsplit(url), token
        self.context = ssl.create_default_context(cafile=ca) if ca else None

    def call(self, method: str, path: str, body: Json | None = None, *, kind: str = "application/json", missing: bool = False) -> Any:
        assert self.split.hostname and self.split.port
        if self.context is not None:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(self.split.hostname, self.split.port, context=self.context, timeout=20)
        else:
            connection = http.client.HTTPConnection(self.split.hostname, self.split.port, timeout=20)
        try:
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if answer.status == 404 and missing:
            return None
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {data[:400]!r}")
        return json.loads(data) if data.startswith(b"{") else data.decode()


class Nodes:
    """The nodes of a test, and the pods on them. `ready(pod)` says whether a running pod's probe passes."""

    def __init__(self, admin: Admin, namespace: str) -> None:
        self.admin, self.namespace = admin, namespace
        self.names: set[str] = set()
        self.lost: set[str] = set()
        self.ready: Callable[[Json], bool] = lambda pod: True
        self.holding: set[str] = set()
        """Pods that were told to go and still work."""
        self.how: dict[str, str] = {}
        """What goes wrong, by pod or by part of the image's name: image, crash, oom, restarted, left, evicted."""

    def add(self, name: str, *, gpus: int = 8, labels: dict[str, str] | None = None, taints: list[Json] | None = None) -> str:
        """A node that is ready; its full name."""
        name = f"{name}-{self.namespace}"
        room = {"cpu": "64", "memory": "512Gi", "pods": "110", "ephemeral-storage": "4000Gi", "nvidia.com/gpu": str(gpus)}
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels or {}}, "spec": {}}
        self.admin.call("POST", "/api/v1/nodes", body)
        self.names.add(name)
        condition = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "", "lastHeartbeatTime": stamp(), "lastTransitionTime": stamp()}
        self.admin.call("PATCH", f"/api/v1/nodes/{name}/status", {"status": {"capacity": room, "allocatable": room, "conditions": [condition]}}, kind=MERGE)
        # A real server taints new nodes as not ready until their kubelet has spoken.
        self.admin.call("PATCH", f"/api/v1/nodes/{name}", {"spec": {"taints": taints or None}}, kind=MERGE)
        return name

    def step(self) -> None:
        """One look of every kubelet that still answers."""
        for pod in self.pods():
            node = pod["spec"].get("nodeName")
            if node in self.names and node not in self.lost:
                if "deletionTimestamp" in pod["metadata"]:
                    if pod["metadata"]["name"] not in self.holding:
                        self.delete(pod["metadata"]["name"])
                else:
                    self._say(pod)

    def pods(self) -> list[Json]:
        found: list[Json] = self.admin.call("GET", f"/api/v1/namespaces/{self.namespace}/pods")["items"]
        return found

    def delete(self, name: str) -> None:
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        self.admin.call("DELETE", f"/api/v1/namespaces/{self.namespace}/pods/{name}", body, missing=True)

    def say(self, pod: Json, status: Json) -> None:
        """Set a pod's status."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}/status"
        self.admin.call("PATCH", path, {"status": status}, kind=MERGE, missing=True)

    def _say(self, pod: Json) -> None:
        name, image = pod["metadata"]["name"], pod["spec"]["containers"][0]["image"]
        wrong = self.how.get(name) or next((how for part, how in self.how.items() if part in image), "")
        ready = not wrong and self.ready(pod)
        container = {"name": "agent", "image": image, "imageID": "", "ready": ready, "restartCount": 0, "started": True, **_STATES[wrong]}
        conditions = [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Ready", "status": "True" if ready else "False"},
        ]
        phase = "Failed" if wrong == "evicted" else "Pending" if wrong == "image" else "Running"
        status: Json = {"phase": phase, "conditions": conditions, "containerStatuses": [container]}
        if wrong == "evicted":
            status |= {"reason": "Evicted", "message": "The node was low on resource: memory."}
        held = pod["status"]
        same = held.get("phase") == phase and [c.get("state") and list(c["state"]) for c in held.get("containerStatuses", ())] == [list(container["state"])]
        if not same or any(c["type"] == "Ready" and c["status"] != conditions[1]["status"] for c in held.get("conditions", ())):
            self.say(pod, status)


_T = "2026-01-01T00:00:00Z"
_CRASH = {"terminated": {"exitCode": 4, "reason": "Error", "message": "booting\nThe engine crashed 3 times in a row", "startedAt": _T, "finishedAt": _T}}
_OOM = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "startedAt": _T, "finishedAt": _T}}
_STATES: dict[str, Json] = {
    "": {"state": {"running": {"startedAt": _T}}},
    "image": {"state": {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x"'}}, "started": False},
    "crash": {"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}}, "lastState": _CRASH, "restartCount": 3, "started": False},
    "oom": {"state": {"running": {"startedAt": _T}}, "lastState": _OOM, "restartCount": 1},
    "restarted": {"state": {"running": {"startedAt": _T}}, "lastState": _CRASH, "restartCount": 1},
    "left": {"state": {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": _T, "finishedAt": _T}}, "started": False},
    "evicted": {"state": {"terminated": {"exitCode": 137, "reason": "Error", "startedAt": _T, "finishedAt": _T}}, "started": False},
}
