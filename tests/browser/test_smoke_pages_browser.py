"""The smoke matrix in a real Chromium: axe finds nothing in both themes and widths, and a run asked for by keyboard appears by itself when it is over."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.test import Client
from django.utils import timezone

from billing import customers
from fleet import smoke
from fleet.models import SmokeRun
from tests import factories
from tests.controlplane import work_rows as rows
from tests.staff import member

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"], "resultTypes": ["violations"]}


@pytest.fixture
def world():
    """One that passed, one that fails in words that want to be markup, one never run, one draft."""
    now = timezone.now()
    factories.make_customer(now=now, slug=customers.HOUSE)
    made = {name: factories.make_runnable(now=now, slug=name) for name in ("good", "bad", "fresh")}
    factories.make_version(factories.make_workflow(now=now, slug="draft"), now=now, live=False, runnable=False)
    for name, error in (("good", None), ("bad", {"code": "node_failed", "message": rows.XSS, "suggestion": "Mend it."})):
        run = smoke.request(version=made[name].versions.get(), trigger="import", actor="smoke", now=now)
        smoke.close(run.id, error=error, report={"run_s": 1.5, "outputs": 1}, now=now)
    return made


def open_page(chromium, live_server, *, width=1440, theme="light"):
    client = Client()
    client.force_login(member("admin"))
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": live_server.url}])
    page = context.new_page()
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("dialog", lambda dialog: page.complaints.append(f"a dialog opened: {dialog.message}"))
    return page


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_page(chromium, live_server, world, width, theme):
    axe, found = Axe(), []
    page = open_page(chromium, live_server, width=width, theme=theme)
    for path in ("/ops/smoke/", "/ops/smoke/?show=failing", "/ops/smoke/?q=none", "/ops/smoke/bad/v1/", "/ops/smoke/draft/v1/", "/ops/workflows/bad/smoke/"):
        page.goto(live_server.url + path)
        found += [f"{path}: {v['id']} {v['nodes'][0]['html'][:160]}" for v in axe.run(page, options=RULES).response["violations"]]
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        cut = page.evaluate(
            """[...document.querySelectorAll("main section td, main section li")].filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0)
               .map(e => e.textContent.trim().slice(0, 60))"""
        )
        found += [f"{path}: cut off: {text}" for text in cut]
        if wide > 0:
            found.append(f"{path}: {wide} px wider than the page")
    assert found == []
    assert page.complaints == []


def test_a_run_is_asked_for_by_keyboard_and_its_result_appears_by_itself(chromium, live_server, world):
    page = open_page(chromium, live_server)
    page.goto(f"{live_server.url}/ops/smoke/")
    assert page.get_by_role("heading", level=1).inner_text() == "66% of endpoints covered, 1 failing"
    button = page.get_by_role("button", name="Run again bad v1")
    button.focus()
    page.keyboard.press("Enter")
    page.get_by_text("1 smoke run asked for").wait_for()
    run = SmokeRun.objects.get(state="queued")
    assert run.version.workflow.slug == "bad"
    smoke.close(run.id, error=None, report={"run_s": 0.5, "outputs": 1}, now=timezone.now())
    page.get_by_role("heading", name="66% of endpoints covered, none failing").wait_for(timeout=15_000)
    assert page.complaints == []


def test_without_scripts_the_matrix_reads_and_its_buttons_work(chromium, live_server, world):
    client = Client()
    client.force_login(member("admin"))
    context = chromium.new_context(java_script_enabled=False)
    context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": live_server.url}])
    page = context.new_page()
    page.goto(f"{live_server.url}/ops/smoke/?show=failing")
    assert page.get_by_role("row").count() == 2
    page.get_by_role("button", name="Run failing again").click()
    assert SmokeRun.objects.filter(state="queued", version__workflow__slug="bad").count() == 1
