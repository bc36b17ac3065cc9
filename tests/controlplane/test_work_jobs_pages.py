"""The jobs page and the page of one job, in every state they can be in."""

import csv
import io
import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from builds.models import Version
from controlplane.kernel.ids import uuid7
from controlplane.kernel.models import AuditEntry
from fleet import queries_jobs
from fleet.models import Attempt, Job, Worker
from tests import factories
from tests.controlplane import work_rows as rows
from tests.staff import signed_in

pytestmark = pytest.mark.django_db
MOST_QUERIES, MOST_BYTES = 15, 120_000


@pytest.fixture
def now():
    return timezone.now()


@pytest.fixture
def world(now):
    made = rows.workflow(now=now)
    return made, factories.make_customer(now=now, slug="harbor"), factories.make_customer(now=now, slug="lumen")


def page(client, url, *, status=200, most=MOST_QUERIES):
    with CaptureQueriesContext(connection) as queries:
        response = client.get(url)
        html = response.content.decode()
    assert response.status_code == status, html[:300]
    assert len(queries) <= most, [q["sql"][:120] for q in queries]
    assert len(html) < MOST_BYTES
    return html


def read_csv(response):
    return list(csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode())))


def test_an_empty_list_says_what_will_appear_and_where_to_start():
    html = page(signed_in("operator"), "/ops/jobs/")
    assert "No jobs yet" in html
    assert "Run a workflow" in html
    assert "No job is waiting or running" in html


def test_a_list_of_every_state_names_each_in_words(world, now):
    made, harbor, _ = world
    for status in ("queued", "running", "succeeded", "failed", "canceled", "expired"):
        rows.job(harbor, made, now=now, status=status)
    html = page(signed_in("operator"), "/ops/jobs/")
    for word in ("Waiting", "Running", "Succeeded", "Failed", "Canceled", "Expired"):
        assert word in html
    assert "1 job running, 1 waiting" in html


def test_a_filter_that_matches_nothing_names_itself_and_what_is_outside(world, now):
    made, harbor, _ = world
    rows.job(harbor, made, now=now)
    html = page(signed_in("operator"), "/ops/jobs/?status=failed&customer=harbor")
    assert "2 filters are on: status is failed, customer is harbor" in html
    assert "1 job is outside" in html
    assert "Clear filters" in html


def test_pages_of_fifty_follow_each_other_without_gap_or_repeat(world, now):
    made, harbor, _ = world
    first = rows.job(harbor, made, now=now)
    template = Job.objects.get(id=first.id)
    for _ in range(119):
        template.id = uuid7()
        template.save(force_insert=True)
    client, seen, url = signed_in("operator"), [], "/ops/jobs/"
    for _ in range(5):
        response = client.get(url)
        seen += [str(r.job.id) for r in response.context["rows"]]
        following = response.context["page"].next
        if not following:
            break
        url = f"/ops/jobs/{following}"
    assert len(seen) == len(set(seen)) == 120
    assert seen == sorted(seen, reverse=True)
    page(client, "/ops/jobs/")


def test_a_live_fragment_keeps_its_rows_and_counts_what_is_new(world, now):
    made, harbor, _ = world
    old = rows.job(harbor, made, now=now, status="succeeded", created=now - timedelta(hours=3))
    client = signed_in("operator")
    live = client.get("/ops/jobs/").context["rows_url"]
    new = [rows.job(harbor, made, now=now) for _ in range(3)]
    answer = client.get(live, headers={"HX-Request": "true"})
    html = answer.content.decode()
    assert "3 new, show" in html
    assert str(old.id) in html
    assert all(str(job.id) not in html for job in new)
    assert "<html" not in html
    assert client.get(live, headers={"HX-Request": "true", "If-None-Match": answer["ETag"]}).status_code == 304


def test_the_export_holds_exactly_the_jobs_of_the_filter(world, now):
    made, harbor, lumen = world
    wanted = {str(rows.job(harbor, made, now=now, status="failed").id) for _ in range(3)}
    rows.job(lumen, made, now=now, status="failed")
    rows.job(harbor, made, now=now, status="succeeded")
    client = signed_in("account")
    response = client.get("/ops/jobs/?status=failed&customer=harbor")
    exported = read_csv(client.get(response.context["csv"]))
    assert {line["id"] for line in exported} == wanted
    line = exported[0]
    assert line["created_at"].endswith("Z")
    assert (line["wait_s"], line["run_s"], line["price_usd"], line["cost_usd"]) == ("1.5", "8.0", "0.00", "0.0036")
    assert line["error_code"] == "node_failed"


