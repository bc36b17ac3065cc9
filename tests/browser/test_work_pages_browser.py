"""The work pages in a real Chromium: axe finds nothing in both themes and widths, the form runs a job that finishes before one's eyes."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.test import Client
from django.utils import timezone

from controlplane.kernel import blobs
from fleet import queue, rollups
from fleet.models import Job, Output
from tests import factories
from tests.controlplane import work_rows as rows
from tests.staff import member

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"], "resultTypes": ["violations"]}


@pytest.fixture
def now():
    return timezone.now()


@pytest.fixture
def world(now):
    """A workflow with a form, and a job in every state."""
    house = factories.make_customer(now=now, slug="console")
    made = rows.workflow(now=now)
    done = rows.job(house, made, now=now, status="succeeded", created=now - timedelta(hours=1))
    rows.output(done)
    failed = rows.job(house, made, now=now, status="failed", created=now - timedelta(hours=1))
    running = rows.job(house, made, now=now, status="running")
    rollups.recompute(now=now, since=now - timedelta(hours=2))
    return {"house": house, "workflow": made, "done": done, "failed": failed, "running": running}


def open_page(chromium, live_server, user, *, width=1440, theme="light"):
    """A page signed in as `user`; what the browser complains about is collected on it."""
    client = Client()
    client.force_login(user)
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": live_server.url}])
    page = context.new_page()
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.foreign = []
    page.on("request", lambda request: page.foreign.append(request.url) if not request.url.startswith((live_server.url, "data:", "blob:")) else None)
    return page


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing_on_any_work_page(chromium, live_server, world, width, theme):
    axe = Axe()
    page = open_page(chromium, live_server, member("admin"), width=width, theme=theme)
    paths = ["/ops/workflows/", "/ops/workflows/?q=nothing", "/ops/workflows/import/", "/ops/jobs/", "/ops/jobs/?status=expired"]
    paths += [f"/ops/workflows/boat/{tab}" for tab in ("", "?view=list", "api/", "versions/", "jobs/", "settings/")]
    paths += [f"/ops/jobs/{world[name].id}/" for name in ("done", "failed", "running")]
    paths += [f"/ops/workflows/boat/api/?job={world['done'].id}"]
    found = []
    for path in paths:
        page.goto(live_server.url + path)
        found += [(path, v["id"], [n["html"][:120] for n in v["nodes"][:2]]) for v in axe.run(page, options=RULES).response["violations"]]
        too_wide = page.evaluate("document.documentElement.scrollWidth") - width
        if too_wide > 0:
            found.append((path, "scrolls sideways", too_wide))
    assert not found
    assert not page.complaints
    assert not page.foreign
    page.context.close()


def test_the_form_runs_a_job_that_is_seen_to_finish_without_a_reload(chromium, live_server, world, now):
    page = open_page(chromium, live_server, member("operator"))
    page.goto(f"{live_server.url}/ops/workflows/boat/api/")
    page.fill("#f-in_width", "128")
    page.fill("#f-in_prompt", "a red boat")
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_selector("#result")
    assert page.input_value("#f-in_width") == "128"
    job = Job.objects.filter(status="queued").get()
    assert (job.inputs["width"], job.inputs["prompt"]) == (128, "a red boat")
    page.evaluate("window.stayed = true")
    page.get_by_text("next in line").wait_for()
    _finish(job)
    page.locator("#result img").wait_for(timeout=15_000)
    assert page.locator("#result .badge").first.inner_text().strip() == "Succeeded"
    page.locator("#result img").evaluate("image => image.decode()")
    assert page.locator("#result img").evaluate("image => image.naturalWidth") == 32
    assert page.evaluate("window.stayed") is True
    page.locator("#result-live:not([hx-get])").wait_for()
    assert not page.complaints
    page.context.close()


def _finish(job):
    """What a worker and the queue do with a job."""
    at = timezone.now()
    worker = factories.make_worker(job.pool, now=at)
    [held] = [a for a in queue.claim(worker, limit=10, now=at) if a.job_id == job.id]
    body = rows.png().read()
    blob = blobs.put(rows.png(), media_type="image/png", max_bytes=10**6, now=at)
    about = {"name": "o.png", "kind": "image", "media_type": "image/png", "size_bytes": len(body), "width": 32, "height": 24}
    Output.objects.create(job=job, attempt=held.attempt, index=0, blob=blob, created_at=at, **about)
    outputs = [{"index": 0, "sha256": hashlib.sha256(body).hexdigest(), "measurements": {"decodes": True}}]
    done = queue.Completion(outcome="succeeded", outputs=outputs, timings={"run_s": 0.4, "busy_s": 0.5}, nodes=[])
    queue.complete(worker, job_id=job.id, attempt=held.attempt, completion=done, now=timezone.now())


def test_a_wrong_value_takes_the_focus_to_the_summary_and_its_link_to_the_field(chromium, live_server, world):
    page = open_page(chromium, live_server, member("operator"))
    page.goto(f"{live_server.url}/ops/workflows/boat/api/")
    page.evaluate("document.querySelector('#f-in_width').closest('form').noValidate = true")
    page.fill("#f-in_width", "0")
    page.fill("#f-in_caption", "still here")
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_selector("[data-error-summary]")
    assert page.evaluate("document.activeElement.hasAttribute('data-error-summary')")
    assert not Axe().run(page, options=RULES).response["violations"]
    assert page.input_value("#f-in_caption") == "still here"
    page.locator("[data-error-summary] a").first.click()
    assert page.evaluate("document.activeElement.id") == "f-in_width"
    page.context.close()


def test_snippets_follow_the_form_and_languages_change_in_place(chromium, live_server, world):
    page = open_page(chromium, live_server, member("operator"))
    page.goto(f"{live_server.url}/ops/workflows/boat/api/")
    page.fill("#f-in_prompt", "<b>bold</b> & 'quoted'")
    page.locator("#snip-curl", has_text="bold").wait_for()
    assert page.locator("#snippets b").count() == 0
    page.get_by_role("link", name="Python", exact=True).click()
    assert page.locator("#snip-python").is_visible()
    assert not page.locator("#snip-curl").is_visible()
    assert "lang=python" in page.url
    assert page.locator("[data-copy-of]").get_attribute("data-target") == "snip-python"
    assert not page.complaints
    page.context.close()


def test_graph_and_node_list_say_the_same_and_the_address_keeps_the_choice(chromium, live_server, world):
    page = open_page(chromium, live_server, member("viewer"))
    page.goto(f"{live_server.url}/ops/workflows/boat/")
    assert page.locator(".dag .nd").count() == 3
    page.get_by_role("link", name="Node list").click()
    assert page.locator("[data-panel=list] tbody tr").count() == 3
    assert not page.locator(".dag").is_visible()
    page.reload()
    assert page.locator("[data-panel=list]").is_visible()
    page.context.close()


def test_new_jobs_are_announced_and_wait_until_asked_for(chromium, live_server, world, now):
    page = open_page(chromium, live_server, member("operator"))
    page.goto(f"{live_server.url}/ops/jobs/")
    before = page.locator("tbody tr").count()
    rows.job(world["house"], world["workflow"], now=timezone.now())
    page.evaluate("document.body.dispatchEvent(new Event('cp:tick'))")
    page.get_by_text("1 new, show").wait_for(timeout=15_000)
    assert page.locator("tbody tr").count() == before
    page.get_by_text("1 new, show").click()
    page.wait_for_load_state()
    assert page.locator("tbody tr").count() == before + 1
    page.context.close()


def test_everything_reads_and_the_form_runs_without_javascript(chromium, live_server, world):
    client = Client()
    client.force_login(member("operator"))
    context = chromium.new_context(java_script_enabled=False, viewport={"width": 390, "height": 900})
    context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": live_server.url}])
    page = context.new_page()
    page.goto(f"{live_server.url}/ops/workflows/boat/?view=list")
    assert page.locator("[data-panel=list] tbody tr").count() == 3
    page.goto(f"{live_server.url}/ops/jobs/?status=failed")
    assert page.locator("tbody tr").count() == 1
    assert page.get_by_role("button", name="Apply").is_visible()
    page.goto(f"{live_server.url}/ops/workflows/boat/api/")
    page.get_by_role("button", name="Run", exact=True).click()
    assert "job=" in page.url
    assert page.locator("#result").is_visible()
    context.close()
