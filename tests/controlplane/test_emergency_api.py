"""Emergency measures over /ops/api: one call each, with the role it needs, once, with a dry run, and undone by DELETE."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from controlplane.kernel.models import AuditEntry
from fleet import emergencies, emergency_calls, measures
from fleet.models import EmergencyAction, Job
from tests.fleet.emergency_world import World, forget
from tests.staff import login

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> World:
    return World(timezone.now())


def post(world: World, kind: str, body: Any, *groups: str, key: str = "") -> Any:
    headers = login(*(groups or ("fleet", "operator"))) | ({"Idempotency-Key": key} if key else {})
    return Client().post(f"/ops/api/pools/{world.pool.slug}/emergencies/{kind}", data=json.dumps(body), content_type="application/json", headers=headers)


CALLS: dict[str, dict[str, Any]] = {
    "raise": {"max": 6, "for_s": 3600, "reason": "02:15"},
    "fast": {"workflow": "", "version": 1, "overflow_s": 600, "for_s": 3600},
    "pause": {"priority": "low", "for_s": 3600},
    "shed": {"priority": "low", "overflow_s": 600, "for_s": 3600},
    "clear": {"priority": "low"},
}


def body_of(world: World, kind: str) -> dict[str, Any]:
    return CALLS[kind] | ({"workflow": world.workflow.slug} if kind == "fast" else {})


@pytest.mark.parametrize("kind", CALLS)
def test_every_measure_is_one_call_and_one_call_undoes_it(world: World, kind: str) -> None:
    answer = post(world, kind, body_of(world, kind))
    assert answer.status_code == 201, answer.content
    made = answer.json()
    assert (made["kind"], made["pool"], made["actor"]) == (kind, world.pool.slug, "ops-fleet-operator")
    assert made["said"]
    if kind != "clear":
        listed = Client().get("/ops/api/emergencies", headers=login()).json()["results"]
        assert [one["id"] for one in listed] == [made["id"]]
    gone = Client().delete(f"/ops/api/emergencies/{made['id']}?reason=over", headers=login("fleet", "operator"))
    assert gone.status_code == (202 if kind == "clear" else 200)
    assert gone.json()["ended_by"] == "ops-fleet-operator"
    assert not emergencies.active(world.pool, now=timezone.now())
    kinds = list(AuditEntry.objects.filter(action__startswith="emergency.").order_by("seq").values_list("action", flat=True))
    assert len(kinds) == 2
    assert kinds[1].startswith("emergency.end.")


@pytest.mark.parametrize("kind", CALLS)
def test_a_dry_run_says_the_consequence_in_numbers_and_does_nothing(world: World, kind: str) -> None:
    world.fill(3, priority="low")
    answer = post(world, kind, body_of(world, kind) | {"dry_run": True})
    assert answer.status_code == 200, answer.content
    assert answer.json()["dry_run"] is True
    assert all(line.endswith(".") for line in answer.json()["would"])
    assert "3" in " ".join(answer.json()["would"])
    assert not EmergencyAction.objects.exists()
    assert Job.objects.filter(status="queued").count() == 3


@pytest.mark.parametrize(("kind", "role"), emergency_calls.NEEDS.items())
def test_each_measure_needs_its_role_to_be_taken_and_undone(world: World, kind: str, role: str) -> None:
    others = tuple(r for r in ("fleet", "operator", "release", "viewer", "account") if r != role)
    assert post(world, kind, body_of(world, kind), *others).status_code == 403
    made = post(world, kind, body_of(world, kind), role)
    assert made.status_code == 201
    assert Client().delete(f"/ops/api/emergencies/{made.json()['id']}", headers=login(*others)).status_code == 403
    assert EmergencyAction.objects.get().ended_at is None


def test_the_same_idempotency_key_takes_a_measure_once(world: World) -> None:
    one, two = (post(world, "raise", CALLS["raise"], key="k").json()["id"] for _ in range(2))
    assert one == two
    assert post(world, "raise", CALLS["raise"], key="other").json()["id"] != one
    assert EmergencyAction.objects.count() == 2


@pytest.mark.parametrize(
    ("kind", "body", "status", "code"),
    [
        ("raise", {"max": "6", "for_s": 60}, 422, "wrong_type"),
        ("raise", {"max": 6}, 422, "expiry_missing"),
        ("raise", {"max": 6, "for_s": 60, "until": "2026-01-01T00:00:00Z"}, 422, "expiry_missing"),
        ("raise", {"max": 6, "until": "tomorrow"}, 422, "expiry_invalid"),
        ("raise", {"max": 6, "until": "2026-99-99T00:00:00Z"}, 422, "expiry_invalid"),
        ("raise", {"max": 6, "until": "2020-01-01T00:00:00Z"}, 422, "expiry_invalid"),
        ("raise", {"max": 6, "for_s": 60, "colour": 1}, 422, "unknown_field"),
        ("raise", {"max": 6, "for_s": 60, "reason": 5}, 422, "wrong_type"),
        ("fast", {"version": 1, "overflow_s": 60, "for_s": 60}, 422, "workflow_missing"),
        ("fast", {"workflow": "nope", "version": 1, "overflow_s": 60, "for_s": 60}, 404, "unknown_workflow"),
        ("fast", {"workflow": 5, "version": 1, "overflow_s": 60, "for_s": 60}, 422, "wrong_type"),
        ("pause", {"priority": ["low"], "for_s": 60}, 422, "wrong_type"),
        ("shed", {"priority": "low", "overflow_s": None, "for_s": 60}, 422, "overflow_invalid"),
        ("clear", {"customer": "nobody"}, 422, "customer_unknown"),
        ("clear", {"older_than_s": "x"}, 422, "older_than_invalid"),
        ("panic", {}, 404, "measure_unknown"),
    ],
)
def test_bad_calls_are_refused_in_words_and_change_nothing(world: World, kind: str, body: dict[str, Any], status: int, code: str) -> None:
    answer = post(world, kind, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["suggestion"]
    assert not EmergencyAction.objects.exists()


def test_a_pool_and_a_measure_that_do_not_exist_are_404(world: World) -> None:
    headers = login("fleet", "operator")
    assert Client().post("/ops/api/pools/nowhere/emergencies/raise", "{}", content_type="application/json", headers=headers).status_code == 404
    for id_ in ("x", "0198f6a0-0000-7000-8000-000000000000"):
        assert Client().delete(f"/ops/api/emergencies/{id_}", headers=headers).status_code == 404
    assert Client().get("/ops/api/emergencies").status_code == 401


def test_a_shed_customer_is_told_when_to_come_back_with_the_limits_beside_it(world: World) -> None:
    import factories

    _, secret = factories.make_key(world.batch, now=world.now)
    world.fill(20, priority="low")
    post(world, "shed", CALLS["shed"] | {"overflow_s": 1})
    forget()
    answer = Client().post(
        f"/v1/workflows/{world.workflow.slug}/jobs",
        json.dumps({"priority": "low"}),
        content_type="application/json",
        headers={"Authorization": f"Bearer {secret}"},
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "temporarily_reduced_capacity")
    assert int(answer["Retry-After"]) == answer.json()["error"]["details"]["retry_after_s"]
    assert answer.has_header("RateLimit")
    assert measures.shed_of(world.pool.id, priority=2, now=timezone.now()) is not None


def test_a_customer_sees_that_and_why_a_job_ran_the_faster_way(world: World, now: datetime) -> None:
    import factories

    _, secret = factories.make_key(world.batch, now=world.now)
    world.fill(20)
    post(world, "fast", body_of(world, "fast") | {"overflow_s": 5})
    forget()
    headers = {"Authorization": f"Bearer {secret}"}
    answer = Client().post(
        f"/v1/workflows/{world.workflow.slug}/jobs", json.dumps({"inputs": {"width": 128}}), content_type="application/json", headers=headers
    )
    assert answer.status_code == 202, answer.content
    shown = Client().get(f"/v1/jobs/{answer.json()['id']}", headers=headers).json()
    assert (shown["version"], shown["fast"]["asked_version"]) == (1, 2)
    assert "inputs_before" not in shown["fast"]
    pinned = Client().post(f"/v1/workflows/{world.workflow.slug}/jobs", json.dumps({"version": 2}), content_type="application/json", headers=headers)
    assert (pinned.json()["version"], pinned.json()["fast"]) == (2, None)
