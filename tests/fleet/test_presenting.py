"""How a job looks from outside: everything its customer needs and nothing of the fleet."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from factories import make_customer, make_pool, make_runnable, make_worker, submit

from fleet import estimates, events, presenting, queue
from fleet.models import Job, Output

pytestmark = pytest.mark.django_db


def test_a_job_shows_nothing_of_the_fleet(now: datetime) -> None:
    pool = make_pool(now=now, slug="secret-pool")
    worker = make_worker(pool, now=now)
    job = submit(make_customer(now=now), make_runnable(now=now, pool=pool), now=now, metadata={"order": 1}, request_id="r-1")
    queue.claim(worker, now=now)
    error = {"code": "boom", "message": "It broke.", "suggestion": "", "details": None}
    queue.complete(worker, job_id=job.id, attempt=1, completion=queue.Completion(outcome="failed", failure_class="workflow", error=error), now=now)
    job.refresh_from_db()
    shape = presenting.job(job)
    text = json.dumps(shape)
    for hidden in ("secret-pool", worker.name, str(worker.id), "cost", str(job.customer_id), "fair_tag", "lease"):
        assert hidden not in text
    assert shape["error"] == {
        "code": "boom", "message": "It broke.", "suggestion": "", "alternative_endpoint": None, "details": {}, "request_id": "r-1", "class": "workflow",
    }  # fmt: skip
    assert (shape["price_usd"], shape["metadata"], shape["position"], shape["eta_s"]) == ("0.00", {"order": 1}, None, None)


def test_the_price_is_the_quote_until_it_is_known(now: datetime) -> None:
    job = submit(make_customer(now=now), make_runnable(now=now), now=now)
    assert presenting.job(job)["price_usd"] == "0.025"
    assert presenting.job(queue.cancel(job_id=job.id, now=now))["price_usd"] == "0.00"


@pytest.mark.parametrize(("name", "path"), [("a b.png", "a%20b.png"), ("../x", "..%2Fx"), ("ä?#.png", "%C3%A4%3F%23.png"), ("a%2Fb", "a%252Fb")])
def test_names_are_quoted_in_addresses(name: str, path: str) -> None:
    item = Output(job_id="0", index=3, name=name, size_bytes=1)
    assert presenting.output(item, base_url="https://x")["url"] == f"https://x/v1/jobs/0/outputs/3/{path}"


def test_times_are_utc_with_milliseconds() -> None:
    at = datetime(2026, 3, 2, 13, 0, 0, 123_999, tzinfo=timezone(timedelta(hours=1)))
    assert presenting.stamp(at) == "2026-03-02T12:00:00.123Z"
    assert presenting.stamp(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00.000Z"
    assert presenting.stamp(None) is None


def test_an_event_cannot_be_broken_by_what_it_carries(now: datetime) -> None:
    job = submit(make_customer(now=now), make_runnable(now=now), now=now, metadata={"x": "a\n\nevent: fake\r\ndata: {}\u2028"})
    lines = events.render(Job.objects.get(id=job.id)).split("\n")
    assert [line.partition(":")[0] for line in lines] == ["event", "id", "data", "", ""]


def test_the_line_is_counted_and_the_end_guessed(now: datetime) -> None:
    estimates.forget()
    pool = make_pool(now=now)
    workflow, customer = make_runnable(now=now, pool=pool), make_customer(now=now)
    jobs = [submit(customer, workflow, now=now) for _ in range(3)]
    urgent = submit(customer, workflow, now=now, priority="high")
    places = [estimates.place(job, now=now) for job in [urgent, *jobs]]
    assert [place.position for place in places] == [0, 1, 2, 3]
    assert [place.eta_s for place in places] == sorted(place.eta_s or 0 for place in places)
