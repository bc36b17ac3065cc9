"""The fleet, one pool, and what people may do to them."""

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.console import numbers
from controlplane.kernel.models import AuditEntry
from fleet import queries_capacity, worker_hours
from fleet.models import CapacityMinute, Pool, ScalingDecision, Worker
from tests import factories
from tests.controlplane import shell_rows as rows
from tests.controlplane import work_rows
from tests.staff import signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def now():
    return timezone.now()


def test_no_pools_says_what_one_is(now):
    html = rows.look(signed_in("fleet"), "/ops/fleet/")
    assert "No pools yet" in html
    assert "/ops/fleet/new/" in html


def test_fifty_pools_stay_within_the_budget_and_trouble_comes_first(now):
    for i in range(50):
        pool = factories.make_pool(now=now, slug=f"pool-of-{i:02d}", base=0, max=4)
        factories.make_worker(pool, now=now)
    Pool.objects.filter(slug="pool-of-49").update(halted_at=now, halted_reason="A crash loop.")
    html = rows.look(signed_in("viewer"), "/ops/fleet/")
    assert "<h1>pool-of-49 cannot start workers</h1>" in html
    assert html.index("/ops/fleet/pools/pool-of-49/") < html.index("/ops/fleet/pools/pool-of-00/")


def test_a_pool_at_zero_is_a_normal_state(now):
    factories.make_pool(now=now, slug="staging", base=0, max=4)
    html = rows.look(signed_in("viewer"), "/ops/fleet/pools/staging/")
    assert "Scaled to zero" in html
    assert "No workers, none needed." in html
    assert "No decisions in this range" in html


def test_a_busy_pool_shows_workers_decisions_policy_and_where_the_hour_went(now):
    rows.busy_world(now)
    html = rows.look(signed_in("account"), "/ops/fleet/pools/l40s-image/")
    for text in ("2 idle", "+1 worker", "−1 worker", "Held back", "Wanted +1, held by: maximum of 8.", "1 to 8 workers", "Idle", "product-shot", "queue 9"):
        assert text in html, text
    assert "saves $0.86/h" in html


@pytest.mark.parametrize(
    ("loading", "shown"),
    [
        ({"done_bytes": 1_250_000_000, "total_bytes": 4 * 10**9}, True),
        ({"done_bytes": 2, "total_bytes": 1}, False),
        ({"done_bytes": "<b>"}, False),
        ("text", False),
        (None, False),
    ],
)
def test_a_worker_that_fetches_models_says_how_far_it_is(now, loading, shown):
    pool = factories.make_pool(now=now, slug="loading")
    worker = factories.make_worker(pool, now=now, state="busy", usage={"store": {"loading": loading}})
    made = work_rows.workflow(now=now, slug="big-model", pool=pool)
    work_rows.job(factories.make_customer(now=now), made, now=now, status="running", worker=worker)
    html = rows.look(signed_in("viewer"), "/ops/fleet/pools/loading/")
    assert ("fetching models, 1.25 GB of 4 GB" in html) is shown, html[html.find("big-model") :][:400]


def test_decisions_are_filtered_by_the_address_and_the_csv_matches(now):
    pool, *_ = rows.busy_world(now)
    client = signed_in("viewer")
    html = rows.look(client, "/ops/fleet/pools/l40s-image/?decisions=held")
    assert "Held at the maximum." in html
    assert "9 jobs wait for 4 workers." not in html
    lines = rows.read_csv(client.get("/ops/fleet/pools/l40s-image/decisions.csv?decisions=held"))
    assert [line["reason"] for line in lines] == ["Held at the maximum."]
    assert "cost_change_usd_per_hour" not in lines[0]
    empty = rows.look(client, "/ops/fleet/pools/l40s-image/?decisions=up&from=2020-01-01&to=2020-01-02")
    assert "No decisions match" in empty


