"""Customers, their keys, the audit trail and search, in every state and for every role."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from billing import keys
from billing.models import ApiKey, Customer, Plan, UsageEntry
from controlplane.kernel.models import AuditEntry
from fleet.models import Job, MinuteRollup
from tests import factories
from tests.controlplane import shell_rows as rows
from tests.staff import signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def now():
    return timezone.now()


def test_no_customers_says_what_one_is():
    html = rows.look(signed_in("account"), "/ops/customers/")
    assert "No customers yet" in html
    assert "/ops/customers/new/" in html


def test_the_headline_says_who_is_near_a_limit_and_who_fails(now):
    _, _, who, _ = rows.busy_world(now, jobs=24)
    rows.spent(who, 850_000_000, now=now)
    html = rows.look(signed_in("viewer"), "/ops/customers/")
    assert "<h1>1 customer with too many failures, 1 near its limit</h1>" in html
    assert "6 jobs failed: look at the causes" in html
    assert "85%" in html


def test_money_columns_are_for_account_managers_only(now):
    rows.busy_world(now)
    for path in ("/ops/customers/", "/ops/customers/harbor/"):
        assert "Revenue" not in rows.look(signed_in("operator"), path)
    for path in ("/ops/customers/", "/ops/customers/harbor/"):
        assert "Revenue" in rows.look(_account(), path)
    assert "revenue_usd" not in rows.read_csv(signed_in("fleet").get("/ops/customers.csv"))[0]
    assert rows.read_csv(_account().get("/ops/customers.csv"))[0]["revenue_usd"] == "0.108"


def _account():
    return signed_in("account")


def test_two_hundred_customers_are_paged_sorted_and_filtered_by_the_address(now):
    plan = factories.make_plan(now=now)
    made = [Customer(slug=f"c-{i:03d}", name=f"Customer {i:03d}", plan_revision=plan, created_at=now) for i in range(200)]
    Customer.objects.bulk_create(made)
    client = _account()
    first = rows.look(client, "/ops/customers/?sort=name")
    assert "Customer 049" in first and "Customer 050" not in first
    assert 'aria-sort="ascending"' in first
    follow = first.split('rel="next"')[0].rsplit('href="', 1)[1].split('"')[0].replace("&amp;", "&")
    second = rows.look(client, f"/ops/customers/{follow}")
    assert "Customer 050" in second and "Customer 049" not in second
    one = rows.look(client, "/ops/customers/?q=customer+077")
    assert "1 of 200 customers" in one
    assert len(rows.read_csv(client.get("/ops/customers.csv?q=customer+077"))) == 1
    none = rows.look(client, "/ops/customers/?q=nobody&show=near")
    assert "200 customers are outside them" in none and "Clear filters" in none


def test_a_customer_without_anything_says_what_will_appear(now):
    factories.make_customer(now=now, slug="fresh")
    html = rows.look(_account(), "/ops/customers/fresh/")
    for text in ("No keys yet", "No run times yet", "No failures", "no jobs"):
        assert text in html


def test_failures_say_whose_fault_they_are(now):
    rows.busy_world(now, jobs=8)
    failed = Job.objects.filter(status="failed")
    failed.filter(id=failed.first().id).update(failure_class="platform", error={"code": "out_of_memory", "message": rows.XSS})
    html = rows.look(_account(), "/ops/customers/harbor/")
    assert "out_of_memory" in html and "Ours" in html
    assert "node_failed" in html and "Workflow" in html
    assert "<script>alert" not in html


def test_zero_and_huge_numbers_and_long_names_show(now):
    _, _, who, _ = rows.busy_world(now)
    Customer.objects.update(name="W" * 120)
    MinuteRollup.objects.update(price_microusd=9 * 10**16, cost_microusd=0, succeeded=2_000_000_000)
    html = rows.look(_account(), "/ops/customers/harbor/")
    assert "W" * 120 in html
    assert "24,000,000,003" in html


def test_the_ledger_csv_adds_up_and_is_for_account_managers(now):
    _, _, who, _ = rows.busy_world(now, jobs=2)
    posting = {"customer_id": who.id, "plan_revision_id": who.plan_revision_id, "workflow_slug": "product-shot", "version_number": 1}
    job = Job.objects.first()
    line = UsageEntry(
        job_id=job.id, meter="job", quantity=Decimal(1), unit_price_microusd=Decimal(10_000), amount_microusd=10_000, outcome="succeeded", occurred_at=now,
        recorded_at=now, booked_at=now, period=f"{now:%Y-%m}", **posting,
    )  # fmt: skip
    line.save(force_insert=True)
    assert signed_in("operator").get("/ops/customers/harbor/usage.csv").status_code == 403
    lines = rows.read_csv(_account().get("/ops/customers/harbor/usage.csv?to=now&from=-1h"))
    assert [(line["meter"], line["amount_usd"]) for line in lines] == [("job", "0.01")]


# -- creating, plans, suspending -------------------------------------------------------------------


def test_the_first_customer_can_be_created_before_any_plan_exists(now):
    client = _account()
    assert "Starter (new)" in rows.look(client, "/ops/customers/new/")
    response = client.post("/ops/customers/new/", {"name": "Lumen Labs", "slug": "", "plan": "starter"})
    assert response["Location"] == "/ops/customers/lumen-labs/"
    assert Plan.objects.get().slug == "starter"
    assert AuditEntry.objects.get(action="customer.create").object_id == "lumen-labs"
    assert signed_in("operator").get("/ops/customers/new/").status_code == 403


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"name": ""}, "Write a name"),
        ({"name": "x" * 121}, "at most 120"),
        ({"slug": "Not A Slug"}, "small letters, digits and dashes"),
        ({"name": "例え", "slug": ""}, "Write a short name"),
        ({"plan": "999999"}, "Choose a plan"),
        ({"plan": "²"}, "Choose a plan"),
        ({"slug": "taken"}, "already a customer called taken"),
    ],
)
def test_a_customer_that_cannot_be_is_refused_beside_its_field(now, body, says):
    plan = factories.make_plan(now=now)
    factories.make_customer(now=now, slug="taken", plan=plan)
    response = _account().post("/ops/customers/new/", {"name": "Fresh", "slug": "", "plan": str(plan.id)} | body)
    assert response.status_code == 422
    assert says in response.content.decode()
    assert Customer.objects.count() == 1


def test_changing_the_plan_is_audited(now):
    who, other = factories.make_customer(now=now, slug="harbor"), factories.make_plan(now=now)
    said = _account().post("/ops/customers/harbor/plan/", {"plan": str(other.id), "reason": "On the call"}, follow=True).content.decode()
    assert f"is now on {other.plan.name}" in said
    who.refresh_from_db()
    assert who.plan_revision_id == other.id
    assert AuditEntry.objects.get(action="customer.plan").reason == "On the call"


def test_suspending_wants_the_name_typed_and_a_reason_and_reopening_undoes_it(now):
    who = factories.make_customer(now=now, slug="harbor")
    client = _account()
    wrong = client.post("/ops/customers/harbor/suspend/", {"confirm": "habor", "reason": ""})
    assert wrong.status_code == 422
    assert "exactly as it is written" in wrong.content.decode() and "Write why" in wrong.content.decode()
    assert "Suspended" in client.post("/ops/customers/harbor/suspend/", {"confirm": "harbor", "reason": "Fraud"}, follow=True).content.decode()
    who.refresh_from_db()
    assert who.status == "suspended"
    client.post("/ops/customers/harbor/reopen/")
    who.refresh_from_db()
    assert who.status == "active"
    assert signed_in("operator").post("/ops/customers/harbor/suspend/", {"confirm": "harbor", "reason": "x"}).status_code == 403


# -- keys ------------------------------------------------------------------------------------------


def test_a_key_is_shown_once_works_and_is_never_in_a_page_again(now):
    factories.make_customer(now=now, slug="harbor")
    client = _account()
    body = {"name": "catalog-prod", "scopes": ["jobs:read", "jobs:write"], "expires": "30", "once": "t1"}
    response = client.post("/ops/customers/harbor/keys/new/", body)
    html = response.content.decode()
    key = ApiKey.objects.get()
    secret = html.split('id="secret" readonly value="')[1].split('"')[0]
    assert keys.authenticate(secret, now=timezone.now()).id == key.id
    assert response["Cache-Control"] == "no-store"
    assert key.scopes == ["jobs:read", "jobs:write"]
    assert secret not in rows.look(client, "/ops/customers/harbor/")
    assert secret not in str(list(AuditEntry.objects.values()))
    again = client.post("/ops/customers/harbor/keys/new/", body, follow=True).content.decode()
    assert "shown only once" in again and ApiKey.objects.count() == 1


@pytest.mark.parametrize(("body", "says"), [({"name": ""}, "Write a name"), ({"scopes": []}, "at least one scope"), ({"expires": "7000"}, "when it expires")])
def test_a_key_that_cannot_be_is_refused(now, body, says):
    factories.make_customer(now=now, slug="harbor")
    response = _account().post("/ops/customers/harbor/keys/new/", {"name": "a", "scopes": ["jobs:read"], "expires": ""} | body)
    assert response.status_code == 422
    assert says in response.content.decode()
    assert not ApiKey.objects.exists()


def test_rotating_keeps_the_old_key_for_the_overlap(now):
    key, _ = factories.make_key(factories.make_customer(now=now, slug="harbor"), now=now)
    html = _account().post(f"/ops/keys/{key.id}/rotate/", {"overlap": "24"}).content.decode()
    assert "This is the only time the secret is shown" in html
    key.refresh_from_db()
    assert key.expires_at - timezone.now() < timedelta(hours=24)
    assert ApiKey.objects.get(rotated_from=key).name == key.name
    assert AuditEntry.objects.get(action="key.rotate").before == {"key": key.prefix}


def test_revoking_wants_the_name_typed(now):
    key, _ = factories.make_key(factories.make_customer(now=now, slug="harbor"), now=now)
    client = _account()
    assert client.post(f"/ops/keys/{key.id}/revoke/", {"confirm": "no"}).status_code == 422
    assert "is revoked" in client.post(f"/ops/keys/{key.id}/revoke/", {"confirm": "test"}, follow=True).content.decode()
    key.refresh_from_db()
    assert key.revoked_at is not None
    assert "Already revoked" in rows.look(client, f"/ops/keys/{key.id}/revoke/")
    assert "Only a working key can be rotated" in client.post(f"/ops/keys/{key.id}/rotate/", {"overlap": "1"}, follow=True).content.decode()
    for path in ("rotate", "revoke"):
        assert signed_in("operator").post(f"/ops/keys/{key.id}/{path}/").status_code == 403


# -- audit and search ------------------------------------------------------------------------------


def test_the_audit_log_filters_by_the_address_and_its_csv_matches(now):
    rows.busy_world(now)
    client = signed_in("viewer")
    html = rows.look(client, "/ops/audit/")
    assert "lena" in html and "Friday" in html and "<b>max</b>" in html
    none = rows.look(client, "/ops/audit/?actor=nobody&type=pool")
    assert "type is pool, actor is nobody" in none
    assert [e["action"] for e in rows.read_csv(client.get("/ops/audit.csv?type=pool&actor=lena"))] == ["pool.change"]
    assert "Nothing in this range" in rows.look(client, "/ops/audit/?from=2020-01-01&to=2020-01-02")


@pytest.mark.parametrize(
    ("text", "href"),
    [
        ("harbor", "/ops/customers/harbor/"),
        ("product", "/ops/workflows/product-shot/"),
        ("l40s", "/ops/fleet/pools/l40s-image/"),
        ("w-", "#w-"),
    ],
)
def test_search_finds_each_kind_of_object(now, text, href):
    rows.busy_world(now)
    html = signed_in("viewer").get(f"/ops/search/?q={text}", follow=True).content.decode()
    assert href in html


def test_an_exact_job_id_opens_at_once_and_eight_digits_find_it(now):
    rows.busy_world(now)
    job = Job.objects.first()
    client = signed_in("viewer")
    assert client.get(f"/ops/search/?q={job.id}")["Location"] == f"/ops/jobs/{job.id}/"
    assert str(job.id) in rows.look(client, f"/ops/search/?q={str(job.id)[:13]}")


def test_a_key_is_found_by_its_last_four(now):
    key, _ = factories.make_key(factories.make_customer(now=now, slug="harbor"), now=now)
    assert f"…{key.last4}" in rows.look(signed_in("viewer"), f"/ops/search/?q={key.last4}")


@pytest.mark.parametrize("text", ["%00", "%FF", "'; DROP TABLE", "<script>", "a" * 5000, "%25_", "%F0%9F%90%99"])
def test_odd_searches_find_nothing_and_break_nothing(now, text):
    html = rows.look(signed_in("viewer"), f"/ops/search/?q={text}")
    assert "<script>" not in html.replace("<script src", "").replace("<script type", "")


def test_searching_for_nothing_shows_where_to_go(now):
    rows.busy_world(now)
    html = rows.look(signed_in("viewer"), "/ops/search/")
    assert "<h1>Search</h1>" in html and "l40s-image" in html
