"""One Chromium for all tests of pages: it starts with the first of them and ends with the last, before tests that run loops of their own.

COMFYPLANE_CHROMIUM names another one than /usr/bin/chromium; where COMFYPLANE_REQUIRE_CHROMIUM=1 promises one its absence is an error.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = os.environ.get("COMFYPLANE_CHROMIUM") or os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
_running: list[tuple[Any, ExitStack]] = []


@pytest.fixture
def chromium() -> Iterator[Any]:
    """The browser; what a test leaves open in it is closed, so that no page goes on asking the next test's server."""
    if not _running:
        if not Path(CHROMIUM).exists():
            missing = f"no Chromium at {CHROMIUM}"
            pytest.fail(missing) if os.environ.get("COMFYPLANE_REQUIRE_CHROMIUM") == "1" else pytest.skip(missing)
        from playwright.sync_api import sync_playwright

        with ExitStack() as stack:
            os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"  # Playwright runs a loop in this thread; the ORM is used between its calls
            stack.callback(os.environ.pop, "DJANGO_ALLOW_ASYNC_UNSAFE")
            browser = stack.enter_context(sync_playwright()).chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            stack.callback(browser.close)
            _running.append((browser, stack.pop_all()))
    browser = _running[0][0]
    yield browser
    for context in browser.contexts:
        context.close()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """A fixture of wider scope would outlive this directory, and its loop would stand in the way of every other test's."""
    if _running and (nextitem is None or nextitem.path.parent != item.path.parent):
        _running.pop()[1].close()
