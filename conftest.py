"""Where tests live: a directory of their own that ends with them, a key of their own, and no way to the network.

pytest-django loads the settings before any conftest, so what they took from the environment is
pointed here as well; processes that a test starts inherit the environment.
"""

from __future__ import annotations

import atexit
import ipaddress
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from django.conf import settings
from django.db.backends.sqlite3.base import DatabaseOperations
from whitenoise.middleware import WhiteNoiseMiddleware

DATA_DIR = Path(tempfile.mkdtemp(prefix="comfyplane-tests-"))
atexit.register(shutil.rmtree, DATA_DIR, ignore_errors=True)
os.environ["DATA_DIR"] = str(DATA_DIR)
# Dozens of processes are started here: they compile our modules once, not each of them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ.setdefault("SECRET_KEY", "a key for tests, long enough to derive from and never used elsewhere")


def _settle() -> None:
    settings.DATA_DIR = DATA_DIR
    settings.SECRET_KEY = os.environ["SECRET_KEY"]
    settings.STATIC_ROOT = DATA_DIR / "static"
    settings.STATIC_ROOT.mkdir()
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(DATA_DIR / "blobs")}},
    }
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    database = settings.DATABASES["default"]
    if database["ENGINE"].endswith("sqlite3"):
        # A file, not memory: threads then have connections of their own and meet the same locks as in production.
        database.setdefault("TEST", {})["NAME"] = str(DATA_DIR / "tests.sqlite3")


_settle()

# CI looks at everything; a person at a desk gets an answer within minutes.
THOROUGH = os.environ.get("COMFYPLANE_REQUIRE_CHROMIUM") == "1"

hypothesis.settings.register_profile(
    "comfyplane",
    max_examples=60 if THOROUGH else 40,
    deadline=None,  # a busy machine is not a failure
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    print_blob=True,
)
hypothesis.settings.load_profile("comfyplane")

_sql_flush = DatabaseOperations.sql_flush


def _flush_around_triggers(self: Any, style: Any, tables: Any, **options: Any) -> list[str]:
    """Transactional tests empty tables with DELETE, which append-only tables refuse: take their triggers away meanwhile."""
    with self.connection.cursor() as cursor:
        cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
        triggers = [(name, sql) for name, sql in cursor.fetchall() if name.endswith(("_no_update", "_no_delete"))]
    return [
        *(f"DROP TRIGGER {self.quote_name(name)}" for name, _ in triggers),
        *_sql_flush(self, style, tables, **options),
        *(sql for _, sql in triggers),
    ]


DatabaseOperations.sql_flush = _flush_around_triggers


_find_static = WhiteNoiseMiddleware.add_files_from_finders
_static: dict[str, Any] = {}


def _find_static_once(self: Any) -> None:
    """Each test client makes a handler of its own, which would read all static files again: a dozen milliseconds in most tests of pages."""
    if not _static:
        _find_static(self)
        _static.update(self.files)
    self.files.update(_static)


WhiteNoiseMiddleware.add_files_from_finders = _find_static_once


class NetworkIsBlockedInTests(OSError):
    """A test tried to reach beyond this machine."""


def _is_here(host: object) -> bool:
    if host in (None, "", b"", "localhost", b"localhost", socket.gethostname()):
        return True
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _guarded(connect: Callable[..., Any]) -> Callable[..., Any]:
    def guard(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(address[0]):
            raise NetworkIsBlockedInTests(f"tests may not connect to {address!r}")
        return connect(self, address)

    return guard


def _guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
    literal = isinstance(host, str) and all(part in "0123456789abcdefABCDEF.:%" for part in host)
    if not (_is_here(host) or literal):
        raise NetworkIsBlockedInTests(f"tests may not look up {host!r}")
    return _getaddrinfo(host, *args, **kwargs)


_getaddrinfo = socket.getaddrinfo
socket.socket.connect = _guarded(socket.socket.connect)  # type: ignore[method-assign]
socket.socket.connect_ex = _guarded(socket.socket.connect_ex)  # type: ignore[method-assign]
socket.getaddrinfo = _guarded_getaddrinfo


# Whole planes and containers mostly wait, for minutes: two processes run them one after the other from the start, the others all the rest.
PLANES = tuple(f"tests/integration/test_{name}" for name in ("demo_scales", "smoke_live", "up", "models_end_to_end", "real_comfyui"))
CONTAINERS = ("tests/docker/", "tests/integration/test_chaos")
FIRST = (*PLANES, *CONTAINERS, "tests/integration/")
DATABASE = {"db", "transactional_db", "live_server"}
# Shares a browser, or servers that its file starts once: one process runs all of the folder, or of the file.
TOGETHER, FILE_BY_FILE = (("planes", PLANES), ("containers", CONTAINERS), ("browser", "tests/browser/")), ("tests/integration/", "tests/fleet/agent/")


SELDOM = ("[1440-dark]", "[390-light]", "[dark-1440]", "[light-390]")
SELDOM_AXE = (*SELDOM, "[390-dark]", "[dark-390]")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """The slowest first. Pages are opened in each theme and at each width; without CI's thoroughness in one look or two of the four."""
    for item in items:
        if item.get_closest_marker("django_db") or DATABASE.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("database")  # before `-m` chooses
    yield
    items.sort(key=lambda item: next((rank for rank, start in enumerate(FIRST) if item.nodeid.startswith(start)), len(FIRST)))
    if not THOROUGH:
        long = pytest.mark.skip(reason="takes a minute; COMFYPLANE_REQUIRE_CHROMIUM=1 runs it too")
        for item in items:
            if item.get_closest_marker("thorough"):
                item.add_marker(long)
        seldom = pytest.mark.skip(reason="one or two of the four looks of a page; COMFYPLANE_REQUIRE_CHROMIUM=1 opens all")
        for item in items:
            looks = SELDOM_AXE if "axe" in item.name else SELDOM
            if item.path.parent.name == "browser" and item.name.endswith(looks):
                item.add_marker(seldom)


def pytest_xdist_auto_num_workers() -> int:
    """One more at work than there are cores for us, as some always wait."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS") or cores + 1)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests that share something heavy stay together; every other one goes wherever there is room, in the order of collection."""
    from xdist.scheduler import LoadScopeScheduling

    class Grouped(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            group = next((name for name, starts in TOGETHER if nodeid.startswith(starts)), None)
            return group or (nodeid.partition("::")[0] if nodeid.startswith(FILE_BY_FILE) else nodeid)

        def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
            scope = self._split_scope(self.registered_collections[node][item_index])
            super().mark_test_complete(node, item_index, duration)
            if all(self.assigned_work[node][scope].values()):
                del self.assigned_work[node][scope]  # it is counted anew after every test

    config.option.loadscopereorder = False
    return Grouped(config, log)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The directory of this test run."""
    return DATA_DIR
