"""The demo in front of a person's eyes: 50 slow jobs, and the pool's page shows it go from its base to its maximum and back, with reasons."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.thorough]
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
JOBS = 50
BASE, MAXIMUM = 1, 4
UP_S, BACK_S = 300.0, 600.0  # on a machine with much else to do


@pytest.fixture
def page():
    if not Path(CHROMIUM).exists():
        missing = f"needs Chromium at {CHROMIUM} (or CHROMIUM=path)"
        pytest.fail(missing) if os.environ.get("COMFYPLANE_REQUIRE_CHROMIUM") == "1" else pytest.skip(missing)
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        opened = browser.new_page(viewport={"width": 1440, "height": 900})
        opened.complaints = []
        opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.on("console", lambda message: opened.complaints.append(message.text) if message.type == "error" else None)
        yield opened
        browser.close()


def test_fifty_slow_jobs_take_the_demo_pool_from_its_base_to_its_maximum_and_back_before_ones_eyes(make_plane, page) -> None:
    plane = make_plane()
    plane.start()
    told = plane.credentials()
    page.goto(f"{told['base_url']}/ops/login/?next=/ops/fleet/pools/default/")
    page.fill("input[name=username]", told["operator"]["username"])
    page.fill("input[name=password]", told["operator"]["password"])
    page.press("input[name=password]", "Enter")
    page.wait_for_url("**/ops/fleet/pools/default/**")
    page.evaluate("window.stayed = true")
    assert _tile(page, "Ready workers")[1] == f"of {MAXIMUM}"
    _until(page, "the base to be ready", lambda: _ready(page) >= BASE, seconds=120, plane=plane)

    sent = plane.manage("demo_load", "--jobs", str(JOBS))
    assert f"{JOBS} jobs of night-lights were sent" in sent.stdout and "/ops/fleet/pools/default/" in sent.stdout

    seen: list[int] = []
    _until(page, "the maximum to be ready", lambda: _note(seen, _ready(page)) == MAXIMUM, seconds=UP_S, plane=plane)
    ups = [row for row in _decisions(page) if row["title"].startswith("+")]
    assert ups and all(row["why"] and row["tags"] for row in ups), "each change says why, and from which figures"
    assert any("wait" in row["why"] for row in ups), ups

    _until(page, "the base to be left", lambda: _note(seen, _ready(page)) == BASE, seconds=BACK_S, plane=plane)
    assert max(seen) == MAXIMUM, "never above its maximum"
    rows = _decisions(page)
    downs = [row for row in rows if row["title"].startswith("−")]
    assert downs and all(row["why"] for row in downs), rows
    assert _queue(page) == 0
    assert page.evaluate("window.stayed") is True, "the page was never loaded anew"
    assert page.locator("figure[data-chart] canvas").count() == 2

    page.locator("#decisions a.chip", has_text="Up").click()
    page.wait_for_url("**decisions=up**")
    page.locator("#decisions a.main-link", has_text="+").first.click()
    page.wait_for_url(re.compile("/ops/fleet/decisions/"))
    assert page.get_by_text("What else could have been done").is_visible()
    assert page.complaints == []
    with plane.client() as client:
        counts = {status: len(client.get("/v1/jobs", params={"status": status, "limit": 100}).json()["results"]) for status in ("queued", "running", "failed")}
    assert counts["queued"] == counts["running"] == 0, counts


def _tile(page, label: str) -> tuple[str, str]:
    """A tile's number and its unit."""
    value = page.locator(".tile", has=page.locator(".k", has_text=re.compile(f"^{label}$"))).locator(".v")
    number, *unit = value.inner_text().split()
    return number, " ".join(unit)


def _ready(page) -> int:
    return int(_tile(page, "Ready workers")[0])


def _queue(page) -> int:
    return int(_tile(page, "Queue")[0].replace(",", ""))


def _decisions(page) -> list[dict[str, object]]:
    rows = page.locator("#decisions tbody tr")
    return [
        {
            "title": rows.nth(i).locator("a.main-link").inner_text(),
            "why": rows.nth(i).locator("td.why").inner_text(),
            "tags": rows.nth(i).locator(".tag").all_inner_texts(),
        }
        for i in range(rows.count())
    ]


def _note(seen: list[int], value: int) -> int:
    seen.append(value)
    return value


def _until(page, what: str, true, *, seconds: float, plane) -> None:
    """Look at the page until it says so; it updates itself."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what}: {_decisions(page)}\n{plane.logs()}"
        page.wait_for_timeout(1000)
