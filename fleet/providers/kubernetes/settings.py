"""What a pool on Kubernetes may say in its `settings`, and a kind of machine in its `placement`. Pure: mappings in, a Spec out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from fleet.providers import settings as schemas
from fleet.providers.settings import Setting

ZONE = "topology.kubernetes.io/zone"
UID = 10001
MODELS = "/models"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_QUANTITY = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?(m|[kMGTP]|[KMGTP]i)?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_CONTEXT = re.compile(r"[!-~]{1,200}")
_ADDRESS = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]{1,200}(/[!-~]{0,200})?")
_ANYTHING = re.compile(r"[^\x00]{0,4000}", re.DOTALL)
_OURS = {
    *("COMFYPLANE_URL", "COMFYPLANE_POOL_TOKEN", "COMFYPLANE_INSTANCE", "COMFYPLANE_WORKER_NAME", "COMFYPLANE_WORK_DIR"),
    *("COMFYPLANE_HEALTH_FILE", "COMFYPLANE_STORE_DIR", "HOME"),
}


@dataclass(frozen=True)
class Spec:
    """What one Deployment of a pool is made of, beyond its image. What each field means is said in SETTINGS."""

    context: str = ""
    namespace: str = ""
    url: str = ""
    cpu: str = "2"
    memory: str = "16Gi"
    disk: str = "20Gi"
    shm: str = "1Gi"
    gpus: int = -1
    gpu_resource: str = "nvidia.com/gpu"
    node_selector: Mapping[str, str] | None = None
    zone: str = ""
    tolerations: tuple[Mapping[str, Any], ...] = ()
    drain_s: int = 900
    patience_s: int = 300
    models_claim: str = ""
    models_disk: str = "100Gi"
    image_pull_secrets: tuple[str, ...] = ()
    image_pull_policy: str = "IfNotPresent"
    runtime_class: str = ""
    priority_class: str = ""
    service_account: str = ""
    run_as: int = UID
    env: Mapping[str, str] | None = None
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    max_unavailable: int = 1
    max_surge: int = 1
    read_nodes: bool = False

    @property
    def nodes(self) -> dict[str, str]:
        """The node selector, with the zone."""
        return dict(self.node_selector or {}) | ({ZONE: self.zone} if self.zone else {})


def read(settings: Mapping[str, Any], placement: Mapping[str, Any] | None = None) -> Spec:
    """The Spec of a pool, or of one of its kinds of machine, whose selector and tolerations are added to the pool's. Raises Invalid."""
    pool = schemas.checked("kubernetes", settings)
    if not placement:
        return _spec(pool)
    own = schemas.checked("kubernetes", placement)
    if "node_selector" in own:
        own["node_selector"] = dict(pool.get("node_selector") or {}) | own["node_selector"]
    if "tolerations" in own:
        own["tolerations"] = (*pool.get("tolerations", ()), *(t for t in own["tolerations"] if t not in pool.get("tolerations", ())))
    # One connection serves a pool.
    return _spec(pool | {k: v for k, v in own.items() if k not in ("context", "namespace", "read_nodes")})


def _spec(given: Mapping[str, Any]) -> Spec:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return replace(Spec(), **values)


def _text(pattern: re.Pattern[str], wants: str = "a name as Kubernetes writes them") -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not isinstance(value, str) or (value and not pattern.fullmatch(value)):
            raise ValueError(f"must be {wants}")
        return value

    return check


def _amount(value: Any) -> str:
    text = str(value) if type(value) is int else value
    if not isinstance(text, str) or not _QUANTITY.fullmatch(text) or not any(c in "123456789" for c in text):
        raise ValueError("must be an amount above zero, e.g. 4, 500m or 16Gi")
    return text


def _number(least: int, most: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least:,} to {most:,}")
        return value

    return check


def _pairs(keys: re.Pattern[str], values: re.Pattern[str]) -> Callable[[Any], dict[str, str]]:
    def check(value: Any) -> dict[str, str]:
        if not isinstance(value, Mapping) or len(value) > 50:
            raise ValueError("must be an object of at most 50 texts")
        for name, text in value.items():
            if not isinstance(name, str) or not keys.fullmatch(name):
                raise ValueError(f"has the name {str(name)[:60]!r}, which Kubernetes does not take")
            if name in _OURS or "comfyplane.io/" in name or name.startswith("app.kubernetes.io/"):
                raise ValueError(f"has {name}, which is set by Comfyplane")
            if not isinstance(text, str) or not values.fullmatch(text):
                raise ValueError(f"has {str(text)[:60]!r} for {name}, which Kubernetes does not take")
        return dict(value)

    return check