def test_a_thousand_decisions_are_paged_by_cursor_without_gaps(now):
    pool = factories.make_pool(now=now, slug="p")
    same = {"pool": pool, "last_seen_at": now, "action": "hold", "wanted": 0, "applied": 0, "inputs": {}, "policy": "seed-rule", "epoch": 1}
    made = [ScalingDecision(at=now - timedelta(seconds=i), reason=f"Reason {i}.", **same) for i in range(1000)]
    ScalingDecision.objects.bulk_create(made)
    client = signed_in("viewer")
    first = rows.look(client, "/ops/fleet/pools/p/?decisions=")
    assert "Reason 11." in first and "Reason 12." not in first
    follow = first.split('rel="next"')[0].rsplit('href="', 1)[1].split('"')[0].replace("&amp;", "&")
    second = rows.look(client, f"/ops/fleet/pools/p/{follow}")
    assert "Reason 12." in second and "Reason 11." not in second
    assert rows.look(client, "/ops/fleet/pools/p/?cursor=nonsense")


def test_a_hundred_workers_stay_within_the_budget(now):
    pool = factories.make_pool(now=now, slug="big", max=200)
    for _ in range(100):
        factories.make_worker(pool, now=now)
    client = signed_in("admin")
    html = rows.look(client, "/ops/fleet/pools/big/")
    assert "12 shown of 100" in html and "Show 48 more" in html
    everybody = rows.look(client, "/ops/fleet/pools/big/?all=1")
    assert "60 shown of 100" in everybody


def test_one_part_failing_leaves_the_rest(now, monkeypatch):
    rows.busy_world(now)
    monkeypatch.setattr(queries_capacity, "spend", lambda *_, **__: 1 / 0)
    html = rows.look(signed_in("viewer"), "/ops/fleet/pools/l40s-image/")
    assert "The last hour did not load" in html
    assert "Scaling decisions" in html


def test_an_unknown_pool_is_a_page_with_a_search_box(now):
    html = rows.look(signed_in("viewer"), "/ops/fleet/pools/nope/", status=404)
    assert "There is no pool called nope." in html
    assert 'value="nope"' in html


def test_where_the_hour_went_is_the_rows_of_the_worker_hours(now):
    pool, *_ = rows.busy_world(now)
    worker_hours.recompute(now=now)
    html = rows.look(signed_in("account"), "/ops/fleet/pools/l40s-image/")
    spent = queries_capacity.spend(start=now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=1), end=now, pool_id=pool.id)[pool.id]
    assert spent.total_ms > 0
    assert f"of {numbers.usd(spent.total_microusd)}." in html


# -- actions ---------------------------------------------------------------------------------------


def test_adding_a_pool_is_audited_and_needs_the_fleet_role(now):
    body = {"slug": "default", "name": "", "provider": "local", "base": "1", "maximum": "3", "price": "0.86", "gpu": "L40S"}
    assert signed_in("operator").post("/ops/fleet/new/", body).status_code == 403
    response = signed_in("fleet").post("/ops/fleet/new/", body)
    assert response["Location"] == "/ops/fleet/pools/default/"
    pool = Pool.objects.get()
    assert (pool.base, pool.max, pool.price_per_hour_microusd, pool.gpu) == (1, 3, 860_000, "L40S")
    assert AuditEntry.objects.get(action="pool.create").object_id == "default"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("slug", "No Spaces", "Use small letters"),
        ("slug", "taken", "already a pool called taken"),
        ("base", "many", "whole number"),
        ("base", "5", "at least the minimum"),
        ("maximum", "100000", "at most 1,000"),
        ("price", "cheap", "must be dollars"),
        ("price", "-1", "cannot be negative"),
        ("provider", "moon", "no provider"),
    ],
)
def test_a_pool_that_cannot_be_is_refused_beside_its_field_and_what_was_typed_is_kept(now, field, value, says):
    factories.make_pool(now=now, slug="taken")
    body = {"slug": "fresh", "name": "Kept name", "provider": "local", "base": "1", "maximum": "3", "price": "0", "gpu": "cpu"} | {field: value}
    response = signed_in("fleet").post("/ops/fleet/new/", body)
    assert response.status_code == 422
    assert says in response.content.decode()
    assert "Kept name" in response.content.decode()
    assert Pool.objects.count() == 1


