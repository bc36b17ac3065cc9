"""The console in a real Chromium: axe in both themes and widths, the keyboard, live updates, forms without JavaScript."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from controlplane.console import roles
from fleet.models import CapacityMinute, Forecast, Job, Pool, PoolOffer, ScalingDecision, Worker
from tests import factories
from tests.controlplane import shell_rows as rows
from tests.controlplane import work_rows

sync_api = pytest.importorskip("playwright.sync_api")
axe_core = pytest.importorskip("axe_playwright_python.sync_playwright")

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"]}, "resultTypes": ["violations"]}
PATHS = (
    "/ops/",
    "/ops/fleet/",
    "/ops/fleet/pools/l40s-image/",
    "/ops/fleet/pools/l40s-image/edit/",
    "/ops/fleet/emergency/",
    "/ops/fleet/pools/l40s-image/emergency/",
    "/ops/fleet/pools/l40s-image/emergency/clear/?priority=low",
    "/ops/fleet/pools/l40s-image/?units=usd&ahead=6h",
    "/ops/fleet/pools/l40s-image/policy/",
    "/ops/fleet/pools/l40s-image/machines/",
    "/ops/fleet/pools/l40s-image/machines/new/",
    "/ops/fleet/pools/a10-staging/machines/",
    "/ops/fleet/pools/a10-staging/machines/MACHINE/",
    "/ops/fleet/pools/a10-staging/machines/MACHINE/remove/",
    "/ops/fleet/pools/l40s-image/add/",
    "/ops/fleet/pools/l40s-image/pause/",
    "/ops/fleet/pools/l40s-image/drain/",
    "/ops/fleet/decisions/DECISION/",
    "/ops/fleet/workers/WORKER/",
    "/ops/fleet/new/",
    "/ops/customers/",
    "/ops/customers/harbor/",
    "/ops/customers/new/",
    "/ops/customers/harbor/suspend/",
    "/ops/customers/harbor/keys/new/",
    "/ops/audit/",
    "/ops/search/?q=o",
    "/ops/_components/",
)


@pytest.fixture
def operator():
    roles.ensure()
    return User.objects.create_superuser("priya", password="x")


@pytest.fixture
def open_page(chromium, live_server, operator):
    """Opens a signed-in page; whatever the browser complains about fails the test."""
    contexts, said = [], []

    def opened(path="/ops/", *, width=1440, theme="light", signed_in=True, **options):
        context = chromium.new_context(viewport={"width": width, "height": 900}, base_url=live_server.url, reduced_motion="reduce", **options)
        contexts.append(context)
        if signed_in:
            client = Client()
            client.force_login(operator)
            context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": live_server.url}])
        context.add_cookies([{"name": "cp-theme", "value": theme, "url": live_server.url}])
        page = context.new_page()
        page.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: said.append(str(e)))
        go(page, path)
        return page

    yield opened
    for context in contexts:
        context.close()
    expected = ("net::ERR", "304", "404", "422", "htmx:")  # what a browser says of a refused form, and of a server that went away, which one test wants
    assert [s for s in said if not any(word in s for word in expected)] == []


@pytest.fixture
def world():
    now = timezone.now()
    made = rows.busy_world(now)
    factories.make_key(made[2], now=now)
    rows.spent(made[2], 850_000_000, now=now)
    staging = Pool.objects.create(slug="a10-staging", name="Staging", base=0, max=4, created_at=now, halted_at=now, halted_reason="3 starts in a row failed.")
    work_rows.job(made[2], made[3], now=now, status="running", created=now - timedelta(seconds=30))
    ahead_of(made[0], now)
    full = {"unavailable_until": now + timedelta(minutes=4), "unavailable_reason": "No node has room for it."}
    PoolOffer.objects.create(pool=staging, rank=1, gpu="L40S", price_per_hour_microusd=860_000, **full)
    PoolOffer.objects.create(pool=staging, rank=2, gpu="L4", market="spot", price_per_hour_microusd=310_000, most=4, interruptions=2, worker_hours=40)
    return made


def ahead_of(pool, now):
    """Minutes behind now and a forecast ahead of it, for the pool's chart and the fleet's strip."""
    CapacityMinute.objects.bulk_create(
        [CapacityMinute(pool=pool, minute=now.replace(second=0, microsecond=0) - timedelta(minutes=i), ready=2) for i in range(1, 60)]
    )
    points = [[2.0 + hour % 9, 1.0, 12.0, 9.0] for hour in range(168)]
    plan = {"floors": [3] * 168, "job_s": 10.0, "cold_start_s": 60.0, "growth": None}
    known = {"method": "seasonal", "history_days": 21, "backtest": {"wape": 0.1, "coverage": 0.8}, "usable": True, "plan": plan}
    starts = now.replace(minute=0, second=0, microsecond=0)
    Forecast.objects.create(pool=pool, made_at=now, starts_at=starts, step_s=3600, points=points, arrivals=[[9, 1, 20]] * 168, **known)


def paths():
    """The pages, those of a row by its id."""
    ids = {"DECISION": ScalingDecision.objects.first().id, "WORKER": Worker.objects.first().id, "MACHINE": PoolOffer.objects.first().id}
    return [re.sub("|".join(ids), lambda found: str(ids[found[0]]), path) for path in PATHS]


def go(page, path):
    """Open a page and wait until its fonts and charts are there."""
    page.goto(path)
    page.wait_for_timeout(120)


def violations(page):
    found = axe_core.Axe().run(page, options=RULES).response["violations"]
    return [f"{v['id']}: {v['help']} {[n['html'][:140] for n in v['nodes'][:3]]}" for v in found]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_every_page_is_free_of_axe_violations_and_never_scrolls_sideways(open_page, world, theme, width):
    page = open_page(width=width, theme=theme)
    wrong = {}
    for path in paths():
        go(page, path)
        if found := violations(page):
            wrong[path] = found
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wrong[path] = [*wrong.get(path, []), "scrolls sideways"]
    assert wrong == {}


@pytest.mark.parametrize("width", [1440, 390])
def test_the_empty_console_and_the_sign_in_page_are_free_of_axe_violations(open_page, width):
    page = open_page(width=width)
    assert violations(page) == []
    for path in ("/ops/fleet/", "/ops/customers/", "/ops/audit/", "/ops/nothing-here/"):
        go(page, path)
        assert violations(page) == [], path
    assert violations(open_page("/ops/login/", width=width, signed_in=False)) == []


@pytest.mark.thorough
def test_a_320_pixel_screen_never_scrolls_sideways(open_page, world):
    page = open_page(width=320)
    for path in paths():
        go(page, path)
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), path


def test_the_theme_is_switched_kept_and_never_flashes(open_page, world):
    page = open_page(theme="light")
    assert page.locator("html").get_attribute("data-theme") == "light"
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Switch light or dark theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "dark"


def test_charts_are_drawn_with_a_summary_and_a_table(open_page, world):
    page = open_page("/ops/")
    page.wait_for_selector("figure[data-chart] canvas")
    plots = page.locator("figure[data-chart] .plot")
    assert plots.count() == 2
    assert "jobs ended in this range" in plots.nth(0).get_attribute("aria-label")
    page.get_by_text("View as table").click()
    sync_api.expect(page.locator("details.tbl table tbody tr").nth(20)).to_be_visible()


def test_the_keyboard_reaches_search_pages_rows_and_help(open_page, world):
    page = open_page("/ops/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.press("Escape")
    page.locator("#main").focus()
    page.keyboard.press("?")
    assert page.locator("#keys").evaluate("d => d.open")
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("f")
    page.wait_for_url("**/ops/fleet/")
    page.keyboard.press("j")
    assert page.locator("tr.sel").count() == 1
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/ops/fleet/pools/"))
    page.keyboard.press("[")
    page.wait_for_url(re.compile("from="))
    page.keyboard.press("t")
    assert page.locator("#range").evaluate("d => d.open")


def test_a_live_page_takes_new_values_and_a_pause_keeps_the_old(open_page, world):
    _, _, who, made = world
    page = open_page("/ops/fleet/")
    row = page.get_by_role("row", name=re.compile("l40s-image"))
    page.evaluate("document.body.dispatchEvent(new Event('cp:tick'))")
    work_rows.job(who, made, now=timezone.now())
    sync_api.expect(row.locator("td[data-l=Queue]")).to_have_text("1", timeout=15_000)
    page.keyboard.press(".")
    assert "Paused" in page.locator("button.live").inner_text()
    Job.objects.filter(status="queued").delete()
    page.wait_for_timeout(6_000)
    assert row.locator("td[data-l=Queue]").inner_text() == "1"
    page.keyboard.press(".")
    sync_api.expect(row.locator("td[data-l=Queue]")).to_have_text("0", timeout=15_000)


def test_a_live_page_keeps_an_open_range_menu_and_its_charts(open_page, world):
    page = open_page("/ops/fleet/pools/l40s-image/")
    page.wait_for_selector("figure[data-chart] canvas")
    page.evaluate("document.querySelector('figure[data-chart] canvas').dataset.mark = '1'")
    page.evaluate("document.querySelector('details.tbl').open = true")
    with page.expect_response(lambda r: r.request.headers.get("hx-request") == "true", timeout=15_000):
        pass
    page.wait_for_timeout(300)
    assert page.locator("canvas[data-mark='1']").count() == 1
    assert page.locator("details.tbl").evaluate("d => d.open")


@pytest.mark.thorough
def test_values_that_stop_coming_are_called_stale(open_page, world):
    page = open_page("/ops/fleet/")
    page.route("**/*", lambda route: route.abort())
    sync_api.expect(page.locator("#stale")).to_be_visible(timeout=25_000)
    assert "Live updates stopped" in page.locator("#stale").inner_text()
    page.unroute("**/*")
    sync_api.expect(page.locator("#stale")).to_be_hidden(timeout=15_000)


def test_suspending_wants_the_name_before_the_button_works(open_page, world):
    page = open_page("/ops/customers/harbor/suspend/")
    button = page.get_by_role("button", name="Suspend harbor")
    assert page.evaluate("document.activeElement.name") == "confirm"
    assert button.is_disabled()
    page.keyboard.type("harbor")
    page.get_by_label("Reason").fill("Fraud")
    button.click()
    page.wait_for_url("**/ops/customers/harbor/")
    assert page.get_by_text("Suspended.", exact=True).is_visible()
    assert "is suspended" in page.locator(".toasts").inner_text()


def test_without_javascript_pages_read_and_actions_work(open_page, world):
    page = open_page("/ops/customers/harbor/suspend/", java_script_enabled=False)
    page.fill("[name=confirm]", "harbor")
    page.fill("[name=reason]", "Fraud")
    page.get_by_role("button", name="Suspend harbor").click()
    assert page.get_by_role("heading", level=1).inner_text().startswith("Harbor")
    page.goto("/ops/")
    assert "Needs you" in page.content()
    assert page.locator(".needs-js:visible").count() == 0


@pytest.mark.parametrize("script", [True, False])
def test_a_kind_of_machine_is_added_corrected_and_moved_by_hand(open_page, world, script):
    page = open_page("/ops/fleet/pools/a10-staging/machines/", java_script_enabled=script, width=390)
    page.get_by_role("link", name="Add a kind").click()
    page.get_by_label("GPU").fill("A100")
    page.get_by_label("Cost of one worker, dollars an hour").fill("-2")
    page.get_by_role("button", name="Add the kind").click()
    assert "A price cannot be negative." in page.locator("#f-price-h").inner_text() and page.get_by_label("GPU").input_value() == "A100"
    page.get_by_label("Cost of one worker, dollars an hour").fill("2")
    page.get_by_role("button", name="Add the kind").press("Enter")
    machines = page.get_by_role("table").locator(".main-link")
    assert machines.all_inner_texts() == ["L40S", "L4", "A100"]
    page.get_by_role("button", name="Try A100 on demand sooner").press("Enter")
    page.wait_for_url("**/machines/#m-*")
    assert machines.all_inner_texts() == ["L40S", "A100", "L4"]
    page.get_by_role("button", name="Ask again now").click()
    page.get_by_text("L40S is asked for again when a10-staging next needs a worker.").wait_for()
    assert page.get_by_role("heading", level=1).inner_text() == "a10-staging orders L40S first"


def test_nothing_is_asked_of_another_host(chromium, open_page, world, live_server):
    page = open_page("/ops/")
    asked = []
    page.on("request", lambda r: asked.append(r.url))
    go(page, "/ops/_components/")
    assert asked and all(url.startswith((live_server.url, "data:", "blob:")) for url in asked)
