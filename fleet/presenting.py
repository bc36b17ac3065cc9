"""How a job looks to its customer: the one JSON shape of API, stream and webhooks. Never a worker, a pool or a cost."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from controlplane.kernel import money
from fleet.estimates import Place
from fleet.held_up import Waiting
from fleet.models import Job, Output


def job(job: Job, *, outputs: Iterable[Output] = (), place: Place | None = None, waiting: Waiting | None = None, base_url: str = "") -> dict[str, Any]:
    """The public shape of a job. `job` needs workflow and version at hand; outputs are those published; `base_url` makes their addresses absolute."""
    at = place or Place()
    price = job.price_microusd if job.price_microusd is not None else job.quote_microusd
    return {
        "id": str(job.id),
        "workflow": job.workflow.slug,
        "version": job.version.number,
        "status": job.status,
        "progress": round(job.progress, 4),
        "position": at.position,
        "eta_s": at.eta_s,
        "waiting": None if waiting is None else {"code": waiting.code, "reason": waiting.reason, "since": stamp(waiting.since), "eta_s": waiting.eta_s},
        "created_at": stamp(job.created_at),
        "started_at": stamp(job.started_at),
        "finished_at": stamp(job.finished_at),
        "price_usd": money.to_usd(price),
        "inputs": job.inputs,
        "fast": fast(job),
        "outputs": [output(o, base_url=base_url) for o in outputs],
        "error": error(job),
        "metadata": job.metadata,
    }


def fast(job: Job) -> dict[str, Any] | None:
    """Why a job ran the faster way while demand was above capacity, and what it had asked for; None for all others."""
    if not job.fast:
        return None
    return {"reason": job.fast.get("reason", ""), "asked_version": job.fast.get("asked_version"), "asked_inputs": job.fast.get("asked_inputs") or {}}


def output(item: Output, *, base_url: str = "") -> dict[str, Any]:
    """The public shape of one output; without `base_url` its address is relative to the API's own."""
    return {
        "name": item.name,
        "kind": item.kind,
        "media_type": item.media_type,
        "url": f"{base_url}/v1/jobs/{item.job_id}/outputs/{item.index}/{_path(item.name)}",
        "bytes": item.size_bytes,
        "width": item.width,
        "height": item.height,
        "sha256": item.blob_id,
    }


def error(job: Job) -> dict[str, Any] | None:
    """What went wrong, in the envelope's fields, with whose doing it was and whether a retry is safe."""
    if not job.error:
        return None
    given: dict[str, Any] = job.error
    return {
        "code": given.get("code", "unknown"),
        "message": given.get("message", ""),
        "suggestion": given.get("suggestion", ""),
        "alternative_endpoint": given.get("alternative_endpoint"),
        # A traceback names paths of the worker: operators see it, customers do not.
        "details": {key: value for key, value in (given.get("details") or {}).items() if key != "traceback"},
        "request_id": job.request_id,
        "class": job.failure_class,
    }


def stamp(at: datetime | None) -> str | None:
    """RFC 3339 in UTC, milliseconds."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _path(name: str) -> str:
    return quote(name, safe="")
