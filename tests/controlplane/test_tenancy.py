"""A second customer's key walks every address under /v1/ and meets nothing of the first's. A new address without a case here fails."""

import functools
import uuid

import pytest
from django.urls import URLResolver, get_resolver

from tests.controlplane import api_world as world

pytestmark = pytest.mark.django_db

# What each address shows: "shared" is the same for everybody, "own" is the caller's alone, "foreign" names a thing by id.
CASES = {
    "v1/openapi.json": ("GET", "open"),
    "v1/docs/": ("GET", "open"),
    "v1/workflows": ("GET", "shared"),
    "v1/workflows/<str:slug>": ("GET", "shared"),
    "v1/workflows/<str:slug>/schema": ("GET", "shared"),
    "v1/workflows/<str:slug>/openapi.json": ("GET", "shared"),
    "v1/workflows/<str:slug>/jobs": ("POST", "submit"),
    "v1/generate": ("POST", "submit"),
    "v1/jobs": ("GET", "own"),
    "v1/jobs/<str:job>": ("GET", "foreign"),
    "v1/jobs/<str:job>/cancel": ("POST", "foreign"),
    "v1/jobs/<str:job>/events": ("GET", "foreign"),
    "v1/jobs/<str:job>/outputs/<str:index>/<str:name>": ("GET", "foreign"),
    "v1/files": ("POST", "upload"),
    "v1/files/<str:file>": ("GET", "foreign"),
    "v1/quotes": ("GET", "own"),
    "v1/quotes/<str:quote>": ("GET", "foreign"),
    "v1/quotes/<str:quote>/announce": ("POST", "foreign"),
    "v1/usage": ("GET", "own"),
    "v1/limits": ("GET", "own"),
    "v1/webhook-secret": ("GET", "own"),
}


def routes(patterns=None, prefix=""):
    for pattern in patterns or get_resolver().url_patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, route)
        elif route.startswith("v1/"):
            yield route


@pytest.fixture
def first():
    """A customer who has one of everything."""
    world.workflow("paint")
    world.workflow("mend", expose=[{"name": "image", "node": "3", "input": "image"}, *world.EXPOSED])
    api = world.caller("acme")
    api.file = api.form("/v1/files", {"file": world.upload("mine.png", world.png(30, 20))}).json()
    api.job = api.post("/v1/workflows/paint/jobs", {"metadata": {"secret": "of-acme"}}, Idempotency_Key="same-key").json()
    world.finish(api.job["id"])
    api.quote = functools.cache(lambda: api.post("/v1/quotes", {"workflow": "paint", "jobs": 3}).json()["id"])  # it is worked out at length
    api.waiting = api.post("/v1/workflows/paint/jobs", {"metadata": {"secret": "of-acme"}}).json()
    return api


@pytest.fixture
def second():
    return world.caller("rival")


def test_every_address_of_the_api_has_a_case():
    assert set(routes()) == set(CASES)


def address(route, first, *, unknown=False):
    made = "/" + route
    ids = {"<str:slug>": "paint", "<str:index>": "0", "<str:name>": "out%200.png", "<str:job>": first.job["id"], "<str:file>": first.file["id"]}
    if "<str:quote>" in route:
        ids["<str:quote>"] = first.quote()
    for name, value in ids.items():
        made = made.replace(name, str(uuid.uuid4()) if unknown and name in ("<str:job>", "<str:file>", "<str:quote>") else value)
    return made


def content(response):
    return b"".join(response.streaming_content) if response.streaming else response.content


@pytest.mark.parametrize("route", [route for route, (_, kind) in CASES.items() if kind == "foreign"])
def test_what_belongs_to_somebody_else_is_not_there(route, first, second):
    method = CASES[route][0]
    url = address(route, first)
    if method == "GET":
        assert first.call(method, url).status_code == 200, "the owner sees it"
    foreign, unknown = second.call(method, url), second.call(method, address(route, first, unknown=True))
    assert (foreign.status_code, unknown.status_code) == (404, 404)
    hide = lambda r: {**r.json()["error"], "request_id": ""}  # noqa: E731
    assert hide(foreign) == hide(unknown), "an id of somebody else's looks like one nobody has"
    assert b"acme" not in content(foreign)


def test_canceling_somebody_elses_job_leaves_it_alone(first, second):
    assert second.post(f"/v1/jobs/{first.waiting['id']}/cancel").status_code == 404
    assert first.get(f"/v1/jobs/{first.waiting['id']}").json()["status"] == "queued"


@pytest.mark.parametrize("route", [route for route, (_, kind) in CASES.items() if kind == "own"])
def test_lists_and_sums_hold_nothing_of_others(route, first, second):
    quoted = first.quote()
    response = second.get("/" + route)
    assert response.status_code == 200
    said = content(response).decode()
    assert first.job["id"] not in said
    assert quoted not in said
    assert first.waiting["id"] not in said
    assert "acme" not in said
    if route == "v1/usage":
        assert (response.json()["amount_usd"], response.json()["totals"]) == ("0.00", [])
    if route == "v1/limits":
        assert response.json()["active_jobs"]["left"] == 100
        assert response.json()["month"]["spent_usd"] == "0.00"


def test_a_cursor_of_somebody_else_opens_nothing(first, second):
    for _ in range(2):
        first.post("/v1/workflows/paint/jobs")
    link = first.get("/v1/jobs?limit=1").json()["next"]
    assert len(first.get(link).json()["results"]) == 1
    assert second.get(link).json() == {"results": [], "next": None}


def test_somebody_elses_file_cannot_be_an_input(first, second):
    response = second.post("/v1/workflows/mend/jobs", {"inputs": {"image": first.file["id"]}})
    assert (response.status_code, response.json()["error"]["code"]) == (422, "file_not_found")
    assert first.post("/v1/workflows/mend/jobs", {"inputs": {"image": first.file["id"]}}).status_code == 202


def test_the_same_bytes_and_the_same_key_of_two_customers_stay_two(first, second):
    theirs = second.form("/v1/files", {"file": world.upload("theirs.png", world.png(30, 20))})
    assert theirs.status_code == 201, "nothing says that somebody else has the same file"
    assert theirs.json()["id"] != first.file["id"]
    assert theirs.json()["name"] == "theirs.png"
    job = second.post("/v1/workflows/paint/jobs", {"metadata": {"secret": "of-acme"}}, Idempotency_Key="same-key")
    assert "Idempotency-Replayed" not in job
    assert job.json()["id"] != first.job["id"]


@pytest.mark.parametrize("route", [route for route, (_, kind) in CASES.items() if kind != "open"])
@pytest.mark.parametrize(("secret", "code"), [(None, "key_missing"), ("cp_AAAAAAAAnobody", "key_unknown")])
def test_without_a_good_key_no_address_says_anything(route, secret, code, first):
    response = world.Caller(secret).call(CASES[route][0], address(route, first))
    assert (response.status_code, response.json()["error"]["code"]) == (401, code)
    assert "WWW-Authenticate" in response


@pytest.mark.parametrize("route", [route for route, (_, kind) in CASES.items() if kind != "open"])
def test_a_key_without_the_scope_is_refused_everywhere(route, first):
    api = world.caller("scopeless", scopes=[])
    response = api.call(CASES[route][0], address(route, first))
    assert (response.status_code, response.json()["error"]["code"]) == (403, "scope_missing")
    assert response.json()["error"]["details"]["scope"]
