"""POST /v1/quotes and what belongs to it, as a customer calls it."""

from datetime import timedelta

import pytest
from django.utils import timezone

from fleet.models import PlannedDemand, Quote
from tests.controlplane import api_world as world

pytestmark = pytest.mark.django_db


@pytest.fixture
def api():
    world.workflow("paint")
    made = world.caller("acme")
    world.worker()
    return made


def test_a_quote_has_price_finish_basis_and_an_address(api):
    response = api.post("/v1/quotes", {"workflow": "paint", "jobs": 8})
    assert response.status_code == 201
    said = response.json()
    assert response["Location"].endswith(f"/v1/quotes/{said['id']}")
    assert "RateLimit" in response
    assert said["jobs"] == 8 and said["workflow"] == "paint" and said["version"] == 1
    assert float(said["price_usd"]) <= float(said["most_usd"])
    assert said["starts_at"] < said["finish_p50_at"] <= said["finish_p90_at"]
    assert said["basis"]["simulations"] > 1 and said["announced"] is False and said["expired"] is False
    assert api.get(f"/v1/quotes/{said['id']}").json() == said
    assert api.get("/v1/quotes").json()["results"] == [said]


def test_announce_and_withdraw(api):
    later = (timezone.now() + timedelta(hours=2)).isoformat()
    said = api.post("/v1/quotes", {"workflow": "paint", "jobs": 8, "starts_at": later}).json()
    url = f"/v1/quotes/{said['id']}/announce"
    assert api.post(url).json()["announced"] is True
    assert api.post(url).json()["announced"] is True
    assert PlannedDemand.objects.filter(canceled_at__isnull=True).count() == 1
    assert api.call("DELETE", url).json()["announced"] is False
    assert api.call("DELETE", url).status_code == 200
    assert not PlannedDemand.objects.filter(canceled_at__isnull=True).exists()


def test_announce_at_once(api):
    assert api.post("/v1/quotes", {"workflow": "paint", "jobs": 8, "announce": True}).json()["announced"] is True
    assert PlannedDemand.objects.get().created_by == "customer acme"


def test_the_same_key_replays(api):
    body = {"workflow": "paint", "jobs": 8}
    first, again = (api.post("/v1/quotes", body, Idempotency_Key="k") for _ in range(2))
    assert (first.status_code, again.status_code, again["Idempotency-Replayed"]) == (201, 200, "true")
    assert first.json()["id"] == again.json()["id"]
    assert api.post("/v1/quotes", {**body, "jobs": 9}, Idempotency_Key="k").status_code == 422


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"jobs": 1}, "missing_field"),
        ({"workflow": "paint"}, "missing_field"),
        ({"workflow": 3, "jobs": 1}, "wrong_type"),
        ({"workflow": "nope", "jobs": 1}, "workflow_not_found"),
        ({"workflow": "", "jobs": 1}, "workflow_not_found"),
        ({"workflow": "paint", "jobs": "1"}, "wrong_type"),
        ({"workflow": "paint", "jobs": True}, "wrong_type"),
        ({"workflow": "paint", "jobs": 0}, "jobs_invalid"),
        ({"workflow": "paint", "jobs": 10**9}, "jobs_invalid"),
        ({"workflow": "paint", "jobs": 1, "starts_at": "soon"}, "wrong_type"),
        ({"workflow": "paint", "jobs": 1, "starts_at": "0001-01-01T00:00:00+23:00"}, "wrong_type"),
        ({"workflow": "paint", "jobs": 1, "starts_at": "2020-01-01T00:00:00Z"}, "starts_at_invalid"),
        ({"workflow": "paint", "jobs": 1, "announce": 1}, "wrong_type"),
        ({"workflow": "paint", "jobs": 1, "colour": 1}, "unknown_field"),
        ({"workflow": "paint", "jobs": 1, "inputs": {"width": "wide"}}, None),
    ],
)
def test_bad_requests_are_named_and_keep_nothing(api, body, code):
    response = api.post("/v1/quotes", body)
    assert response.status_code in (404, 422)
    if code:
        assert response.json()["error"]["code"] == code
    assert not Quote.objects.exists()


def test_lists_are_paged_newest_first(api):
    made = [api.post("/v1/quotes", {"workflow": "paint", "jobs": n}).json()["id"] for n in (1, 2, 3)]
    first = api.get("/v1/quotes?limit=2").json()
    second = api.get(first["next"]).json()
    assert [q["id"] for q in first["results"] + second["results"]] == made[::-1]
    assert second["next"] is None
    for cursor in ("nonsense", "bm9wZQ", "MjAyNi0wMS0wMSB4"):
        assert api.get(f"/v1/quotes?cursor={cursor}").status_code == 422


def test_a_key_that_only_reads_may_not_ask(api):
    reader = world.Caller(world.keys.issue(customer=api.customer, name="r", scopes=["jobs:read"], now=timezone.now())[1])
    assert reader.post("/v1/quotes", {"workflow": "paint", "jobs": 1}).status_code == 403
    said = api.post("/v1/quotes", {"workflow": "paint", "jobs": 1}).json()
    assert reader.get(f"/v1/quotes/{said['id']}").status_code == 200
    assert reader.call("DELETE", f"/v1/quotes/{said['id']}/announce").status_code == 403


def test_nothing_of_pools_or_workers_names_is_told(api):
    text = api.post("/v1/quotes", {"workflow": "paint", "jobs": 1}).content.decode()
    assert "pool" not in text and '"w"' not in text