def test_money_columns_are_for_account_managers(world, now):
    made, harbor, _ = world
    job = rows.job(harbor, made, now=now, status="succeeded")
    seen, hidden = signed_in("account"), signed_in("operator")
    assert "$0.0120" in page(seen, "/ops/jobs/")
    assert "$0.0120" in page(seen, f"/ops/jobs/{job.id}/")
    for url in ("/ops/jobs/", f"/ops/jobs/{job.id}/", "/ops/workflows/", "/ops/workflows/boat/"):
        assert not re.search(r"\$\d", page(hidden, url))
    head = next(iter(hidden.get("/ops/jobs/export.csv").streaming_content)).decode()
    assert "usd" not in head


def test_a_cell_that_would_run_in_a_spreadsheet_does_not(world, now):
    made, harbor, _ = world
    rows.job(harbor, made, now=now, status="failed", error={"code": "=cmd()", "message": "x"})
    [line] = read_csv(signed_in("operator").get("/ops/jobs/export.csv"))
    assert line["error_code"] == "'=cmd()"


def test_the_search_opens_a_job_by_its_id_and_by_its_first_digits(world, now):
    made, harbor, _ = world
    job = rows.job(harbor, made, now=now)
    client = signed_in("operator")
    for text in (str(job.id), str(job.id).replace("-", ""), str(job.id)[:20]):
        assert client.get("/ops/jobs/", {"q": text})["Location"] == f"/ops/jobs/{job.id}/"
    for text in ("nothing-like-it", "ffffffffffff", "'; drop table", "\x00"):
        assert "No job has the id" in client.get("/ops/jobs/", {"q": text}).content.decode()


@pytest.mark.parametrize("query", ["cursor=xyz", "from=never", "from=-9999999w", "top=1", "status=%00", "customer=%3Cscript%3E", "page=9"])
def test_nonsense_in_the_address_still_shows_a_page(query):
    assert "<script>alert" not in page(signed_in("operator"), f"/ops/jobs/?{query}")


def test_the_range_bounds_the_list_at_both_ends(world, now):
    made, harbor, _ = world
    old = rows.job(harbor, made, now=now, created=now - timedelta(days=3))
    new = rows.job(harbor, made, now=now)
    client = signed_in("operator")
    shown = lambda query: {str(r.job.id) for r in client.get(f"/ops/jobs/?{query}").context["rows"]}  # noqa: E731
    assert shown("from=-24h&to=now") == {str(new.id)}
    assert shown("from=-7d&to=now") == {str(new.id), str(old.id)}
    assert shown("from=-7d&to=-2d") == {str(old.id)}


@pytest.mark.parametrize("status", ["queued", "running", "succeeded", "failed", "canceled", "expired"])
def test_a_job_of_any_state_has_a_page_with_its_word(world, now, status):
    made, harbor, _ = world
    job = rows.job(harbor, made, now=now, status=status)
    html = page(signed_in("admin"), f"/ops/jobs/{job.id}/")
    word = {"queued": "Waiting", "running": "Running"}.get(status, status.capitalize())
    assert f">{word}<" in html.replace("</svg>", ">")
    assert ("hx-get" in html) == (status in ("queued", "running"))


def test_a_failure_says_what_to_do_whose_fault_it_was_and_that_it_was_not_billed(world, now):
    made, harbor, _ = world
    html = page(signed_in("operator"), f"/ops/jobs/{rows.job(harbor, made, now=now, status='failed').id}/")
    for said in ("It broke.", "Mend it.", "node_failed", "Ours: the workflow failed on valid inputs", "Not billed."):
        assert said in html


def test_what_a_customer_wrote_stays_hidden_until_somebody_who_may_asks_and_that_is_written_down(world, now):
    made, harbor, _ = world
    job = rows.job(harbor, made, now=now, inputs={"prompt": "a very private wish", "width": 640, "mode": "fast", "tile": True})
    url = f"/ops/jobs/{job.id}/"
    operator = signed_in("operator")
    html = page(operator, url)
    assert "private wish" not in html
    assert "hidden, 19 characters" in html
    assert ">640<" in html
    assert ">fast<" in html
    assert "private wish" not in signed_in("viewer").post(f"{url}inputs/").content.decode()
    assert not AuditEntry.objects.exists()
    assert "a very private wish" in operator.post(f"{url}inputs/").content.decode()
    [entry] = AuditEntry.objects.all()
    assert (entry.action, entry.actor, entry.object_id) == ("job.inputs_read", "ops-operator", str(job.id))
    assert operator.get(f"{url}inputs/").status_code == 405


