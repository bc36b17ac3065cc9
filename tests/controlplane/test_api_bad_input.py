"""Bad input over HTTP: each kind has its own code, a sentence and a suggestion, the right status, and loses nothing. Nothing gives a 500."""

import base64
import json
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing import customers, keys
from billing.models import Account
from fleet.models import Job
from tests.controlplane import api_world as world

pytestmark = pytest.mark.django_db
SUBMIT = "/v1/workflows/paint/jobs"


@pytest.fixture
def api():
    world.workflow()
    world.workflow("mend", expose=[{"name": "image", "node": "3", "input": "image", "required": True}])
    return world.caller()


def refused(response, status, code):
    """The envelope is whole, and nothing was kept."""
    assert (response.status_code, response.json().get("error", {}).get("code")) == (status, code), response.content[:500]
    error = response.json()["error"]
    assert set(error) == {"code", "message", "suggestion", "alternative_endpoint", "details", "request_id"}
    assert error["message"].endswith((".", "?"))
    assert error["suggestion"]
    assert error["request_id"] == response["X-Request-ID"]
    assert "Traceback" not in response.content.decode()
    return error


BODIES = [
    ("not json", b"{inputs", 400, "json_invalid"),
    ("trailing text", b"{} {}", 400, "json_invalid"),
    ("a list", b"[]", 400, "json_not_object"),
    ("a number", b"1", 400, "json_not_object"),
    ("null", b"null", 400, "json_not_object"),
    ("not utf-8", b'{"inputs": "\xff\xfe"}', 400, "body_not_utf8"),
    ("utf-16", '{"inputs": {}}'.encode("utf-16"), 400, "body_not_utf8"),
    ("a byte order mark", b"\xef\xbb\xbf{}", 400, "json_invalid"),
    ("NaN", b'{"inputs": {"width": NaN}}', 400, "json_not_a_number"),
    ("Infinity", b'{"inputs": {"width": -Infinity}}', 400, "json_not_a_number"),
    ("a number past all floats", b'{"inputs": {"width": 1e999}}', 400, "json_not_a_number"),
    ("a field twice", b'{"inputs": {"width": 1, "width": 2}}', 400, "json_duplicate_field"),
    ("100 levels", b'{"metadata": {"a": ' + b"[" * 100 + b"]" * 100 + b"}}", 400, "json_too_deep"),
    ("100,000 levels", b'{"metadata": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "json_too_deep"),
    ("a NUL character", b'{"metadata": {"a": "x\\u0000"}}', 400, "json_text_invalid"),
    ("a NUL in a name", b'{"metadata": {"x\\u0000": 1}}', 400, "json_text_invalid"),
    ("half a pair", b'{"metadata": {"a": "\\ud800"}}', 400, "json_text_invalid"),
    ("an endless number", b'{"metadata": {"a": ' + b"9" * 5000 + b"}}", 400, "json_invalid"),
    ("a raw control character", b'{"metadata": {"a": "\x01"}}', 400, "json_invalid"),
    ("an unknown field", b'{"input": {}}', 422, "unknown_field"),
    ("an unknown input", b'{"inputs": {"widht": 1}}', 422, "unknown_field"),
    ("inputs of another kind", b'{"inputs": [1]}', 422, "inputs_not_object"),
    ("text for a number", b'{"inputs": {"width": "64"}}', 422, "wrong_type"),
    ("true for a number", b'{"inputs": {"width": true}}', 422, "wrong_type"),
    ("null for a number", b'{"inputs": {"width": null}}', 422, "wrong_type"),
    ("a fraction", b'{"inputs": {"width": 1.5}}', 422, "wrong_type"),
    ("past the range", b'{"inputs": {"width": 513}}', 422, "out_of_range"),
    ("a huge number", b'{"inputs": {"width": ' + b"9" * 400 + b"}}", 422, "out_of_range"),
    ("an unknown priority", b'{"priority": "urgent"}', 422, "priority_unknown"),
    ("a priority of another kind", b'{"priority": ["high"]}', 422, "wrong_type"),
    ("a priority past the plan", b'{"priority": "high"}', 403, "priority_not_in_plan"),
    ("a deadline of another kind", b'{"deadline_s": "soon"}', 422, "wrong_type"),
    ("a deadline gone by", b'{"deadline_s": -5}', 422, "deadline_out_of_range"),
    ("a deadline far off", b'{"deadline_s": 1e11}', 422, "deadline_out_of_range"),
    ("a deadline past all dates", b'{"deadline_s": 1e300}', 422, "wrong_type"),
    ("metadata of another kind", b'{"metadata": "x"}', 422, "wrong_type"),
    ("too much metadata", b'{"metadata": {"a": "' + b"x" * 9000 + b'"}}', 422, "metadata_too_large"),
    ("an inner webhook", b'{"webhook_url": "http://127.0.0.1/x"}', 422, "webhook_url_refused"),
    ("a webhook of another scheme", b'{"webhook_url": "file:///etc/passwd"}', 422, "webhook_url_refused"),
    ("a webhook of another kind", b'{"webhook_url": 5}', 422, "wrong_type"),
    ("an endless webhook", b'{"webhook_url": "https://example.com/' + b"x" * 600 + b'"}', 422, "too_long"),
    ("a webhook with control characters", b'{"webhook_url": "https://example.com/\\u0007"}', 422, "invalid_text"),
    ("a version of another kind", b'{"version": "1"}', 422, "wrong_type"),
    ("a version that is not", b'{"version": 99}', 404, "version_not_found"),
    ("a version past all numbers", b'{"version": ' + b"9" * 50 + b"}", 404, "version_not_found"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status", "code"), [case[1:] for case in BODIES], ids=[case[0] for case in BODIES])
def test_a_bad_body_is_refused_with_its_own_code(api, body, status, code):
    refused(api.post(SUBMIT, body), status, code)
    assert not Job.objects.exists()
    account = Account.objects.get(customer=api.customer)
    assert (account.reserved_microusd, account.active_jobs) == (0, 0)


def data_url(data, kind="image/png"):
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


FILES = [
    ("none", {}, 422, "missing_file"),
    ("a path", {"image": "../../etc/passwd"}, 422, "not_a_file"),
    ("an id nobody has", {"image": "00000000-0000-7000-8000-000000000000"}, 422, "file_not_found"),
    ("a number", {"image": 5}, 422, "wrong_type"),
    ("a blob by its hash", {"image": "blob:" + "0" * 64}, 422, "not_a_file"),
    ("broken base64", {"image": "data:image/png;base64,@@@"}, 422, "not_a_file"),
    ("half of base64", {"image": "data:image/png;base64,QUJDR"}, 422, "data_uri_malformed"),
    ("no image", {"image": data_url(b"plain text")}, 422, "file_type_mismatch"),
    ("audio", {"image": data_url(b"fLaC", "audio/flac")}, 422, "wrong_media_type"),
    ("a broken image", {"image": data_url(world.png()[:50])}, 422, "image_undecodable"),
    ("nothing in it", {"image": "data:image/png;base64,"}, 422, "not_a_file"),
]


@pytest.mark.parametrize(("inputs", "status", "code"), [case[1:] for case in FILES], ids=[case[0] for case in FILES])
def test_a_bad_file_input_is_refused_with_its_own_code(api, inputs, status, code):
    refused(api.post("/v1/workflows/mend/jobs", {"inputs": inputs}), status, code)
    assert not Job.objects.exists()


FORMS = [
    ("text for a file", {"image": "nothing"}, 422, "not_a_file"),
    ("a file for text", {"image": world.png, "width": world.png}, 422, "unknown_field"),
    ("an unknown file", {"picture": world.png}, 422, "unknown_field"),
    ("a file as metadata", {"image": world.png, "metadata": world.png}, 422, "field_not_text"),
    ("metadata that is no JSON", {"image": world.png, "metadata": "{"}, 400, "json_invalid"),
    ("two of a part", {"image": world.png, "priority": ["low", "normal"]}, 400, "form_duplicate_field"),
    ("a deadline in words", {"image": world.png, "deadline_s": "soon"}, 422, "wrong_type"),
    ("a deadline that is no number", {"image": world.png, "deadline_s": "nan"}, 422, "wrong_type"),
    ("a broken image", {"image": lambda: world.png()[:50]}, 422, "image_undecodable"),
]


@pytest.mark.parametrize(("fields", "status", "code"), [case[1:] for case in FORMS], ids=[case[0] for case in FORMS])
def test_a_bad_form_is_refused_with_its_own_code(api, fields, status, code):
    made = {name: world.upload(f"{name}.png", value()) if callable(value) else value for name, value in fields.items()}
    refused(api.form("/v1/workflows/mend/jobs", made), status, code)
    assert not Job.objects.exists()


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "application/json5", "garbage"])
def test_other_content_types_are_named_as_such(api, kind):
    error = refused(api.client.post(SUBMIT, data=b'{"inputs": {}}', content_type=kind, headers=api.auth), 415, "unsupported_media_type")
    assert "application/json" in error["suggestion"]


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=é", "multipart/form-data; boundary=" + "x" * 300]
)
def test_a_form_that_cannot_be_read_is_malformed(api, kind):
    assert api.client.post(SUBMIT, data=b"--x\r\nnonsense", content_type=kind, headers=api.auth).status_code in (400, 202)
    assert api.client.post("/v1/files", data=b"--x\r\nnonsense", content_type=kind, headers=api.auth).status_code in (400, 422)


