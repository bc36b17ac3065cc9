"""The demo goes in through the doors everybody uses, once, and every workflow of it can be called with nothing."""

from __future__ import annotations

from collections import Counter

import pytest
from django.contrib.auth import authenticate

from billing import customers, keys, pricing, queries
from billing.models import ApiKey, Customer
from builds.models import NodeLibrary, Version, Workflow
from controlplane import credentials, installing
from controlplane.demo import history, seeding
from controlplane.demo.catalogue import ENTRIES
from fleet import admission
from fleet.models import Job, Pool

pytestmark = pytest.mark.django_db


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def seeded(told, now, tmp_path, settings):
    settings.DATA_DIR = tmp_path
    installing.ensure_nodes(say=told.append, now=now)
    assert seeding.seed(say=told.append, now=now)


def test_every_workflow_is_in_production_without_a_finding_and_takes_no_input_at_all(seeded, now) -> None:
    assert set(Workflow.objects.values_list("slug", flat=True)) == {entry.slug for entry in ENTRIES}
    customer = Customer.objects.get(slug=seeding.MAIN_CUSTOMER)
    for workflow in Workflow.objects.all():
        version = workflow.channels.get(name="production").version
        assert version.runnable and version.findings == [], f"{workflow.slug}: {version.findings}"
        assert all(one["title"] and one["description"] for one in version.inputs)
        job = admission.submit(customer=customer, api_key=None, workflow=workflow, inputs={}, now=now).job
        assert job.status == "queued"


def test_seeding_again_changes_nothing_and_a_changed_workflow_is_left_alone(seeded, told, now) -> None:
    before = [model.objects.count() for model in (Workflow, Version, Customer, ApiKey, Pool, NodeLibrary)]
    known = credentials.read()
    installing.ensure_nodes(say=told.append, now=now)
    assert not seeding.seed(say=told.append, now=now)
    assert [model.objects.count() for model in (Workflow, Version, Customer, ApiKey, Pool, NodeLibrary)] == before
    assert credentials.read() == known


def test_test_runs_are_paid_by_the_house_at_a_price_of_nothing_and_nobody_is_sold_its_plan(now) -> None:
    for _ in range(2):
        installing.ensure_house(now=now)
    house = Customer.objects.get()
    assert house.slug == customers.HOUSE
    plan = house.plan_revision
    assert pricing.quote(pricing.Terms(plan.price_per_job_microusd, plan.price_per_gpu_second_microusd), expected_s=1000.0) == 0
    assert not queries.plans_exist() and queries.offers() == []


def test_a_fresh_installation_still_asks_for_a_customer_and_offers_a_plan_with_a_price(client, admin_user, now) -> None:
    installing.ensure_house(now=now)
    client.force_login(admin_user)
    page = client.get("/ops/")
    assert [step["done"] for step in page.context["steps"]] == [False] * 4
    assert "No customers yet" in client.get("/ops/customers/").content.decode()
    assert [text for _, text in client.get("/ops/customers/new/").context["plans"]] == [
        "Starter (new): $0.02 a job, $0.0005 a GPU second, at most $50.00 a month"
    ]


def test_the_key_it_keeps_opens_the_account_of_a_customer(seeded, now) -> None:
    key = keys.authenticate(credentials.read()["api_key"], now=now)
    assert key.customer.slug == seeding.MAIN_CUSTOMER
    assert credentials.path().stat().st_mode & 0o077 == 0


def test_a_lost_file_gets_a_new_key_and_a_new_password_and_a_kept_one_stays(seeded, told, now) -> None:
    name, password = credentials.ensure_operator()
    assert credentials.ensure_operator() == (name, password)
    first = credentials.read()["api_key"]
    credentials.path().unlink()
    assert credentials.ensure_operator() != (name, password)
    seeding.seed(say=told.append, now=now)
    assert credentials.read()["api_key"] != first
    user = authenticate(username=name, password=credentials.read()["operator"]["password"])
    assert user is not None and user.is_staff and user.is_superuser


def test_the_history_holds_every_workflow_some_failures_and_one_that_is_canceled(seeded, now) -> None:
    planned = history.plan()
    assert planned == history.plan() and len(planned) == history.JOBS + 1
    assert {one.workflow for one in planned} == {entry.slug for entry in ENTRIES}
    assert sum(one.cancel for one in planned) == 1
    assert sum(one.inputs.get("find") in history.BAD_PATTERNS for one in planned) == len(history.BAD_PATTERNS)
    assert set(Counter(one.customer for one in planned)) == {slug for slug, _, _ in seeding.CUSTOMERS}
    by_slug = {workflow.slug: workflow for workflow in Workflow.objects.all()}
    customer = Customer.objects.select_related("plan_revision").get(slug=seeding.MAIN_CUSTOMER)
    for one in planned:
        admission.submit(customer=customer, api_key=None, workflow=by_slug[one.workflow], inputs=one.inputs, priority="low", source="demo", now=now)
    assert Job.objects.filter(source="demo", priority=Job.Priority.LOW).count() == len(planned)
