"""The edge workers talk to (docs/worker-protocol.md). Plain Django views: parse, call one function, answer.

Long polls are answered by the stream process, which calls `claim_for` here; the web process answers a claim at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import structlog
from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from controlplane.kernel import blobs, envelope
from controlplane.kernel.errors import Invalid, Malformed, MethodNotAllowed, NotFound, WorkflowError
from controlplane.kernel.ids import parse_uuid
from fleet import assignments, membership, outputs, queue, tokens
from fleet.models import Job, Worker
from fleet.queue.completing import stale

MAX_BODY_BYTES = 4_000_000


def _edge(method: str) -> Callable[[Callable[..., HttpResponse]], Callable[..., HttpResponse]]:
    """One method, the error envelope, no CSRF (tokens are not cookies)."""

    def decorate(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        @csrf_exempt
        @wraps(view)
        def wrapped(request: HttpRequest, **kwargs: Any) -> HttpResponse:
            try:
                if request.method != method:
                    raise MethodNotAllowed(
                        "method_not_allowed", f"This address answers {method} only.", "See docs/worker-protocol.md.", headers={"Allow": method}
                    )
                return view(request, **kwargs)
            except WorkflowError as error:
                return envelope.render(error, request)

        return wrapped

    return decorate


def try_claim(token: str, body: dict[str, Any]) -> dict[str, Any]:
    """One look of a long poll: the worker as it is now, and a claim only when there is something to lease."""
    worker = tokens.worker_of(token)
    if not queue.ready(worker):
        queue.note_idle(worker, now=timezone.now())
        return {"jobs": [], "drain": worker.drain_asked_at is not None}
    return claim_for(worker, body, now=timezone.now())


def bearer(header: str) -> str:
    """The token of an Authorization header, or an empty string."""
    scheme, _, value = header.partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def read_json(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`; raises Malformed."""
    if len(raw) > MAX_BODY_BYTES:
        raise Malformed("body_too_large", "The body is too large.", "Send less per call.")
    try:
        value = json.loads(raw or b"{}", parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Malformed("malformed_body", "The body is not valid JSON.", "Send a JSON object.") from None
    if not isinstance(value, dict):
        raise Malformed("malformed_body", "The body is not a JSON object.", "Send a JSON object.")
    return without_nul(value) if b"\\u0000" in raw else value


def without_nul(value: Any) -> Any:
    """`value` with NUL characters taken out of every string: PostgreSQL cannot keep them."""
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, list):
        return [without_nul(item) for item in value]
    if isinstance(value, dict):
        return {without_nul(k): without_nul(v) for k, v in value.items()}
    return value


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _worker(request: HttpRequest) -> Worker:
    worker = tokens.worker_of(bearer(request.headers.get("Authorization", "")))
    structlog.contextvars.bind_contextvars(worker=worker.name)
    return worker


@_edge("POST")
def register(request: HttpRequest) -> HttpResponse:
    """Take a worker in."""
    pool = tokens.pool_of(bearer(request.headers.get("Authorization", "")))
    body = read_json(request.body)
    instance = _text(body, "instance", 120)
    if not instance:
        raise Invalid("instance_missing", "A worker needs an instance name.", "Send 'instance'.")
    worker, token = membership.register(
        pool,
        protocol=_integer(body, "protocol"),
        instance=instance,
        name=_text(body, "name", 60),
        fingerprint=_mapping(body, "fingerprint"),
        now=timezone.now(),
    )
    timing = settings.WORKER
    return JsonResponse(
        {
            "worker": str(worker.id),
            "token": token,
            "heartbeat_s": timing["HEARTBEAT_S"],
            "lease_s": timing["LEASE_S"],
            "poll_wait_s": timing["POLL_WAIT_S"],
            "silence_exit_s": timing["SILENCE_EXIT_S"],
        },
        status=201,
    )


@_edge("POST")
def claim(request: HttpRequest) -> HttpResponse:
    """Claim without waiting."""
    worker = _worker(request)
    return JsonResponse(claim_for(worker, read_json(request.body), now=timezone.now()))


def claim_for(worker: Worker, body: dict[str, Any], *, now: datetime) -> dict[str, Any]:
    """One try to lease jobs for `worker`, as JSON."""
    warm = [str(key)[:64] for key in body.get("warm") or [] if isinstance(key, str)][:50]
    limit = min(max(_integer(body, "max_jobs", 1), 1), 16)
    leased = queue.claim(worker, limit=limit, warm=warm, now=now)
    return {"jobs": [assignments.render(a, now=now) for a in leased], "drain": worker.drain_asked_at is not None}


@_edge("POST")
def heartbeat(request: HttpRequest) -> HttpResponse:
    """Renew leases."""
    worker = _worker(request)
    body = read_json(request.body)
    reports = [
        queue.Report(job_id=job_id, attempt=_integer(item, "attempt"), progress=_share(item.get("progress")), node=_text(item, "node", 120))
        for item in _objects(body, "jobs")
        if (job_id := parse_uuid(item.get("job"))) is not None
    ]
    verdicts = queue.heartbeat(worker, state=_text(body, "state", 20) or "idle", reports=reports, usage=_mapping(body, "usage"), now=timezone.now())
    return JsonResponse(
        {
            "drain": worker.drain_asked_at is not None,
            "jobs": [{"job": str(v.job_id), "attempt": v.attempt, "verdict": v.verdict} for v in verdicts],
        }
    )