def test_a_body_past_the_limit_is_too_large(api):
    refused(api.post(SUBMIT, b'{"metadata": "' + b"x" * 8_100_000 + b'"}'), 413, "body_too_large")


def test_an_unknown_workflow_names_the_nearest(api):
    error = refused(api.post("/v1/workflows/qqqqq/jobs"), 404, "workflow_not_found")
    assert error["alternative_endpoint"] == "/v1/workflows"
    error = refused(api.get("/v1/workflows/pint"), 404, "workflow_not_found")
    assert (error["suggestion"], error["alternative_endpoint"]) == ("Did you mean paint?", "/v1/workflows/paint")


def test_a_workflow_that_is_archived_or_not_released_says_so(api):
    world.workflow("draft-one", released=False)
    refused(api.post("/v1/workflows/draft-one/jobs"), 409, "workflow_not_released")
    gone = world.workflow("old")
    type(gone).objects.filter(id=gone.id).update(archived_at=timezone.now())
    refused(api.post("/v1/workflows/old/jobs"), 410, "workflow_archived")
    assert [w["id"] for w in api.get("/v1/workflows").json()["results"]] == ["mend", "paint"]


def test_keys_that_are_no_longer_good_say_why(api):
    url = "/v1/jobs"
    past = timezone.now() - timedelta(days=1)
    keys.ApiKey.objects.filter(id=api.key.id).update(expires_at=past)
    refused(api.get(url), 401, "key_expired")
    keys.ApiKey.objects.filter(id=api.key.id).update(expires_at=None, revoked_at=past)
    refused(api.get(url), 401, "key_revoked")
    keys.ApiKey.objects.filter(id=api.key.id).update(revoked_at=None)
    customers.set_status(api.customer, status="suspended", actor="t", reason="t", now=timezone.now())
    refused(api.get(url), 403, "customer_suspended")


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Basic abc", "Bearer \x00", "Bearer " + "x" * 5000, "Bearer é", "", "bearer cp_"])
def test_headers_that_hold_no_key_are_unauthenticated(api, header):
    assert Client(raise_request_exception=False).get("/v1/jobs", headers={"Authorization": header}).status_code == 401


