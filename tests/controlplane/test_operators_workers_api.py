"""Workers over /ops/api: listed, looked at, and set aside by one call with the role it needs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from controlplane.kernel.models import AuditEntry
from fleet import providers
from fleet.models import Worker
from tests.fleet.life_world import World
from tests.staff import login

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> World:
    return World(timezone.now(), base=2, max=3)


def get(path: str, *groups: str) -> Any:
    return Client().get(f"/ops/api/workers{path}", headers=login(*groups))


def act(worker: Worker | str, what: str, body: Any = None, *groups: str) -> Any:
    path = f"/ops/api/workers/{worker.id if isinstance(worker, Worker) else worker}/{what}"
    return Client().post(path, data=json.dumps(body or {}), content_type="application/json", headers=login(*(groups or ("operator",))))


def test_workers_are_listed_page_by_page_by_pool_and_state(world: World) -> None:
    made = sorted((world.worker() for _ in range(3)), key=lambda worker: str(worker.id))  # ids of one millisecond sort either way
    other = World(timezone.now())
    other.worker()
    gone = world.worker(state="stopped", stopped_at=world.now, stop_reason="drained")
    first = get(f"?pool={world.pool.slug}&limit=2").json()
    assert [w["id"] for w in first["results"]] == [str(made[2].id), str(made[1].id)]
    rest = Client().get(first["next"], headers=login()).json()
    assert ([w["id"] for w in rest["results"]], rest["next"]) == ([str(made[0].id)], None)
    assert [w["stop_reason"] for w in get("?state=stopped").json()["results"]] == ["drained"]
    assert str(gone.id) not in str(get("").json())
    for path, code in (
        ("?state=asleep", "state_unknown"),
        ("?limit=0", "limit_out_of_range"),
        ("?cursor=x", "cursor_invalid"),
        ("?sort=x", "parameter_unknown"),
    ):
        refused = get(path)
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, code)


def test_each_act_is_one_call_that_may_be_said_twice(world: World) -> None:
    worker = world.worker()
    for what, field, is_set in (
        ("cordon", "cordoned_at", True),
        ("uncordon", "cordoned_at", False),
        ("fault", "faulted_at", True),
        ("uncordon", "faulted_at", False),
    ):
        for _ in range(2):
            answer = act(worker, what, {"reason": "because"})
            assert answer.status_code == 200, answer.content
            assert (answer.json()[field] is not None) is is_set
    assert act(worker, "drain").json()["state"] == "draining"
    acted = list(AuditEntry.objects.order_by("seq").values_list("action", flat=True))
    assert acted == ["worker.cordon", "worker.uncordon", "worker.fault", "worker.uncordon", "worker.drain"]
    assert [moment["kind"] for moment in act(worker, "drain").json()["timeline"]][-1] == "drain"


def test_a_replacement_is_ordered_by_one_call(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "of", lambda pool: world.machines)
    worker = world.worker()
    shown = act(worker, "replace", {"reason": "old driver"}, "fleet").json()
    (fresh,) = shown["replaced_by"]
    assert act(worker, "replace").json()["replaced_by"] == [fresh]
    assert get(f"/{fresh}").json()["replaces"] == str(worker.id)


def test_who_may_not_act_may_look_and_money_is_for_those_who_see_it(world: World) -> None:
    worker = world.worker()
    refused = act(worker, "cordon", None, "release")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "role_missing")
    assert Worker.objects.get(id=worker.id).cordoned_at is None
    assert Client().post(f"/ops/api/workers/{worker.id}/cordon").status_code == 401
    shown = get(f"/{worker.id}").json()
    assert "cost_microusd" not in shown and set(shown["seconds"]) == {"starting", "loading", "busy", "idle", "draining", "faulted"}
    assert get(f"/{worker.id}", "account").json()["price_per_hour_microusd"] == 3_600_000


@pytest.mark.parametrize(
    ("what", "body", "status"),
    [
        ("explode", {}, 404),
        ("cordon", {"reason": 5}, 422),
        ("cordon", {"reason": "x" * 301}, 422),
        ("cordon", {"why": "x"}, 422),
        ("cordon", [], 422),
        ("fault", {}, 422),
        ("fault", {"reason": "  "}, 422),
    ],
)
def test_bad_calls_are_refused_and_change_nothing(world: World, what: str, body: Any, status: int) -> None:
    worker = world.worker()
    path = f"/ops/api/workers/{worker.id}/{what}"
    answer = Client().post(path, data=json.dumps(body), content_type="application/json", headers=login("operator"))
    assert answer.status_code in (status, 400) and answer.json()["error"]["suggestion"]
    held = Worker.objects.get(id=worker.id)
    assert (held.state, held.cordoned_at, held.faulted_at) == ("idle", None, None)


@pytest.mark.parametrize("given", ["00000000-0000-7000-8000-000000000000", "x", "%00", "1" * 500])
def test_a_worker_there_is_not_is_not_found(given: str) -> None:
    assert get(f"/{given}").status_code == 404 and act(given, "cordon").status_code == 404


def test_a_worker_that_is_gone_or_going_is_left_alone(world: World) -> None:
    gone, going = world.worker(state="lost", stopped_at=world.now), world.worker()
    act(going, "drain")
    for worker, what, code in ((gone, "cordon", "worker_gone"), (going, "uncordon", "worker_draining"), (going, "replace", "worker_draining")):
        answer = act(worker, what)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, code)


def test_the_console_replaces_with_the_same_call(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "of", lambda pool: world.machines)
    worker = world.worker()
    client = Client()
    login("operator")
    client.force_login(User.objects.get(username="ops-operator"))
    client.post(reverse("ops:worker_act", args=[worker.id, "replace"]), {"reason": "old"})
    assert Worker.objects.filter(replaces=worker).count() == 1