@_edge("GET")
def input_file(request: HttpRequest, job: UUID, attempt: int, sha256: str) -> HttpResponse:
    """One input file of a job the worker holds. No other blob can be read this way."""
    worker = _worker(request)
    held = Job.objects.select_related("version").filter(id=job, worker=worker, attempt=attempt, status="running").first()
    if held is None:
        raise stale(job, attempt)
    from fleet import input_files

    _, files = input_files.resolve(held.version, held.inputs)
    wanted = next((f for f in files if f["sha256"] == sha256), None)
    if wanted is None:
        raise NotFound("file_not_found", "This job has no such input file.", "Use a hash from the assignment.")
    return FileResponse(blobs.open(sha256), content_type=wanted["media_type"])


@_edge("PUT")
def output(request: HttpRequest, job: UUID, attempt: int, index: int) -> HttpResponse:
    """Store one output."""
    worker = _worker(request)
    stored = outputs.store(
        worker,
        job_id=job,
        attempt=attempt,
        index=index,
        stream=request,  # type: ignore[arg-type]  # an HttpRequest reads like a file
        name=unquote(request.headers.get("X-Output-Name", "output")),
        kind=request.headers.get("X-Output-Kind", "file"),
        node=request.headers.get("X-Output-Node", ""),
        media_type=request.headers.get("Content-Type", "application/octet-stream"),
        sha256=request.headers.get("X-Content-SHA256", "").lower(),
        now=timezone.now(),
    )
    return JsonResponse({"sha256": stored.blob_id, "size_bytes": stored.size_bytes}, status=201)


@_edge("POST")
def complete(request: HttpRequest, job: UUID, attempt: int) -> HttpResponse:
    """End an attempt."""
    worker = _worker(request)
    body = read_json(request.body)
    outcome = _text(body, "outcome", 20)
    if outcome not in ("succeeded", "failed", "canceled"):
        raise Invalid("outcome_unknown", f"There is no outcome {outcome!r}.", "Use succeeded, failed or canceled.")
    error = body.get("error") if isinstance(body.get("error"), dict) else None
    failure_class = _text(error or {}, "class", 20) or ("platform" if outcome == "failed" else "")
    if failure_class and failure_class not in Job.FailureClass.values:
        raise Invalid("class_unknown", f"There is no failure class {failure_class!r}.", "See docs/worker-protocol.md.")
    fresh = queue.complete(
        worker,
        job_id=job,
        attempt=attempt,
        completion=queue.Completion(
            outcome=outcome,
            failure_class="" if outcome == "succeeded" else failure_class,
            error=None if error is None else {k: error.get(k) for k in ("code", "message", "suggestion", "details")},
            outputs=_listed(body),
            timings={k: float(v) for k, v in _mapping(body, "timings").items() if _finite(v)},
            nodes=_objects(body, "nodes"),
        ),
        now=timezone.now(),
    )
    return JsonResponse({"accepted": True} if fresh else {"accepted": True, "duplicate": True})


@_edge("POST")
def leave(request: HttpRequest) -> HttpResponse:
    """A worker goes."""
    worker = _worker(request)
    body = read_json(request.body)
    membership.stopped(worker, reason=_text(body, "reason", 20) or "left", message=_text(body, "message", 500), now=timezone.now())
    return JsonResponse({"accepted": True})


def _listed(body: dict[str, Any]) -> list[dict[str, Any]]:
    listed = _objects(body, "outputs")
    for item in listed:
        if not isinstance(item.get("index"), int) or not isinstance(item.get("sha256"), str) or not isinstance(item.get("measurements") or {}, dict):
            raise Invalid("output_malformed", "An output lacks its index or hash.", "See docs/worker-protocol.md.")
    return listed


def _objects(body: dict[str, Any], field: str) -> list[dict[str, Any]]:
    value = body.get(field)
    return [item for item in value if isinstance(item, dict)][:1000] if isinstance(value, list) else []


def _mapping(body: dict[str, Any], field: str) -> dict[str, Any]:
    value = body.get(field)
    return value if isinstance(value, dict) else {}


def _text(body: dict[str, Any], field: str, size: int) -> str:
    value = body.get(field)
    return value.replace("\x00", "")[:size] if isinstance(value, str) else ""


def _integer(body: dict[str, Any], field: str, default: int = 0) -> int:
    value = body.get(field, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**15:
        raise Invalid("field_invalid", f"{field} must be a small whole number.", "See docs/worker-protocol.md.", details={"field": field})
    return value


def _share(value: object) -> float:
    return min(max(float(value), 0.0), 1.0) if _finite(value) else 0.0


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
