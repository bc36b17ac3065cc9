"""The planner: growth, what if, savings, batches and events."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from controlplane.kernel.models import AuditEntry
from fleet import job_times, savings
from fleet.models import PlannedDemand, Pool, SavingsDay
from tests import factories
from tests.controlplane import shell_rows as rows
from tests.fleet import planning_rows
from tests.staff import signed_in

pytestmark = pytest.mark.django_db
URL = "/ops/fleet/planner/"


@pytest.fixture
def now():
    return timezone.now()


@pytest.fixture
def pool(now):
    job_times.forget()
    made, *_ = planning_rows.pool_with_past(now=now, jobs=60, every_s=120, took_s=170, base=1, max=4, slug="l40s", policy="threshold")
    return made


def days(pool, n=3, **fields):
    values = {"jobs": 10, "actual_microusd": 4_000_000, "replayed_microusd": 3_000_000, "seed_microusd": 5_000_000, "static_microusd": 9_000_000}
    values |= {"actual_within": 0.99, "replayed_within": 0.98, "seed_within": 0.9, "static_within": 1.0}
    made = datetime(2026, 3, 5, tzinfo=UTC)
    for i in range(n):
        SavingsDay.objects.create(pool=pool, day=(made - timedelta(days=i)).date(), made_at=made, **(values | fields))


def test_without_a_pool_growth_can_still_be_planned_from_the_seeds_case():
    html = rows.look(signed_in("account"), URL)
    assert "Hybrid costs least over 3 months" in html and "159.7%" in html
    assert "No pools yet" in rows.look(signed_in("viewer"), f"{URL}?tab=savings")


def test_the_seeds_month_six_is_a_preset_and_says_where_its_arithmetic_does_not_hold(pool):
    html = rows.look(signed_in("account"), f"{URL}?tab=growth&case=seed-month-6")
    for text in ("105%", "159.7%", "not a day", "$800.00/mo", "$1,200.00/mo", "$600.00/mo", "Does not hold", "$0.161", "takes −34.8%", "10,435 workflows"):
        assert text in html, text
    assert "Start from l40s in its place" in html


def test_who_sees_no_money_sees_the_plan_without_it(pool):
    html = rows.look(signed_in("fleet"), f"{URL}?tab=growth&case=seed-month-6")
    assert "159.7%" in html and "3.8 months" in html
    assert "$" not in html.split("<main", 1)[1].split("</main", 1)[0]


def test_figures_are_kept_in_the_address_and_wrong_ones_are_named(pool):
    client = signed_in("account")
    html = rows.look(client, f"{URL}?tab=growth&pool=l40s&workers=10&average=50&peak=80&new=20&monthly=10&months=12&bill=1000&jobs=10000&h_usd=100&h_workers=1")
    assert 'value="10,000"' in html and "costs least over 12 months" in html
    idle = rows.look(client, f"{URL}?tab=growth&pool=l40s&workers=10&average=5&peak=50&new=0&monthly=0&months=12&bill=1000&jobs=10000")
    assert "<h1>Today&#x27;s workers hold even the peaks for 12 months</h1>" in idle, "nothing has to be bought"
    grows = rows.look(client, f"{URL}?tab=growth&pool=l40s&workers=10&average=5&peak=50&new=50&monthly=20&months=3&bill=1000&jobs=10000")
    assert "costs least over 3 months" in grows
    wrong = rows.look(client, f"{URL}?tab=growth&pool=l40s&average=lots&months=1.5&bill=-3&v_gain=100")
    assert "Some figures cannot be used" in wrong and "A whole number from 0 to 60." in wrong and 'value="lots"' in wrong
    assert "cannot be below the average" in rows.look(client, f"{URL}?tab=growth&pool=l40s&average=80&peak=50")
    assert rows.look(client, f"{URL}?tab=growth&pool=l40s&workers=1e400&new=nan&h_workers={'9' * 300}&jobs=%00")


def test_what_if_compares_the_last_day_and_saves_nothing(pool):
    html = rows.look(signed_in("account"), f"{URL}?tab=whatif&pool=l40s&try=1&base=3&maximum=6&hours=24")
    assert "Would have cost $" in html and "Most workers at once" in html and "Wait p95" in html
    assert Pool.objects.get().base == 1
    plain = rows.look(signed_in("viewer"), f"{URL}?tab=whatif&pool=l40s&try=1&base=3&maximum=6")
    assert "Would have used" in plain and "$" not in plain.split("<main", 1)[1]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("base=9", "at least the minimum"),
        ("policy=nope", "no sizing policy"),
        ("knobs=nope%3D1", "has no knob"),
        ("knobs=idle", "is no knob"),
        ("base=x", "A whole number"),
        ("target_s=0", "A number from 1"),
        ("hours=9999", "A number from 1"),
    ],
)
def test_terms_that_cannot_be_are_said_beside_their_field(pool, query, says):
    html = rows.look(signed_in("viewer"), f"{URL}?tab=whatif&pool=l40s&try=1&{query}")
    assert "Nothing was tried" in html and says in html


def test_savings_by_day_add_up_to_the_tiles_and_the_csv(pool):
    days(pool)
    client = signed_in("account")
    html = rows.look(client, f"{URL}?tab=savings&pool=l40s")
    assert "$6.00 saved against the seed&#x27;s rule in 3 days" in html
    for text in ("$9.00", "$15.00", "$27.00", "$12.00", "Simulated on the same arrivals of 3 days"):
        assert text in html
    lines = rows.read_csv(client.get(f"{URL}savings.csv?pool=l40s"))
    assert [line["day"] for line in lines] == ["2026-03-05", "2026-03-04", "2026-03-03"]
    assert sum(float(line["replayed_usd"]) for line in lines) == 9.0 == savings.total(savings.days()).replayed_microusd / 1e6
    narrow = rows.look(client, f"{URL}?tab=savings&pool=l40s&since=2026-03-05")
    assert "in 1 day" in narrow
    assert len(rows.read_csv(client.get(f"{URL}savings.csv?pool=l40s&since=2026-03-05"))) == 1


def test_savings_that_are_none_and_the_first_day_say_so(pool):
    client = signed_in("account")
    assert "No finished day has been worked out yet" in rows.look(client, f"{URL}?tab=savings&pool=l40s")
    days(pool, 1, replayed_microusd=7_000_000)
    assert "$2.00 more than the seed&#x27;s rule in 1 day" in rows.look(client, f"{URL}?tab=savings&pool=l40s")


def test_a_year_of_savings_stays_within_the_budget_and_money_is_for_those_who_see_it(pool):
    days(pool, 365)
    html = rows.look(signed_in("viewer"), f"{URL}?tab=savings&pool=l40s&all=1")
    assert "$" not in html.split("<main", 1)[1] and "305 more days are in the CSV" in html
    assert "replayed_usd" not in rows.read_csv(signed_in("operator").get(f"{URL}savings.csv?all=1"))[0]


def test_a_batch_is_asked_about_and_then_announced_once(pool):
    client = signed_in("fleet", "account")
    html = rows.look(client, f"{URL}?tab=batches&pool=l40s&ask=1&jobs=40")
    assert "40 jobs would be done in about" in html and "Announce 40 jobs" in html and "Costs us" in html
    assert not PlannedDemand.objects.exists()
    for _ in range(2):
        said = client.post(f"{URL}announce/", {"pool": "l40s", "kind": "batch", "jobs": "40", "starts_at": "", "once": "a"}, follow=True).content.decode()
    assert "That was done already" in said
    planned = PlannedDemand.objects.get()
    assert (planned.jobs, planned.kind) == (40, "batch")
    assert AuditEntry.objects.filter(action="demand.announce").count() == 1


def test_an_event_is_announced_listed_and_canceled(pool, now):
    client = signed_in("fleet")
    start, end = (now + timedelta(hours=2)).strftime("%Y-%m-%d %H:%M"), (now + timedelta(hours=6)).strftime("%Y-%m-%d %H:%M")
    body = {"pool": "l40s", "kind": "event", "name": rows.XSS, "starts_at": start, "ends_at": end, "factor": "2", "workers": "3"}
    client.post(f"{URL}announce/", body)
    planned = PlannedDemand.objects.get()
    html = rows.look(client, f"{URL}?tab=batches&pool=l40s")
    assert "<script>alert" not in html and "2 times the usual, at least 3 workers" in html and "1 announcement for l40s" in html
    assert "is not announced any more" in client.post(f"{URL}announced/{planned.id}/cancel/", follow=True).content.decode()
    assert "was canceled before" in client.post(f"{URL}announced/{planned.id}/cancel/", follow=True).content.decode()
    assert "Nothing is announced for l40s" in rows.look(client, f"{URL}?tab=batches&pool=l40s")


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "event", "name": "x", "starts_at": "soon"}, {"kind": "event", "name": "x", "ends_at": "", "factor": "2"}, {"kind": "batch", "jobs": "0"},
        {"kind": "batch", "jobs": "many"}, {"kind": "batch", "jobs": ""}, {"kind": "batch", "jobs": "3", "starts_at": "2020-01-01 00:00"},
        {"kind": "event", "name": "x", "factor": "nan", "ends_at": "2099-01-01 00:00"}, {"kind": "batch", "jobs": "3", "workflow": "nope"},
    ],
)  # fmt: skip
def test_announcements_that_cannot_be_are_refused_in_words(pool, wrong):
    response = signed_in("fleet").post(f"{URL}announce/", {"pool": "l40s"} | wrong, follow=True)
    assert response.status_code == 200
    assert not PlannedDemand.objects.exists()


def test_announcing_needs_the_fleet_role_and_a_post(pool):
    viewer, keeper = signed_in("viewer"), signed_in("fleet")
    assert viewer.post(f"{URL}announce/", {"pool": "l40s", "jobs": "1"}).status_code == 403
    assert signed_in("admin").get(f"{URL}announce/").status_code == 405
    assert "Announcing needs the fleet role" in rows.look(viewer, f"{URL}?tab=batches&pool=l40s")
    assert keeper.post(f"{URL}announce/", {"pool": "nope"}).status_code == 404


def test_an_announcement_beyond_the_maximum_is_marked(pool, now):
    PlannedDemand.objects.create(
        kind="batch", pool=pool, jobs=9000, work_s=90_000, starts_at=now + timedelta(hours=1), ends_at=now + timedelta(hours=1), created_by="x", created_at=now
    )
    assert "More at once than the maximum of 4 does in time" in rows.look(signed_in("viewer"), f"{URL}?tab=batches&pool=l40s")


def test_long_names_and_two_hundred_announcements_stay_within_the_budget(pool, now):
    at = now + timedelta(hours=1)
    PlannedDemand.objects.bulk_create(
        PlannedDemand(kind="event", pool=pool, name=rows.LONG, factor=2, starts_at=at, ends_at=at, created_by=rows.LONG, created_at=now) for _ in range(50)
    )
    rows.look(signed_in("viewer"), f"{URL}?tab=batches&pool=l40s")


def test_the_operators_api_announces_lists_cancels_and_replays(pool, now):
    client = signed_in("fleet")
    body = {"pool": "l40s", "jobs": 50, "starts_at": (now + timedelta(hours=1)).isoformat()}
    made = client.post("/ops/api/announcements", body, content_type="application/json")
    assert made.status_code == 201
    (one,) = client.get("/ops/api/announcements?pool=l40s").json()["results"]
    assert one["id"] == made.json()["id"] and one["jobs"] == 50
    assert client.delete(f"/ops/api/announcements/{one['id']}").json()["canceled_at"]
    assert client.delete(f"/ops/api/announcements/{one['id']}").status_code == 409
    found = client.post("/ops/api/pools/l40s/replay", {"changes": {"base": 2}, "hours": 2}, content_type="application/json").json()
    assert found["after"]["peak"] >= 2 and "cost_microusd" not in found["after"]
    assert client.post("/ops/api/pools/l40s/replay", {"changes": {"base": 99}}, content_type="application/json").status_code == 422
    for wrong in ({"pool": "l40s"}, {"pool": "nope", "jobs": 1}, {"pool": "l40s", "jobs": True}, {"pool": "l40s", "kind": "x"}, {"pool": "l40s", "colour": 1}):
        assert client.post("/ops/api/announcements", wrong, content_type="application/json").status_code in (404, 422)
    assert factories.make_pool(now=now)
    assert signed_in("viewer").post("/ops/api/announcements", body, content_type="application/json").status_code == 403