def test_limits_say_when_to_come_back():
    world.workflow()
    few = world.caller("few", max_active_jobs=1)
    few.post(SUBMIT)
    response = few.post(SUBMIT)
    refused(response, 429, "active_jobs_limit")
    assert int(response["Retry-After"]) > 0
    poor = world.caller("poor", monthly_limit_microusd=500)
    error = refused(poor.post(SUBMIT), 402, "monthly_limit_reached")
    assert error["details"]["limit_usd"] == "0.0005"
    slow = world.caller("slow", requests_per_minute=2)
    assert [slow.post(SUBMIT, b"{").status_code for _ in range(3)] == [400, 400, 429], "refused requests count"
    response = slow.post(SUBMIT)
    refused(response, 429, "requests_limit")
    assert 0 < int(response["Retry-After"]) <= 60
    assert "r=0" in response["RateLimit"]
    assert slow.get("/v1/jobs").status_code == 200, "looking is free"


@pytest.mark.parametrize("key", ["", " ", "a b", "é", "x" * 256, "a\tb", "\x7f"])
def test_an_idempotency_key_that_is_none_is_refused(api, key):
    refused(api.post(SUBMIT, Idempotency_Key=key), 422, "idempotency_key_invalid")


QUERIES = [
    ("/v1/jobs?limit=0", "limit_out_of_range"), ("/v1/jobs?limit=101", "limit_out_of_range"), ("/v1/jobs?limit=x", "limit_out_of_range"),
    ("/v1/jobs?limit=-1", "limit_out_of_range"), ("/v1/jobs?limit=1e2", "limit_out_of_range"), ("/v1/jobs?limit=" + "9" * 5000, "limit_out_of_range"),
    ("/v1/jobs?limit=%D9%A3", "limit_out_of_range"), ("/v1/jobs?limit=", "limit_out_of_range"),
    ("/v1/jobs?cursor=", "cursor_invalid"), ("/v1/jobs?cursor=xyz", "cursor_invalid"), ("/v1/jobs?cursor=%FF", "cursor_invalid"),
    ("/v1/jobs?cursor=AAAA", "cursor_invalid"),
    ("/v1/workflows?cursor=Li4vLi4", "cursor_invalid"), ("/v1/usage?cursor=AAAA", "cursor_invalid"), ("/v1/usage?cursor=MjAyNi0wMS0wMSB4", "cursor_invalid"),
    ("/v1/jobs?status=done", "parameter_invalid"), ("/v1/jobs?workflow=%00", "parameter_invalid"), ("/v1/jobs?workflow=a%27b", "parameter_invalid"),
    ("/v1/jobs?created_after=yesterday", "parameter_invalid"), ("/v1/jobs?created_after=2026-13-45", "parameter_invalid"),
   
    ("/v1/jobs?created_after=2026-01-01T25:00:00Z", "parameter_invalid"), ("/v1/jobs?created_after=", "parameter_invalid"),
    ("/v1/jobs?nonsense=1", "unknown_parameter"), ("/v1/jobs?limit=1&limit=2", "parameter_repeated"), ("/v1/jobs?%00=1", "unknown_parameter"),
    ("/v1/usage?from=2026-02-01&to=2026-01-01", "parameter_invalid"), ("/v1/usage?from=2010-01-01&to=2026-01-01", "parameter_invalid"),
    ("/v1/usage?format=xml", "parameter_invalid"), ("/v1/limits?x=1", "unknown_parameter"),
]  # fmt: skip


