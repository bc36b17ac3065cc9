from __future__ import annotations

import errno
import json
import logging

import pytest
from django.core.exceptions import DisallowedHost, PermissionDenied, RequestDataTooBig, SuspiciousOperation, TooManyFieldsSent
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.http.multipartparser import MultiPartParserError
from django.http.request import UnreadablePostError
from django.test import RequestFactory
from rest_framework import exceptions as drf

from controlplane.kernel import envelope, errors
from controlplane.kernel.requests import ContentPolicy, RequestLog


def test_a_refusal_has_all_six_fields() -> None:
    error = errors.Invalid("out_of_range", "Too wide.", "Use less.", alternative_endpoint="/v1/workflows/wide/jobs", details={"field": "width"})
    assert error.status == 422 and error.envelope("r1") == {
        "error": {
            "code": "out_of_range",
            "message": "Too wide.",
            "suggestion": "Use less.",
            "alternative_endpoint": "/v1/workflows/wide/jobs",
            "details": {"field": "width"},
            "request_id": "r1",
        }
    }


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (errors.Conflict("attempt_stale", "x"), 409, "attempt_stale"),
        (RequestDataTooBig(), 413, "body_too_large"),
        (TooManyFieldsSent(), 400, "too_many_fields"),
        (drf.ParseError(), 400, "malformed_body"),
        (MultiPartParserError(), 400, "malformed_body"),
        (SuspiciousOperation(), 400, "malformed_body"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), 400, "malformed_body"),
        (drf.UnsupportedMediaType("text/x"), 415, "unsupported_media_type"),
        (drf.MethodNotAllowed("PUT"), 405, "method_not_allowed"),
        (drf.NotAcceptable(), 406, "not_acceptable"),
        (drf.NotAuthenticated(), 401, "key_missing"),
        (PermissionDenied(), 403, "forbidden"),
        (Http404(), 404, "not_found"),
        (DisallowedHost(), 400, "host_unknown"),
        (UnreadablePostError(), 400, "body_incomplete"),
        (OperationalError("server closed the connection"), 503, "database_unavailable"),
        (InterfaceError("connection already closed"), 503, "database_unavailable"),
        (OSError(errno.ENOSPC, "No space left on device"), 503, "storage_full"),
        (drf.ValidationError({"width": ["wrong"]}), 422, "invalid_request"),
    ],
)
def test_what_any_layer_raises_is_told_with_its_own_code_and_a_suggestion(raised: Exception, status: int, code: str) -> None:
    error = envelope.translate(raised)
    assert (error.status, error.code) == (status, code) and error.message


def test_a_surprise_is_logged_and_tells_nothing_of_itself(caplog) -> None:
    error = envelope.translate(RuntimeError("password=hunter2"))
    assert (error.status, error.code) == (500, "internal_error") and "hunter2" not in json.dumps(error.envelope())
    assert "hunter2" in caplog.text


def ask(answer, path: str = "/v1/jobs", **headers: str) -> HttpResponse:
    return RequestLog(answer)(RequestFactory().get(path, headers=headers))


def test_every_answer_carries_a_request_id_and_a_good_one_is_kept() -> None:
    fine = lambda request: HttpResponse()  # noqa: E731
    assert ask(fine, **{"X-Request-ID": "abcd-1234"})["X-Request-ID"] == "abcd-1234"
    for bad in ("short", "x" * 65, "spaces in it", "new\nline-1234"):
        assert ask(fine, **{"X-Request-ID": bad})["X-Request-ID"] != bad
    assert ask(fine)["X-Request-ID"] != ask(fine)["X-Request-ID"]


@pytest.mark.parametrize(("status", "code"), [(404, "not_found"), (403, "forbidden"), (400, "malformed_body")])
def test_bare_pages_become_the_envelope_on_machine_paths_only(status: int, code: str) -> None:
    bare = lambda request: HttpResponse("<h1>no</h1>", status=status)  # noqa: E731
    told = json.loads(ask(bare, **{"X-Request-ID": "abcd-1234"}).content)["error"]
    assert (told["code"], told["request_id"]) == (code, "abcd-1234")
    assert ask(bare, "/ops/").content == b"<h1>no</h1>"


def test_a_refused_method_still_says_which_are_allowed() -> None:
    response = ask(lambda request: HttpResponseNotAllowed(["GET"]))
    assert response.status_code == 405 and response["Allow"] == "GET" and json.loads(response.content)["error"]["code"] == "method_not_allowed"


def test_json_errors_are_left_as_they_are() -> None:
    assert ask(lambda request: JsonResponse({"mine": 1}, status=404)).content == b'{"mine": 1}'


def test_a_view_that_breaks_answers_the_envelope_on_machine_paths(caplog) -> None:
    caplog.set_level(logging.CRITICAL)
    middleware, request = RequestLog(lambda request: HttpResponse()), RequestFactory().get("/v1/x")
    assert middleware.process_exception(request, KeyError("x")).status_code == 500
    assert middleware.process_exception(RequestFactory().get("/ops/"), KeyError("x")) is None


def test_the_content_policy_is_strict_but_in_the_admin() -> None:
    policy = ContentPolicy(lambda request: HttpResponse())
    assert "unsafe-eval" not in policy(RequestFactory().get("/ops/"))["Content-Security-Policy"]
    assert "unsafe-eval" in policy(RequestFactory().get("/admin/"))["Content-Security-Policy"]


def test_a_body_of_unknown_length_is_refused_rather_than_taken_for_empty() -> None:
    def never(request: HttpRequest) -> HttpResponse:
        raise AssertionError("the view would see an empty body")

    request = RequestFactory().post("/v1/workflows/paint/jobs", data=b"", content_type="application/json", headers={"Transfer-Encoding": "chunked"})
    response = RequestLog(never)(request)
    assert (response.status_code, json.loads(response.content)["error"]["code"]) == (411, "length_required")


def test_a_host_nobody_allowed_is_named_as_the_reason() -> None:
    response = ask(lambda request: HttpResponse(status=400), host="elsewhere.example")
    assert json.loads(response.content)["error"]["code"] == "host_unknown"
    assert json.loads(ask(lambda request: HttpResponse(status=400)).content)["error"]["code"] == "malformed_body"


@pytest.mark.parametrize(("path", "status", "said"), [("/worker/v1/heartbeat", 200, 0), ("/worker/v1/heartbeat", 401, 1), ("/v1/files", 201, 1)])
def test_a_heartbeat_is_logged_only_when_it_is_refused(caplog, path: str, status: int, said: int) -> None:
    with caplog.at_level(logging.INFO, logger="comfyplane.request"):
        RequestLog(lambda request: JsonResponse({}, status=status))(RequestFactory().post(path))
    assert len(caplog.records) == said