def test_the_parts_of_the_bar_add_up_to_the_whole(world, now):
    made, harbor, _ = world
    job = rows.job(harbor, made, now=now, status="succeeded")
    spans = queries_jobs.spans(job, list(job.attempts.all()), titles={"1": "Empty", "2": "Blur"}, now=now)
    assert sum(s.seconds for s in spans) == pytest.approx((job.finished_at - job.created_at).total_seconds())
    assert [(s.kind, s.label) for s in spans] == [
        ("wait", "Wait"),
        ("start", "Start"),
        ("run", "Empty"),
        ("run", "Blur"),
        ("upload", "Upload"),
        ("other", "Other"),
    ]


def test_fetching_models_has_its_part_of_the_bar(now):
    job = Job(created_at=now, finished_at=now + timedelta(seconds=9), status="succeeded")
    attempt = Attempt(number=1, worker=Worker(name="w"), claimed_at=now, ended_at=job.finished_at, timings={"models_s": 6.0, "run_s": 2.0}, nodes=[])
    assert next((s.kind, s.label, s.seconds) for s in queries_jobs.spans(job, [attempt], titles={}, now=now)) == ("load", "Fetch models", 6.0)


def test_a_second_attempt_shows_the_time_the_first_one_lost(world, now):
    made, harbor, _ = world
    job = rows.job(harbor, made, now=now, status="succeeded")
    first = job.attempts.get()
    Attempt.objects.filter(id=first.id).update(state="lost")
    Attempt.objects.create(
        job=job,
        number=2,
        worker=first.worker,
        state="succeeded",
        claimed_at=first.claimed_at + timedelta(seconds=3),
        ended_at=first.ended_at,
        timings={"run_s": 2},
    )
    spans = queries_jobs.spans(job, list(job.attempts.order_by("number")), titles={}, now=now)
    assert ("lost", 3.0) in [(s.kind, s.seconds) for s in spans]
    assert sum(s.seconds for s in spans) == pytest.approx(9.5)


@pytest.mark.parametrize("nodes", [[], None, "text", [1, "x", None], [{"node": 1}], [{"node": "1", "run_s": float("inf")}], [{"run_s": -4, "node": "<b>"}]])
@pytest.mark.parametrize("timings", [{}, [], {"run_s": "fast", "load_s": None}, {"run_s": -1, "upload_s": True}])
def test_whatever_a_worker_reports_the_page_stands(nodes, timings, now):
    job = Job(created_at=now, finished_at=now + timedelta(seconds=5), status="succeeded")
    attempt = Attempt(number=1, worker=Worker(name="w"), claimed_at=now, ended_at=now, timings=timings, nodes=nodes)
    spans = queries_jobs.spans(job, [attempt], titles={}, now=now)
    assert all(s.seconds >= 0 for s in spans)


def test_outputs_show_by_kind_with_what_was_measured(world, now):
    made, harbor, _ = world
    job = rows.job(harbor, made, now=now, status="succeeded")
    rows.output(job)
    rows.output(job, name="tone.flac", kind="audio", media_type="audio/flac", body=b"fLaC", index=1, width=None, height=None, duration_s=2.5)
    rows.output(job, name="clip.mp4", kind="video", media_type="video/mp4", body=b"mp4", index=2)
    rows.output(job, name="said.txt", kind="text", media_type="text/plain", body=rows.XSS.encode(), index=3, measurements={})
    rows.output(job, name="page.html", kind="file", media_type="text/html", body=b"<h1>x</h1>", index=4, measurements={})
    html = page(signed_in("viewer"), f"/ops/jobs/{job.id}/")
    for said in ("<img src=", "<audio controls", "<video controls", "32 × 24", "flat colour", "12.5", "ffd8", "2.5 s", "&lt;script&gt;alert"):
        assert said in html
    assert "<script>alert" not in html


