"""A leased job as the agent needs it: the bound graph, the files, the limits, what each node usually takes."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings

from builds import graphs
from builds import inputs as input_rules
from builds.models import Version
from fleet import estimates, input_files
from fleet.presenting import stamp
from fleet.queue import Assignment

_versions: dict[UUID, Version] = {}


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
        "extra_data": {},
        "weights": estimates.of_version(version.id, now=now).node_s,
        "warm_key": assignment.warm_key,
        "deadline_at": stamp(assignment.deadline_at),
        "timeout_s": version.timeout_s,
        "stall_s": version.stall_s,
        "max_output_bytes": settings.MAX_OUTPUT_BYTES,
        "request_id": assignment.request_id,
    }


def _version(version_id: UUID) -> Version:
    """Versions never change, so a process reads each once."""
    held = _versions.get(version_id)
    if held is None:
        if len(_versions) > 500:
            _versions.clear()
        held = _versions[version_id] = Version.objects.select_related("workflow").get(id=version_id)
    return held