@pytest.mark.parametrize(("url", "code"), QUERIES, ids=[url[:50] for url, _ in QUERIES])
def test_a_bad_query_is_refused_with_its_own_code(api, url, code):
    refused(api.get(url), 422, code)


@pytest.mark.parametrize("text", ["%00", "%FF", "x", "0" * 400, "%27%3B--", "..%2f..", "{}", "urn:uuid:", "-1", "NaN", "%E2%80%AE", "%F0%9F%92%A9"])
def test_ids_that_are_none_are_just_not_there(api, text):
    for url in (
        f"/v1/jobs/{text}",
        f"/v1/jobs/{text}/events",
        f"/v1/jobs/{text}/outputs/0/x",
        f"/v1/files/{text}",
        f"/v1/workflows/{text}",
        f"/v1/workflows/{text}/schema",
    ):
        response = api.get(url)
        assert response.status_code == 404, url
        assert response.json()["error"]["code"].endswith("not_found")
    assert api.post(f"/v1/jobs/{text}/cancel").status_code == 404
    assert api.post(f"/v1/workflows/{text}/jobs").status_code == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "POST"])
def test_other_methods_are_named_as_such(api, method):
    response = api.call(method, "/v1/jobs")
    refused(response, 405, "method_not_allowed")
    assert set(response["Allow"].replace(" ", "").split(",")) == {"GET", "HEAD"}