def test_an_output_is_served_safely_with_ranges_and_only_under_its_own_job(world, now):
    made, harbor, _ = world
    job, other = rows.job(harbor, made, now=now, status="succeeded"), rows.job(harbor, made, now=now, status="succeeded")
    kept = rows.output(job, body=b"0123456789", name="evil.html", media_type="text/html", kind="file")
    client = signed_in("viewer")
    url = f"/ops/jobs/{job.id}/outputs/{kept.id}"
    response = client.get(url, headers={"Range": "bytes=2-4"})
    assert (response.status_code, b"".join(response.streaming_content)) == (206, b"234")
    assert response["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert response["Content-Disposition"].startswith("attachment")
    assert client.get(f"/ops/jobs/{other.id}/outputs/{kept.id}").status_code == 404
    assert Client().get(url).status_code == 302


def test_canceling_needs_the_role_and_is_written_down(world, now):
    made, harbor, _ = world
    job = rows.job(harbor, made, now=now)
    assert signed_in("viewer").post(f"/ops/jobs/{job.id}/cancel/").status_code == 403
    job.refresh_from_db()
    assert job.status == "queued"
    assert signed_in("operator").post(f"/ops/jobs/{job.id}/cancel/").status_code == 302
    job.refresh_from_db()
    assert job.status == "canceled"
    assert AuditEntry.objects.get().action == "job.cancel"


def test_canceling_what_is_over_says_so_and_changes_nothing(world, now):
    made, harbor, _ = world
    job = rows.job(harbor, made, now=now, status="succeeded")
    html = signed_in("operator").post(f"/ops/jobs/{job.id}/cancel/", follow=True).content.decode()
    assert "already succeeded" in html
    assert not AuditEntry.objects.exists()


def test_a_retry_is_a_new_job_once_even_when_sent_twice(world, now):
    made, harbor, _ = world
    job = rows.job(harbor, made, now=now, status="failed")
    client = signed_in("operator")
    first = client.post(f"/ops/jobs/{job.id}/retry/", {"once": "abc"})
    assert client.post(f"/ops/jobs/{job.id}/retry/", {"once": "abc"})["Location"] == f"/ops/jobs/{job.id}/"
    new = Job.objects.exclude(id=job.id).get()
    assert first["Location"] == f"/ops/jobs/{new.id}/"
    assert (new.source, new.metadata, new.inputs) == ("console", {"retry_of": str(job.id)}, job.inputs)
    assert str(job.id) in page(client, f"/ops/jobs/{new.id}/")


def test_the_curl_of_a_job_leaves_the_customers_words_out(world, now):
    made, harbor, _ = world
    job = rows.job(harbor, made, now=now, inputs={"prompt": "it's private", "width": 640})
    html = page(signed_in("operator"), f"/ops/jobs/{job.id}/")
    assert "private" not in html
    assert "&lt;prompt&gt;" in html
    assert "As curl" not in page(signed_in("viewer"), f"/ops/jobs/{job.id}/")


def test_hostile_and_long_names_are_escaped_everywhere(world, now):
    made, harbor, _ = world
    harbor.name = (rows.XSS + "n" * 200)[:120]
    harbor.save(update_fields=["name"])
    error = {"code": rows.XSS, "message": rows.XSS, "suggestion": rows.XSS, "details": {"x": rows.XSS}}
    worker = factories.make_worker(factories.make_pool(now=now), now=now)
    worker.name = "<b>" + "w" * 50
    worker.save(update_fields=["name"])
    job = rows.job(
        harbor,
        made,
        now=now,
        status="failed",
        error=error,
        worker=worker,
        node=rows.XSS[:100],
        inputs={rows.XSS: rows.XSS, "width": 10**30},
        metadata={"retry_of": rows.XSS},
    )
    rows.output(job, name=rows.XSS, kind="file", media_type="application/x-thing", body=b"x")
    client = signed_in("admin")
    for url in ("/ops/jobs/", f"/ops/jobs/{job.id}/", "/ops/workflows/boat/jobs/"):
        html = page(client, url)
        assert "<script>alert" not in html
        assert "<img src=x" not in html
        assert "<b>w" not in html
    shown = client.post(f"/ops/jobs/{job.id}/inputs/").content.decode()
    assert "<script>alert" not in shown
    assert "1000000000000000000000000000000" in shown


def test_zero_and_huge_numbers_read_well(world, now):
    made, harbor, _ = world
    job = rows.job(harbor, made, now=now, status="succeeded", price_microusd=49_999_999_999, cost_microusd=0, billable_s=0.0)
    html = page(signed_in("admin"), f"/ops/jobs/{job.id}/")
    assert "$49,999" in html or "$50,000.00" in html
    assert "$0.00" in html


def test_an_unknown_job_is_not_found_and_a_stranger_signs_in(client):
    assert signed_in("viewer").get(f"/ops/jobs/{factories.some_id()}/").status_code == 404
    for url in ("/ops/jobs/", "/ops/jobs/export.csv", f"/ops/jobs/{factories.some_id()}/"):
        assert client.get(url)["Location"].startswith("/ops/login/")


def test_a_version_is_never_read_whole_by_the_list(world, now):
    made, harbor, _ = world
    rows.job(harbor, made, now=now)
    with CaptureQueriesContext(connection) as queries:
        signed_in("operator").get("/ops/jobs/")
    assert not any('"graph"' in q["sql"] for q in queries)
    assert Version.objects.exists()
