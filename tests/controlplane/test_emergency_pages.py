"""The emergency pages: consequence in numbers first, typed names where harm is possible, once, and undone by one button."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from controlplane.console import emergency_words
from fleet import emergencies, emergency_calls, queries_pools
from fleet.models import EmergencyAction, Job
from tests.fleet.emergency_world import World
from tests.staff import signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> World:
    return World(timezone.now(), slug="gpu")


@pytest.fixture
def sarah(world: World) -> Client:
    return signed_in("fleet", "operator")


def terms(world: World, kind: str) -> dict[str, str]:
    return {
        "raise": {"base": "2", "max": "6", "for_s": "3600"},
        "fast": {"workflow": world.workflow.slug, "version": "1", "inputs": "", "overflow_s": "600", "for_s": "3600"},
        "pause": {"priority": "low", "for_s": "3600"},
        "shed": {"priority": "low", "overflow_s": "600", "for_s": "3600"},
        "clear": {"priority": "low", "workflow": "", "customer": "", "older_than_s": ""},
    }[kind]


def confirmed(client: Client, world: World, kind: str, **fields: str) -> Any:
    """Look first, then send what the page holds."""
    address = f"/ops/fleet/pools/gpu/emergency/{kind}/"
    page = client.get(address, terms(world, kind)).content.decode()
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
    sent = hidden | {"confirm": "gpu", "reason": "02:15"} | fields
    return client.post(address, {name: value for name, value in sent.items() if value is not None})


@pytest.mark.parametrize("kind", emergency_calls.TERMS)
def test_each_measure_says_its_consequence_then_is_taken_and_undone_by_a_button(world: World, sarah: Client, kind: str) -> None:
    world.fill(3, priority="low")
    look = sarah.get(f"/ops/fleet/pools/gpu/emergency/{kind}/", terms(world, kind))
    assert look.status_code == 200
    assert "3" in look.content.decode()
    assert not EmergencyAction.objects.exists()
    answer = confirmed(sarah, world, kind)
    assert (answer.status_code, answer["Location"]) == (302, "/ops/fleet/pools/gpu/emergency/")
    action = EmergencyAction.objects.get()
    assert (action.actor, action.reason) == ("ops-fleet-operator", "02:15")
    page = sarah.get("/ops/fleet/pools/gpu/emergency/").content.decode()
    assert emergency_calls.said(action) in page
    assert f"/ops/fleet/emergency/{action.id}/end/" in page
    sarah.post(f"/ops/fleet/emergency/{action.id}/end/", {})
    action.refresh_from_db()
    assert action.ended_by == "ops-fleet-operator"
    assert not emergencies.active(world.pool, now=timezone.now())


@pytest.mark.parametrize("kind", ["pause", "shed", "clear"])
def test_harm_wants_the_name_typed_and_a_reason(world: World, sarah: Client, kind: str) -> None:
    world.fill(2, priority="low")
    for fields, say in (({"confirm": "gp"}, "Type gpu exactly"), ({"reason": ""}, "Write why")):
        answer = confirmed(sarah, world, kind, **fields)
        assert answer.status_code == 422
        assert say in answer.content.decode()
    assert not EmergencyAction.objects.exists()
    assert Job.objects.filter(status="queued").count() == 2


@pytest.mark.parametrize("kind", ["raise", "fast"])
def test_what_is_only_visible_asks_for_no_typing(world: World, sarah: Client, kind: str) -> None:
    assert confirmed(sarah, world, kind, confirm="", reason="").status_code == 302
    assert EmergencyAction.objects.count() == 1


def test_a_double_click_takes_a_measure_once(world: World, sarah: Client) -> None:
    address = "/ops/fleet/pools/gpu/emergency/raise/"
    form = terms(world, "raise") | {"once": "abc", "amount": "2"}
    assert [sarah.post(address, form).status_code for _ in range(2)] == [302, 302]
    assert EmergencyAction.objects.count() == 1


def test_numbers_that_grew_since_are_shown_again_before_anything_ends(world: World, sarah: Client) -> None:
    world.fill(2, priority="low")
    answer = confirmed(sarah, world, "clear", amount="2")
    assert answer.status_code == 302
    world.fill(20, priority="low")
    again = confirmed(sarah, world, "clear", amount="2")
    assert again.status_code == 422
    assert "have grown" in again.content.decode()
    assert "End 20 waiting jobs" in again.content.decode()
    assert Job.objects.filter(status="queued").count() == 20


@pytest.mark.parametrize(
    ("kind", "fields", "say"),
    [
        ("raise", {"max": "many"}, "must be a whole number"),
        ("raise", {"max": "1"}, "below"),
        ("raise", {"base": "1", "max": "2"}, "already keeps"),
        ("raise", {"for_s": "9999999"}, "seven days"),
        ("fast", {"version": "", "inputs": "steps"}, "is not an input"),
        ("fast", {"version": "", "inputs": "<script>=1"}, "There is no input called &lt;script&gt;"),
        ("fast", {"version": "9"}, "has no version 9"),
        ("fast", {"workflow": "nope\x00"}, "There is no workflow"),
        ("pause", {"priority": "high"}, "always served"),
        ("clear", {"customer": "nobody"}, "There is no customer"),
    ],
)
def test_what_cannot_be_is_said_before_it_is_asked(world: World, sarah: Client, kind: str, fields: dict[str, str], say: str) -> None:
    answer = sarah.get(f"/ops/fleet/pools/gpu/emergency/{kind}/", terms(world, kind) | fields)
    assert answer.status_code == 422
    assert say in answer.content.decode()
    assert "<script>=" not in answer.content.decode()


def test_roles_are_named_where_they_are_missing(world: World) -> None:
    viewer, fleet = signed_in("viewer"), signed_in("fleet")
    assert viewer.get("/ops/fleet/pools/gpu/emergency/").status_code == 200
    assert viewer.get("/ops/fleet/emergency/").status_code == 200
    assert viewer.get("/ops/fleet/pools/gpu/emergency/raise/", terms(world, "raise")).status_code == 403
    assert fleet.get("/ops/fleet/pools/gpu/emergency/raise/", terms(world, "raise")).status_code == 200
    assert fleet.post("/ops/fleet/pools/gpu/emergency/shed/", terms(world, "shed")).status_code == 403
    action = emergencies.pause_class(world.pool, priority="low", expires_at=world.now + timedelta(hours=1), actor="s", now=world.now)
    assert fleet.post(f"/ops/fleet/emergency/{action.id}/end/").status_code == 403
    assert Client().get("/ops/fleet/emergency/").status_code == 302


def test_unknown_measures_and_pools_are_not_there(world: World, sarah: Client) -> None:
    for address in ("/ops/fleet/pools/gpu/emergency/panic/", "/ops/fleet/pools/nope/emergency/", "/ops/fleet/pools/nope/emergency/raise/"):
        assert sarah.get(address).status_code == 404
    assert sarah.post("/ops/fleet/emergency/0198f6a0-0000-7000-8000-000000000000/end/").status_code == 404


def test_the_banner_stands_on_the_pools_page_and_names_who_why_and_until_when(world: World, sarah: Client) -> None:
    emergencies.raise_capacity(world.pool, maximum=6, expires_at=world.now + timedelta(minutes=10), actor="sarah <b>", reason="<i>02:15</i>", now=world.now)
    page = sarah.get("/ops/fleet/pools/gpu/").content.decode()
    assert "Raise capacity on gpu ends" in page
    assert "sarah &lt;b&gt;" in page
    assert "&lt;i&gt;02:15&lt;/i&gt;" in page
    assert "Raise capacity on gpu ends" in sarah.get("/ops/fleet/emergency/").content.decode()


def test_a_backup_is_told_by_what_it_will_take(world: World) -> None:
    world.fill(30)
    pools = queries_pools.pools_now(now=world.now)
    assert emergency_words.of_backlogs(emergency_words.backlogs(pools, now=world.now), href="/POOL") == [], "five minutes are no backup"
    world.fill(200)
    (need,) = emergency_words.of_backlogs(emergency_words.backlogs(pools, now=world.now), href="/POOL")
    assert (need.kind, need.href, need.title) == ("bad", "/gpu", "gpu: 38 min delay")
