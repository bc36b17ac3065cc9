"""Usage and limits over HTTP: lines that add up, in pages and as CSV."""

import csv
import io
from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from billing import ledger
from billing.models import UsageEntry
from controlplane.kernel import money
from tests.controlplane import api_world as world

pytestmark = pytest.mark.django_db


@pytest.fixture
def api():
    world.workflow("paint")
    world.workflow("sketch")
    made = world.caller()
    for slug in ("paint", "sketch", "paint"):
        job = made.post(f"/v1/workflows/{slug}/jobs").json()
        world.finish(job["id"])
    lost = made.post("/v1/workflows/paint/jobs").json()
    world.finish(lost["id"], outcome="failed", failure_class="workflow", error={"code": "x", "message": "X.", "suggestion": "Y."})
    return made


def soon():
    """A time after everything that happened."""
    return (timezone.now() + timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_totals_and_lines_add_up(api):
    page = api.get(f"/v1/usage?to={soon()}").json()
    assert len(page["results"]) == 8
    lines = sum(Decimal(line["amount_usd"]) for line in page["results"])
    totals = sum(Decimal(total["amount_usd"]) for total in page["totals"])
    assert lines == totals == Decimal(page["amount_usd"]) == Decimal("0.00375")
    assert {total["workflow"]: total["jobs"] for total in page["totals"]} == {"paint": 3, "sketch": 1}
    assert sum(Decimal(total["gpu_seconds"]) for total in page["totals"]) == Decimal("2")
    assert api.get("/v1/limits").json()["month"]["spent_usd"] == "0.00375"
    assert api.get("/v1/usage?from=2020-01-01T00:00:00Z&to=2020-12-31").json()["results"] == []


def test_a_correction_shows_as_lines_of_its_own_and_in_the_totals(api):
    entry = UsageEntry.objects.filter(meter="job", amount_microusd__gt=0).first()
    ledger.correct(entry, quantity=Decimal(1), amount_microusd=0, now=timezone.now() + timedelta(seconds=5))
    page = api.get(f"/v1/usage?to={soon()}").json()
    assert len(page["results"]) == 10
    assert [line["reverses"] for line in page["results"] if line["reverses"]] == [str(entry.id)]
    assert Decimal(page["amount_usd"]) == Decimal("0.00275") == sum(Decimal(line["amount_usd"]) for line in page["results"])


def test_lines_come_in_pages_newest_first_without_gap_or_double(api):
    seen, url = [], f"/v1/usage?limit=3&to={soon()}"
    while url:
        page = api.get(url).json()
        seen += page["results"]
        url = page["next"]
    assert len(seen) == len({line["id"] for line in seen}) == 8
    assert [line["booked_at"] for line in seen] == sorted((line["booked_at"] for line in seen), reverse=True)


@pytest.mark.parametrize(("query", "headers"), [("format=csv", {}), ("", {"Accept": "text/csv"})])
def test_the_whole_range_comes_as_csv(api, query, headers):
    response = api.get(f"/v1/usage?to={soon()}&{query}", **headers)
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode())))
    assert len(rows) == 8
    assert sum(money.from_usd(row["amount_usd"]) for row in rows) == 3750
    assert [row["booked_at"] for row in rows] == sorted(row["booked_at"] for row in rows)


def test_limits_say_what_the_plan_allows_and_what_is_left(api):
    api.post("/v1/workflows/paint/jobs")
    said = api.get("/v1/limits").json()
    assert said["active_jobs"] == {"limit": 100, "left": 99}
    assert said["prices"] == {"per_job_usd": "0.001", "per_gpu_second_usd": "0.0005"}
    month = said["month"]
    assert money.from_usd(month["spent_usd"]) + money.from_usd(month["reserved_usd"]) + money.from_usd(month["left_usd"]) == money.from_usd(month["limit_usd"])
