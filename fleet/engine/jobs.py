"""Queue and history seen as one list of jobs, as /api/jobs shows it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fleet.engine.queue import Queued

STATUSES = ("pending", "in_progress", "completed", "failed")
PREVIEWED = {"images", "video", "audio"}

Job = dict[str, Any]


def queued(item: Queued, status: str) -> Job:
    """A job that has not ended."""
    return _without_nulls(
        {
            "id": item.prompt_id,
            "status": status,
            "priority": item.number,
            "create_time": item.extra_data.get("create_time"),
            "outputs_count": 0,
            "workflow_id": _workflow_id(item.extra_data),
        }
    )


def ended(prompt_id: str, entry: dict[str, Any], *, details: bool = False) -> Job:
    """A job from its history entry; `details` adds outputs and the workflow."""
    number, _, prompt, extra_data, _ = entry["prompt"]
    status, outputs = entry["status"], entry["outputs"]
    moments = dict(status["messages"])
    last = moments.get("execution_success") or moments.get("execution_error") or moments.get("execution_interrupted") or {}
    count, preview = _summary(outputs)
    job = _without_nulls(
        {
            "id": prompt_id,
            "status": "completed" if status["status_str"] == "success" else "failed",
            "priority": number,
            "create_time": extra_data.get("create_time"),
            "execution_start_time": moments.get("execution_start", {}).get("timestamp"),
            "execution_end_time": last.get("timestamp"),
            "execution_error": moments.get("execution_error"),
            "outputs_count": count,
            "preview_output": preview,
            "workflow_id": _workflow_id(extra_data),
        }
    )
    if details:
        job |= {"outputs": outputs, "execution_status": status, "workflow": {"prompt": prompt, "extra_data": extra_data}}
    return job


def listing(
    jobs: Iterable[Job],
    *,
    statuses: set[str] | None,
    workflow_id: str | None,
    sort_by: str,
    descending: bool,
    offset: int,
    limit: int | None,
) -> Job:
    """One page of the jobs that match."""
    chosen = [job for job in jobs if (statuses is None or job["status"] in statuses) and (workflow_id is None or job.get("workflow_id") == workflow_id)]
    chosen.sort(key=_duration if sort_by == "execution_duration" else _created, reverse=descending)
    page = chosen[offset:] if limit is None else chosen[offset : offset + limit]
    more = offset + len(page) < len(chosen)
    return {"jobs": page, "pagination": {"offset": offset, "limit": limit, "total": len(chosen), "has_more": more}}


def _created(job: Job) -> int:
    return job.get("create_time") or 0


def _duration(job: Job) -> int:
    return job.get("execution_end_time", 0) - job.get("execution_start_time", 0)


def _summary(outputs: dict[str, Any]) -> tuple[int, Job | None]:
    """How many files the outputs hold and the one to show, saved before temporary."""
    previews: list[Job] = []
    count = 0
    for node_id, shown in outputs.items():
        for media, items in shown.items():
            for item in items if isinstance(items, list) else ():
                if not isinstance(item, dict):
                    continue
                count += 1
                if media in PREVIEWED:
                    previews.append({**item, "nodeId": node_id, "mediaType": media})
    saved = [preview for preview in previews if preview.get("type") == "output"]
    return count, next(iter(saved or previews), None)


def _workflow_id(extra_data: dict[str, Any]) -> str | None:
    try:
        return extra_data["extra_pnginfo"]["workflow"].get("id")
    except (KeyError, TypeError, AttributeError):
        return None


def _without_nulls(job: Job) -> Job:
    return {key: value for key, value in job.items() if value is not None}
