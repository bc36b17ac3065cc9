"""Ordering and looking after are two loops: what one does in the midst of the other must not look like a loss."""

from __future__ import annotations

from datetime import datetime

import pytest

from fleet import workers
from fleet.models import Pool, Worker
from fleet.providers.base import Observed
from tests import factories

pytestmark = pytest.mark.django_db


class LaunchesWhileLooking:
    """A provider whose answer is old by the time it arrives: a worker was launched meanwhile, and noted."""

    orders, counted, knows = True, False, True

    def __init__(self, now: datetime) -> None:
        self.now = now

    def observe(self, pool: Pool) -> Observed:
        row = {"state": "ordered", "registered_at": None, "ready_at": None, "idle_since": None, "seen_at": None}
        factories.make_worker(pool, now=self.now, provider_ref={"container": "abc"}, **row)
        return Observed()


def test_a_worker_launched_while_the_provider_was_asked_is_not_taken_for_gone(now: datetime) -> None:
    pool = factories.make_pool(now=now, provider="docker")
    assert workers.look_after(pool, provider=LaunchesWhileLooking(now), fence=lambda: None, now=now) == []  # type: ignore[arg-type]
    assert Worker.objects.get(pool=pool).state == "ordered"
