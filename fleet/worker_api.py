"""The edge workers talk to (docs/worker-protocol.md). Plain Django views: parse, call one function, answer.

Long polls are answered by the stream process, which calls `claim_for` here; the web process answers a claim at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import wraps
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import structlog
from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from controlplane.kernel import blobs, envelope
from controlplane.kernel.errors import Invalid, MethodNotAllowed, NotFound, WorkflowError
from controlplane.kernel.ids import parse_uuid
from fleet import assignments, input_files, membership, outputs, preemption, queue, tokens, warmups, worker_body
from fleet.models import Job, Worker
from fleet.queue.completing import stale
from fleet.worker_body import read_json

log = logging.getLogger(__name__)


def _edge(method: str) -> Callable[[Callable[..., HttpResponseBase]], Callable[..., HttpResponseBase]]:
    """One method, the error envelope, no CSRF (tokens are not cookies)."""

    def decorate(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
        @csrf_exempt
        @wraps(view)
        def wrapped(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
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
    now = timezone.now()
    if not queue.ready(worker, now=now):
        queue.note_idle(worker, now=now)
        return {"jobs": [], "drain": worker.drain_asked_at is not None}
    return claim_for(worker, body, now=now)


def bearer(header: str) -> str:
    """The token of an Authorization header, or an empty string."""
    scheme, _, value = header.partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def _worker(request: HttpRequest) -> Worker:
    worker = tokens.worker_of(bearer(request.headers.get("Authorization", "")))
    structlog.contextvars.bind_contextvars(worker=worker.name)
    return worker


@_edge("POST")
def register(request: HttpRequest) -> HttpResponse:
    """Take a worker in."""
    pool = tokens.pool_of(bearer(request.headers.get("Authorization", "")))
    body = read_json(request.body)
    instance = worker_body.text(body, "instance", 120)
    if not instance:
        raise Invalid("instance_missing", "A worker needs an instance name.", "Send 'instance'.")
    worker, token = membership.register(
        pool,
        protocol=worker_body.small(body, "protocol"),
        instance=instance,
        name=worker_body.text(body, "name", 60),
        fingerprint=worker_body.mapping(body, "fingerprint"),
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
            "warmup": warmups.of_pool(pool, engine=str(worker.fingerprint.get("engine")), now=worker.registered_at or timezone.now()),
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
    warm = worker_body.texts(body, "warm", 64, 50)
    limit = min(max(worker_body.small(body, "max_jobs", 1), 1), 16)
    leased = queue.claim(worker, limit=limit, warm=warm, stored=worker_body.texts(body, "stored", 64, 50), now=now)
    rendered = [made for assignment in leased if (made := _rendered(worker, assignment, now=now)) is not None]
    return {"jobs": rendered, "drain": worker.drain_asked_at is not None}


def _rendered(worker: Worker, assignment: queue.Assignment, *, now: datetime) -> dict[str, Any] | None:
    """The assignment as JSON. One that cannot be written down ends here, or it would take the others of its claim with it, again and again."""
    try:
        return assignments.render(assignment, now=now)
    except Exception:
        log.exception("assignment not rendered", extra={"job": str(assignment.job_id), "attempt": assignment.attempt})
        failed = queue.Completion(outcome="failed", failure_class="platform", error=UNRENDERABLE, timings={"busy_s": 0.0})
        queue.complete(worker, job_id=assignment.job_id, attempt=assignment.attempt, completion=failed, now=now)
        return None


@_edge("POST")
def heartbeat(request: HttpRequest) -> HttpResponse:
    """Renew leases."""
    worker = _worker(request)
    body = read_json(request.body)
    reports = [
        queue.Report(
            job_id=job_id,
            attempt=worker_body.small(item, "attempt"),
            progress=worker_body.share(item.get("progress")),
            node=worker_body.text(item, "node", 120),
        )
        for item in worker_body.objects(body, "jobs")
        if (job_id := parse_uuid(item.get("job"))) is not None
    ]
    said, now = worker_body.mapping(body, "warmup"), timezone.now()
    verdicts = queue.heartbeat(
        worker,
        state=worker_body.text(body, "state", 20) or "idle",
        warming=said.get("state") == "running",
        reports=reports,
        usage=worker_body.mapping(body, "usage"),
        now=now,
    )
    if said:
        warmups.note(worker, said)
    if worker.preempt_at is None and (left_s := worker_body.countdown(body, "preempt_in_s")) is not None:
        preemption.notice(worker, at=now + timedelta(seconds=left_s), why="Its agent was told that it will be taken away.", now=now)
    return JsonResponse(
        {
            "drain": worker.drain_asked_at is not None,
            "jobs": [{"job": str(v.job_id), "attempt": v.attempt, "verdict": v.verdict} for v in verdicts],
        }
    )


@_edge("GET")
def input_file(request: HttpRequest, job: UUID, attempt: int, sha256: str) -> HttpResponseBase:
    """One input file of a job the worker holds. No other blob can be read this way."""
    worker = _worker(request)
    held = Job.objects.select_related("version").filter(id=job, worker=worker, attempt=attempt, status="running").first()
    if held is None:
        raise stale(job, attempt)
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
        node=worker_body.header(request.headers.get("X-Output-Node", ""), 120),
        media_type=worker_body.header(request.headers.get("Content-Type", ""), 100) or "application/octet-stream",
        sha256=request.headers.get("X-Content-SHA256", "").lower(),
        now=timezone.now(),
    )
    return JsonResponse({"sha256": stored.blob_id, "size_bytes": stored.size_bytes}, status=201)


@_edge("POST")
def complete(request: HttpRequest, job: UUID, attempt: int) -> HttpResponse:
    """End an attempt."""
    worker = _worker(request)
    body = read_json(request.body)
    outcome = worker_body.text(body, "outcome", 20)
    if outcome not in ("succeeded", "failed", "canceled"):
        raise Invalid("outcome_unknown", f"There is no outcome {outcome!r}.", "Use succeeded, failed or canceled.")
    failure_class = worker_body.text(worker_body.mapping(body, "error"), "class", 20) or ("platform" if outcome == "failed" else "")
    if failure_class and failure_class not in Job.FailureClass.values:
        raise Invalid("class_unknown", f"There is no failure class {failure_class!r}.", "See docs/worker-protocol.md.")
    fresh = queue.complete(
        worker,
        job_id=job,
        attempt=attempt,
        completion=queue.Completion(
            outcome=outcome,
            failure_class="" if outcome == "succeeded" else failure_class,
            error=None if outcome == "succeeded" else worker_body.failure(body),
            outputs=worker_body.listed_outputs(body),
            timings=worker_body.timings(body),
            nodes=worker_body.nodes(body),
        ),
        now=timezone.now(),
    )
    return JsonResponse({"accepted": True} if fresh else {"accepted": True, "duplicate": True})


@_edge("POST")
def leave(request: HttpRequest) -> HttpResponse:
    """A worker goes."""
    worker = _worker(request)
    body = read_json(request.body)
    membership.stopped(
        worker,
        reason=worker_body.text(body, "reason", 20) or "left",
        message=worker_body.text(body, "message", 500),
        engine_log=worker_body.texts(body, "engine_log", 500, 40),
        now=timezone.now(),
    )
    return JsonResponse({"accepted": True})


UNRENDERABLE = {
    "code": "assignment_failed",
    "message": "The job could not be prepared for a worker.",
    "suggestion": "Nothing was charged; tell us the request id.",
}
