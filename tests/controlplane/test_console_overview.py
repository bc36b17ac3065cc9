"""The overview: a fresh installation, all well, trouble of every kind, and one part failing."""

from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.console import changes
from controlplane.kernel import audit
from controlplane.kernel.models import AuditEntry, LoopLease, OutboxEntry
from fleet import queries_traffic
from fleet.models import MinuteRollup, Pool
from tests import factories
from tests.controlplane import shell_rows as rows
from tests.controlplane import work_rows
from tests.staff import signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def now():
    return timezone.now()


def test_a_fresh_installation_shows_four_steps_with_working_links():
    client = signed_in("admin")
    html = rows.look(client, "/ops/")
    assert "4 steps to your first job" in html
    for step, href in (("Add a pool", "/ops/fleet/new/"), ("Upload a workflow", "/ops/workflows/import/"), ("Create a customer", "/ops/customers/new/")):
        assert step in html
        assert f'href="{href}"' in html
        assert client.get(href).status_code == 200


def test_a_step_that_is_done_gets_a_tick(now):
    factories.make_pool(now=now)
    html = rows.look(signed_in("viewer"), "/ops/")
    assert "3 steps to your first job" in html
    assert html.count('class="done"') == 1


def test_all_well_says_so_and_when_a_job_last_failed(now):
    rows.busy_world(now, jobs=3)
    html = rows.look(signed_in("viewer"), "/ops/")
    assert "<h1>All good: jobs flow and every loop runs</h1>" in html
    assert "Nothing needs you" in html
    assert "All good" in html.split("</title>")[0]


def test_the_numbers_of_the_range_are_those_of_the_rollups(now):
    rows.busy_world(now, jobs=12)
    html = rows.look(signed_in("viewer"), "/ops/")
    assert "75%" in html and "3 failed" in html
    assert "12 jobs ended" in html
    earlier = rows.look(signed_in("operator"), "/ops/?from=-30d&to=-29d")
    assert "no jobs" in earlier


@pytest.mark.parametrize(
    ("trouble", "headline"),
    [
        ("halted", "Degraded: l40s-image is halted"),
        ("queue", "Degraded: the l40s-image queue is slow"),
        ("loop", "Working, but the autoscale loop stands still"),
        ("webhook", "Working, but webhooks were given up"),
        ("limit", "Working, but Harbor is near its limit"),
        ("full", "Degraded: Harbor is near its limit"),
    ],
)
def test_each_trouble_is_named_in_the_headline_and_the_list(now, trouble, headline):
    pool, _, who, made = rows.busy_world(now, jobs=3)
    if trouble == "halted":
        Pool.objects.update(halted_at=now, halted_reason="3 workers died.")
    if trouble == "queue":
        work_rows.job(who, made, now=now, created=now - timedelta(minutes=4))
    if trouble == "loop":
        LoopLease.objects.create(name="autoscale", every_s=1, ticked_at=now - timedelta(minutes=9), last_error="database is locked")
    if trouble == "webhook":
        OutboxEntry.objects.create(topic="webhook", key="a", state="dead", due_at=now, created_at=now, ended_at=now)
    if trouble in ("limit", "full"):
        rows.spent(who, 850_000_000 if trouble == "limit" else 999_000_000, now=now)
    html = rows.look(signed_in("viewer"), "/ops/")
    assert headline in html
    assert "Nothing needs you" not in html


def test_a_controller_that_stands_still_is_one_trouble_and_the_worst(now):
    rows.busy_world(now)
    LoopLease.objects.all().delete()
    for name, every_s in (("autoscale", 1.0), ("leases", 1.0), ("worker-logs", 30.0)):
        LoopLease.objects.create(name=name, every_s=every_s, ticked_at=now - timedelta(seconds=75))
    html = rows.look(signed_in("viewer"), "/ops/")
    assert "Degraded: the controller does not work" in html
    assert "no lost job is put back" in html and "The leases loop" not in html


def test_what_changed_is_said_in_sentences_that_lead_to_the_thing(now):
    rows.busy_world(now)
    for action, kind, name, after, said in (
        ("channel.promote", "workflow", "paint", {"channel": "production", "version": 3}, "paint runs v3 in production"),
        ("version.create", "version", "01a1fd46-ad0b-710b-9b04-29736561729d", {"workflow": "paint", "number": 3}, "paint v3 was imported"),
        ("channel.promote", "workflow", "odd{0}", {}, "workflow odd{0}: promote"),
        ("emergency.end.raise", "pool", "odd{0}", {}, "An emergency measure on odd{0} was ended"),
        ("made.up", "thing", "x", {}, "thing x: up"),
    ):
        audit.record(actor="ada", action=action, object_type=kind, object_id=name, after=after, now=now)
        entry = AuditEntry.objects.latest("seq")
        assert changes.words(entry) == said
        assert changes.page_of(entry) == ("/ops/workflows/paint/" if "paint" in said else "")
    assert "paint v3 was imported" in rows.look(signed_in("viewer"), "/ops/")


