from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.test import RequestFactory
from django.utils import timezone

from controlplane.kernel import health, loops, probes
from controlplane.kernel.models import LoopLease

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch) -> None:
    monkeypatch.setattr(health, "_migrated", False)


def ticked(now) -> None:
    loops.Runner(loops.Loop("scale", 1.0, lambda tick: "ok"), holder="a", clock=lambda: now).turn()


def failing(now) -> dict[str, str]:
    return {check.name: check.detail for check in health.readiness(now) if not check.ok}


def ask(path: str, method: str = "get"):
    view = probes.healthz if path.startswith("/healthz") else probes.readyz
    return view(getattr(RequestFactory(), method)(path))


def test_ready_means_database_migrations_and_loops(now) -> None:
    ticked(now)
    assert [(check.name, check.ok) for check in health.readiness(now)] == [("database", True), ("migrations", True), ("loops", True)]


def test_without_a_controller_it_is_not_ready_and_says_what_to_start(now) -> None:
    assert failing(now) == {"loops": "no controller has run yet: start `manage.py controller`"}


def test_late_loops_are_named(now) -> None:
    ticked(now)
    LoopLease.objects.create(name="never", every_s=1)
    assert failing(now + timedelta(seconds=90)) == {"loops": "late: never, scale (90 s ago)"}


def test_a_missing_migration_is_named_and_asked_for_again_until_applied(now, django_assert_max_num_queries) -> None:
    ticked(now)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'kernel' AND name LIKE '0002%%'")
    assert failing(now)["migrations"].endswith("to apply: kernel.0002_audit_append_only")
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO django_migrations (app, name, applied) VALUES ('kernel', '0002_audit_append_only', '2026-01-01')")
    assert failing(now) == {}
    with django_assert_max_num_queries(2):
        health.readiness(now)


def test_a_database_that_is_away_fails_all_and_asks_no_more(now, monkeypatch) -> None:
    class Away:
        def cursor(self):
            raise OperationalError("could not connect")

    monkeypatch.setattr(health, "connection", Away())
    assert set(failing(now)) == {"database", "migrations", "loops"}
    response = ask("/readyz")
    assert response.status_code == 503 and b"could not connect" in response.content


def test_alive_asks_nothing_of_the_database(django_assert_num_queries) -> None:
    with django_assert_num_queries(0):
        response = ask("/healthz")
    assert response.status_code == 200 and "no-store" in response["Cache-Control"]


def test_the_answer_is_503_until_ready_and_load_balancers_may_leave_the_controller_out() -> None:
    assert ask("/readyz").status_code == 503
    assert ask("/readyz?without=loops").status_code == 200
    ticked(timezone.now())
    assert ask("/readyz").status_code == 200 and ask("/readyz", "post").status_code == 405
