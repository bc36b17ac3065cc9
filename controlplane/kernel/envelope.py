"""Render every refusal as the `WorkflowError` envelope, whichever layer raised it. No input may produce a bare 500."""

from __future__ import annotations

import errno
import logging
from typing import Any

from django.core.exceptions import DisallowedHost, PermissionDenied, RequestDataTooBig, SuspiciousOperation, TooManyFieldsSent, TooManyFilesSent
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.multipartparser import MultiPartParserError
from django.http.request import UnreadablePostError
from rest_framework import exceptions as drf
from rest_framework.response import Response
from rest_framework.views import set_rollback

from controlplane.kernel import errors

log = logging.getLogger(__name__)


def translate(exc: Exception) -> errors.WorkflowError:
    """The `WorkflowError` that says what `exc` means; anything unknown becomes `internal_error`."""
    match exc:
        case errors.WorkflowError():
            return exc
        case RequestDataTooBig():
            return errors.TooLarge(
                "body_too_large", "The request body is larger than this endpoint accepts.", "Upload files with POST /v1/files and refer to them by id."
            )
        case TooManyFieldsSent() | TooManyFilesSent():
            return errors.Malformed("too_many_fields", "The form has too many fields or files.", "Send fewer parts, or JSON.")
        case DisallowedHost():
            return errors.Malformed(
                "host_unknown",
                "This installation does not answer to the host name in the request.",
                "Use its own address; an operator adds names in ALLOWED_HOSTS.",
            )
        case UnreadablePostError():
            return errors.Malformed("body_incomplete", "The connection ended before the whole body arrived.", "Send the request again.")
        case drf.ParseError() | MultiPartParserError() | UnicodeDecodeError() | SuspiciousOperation():
            return errors.Malformed("malformed_body", "The request body could not be read.", "Send valid UTF-8 JSON, or multipart/form-data with a boundary.")
        case drf.UnsupportedMediaType():
            return errors.UnsupportedMedia(
                "unsupported_media_type", "This endpoint does not read that content type.", "Send application/json or multipart/form-data."
            )
        case drf.MethodNotAllowed():
            return errors.MethodNotAllowed("method_not_allowed", "This address does not answer that method.", "See the API document at /v1/openapi.json.")
        case drf.NotAcceptable():
            return errors.NotAcceptable("not_acceptable", "This address cannot answer in the form asked for.", "Accept application/json.")
        case drf.NotAuthenticated() | drf.AuthenticationFailed():
            return errors.Unauthenticated(
                "key_missing",
                "This request carries no API key.",
                "Send 'Authorization: Bearer <key>'.",
                headers={"WWW-Authenticate": 'Bearer realm="comfyplane"'},
            )
        case drf.PermissionDenied() | PermissionDenied():
            return errors.Forbidden("forbidden", "You may not do this.", "Ask an administrator for the role or scope it needs.")
        case Http404() | drf.NotFound():
            return errors.NotFound("not_found", "There is nothing at this address.", "Check the id and the key it belongs to.")
        case drf.ValidationError():
            return errors.Invalid("invalid_request", "A field of the request is not valid.", "See details.", details={"fields": exc.get_full_details()})
        case OperationalError() | InterfaceError():
            log.error("the database does not answer", extra={"error": str(exc)[:300]})  # one line: while it is away every request comes here
            return errors.Unavailable(
                "database_unavailable", "The database does not answer at the moment.", "Try again, with the same Idempotency-Key.", headers={"Retry-After": "2"}
            )
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            log.error("no room left to keep files", exc_info=exc)
            return errors.Unavailable("storage_full", "There is no room left to keep this.", "Try again later.", headers={"Retry-After": "60"})
    log.error("unexpected error", exc_info=exc)
    return errors.WorkflowError("internal_error", "Something failed on our side; nothing was charged.", "Try again. If it stays, send us the request id.")


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response:
    """DRF's EXCEPTION_HANDLER."""
    error = translate(exc)
    set_rollback()
    request = context["request"]
    response = Response(error.envelope(request_id_of(request)), status=error.status, headers=error.headers)
    response["Cache-Control"] = "no-store"
    return response


def render(error: errors.WorkflowError, request: HttpRequest) -> HttpResponse:
    """The envelope as a plain Django response."""
    return JsonResponse(error.envelope(request_id_of(request)), status=error.status, headers={**error.headers, "Cache-Control": "no-store"})


def request_id_of(request: Any) -> str:
    """The id `kernel.requests` gave this request."""
    return str(getattr(request, "request_id", "") or getattr(getattr(request, "_request", None), "request_id", ""))
