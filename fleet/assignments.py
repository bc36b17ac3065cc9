"""A leased job as the agent needs it: the bound graph, the files, the limits, what each node usually takes."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings

from builds import graphs
from builds import inputs as input_rules
from builds.models import Lock, Version, VersionLock
from fleet import estimates, input_files
from fleet.presenting import stamp
from fleet.queue import Assignment

_MODEL = ("directory", "filename", "sha256", "size_bytes", "urls")
_versions: dict[UUID, Version] = {}
_locked: dict[str, list[dict[str, Any]]] = {}  # by the lock's id, which is the hash of its content


def render(assignment: Assignment, *, now: datetime) -> dict[str, Any]:
    """The JSON of one assignment (docs/worker-protocol.md)."""
    version = _version(assignment.version_id)
    seen, files = input_files.resolve(version, assignment.inputs)
    return {
        "job": str(assignment.job_id),
        "attempt": assignment.attempt,
        "workflow": version.workflow.slug,
        "version": version.number,
        "graph": graphs.bind(version.graph, input_rules.exposed_of(version), seen),
        "files": files,
        "models": models_of(version.id),
        "extra_data": {},
        "weights": estimates.of_version(version.id, now=now).node_s,
        "warm_key": assignment.warm_key,
        "deadline_at": stamp(assignment.deadline_at),
        "timeout_s": version.timeout_s,
        "stall_s": version.stall_s,
        "max_output_bytes": settings.MAX_OUTPUT_BYTES,
        "request_id": assignment.request_id,
    }


def models_of(version_id: UUID) -> list[dict[str, Any]]:
    """What the agent must have on its disk first: the models of the newest lock. Those nobody knows the hash of are left to the engine."""
    lock = VersionLock.objects.filter(version_id=version_id).order_by("-made_at", "-id").values_list("lock_id", flat=True).first()
    if lock is None:
        return []
    held = _locked.get(lock)
    if held is None:
        if len(_locked) > 500:
            _locked.clear()
        document = Lock.objects.values_list("document", flat=True).get(sha256=lock)
        held = _locked[lock] = [{name: model.get(name) for name in _MODEL} for model in document.get("models") or [] if model.get("sha256")]
    return held


def _version(version_id: UUID) -> Version:
    """Versions never change, so a process reads each once."""
    held = _versions.get(version_id)
    if held is None:
        if len(_versions) > 500:
            _versions.clear()
        held = _versions[version_id] = Version.objects.select_related("workflow").get(id=version_id)
    return held
