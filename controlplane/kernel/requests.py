"""What happens around every request: an id, a log line, a measured duration, an envelope for surprises, a content policy."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

import structlog
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse

from controlplane.kernel import envelope, metrics
from controlplane.kernel.errors import LengthRequired, WorkflowError
from controlplane.kernel.ids import uuid7

log = logging.getLogger("comfyplane.request")
_ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_HEARTBEAT = "/worker/v1/heartbeat"
LENGTH_REQUIRED = LengthRequired(
    "length_required", "The request has a body but no Content-Length.", "Send the body as bytes of known length, not as a stream of chunks."
)
_MACHINE_PATHS = ("/v1/", "/worker/", "/ops/api/", "/metrics", "/healthz", "/readyz")


class RequestLog:
    """Give each request an id, log it once, and answer errors of the machine-facing paths with the envelope."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-ID", "")
        request_id = given if _ACCEPTABLE_ID.fullmatch(given) else uuid7().hex
        request.request_id = request_id  # type: ignore[attr-defined]
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started = time.perf_counter()
        # Django reads as many bytes as Content-Length says: without one it would take the body for empty, and run a job nobody asked for.
        unmeasured = "HTTP_TRANSFER_ENCODING" in request.META and not request.META.get("CONTENT_LENGTH")
        response = envelope.render(LENGTH_REQUIRED, request) if unmeasured else self.get_response(request)
        seconds = time.perf_counter() - started
        if request.path.startswith(_MACHINE_PATHS) and response.status_code >= 400 and not _is_json(response):
            response = _enveloped(request, response)
        response["X-Request-ID"] = request_id
        route = request.resolver_match.route if request.resolver_match else "unmatched"
        metrics.observe_request(route=route, method=request.method or "", status=response.status_code, seconds=seconds)
        # Heartbeats come every second or two from each worker: only one that is refused says anything.
        quiet = request.method in ("GET", "HEAD") or (request.path == _HEARTBEAT and response.status_code < 400)
        level = logging.ERROR if response.status_code >= 500 else logging.DEBUG if quiet else logging.INFO
        if log.isEnabledFor(level):
            log.log(
                level,
                "request",
                extra={"method": request.method, "path": request.path, "status": response.status_code, "ms": round(seconds * 1000, 1)},
            )
        return response

    def process_exception(self, request: HttpRequest, exc: Exception) -> HttpResponse | None:
        if request.path.startswith(_MACHINE_PATHS) or (isinstance(exc, WorkflowError) and "application/json" in request.headers.get("Accept", "")):
            return envelope.render(envelope.translate(exc), request)
        return None


def _is_json(response: HttpResponse) -> bool:
    return response.get("Content-Type", "").startswith("application/json")


def _enveloped(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Refusals that Django or a library wrote as a page of its own, as the envelope."""
    from rest_framework import exceptions as drf

    by_status: dict[int, Exception] = {
        400: drf.ParseError(),
        403: drf.PermissionDenied(),
        404: drf.NotFound(),
        405: drf.MethodNotAllowed(request.method or ""),
        406: drf.NotAcceptable(),
        415: drf.UnsupportedMediaType(request.headers.get("Content-Type", "")),
    }
    # What else a library refuses is still the caller's to mend, not a failure of ours.
    otherwise = drf.ParseError() if response.status_code < 500 else RuntimeError(f"bare {response.status_code}")
    meant = by_status.get(response.status_code, otherwise)
    if response.status_code == 400:
        try:
            request.get_host()
        except DisallowedHost as refused:
            meant = refused
    error = envelope.translate(meant)
    fresh = envelope.render(error, request)
    if response.has_header("Allow"):
        fresh["Allow"] = response["Allow"]
    return fresh


class ContentPolicy:
    """A strict policy everywhere but the admin, whose library needs inline code."""

    STRICT = (
        "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
        "base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
    )
    ADMIN = (
        "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "object-src 'none'; frame-ancestors 'none'"
    )

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if not response.has_header("Content-Security-Policy"):
            response["Content-Security-Policy"] = self.ADMIN if request.path.startswith("/admin/") else self.STRICT
        return response
