"""A build as JSON, for scripts: the API, the command line and the live stream say the same."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from builds.images.journal import is_quiet
from builds.models import Build, BuildLine, BuildStep

LINES_AT_ONCE = 500


def one(build: Build, *, steps: bool = True) -> dict[str, Any]:
    """A build; needs version__workflow. `cache` counts the steps that made layers, and how many of them were not made anew."""
    rows = list(build.steps.all()) if steps else []
    told: dict[str, Any] = {
        "id": str(build.id),
        "workflow": build.version.workflow.slug,
        "version": build.version.number,
        "lock": build.lock_id,
        "state": build.state,
        "platform": build.platform,
        "requested_by": build.requested_by,
        "requested_at": _time(build.requested_at),
        "started_at": _time(build.started_at),
        "finished_at": _time(build.finished_at),
        "seconds": seconds(build),
        "attempts": build.attempts,
        "cancel_asked": build.cancel_asked_at is not None,
        "image": build.image,
        "image_id": build.image_id,
        "digest": build.digest,
        "size_bytes": build.size_bytes,
        "classes": build.classes,
        "vulnerabilities": build.vulnerabilities,
        "sbom_sha256": build.sbom_sha256,
        "notes": build.notes,
        "failed_step": build.failed_step,
        "error": build.error,
    }
    if steps:
        told["steps"] = [step(row) for row in rows]
        told["cache"] = cache(rows)
    return told


def step(row: BuildStep) -> dict[str, Any]:
    """One step."""
    return {"position": row.position, "name": row.name, "stage": row.stage, "state": row.state, "seconds": row.seconds, "size_bytes": row.size_bytes}


def cache(rows: list[BuildStep]) -> dict[str, int]:
    """{"steps": of the Dockerfile, "cached": of those}."""
    of_file = [row for row in rows if row.stage and not is_quiet(row) and "] FROM " not in row.name]
    return {"steps": len(of_file), "cached": sum(row.state == BuildStep.State.CACHED for row in of_file)}


def seconds(build: Build) -> float | None:
    """How long it was built, or has been; None before it began or while it runs."""
    if build.started_at is None or build.finished_at is None:
        return None
    return round((build.finished_at - build.started_at).total_seconds(), 2)


def lines_after(build: Build, seq: int, *, most: int = LINES_AT_ONCE) -> list[dict[str, Any]]:
    """Log lines behind `seq`, in order."""
    rows = BuildLine.objects.filter(build=build, seq__gt=seq).order_by("seq")[:most]
    return [{"seq": row.seq, "step": row.step, "at": _time(row.at), "text": row.text} for row in rows]


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
