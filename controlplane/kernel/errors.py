"""The one error type. Every refusal says what happened, and what to do about it.

A `WorkflowError` carries a code for programs, a sentence and a suggestion for people, and
where one exists the endpoint to use instead. Its subclass decides the HTTP status, so that
no business module names one.
"""

from __future__ import annotations

from typing import Any


class WorkflowError(Exception):
    """A refusal with a code, a sentence and a suggestion."""

    status = 500

    def __init__(
        self,
        code: str,
        message: str,
        suggestion: str = "",
        *,
        alternative_endpoint: str | None = None,
        details: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.suggestion = suggestion
        self.alternative_endpoint = alternative_endpoint
        self.details = details or {}
        self.headers = headers or {}

    def envelope(self, request_id: str = "") -> dict[str, Any]:
        """The JSON body every edge answers with."""
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "suggestion": self.suggestion,
                "alternative_endpoint": self.alternative_endpoint,
                "details": self.details,
                "request_id": request_id,
            }
        }


class Malformed(WorkflowError):
    """The request cannot be read at all."""

    status = 400


class Unauthenticated(WorkflowError):
    """No key, or a key that is no longer good."""

    status = 401


class OutOfMoney(WorkflowError):
    """A hard money limit would be passed."""

    status = 402


class Forbidden(WorkflowError):
    """A good key that may not do this."""

    status = 403


class NotFound(WorkflowError):
    """Nothing of that name for this caller."""

    status = 404


class MethodNotAllowed(WorkflowError):
    status = 405


class NotAcceptable(WorkflowError):
    status = 406


class RequestTimeout(WorkflowError):
    status = 408


class Conflict(WorkflowError):
    """The thing is not in a state that allows this, or somebody else holds it."""

    status = 409


class Gone(WorkflowError):
    status = 410


class LengthRequired(WorkflowError):
    """A body whose length is not told beforehand."""

    status = 411


class TooLarge(WorkflowError):
    status = 413


class UnsupportedMedia(WorkflowError):
    status = 415


class RangeNotSatisfiable(WorkflowError):
    status = 416


class Invalid(WorkflowError):
    """Readable, but wrong: a type, a range, a missing file."""

    status = 422


class LimitExceeded(WorkflowError):
    """Too many requests or jobs; carries Retry-After."""

    status = 429


class Unavailable(WorkflowError):
    """Overloaded or not ready; carries Retry-After."""

    status = 503
