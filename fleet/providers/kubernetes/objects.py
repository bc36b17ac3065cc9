"""What is put into the cluster for a pool: a Deployment per kind of machine, its disruption budget, the token's Secret. Pure: data in, JSON out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleet.providers.kubernetes.settings import MODELS, Spec

Json = dict[str, Any]

AGENT = "agent"
"""Name of the container."""
PREFIX = "comfyplane.io/"
INSTALLATION, POOL, OFFER, MARKET = (PREFIX + name for name in ("installation", "pool", "offer", "market"))
GPU = PREFIX + "gpu"
_HEALTH = ["python", "-m", "fleet.agent.health"]
# Its ComfyUI may well be down for a while, which the agent mends; that the agent itself stands still is for Kubernetes to mend.
_ALIVE = ["python", "-c", "import os,sys,time;sys.exit(time.time()-os.stat(os.environ['COMFYPLANE_HEALTH_FILE']).st_mtime>180)"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One Deployment of a pool: the pool as it is, or one of its offers."""

    installation: str
    pool: str
    offer: int
    """The offer's id; 0 for a pool without offers."""
    gpu: str
    market: str
    image: str
    url: str
    spec: Spec

    @property
    def name(self) -> str:
        return name_of(self.pool, self.offer)


def name_of(pool: str, offer: int = 0) -> str:
    """The Deployment's name. Pods get 17 characters more, and a host name has 63."""
    stem = f"comfyplane-{pool}".replace("_", "-").lower().strip("-")
    if len(stem) > 34 or stem != f"comfyplane-{pool}":
        stem = f"{stem[:27].rstrip('-')}-{hashlib.sha256(pool.encode()).hexdigest()[:6]}"
    return f"{stem}-o{offer}" if offer else stem


def secret_name(pool: str) -> str:
    return f"{name_of(pool)}-token"


def selector(installation: str, pool: str = "") -> str:
    """The label selector of everything of an installation, or of one of its pools."""
    return f"{INSTALLATION}={installation}" + (f",{POOL}={pool}" if pool else "")


def owner_labels(kind: Kind) -> dict[str, str]:
    """What a Deployment's pods are found by. It can never be changed."""
    return {INSTALLATION: kind.installation, POOL: kind.pool, OFFER: str(kind.offer)}


def _labels(kind: Kind) -> dict[str, str]:
    return {
        **(kind.spec.labels or {}),
        "app.kubernetes.io/name": "comfyplane-worker",
        "app.kubernetes.io/managed-by": "comfyplane",
        **owner_labels(kind),
        MARKET: kind.market,
    }


def deployment(kind: Kind, *, replicas: int = 0) -> Json:
    """The Deployment."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": kind.name, "labels": _labels(kind), "annotations": {GPU: kind.gpu[:200]}},
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": 3600,
            "selector": {"matchLabels": owner_labels(kind)},
            # A new image comes in beside the old one, pod by pod; the old pods finish their jobs.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": kind.spec.max_surge}},
            "template": template(kind),
        },
    }


def template(kind: Kind) -> Json:
    """The pods of a kind."""
    spec = kind.spec
    pod: Json = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "shareProcessNamespace": True,  # orphans of ComfyUI's custom nodes are reaped
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": spec.drain_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": spec.run_as,
            "runAsGroup": spec.run_as,
            "fsGroup": spec.run_as,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(kind)],
        "volumes": _volumes(spec),
    }
    if spec.nodes:
        pod["nodeSelector"] = spec.nodes
    if spec.tolerations:
        pod["tolerations"] = [dict(t) for t in spec.tolerations]
    if spec.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in spec.image_pull_secrets]
    for field, value in (("runtimeClassName", spec.runtime_class), ("priorityClassName", spec.priority_class), ("serviceAccountName", spec.service_account)):
        if value:
            pod[field] = value
    annotations = {
        **(spec.annotations or {}),
        GPU: kind.gpu[:200],
        # Node autoscalers do not empty nodes under a job; the scaler takes idle pods away itself.
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }
    return {"metadata": {"labels": _labels(kind), "annotations": annotations}, "spec": pod}


def _container(kind: Kind) -> Json:
    spec = kind.spec
    gpus = spec.gpus if spec.gpus >= 0 else int(kind.gpu.lower() != "cpu")
    limits: Json = {"memory": spec.memory, "ephemeral-storage": spec.disk} | ({spec.gpu_resource: str(gpus)} if gpus else {})
    pod_name = {"valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}
    env: list[Json] = [
        {"name": "COMFYPLANE_URL", "value": kind.url},
        {"name": "COMFYPLANE_POOL_TOKEN", "valueFrom": {"secretKeyRef": {"name": secret_name(kind.pool), "key": "token"}}},
        {"name": "COMFYPLANE_INSTANCE", **pod_name},
        {"name": "COMFYPLANE_WORKER_NAME", **pod_name},
        {"name": "COMFYPLANE_WORK_DIR", "value": "/data/work"},
        {"name": "COMFYPLANE_HEALTH_FILE", "value": "/data/health.json"},
        {"name": "COMFYPLANE_STORE_DIR", "value": MODELS},
        {"name": "HOME", "value": "/data"},
        *({"name": name, "value": value} for name, value in sorted((spec.env or {}).items())),
    ]
    return {
        "name": AGENT,
        "image": kind.image,
        "imagePullPolicy": spec.image_pull_policy,
        "env": env,
        "resources": {"limits": limits, "requests": {"cpu": spec.cpu, **limits}},
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
            {"name": "models", "mountPath": MODELS},
        ],
        "readinessProbe": _probe(_HEALTH, period_s=5, failures=3),
        "livenessProbe": _probe(_ALIVE, period_s=30, failures=4) | {"initialDelaySeconds": 60},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _probe(command: list[str], *, period_s: int, failures: int) -> Json:
    return {"exec": {"command": command}, "periodSeconds": period_s, "timeoutSeconds": 5, "failureThreshold": failures}


def _volumes(spec: Spec) -> list[Json]:
    models: Json = {"persistentVolumeClaim": {"claimName": spec.models_claim}} if spec.models_claim else {"emptyDir": {"sizeLimit": spec.models_disk}}
    return [
        {"name": "data", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": spec.shm}},
        {"name": "models", **models},
    ]


def budget(kind: Kind, *, version: str = "policy/v1") -> Json:
    """How many pods whoever empties nodes may take at once."""
    return {
        "apiVersion": version,
        "kind": "PodDisruptionBudget",
        "metadata": {"name": kind.name, "labels": _labels(kind)},
        "spec": {"maxUnavailable": kind.spec.max_unavailable, "selector": {"matchLabels": owner_labels(kind)}},
    }


def secret(kind: Kind, token: str) -> Json:
    """The pool's token."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": secret_name(kind.pool),
            "labels": {INSTALLATION: kind.installation, POOL: kind.pool, "app.kubernetes.io/managed-by": "comfyplane"},
        },
        "type": "Opaque",
        "stringData": {"token": token},
    }


def lacks(wanted: Any, found: Any) -> bool:
    """Whether `found` differs in anything that `wanted` says. What the API server filled in beside it does not count."""
    if isinstance(wanted, Mapping):
        return not isinstance(found, Mapping) or any(lacks(value, found.get(key)) for key, value in wanted.items() if value != {} or key in found)
    if isinstance(wanted, list):
        return not isinstance(found, list) or len(wanted) != len(found) or any(lacks(a, b) for a, b in zip(wanted, found, strict=True))
    return bool(wanted != found)
