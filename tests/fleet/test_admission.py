"""Admission: exact under a race, replayed once, every refusal leaving nothing behind."""

from __future__ import annotations

import ast
import base64
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from factories import make_customer, make_plan, make_pool, make_runnable, make_version, make_workflow, submit
from racing import race

from billing.models import Account, Customer
from builds.models import Workflow
from controlplane.kernel.errors import Invalid, LimitExceeded, OutOfMoney, WorkflowError
from controlplane.kernel.models import Blob
from fleet import admission, reconcile
from fleet.models import CustomerFile, FairShare, Job

pytestmark = pytest.mark.django_db
S = timedelta(seconds=1)


def admit(customer: Customer, workflow: Workflow, now: datetime, **fields: Any) -> admission.Admitted:
    return admission.submit(customer=customer, api_key=None, workflow=workflow, inputs=fields.pop("inputs", {}), now=now, **fields)


@pytest.mark.django_db(transaction=True)
def test_forty_jobs_for_ten_places_are_ten(now: datetime) -> None:
    workflow = make_runnable(now=now)
    customer = make_customer(now=now, plan=make_plan(now=now, max_active_jobs=10))
    results = race(40, lambda _: admit(customer, workflow, now))
    assert sum(isinstance(r, admission.Admitted) for r in results) == 10 == Job.objects.count()
    assert {type(r) for r in results} == {admission.Admitted, LimitExceeded}
    assert reconcile.drift(now=now).total == 0


@pytest.mark.django_db(transaction=True)
def test_money_promised_to_jobs_never_passes_the_limit(now: datetime) -> None:
    workflow = make_runnable(now=now)
    quote = submit(make_customer(now=now), workflow, now=now).quote_microusd
    customer = make_customer(now=now, plan=make_plan(now=now, monthly_limit_microusd=7 * quote + quote // 2))
    results = race(30, lambda _: admit(customer, workflow, now))
    assert sum(isinstance(r, admission.Admitted) for r in results) == 7 == Job.objects.filter(customer=customer).count()
    assert {type(r) for r in results} == {admission.Admitted, OutOfMoney}
    assert Account.objects.get(customer=customer).reserved_microusd == 7 * quote


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("places", [1, 100])
@pytest.mark.parametrize("cached", [0, 60])
def test_one_body_sent_twenty_times_at_once_is_one_job(now: datetime, places: int, cached: int) -> None:
    workflow = make_runnable(now=now, result_cache_s=cached)
    customer = make_customer(now=now, plan=make_plan(now=now, max_active_jobs=places))
    results = race(20, lambda _: admit(customer, workflow, now, idempotency_key="k", body_sha256="a"))
    assert all(isinstance(r, admission.Admitted) for r in results), results
    assert len({r.job.id for r in results}) == 1 and sum(not r.replayed for r in results) == 1
    assert (Job.objects.count(), Account.objects.get(customer=customer).active_jobs) == (1, 1)
    assert reconcile.drift(now=now).total == 0


def test_the_same_key_with_another_body_is_refused_and_names_the_job(now: datetime) -> None:
    workflow, customer = make_runnable(now=now), make_customer(now=now)
    first = admit(customer, workflow, now, idempotency_key="k", body_sha256="a")
    with pytest.raises(Invalid) as refused:
        admit(customer, workflow, now, idempotency_key="k", body_sha256="b")
    assert (refused.value.code, refused.value.details) == ("idempotency_key_reused", {"job": str(first.job.id)})
    other = admit(make_customer(now=now), workflow, now, idempotency_key="k", body_sha256="b")
    assert not other.replayed, "keys are each customer's own"


def test_a_replay_needs_neither_room_nor_money_nor_valid_inputs(now: datetime) -> None:
    workflow = make_runnable(now=now)
    customer = make_customer(now=now, plan=make_plan(now=now, max_active_jobs=1, requests_per_minute=1))
    first = admit(customer, workflow, now, idempotency_key="k", body_sha256="a")
    again = admit(customer, workflow, now, idempotency_key="k", body_sha256="a")
    assert (again.job.id, again.replayed) == (first.job.id, True)


PIXEL = "data:text/plain;base64," + base64.b64encode(b"hello").decode()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"priority": "urgent"}, "priority_unknown"),
        ({"priority": "high"}, "priority_not_in_plan"),
        ({"deadline_s": 0}, "deadline_out_of_range"),
        ({"deadline_s": float("nan")}, "deadline_out_of_range"),
        ({"deadline_s": 1e300}, "deadline_out_of_range"),
        ({"metadata": {"a": "x" * 9000}}, "metadata_too_large"),
        ({"metadata": {"a": "\x00"}}, "json_text_invalid"),
        ({"metadata": {"\ud800": 1}}, "json_text_invalid"),
        ({"metadata": {"a": float("inf")}}, "json_not_a_number"),
        ({"webhook_url": "http://169.254.169.254/latest"}, "webhook_url_refused"),
        ({"webhook_url": "https://example.com/\x00"}, "webhook_url_refused"),
        ({"webhook_url": "https://example.com/" + "x" * 600}, "webhook_url_refused"),
        ({"inputs": {"width": 0}}, "out_of_range"),
        ({"inputs": {"nope": 0}}, "unknown_field"),
        ({"inputs": {"note": "11111111-1111-7111-8111-111111111111"}}, "file_not_found"),
    ],
)
def test_every_refusal_has_a_code_and_leaves_nothing_behind(now: datetime, fields: dict[str, Any], code: str) -> None:
    exposed = [
        {"name": "width", "node": "1", "input": "width", "type": "integer", "title": "W", "default": 64, "minimum": 1, "maximum": 100},
        {"name": "note", "node": "1", "input": "text", "type": "string", "title": "Note", "kind": "file"},
    ]
    workflow = make_workflow(now=now, pool=make_pool(now=now))
    make_version(workflow, now=now, inputs=exposed)
    customer = make_customer(now=now, plan=make_plan(now=now, max_priority="normal"))
    given = {"inputs": {"note": PIXEL}} | fields
    with pytest.raises(WorkflowError) as refused:
        admit(customer, workflow, now, **given)
    assert refused.value.code == code and refused.value.message and refused.value.suggestion
    assert not Job.objects.exists() and not CustomerFile.objects.exists() and not Blob.objects.exists() and not FairShare.objects.exists()
    account = Account.objects.get(customer=customer)
    assert (account.reserved_microusd, account.active_jobs, account.minute_requests) == (0, 0, 0)