def test_changing_the_bounds_is_audited_with_before_and_after(now):
    factories.make_pool(now=now, slug="p", base=1, max=2)
    body = {"base": "2", "maximum": "9", "policy": "threshold", "threshold.queue_per_worker": "1.5", "threshold.idle_s": "300", "reason": "Friday"}
    assert signed_in("fleet").post("/ops/fleet/pools/p/edit/", body)["Location"] == "/ops/fleet/pools/p/"
    entry = AuditEntry.objects.get(action="pool.change")
    assert (entry.before["max"], entry.after["max"], entry.reason) == (2, 9, "Friday")


@pytest.mark.parametrize(
    "wrong",
    [
        {"base": "9", "maximum": "2"},
        {"base": "-1"},
        {"base": "many"},
        {"maximum": "1e99"},
        {"policy": "moon"},
        {"policy": "threshold", "threshold.queue_per_worker": "nan"},
        {"policy": "threshold", "threshold.idle_s": "-1"},
        {"target_s": "0"},
        {"target_share": "100"},
        {"price": "-1"},
        {"budget_hour": "cheap"},
        {"budget_day": "-5"},
        {"on_demand": "101"},
        {"forecast_base": "7"},
        {"start_s": "1"},
    ],
)
def test_terms_that_cannot_be_change_nothing_and_are_named_beside_their_field(now, wrong):
    factories.make_pool(now=now, slug="p", base=1, max=2)
    body = {"base": "1", "maximum": "2", "reason": "Kept words"} | wrong
    response = signed_in("fleet", "account").post("/ops/fleet/pools/p/edit/", body)
    html = response.content.decode()
    assert response.status_code == 422
    assert 'class="hint bad b"' in html and "Kept words" in html
    field = list(wrong)[-1]
    assert field == "policy" or re.search(rf'name="{re.escape(field)}"[^>]*aria-invalid="true"', html)
    assert not AuditEntry.objects.exists()


def test_resuming_a_halted_pool_needs_the_role_and_says_what_happens(now):
    Pool.objects.filter(id=factories.make_pool(now=now, slug="p").id).update(halted_at=now, halted_reason="A crash loop.")
    viewer, keeper = signed_in("viewer"), signed_in("fleet")
    assert "Resuming needs the fleet role" in rows.look(viewer, "/ops/fleet/pools/p/")
    assert viewer.post("/ops/fleet/pools/p/resume/").status_code == 403
    assert Pool.objects.get().halted_at is not None
    said = keeper.post("/ops/fleet/pools/p/resume/", follow=True).content.decode()
    assert "p orders workers again" in said
    assert Pool.objects.get().halted_at is None
    assert "is not stopped" in keeper.post("/ops/fleet/pools/p/resume/", follow=True).content.decode()


def test_draining_a_worker_is_done_once_for_one_form(now):
    pool = factories.make_pool(now=now, slug="p")
    worker = factories.make_worker(pool, now=now)
    keeper = signed_in("operator")
    for _ in range(2):
        response = keeper.post(f"/ops/fleet/workers/{worker.id}/drain/", {"once": "abc"}, follow=True)
    assert "That was done already" in response.content.decode()
    assert Worker.objects.get().state == "draining"
    assert AuditEntry.objects.filter(action="worker.drain").count() == 1
    assert signed_in("viewer").post(f"/ops/fleet/workers/{worker.id}/drain/").status_code == 403


def test_actions_do_not_answer_get(now):
    factories.make_pool(now=now, slug="p")
    assert signed_in("admin").get("/ops/fleet/pools/p/resume/").status_code == 405


def test_the_fleet_csv_has_raw_numbers(now):
    rows.busy_world(now)
    line = rows.read_csv(signed_in("account").get("/ops/fleet.csv"))[0]
    assert (line["pool"], line["ready"], line["max"], line["cost_usd_per_hour"]) == ("l40s-image", "2", "8", "7.20")


def test_a_pool_saves_nothing_before_it_was_there(now):
    factories.make_pool(now=now - timedelta(minutes=1), slug="young", base=0, max=4, price_per_hour_microusd=1_000_000)
    CapacityMinute.objects.create(pool=Pool.objects.get(), minute=now.replace(second=0, microsecond=0), ready=0)
    html = rows.look(signed_in("account"), "/ops/fleet/pools/young/?from=-24h&to=now")
    saved = float(re.search(r"saved \$([\d.]+) in this range", html)[1])
    assert 0 < saved < 4, "it has been there for one step of the range at most, not for 24 hours of four workers"