def test_a_workflow_that_fails_often_is_named_with_its_share(now):
    rows.busy_world(now, jobs=8)
    html = rows.look(signed_in("viewer"), "/ops/")
    assert "Workflow failing" in html
    assert "2 of 8 jobs failed in the last hour" in html


def test_money_is_for_account_managers_only(now):
    rows.busy_world(now)
    assert "Cost per good job" not in rows.look(signed_in("operator"), "/ops/")
    assert "Cost per good job" in rows.look(signed_in("account"), "/ops/")


def test_one_part_failing_leaves_the_rest(now, monkeypatch):
    rows.busy_world(now)
    monkeypatch.setattr(queries_traffic, "failures", lambda **_: 1 / 0)
    html = rows.look(signed_in("viewer"), "/ops/")
    assert "The failures did not load" in html
    assert "Try again" in html
    assert "Traffic and queue wait" in html


def test_the_numbers_failing_leaves_what_needs_someone(now, monkeypatch):
    rows.busy_world(now)
    monkeypatch.setattr(queries_traffic, "traffic", lambda **_: 1 / 0)
    html = rows.look(signed_in("viewer"), "/ops/")
    assert "The numbers of this range did not load" in html
    assert "Needs you" in html


def test_long_names_and_huge_numbers_stay_escaped_and_whole(now):
    pool, _, who, _ = rows.busy_world(now, name=rows.LONG, jobs=2)
    type(who).objects.update(name=rows.XSS[:120])
    rows.spent(who, 999_900_000, now=now)
    Pool.objects.update(price_per_hour_microusd=9 * 10**15)
    MinuteRollup.objects.update(price_microusd=10**17, cost_microusd=10**16)
    html = rows.look(signed_in("admin"), "/ops/")
    assert rows.LONG in html
    assert "<script>alert" not in html


def test_a_fragment_is_small_has_an_etag_and_answers_304_when_nothing_changed(now, time_machine_now):
    rows.busy_world(now)
    client = signed_in("fleet")
    for path in ("/ops/", "/ops/fleet/", "/ops/fleet/pools/l40s-image/", "/ops/customers/", "/ops/customers/harbor/"):
        first = client.get(path, headers={"HX-Request": "true"})
        assert b"<html" not in first.content
        again = client.get(path, headers={"HX-Request": "true", "If-None-Match": first["ETag"]})
        assert (again.status_code, again.content) == (304, b""), path


@pytest.fixture
def time_machine_now(now):
    import time_machine

    with time_machine.travel(now, tick=False):
        yield now


def test_series_give_the_charts_of_the_same_range(now):
    rows.busy_world(now)
    client = signed_in("viewer")
    charts = {c["key"]: c for c in client.get("/ops/series.json?from=-6h&to=now").json()["charts"]}
    assert set(charts) == {"traffic", "waits"}
    for chart in charts.values():
        assert all(len(line["data"]) == len(chart["x"]) for line in chart["series"])
        assert len(chart["x"]) <= 2000
    failed = charts["traffic"]["series"][1]["data"]
    assert max(failed) > 0


def test_a_range_nobody_can_read_shows_the_default_and_says_so(now):
    rows.busy_world(now)
    html = rows.look(signed_in("viewer"), "/ops/?from=lunchtime")
    assert "“lunchtime” is not a time" in html
    assert "Last 24h" in html


def test_signed_out_people_are_sent_to_sign_in_and_customers_are_refused(client, django_user_model):
    assert client.get("/ops/")["Location"] == "/ops/login/?next=/ops/"
    client.force_login(django_user_model.objects.create_user("harbor-dev"))
    assert client.get("/ops/").status_code == 403


def test_signing_in_and_out(client, django_user_model):
    django_user_model.objects.create_user("priya", password="correct horse", is_staff=True)
    refused = client.post("/ops/login/", {"username": "priya", "password": "wrong"})
    assert "The name or the password is not right" in refused.content.decode()
    assert client.post("/ops/login/", {"username": "priya", "password": "correct horse"})["Location"] == "/ops/"
    assert client.get("/ops/").status_code == 200
    assert client.post("/ops/logout/")["Location"] == "/ops/login/"
    assert client.get("/ops/").status_code == 302


def test_a_redirect_after_sign_in_never_leaves_the_site(client, django_user_model):
    django_user_model.objects.create_user("priya", password="correct horse", is_staff=True)
    response = client.post("/ops/login/", {"username": "priya", "password": "correct horse", "next": "https://evil.example/"})
    assert response["Location"] == "/ops/"