def test_an_address_that_is_none_has_the_envelope_too(api):
    refused(api.get("/v1/nothing/here"), 404, "not_found")


def test_a_head_is_a_get_without_its_body(api):
    response = api.call("HEAD", "/v1/jobs")
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize("value", ["bytes=abc", "bytes=5-1", "bytes=--1", "items=0-1", "bytes=0-1,2-3", "bytes=" + "9" * 400 + "-", "\x00", "bytes=-"])
def test_a_bad_range_gives_the_whole_file_or_says_so(api, value):
    job = api.post(SUBMIT).json()
    world.finish(job["id"])
    response = api.get(f"/v1/jobs/{job['id']}/outputs/0/out%200.png", Range=value)
    assert response.status_code in (200, 416)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("created_after=0001-01-01", 1),
        ("created_before=9999-12-31T23:59:59-14:00", 1),
        ("created_after=9999-12-31", 0),
        ("created_before=0001-01-01T00:00:00%2B14:00", 0),
    ],
)
def test_times_nobody_can_mean_find_nothing_or_everything(api, query, found):
    api.post(SUBMIT)
    assert len(api.get(f"/v1/jobs?{query}").json()["results"]) == found


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
bodies = st.dictionaries(st.sampled_from(["inputs", "priority", "deadline_s", "webhook_url", "metadata", "version", "x"]), json_values, max_size=4)


@pytest.mark.parametrize("accept", ["", "image/png", ";;", "text/nothing"])
def test_a_page_that_cannot_answer_in_the_form_asked_for_says_so(api, accept):
    response = api.client.get("/v1/docs/", headers={"Accept": accept, **api.auth})
    assert response.status_code == 406, response.content[:200]
    assert response.json()["error"]["code"] == "not_acceptable"


fuzzing = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], database=None)


@fuzzing
@given(body=bodies | st.fixed_dictionaries({"inputs": st.dictionaries(st.sampled_from(["width", "color", "y"]), json_values, max_size=3)}))
def test_no_body_of_json_gives_a_500(api, body):
    response = api.post(SUBMIT, json.dumps(body))
    assert response.status_code < 500, response.content
    assert response["Content-Type"] == "application/json"


@fuzzing
@given(
    raw=st.binary(max_size=200),
    kind=st.sampled_from(["application/json", "multipart/form-data; boundary=x", "multipart/form-data; boundary=x; charset=utf-16", "", "a/b"]),
)
def test_no_bytes_at_all_give_a_500(api, raw, kind):
    for url in (SUBMIT, "/v1/files"):
        assert api.client.generic("POST", url, raw, content_type=kind, headers=api.auth).status_code < 500


@fuzzing
@given(
    path=st.lists(st.text(max_size=12), min_size=1, max_size=4),
    query=st.dictionaries(
        st.sampled_from(["limit", "cursor", "status", "from", "to", "format", "created_after", "workflow", "zz"]), st.text(max_size=20), max_size=3
    ),
    headers=st.dictionaries(
        st.sampled_from(["Prefer", "Accept", "Range", "Last-Event-ID", "Idempotency-Key", "If-None-Match", "X-Request-ID", "X-File-Name"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30),
        max_size=3,
    ),
    start=st.sampled_from(["workflows", "jobs", "usage", "files", "limits", "docs", "openapi.json"]),
)
def test_no_address_query_or_header_gives_a_500(api, path, query, headers, start):
    from urllib.parse import quote, urlencode

    headers.pop("Prefer", None) if "wait" in headers.get("Prefer", "") else None
    tail = "/".join(quote(part.encode("utf-8", "surrogatepass"), safe="") for part in path)
    for url in (f"/v1/{start}/{tail}", f"/v1/{start}"):
        asked = urlencode({k: v.encode("utf-8", "surrogatepass") for k, v in query.items()})
        response = api.client.get(f"{url}?{asked}", headers={**headers, **api.auth})
        assert response.status_code < 500, (url, query, headers, response.content[:300])
