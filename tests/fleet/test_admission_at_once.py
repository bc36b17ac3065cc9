"""Admission in one statement does what admission step by step does. Where the database cannot, there is nothing to compare."""

from datetime import timedelta

import factories
import pytest
from django.db import connection
from django.utils import timezone

from billing.models import Account
from controlplane.kernel.errors import LimitExceeded, OutOfMoney
from fleet import admission, at_once
from fleet.models import FairShare, Job
from tests.controlplane import api_world as world

pytestmark = [pytest.mark.django_db, pytest.mark.skipif(connection.vendor != "postgresql", reason="one statement is PostgreSQL's way; run with DATABASE_URL")]


@pytest.fixture(params=[True, False], ids=["at once", "step by step"])
def way(request, monkeypatch):
    monkeypatch.setattr(at_once, "possible", lambda: request.param)


def submit(customer, workflow, now=None, **fields):
    return admission.submit(customer=customer, api_key=None, workflow=workflow, inputs={}, now=now or timezone.now(), **fields)


def test_tags_reservation_and_standing_are_the_same(way):
    workflow = world.workflow()
    customer, *_ = world.customer()
    now = timezone.now()
    made = [submit(customer, workflow, now=now) for _ in range(3)]
    tags = [m.job.fair_tag for m in made]
    assert tags == list(Job.objects.order_by("id").values_list("fair_tag", flat=True))
    assert tags[1] - tags[0] == tags[2] - tags[1] > 0
    assert FairShare.objects.get().finish_tag == tags[2] + (tags[1] - tags[0])
    account = Account.objects.get()
    assert (account.active_jobs, account.minute_requests) == (3, 3)
    assert account.reserved_microusd == sum(m.job.quote_microusd for m in made)
    assert made[-1].standing.active_left == 97
    kept = Job.objects.get(id=made[0].job.id)
    assert (kept.inputs, kept.status, kept.pool_id) == ({"width": 64, "color": 255}, "queued", world.pool().id)


def test_a_refusal_leaves_nothing_behind(way):
    workflow = world.workflow()
    customer, *_ = world.customer(max_active_jobs=1)
    submit(customer, workflow)
    before = FairShare.objects.values_list("finish_tag").get()
    with pytest.raises(LimitExceeded):
        submit(customer, workflow)
    poor, *_ = world.customer("poor", monthly_limit_microusd=1)
    with pytest.raises(OutOfMoney):
        submit(poor, workflow)
    assert (Job.objects.count(), FairShare.objects.values_list("finish_tag").get()) == (1, before)
    assert Account.objects.get(customer=poor).active_jobs == 0


def test_a_customer_without_an_account_gets_one(way):
    workflow = world.workflow()
    customer, *_ = world.customer()
    Account.objects.all().delete()
    assert submit(customer, workflow).job.status == "queued"
    assert Account.objects.get().active_jobs == 1


def test_the_same_key_in_the_same_instant_makes_one_job(way, monkeypatch):
    workflow = world.workflow()
    customer, *_ = world.customer()
    first = submit(customer, workflow, idempotency_key="k", body_sha256="b")
    looked = []
    real = admission.earlier
    monkeypatch.setattr(admission, "earlier", lambda *a: looked.append(1) or (None if len(looked) == 1 else real(*a)))
    again = submit(customer, workflow, now=timezone.now() + timedelta(seconds=1), idempotency_key="k", body_sha256="b")
    assert (again.replayed, again.job.id) == (True, first.job.id)
    assert (Job.objects.count(), Account.objects.get().active_jobs) == (1, 1)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("state", "told"), [("idle", True), ("busy", False)])
def test_workers_are_told_while_one_of_them_is_idle(way, state, told):
    import psycopg

    workflow = world.workflow()
    customer, *_ = world.customer()
    factories.make_worker(world.pool(), now=timezone.now(), state=state)
    parameters = connection.get_connection_params()
    with psycopg.connect(**{k: parameters[k] for k in ("dbname", "user", "host", "port") if parameters.get(k)}, autocommit=True) as listener:
        listener.execute("LISTEN comfyplane")
        submit(customer, workflow)
        notes = [note.payload for note in listener.notifies(timeout=2 if told else 0.2, stop_after=1)]
    assert notes == ([f"pool:{world.pool().id}"] if told else [])
