"""Kinds of machine over /ops/api: listed, added, moved, changed and removed by scripts, each with the role it needs."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from controlplane.kernel.models import AuditEntry
from fleet.models import Pool, PoolOffer
from tests import factories
from tests.staff import login

pytestmark = pytest.mark.django_db
NEW = {"gpu": "L4", "price_per_hour_microusd": 310_000, "market": "spot", "most": 4, "placement": {"zone": "b"}}


@pytest.fixture
def pool() -> Pool:
    return factories.make_pool(now=timezone.now(), slug="sdxl", provider="docker")


def call(method: str, path: str = "", body: Any = None, *groups: str, slug: str = "sdxl") -> Any:
    data = {} if body is None else {"data": json.dumps(body), "content_type": "application/json"}
    return getattr(Client(), method)(f"/ops/api/pools/{slug}/offers{path}", headers=login(*(groups or ("fleet",))), **data)


def test_a_script_adds_moves_changes_and_removes(pool: Pool) -> None:
    first = call("post", "", {"gpu": "H100", "price_per_hour_microusd": 2_490_000}).json()
    second = call("post", "", NEW | {"rank": 1, "reason": "cheaper"})
    assert second.status_code == 201, second.content
    made = second.json()
    assert (made["rank"], made["gpu"], made["market"], made["most"], made["placement"], made["available"]) == (1, "L4", "spot", 4, {"zone": "b"}, True)
    assert [row["gpu"] for row in call("get").json()["results"]] == ["L4", "H100"]
    moved = call("patch", f"/{first['id']}", {"rank": 1}).json()
    assert (moved["rank"], moved["gpu"]) == (1, "H100")
    changed = call("patch", f"/{made['id']}", {"most": None, "price_per_hour_microusd": 0}, "fleet", "account").json()
    assert (changed["most"], changed["price_per_hour_microusd"], changed["placement"]) == (None, 0, {"zone": "b"})
    assert call("delete", f"/{made['id']}?reason=sold+out").status_code == 204
    assert [row["rank"] for row in call("get").json()["results"]] == [1]
    said = list(AuditEntry.objects.order_by("seq").values_list("action", "actor"))
    assert [action for action, _ in said] == [
        "pool.offer_add", "pool.offer_add", "pool.offer_order", "pool.offer_order", "pool.offer_change", "pool.offer_remove",
    ]  # fmt: skip
    assert AuditEntry.objects.latest("seq").reason == "sold out"


def test_a_wrong_place_keeps_nothing_of_what_came_with_it(pool: Pool) -> None:
    held = call("post", "", NEW).json()
    assert call("patch", f"/{held['id']}", {"gpu": "H100", "rank": 2}).json()["error"]["code"] == "place_invalid"
    assert call("post", "", NEW | {"rank": 9}).json()["error"]["code"] == "place_invalid"
    assert [o.gpu for o in PoolOffer.objects.all()] == ["L4"]


def test_prices_are_shown_to_who_sees_money(pool: Pool) -> None:
    made = call("post", "", NEW)
    assert "microusd" not in made.content.decode()
    for path in ("", f"/{made.json()['id']}"):
        assert "microusd" not in call("get", path, None, "viewer").content.decode()
        assert "310000" in call("get", path, None, "account").content.decode()


def test_only_the_fleet_role_changes_anything(pool: Pool) -> None:
    held = call("post", "", NEW).json()["id"]
    for method, path, body in (("post", "", NEW), ("patch", f"/{held}", {"most": 1}), ("delete", f"/{held}", None), ("post", f"/{held}/ask-again", {})):
        refused = call(method, path, body, "operator", "viewer", "account")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "role_missing"), path
    assert Client().get("/ops/api/pools/sdxl/offers").status_code == 401
    assert PoolOffer.objects.get().most == 4


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"gpu": "L4"}, "missing_field", "price_per_hour_microusd"),
        ({"price_per_hour_microusd": 1}, "missing_field", "gpu"),
        (NEW | {"price_per_hour_microusd": -1}, "price_negative", "price_per_hour_microusd"),
        (NEW | {"price_per_hour_microusd": 0.5}, "price_negative", "price_per_hour_microusd"),
        (NEW | {"price_per_hour_microusd": True}, "price_negative", "price_per_hour_microusd"),
        (NEW | {"price_per_hour_microusd": 10**30}, "price_too_high", "price_per_hour_microusd"),
        (NEW | {"gpu": ["L4"]}, "gpu_invalid", "gpu"),
        (NEW | {"market": {}}, "market_unknown", "market"),
        (NEW | {"most": 10**30}, "most_invalid", "most"),
        (NEW | {"placement": None}, "placement_invalid", "placement"),
        (NEW | {"placement": {"colour": "red"}}, "placement_invalid", "placement"),
        (NEW | {"placement": {"env": {"A": "x" * 20_001}}}, "placement_invalid", "placement"),
        (NEW | {"rank": "first"}, "place_invalid", "rank"),
        (NEW | {"rank": 10**30}, "place_invalid", "rank"),
        (NEW | {"reason": 5}, "wrong_type", "reason"),
        (NEW | {"interruptions": 0}, "field_unknown", ""),
    ],
)
def test_what_is_wrong_is_refused_with_its_field(pool: Pool, body: dict[str, Any], code: str, field: str) -> None:
    refused = call("post", "", body)
    error = refused.json()["error"]
    assert refused.status_code in (400, 422), refused.content
    assert not field or (error["code"], error["details"]["field"]) == (code, field), error
    assert len(refused.content) < 3000 and not PoolOffer.objects.exists()


def test_a_kind_in_use_or_of_another_pool_is_not_removed(pool: Pool) -> None:
    held = call("post", "", NEW).json()["id"]
    now = timezone.now()
    factories.make_worker(pool, now=now, offer_id=held)
    refused = call("delete", f"/{held}")
    assert (refused.status_code, refused.json()["error"]["code"], refused.json()["error"]["details"]["live"]) == (409, "offer_in_use", 1)
    factories.make_pool(now=now, slug="other")
    assert call("delete", f"/{held}", slug="other").json()["error"]["code"] == "offer_not_found"
    assert call("get", f"/{10**25}").status_code == 404
    assert call("get", slug="nowhere").json()["error"]["code"] == "pool_not_found"
    assert call("get").json()["results"][0]["workers"] == {"idle": 1}


def test_asking_again_ends_the_patience(pool: Pool) -> None:
    held = call("post", "", NEW).json()["id"]
    assert call("post", f"/{held}/ask-again", {}).json()["error"]["code"] == "offer_available"
    PoolOffer.objects.update(unavailable_until=timezone.now() + timedelta(hours=1), unavailable_reason="full")
    assert call("get").json()["results"][0]["available"] is False
    assert call("post", f"/{held}/ask-again", {}).json()["available"] is True


def test_who_sees_no_prices_changes_none(pool: Pool) -> None:
    offer = PoolOffer.objects.create(pool=pool, rank=1, gpu="L4", price_per_hour_microusd=310_000)
    refused = call("patch", f"/{offer.id}", {"price_per_hour_microusd": 0, "most": 3})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "price_hidden")
    offer.refresh_from_db()
    assert (offer.price_per_hour_microusd, offer.most) == (310_000, None)
    assert call("patch", f"/{offer.id}", {"most": 3}).status_code == 200


@pytest.mark.parametrize(("provider", "status"), [("kubernetes", 409), ("docker", 200)])
def test_a_kind_whose_pods_live_stays_the_machine_it_is(provider: str, status: int) -> None:
    now = timezone.now()
    pool = factories.make_pool(now=now, slug=f"on-{provider}", provider=provider)
    offer = PoolOffer.objects.create(pool=pool, rank=1, gpu="L4", price_per_hour_microusd=310_000)
    worker = factories.make_worker(pool, now=now)
    type(worker).objects.filter(id=worker.id).update(offer=offer)
    answer = call("patch", f"/{offer.id}", {"gpu": "L4 24GB"}, slug=pool.slug)
    assert answer.status_code == status, answer.content
    if status == 409:
        assert answer.json()["error"]["code"] == "offer_in_use"
    offer.refresh_from_db()
    assert offer.gpu == ("L4" if status == 409 else "L4 24GB")
    assert call("patch", f"/{offer.id}", {"most": 0}, slug=pool.slug).status_code == 200
