"""Clear a queue: what waits is ended once and for nothing, what runs is left, and undoing submits it again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from billing.models import UsageEntry
from controlplane.kernel.errors import Conflict, Invalid
from controlplane.kernel.models import AuditEntry, OutboxEntry
from fleet import clearing, emergencies, queue, reconcile
from fleet.models import EmergencyAction, Job, SmokeRun
from tests import factories
from tests.fleet.emergency_world import World, forget
from tests.racing import race

HOUR = timedelta(hours=1)


@pytest.fixture
def world(db: Any, now: datetime) -> World:
    return World(now)


def clear(world: World, **fields: Any) -> EmergencyAction:
    return clearing.clear_queue(world.pool, **({"actor": "sarah", "reason": "flood", "now": world.now} | fields))


def test_the_dry_run_says_what_clearing_then_does(world: World) -> None:
    world.fill(4, webhook_url="https://example.com/hook")
    world.fill(3, customer=world.other, priority="low")
    said = clearing.count(clearing.planned(world.pool, now=world.now))
    assert (said.jobs, said.customers, said.webhooks) == (7, 2, 4)
    assert said.reserved_microusd == sum(Job.objects.filter(status="queued").values_list("quote_microusd", flat=True)) > 0
    assert not EmergencyAction.objects.exists()
    done = clear(world)
    assert (done.cleared, done.terms["done"]) == (7, True)


def test_only_waiting_jobs_end_each_by_us_and_for_nothing(world: World) -> None:
    world.fill(3, webhook_url="https://example.com/hook")
    (running,) = queue.claim(world.worker, now=world.now)
    action = clear(world)
    assert Job.objects.get(id=running.job_id).status == "running"
    ended = list(Job.objects.filter(status="canceled"))
    assert {(j.failure_class, j.price_microusd, j.error["code"]) for j in ended} == {("platform", 0, "queue_cleared")}
    assert len(ended) == action.cleared == 2
    assert UsageEntry.objects.filter(job_id__in=[j.id for j in ended]).count() == 4, "two meters each, as for any end"
    assert OutboxEntry.objects.filter(topic="webhook").count() == 2
    world.batch.account.refresh_from_db()
    assert world.batch.account.active_jobs == 1
    assert world.batch.account.reserved_microusd == Job.objects.get(id=running.job_id).quote_microusd
    assert reconcile.drift(now=world.now).total == 0
    entry = AuditEntry.objects.get(action="emergency.clear")
    assert (entry.actor, entry.reason, entry.after["matching"]) == ("sarah", "flood", 2)


def test_it_clears_what_was_named_and_nothing_else(world: World) -> None:
    other = factories.make_runnable(now=world.now, pool=world.pool)
    world.fill(2)
    world.fill(2, customer=world.other)
    world.fill(1, customer=world.other, priority="low")
    factories.submit(world.other, other, now=world.now)
    assert clear(world, workflow=other).cleared == 1
    assert clear(world, priority="low").cleared == 1
    assert clear(world, customer=world.other).cleared == 2
    assert clear(world, older_than_s=60).cleared == 0
    assert clear(world, older_than_s=60, now=world.now + HOUR).cleared == 2


def test_smoke_jobs_and_other_pools_stay(world: World) -> None:
    elsewhere = World(world.now)
    elsewhere.fill(1)
    world.fill(1, source=Job.SMOKE)
    assert clear(world).cleared == 0
    assert SmokeRun.objects.count() == 0
    assert Job.objects.filter(status="queued").count() == 2


def test_clearing_twice_with_one_token_clears_once(world: World) -> None:
    world.fill(2)
    first = clear(world, once="t")
    world.fill(2)
    assert clear(world, once="t").id == first.id
    assert Job.objects.filter(status="queued").count() == 2


def test_what_one_call_does_not_finish_the_loop_does(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clearing, "BATCH", 4)
    monkeypatch.setattr(clearing, "BUDGET_S", 0.0)
    world.fill(10)
    action = EmergencyAction.objects.create(kind="clear", pool=world.pool, starts_at=world.now, expires_at=world.now + HOUR, actor="s")
    assert clearing.go_on(action, fence=lambda: None, now=world.now, budget_s=0.0) == 0
    assert "10 cleared" in emergencies.settle(fence=lambda: None, now=world.now)
    action.refresh_from_db()
    assert (action.cleared, action.terms["done"]) == (10, True)
    assert emergencies.settle(fence=lambda: None, now=world.now) == "none over"


def test_a_lost_lead_stops_clearing_in_mid_batch_and_changes_nothing(world: World) -> None:
    world.fill(3)
    action = EmergencyAction.objects.create(kind="clear", pool=world.pool, starts_at=world.now, expires_at=world.now + HOUR, actor="s")

    def lost() -> None:
        raise RuntimeError("another leads")

    with pytest.raises(RuntimeError):
        clearing.go_on(action, fence=lost, now=world.now)
    assert Job.objects.filter(status="queued").count() == 3


def test_undoing_submits_the_cleared_jobs_again_in_their_order_once(world: World) -> None:
    made = world.fill(3, metadata={"sku": 1}) + world.fill(2, priority="low", customer=world.other)
    short = factories.submit(world.batch, world.workflow, now=world.now, deadline_s=30)
    action = clear(world)
    forget()
    ended = emergencies.end(action, actor="tom", now=world.now + timedelta(minutes=5))
    assert ended.terms["resubmit"] == "asked"
    clearing.go_on(ended, fence=lambda: None, now=world.now + timedelta(minutes=5))
    again = list(Job.objects.filter(status="queued").order_by("id"))
    assert [(j.customer_id, j.inputs, j.metadata, j.priority) for j in again] == [(j.customer_id, j.inputs, j.metadata, j.priority) for j in made]
    assert (ended.terms["resubmitted"], ended.terms["refused"]) == (5, {"deadline_passed": 1})
    assert Job.objects.get(id=short.id).status == "canceled"
    EmergencyAction.objects.filter(id=action.id).update(terms={**ended.terms, "resubmit": "asked", "resubmit_after": None})
    emergencies.settle(fence=lambda: None, now=world.now + timedelta(minutes=6))
    assert Job.objects.filter(status="queued").count() == 5, "submitted again by a key of their own"
    assert reconcile.drift(now=world.now).total == 0


def test_after_a_day_it_can_no_longer_be_undone(world: World) -> None:
    world.fill(1)
    action = clear(world)
    with pytest.raises(Conflict) as refusal:
        emergencies.end(action, actor="s", now=world.now + timedelta(hours=25))
    assert refusal.value.code == "undo_too_late"


@pytest.mark.django_db(transaction=True)
def test_claims_and_cancels_that_meet_a_clearing_lose_nothing_and_end_nothing_twice(now: datetime) -> None:
    world = World(now)
    jobs = world.fill(30)
    workers = [factories.make_worker(world.pool, now=now) for _ in range(3)]

    def act(n: int) -> Any:
        if n == 0:
            return clear(world).cleared
        if n == 4:
            return [queue.cancel(job_id=j.id, now=now) for j in jobs[20:24]]
        return [queue.claim(workers[n - 1], limit=2, now=now) for _ in range(3)]

    race(5, act)
    emergencies.settle(fence=lambda: None, now=now)
    counts = {status: Job.objects.filter(status=status, id__in=[j.id for j in jobs]).count() for status in ("queued", "running", "canceled")}
    assert counts["queued"] == 0
    assert counts["running"] + counts["canceled"] == 30
    assert reconcile.drift(now=now).total == 0
    forget()


@pytest.mark.parametrize(
    ("fields", "code"),
    [({"priority": "urgent"}, "class_unknown"), ({"older_than_s": -1}, "older_than_invalid"), ({"older_than_s": True}, "older_than_invalid")],
)
def test_a_filter_that_is_none_is_refused(world: World, fields: dict[str, Any], code: str) -> None:
    world.fill(1)
    for ask in (lambda: clear(world, **fields), lambda: clearing.planned(world.pool, **fields, now=world.now)):
        with pytest.raises(Invalid) as refusal:
            ask()
        assert refusal.value.code == code
    assert Job.objects.filter(status="queued").count() == 1