def _names(value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or len(value) > 20 or not all(isinstance(v, str) and _NAME.fullmatch(v) for v in value):
        raise ValueError("must be a list of names")
    return list(value)  # as JSON keeps it


def _tolerations(value: Any) -> list[Mapping[str, Any]]:
    if not isinstance(value, list | tuple) or len(value) > 20:
        raise ValueError("must be a list of at most 20 tolerations")
    return [_toleration(item) for item in value]


def _toleration(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not set(value) <= {"key", "operator", "value", "effect", "tolerationSeconds"}:
        raise ValueError("must hold objects with key, operator, value, effect and tolerationSeconds")
    operator, key, text, effect = (value.get(name, default) for name, default in (("operator", "Equal"), ("key", ""), ("value", ""), ("effect", "")))
    fits = (
        operator in ("Equal", "Exists")
        and effect in ("", "NoSchedule", "PreferNoSchedule", "NoExecute")
        and isinstance(key, str)
        and bool(_KEY.fullmatch(key) if key else operator == "Exists")
        and isinstance(text, str)
        and bool(_LABEL.fullmatch(text))
        and not (operator == "Exists" and text)
        and ("tolerationSeconds" not in value or (type(value["tolerationSeconds"]) is int and effect == "NoExecute"))
    )
    if not fits:
        raise ValueError(f"must hold tolerations as Kubernetes writes them, not {str(dict(value))[:120]}")
    return dict(value)


def _choice(*options: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in options:
            raise ValueError(f"must be one of {', '.join(options)}")
        return str(value)

    return check


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


_HELP: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "context": ("Context of the kubeconfig; empty: its current one, or the cluster the controller runs in", _text(_CONTEXT, "the name of a context")),
    "namespace": ("Namespace of the pool's pods; empty: the context's, or the controller's own", _text(_NAMESPACE)),
    "url": ("Where pods find the control plane; empty: AGENT_URL", _text(_ADDRESS, "an address such as https://plane.example")),
    "cpu": ("Processors a pod asks for", _amount),
    "memory": ("Memory a pod asks for, and its limit", _amount),
    "disk": ("Limit of what a pod writes beside its model store", _amount),
    "shm": ("Shared memory, which counts as memory", _amount),
    "gpus": ("GPUs of a pod; else one, or none where the kind of machine is cpu", _number(0, 64)),
    "gpu_resource": ("What the device plugin calls a GPU", _text(_KEY)),
    "node_selector": ("Labels of the nodes it may run on", _pairs(_KEY, _LABEL)),
    "zone": ("Zone it may run in", _text(_LABEL)),
    "tolerations": ("Taints of nodes it stands", _tolerations),
    "drain_s": ("Seconds a pod that has to go may finish its job in", _number(10, 86_400)),
    "patience_s": ("Seconds a pod may find no node, before the pool's next kind of machine is tried", _number(10, 7200)),
    "models_claim": ("PersistentVolumeClaim of the model store; empty: each pod fetches its own", _text(_NAME)),
    "models_disk": ("Size of a pod's own model store, where there is no claim", _amount),
    "image_pull_secrets": ("Secrets with the registry's credentials", _names),
    "image_pull_policy": ("When the image is pulled", _choice("IfNotPresent", "Always", "Never")),
    "runtime_class": ("RuntimeClass", _text(_NAME)),
    "priority_class": ("PriorityClass", _text(_NAME)),
    "service_account": ("ServiceAccount of the pods; its token is not mounted", _text(_NAME)),
    "run_as": ("User id of the agent", _number(1, 2**31 - 1)),
    "env": ("Further environment of the agent", _pairs(_VARIABLE, _ANYTHING)),
    "labels": ("Further labels of the pods", _pairs(_KEY, _LABEL)),
    "annotations": ("Further annotations of the pods", _pairs(_KEY, _ANYTHING)),
    "max_unavailable": ("Pods that whoever empties nodes may take at the same moment", _number(0, 1000)),
    "max_surge": ("Pods beyond the count while a new image comes in", _number(1, 100)),
    "read_nodes": ("Whether zone, market and notices are read from nodes as well, which needs a ClusterRole", _flag),
}
SETTINGS: dict[str, Setting] = {field.name: Setting(*_HELP[field.name], None if field.default == -1 else field.default) for field in fields(Spec)}
"""Every setting with what it is for, what checks it, and what counts without it."""