def test_odd_but_clean_metadata_comes_back_as_it_was(now: datetime) -> None:
    metadata = {"text": "back\\u0000slash 😀 é", "deep": [[{"n": -1.5}]], "": None, "big": 2**60}
    job = admit(make_customer(now=now), make_runnable(now=now), now, metadata=metadata).job
    assert Job.objects.get(id=job.id).metadata == metadata


@pytest.mark.parametrize(
    ("change", "code"), [({"archived_at": True}, "workflow_archived"), ({"pool_slug": "nowhere"}, "pool_missing"), ({}, "workflow_not_released")]
)
def test_what_cannot_run_is_refused(now: datetime, change: dict[str, Any], code: str) -> None:
    workflow = make_workflow(now=now, pool=make_pool(now=now))
    make_version(workflow, now=now, live=bool(change))
    for name, value in change.items():
        setattr(workflow, name, now if value is True else value)
    with pytest.raises(WorkflowError) as refused:
        admit(make_customer(now=now), workflow, now)
    assert refused.value.code == code


def test_an_unknown_workflow_names_the_nearest(now: datetime) -> None:
    make_runnable(now=now, slug="paint-cat")
    with pytest.raises(WorkflowError) as refused:
        admission.workflow_named("paint-cats")
    assert (refused.value.code, refused.value.alternative_endpoint) == ("workflow_not_found", "/v1/workflows/paint-cat")


@pytest.mark.parametrize("module", ["billing", "fleet", "fleet/queue", "controlplane/stream"])
def test_every_refusal_in_the_code_has_a_code_a_sentence_and_a_suggestion(module: str) -> None:
    kinds = {"Malformed", "Unauthenticated", "OutOfMoney", "Forbidden", "NotFound", "MethodNotAllowed", "Conflict", "Gone", "TooLarge", "Invalid"}
    kinds |= {"LimitExceeded", "Unavailable", "WorkflowError", "UnsupportedMedia", "NotAcceptable", "RangeNotSatisfiable"}
    found = 0
    for path in sorted((Path(django_settings.BASE_DIR) / module).glob("*.py")):
        for call in (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id in kinds):
            where = f"{path.name}:{call.lineno}"
            assert len(call.args) >= 3, where
            for said in call.args[:3]:
                assert not (isinstance(said, ast.Constant) and not said.value), where
            found += 1
    assert found or module == "fleet/queue"
