"""What no database takes (a zero byte), and numbers no list has, answered as a mistake of the caller's on every address of the fleet."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from tests.fleet.emergency_world import World

pytestmark = pytest.mark.django_db
NUL = "a\x00b"


@pytest.fixture
def admin() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root", password="correct horse"))
    return client


@pytest.mark.parametrize(
    "address",
    [
        "/ops/api/announcements?pool=%00",
        "/ops/api/workers?pool=%00",
        "/ops/api/workers?cursor=%00",
        "/ops/fleet/?q=%00&range=%00&pool=%00",
        "/ops/fleet/planner/?pool=%00&tab=%00",
        "/ops/fleet/planner/?tab=batches&pool=%00&workflow=%00&jobs=%00&starts=%00",
        "/ops/fleet/planner/?tab=whatif&pool=%00&policy=%00",
        "/ops/fleet/planner/?tab=savings&pool=%00&since=%00",
        "/ops/fleet/planner/savings.csv?pool=%00&since=%00",
        "/ops/fleet/pools/POOL/?kind=%00&workers=%00&units=%00&q=%00",
        "/ops/fleet/pools/POOL/decisions.csv?kind=%00&q=%00",
        "/ops/fleet/pools/POOL/policy/?revision=%00",
        "/ops/fleet/pools/POOL/emergency/clear/?workflow=%00&customer=%00",
        "/ops/fleet/pools/POOL/emergency/fast/?workflow=%00&version=99999999999999999999&overflow_s=60&for_s=60",
        "/ops/fleet/pools/POOL/policy/99999999999999999999/restore/",
        "/ops/fleet/decisions/99999999999999999999/",
    ],
)
def test_an_address_with_what_no_database_takes_is_no_failure_of_ours(admin: Client, address: str) -> None:
    world = World(timezone.now())
    assert admin.get(address.replace("POOL", world.pool.slug)).status_code < 500


@pytest.mark.parametrize(
    ("address", "body"),
    [
        ("/ops/api/announcements", {"pool": NUL, "jobs": 3}),
        ("/ops/api/announcements", {"pool": "POOL", "jobs": 3, "name": NUL}),
        ("/ops/api/announcements", {"pool": "POOL", "jobs": 3, "workflow": NUL}),
        ("/ops/api/announcements", {"pool": "POOL", "kind": "event", "name": "x", "factor": 10**400, "ends_at": "2099-01-01T00:00:00Z"}),
        ("/ops/api/pools/POOL/replay", {"changes": {"image": NUL}, "hours": 1}),
        ("/ops/api/pools/POOL/replay", {"changes": {"base": 10**30}, "hours": 1}),
        ("/ops/api/pools/POOL/replay", {"changes": {"policy": NUL, "knobs": {NUL: 1}}, "hours": 1e308}),
        ("/ops/api/pools/POOL/emergencies/raise", {"max": 10**30, "for_s": 60}),
        ("/ops/api/pools/POOL/emergencies/raise", {"max": 6, "for_s": 10**400}),
        ("/ops/api/pools/POOL/emergencies/raise", {"max": 6, "for_s": 60, "reason": NUL}),
        ("/ops/api/pools/POOL/emergencies/clear", {"customer": NUL}),
        ("/ops/api/pools/POOL/emergencies/clear", {"workflow": NUL}),
        ("/ops/api/pools/POOL/emergencies/shed", {"priority": NUL, "overflow_s": 1, "for_s": 60}),
    ],
)
def test_a_body_with_it_neither(admin: Client, address: str, body: dict[str, Any]) -> None:
    slug = World(timezone.now()).pool.slug
    text = json.dumps(body).replace("POOL", slug)
    answer = admin.post(address.replace("POOL", slug), data=text, content_type="application/json")
    assert answer.status_code < 500, answer.content
