"""Nobody is told of money who may not see it: what a measure would do, and what a forecast warns of."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from django.test import Client
from django.utils import timezone

from fleet.forecast_alerts import Alert
from tests.fleet.emergency_world import World
from tests.staff import login, signed_in

pytestmark = pytest.mark.django_db
CALLS = {"raise": {"max": 6, "for_s": 3600, "dry_run": True}, "clear": {"priority": "low", "dry_run": True}}


@pytest.fixture
def world() -> World:
    return World(timezone.now())


@pytest.mark.parametrize(("kind", "sees"), [(kind, sees) for kind in CALLS for sees in (True, False)])
def test_a_dry_run_speaks_of_money_to_who_sees_it(world: World, kind: str, sees: bool) -> None:
    address = f"/ops/api/pools/{world.pool.slug}/emergencies/{kind}"
    answer = Client().post(
        address, data=json.dumps(CALLS[kind]), content_type="application/json", headers=login("fleet", "operator", *(["account"] if sees else []))
    )
    assert answer.status_code == 200, answer.content
    assert ("$" in answer.content.decode()) is sees
    assert ("_microusd" in answer.content.decode()) is sees
    assert answer.json()["would"]


@pytest.mark.parametrize(("kind", "sees"), [(kind, sees) for kind in CALLS for sees in (True, False)])
def test_the_page_that_asks_for_confirmation_does_as_well(world: World, kind: str, sees: bool) -> None:
    client = signed_in("fleet", "operator", *(["account"] if sees else []))
    terms = {"raise": {"max": "6", "for_s": "3600"}, "clear": {"priority": "low"}}[kind]
    shown = client.get(f"/ops/fleet/pools/{world.pool.slug}/emergency/{kind}/", terms)
    assert shown.status_code == 200
    would = shown.context["would"]
    assert any("$" in line for line in would.lines) is sees


def test_a_warning_of_a_forecast_names_the_price_to_who_sees_it() -> None:
    at = datetime(2026, 3, 5, 15, tzinfo=UTC)
    alert = Alert("maximum", at, "Maximum reached, raising it to 34 costs about $31 more.", 24, 34, 34, 31_000_000, "Maximum reached; 34 would do.")
    assert alert.shown(money_shown=True) is alert
    plain = alert.shown(money_shown=False)
    assert (plain.message, plain.cost_microusd, plain.raise_to) == ("Maximum reached; 34 would do.", 0, 34)
