"""What a pod says of the worker in it, in words. Pure: the pod, and its node where that may be read, as the API server shows them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fleet.providers.base import Instance
from fleet.providers.kubernetes.objects import AGENT, GPU, MARKET, OFFER
from fleet.providers.kubernetes.settings import ZONE

Pod = Mapping[str, Any]
Node = Mapping[str, Any]

YOUNG_S = 2.0
"""A pod may be made and taken back at once while a count settles: younger ones that are nowhere yet are not shown."""
IMAGE_PATIENCE_S = 60.0
"""So long a pull may fail before it is taken to fail for good: a registry can be restarted."""
_NEVER = {"InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_PULLING = {"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "SignatureValidationFailed"}
_SPOT = {
    "karpenter.sh/capacity-type": "spot",
    "eks.amazonaws.com/capacityType": "SPOT",
    "cloud.google.com/gke-spot": "true",
    "cloud.google.com/gke-provisioning": "spot",
    "cloud.google.com/gke-preemptible": "true",
    "kubernetes.azure.com/scalesetpriority": "spot",
}
_MARKED = tuple(key for key in _SPOT if key not in ("cloud.google.com/gke-spot", "cloud.google.com/gke-preemptible"))
NOTICES = {
    "aws-node-termination-handler/spot-itn": 120.0,
    "aws-node-termination-handler/asg-lifecycle-termination": 120.0,
    "cloud.google.com/impending-node-termination": 25.0,
    "kubernetes.azure.com/scalesetevent": 30.0,
    "node.cloudprovider.kubernetes.io/shutdown": 30.0,
    "karpenter.sh/disrupted": 120.0,
}
"""Taints that say a node is about to be taken away, and for how long it usually stays."""
MOST_WORDS = 300


def instance(pod: Pod, *, context: str = "", node: Node | None = None, short_after_s: float | None = None, now: datetime) -> Instance | None:
    """The pod as a worker; None for one that is nowhere and may be gone in a moment. Nobody could place it for `short_after_s`: it is short."""
    meta, spec, status = pod["metadata"], pod.get("spec", {}), pod.get("status", {})
    age_s = _since(meta.get("creationTimestamp"), now)
    leaving = "deletionTimestamp" in meta
    container: Mapping[str, Any] = next((c for c in status.get("containerStatuses") or () if c.get("name") == AGENT), {})
    began = bool(container.get("started") or container.get("restartCount") or (container.get("state") or {}).get("running") or container.get("lastState"))
    if not spec.get("nodeName") and (leaving or age_s < YOUNG_S):
        return None
    phase, failed, why = _phase(status, container, age_s=age_s)
    if leaving and phase != "ended":
        phase, failed, why = ("stopping" if began else "pending"), False, "It was told to go."
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    ref: dict[str, Any] = {"pod": meta["name"], "uid": meta.get("uid", ""), "namespace": meta.get("namespace", ""), "context": context}
    if labels.get(OFFER, "").isdecimal() and labels[OFFER] != "0":
        ref["offer"] = int(labels[OFFER])
    notice_s, noticed = _notice(pod, node, now)
    return Instance(
        name=meta["name"],
        ref=ref,
        phase=phase,
        failed=failed,
        why=(noticed or why)[:MOST_WORDS],
        image=_image(spec),
        market=_market(node) or labels.get(MARKET, ""),
        gpu=annotations.get(GPU, ""),
        zone=labels.get(ZONE) or (_node_labels(node).get(ZONE, "")) or (spec.get("nodeSelector") or {}).get(ZONE, ""),
        preempt_in_s=notice_s,
        short=short_after_s is not None and age_s >= short_after_s and not leaving and not spec.get("nodeName") and bool(_unplaced(status)),
    )


def _phase(status: Mapping[str, Any], container: Mapping[str, Any], *, age_s: float) -> tuple[str, bool, str]:
    if status.get("phase") in ("Succeeded", "Failed"):
        return "ended", status["phase"] == "Failed", _ended_why(status, container)
    state = container.get("state") or {}
    if ended := state.get("terminated"):
        return "ended", ended.get("exitCode", 0) != 0, _exit(ended)
    if "running" in state:
        last = (container.get("lastState") or {}).get("terminated")
        return "running", False, f"{_exit(last)} It was started again." if last and last.get("exitCode") else ""
    if waiting := state.get("waiting"):
        return _waiting(waiting, container, age_s=age_s)
    if said := _unplaced(status):
        return "pending", False, said
    for condition in status.get("conditions") or ():  # a node that does not answer leaves everything else as it was
        if condition.get("type") == "Ready" and condition.get("reason") == "NodeLost":
            return "pending", False, "Its node does not answer."
    return "pending", False, ""


def _waiting(waiting: Mapping[str, Any], container: Mapping[str, Any], *, age_s: float) -> tuple[str, bool, str]:
    reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    if reason in _PULLING or (reason in _NEVER and "mage" in reason):
        said = message or "the registry gave no reason"
        return "pending", reason in _NEVER or age_s >= IMAGE_PATIENCE_S, f"Its image {container.get('image')} cannot be had ({reason}): {said}"
    if reason in _NEVER:
        return "pending", True, f"Its container cannot be made ({reason}): {message}"
    if reason == "CrashLoopBackOff":
        last = (container.get("lastState") or {}).get("terminated") or {}
        return "pending", True, f"It ends again and again, {container.get('restartCount', 0)} times so far. {_exit(last)}"
    return "pending", False, message


def _exit(ended: Mapping[str, Any]) -> str:
    """How a container ended."""
    if not ended:
        return ""
    if ended.get("reason") == "OOMKilled":
        return "It needed more memory than its limit and was ended (OOMKilled)."
    code = ended.get("exitCode", 0)
    last = str(ended.get("message") or "").strip().splitlines()
    said = f": {last[-1]}" if last else "."
    return f"Its agent left{said}" if code == 0 else f"Its agent ended with code {code}{said}"


def _ended_why(status: Mapping[str, Any], container: Mapping[str, Any]) -> str:
    reason, message = status.get("reason"), status.get("message") or ""
    if reason:
        return f"Kubernetes ended it ({reason}): {message}" if message else f"Kubernetes ended it ({reason})."
    return _exit((container.get("state") or {}).get("terminated") or {})


def _unplaced(status: Mapping[str, Any]) -> str:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"No node has room for it ({condition.get('reason') or 'Unschedulable'}): {condition.get('message') or 'no reason given'}"
    return ""


def _notice(pod: Pod, node: Node | None, now: datetime) -> tuple[float | None, str]:
    """Seconds until somebody else takes the pod away, and who says so."""
    gone_at = pod["metadata"].get("deletionTimestamp")
    left_s = max(0.0, -_since(gone_at, now)) if gone_at else None
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            grace = float(pod.get("spec", {}).get("terminationGracePeriodSeconds") or 30)
            said = condition.get("message") or condition.get("reason") or ""
            return grace if left_s is None else left_s, f"It is being taken away ({condition.get('reason')}): {said}"
    for taint in ((node or {}).get("spec") or {}).get("taints") or ():
        if taint.get("key") in NOTICES:
            return (NOTICES[taint["key"]] if left_s is None else left_s), f"Its node is about to be taken away ({taint['key']})."
    return None, ""


def _market(node: Node | None) -> str:
    labels = _node_labels(node)
    if any(labels.get(key, "").lower() == value.lower() for key, value in _SPOT.items()):
        return "spot"
    return "on_demand" if any(key in labels for key in _MARKED) else ""


def _node_labels(node: Node | None) -> Mapping[str, str]:
    return ((node or {}).get("metadata") or {}).get("labels") or {}


def _image(spec: Mapping[str, Any]) -> str:
    return next((str(c.get("image") or "") for c in spec.get("containers") or () if c.get("name") == AGENT), "")


def _since(stamp: str | None, now: datetime) -> float:
    """Seconds since an ISO time of the API server; 0 when it is missing."""
    if not stamp:
        return 0.0
    return (now - datetime.fromisoformat(stamp.replace("Z", "+00:00")).astimezone(UTC)).total_seconds()
