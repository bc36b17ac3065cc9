"""The result cache: an equal job is answered at once, by the customer's own young result, and takes nobody's turn."""

from __future__ import annotations

import io
from datetime import datetime, timedelta
from typing import Any

import pytest
from factories import make_customer, make_pool, make_runnable, make_version, make_worker, submit

from billing.models import Account
from controlplane.kernel import blobs
from fleet import queue, reconcile
from fleet.models import FairShare, Job, Output

pytestmark = pytest.mark.django_db
S = timedelta(seconds=1)


@pytest.fixture
def world(now: datetime) -> tuple[Any, ...]:
    pool = make_pool(now=now)
    workflow, customer, worker = make_runnable(now=now, pool=pool, result_cache_s=60), make_customer(now=now), make_worker(pool, now=now)
    first = submit(customer, workflow, now=now)
    queue.claim(worker, now=now)
    blob = blobs.put(io.BytesIO(b"result"), media_type="text/plain", max_bytes=99, now=now)
    for index in range(2):
        Output.objects.create(
            job=first, attempt=1, index=index, name=f"{index}.txt", kind="text", media_type="text/plain", blob=blob, size_bytes=6, created_at=now
        )
    done = queue.Completion(outcome="succeeded", outputs=[{"index": 0, "sha256": blob.sha256, "measurements": {"flat": False}}])
    queue.complete(worker, job_id=first.id, attempt=1, completion=done, now=now)
    return workflow, customer, worker, first


def test_an_equal_job_is_done_at_once_with_the_same_published_outputs(world: tuple[Any, ...], now: datetime) -> None:
    workflow, customer, worker, first = world
    tag = FairShare.objects.get(customer=customer).finish_tag
    job = submit(customer, workflow, now=now + 59 * S, webhook_url="https://example.com/x")
    assert (job.status, job.source, job.copied_from_id, job.attempt, job.billable_s) == ("succeeded", "cache", first.id, 0, 0)
    assert job.price_microusd == 10_000, "the call is paid, the seconds are not"
    (copy,) = Output.objects.filter(job=job)
    assert (copy.published, copy.name, copy.measurements) == (True, "0.txt", {"flat": False})
    assert queue.claim(worker, now=now + 59 * S) == []
    assert FairShare.objects.get(customer=customer).finish_tag == tag, "an answer from the cache moved its customer back in the line"
    assert Account.objects.get(customer=customer).active_jobs == 0
    assert reconcile.drift(now=now + 59 * S).total == 0


def test_only_ones_own_young_equal_results_count(world: tuple[Any, ...], now: datetime) -> None:
    workflow, customer, _, first = world
    assert submit(customer, workflow, now=now + 61 * S).status == "queued", "too old"
    assert submit(make_customer(now=now), workflow, now=now).status == "queued", "somebody else's"
    assert submit(customer, workflow, now=now, inputs={"width": 65}).status == "queued", "other inputs"
    workflow.result_cache_s = 0
    assert submit(customer, workflow, now=now).status == "queued", "switched off"
    workflow.result_cache_s = 60
    make_version(workflow, now=now)
    assert submit(customer, workflow, now=now).status == "queued", "another version"
    Job.objects.filter(id=first.id).update(result_key="")
    assert Job.objects.filter(source="cache").count() == 0
